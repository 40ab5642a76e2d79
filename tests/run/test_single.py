"""One run: outcomes, counts, dtypes, local time, differentiation, and arguments that cannot run."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import QUADRATIC_START, Counter, quadratic, rosenbrock

import flowopt as fo

START = jnp.array([-1.2, 1.0])
METHODS = {
    "gd": fo.gd(1e-3),
    "momentum": fo.momentum(1e-3),
    "adam": fo.adam(1e-2),
    "euler_richardson": fo.euler_richardson(),
    "guarded Euler": fo.lyapunov(),
    "guarded Euler, backtracking": fo.lyapunov(controller=fo.Backtracking()),
    "guarded heavy ball": fo.lyapunov(fo.flows.HeavyBall(1.0)),
    "guarded Heun": fo.lyapunov(solver=diffrax.Heun()),
    "Heun, PID": fo.Method(
        fo.flows.Gradient(), diffrax.Heun(), diffrax.PIDController(rtol=1e-3, atol=1e-6), step=0.01
    ),
    "Tsit5, PID": fo.Method(
        fo.flows.HeavyBall(2.0), diffrax.Tsit5(), diffrax.PIDController(rtol=1e-3, atol=1e-6)
    ),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_evaluations_are_those_stated(method):
    """The counts of `stats`, taken while tracing, against an objective that counts itself at run time."""
    counter = Counter(rosenbrock)
    ends = fo.minimise(counter.fn, START, method, max_steps=200)
    jax.effects_barrier()
    stats = {k: int(v) for k, v in ends.stats.items() if k != "step"}
    assert (counter.values, counter.grads) == (stats["value_evals"], stats["grad_evals"])
    assert stats["accepted"] + stats["rejected"] <= 200


def test_one_gradient_per_accepted_step_and_one_value_per_rejected():
    ends = fo.minimise(rosenbrock, START, fo.lyapunov(controller=fo.Backtracking()), max_steps=500)
    accepted, rejected = int(ends.stats["accepted"]), int(ends.stats["rejected"])
    assert rejected > 100
    assert ends.stats["grad_evals"] == accepted + 1
    assert ends.stats["value_evals"] == accepted + rejected + 1


def test_a_pair_pays_its_inner_stage_only_for_a_rejected_step():
    ends = fo.minimise(rosenbrock, START, fo.euler_richardson(), max_steps=500)
    accepted, rejected = int(ends.stats["accepted"]), int(ends.stats["rejected"])
    assert rejected > 1
    assert ends.stats["grad_evals"] == 2 * accepted + rejected + 1


@pytest.mark.parametrize(
    ("fn", "start", "method", "settings", "outcome"),
    [
        (quadratic, QUADRATIC_START, fo.gd(0.1), {}, "converged"),
        (quadratic, QUADRATIC_START, fo.gd(0.3), {}, "diverged"),
        (quadratic, QUADRATIC_START, fo.gd(0.1), dict(max_steps=3), "max_steps"),
        (quadratic, QUADRATIC_START, fo.gd(0.1), dict(max_steps=0), "max_steps"),
        (quadratic, {"x": jnp.zeros(3), "y": jnp.array(0.0)}, fo.gd(0.1), {}, "converged"),
        (quadratic, {"x": jnp.full(3, jnp.nan), "y": jnp.array(0.0)}, fo.gd(0.1), {}, "diverged"),
        (lambda p, a: jnp.exp(p), jnp.array(1e3), fo.lyapunov(), {}, "diverged"),
        # The gradient does not vanish, but a step of 1e-30 changes nothing.
        (rosenbrock, START, fo.gd(1e-30), {}, "stalled"),
        # No step decreases |x|^1/2 with a made-up gradient that points uphill.
        (quadratic, QUADRATIC_START, fo.gd(0.1), dict(tol=1e-300, max_steps=100_000), "converged"),
    ],
)
def test_outcomes(fn, start, method, settings, outcome):
    ends = fo.minimise(fn, start, method, **settings)
    assert ends.outcome == outcome
    differs = ends.outcome != outcome
    assert not differs
    assert str(ends.outcome) == outcome and outcome in repr(ends.outcome)
    if outcome == "converged":
        assert ends.grad_norm < settings.get("tol", 1e-6)


def test_a_run_that_has_converged_at_its_start_takes_no_step():
    ends = fo.minimise(quadratic, jax.tree.map(jnp.zeros_like, QUADRATIC_START), fo.gd(0.1))
    assert ends.stats["accepted"] == 0 and ends.stats["grad_evals"] == 1


def test_outcome_names_are_checked():
    with pytest.raises(ValueError, match="outcome"):
        _ = fo.minimise(quadratic, QUADRATIC_START, fo.gd(0.1)).outcome == "convergd"


def test_stop_replaces_the_gradient_test():
    seen = fo.minimise(
        rosenbrock, START, fo.gd(1e-3), stop=lambda run: (run.value < 1.0) | (run.accepted >= 1000)
    )
    assert seen.outcome == "converged" and seen.value < 1.0 and seen.grad_norm > 1e-3
    first = fo.minimise(rosenbrock, START, fo.gd(1e-3), max_steps=int(seen.stats["accepted"]) - 1)
    assert first.value >= 1.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16], ids=str)
@pytest.mark.parametrize(
    "name", ["gd", "adam", "guarded heavy ball", "Heun, PID", "euler_richardson"]
)
def test_the_users_dtype_is_kept(dtype, name):
    start = jax.tree.map(lambda x: x.astype(dtype), QUADRATIC_START)
    fn = lambda p, args: 0.5 * jnp.sum(p["x"] ** 2) + 1.5 * p["y"] ** 2
    ends = fo.minimise(fn, start, METHODS[name], max_steps=50, tol=1e-2)
    assert all(x.dtype == dtype for x in jax.tree.leaves((ends.params, ends.grad)))
    assert float(ends.value) < float(fn(start, None))


def test_mixed_dtypes_are_kept():
    start = {"x": jnp.ones(3, jnp.float32), "y": jnp.array(2.0, jnp.float64)}
    fn = lambda p, args: jnp.sum(p["x"].astype(jnp.float64) ** 2) + p["y"] ** 2
    for method in (fo.gd(0.1), fo.lyapunov(), fo.adam(0.1)):
        ends = fo.minimise(fn, start, method)
        assert ends.params["x"].dtype == jnp.float32 and ends.params["y"].dtype == jnp.float64


def test_learning_rates_are_exact_however_long_the_run():
    """Local time: the millionth step of a constant method is as long as the first, and a tiny step is not lost
    after a huge time: (t + h) - t would be 0 here."""
    slope = lambda p, args: p
    for dtype in (jnp.float32, jnp.float64):
        h = dtype(2.0**-20)
        ends = fo.minimise(slope, dtype(1.0), fo.gd(float(h)), max_steps=200_000)
        assert ends.params == 1.0 - 200_000 * h
    huge_then_tiny = fo.Method(
        fo.flows.Gradient(), fo.EnergyGuard(fo.StaggeredEuler()), fo.Backtracking(2, 2), step=1e30
    )
    ends = fo.minimise(
        lambda p, args: 1e-25 * p**2 + jnp.where(p < 1e-3, 1e12 * p**2, 0),
        jnp.array(1.0),
        huge_then_tiny,
    )
    assert ends.outcome == "converged"


def test_under_jit_and_vmap_failure_is_data():
    run = jax.jit(
        jax.vmap(lambda s: fo.minimise(lambda p, a: p**2, s, fo.gd(0.1), tol=1e-3).outcome.code)
    )
    codes = run(jnp.array([1.0, jnp.nan, jnp.inf, 0.0, 1e-5]))
    np.testing.assert_array_equal(codes, [0, 3, 3, 0, 0])


@pytest.mark.parametrize("name", ["gd", "momentum", "adam"])
def test_differentiation_through_a_run(name):
    """d params/d args, through the run, against a central difference."""

    def end(scale):
        fn = lambda p, a: a * (p - 1.0) ** 2 + 0.1 * (p - a) ** 4
        return fo.minimise(
            fn, jnp.array(0.3), METHODS[name], args=scale, max_steps=20, tol=1e-12
        ).params

    d = 1e-6
    difference = (end(jnp.array(0.8 + d)) - end(jnp.array(0.8 - d))) / (2 * d)
    np.testing.assert_allclose(jax.grad(end)(jnp.array(0.8)), difference, rtol=1e-4)


@pytest.mark.parametrize("name", ["guarded Euler", "guarded heavy ball"])
def test_differentiation_through_an_adaptive_run(name):
    """As in Diffrax, step sizes are held fixed under differentiation; once the run has converged, so has its
    derivative, to that of the minimum: R'(p, a) = 0 gives dp/da = -R'_a/R'_p."""
    fn = lambda p, a: a * (p - 1.0) ** 2 + 0.1 * (p - a) ** 4

    def end(scale):
        return fo.minimise(fn, jnp.array(0.3), METHODS[name], args=scale, tol=1e-9).params

    a = jnp.array(0.8)
    slope = jax.grad(fn)
    implicit = -jax.grad(slope, 1)(end(a), a) / jax.grad(slope)(end(a), a)
    np.testing.assert_allclose(jax.grad(end)(a), implicit, rtol=1e-4)


