"""A learning-rate schedule on any flow, its step count carried as a clock."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_positive
from flowopt.tree import real_dtype


class Counted(NamedTuple):
    """The memory of a scheduled flow."""

    inner: PyTree
    """The memory of the flow itself."""
    steps: Float[Array, ""]
    """n, steps begun so far, less 1 [1]."""


class Scheduled(AbstractFlow):
    """theta' = rate(n) f,  n' = 1/period,  n(0) = -1,  f = params_field of `flow`, whose memory goes with it.

    The rate multiplies the motion of the params alone, as a learning rate does: the averages of Adam keep
    their time constants. n is a state, so the flow is autonomous. Staggered Euler with step h = `period`
    moves the clock first, so the rate of the k-th step is rate(k - 1) exactly, as in optax; n is rounded
    to the next whole number where it is within 1e-6 of it. Before n = 0 the rate is rate(0). n comes in the precision
    of the params: optax, which gives its schedules an int32, evaluates them in float32, to 1e-7.

    No `energy`: that of `flow` need not fall once theta moves at another pace than its memory. (Of a flow
    without memory it does fall, if rate > 0.)
    """

    flow: AbstractFlow
    """The flow of unit learning rate."""
    rate: Callable[[Float[Array, ""]], Any]
    """The learning rate as a function of the step count, a floating scalar: a schedule of optax, or any other."""
    period: float = 1.0
    """The time of one step [time]."""

    def __check_init__(self):
        if not isinstance(self.flow, AbstractFlow):
            raise TypeError(f"`flow` must be a flowopt.AbstractFlow; got {self.flow!r}")
        if not callable(self.rate):
            raise TypeError(f"`rate` must be a function of the step count; got {self.rate!r}")
        check_positive(period=self.period)

    def init(self, params):
        return Counted(self.flow.init(params), jnp.full((), -1, real_dtype(params)))

    def memory_field(self, params, memory, at):
        inner = self.flow.memory_field(params, memory.inner, at)
        return Counted(inner, jnp.ones_like(memory.steps) / self.period)

    def params_field(self, params, memory, at):
        n = memory.steps
        whole = jnp.round(n)
        n = jnp.where(jnp.abs(n - whole) <= 1e-6 * jnp.maximum(1, jnp.abs(n)), whole, n)
        rate = jnp.asarray(self.rate(jnp.maximum(n, 0)), n.dtype)
        field = self.flow.params_field(params, memory.inner, at)
        return jtu.tree_map(lambda f: rate.astype(f.dtype) * f, field)

    def advance_memory(self, params, memory, at, h):
        inner = self.flow.advance_memory(params, memory.inner, at, h)
        return Counted(inner, memory.steps + h.astype(memory.steps.dtype) / self.period)
