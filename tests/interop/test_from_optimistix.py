"""optimistix solvers as methods."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from problems import rosenbrock

import flowopt as fo

START = jnp.array([-1.2, 1.0])
HOW = dict(rtol=1e-9, atol=1e-9)


def test_its_iterates_are_optimistixs():
    solver = optx.BFGS(rtol=1e-300, atol=1e-300)
    ours = fo.minimise(rosenbrock, START, fo.from_optimistix(solver), tol=1e-300, max_steps=25)
    theirs = optx.minimise(rosenbrock, solver, START, max_steps=25, throw=False)
    np.testing.assert_allclose(ours.state.solver.y_eval, theirs.state.y_eval, rtol=1e-12)
    assert ours.stats["accepted"] == 25 and ours.stats["value_evals"] is None


@pytest.mark.parametrize(
    "solver", [optx.NonlinearCG(**HOW), optx.NelderMead(**HOW)], ids=lambda s: type(s).__name__
)
def test_minimisers(solver):
    end = fo.minimise(rosenbrock, START, fo.from_optimistix(solver), tol=1e-3, max_steps=2000)
    assert end.outcome == "converged"
    np.testing.assert_allclose(end.params, 1.0, atol=1e-2)


def test_a_least_squares_solver():
    residuals = lambda x, _: {"a": 10 * (x[1:] - x[:-1] ** 2), "b": 1 - x[:-1]}
    method = fo.from_optimistix(optx.LevenbergMarquardt(**HOW))
    assert fo.least_squares(residuals, START, method).outcome == "converged"
    with pytest.raises(TypeError, match="`fn`: LevenbergMarquardt needs residuals"):
        fo.minimise(rosenbrock, START, method)


def test_where_the_solver_is_done_the_run_ends():
    """By its own test, where the gradient's is never met."""
    bowl, method = (
        lambda x, _: jnp.sum(jnp.cosh(x - 0.3)),
        fo.from_optimistix(optx.BFGS(1e-3, 1e-3)),
    )
    end = fo.minimise(bowl, START, method, tol=1e-300, max_steps=500)
    assert end.outcome == "stalled" and end.grad_norm < 1e-6


def test_as_a_peer_in_compare():
    problem = fo.benchmarks.poly2()
    methods = {"BFGS": fo.from_optimistix(optx.BFGS(**HOW)), "default": fo.default_method()}
    starts = fo.uniform((-2, 2), (-2, 2))
    table = fo.compare(problem, methods, starts, n=30, key=0, max_steps=300, factors=())
    assert np.all(table.converged > 0.9)
    assert "BFGS" in fo.comparison_table(table)


def test_there_and_back_again():
    method = fo.from_optimistix(fo.as_optimistix(fo.momentum(1e-3)))
    ours = fo.minimise(rosenbrock, START, fo.momentum(1e-3), tol=1e-300, max_steps=50)
    back = fo.minimise(rosenbrock, START, method, tol=1e-300, max_steps=50)
    np.testing.assert_allclose(back.params, ours.params, rtol=1e-13)


@pytest.mark.parametrize("wrong", [optx.BFGS, optx.Newton(1e-3, 1e-3), jax.grad])
def test_bad_input_is_named(wrong):
    with pytest.raises(TypeError, match="`solver` must be an optimistix minimiser"):
        fo.from_optimistix(wrong)
