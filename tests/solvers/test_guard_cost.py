"""What guarding costs: one value a rejected step, one gradient a kept one, and next to no arithmetic."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from problems import Counter

import flowopt as fo
from flowopt.objective import Evaluations
from flowopt.run.step import make_stepper


@pytest.fixture(scope="module")
def network():
    """The loss of a network of 9,889 params on 300 data, and its params."""
    mlp = eqx.nn.MLP(4, 1, 96, 2, activation=jnp.tanh, key=jax.random.key(0))
    params, static = eqx.partition(mlp, eqx.is_array)
    leaves, structure = jax.tree.flatten(params)
    x = jax.random.normal(jax.random.key(1), (300, 4))
    targets = jnp.sin(x.sum(axis=1, keepdims=True))

    def loss(params, args):
        net = eqx.combine(jax.tree.unflatten(structure, params), static)
        return 0.5 * jnp.mean((jax.vmap(net)(x) - targets) ** 2)

    assert sum(leaf.size for leaf in leaves) == 9_889
    return loss, leaves


def test_a_kept_step_costs_one_gradient_and_a_rejected_one_one_value(network):
    loss, params = network
    counter = Counter(loss)
    controller = fo.Backtracking(shrink=2, grow=4)
    ends = fo.minimise(counter.fn, params, fo.lyapunov(controller=controller), max_steps=40)
    jax.effects_barrier()
    accepted, rejected = int(ends.stats["accepted"]), int(ends.stats["rejected"])
    assert accepted + rejected == 40 and rejected >= 10
    assert counter.values == 1 + accepted + rejected == ends.stats["value_evals"]
    assert counter.grads == 1 + accepted == ends.stats["grad_evals"]


def test_a_guarded_step_has_the_arithmetic_of_a_bare_one(network):
    loss, params = network
    guard = fo.EnergyGuard(diffrax.Euler())
    guarded = fo.Method(fo.flows.Gradient(), guard, fo.IntegralController(), step=0.1)
    assert flops(loss, params, guarded) < 1.02 * flops(loss, params, fo.gd(0.1))


def flops(loss, params, method):
    """Of one step; a conditional is counted as if its dearer branch were taken."""
    stepper = make_stepper(loss, params, method, None, 1e-6, 100, None)
    step = jax.jit(lambda state: stepper.advance(state, (Evaluations(), Evaluations())))
    compiled = step.lower(stepper.start(params)).compile()
    return compiled.cost_analysis()["flops"]
