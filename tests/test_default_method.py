"""The defaults: what a run takes where no method is given, and that nothing of it needs to be tuned."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from problems import QUADRATIC_START, quadratic

import flowopt as fo
from flowopt.benchmarks import more_garbow_hillstrom as least
from flowopt.benchmarks import more_garbow_hillstrom_more as general
from flowopt.objective import Evaluations
from flowopt.run.step import make_stepper
from studies.default_method import FIRST_STEPS

GENERAL = {p.name: p for p in general.general_problems()}
PROBLEMS = [
    least.rosenbrock(),
    least.helical_valley(),
    GENERAL["beale"],
    GENERAL["brown_badly_scaled"],
    GENERAL["powell_badly_scaled"],
    GENERAL["biggs_exp6"],
    GENERAL["gulf"],
]


def cost(sol):
    """In gradients: a pass is 1/2, a Hessian-vector product 2."""
    stats = sol.stats
    passes = stats["value_evals"] + stats["grad_evals"]
    return 0.5 * float(passes) + 2 * float(stats["hessian_products"])


@pytest.fixture(scope="module")
def swept():
    """Every problem from first steps of 1e-6 to 1e6."""
    steps = jnp.asarray(FIRST_STEPS)
    run = lambda fn, start: jax.vmap(
        lambda h: fo.minimise(fn, start, fo.default_method(h), max_steps=1000)
    )(steps)
    return {p: run(fo.SumOfSquares(p.residuals), jnp.asarray(p.start)) for p in PROBLEMS}


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_finds_a_published_minimum_from_every_first_step(problem, swept):
    sol = swept[problem]
    assert np.all(np.asarray(sol.outcome == "converged"))
    assert np.all(np.asarray(sol.grad_norm) < 1e-6)
    assert all(problem.reached(value, atol=1e-8) for value in np.asarray(sol.value))


def test_the_first_step_does_not_matter(swept):
    """Summed over the problems, the cost from the worst first step is less than twice that from the best."""
    totals = np.zeros(len(FIRST_STEPS))
    for sol in swept.values():
        passes = np.asarray(sol.stats["value_evals"] + sol.stats["grad_evals"])
        totals += 0.5 * passes + 2 * np.asarray(sol.stats["hessian_products"])
    assert totals.max() < 2 * totals.min()


def test_no_method_is_the_default_method():
    given = fo.minimise(quadratic, QUADRATIC_START, fo.default_method())
    sol = fo.minimise(quadratic, QUADRATIC_START)
    assert sol.outcome == "converged" and given.value == sol.value
    # A quadratic is no work: h grows a hundredfold each step, and the step becomes Newton's.
    assert int(sol.stats["accepted"]) <= 6 and int(sol.stats["rejected"]) == 0
    assert int(sol.stats["hessian_products"]) == 4 * int(sol.stats["hessian_evals"])


def test_convergence_is_quadratic():
    """At a regular minimum the error of a step is that of the one before, squared: the digits double."""
    fn, start = fo.SumOfSquares(least.freudenstein_roth().residuals), jnp.array([6.0, 5.0])
    stepper = make_stepper(fn, start, fo.default_method(), None, 1e-300, None, None)
    advance = jax.jit(lambda state: stepper.advance(state, (Evaluations(), Evaluations())))
    state, sizes = stepper.start(start), []
    for _ in range(20):
        state = advance(state)
        if state.accepted > len(sizes):
            sizes.append(float(jnp.linalg.norm(state.params - jnp.array([5.0, 4.0]))))
    errors = [e for e in sizes if 1e-13 < e < 1e-1]
    assert len(errors) >= 3
    assert all(after < 10 * before**2 for before, after in itertools.pairwise(errors[-3:]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_keeps_the_dtype(dtype):
    start = jnp.asarray([-1.2, 1.0], dtype)
    sol = fo.minimise(fo.SumOfSquares(least.rosenbrock().residuals), start, tol=1e-4)
    assert sol.outcome == "converged" and sol.params.dtype == dtype
    np.testing.assert_allclose(sol.params, 1, atol=1e-3)


@pytest.mark.parametrize("name", ["extended_rosenbrock", "broyden_tridiagonal"])
def test_large_problems_form_no_matrix(name):
    problem = getattr(general, name)(600)
    fn, start = fo.SumOfSquares(problem.residuals), jnp.asarray(problem.start)
    sols = [fo.minimise(fn, start, fo.default_method(h)) for h in (jnp.array(1e-6), jnp.array(1e6))]
    for sol in sols:
        assert sol.outcome == "converged" and problem.reached(sol.value)
        assert sol.state.model.matrix is None
        assert int(sol.stats["hessian_products"]) < 200  # a dense Hessian takes 600 at once
    assert max(map(cost, sols)) < 2 * min(map(cost, sols))


def test_large_leaves_a_region_of_negative_curvature():
    """Where conjugate gradients stop at once, the step is steepest descent of the length of the step asked for."""

    def fn(x, args):
        return jnp.sum(jnp.cos(x)) + 0.01 * jnp.sum(x**2)

    start = jnp.full(600, 0.01)
    for scale in (1e-3, 1e3):
        sol = fo.minimise(lambda x, s: s * fn(x, None), start, args=scale, tol=1e-6 * scale)
        assert sol.outcome == "converged"
        assert float(sol.value) / scale < fn(start, None)
        assert int(sol.stats["accepted"] + sol.stats["rejected"]) < 40


def test_at_least_as_robust_as_scipys_bfgs_on_steep_starts():
    """exp4 from starts where the loss is up to 1e40: SciPy's first steps overshoot, or its line search gives up."""
    network = fo.benchmarks.exp4()
    fn = lambda x, args: network.loss((x[0], x[1]))
    both = jax.jit(jax.value_and_grad(lambda x: fn(x, None)))
    ours = theirs = 0
    for start in np.random.default_rng(0).uniform(-2, 2, (12, 2)):
        ours += bool(fo.minimise(fn, jnp.asarray(start)).outcome == "converged")
        with np.errstate(all="ignore"):
            end = scipy.optimize.minimize(
                lambda x: tuple(map(np.asarray, both(x))), start, jac=True, options=dict(gtol=1e-6)
            )
        theirs += bool(np.linalg.norm(both(end.x)[1]) < 1e-6)
    assert ours == 12 and ours >= theirs