def test_differentiation_with_respect_to_a_constant_of_the_method():
    def end(lr):
        return fo.minimise(quadratic, QUADRATIC_START, fo.Method(fo.flows.Gradient(), diffrax.Euler(), step=lr),
                           max_steps=10).value  # fmt: skip

    d = 1e-6
    difference = (end(jnp.array(0.05 + d)) - end(jnp.array(0.05 - d))) / (2 * d)
    np.testing.assert_allclose(jax.grad(end)(jnp.array(0.05)), difference, rtol=1e-6)


def test_the_first_step_may_be_left_to_the_controller():
    method = fo.Method(
        fo.flows.Gradient(), diffrax.Heun(), diffrax.PIDController(rtol=1e-3, atol=1e-6)
    )
    assert fo.minimise(quadratic, QUADRATIC_START, method).outcome == "max_steps"
    guarded = fo.Method(
        fo.flows.Gradient(), fo.EnergyGuard(diffrax.Heun()), fo.IntegralController()
    )
    assert fo.minimise(quadratic, QUADRATIC_START, guarded).outcome == "converged"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (dict(fn=lambda p, a: p), ValueError, "`fn` must return a scalar"),
        (dict(fn=lambda p, a: (p[0], p[1])), TypeError, "`fn` must return one scalar"),
        (dict(fn=lambda p, a: jnp.array(1)), TypeError, "`fn` must return a floating"),
        (dict(fn=3), TypeError, "`fn` must be callable"),
        (dict(params=jnp.array([1, 2])), TypeError, "`params` .* dtype int"),
        (dict(params=[1.0, "x"]), TypeError, "`params` must be a pytree of floating"),
        (dict(params=(1.0, None)), TypeError, "`params` must be a pytree of floating"),
        (dict(params=()), ValueError, "`params` holds no arrays"),
        (dict(tol=0.0), ValueError, "`tol`"),
        (dict(tol=-1.0), ValueError, "`tol`"),
        (dict(tol=float("nan")), ValueError, "`tol`"),
        (dict(tol="small"), TypeError, "`tol`"),
        (dict(max_steps=-1), ValueError, "`max_steps`"),
        (dict(max_steps=1.5), TypeError, "`max_steps`"),
        (dict(method=fo.gd), TypeError, "`method`"),
        (dict(method=diffrax.Euler()), TypeError, "`method`"),
        (dict(stop=True), TypeError, "`stop`"),
    ],
)
def test_bad_input_is_named(change, error, says):
    arguments = dict(fn=rosenbrock, params=START, method=fo.gd(1e-3)) | change
    fn, params, method = (arguments.pop(k) for k in ("fn", "params", "method"))
    with pytest.raises(error, match=says):
        fo.minimise(fn, params, method, **arguments)


