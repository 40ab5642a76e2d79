"""RMSProp: the gradient in units of its own recent size, or of its recent scatter."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative, check_positive, quotient, safe_sqrt
from flowopt.tree import real_dtype


class Sizes(NamedTuple):
    """The memory of RMSProp."""

    second: PyTree
    """s, a moving average of the squared gradient [loss^2/params^2]."""
    first: PyTree
    """m, one of the gradient [loss/params]; None unless centred."""
    fill: Float[Array, ""] | None
    """c = 1 - exp(-t/tau), how much of the averages is filled [1]; None without bias correction."""


class RMSProp(AbstractFlow):
    """s' = (g^2 - s)/tau,  theta' = -g/D,  D = sqrt(s + eps_root) + eps,  g = grad R(theta),  s(0) = initial.

    V = R,  dV/dt = -sum g^2/D <= 0, whatever D > 0 is.   [Tieleman and Hinton 2012; centred: Graves 2013]

    Centred, m' = (g - m)/tau, and s - m^2, the gradient's scatter, stands for s in D. With bias
    correction c' = (1 - c)/tau, and s/c and m/c stand for s and m; at t = 0 they are g^2 and g.
    Rounding may leave s - m^2 a little below 0: then it counts as 0 (optax gives NaN there).

    Time in params; tau in time. Staggered Euler with step h is RMSProp with learning rate h and decay
    1 - h/tau. `optax.rmsprop` has its eps under the root by default: eps_root here, and eps = 0.
    """

    tau: float
    """Time constant of the averages [time]."""
    eps: float = 1e-8
    """Floor of the scale, >= 0 [loss/params]; may be 0 where `eps_root` is not."""
    eps_root: float = 0.0
    """Floor under the root, >= 0 [loss^2/params^2]."""
    initial: float = 0.0
    """s at the start, >= 0 [loss^2/params^2]."""
    centred: bool = False
    """Divide by the scatter, sqrt(s - m^2), in place of the size, sqrt(s)."""
    bias_correction: bool = False
    """Divide the averages by how much of them is filled."""

    def __check_init__(self):
        check_positive(tau=self.tau)
        check_not_negative(eps=self.eps, eps_root=self.eps_root, initial=self.initial)
        if all(isinstance(x, float | int) and x == 0 for x in (self.eps, self.eps_root)):
            raise ValueError("`eps` must be > 0 where `eps_root` is 0: 0/0 at rest")

    def init(self, params):
        return Sizes(
            second=jtu.tree_map(lambda x: jnp.full_like(x, self.initial), params),
            first=jtu.tree_map(jnp.zeros_like, params) if self.centred else None,
            fill=jnp.zeros((), real_dtype(params)) if self.bias_correction else None,
        )

    def memory_field(self, params, memory, at):
        towards = lambda target: lambda x, g: (target(g) - x) / self.tau
        return Sizes(
            second=jtu.tree_map(towards(jnp.square), memory.second, at.grad),
            first=jtu.tree_map(towards(lambda g: g), memory.first, at.grad)
            if self.centred
            else None,
            fill=None if memory.fill is None else (1 - memory.fill) / self.tau,
        )

    def params_field(self, params, memory, at):
        def corrected(x, limit):
            return x if memory.fill is None else quotient(x, memory.fill, limit)

        def velocity(g, s, m=None):
            square = corrected(s, jnp.square(g))
            if m is not None:
                square = jnp.maximum(square - jnp.square(corrected(m, g)), 0)
            return -g / (safe_sqrt(square + self.eps_root) + self.eps)

        if self.centred:
            return jtu.tree_map(velocity, at.grad, memory.second, memory.first)
        return jtu.tree_map(velocity, at.grad, memory.second)

    def energy(self, params, memory, at):
        return at.value