@pytest.mark.parametrize("n", [10, 600])
def test_least_squares_has_a_default_at_every_size(n):
    problem = general.broyden_tridiagonal(n)
    sol = fo.least_squares(problem.residuals, jnp.asarray(problem.start))
    assert sol.outcome == "converged" and problem.reached(sol.value)


def test_the_guard_with_the_promise_of_the_flow_never_becomes_newton():
    """As the docstring of `default_method` derives: on a theta^2/2 it keeps steps up to h a = 0.618 and no longer."""
    fn, start = lambda x, args: 0.5 * 3.0 * x[0] ** 2, jnp.array([1.0])
    solver = fo.EnergyGuard(fo.RosenbrockEuler("exact"))
    golden = (5**0.5 - 1) / 2
    for ha, kept in ((0.999 * golden, 1), (1.001 * golden, 0)):
        method = fo.Method(fo.flows.Gradient(), solver, fo.Backtracking(), step=ha / 3)
        assert int(fo.minimise(fn, start, method, max_steps=1).stats["accepted"]) == kept


def test_wrong_steps_are_named():
    with pytest.raises(ValueError, match="`step` must be finite and > 0"):
        fo.default_method(0.0)
    with pytest.raises(TypeError, match="`method` must be a flowopt"):
        fo.minimise(quadratic, QUADRATIC_START, "newton")  # pyright: ignore[reportArgumentType]


def test_the_published_values_of_the_general_problems():
    """The residuals give the values that are known in closed form or by their starts."""
    at = lambda name, x: 2 * fo.SumOfSquares(GENERAL[name].residuals)(jnp.asarray(x), None)
    solutions = {
        "beale": [3.0, 0.5],
        "brown_badly_scaled": [1e6, 2e-6],
        "powell_badly_scaled": [1.098159e-5, 9.106146],
        "gulf": [50.0, 25.0, 1.5],
        "biggs_exp6": [1.0, 10.0, 1.0, 5.0, 4.0, 3.0],
        "extended_rosenbrock": [1.0] * 10,
        "extended_powell_singular": [0.0] * 8,
        "variably_dimensioned": [1.0] * 10,
        "trigonometric": [0.0] * 10,
        "brown_almost_linear": [1.0] * 10,
    }
    for name, x in solutions.items():
        assert at(name, x) < 1e-10, name
    np.testing.assert_allclose(at("jennrich_sampson", [0.257825, 0.257825]), 124.362, rtol=1e-5)