@pytest.mark.parametrize(
    "solver", [diffrax.Tsit5(), diffrax.Heun(), fo.EulerRichardson()], ids=repr
)
def test_a_step_that_overflows_is_made_shorter(solver):
    """The first stage from here overflows at h = 1e120; the controller's scale must not become NaN with it."""
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-6)
    method = fo.Method(fo.flows.Gradient(), solver, controller, step=1e120)
    loss = fo.benchmarks.poly3().loss
    ends = fo.minimise(loss, (jnp.array(-4.79), jnp.array(-3.54)), method, max_steps=1000)
    # This controller hovers at the limit of stability by a minimum, and does not converge; it gets there, though.
    assert ends.stats["accepted"] > 500 and ends.grad_norm < 1 and ends.stats["step"] < 0.1


@pytest.mark.parametrize(
    "method",
    [fo.gd(0.1), fo.momentum(0.1), fo.euler_richardson(step=0.1), fo.lyapunov(step=0.1)],
    ids=str,
)
def test_the_derivative_at_a_standstill_is_that_of_a_step(method):
    """From a critical point a run does not move; from beside it, it does, and so does the derivative."""
    bowl = lambda x, args: 0.5 * x**2
    end = lambda x, steps: (
        fo.minimise(bowl, x, method, max_steps=steps, stop=lambda run: False).params
    )
    there, beside = (jax.grad(lambda x: end(x, 1))(x) for x in (0.0, 1e-6))
    assert end(0.0, 5) == 0
    np.testing.assert_allclose(there, beside, rtol=1e-9)
    assert there < 0.95
