"""Momentum on top of any flow: its velocity becomes a force."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PyTree

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative
from flowopt.tree import add_scaled


class Carried(NamedTuple):
    """The memory of a flow with momentum."""

    inner: PyTree
    """The memory of the flow that drives it."""
    velocity: PyTree
    """v [params/time]."""


class Momentum(AbstractFlow):
    """v' = -gamma v + f,  theta' = (1 - gamma s) v + s f,  f = params_field of `flow`, whose memory goes with it.

    No `energy`: none is known for a general f. Where f = -grad R it is `Nesterov`, which has one.

    The units of f are now params/time^2. Staggered Euler with step h moves the inner memory, then v, then theta:
    `optax.chain(..., optax.trace(1 - gamma h))` with learning rate h^2, with `nesterov=True` if s = h.
    """

    flow: AbstractFlow
    """What drives the velocity."""
    friction: float
    """gamma >= 0 [1/time]."""
    lookahead: float = 0.0
    """s >= 0 [time]."""

    def __check_init__(self):
        if not isinstance(self.flow, AbstractFlow):
            raise TypeError(f"`flow` must be a flowopt.AbstractFlow; got {self.flow!r}")
        check_not_negative(friction=self.friction, lookahead=self.lookahead)

    def init(self, params):
        return Carried(self.flow.init(params), jtu.tree_map(jnp.zeros_like, params))

    def memory_field(self, params, memory, at):
        inner = self.flow.memory_field(params, memory.inner, at)
        return Carried(inner, self._acceleration(params, memory, at))

    def params_field(self, params, memory, at):
        if isinstance(self.lookahead, float | int) and self.lookahead == 0:
            return memory.velocity
        force = self.flow.params_field(params, memory.inner, at)
        share = 1 - self.friction * self.lookahead
        return jtu.tree_map(lambda v, f: share * v + self.lookahead * f, memory.velocity, force)

    def advance_memory(self, params, memory, at, h):
        memory = memory._replace(inner=self.flow.advance_memory(params, memory.inner, at, h))
        return memory._replace(
            velocity=add_scaled(memory.velocity, h, self._acceleration(params, memory, at))
        )

    def _acceleration(self, params: PyTree, memory: Carried, at) -> PyTree:
        force = self.flow.params_field(params, memory.inner, at)
        return jtu.tree_map(lambda v, f: -self.friction * v + f, memory.velocity, force)
