"""Nesterov's accelerated gradient: friction that is constant, or fades with time."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative, check_positive
from flowopt.tree import real_dtype, sum_squares


class Nesterov(AbstractFlow):
    """v' = -gamma v - g,  theta' = (1 - gamma s) v - s g,  g = grad R(theta).

    V = R + (1 - gamma s) |v|^2/2,  dV/dt = -s |g|^2 - gamma (1 - gamma s) |v|^2 <= 0 if gamma s <= 1.

    Derivation: dV/dt = (1 - gamma s) <g, v> - s |g|^2 + (1 - gamma s) <v, -gamma v - g>, and <g, v> cancels.
    At s = 0 it is the heavy ball; s > 0 looks ahead by the time s, which adds the gradient's own
    dissipation.   [Nesterov 1983, for strongly convex R 2004; as an ODE: Wibisono et al. 2016, Shi et al. 2022]

    Units: v in params/time, time in params/sqrt(loss). Staggered Euler with step h = s is momentum with
    Nesterov's look-ahead, learning rate h^2 and decay beta = 1 - gamma h (`optax.sgd(..., nesterov=True)`).
    """

    friction: float
    """gamma >= 0 [1/time]."""
    lookahead: float = 0.0
    """s >= 0 [time]."""

    def __check_init__(self):
        check_not_negative(friction=self.friction, lookahead=self.lookahead)

    def init(self, params):
        return jtu.tree_map(jnp.zeros_like, params)

    def memory_field(self, params, memory, at):
        return jtu.tree_map(lambda v, g: -self.friction * v - g, memory, at.grad)

    def params_field(self, params, memory, at):
        share = 1 - self.friction * self.lookahead
        return jtu.tree_map(lambda v, g: share * v - self.lookahead * g, memory, at.grad)

    def energy(self, params, memory, at):
        share = 1 - self.friction * self.lookahead
        return at.value + 0.5 * share * sum_squares(memory)


class Rolling(NamedTuple):
    """The memory of a flow whose friction depends on how long it has rolled."""

    velocity: PyTree
    """v [params/time]."""
    clock: Float[Array, ""]
    """t, the time since the start [time]."""


class FadingNesterov(AbstractFlow):
    """v' = -gamma v - g,  theta' = (1 - gamma s) v - s g,  t' = 1,  gamma = r/(t + (r - 1) s),  g = grad R(theta).

    At s = 0 (the default) this is theta'' + (r/t) theta' + grad R = 0:  V = R + |v|^2/2,
    dV/dt = -(r/t) |v|^2 <= 0.   [Su, Boyd and Candes 2016]

    For s > 0, V = R + (1 - gamma s) |v|^2/2 and gamma' = -gamma^2/r give
    dV/dt = -s |g|^2 - gamma (1 - gamma s (1 + 1/(2r))) |v|^2, which is <= 0 for t >= 1.5 s: from the second
    step on. Before that it may rise. For convex R, r >= 3 the flow has R - min R = O(1/t^2).

    The clock is a state, so the flow is autonomous. At t = s = 0, where v = 0, the friction takes its
    limit: v/t -> -g/(1 + r). Units as in `Nesterov`. Staggered Euler with step h = s is
    Nesterov's method with decay (k - 1)/(k + r - 1) at its k-th step and learning rate h^2, to the last digit.
    """

    r: float = 3.0
    """Friction times the time, > 0 [1]."""
    lookahead: float = 0.0
    """s >= 0 [time]."""

    def __check_init__(self):
        check_positive(r=self.r)
        check_not_negative(lookahead=self.lookahead)

    def init(self, params):
        return Rolling(jtu.tree_map(jnp.zeros_like, params), jnp.zeros((), real_dtype(params)))

    def memory_field(self, params, memory, at):
        gamma, begun = self._friction(memory.clock)

        def accelerate(v, g):
            # r v/t -> -r g/(1 + r) as t -> 0, so that v' -> -g/(1 + r).
            return jnp.where(begun, -gamma.astype(v.dtype) * v - g, -g / (1 + self.r))

        moved = jtu.tree_map(accelerate, memory.velocity, at.grad)
        return Rolling(moved, jnp.ones_like(memory.clock))

    def params_field(self, params, memory, at):
        share = 1 - self._friction(memory.clock)[0] * self.lookahead
        return jtu.tree_map(
            lambda v, g: share.astype(v.dtype) * v - self.lookahead * g, memory.velocity, at.grad
        )

    def energy(self, params, memory, at):
        share = 1 - self._friction(memory.clock)[0] * self.lookahead
        return at.value + 0.5 * share * sum_squares(memory.velocity)

    def _friction(self, clock: Float[Array, ""]):
        age = clock + (self.r - 1) * self.lookahead
        begun = age > 0
        return self.r / jnp.where(begun, age, 1), begun
