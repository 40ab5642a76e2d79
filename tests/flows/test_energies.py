"""Every energy falls under its stated condition, V' is what it should be, and without the condition V may rise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowopt as fo
from flowopt.flows.flow import State, energy_rate, has_energy

F = fo.flows
POLY2 = fo.benchmarks.poly2().loss


def residuals(x, args):
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0], 0.3 * x[0] * x[1]])


SMOOTH = {
    "fading nesterov": F.FadingNesterov(),
    "adam, tau1 = 3.9 tau2": F.Adam(1.0, 0.26, eps_root=1e-6),
    "amsgrad": F.AMSGrad(1.0, 0.3, 0.1),
    "adabelief": F.AdaBelief(1.0, 0.3),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_energy_falls_along_the_flow(name):
    start = (jnp.array(0.3), jnp.array(-0.2))
    report = fo.check_flow(
        SMOOTH[name], POLY2, start, duration=3.0, spread=0.3, trajectories=8, points=32
    )
    assert report.samples >= 200
    assert report.decreases, str(report)
    assert report.rate_error < 1e-3, str(report)


def test_energy_of_adam_may_rise_beyond_its_condition():
    # tau1 = 40 tau2: the condition tau1 <= 4 tau2 is not idle.
    start = (jnp.array(0.3), jnp.array(-0.2))
    report = fo.check_flow(F.Adam(4.0, 0.1), POLY2, start, duration=3.0, spread=0.3, trajectories=8)
    assert not report.decreases


def rates(flow, n=200, seed=0, memory=None, fn=None):
    """V' at n random params, with random memories where given."""
    fn = fo.SumOfSquares(residuals) if fn is None else fn
    key = jax.random.split(jax.random.key(seed), 2)
    x = jax.random.normal(key[0], (n, 2))

    def rate(x, key):
        m = flow.init(x) if memory is None else memory(x, key)
        y = State(x, m)
        return energy_rate(flow, y, fo.FlowTerm(flow, fn).at(x, None))

    return np.asarray(jax.jit(jax.vmap(rate))(x, jax.random.split(key[1], n)))


ANYWHERE = {
    "p = 1.2": F.PGradient(1.2),
    "p = 4": F.PGradient(4.0),
    "normalised": F.Normalised(),
    "clipped": F.Clipped(3.0),
    "sign": F.Sign(),
    "adagrad": F.AdaGrad(1.0, 1e-8, 1e-8, 0.1),
    "rmsprop": F.RMSProp(1.0, initial=1.0),
    "rmsprop, centred": F.RMSProp(1.0, 1e-4, centred=True, bias_correction=True),
    "newton": F.Newton(),
    "gauss-newton": F.GaussNewton(),
    "levenberg-marquardt": F.LevenbergMarquardt(0.1),
}


@pytest.mark.parametrize("name", ANYWHERE)
def test_energy_falls_everywhere(name):
    found = rates(ANYWHERE[name])
    assert np.all(np.isfinite(found)) and np.all(found < 0)


def test_rates_are_those_of_the_table():
    fn = fo.SumOfSquares(residuals)
    x = jnp.array([0.3, -0.8])
    g = jax.grad(fn)(x, None)
    size = float(jnp.linalg.norm(g))
    J = jax.jacobian(residuals)(x, None)
    expected = {
        F.Gradient(): -(size**2),
        F.PGradient(3.0): -(size**1.5),
        F.Normalised(): -size,
        F.Clipped(3.0): -min(1, 3 / size) * size**2,
        F.Sign(): -float(jnp.sum(jnp.abs(g))),
        F.Newton(): -(size**2),
        F.LevenbergMarquardt(0.2): -float(g @ jnp.linalg.solve(J.T @ J + 0.2 * jnp.eye(2), g)),
    }
    for flow, rate in expected.items():
        at = fo.FlowTerm(flow, fn).at(x, None)
        np.testing.assert_allclose(energy_rate(flow, State(x, None), at), rate, rtol=1e-10)


@pytest.mark.parametrize(
    "flow",
    [
        F.HeavyBall(0.5),
        F.Nesterov(0.5, 0.3),
        F.Nesterov(0.5, 2.0),
        F.HessianDamping(0.5, 0.1),
        F.HessianDamping(3.0, 2.0),
    ],
    ids=str,
)
def test_energy_falls_for_any_velocity(flow):
    found = rates(flow, memory=lambda x, key: 10 * jax.random.normal(key, x.shape))
    assert np.all(found < 0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_energy_of_lion_falls_for_any_momentum_in_the_box(share, decay):
    memory = lambda x, key: 5 * jax.random.normal(key, x.shape)
    quartic = lambda x, _: jnp.sum((x**2 - 1) ** 2) + x[0] * x[1]
    found = rates(F.Lion(0.7, share, decay), memory=memory, fn=lambda x, a: quartic(x, a))
    x = np.asarray(jax.random.normal(jax.random.split(jax.random.key(0), 2)[0], (200, 2)))
    inside = np.all(np.abs(decay * x) <= 1, axis=1)
    assert inside.sum() > 100
    assert np.all(found[inside] <= 1e-12)


def test_damped_newton_needs_a_positive_definite_matrix():
    saddle = lambda x, _: x[0] ** 2 - x[1] ** 2 + 0.25 * jnp.sum(x**4)
    below, above = (rates(F.DampedNewton(mu), fn=saddle) for mu in (1.0, 2.1))
    assert np.any(~np.isfinite(below))
    assert np.all(above < 0)


def test_flows_without_a_lyapunov_function_define_none():
    none = (F.AdamW, F.NAdam, F.AdaMax, F.Momentum, F.Scheduled)
    for kind in none:
        assert kind.energy is fo.AbstractFlow.energy
        assert "No `energy`" in kind.__doc__
    assert has_energy(F.Adam(1.0, 1.0))
    with pytest.raises(ValueError, match="`flow`: AdamW defines no energy"):
        fo.lyapunov(F.AdamW(1.0, 1.0))


def test_adam_and_its_kin_start_at_their_limits():
    # At t = 0: theta' = -g/(|g| + eps) for those whose averages are corrected.
    x = jnp.array([0.3, -0.8])
    fn = fo.SumOfSquares(residuals)
    g = jax.grad(fn)(x, None)
    for flow in (
        F.Adam(1.0, 1.0),
        F.AMSGrad(1.0, 1.0, 0.1),
        F.AdaMax(1.0, 1.0, 0.1),
        F.AdaBelief(1.0, 1.0),
        F.NAdam(1.0, 1.0, 0.1),
        F.RMSProp(1.0, bias_correction=True),
    ):
        field = flow.params_field(x, flow.init(x), fo.FlowTerm(flow, fn).at(x, None))
        np.testing.assert_allclose(field, -jnp.sign(g), rtol=1e-6)
    # v/t -> -g/(1 + r).
    flow = F.FadingNesterov(3.0)
    rate = flow.memory_field(x, flow.init(x), fo.FlowTerm(flow, fn).at(x, None))
    np.testing.assert_allclose(rate.velocity, -g / 4)
