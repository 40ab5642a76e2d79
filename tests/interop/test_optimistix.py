"""Methods as optimistix solvers, on the problems that optimistix tests its own with, beside its BFGS."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from problems import rosenbrock

import flowopt as fo

START = jnp.array([-1.2, 1.0])


def bowl(y, matrix):
    """A quadratic form on a dict; minimum 0 at 0."""
    flat = jnp.concatenate([y["a"].reshape(-1), y["b"].reshape(-1)])
    return flat @ matrix @ flat


def matyas(y, args):
    return 0.26 * (y[0] ** 2 + y[1] ** 2) - 0.48 * y[0] * y[1]


def himmelblau(y, args):
    return (y[0] ** 2 + y[1] - 11) ** 2 + (y[0] + y[1] ** 2 - 7) ** 2


def beale(y, args):
    a, b = y
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def penalty(y, args):
    """Penalty function I of More, Garbow and Hillstrom with a milder weight: a pull to 1, a strong one to a sphere."""
    return 1e-2 * jnp.sum((y - 1) ** 2) + (jnp.sum(y**2) - 0.25) ** 2


def variably_dimensioned(y, args):
    weighted = jnp.sum(jnp.arange(1.0, y.size + 1) * (y - 1))
    return jnp.sum((y - 1) ** 2) + weighted**2 + weighted**4


def trigonometric(y, args):
    n = jnp.arange(1.0, y.size + 1)
    inner = y.size - jnp.sum(jnp.cos(y)) + n * (1 - jnp.cos(y)) - jnp.sin(y)
    return jnp.sum(inner**2)


def network(params, data):
    x, t = data
    hidden = jnp.tanh(x[:, None] * params["w"] + params["b"])
    decay = sum(jnp.sum(x**2) for x in params.values())
    return jnp.mean((hidden @ params["v"] - t) ** 2) + 1e-2 * decay


def _bowl_matrix():
    q = np.random.default_rng(0).normal(size=(5, 5))
    return jnp.asarray(q @ q.T + 0.1 * np.eye(5))


_X = jnp.linspace(-1, 1, 12)
_NET = dict(w=jnp.array([1.0, -0.5]), b=jnp.array([0.3, 0.2]), v=jnp.array([0.5, 0.4]))
PROBLEMS = {
    "bowl": (bowl, dict(a=jnp.ones((2, 1)), b=jnp.array([1.0, -2.0, 0.5])), _bowl_matrix()),
    "matyas": (matyas, jnp.array([6.0, 6.0]), None),
    "himmelblau": (himmelblau, jnp.array([1.0, 1.0]), None),
    "beale": (beale, jnp.array([2.0, 0.0]), None),
    "rosenbrock": (rosenbrock, START, None),
    "rosenbrock 6-D": (rosenbrock, jnp.full(6, 0.5), None),
    "penalty": (penalty, jnp.arange(1.0, 5.0), None),
    "variably dimensioned": (variably_dimensioned, 1 - jnp.arange(1.0, 7.0) / 6, None),
    "trigonometric": (trigonometric, jnp.full(4, 0.25), None),
    "network": (network, _NET, (_X, jnp.sin(2 * _X))),
}
SOLVERS = {
    "default": (fo.default_method(), 500),
    "guarded Euler": (fo.lyapunov(), 200_000),
    "guarded heavy ball": (fo.lyapunov(fo.flows.HeavyBall(1.0)), 200_000),
}


CASES = [("default", problem) for problem in PROBLEMS] + [
    (name, problem)
    for name in ("guarded Euler", "guarded heavy ball")
    for problem in ("beale", "penalty")
]


@functools.cache
def of_bfgs(problem):
    """As low as optimistix's BFGS comes."""
    fn, start, args = PROBLEMS[problem]
    end = optx.minimise(fn, optx.BFGS(rtol=1e-9, atol=1e-9), start, args, max_steps=1000)
    return fn(end.value, args)


