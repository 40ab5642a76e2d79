"""The classics that optax does not have, against their recurrences written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowopt as fo
from studies.references import rosenbrock

START = 0.5 * jnp.asarray(np.random.default_rng(1).normal(size=10))
grad = jax.grad(rosenbrock)


def run(method, steps=1000):
    return np.asarray(fo.minimise(rosenbrock, START, method, tol=1e-300, max_steps=steps).params)


def test_fading_nesterov_is_nesterovs_method():
    lr, r = 1e-4, 3.0

    def step(k, state):
        x, y = state
        x_new = y - lr * grad(y, None)
        # The y after k steps, for k = 0, 1, ...: (k - 1)/(k + r - 1) at the next k.
        return x_new, x_new + k / (k + r) * (x_new - x)

    _, expected = jax.lax.fori_loop(0, 1000, step, (START, START))
    np.testing.assert_allclose(run(fo.fading_nesterov(lr, r)), expected, rtol=1e-10)


def test_inna_is_inna_in_its_own_variables():
    alpha, beta, lr = 0.5, 0.1, 1e-3

    def step(_, state):
        theta, psi = state
        common = (1 / beta - alpha) * theta - psi / beta
        return theta + lr * (common - beta * grad(theta, None)), psi + lr * common

    expected, _ = jax.lax.fori_loop(0, 1000, step, (START, (1 - alpha * beta) * START))
    np.testing.assert_allclose(run(fo.inna(lr, alpha, beta)), expected, rtol=1e-10)


def test_hessian_damping_damps_by_the_hessian():
    # theta'' + alpha theta' + beta H theta' + g = 0, by a jvp of the field itself.
    flow, y = fo.flows.HessianDamping(0.7, 0.3), (START, 0.3 * START[::-1])
    at = lambda x: fo.FlowTerm(flow, rosenbrock).at(x, None)
    field = lambda x, u: flow.params_field(x, u, at(x))
    velocity, rate = field(*y), flow.memory_field(*y, at(START))
    _, acceleration = jax.jvp(field, y, (velocity, rate))
    _, bend = jax.jvp(lambda x: grad(x, None), (START,), (velocity,))
    expected = -0.7 * velocity - 0.3 * bend - grad(START, None)
    np.testing.assert_allclose(acceleration, expected, rtol=1e-10)


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
def test_p_gradient_step_is_the_minimum_of_its_model(p):
    # Euler: argmin <g, d> + |d|^p/(p h^(p - 1)), where the gradient of that is 0.
    h = 0.1
    y = run(fo.Method(fo.flows.PGradient(p), fo.StaggeredEuler(), step=h), steps=1)
    d = y - START
    slope = grad(START, None) + np.linalg.norm(d) ** (p - 2) * d / h ** (p - 1)
    np.testing.assert_allclose(slope, 0, atol=1e-9 * np.linalg.norm(grad(START, None)))


def test_clipped_is_optax_clip_by_global_norm():
    import optax

    transformation = optax.chain(optax.clip_by_global_norm(2.0), optax.sgd(1e-3))
    x, state = START, transformation.init(START)
    for _ in range(50):
        updates, state = transformation.update(grad(x, None), state)
        x = x + updates
    method = fo.Method(fo.flows.Clipped(2.0), fo.StaggeredEuler(), step=1e-3)
    np.testing.assert_allclose(run(method, 50), x, rtol=1e-12)


def test_normalised_moves_at_unit_speed():
    y = run(fo.Method(fo.flows.Normalised(), fo.StaggeredEuler(), step=0.25), steps=1)
    np.testing.assert_allclose(np.linalg.norm(y - START), 0.25, rtol=1e-12)


@pytest.mark.parametrize(
    "flow", [fo.flows.PGradient(3.0), fo.flows.Normalised(), fo.flows.Clipped(1.0), fo.flows.Sign()]
)
def test_rescaled_gradients_rest_where_the_gradient_is_zero(flow):
    at = fo.FlowTerm(flow, lambda x, _: jnp.sum(x**4)).at(jnp.zeros(3), None)
    np.testing.assert_array_equal(flow.params_field(jnp.zeros(3), None, at), 0)
    rate = jax.grad(lambda x: jnp.sum(flow.params_field(x, None, at)))(jnp.zeros(3))
    assert np.all(np.isfinite(rate))
