"""Energies of flows: dV/dt against a difference, V along fine trajectories, and bad flows named."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import BENCHMARKS, QUADRATIC_START, quadratic, rosenbrock

import flowopt as fo

FLOWS = {
    "gradient": fo.flows.Gradient(),
    "heavy ball": fo.flows.HeavyBall(1.0),
    "frictionless": fo.flows.HeavyBall(0.0),
    "Adam": fo.flows.Adam(1.0, 2.0),
    "Adam at its bound": fo.flows.Adam(4.0, 1.0, 1e-3),
    "Adam, fast second moment": fo.flows.Adam(2.0, 1.0),
    "uncorrected Adam": fo.flows.UncorrectedAdam(1.0, 10.0),
    "uncorrected Adam at its bound": fo.flows.UncorrectedAdam(4.0, 1.0),
}


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_energy_decreases_and_its_rate_is_right(flow):
    """On poly5, whose loss is the steepest: a flow knows of a loss nothing but its value and gradient."""
    loss = BENCHMARKS[-1]().loss
    report = fo.check_flow(flow, loss, (jnp.array(0.3), jnp.array(-0.4)), duration=3.0)
    assert report.has_energy and report.samples > 1500
    assert report.decreases, str(report)
    assert report.rate_error < 2e-2, str(report)


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_rate_of_energy_against_a_central_difference(flow):
    """dV/dt by the jvp, against (V(t + d) - V(t - d))/(2 d) along a trajectory integrated to 1e-12."""
    term = fo.FlowTerm(flow, quadratic)
    d = 1e-4

    @jax.jit
    def at(t):
        return diffrax.diffeqsolve(
            term,
            diffrax.Tsit5(),
            0.0,
            t,
            None,
            term.init(QUADRATIC_START),
            stepsize_controller=diffrax.PIDController(rtol=1e-12, atol=1e-14),
            max_steps=100_000,
        ).ys

    @jax.jit
    def energy(y):
        y = jax.tree.map(lambda x: x[0], y)
        return flow.energy(y.params, y.memory, term.at(y.params, None))

    for t in jnp.array([0.3, 1.0]):
        y = jax.tree.map(lambda x: x[0], at(t))
        rate = fo.flows.flow.energy_rate(flow, y, term.at(y.params, None))
        difference = (energy(at(t + d)) - energy(at(t - d))) / (2 * d)
        assert rate <= 0
        np.testing.assert_allclose(rate, difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_energy_never_rises_along_a_fine_trajectory(flow):
    term = fo.FlowTerm(flow, rosenbrock)
    start = jnp.array([-1.2, 1.0, 0.5])
    ts = jnp.linspace(0.0, 2.0, 300)
    ys = diffrax.diffeqsolve(
        term,
        diffrax.Tsit5(),
        0.0,
        2.0,
        None,
        term.init(start),
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-12),
        max_steps=200_000,
    ).ys
    energies = jax.vmap(lambda y: flow.energy(y.params, y.memory, term.at(y.params, None)))(ys)
    assert jnp.all(jnp.diff(energies) <= 1e-8 * energies[0])


def test_check_flow_finds_where_the_energy_rises():
    report = fo.check_flow(fo.flows.UncorrectedAdam(10.0, 1.0), rosenbrock, jnp.array([-1.2, 1.0]))
    assert not report.decreases
    assert report.worst_rate > 0 and report.worst_state is not None
    assert "increases" in str(report)


def test_check_flow_finds_a_wrong_energy():
    class Wrong(fo.flows.Gradient):
        def energy(self, params, memory, at):
            return at.value + 3 * params[0]

    report = fo.check_flow(Wrong(), rosenbrock, jnp.array([-1.2, 1.0]))
    assert not report.decreases


def test_check_flow_without_energy():
    class Rotation(fo.AbstractFlow):
        def params_field(self, params, memory, at):
            return -at.grad[::-1]

    report = fo.check_flow(Rotation(), rosenbrock, jnp.array([-1.2, 1.0]))
    assert not report.has_energy and "no energy" in str(report)


def test_adam_at_time_zero_takes_the_limits():
    """m/c1 -> g and s/c2 -> g^2, so the first velocity is -g/(|g| + eps), and its energy is R."""
    flow, term = (
        fo.flows.Adam(1.0, 2.0, 1e-3),
        fo.FlowTerm(fo.flows.Adam(1.0, 2.0, 1e-3), quadratic),
    )
    y = term.init(QUADRATIC_START)
    at = term.at(y.params, None)
    expected = jax.tree.map(lambda g: -g / (jnp.abs(g) + 1e-3), at.grad)
    velocity = flow.params_field(*y, at)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-15), velocity, expected)
    assert flow.energy(*y, at) == at.value
    rate = fo.flows.flow.energy_rate(flow, y, at)
    assert jnp.isfinite(rate) and rate < 0


@pytest.mark.parametrize(
    ("method", "returned", "error", "says"),
    [
        ("params_field", lambda p: jnp.zeros(3), ValueError, "params_field must return shapes"),
        ("params_field", lambda p: {"x": p}, TypeError, "params_field must return a pytree like"),
        ("params_field", lambda p: p.astype(jnp.float32), TypeError, "keep the dtype"),
        ("memory_field", lambda p: jnp.zeros(3), ValueError, "memory_field must return shapes"),
        ("memory_field", lambda p: None, TypeError, "memory_field must return a pytree like"),
        ("energy", lambda p: p, ValueError, "energy must return a scalar"),
        ("init", lambda p: jnp.array(1), TypeError, "init must return floating"),
    ],
)
def test_a_flow_that_does_not_fit_its_state_is_named(method, returned, error, says):
    def bad(self, params, *rest):
        return returned(params)

    broken = type("Broken", (fo.flows.HeavyBall,), {method: bad})(1.0)
    params = jnp.array([-1.2, 1.0])
    with pytest.raises(error, match=says):
        fo.check_flow(broken, rosenbrock, params)
    with pytest.raises(error, match=says):
        fo.minimise(rosenbrock, params, fo.Method(broken, fo.StaggeredEuler(), step=0.1))


@pytest.mark.parametrize("name", ["tau1", "tau2", "eps"])
def test_adam_rejects_constants_that_are_not_positive(name):
    for flow in (fo.flows.Adam, fo.flows.UncorrectedAdam):
        with pytest.raises(ValueError, match=name):
            flow(**{"tau1": 1.0, "tau2": 1.0, name: 0.0})
    with pytest.raises(ValueError, match="friction"):
        fo.flows.HeavyBall(-1.0)


@pytest.mark.parametrize("argument", ["trajectories", "points", "spread", "duration"])
def test_check_flow_names_a_bad_argument(argument):
    with pytest.raises(ValueError, match=argument):
        fo.check_flow(fo.flows.Gradient(), rosenbrock, jnp.array([-1.2, 1.0]), **{argument: 0})