@pytest.mark.parametrize(("name", "problem"), CASES)
def test_it_passes_where_bfgs_does(name, problem):
    fn, start, args = PROBLEMS[problem]
    method, max_steps = SOLVERS[name]
    solver = fo.as_optimistix(method, rtol=1e-9, atol=1e-9)
    ours = optx.minimise(fn, solver, start, args, max_steps=max_steps)
    assert isinstance(solver, optx.AbstractMinimiser)
    assert ours.result == optx.RESULTS.successful
    best = of_bfgs(problem)
    # (Another minimum of the network may be as good or better.)
    assert fn(ours.value, args) <= best + 1e-6 * (1 + abs(best))
    assert ours.stats["accepted"] + ours.stats["rejected"] == ours.stats["num_steps"]


RESIDUALS = {
    "rosenbrock": (lambda y, _: {"a": 10 * (y[1:] - y[:-1] ** 2), "b": 1 - y[:-1]}, START, None),
    "beale": (
        lambda y, c: c - y[0] * (1 - jnp.stack([y[1], y[1] ** 2, y[1] ** 3])),
        jnp.array([2.0, 0.0]),
        jnp.array([1.5, 2.25, 2.625]),
    ),
    "trigonometric": (
        lambda y, _: (
            y.size - jnp.sum(jnp.cos(y)) + jnp.arange(1.0, y.size + 1) * (1 - jnp.cos(y)) - jnp.sin(y)
        ),
        jnp.full(4, 0.25),
        None,
    ),
    "network": (
        lambda p, d: (jnp.tanh(d[0][:, None] * p["w"] + p["b"]) @ p["v"] - d[1], [0.3 * x for x in p.values()]),
        _NET,
        (_X, jnp.sin(2 * _X)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "method"),
    [(problem, fo.levenberg_marquardt()) for problem in RESIDUALS]
    + [("beale", fo.default_method())],
    ids=[*RESIDUALS, "beale, a minimiser"],
)
def test_least_squares_as_by_levenberg_marquardt(problem, method):
    fn, start, args = RESIDUALS[problem]
    theirs = optx.LevenbergMarquardt(rtol=1e-10, atol=1e-10)
    reference = optx.least_squares(fn, theirs, start, args, max_steps=1000)
    solver = fo.as_optimistix(method, rtol=1e-10, atol=1e-10)
    ours = optx.least_squares(fn, solver, start, args, max_steps=1000)
    loss = fo.SumOfSquares(fn)
    assert loss(ours.value, args) <= loss(reference.value, args) + 1e-8


def test_the_iterates_are_the_librarys_own():
    for method in (fo.default_method(), fo.lyapunov()):
        sol = optx.minimise(
            rosenbrock, fo.as_optimistix(method, 1e-300, 1e-300), START, max_steps=15, throw=False
        )
        own = fo.minimise(rosenbrock, START, method, tol=1e-300, max_steps=15)
        np.testing.assert_allclose(sol.value, own.params, rtol=1e-12)
        assert sol.result == optx.RESULTS.nonlinear_max_steps_reached


def scaled(y, scale):
    return jnp.sum((y - scale) ** 2 + 0.1 * y**4)


@pytest.mark.parametrize(
    "adjoint", [optx.ImplicitAdjoint(), optx.RecursiveCheckpointAdjoint()], ids=["implicit", "through"]
)  # fmt: skip
def test_the_end_is_differentiated_with_respect_to_args(adjoint):
    solver = fo.as_optimistix(fo.lyapunov())

    def end(scale):
        sol = optx.minimise(scaled, solver, jnp.zeros(2), scale, adjoint=adjoint, max_steps=300)
        return sol.value.sum()

    a = jnp.array(1.5)
    root = fo.minimise(scaled, jnp.zeros(2), args=a, tol=1e-12).params
    implicit = jnp.sum(2 / (2 + 1.2 * root**2))  # 2 (y - a) + 0.4 y^3 = 0
    np.testing.assert_allclose(jax.grad(end)(a), implicit, rtol=1e-5)


def test_the_end_of_least_squares_is_differentiated_with_respect_to_args():
    solver = fo.as_optimistix(fo.levenberg_marquardt())
    residuals = lambda y, a: jnp.concatenate([y - a, y**2])

    def end(a):
        return optx.least_squares(residuals, solver, jnp.ones(1), a).value[0]

    a, d = jnp.array(0.8), 1e-5
    np.testing.assert_allclose(jax.grad(end)(a), (end(a + d) - end(a - d)) / (2 * d), rtol=1e-6)


def test_under_vmap_and_best_so_far():
    starts = jnp.stack([START, START + 1, -START])
    solver = fo.as_optimistix(fo.default_method())
    ends = jax.vmap(lambda y: optx.minimise(rosenbrock, solver, y).value)(starts)
    np.testing.assert_allclose(ends, 1.0, atol=1e-6)
    best = optx.minimise(rosenbrock, optx.BestSoFarMinimiser(solver), START)
    np.testing.assert_allclose(best.value, 1.0, atol=1e-6)


def test_auxiliary_output_is_that_of_the_end():
    fn = lambda y, a: (scaled(y, a), {"twice": 2 * y, "n": jnp.array(3)})
    solver = fo.as_optimistix(fo.default_method())
    sol = optx.minimise(fn, solver, jnp.zeros(2), jnp.array(1.0), has_aux=True)
    np.testing.assert_array_equal(sol.aux["twice"], 2 * sol.value)
    assert sol.aux["n"] == 3


def test_failure_is_optimistixs_own():
    solver = fo.as_optimistix(fo.gd(1.0))
    steep = lambda y, _: 10 * jnp.sum(y**2) + jnp.sum(y)
    sol = optx.minimise(steep, solver, jnp.ones(1), max_steps=2000, throw=False)
    assert sol.result == optx.RESULTS.nonlinear_divergence or sol.result == optx.RESULTS.nonfinite
    with pytest.raises(eqx.EquinoxRuntimeError):
        jax.block_until_ready(optx.minimise(steep, solver, jnp.ones(1), max_steps=2000).value)
    # Whatever the gradient says, every move is up: no step is kept, and the run stands still.
    uphill = jax.custom_jvp(lambda y: jnp.where(y[0] == 1, 1.0, 2.0))
    uphill.defjvp(lambda p, t: (uphill(*p), jnp.sum(t[0])))
    guarded = fo.as_optimistix(fo.lyapunov(controller=fo.Backtracking()))
    sol = optx.minimise(lambda y, _: uphill(y), guarded, jnp.ones(1), max_steps=2000)
    assert sol.value == 1 and sol.stats["grad_norm"] == 1


def test_the_users_dtype_is_kept():
    start = START.astype(jnp.float32)
    fn = lambda y, _: 100 * (y[1] - y[0] ** 2) ** 2 + (1 - y[0]) ** 2
    sol = optx.minimise(fn, fo.as_optimistix(fo.default_method(), 1e-4, 1e-4), start)
    assert sol.value.dtype == jnp.float32
    np.testing.assert_allclose(sol.value, 1.0, atol=1e-3)


def test_bad_input_is_named():
    for wrong in (fo.gd, optx.BFGS(1e-3, 1e-3)):
        with pytest.raises(TypeError, match="`method`"):
            fo.as_optimistix(wrong)
    with pytest.raises(ValueError, match="`rtol`"):
        fo.as_optimistix(fo.gd(0.1), rtol=0.0)
    with pytest.raises(TypeError, match="`atol`"):
        fo.as_optimistix(fo.gd(0.1), atol="small")
    with pytest.raises(TypeError, match="`norm`"):
        fo.as_optimistix(fo.gd(0.1), norm=2)
