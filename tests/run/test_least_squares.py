"""Least squares: the published minima of Moré, Garbow and Hillstrom, counted beside scipy and optimistix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
import scipy.optimize

import flowopt as fo
from flowopt.benchmarks.more_garbow_hillstrom import residual_problems

CASES = [(problem, scale) for problem in residual_problems() for scale in (1, 10)]
MAX_STEPS = 2000


def start_of(problem, scale):
    return scale * jnp.asarray(problem.start)


def first_reached(problem, values):
    """How many residual evaluations until the least R so far is a published minimum; None where it never is."""
    best = np.minimum.accumulate([v if np.isfinite(v) else np.inf for v in values])
    hits = [problem.reached(v, rtol=1e-5, atol=1e-12) for v in best]
    return hits.index(True) + 1 if any(hits) else None


MET = []
"""R wherever the run in progress has evaluated it: one list, so that each problem is compiled once."""


def watch(state):
    """Asked after every attempted step, as the gradient test would be; and tells us R."""
    jax.debug.callback(lambda v: MET.append(float(v)), state.value, ordered=True)
    return state.grad_norm < 1e-12


@functools.cache
def ours():
    """For each case: (evaluations until reached, in total, Jacobians in total, R at the end)."""
    out = []
    for problem, scale in CASES:
        MET.clear()
        sol = fo.least_squares(
            problem.residuals, start_of(problem, scale), stop=watch, max_steps=MAX_STEPS
        )
        jax.effects_barrier()
        values = list(MET)
        counts = [int(sol.stats[f"{name}_evals"]) for name in ("residual", "jacobian", "grad")]
        # One residual evaluation a trial step and one at the start, one Jacobian a point kept, no more.
        assert counts[0] == len(values) == 1 + sol.state.attempted
        assert counts[1] == 1 + sol.stats["accepted"]
        assert counts[2] == 0
        out.append((first_reached(problem, values), counts[0], counts[1], float(sol.value)))
    return out


@functools.cache
def compiled(problem):
    r = lambda x: problem.residuals(x, None)
    return jax.jit(r), jax.jit(jax.jacfwd(r))


@functools.cache
def scipys():
    """The same of scipy's MINPACK, given the exact Jacobian, which it counts apart."""
    out = []
    for problem, scale in CASES:
        values, jacobians = [], []
        r, J = compiled(problem)

        def residuals(x, r=r, values=values):
            out = np.asarray(r(x))
            values.append(0.5 * out @ out)
            return out

        def jacobian(x, J=J, jacobians=jacobians):
            jacobians.append(1)
            return np.asarray(J(x))

        with np.errstate(all="ignore"):
            end = scipy.optimize.least_squares(
                residuals,
                np.asarray(start_of(problem, scale)),
                jacobian,
                method="lm",
                xtol=1e-10,
                ftol=1e-10,
                gtol=1e-10,
                max_nfev=MAX_STEPS,
            )
        counts = first_reached(problem, values), len(values), len(jacobians), end.cost
        out.append(counts)
    return out


@functools.cache
def watched(problem):
    def residuals(x, args):
        r = problem.residuals(x, args)
        jax.debug.callback(lambda v: MET.append(float(v)), 0.5 * jnp.sum(r**2))
        return r

    return residuals


@functools.cache
def optimistixs():
    """The same of optimistix, which linearises the residuals at every trial point."""
    out = []
    for problem, scale in CASES:
        MET.clear()
        end = optx.least_squares(
            watched(problem),
            optx.LevenbergMarquardt(rtol=1e-10, atol=1e-10),
            start_of(problem, scale),
            throw=False,
            max_steps=MAX_STEPS,
        )
        jax.effects_barrier()
        values = list(MET)
        value = float(0.5 * jnp.sum(problem.residuals(end.value, None) ** 2))
        out.append((first_reached(problem, values), len(values), len(values), value))
    return out


def test_published_minima_and_counts_side_by_side():
    columns = dict(flowopt=ours(), scipy=scipys(), optimistix=optimistixs())
    print(f"\n{'residual evaluations until reached/in total':44s}", *columns)
    for i, (problem, scale) in enumerate(CASES):
        cells = [f"{c[i][0] or 'not'}/{c[i][1]}, J {c[i][2]}" for c in columns.values()]
        print(f"{problem.name + ' from ' + str(scale) + ' x':44s}", *cells, sep="  ")

    def total(name, which):
        # One that never gets there is charged what it spent.
        return sum((c[0] or c[1]) if which == 0 else c[which] for c in columns[name])

    for name, column in columns.items():
        missed = [f"{p.name} x {s}" for (p, s), c in zip(CASES, column, strict=True) if not c[0]]
        print(f"{name}: until reached {total(name, 0)}, in total {total(name, 1)}; not: {missed}")
    assert all(reached for reached, *_ in columns["flowopt"])
    for other in ("scipy", "optimistix"):
        assert total("flowopt", 0) <= total(other, 0)
        assert total("flowopt", 1) <= total(other, 1)


@pytest.mark.parametrize("name", ["meyer", "box", "kowalik_osborne"])
def test_the_first_damping_does_not_matter_over_three_decades(name):
    problem = next(p for p, _ in CASES if p.name == name)
    for mu in jnp.array([0.1, 10.0, 100.0]):  # an array: compiled once
        method = fo.levenberg_marquardt(mu)
        sol = fo.least_squares(
            problem.residuals, start_of(problem, 10), method, tol=1e-9, max_steps=3000
        )
        assert problem.reached(sol.value), mu


