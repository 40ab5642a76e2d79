"""A run that comes to no number ends as diverged with the last good params: alone, in an ensemble, by any method."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from problems import Counter

import flowopt as fo

CONSTANT = {
    "gd": fo.gd(0.1),
    "momentum": fo.momentum(0.02),
    "adam": fo.adam(0.1),
    "newton": fo.Method(fo.flows.DampedNewton(10.0), diffrax.Euler(), step=0.5),
}
ADAPTIVE = {
    "euler_richardson": fo.euler_richardson(),
    "Heun, PID": fo.Method(
        fo.flows.Gradient(), diffrax.Heun(), diffrax.PIDController(rtol=1e-1, atol=1e-1), step=0.1
    ),
}


def to_the_edge(p, args):
    """Slides towards x = 0, beyond which it is NaN; y is along for the ride."""
    return jnp.sum(jnp.sqrt(p["x"]) + 0.5 * jnp.sqrt(p["x"]) ** 2) + jnp.sum(p["y"] ** 2)


def starts(n, dtype=float):
    rng = np.random.default_rng(0)
    return {
        "x": rng.uniform(0.5, 2, (n, 2)).astype(dtype),
        "y": rng.normal(size=n).astype(dtype),
    }


def start(i, dtype=float):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), starts(6, dtype))


def assert_good(end):
    for x in jax.tree.leaves((end.params, end.value, end.grad_norm, getattr(end, "grad", ()))):
        assert np.all(np.isfinite(x))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CONSTANT)
def test_the_last_good_params_are_those_of_the_run_that_stopped_there(name, dtype):
    method, first = CONSTANT[name], start(0, dtype)
    end = fo.minimise(to_the_edge, first, method, tol=1e-3)
    assert end.outcome == "diverged" and end.stats["accepted"] > 3 and end.stats["rejected"] == 1
    assert_good(end)
    assert end.params["x"].dtype == dtype
    before = fo.minimise(to_the_edge, first, method, tol=1e-3, max_steps=int(end.stats["accepted"]))
    assert before.outcome == "max_steps"
    for part in ("y", "value", "step", "solver", "controller"):
        one, other = (jax.tree.leaves(getattr(s.state, part)) for s in (end, before))
        assert all(map(np.array_equal, one, other)), part
    for one, other in zip(*map(jax.tree.leaves, (end.grad, before.grad)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6 if dtype == np.float32 else 1e-14)
    # It goes on from there, to the same end.
    again = fo.minimise(to_the_edge, end.state, method, tol=1e-3)
    assert again.outcome == "diverged" and again.stats["accepted"] == end.stats["accepted"]
    assert all(map(np.array_equal, jax.tree.leaves(again.params), jax.tree.leaves(end.params)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [*CONSTANT, *ADAPTIVE])
def test_an_ensemble_returns_the_same(name, dtype):
    method = (CONSTANT | ADAPTIVE)[name]
    settings = dict(tol=1e-3, max_steps=200)
    many = fo.ensemble(to_the_edge, starts(6, dtype), method, **settings)
    assert_good(many)
    assert np.sum(np.asarray(many.outcome == "diverged")) >= 3
    for i in range(6):
        one = fo.minimise(to_the_edge, start(i, dtype), method, **settings)
        assert_good(one)
        assert int(one.outcome.code) == many.outcome.code[i]
        if name in ADAPTIVE and dtype == np.float32:
            continue  # The last halvings at the edge are decided by rounding.
        counts = int(one.stats["accepted"]), int(one.stats["rejected"])
        assert counts == (many.accepted[i], many.rejected[i])
        rtol = 1e-3 if dtype == np.float32 else 1e-9
        np.testing.assert_allclose(many.value[i], one.value, rtol)
        np.testing.assert_allclose(many.grad_norm[i], one.grad_norm, rtol)
        np.testing.assert_allclose(many.params["x"][i], one.params["x"], rtol)


def test_a_guard_goes_round_what_is_no_number():
    end = fo.minimise(to_the_edge, start(0), fo.lyapunov(), tol=1e-3)
    assert end.outcome != "diverged" and end.stats["rejected"] > 0
    assert_good(end)


@pytest.mark.parametrize("guarded", [False, True])
def test_a_gradient_that_is_no_number_where_the_loss_is_one(guarded):
    """|x|^1/2 is 0 at 0, and falls as promised on the way there; its slope is infinite."""
    root = lambda x, args: jnp.sqrt(jnp.abs(x))
    # x - h/(2 sqrt x) = 0.
    method = fo.lyapunov(step=2.0) if guarded else fo.gd(2.0)
    end = fo.minimise(root, jnp.array(1.0), method)
    assert end.outcome == "diverged" and end.stats["accepted"] == 0 and end.stats["rejected"] == 1
    assert end.params == 1.0 and end.value == 1.0 and end.grad_norm == 0.5


@pytest.mark.parametrize("method", [fo.gd(0.1), fo.gauss_newton(0.7), fo.momentum(0.1)], ids=str)
def test_residuals(method):
    """r = sqrt(x), J = 1/(2 sqrt x): x falls by h/2 a step of gradient descent, by 2 h x a step of Gauss and Newton."""
    residuals = lambda p, args: (jnp.sqrt(p["x"]), p["y"])
    first = {"x": jnp.array([1.0, 2.0]), "y": jnp.array(1.0)}
    end = fo.least_squares(residuals, first, method, tol=1e-3)
    assert end.outcome == "diverged" and end.stats["rejected"] == 1
    assert_good(end)
    many = jax.tree.map(lambda x: x[None], first)
    ends = fo.ensemble(fo.SumOfSquares(residuals), many, method, tol=1e-3)
    np.testing.assert_allclose(ends.params["x"][0], end.params["x"], rtol=1e-12)
    assert ends.accepted[0] == end.stats["accepted"]


def test_levenberg_marquardt_goes_round():
    residuals = lambda p, args: jnp.sqrt(p) - 0.5
    end = fo.least_squares(residuals, jnp.array([4.0, 9.0]))
    assert end.outcome == "converged"
    np.testing.assert_allclose(end.params, 0.25, rtol=1e-5)


def test_what_began_as_no_number_stays_as_it_was():
    first = {"x": jnp.array([1.0, -1.0]), "y": jnp.array(1.0)}
    end = fo.minimise(to_the_edge, first, fo.gd(0.1))
    assert end.outcome == "diverged" and end.stats["accepted"] == end.stats["rejected"] == 0
    assert end.stats["grad_evals"] == 1 and np.array_equal(end.params["x"], first["x"])


def test_overflow_is_undone_too():
    end = fo.minimise(lambda x, a: jnp.sum(x**2), jnp.ones(2), fo.gd(10.0), max_steps=1000)
    assert end.outcome == "diverged" and end.stats["accepted"] > 50
    assert_good(end)


@pytest.mark.parametrize("method", [fo.gd(1e200), fo.adam(1e200)], ids=["gd", "adam"])
def test_where_the_loss_is_flat_it_is_no_convergence(method):
    """exp(-x^2) falls off so fast that loss and gradient are 0 where x is too large to be squared."""
    bell = lambda x, args: jnp.exp(-(x**2) / 2)
    first = jnp.array(1.0)
    end = fo.minimise(bell, first, method)
    many = fo.ensemble(bell, np.ones(1), method)
    assert end.outcome == "diverged" and np.all(many.outcome == "diverged")
    assert end.params == many.params[0] == first
    assert end.stats["accepted"] == many.accepted[0] == 0
    solver = fo.as_optimistix(method, rtol=1e-6, atol=1e-6)
    result = optx.minimise(bell, solver, first, throw=False).result
    assert result == optx.RESULTS.nonlinear_divergence


def test_evaluations_are_still_counted():
    """Those of the run; not those that it makes again, to where it was before the step that diverged."""
    counter = Counter(to_the_edge)
    end = fo.minimise(counter.fn, start(0), fo.gd(0.1), tol=1e-3)
    jax.effects_barrier()
    assert end.outcome == "diverged"
    kept = end.stats["accepted"]
    assert end.stats["grad_evals"] == end.stats["value_evals"] == kept + 2
    assert counter.grads == counter.values == 2 * kept + 2


def test_the_history_ends_with_the_last_good_record():
    end = fo.minimise(to_the_edge, start(0), fo.gd(0.1), tol=1e-3, history=("value", "grad_norm"))
    assert len(end.history) == end.stats["accepted"] + 1
    assert end.history["value"][-1] == end.value and np.all(np.isfinite(end.history["grad_norm"]))


def test_under_vmap():
    first = jax.tree.map(jnp.asarray, starts(6))
    run = lambda p: fo.minimise(to_the_edge, p, fo.gd(0.1), tol=1e-3, max_steps=50)
    ends = jax.vmap(run)(first)
    assert str(ends.outcome).startswith("diverged: ")
    assert_good(ends)
    np.testing.assert_array_equal(ends.value, jax.vmap(lambda p: to_the_edge(p, None))(ends.params))


def test_a_stochastic_objective():
    """The sample whose gradient is returned is the one that the last good params had seen."""
    noisy = fo.gaussian_noise(lambda x, a: jnp.sum(jnp.sqrt(x)), 0.1)
    end = fo.minimise(noisy, jnp.array([1.0, 2.0]), fo.gd(0.1), tol=1e-12)
    before = fo.minimise(noisy, jnp.array([1.0, 2.0]), fo.gd(0.1), tol=1e-12,
                         max_steps=int(end.stats["accepted"]))  # fmt: skip
    assert end.outcome == "diverged" and np.array_equal(end.params, before.params)
    np.testing.assert_allclose(end.grad, before.grad, rtol=1e-13)
