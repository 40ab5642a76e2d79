"""Noise on the gradient: recurrences by hand, stationary moments, bits that depend on the start alone; the SDE."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import starts

import flowopt as fo
from flowopt.stochastic import Stochastic, key_of_start

POLY2 = fo.benchmarks.poly2()
METHODS = {
    "GD": fo.gd(0.01),
    "Adam": fo.adam(0.05),
    "guarded": fo.lyapunov(),
    "Euler-Richardson": fo.euler_richardson(0.01),
    "Tsit5": fo.Method(fo.flows.Gradient(), diffrax.Tsit5(), step=0.01),
    "implicit": fo.Method(fo.flows.Gradient(), diffrax.ImplicitEuler(), step=0.01),
}
NEVER = lambda run: False


def bowl(params, args):
    return 0.5 * jnp.sum(params**2)


def keys_of(noisy: Stochastic, start):
    """The key of each step of the run from `start`."""
    run = key_of_start(noisy.key, start)
    return lambda n: jax.random.fold_in(run, n)


def test_gd_and_momentum_by_hand():
    """g_n = grad R(theta_n) + sigma xi_n, the sample of step n at the point of step n."""
    start = jnp.array([1.0, -2.0, 0.5])
    noisy = fo.gaussian_noise(bowl, 0.3, key=4)
    key = keys_of(noisy, start)
    draw = lambda n: jax.random.normal(jax.random.split(key(n), 1)[0], (3,))
    theta, other, m = start, start, jnp.zeros(3)
    for n in range(20):
        theta = theta - 0.1 * (theta + 0.3 * draw(n))
        m = 0.9 * m + other + 0.3 * draw(n)
        other = other - 0.05 * m
    run = lambda method: fo.minimise(noisy, start, method, max_steps=20, stop=NEVER)
    np.testing.assert_allclose(run(fo.gd(0.1)).params, theta, rtol=1e-12)
    np.testing.assert_allclose(run(fo.momentum(0.05, 0.9)).params, other, rtol=1e-12)
    assert run(fo.gd(0.1)).stats["grad_evals"] == 21


def test_minibatches_by_hand():
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(12, 2))), jnp.asarray(rng.normal(size=12))
    loss = lambda p, batch: 0.5 * jnp.mean((batch[0] @ p - batch[1]) ** 2)
    noisy = fo.minibatch(loss, (x, y), 4, key=2)
    theta = start = jnp.array([0.3, -0.1])
    key = keys_of(noisy, start)
    for n in range(10):
        rows = jax.random.choice(key(n), 12, (4,), replace=False)
        theta = theta - 0.1 * jax.grad(loss)(theta, (x[rows], y[rows]))
    end = fo.minimise(noisy, start, fo.gd(0.1), max_steps=10)
    np.testing.assert_allclose(end.params, theta, rtol=1e-12)
    # All rows at once: no noise at all.
    whole = fo.minimise(fo.minibatch(loss, (x, y), 12), start, fo.gd(0.1), max_steps=50)
    exact = fo.minimise(loss, start, fo.gd(0.1), args=(x, y), max_steps=50)
    np.testing.assert_allclose(whole.params, exact.params, rtol=1e-12)


def test_stationary_variance():
    """theta <- (1 - h) theta - h sigma xi on R = |theta|^2/2: variance h^2 sigma^2/(1 - (1 - h)^2), no correlation."""
    h, sigma, n = 0.2, 0.5, 4000
    begin = 1e-3 * np.random.default_rng(0).normal(size=(n, 2))
    noisy = fo.gaussian_noise(bowl, sigma)
    end = fo.ensemble(noisy, begin, fo.gd(h), max_steps=60, stop=NEVER).params
    variance = (h * sigma) ** 2 / (1 - (1 - h) ** 2)
    np.testing.assert_allclose(np.cov(end.T), variance * np.eye(2), atol=0.06 * variance)
    assert np.all(np.abs(end.mean(axis=0)) < 4 * np.sqrt(variance / n))


@pytest.mark.parametrize("name", ["GD", "guarded"])
def test_noise_depends_on_the_start_alone(name):
    method, noisy = METHODS[name], fo.gaussian_noise(POLY2.loss, 0.2)
    begin = starts(150, -1.5, 1.5)
    run = lambda b, fn=noisy, **kw: fo.ensemble(fn, b, method, max_steps=80, stop=NEVER, **kw)
    all_at_once = run(begin, width=256).params
    order = np.random.default_rng(1).permutation(150)
    shuffled = run(tuple(x[order] for x in begin), width=64).params
    for a, b in zip(all_at_once, shuffled, strict=True):
        np.testing.assert_array_equal(a[order], b)
    other = run(begin, fo.gaussian_noise(POLY2.loss, 0.2, key=1), width=64).params
    assert np.all(other[0] != all_at_once[0])
    # A start changed in its last bit: the noise is another altogether.
    moved = run((np.nextafter(begin[0], 9), begin[1]), width=64).params
    assert np.median(np.abs(moved[0] - all_at_once[0])) > 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_no_noise_is_the_loss_itself(name):
    """sigma = 0, through the same machinery: every solver takes its stages, and its next gradient, from one sample."""
    start, method = (jnp.array(1.2), jnp.array(0.4)), METHODS[name]
    plain = fo.minimise(POLY2.loss, start, method, max_steps=60, tol=1e-3)
    noisy = fo.minimise(fo.gaussian_noise(POLY2.loss, 0.0), start, method, max_steps=60, tol=1e-3)
    np.testing.assert_allclose(noisy.params, plain.params, rtol=1e-9)
    assert noisy.stats["accepted"] == plain.stats["accepted"]


def test_a_guard_compares_on_one_sample():
    """Noise so strong that R at the two ends of a step differs by more across samples than along the step."""
    loud = Stochastic(lambda p, args, key: bowl(p, args) + 1e3 * jax.random.normal(key))
    start = jnp.array([1.0, 2.0])
    method = fo.lyapunov(solver=fo.StaggeredEuler(), step=1e-3)
    stop = lambda run: jnp.sum(run.params**2) < 1e-10
    guarded = fo.minimise(loud, start, method, max_steps=500, stop=stop)
    assert guarded.outcome == "converged"
    # The samples do differ: the value that is kept at the end is that of one.
    assert abs(guarded.value) > 1


def test_float32_stays_float32():
    start = {"w": jnp.ones((3, 2), jnp.float32), "b": jnp.ones(2, jnp.float16)}
    fn = lambda p, args: jnp.sum(p["w"] ** 2) + jnp.sum(p["b"].astype(jnp.float32) ** 2)
    end = fo.minimise(fo.gaussian_noise(fn, 0.1), start, fo.gd(0.01), max_steps=5)
    assert end.params["w"].dtype == jnp.float32 and end.params["b"].dtype == jnp.float16
    assert end.outcome == "max_steps"


def test_a_tolerance_changed_compiles_nothing():
    traced = []

    def fn(params, args):
        traced.append(1)
        return bowl(params, args)

    for sigma in (0.1, 0.2, 0.3):
        fo.minimise(fo.gaussian_noise(fn, sigma), jnp.ones(2), fo.gd(0.1), max_steps=3)
        first = len(traced) if sigma == 0.1 else first
    # Arguments are checked by tracing once a run; the run itself is not traced again.
    assert len(traced) - first < first


@pytest.mark.parametrize(
    "solver", [None, diffrax.Euler(), diffrax.Heun()], ids=["SRA1", "Euler", "Heun"]
)
def test_the_sde_is_that_of_ornstein_and_uhlenbeck(solver):
    """R = a |theta|^2/2: mean theta_0 exp(-a t), variance sigma^2 (1 - exp(-2 a t))/(2 a)."""
    a, sigma, t, n = 2.0, 0.5, 0.5, 4000
    fn = lambda p, args: a * bowl(p, args)
    begin = 1 + 1e-9 * np.random.default_rng(0).normal(size=(n, 2))
    end = fo.diffuse(fn, begin, sigma, t, 0.025, solver=solver)
    variance = sigma**2 * -np.expm1(-2 * a * t) / (2 * a)
    np.testing.assert_allclose(np.cov(end.T), variance * np.eye(2), atol=0.08 * variance)
    # Euler's own error in the mean is h a^2 t/2 relative; the others have none to speak of.
    bias = 0.025 if isinstance(solver, diffrax.Euler) else 0.0
    mean = np.exp(-a * t) * (1 - bias)
    np.testing.assert_allclose(end.mean(axis=0), mean, atol=4 * np.sqrt(variance / n))
    again = fo.diffuse(fn, np.roll(begin, 7, axis=0), sigma, t, 0.025, solver=solver)
    np.testing.assert_allclose(np.roll(again, -7, axis=0), end, rtol=1e-12)
    if isinstance(solver, diffrax.Euler):  # compiled anew for another number of starts
        few = fo.diffuse(fn, begin[5:9], sigma, t, 0.025, solver=solver)
        np.testing.assert_allclose(few, end[5:9], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fo.gaussian_noise(bowl, -1.0), ValueError, "`sigma`"),
        (lambda: fo.gaussian_noise(bowl, float("nan")), ValueError, "`sigma`"),
        (lambda: fo.gaussian_noise(bowl, 1.0, key="a"), TypeError, "`key`"),
        (lambda: fo.Stochastic(3), TypeError, "`fn`"),
        (lambda: fo.minibatch(bowl, np.ones((5, 2)), 6), ValueError, "`size`"),
        (lambda: fo.minibatch(bowl, np.ones((5, 2)), 0), ValueError, "`size`"),
        (lambda: fo.minibatch(bowl, (np.ones(5), np.ones(4)), 2), ValueError, "`data`"),
        (lambda: fo.diffuse(bowl, np.ones((2, 2)), -1.0, 1.0, 0.1), ValueError, "`sigma`"),
        (lambda: fo.diffuse(bowl, np.ones((2, 2)), 1.0, 0.0, 0.1), ValueError, "`t1`"),
        (lambda: fo.diffuse(bowl, np.ones((2, 2)), 1.0, 1.0, None), TypeError, "`step`"),
        (lambda: fo.diffuse(bowl, np.ones(()), 1.0, 1.0, 0.1), ValueError, "`starts`"),
        (lambda: fo.diffuse(bowl, np.ones((2, 2)), 1.0, 1.0, 0.1, solver=fo.StaggeredEuler()), TypeError, "`solver`"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