def exponential(x, args):
    t = jnp.linspace(0, 2, 12, dtype=x["rate"].dtype)
    return {
        "a": x["scale"] * jnp.exp(-x["rate"] * t) - jnp.exp(-1.3 * t),
        "b": 0.1 * x["scale"][None],
    }


def test_params_and_residuals_may_be_pytrees():
    start = dict(scale=jnp.array(2.0), rate=jnp.array(0.5))
    sol = fo.least_squares(exponential, start, tol=1e-9)
    assert sol.outcome == "converged"
    flat = lambda x: np.concatenate(
        [
            r.ravel()
            for r in exponential(dict(scale=jnp.array(x[0]), rate=jnp.array(x[1])), 0).values()
        ]
    )
    expected = scipy.optimize.least_squares(flat, [2.0, 0.5], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    np.testing.assert_allclose(sol.value, expected.cost, rtol=1e-10)
    np.testing.assert_allclose([sol.params["scale"], sol.params["rate"]], expected.x, rtol=1e-6)


def test_float32_stays_float32():
    start = dict(scale=jnp.float32(2.0), rate=jnp.float32(0.5))
    sol = fo.least_squares(exponential, start, tol=1e-4)
    assert sol.params["scale"].dtype == sol.value.dtype == jnp.float32
    assert sol.outcome == "converged"


def affine(x, args):
    A, b = args
    return A @ x - b


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (5, 5)])
@pytest.mark.parametrize(
    "method",
    [
        fo.levenberg_marquardt(),
        fo.levenberg_marquardt(scaling="more", mu=1e-3),
        fo.gauss_newton(),
    ],
    ids=["more", "none", "gauss-newton"],
)
def test_any_shape_and_rank_of_the_jacobian(shape, method):
    rng = np.random.default_rng(0)
    m, n = shape
    full = rng.normal(size=shape)
    deficient = rng.normal(size=(m, 2)) @ rng.normal(size=(2, n))
    for A in (full, deficient):
        b = rng.normal(size=m)
        args = jnp.asarray(A), jnp.asarray(b)
        sol = fo.least_squares(affine, jnp.zeros(n), method, args=args, tol=1e-9)
        shortest = np.linalg.pinv(A) @ b
        assert sol.outcome == "converged"
        np.testing.assert_allclose(sol.value, 0.5 * np.sum((A @ shortest - b) ** 2), atol=1e-12)
        if method.flow == fo.flows.GaussNewton():
            np.testing.assert_allclose(sol.params, shortest, rtol=1e-8, atol=1e-10)


def test_gradient_methods_run_on_residuals_too():
    args = jnp.eye(2), jnp.ones(2)
    sol = fo.least_squares(affine, jnp.zeros(2), fo.gd(0.5), args=args, tol=1e-8)
    assert sol.outcome == "converged"
    assert sol.stats["jacobian_evals"] == 0
    assert sol.stats["grad_evals"] == sol.stats["residual_evals"] == 1 + sol.stats["accepted"]


def test_ensembles_run_least_squares():
    problem = CASES[0][0]
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2)))
    many = fo.ensemble(
        fo.SumOfSquares(problem.residuals), starts, fo.levenberg_marquardt(), tol=1e-9
    )
    assert np.all(many.outcome == "converged")
    one = fo.least_squares(problem.residuals, starts[3], tol=1e-9)
    np.testing.assert_allclose(many.params[3], one.params, rtol=1e-9)
    assert many.accepted[3] == one.stats["accepted"]


def test_a_run_may_be_differentiated():
    # The minimum of the linear problem is pinv(A) b: its derivative with respect to b.
    A = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))

    def minimum(b):
        sol = fo.least_squares(
            lambda x, b: A @ x - b, jnp.zeros(2), args=b, tol=1e-10, max_steps=16
        )
        return sol.params

    found = jax.jacrev(minimum)(jnp.ones(5))
    np.testing.assert_allclose(found, np.linalg.pinv(A), rtol=1e-6, atol=1e-8)


def test_wrong_arguments_name_themselves():
    x = jnp.ones(2)
    with pytest.raises(ValueError, match=r"`residuals` returned one scalar.*flowopt.minimise"):
        fo.least_squares(lambda x, _: jnp.sum(x**2), x)
    with pytest.raises(TypeError, match=r"`method`: it needs residuals.*least_squares"):
        fo.minimise(lambda x, _: jnp.sum(x**2), x, fo.levenberg_marquardt())
    with pytest.raises(TypeError, match=r"`method`: it needs residuals"):
        fo.minimise(lambda x, _: jnp.sum(x**2), x, fo.gauss_newton())
    with pytest.raises(TypeError, match="`residuals` must be callable"):
        fo.least_squares(3, x)
    with pytest.raises(TypeError, match="`residuals` must return floating arrays; got int"):
        fo.least_squares(lambda x, _: jnp.arange(3), x)
    with pytest.raises(ValueError, match="`residuals` must return at least one array"):
        fo.least_squares(lambda x, _: (), x)

    calls = []

    def changing(x, _):
        calls.append(1)
        return jnp.concatenate([x] * len(calls))

    with pytest.raises(ValueError, match="`residuals` must have the same shape at every call"):
        fo.least_squares(changing, x)
    with pytest.raises(ValueError, match="`mu` must be > 0; got 0"):
        fo.levenberg_marquardt(0)
    with pytest.raises(ValueError, match="`mu` must be > 0; got -1"):
        fo.flows.LevenbergMarquardt(-1.0)
