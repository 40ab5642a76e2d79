"""AMSGrad: Adam whose scale never shrinks."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PyTree

from flowopt.flows.adam import (
    CorrectedMoments,
    corrected_field,
    kinetic_energy,
    no_moments,
    scale,
)
from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative, check_positive, quotient
from flowopt.tree import add_scaled


class LargestMoments(NamedTuple):
    """The memory of AMSGrad."""

    moments: CorrectedMoments
    """That of Adam."""
    largest: PyTree
    """w, which follows the largest s/c2 so far [loss^2/params^2]."""


class AMSGrad(AbstractFlow):
    """m, s, c1, c2 as in `Adam`,  w' = max(s/c2 - w, 0)/tau3,  theta' = -(m/c1)/D,
    D = sqrt(max(w, s/c2) + eps_root) + eps.

    V = R + (tau1/2) sum m^2/(c1 D) is a Lyapunov function if tau1 <= 4 tau2.   [Reddi, Kale and Kumar 2018]

    Derivation: dV/dt = -sum m^2/(c1 D) [1 + (tau1/2) (c1'/c1 + D'/D)] as for `Adam`. Where w >= s/c2, D
    does not shrink (w' = 0), and the bracket is >= 1 whatever the time constants. Elsewhere D is that of Adam.

    w rises to the largest s/c2 within the time tau3 and never falls. Staggered Euler with step h = tau3 moves
    the moments first and makes w their largest exactly: AMSGrad with learning rate h and decays 1 - h/tau
    (`optax.amsgrad`; the original corrects no bias). Units and limits at t = 0 as in `Adam`.
    """

    tau1: float
    """Time constant of the first moment [time]."""
    tau2: float
    """Time constant of the second moment [time]."""
    tau3: float
    """Time in which the largest is followed [time]."""
    eps: float = 1e-8
    """Floor of the scale [loss/params]."""
    eps_root: float = 0.0
    """Floor under the root, >= 0 [loss^2/params^2]."""

    def __check_init__(self):
        check_positive(tau1=self.tau1, tau2=self.tau2, tau3=self.tau3, eps=self.eps)
        check_not_negative(eps_root=self.eps_root)

    def init(self, params):
        return LargestMoments(no_moments(params), jtu.tree_map(jnp.zeros_like, params))

    def memory_field(self, params, memory, at):
        moments = corrected_field(memory.moments, at.grad, self.tau1, self.tau2)
        return LargestMoments(moments, self._rise(memory, at.grad))

    def advance_memory(self, params, memory, at, h):
        field = corrected_field(memory.moments, at.grad, self.tau1, self.tau2)
        memory = memory._replace(moments=add_scaled(memory.moments, h, field))
        return memory._replace(largest=add_scaled(memory.largest, h, self._rise(memory, at.grad)))

    def params_field(self, params, memory, at):
        m, s, c1, c2 = memory.moments

        def velocity(m, s, w, g):
            s = jnp.maximum(w, quotient(s, c2, limit=jnp.square(g)))
            return -quotient(m, c1, g, scale(s, self.eps, self.eps_root))

        return jtu.tree_map(velocity, m, s, memory.largest, at.grad)

    def energy(self, params, memory, at):
        m, s, c1, c2 = memory.moments

        def floor(s, w):
            s = jnp.maximum(w, quotient(s, c2, limit=jnp.zeros_like(s)))
            return scale(s, self.eps, self.eps_root)

        return at.value + kinetic_energy(m, c1, jtu.tree_map(floor, s, memory.largest), self.tau1)

    def _rise(self, memory: LargestMoments, grad: PyTree) -> PyTree:
        def rise(s, w, g):
            s = quotient(s, memory.moments.fill2, limit=jnp.square(g))
            return jnp.maximum(s - w, 0) / self.tau3

        return jtu.tree_map(rise, memory.moments.second, memory.largest, grad)
