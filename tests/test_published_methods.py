"""The energy-guarded methods that have been published, against their definitions written as plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import rosenbrock

import flowopt as fo

START = jnp.array([-1.2, 1.0])
GRAD = jax.grad(rosenbrock)


def run(method, n):
    end = fo.minimise(rosenbrock, START, method, stop=lambda s: s.accepted >= n)
    assert end.stats["accepted"] == n
    return end


def test_momentum():
    b = 2.0
    lam = 1 / (4 * b)
    y, v, h = START, jnp.zeros(2), 0.1
    for _ in range(40):
        h = min(h, 1 / b)
        g, energy = GRAD(y), rosenbrock(y) + 0.5 * jnp.sum(v**2)
        while True:
            w = (1 - b * h) * v + h * g
            x = y - h * w
            if rosenbrock(x) + 0.5 * jnp.sum(w**2) - energy <= -b * lam * h * jnp.sum(w**2):
                break
            h /= 2
        y, v, h = x, w, 10_000 * h
    end = run(fo.energy_momentum(), 40)
    np.testing.assert_allclose(end.params, y, rtol=1e-7)
    np.testing.assert_allclose(end.state.memory, -v, rtol=1e-7)


def test_rmsprop():
    b, eps, lam = 10.0, 0.1, 0.5
    y, s, h = START, jnp.zeros(2), 0.1
    for _ in range(40):
        h = min(h, 1 / b)
        g = GRAD(y)
        while True:
            t = (1 - b * h) * s + b * h * g**2
            u = g / (jnp.sqrt(t) + eps)
            x = y - h * u
            if rosenbrock(x) - rosenbrock(y) <= -lam * h * jnp.sum(g * u):
                break
            h /= 2
        y, s, h = x, t, 10_000 * h
    end = run(fo.energy_rmsprop(), 40)
    np.testing.assert_allclose(end.params, y, rtol=1e-7)


@pytest.mark.parametrize("make", [fo.benchmarks.poly2, fo.benchmarks.poly3, fo.benchmarks.poly4])
@pytest.mark.parametrize(
    "method", [fo.energy_momentum(), fo.energy_rmsprop()], ids=["momentum", "rmsprop"]
)
def test_they_never_diverge(make, method):
    ds = fo.reach(make(), method, fo.uniform((-5, 5), (-5, 5)), 300, key=0)
    assert float(ds.probability.sel(end=-3)) == 0
    minima = [i for i, nature in enumerate(ds.attrs["natures"]) if nature == "minimum"]
    assert float(ds.probability.sel(end=minima).sum()) > 0.97


def test_nonmonotone_guard_stays_below_the_dissipation_demanded():
    """V(y_n) <= V(y_0) - lam sum h |V'|, and V does rise on the way."""
    guard = fo.EnergyGuard(fo.StaggeredEuler(), nonmonotone=True)
    method = fo.Method(fo.flows.HeavyBall(1.0), guard, fo.IntegralController(safety=0.5), step=0.1)
    end = fo.minimise(
        rosenbrock,
        START,
        method,
        history=("energy", "rate", "step"),
        capacity=65536,
        max_steps=60_000,
    )
    assert end.outcome == "converged" and end.history is not None
    energy, rate, step = (end.history[name] for name in ("energy", "rate", "step"))
    budget = energy[0] - 0.5 * np.concatenate([[0], np.cumsum(step[1:] * -rate[:-1])])
    # The budget starts at V(y_0) and is left with 1e-12 of it: its rounding is that of V(y_0).
    rounding = 8 * np.finfo(energy.dtype).eps * energy[0]
    assert np.all(energy <= budget + rounding)
    assert np.diff(energy).max() > 1e-6 * energy[0]
    monotone = fo.minimise(
        rosenbrock, START, fo.lyapunov(fo.flows.HeavyBall(1.0)), history="energy"
    )
    assert monotone.history is not None
    assert np.diff(monotone.history["energy"]).max() <= 1e-14 * energy[0]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="`b`"):
        fo.energy_momentum(b=0.0)
    with pytest.raises(ValueError, match="`eps`"):
        fo.energy_rmsprop(eps=-1.0)
    with pytest.raises(ValueError, match="`lam`"):
        fo.energy_rmsprop(lam=1.0)
    with pytest.raises(ValueError, match="`promise`"):
        fo.EnergyGuard(fo.StaggeredEuler(), promise="end")
    with pytest.raises(ValueError, match="`dtmax`"):
        fo.Backtracking(dtmax=0.0)
