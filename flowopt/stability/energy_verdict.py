"""What the energy of a flow says of a critical point where no eigenvalue decides."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float

from flowopt.benchmarks import CriticalPoint, Problem
from flowopt.flows.flow import AbstractFlow, State, energy_rate, field, has_energy
from flowopt.objective import At, Evaluations
from flowopt.tree import add_scaled, inner, sum_squares

_SAMPLES, _SETTLING, _RADIUS = 64, 32, 1e-2


def stable_by_energy(
    flow: AbstractFlow, problem: Problem, point: CriticalPoint, y: State, scale: float
) -> str:
    """ "stable", "unstable" or "undecided" for the state `y` at rest at `point`, by V and the nature of the point.

    Where V = c R + K, c > 0, with K >= 0 and K = 0 at rest, and V' <= 0 near `y`:

    - at a strict minimum V is one too, so `y` is stable.   [Lyapunov 1892]
    - at a maximum, a saddle or a flat point that is no extremum, V takes lower values as near to `y` as one likes.
      If V' < 0 wherever the flow does not rest, a run started there can neither come back up nor come to rest
      nearby, where no other rest is: `y` is unstable.   [Chetaev 1934; LaSalle 1960]

    c and K are read off V; the signs of V' are sampled within 0.01 [params] of the point, the memory being what
    it becomes while the params jitter there. The nature is exact. `scale` is the fastest rate of the flow [1/time].
    """
    if not has_energy(flow) or point.nature == "undecided":
        return "undecided"
    h = jnp.asarray(0.5 / scale if scale > 0 else 1.0)
    with_loss, lower, falls, dissipates = map(bool, _signs(flow, problem.loss, y, h))
    if not with_loss or lower:
        return "undecided"
    if point.nature == "minimum":
        return "stable" if falls else "undecided"
    return "unstable" if dissipates else "undecided"


@eqx.filter_jit
def _signs(flow: AbstractFlow, loss: Any, y: State, h: Float[Array, ""]):
    """Whether V rises with R, and is lower than at rest at some sample; whether V' <= 0, and < 0, at every sample."""
    here = _at(flow, loss, y.params)

    def energy(value, memory):
        at = At(loss, y.params, None, Evaluations(), value, here.grad, flow.model)
        return flow.energy(y.params, memory, at)

    def sample(key):
        state, rate, size = _sample(flow, loss, y, h, key)
        return energy(here.value, state.memory), rate, size

    energies, rate, size = jax.vmap(sample)(jax.random.split(jax.random.key(0), _SAMPLES))
    slack = 64 * jnp.finfo(rate.dtype).eps
    rest = energy(here.value, y.memory)
    return (
        jnp.sign(jax.grad(energy)(here.value, y.memory)) == 1,
        jnp.any(energies < rest - slack * jnp.abs(rest)),
        jnp.all(rate <= slack * size),
        jnp.all(rate < -slack * size),
    )


def _sample(flow: AbstractFlow, loss: Any, y: State, h: Float[Array, ""], key: Any):
    """A state near `y`, V' there, and the size of the terms of V'."""
    like, size = y.params, jnp.asarray(_RADIUS)

    def jitter(key):
        leaves, structure = jtu.tree_flatten(like)
        keys = jax.random.split(key, len(leaves))
        moved = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
        return add_scaled(like, size, jtu.tree_unflatten(structure, moved))

    def settle(memory, key):
        params = jitter(key)
        at = _at(flow, loss, params)
        return flow.advance_memory(params, memory, at, h), None

    first, *keys = jax.random.split(key, 2)
    memory, _ = jax.lax.scan(settle, y.memory, jax.random.split(keys[0], _SETTLING))
    state = State(jitter(first), memory)
    at = _at(flow, loss, state.params)
    rate, motion = energy_rate(flow, state, at), field(flow, state, at).params
    return (
        state,
        rate,
        jnp.sqrt(sum_squares(at.grad) * sum_squares(motion)) + jnp.abs(inner(at.grad, motion)),
    )


def _at(flow: AbstractFlow, loss: Any, params: Any) -> At:
    return At(loss, params, None, Evaluations(), kind=flow.model)
