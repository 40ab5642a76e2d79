"""AdaBelief: Adam in units of how far the gradient is from what was expected of it."""

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PyTree

from flowopt.flows.adam import CorrectedMoments, kinetic_energy, no_moments, scale
from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative, check_positive, quotient


class AdaBelief(AbstractFlow):
    """m' = (g - m)/tau1,  s' = ((g - m)^2 + floor - s)/tau2,  c1, c2 as in `Adam`,
    theta' = -(m/c1)/D,  D = sqrt(s/c2) + eps,  g = grad R(theta), all started from 0.   [Zhuang et al. 2020]

    V = R + (tau1/2) sum m^2/(c1 D) is a Lyapunov function if tau1 <= 4 tau2.

    Derivation: that of `Adam` uses of the second moment only that what it averages is >= 0, so that
    D'/D >= -1/(2 tau2 c2); the same holds for (g - m)^2 + floor.

    Staggered Euler with step h moves m first, then s with the new m: AdaBelief with learning rate h and
    decays 1 - h/tau. optax adds its eps_root to s at every step: floor = eps_root tau2/h here. At t = 0 the
    quotients take their limits m/c1 = g and s/c2 = g^2 + floor. Units as in `Adam`.
    """

    tau1: float
    """Time constant of the first moment [time]."""
    tau2: float
    """Time constant of the second moment [time]."""
    eps: float = 1e-16
    """Floor of the scale [loss/params]."""
    floor: float = 1e-16
    """Added to the squared surprise, >= 0 [loss^2/params^2]."""

    def __check_init__(self):
        check_positive(tau1=self.tau1, tau2=self.tau2, eps=self.eps)
        check_not_negative(floor=self.floor)

    def init(self, params):
        return no_moments(params)

    def memory_field(self, params, memory, at):
        return CorrectedMoments(
            first=self._average(memory.first, at.grad),
            second=self._surprise(memory.first, memory.second, at.grad),
            fill1=(1 - memory.fill1) / self.tau1,
            fill2=(1 - memory.fill2) / self.tau2,
        )

    def advance_memory(self, params, memory, at, h):
        def euler(x, f):
            return jtu.tree_map(lambda x, f: x + h.astype(x.dtype) * f, x, f)

        first = euler(memory.first, self._average(memory.first, at.grad))
        return CorrectedMoments(
            first=first,
            second=euler(memory.second, self._surprise(first, memory.second, at.grad)),
            fill1=euler(memory.fill1, (1 - memory.fill1) / self.tau1),
            fill2=euler(memory.fill2, (1 - memory.fill2) / self.tau2),
        )

    def params_field(self, params, memory, at):
        def velocity(m, s, g):
            s = quotient(s, memory.fill2, limit=jnp.square(g) + self.floor)
            return -quotient(m, memory.fill1, g, scale(s, self.eps, 0))

        return jtu.tree_map(velocity, memory.first, memory.second, at.grad)

    def energy(self, params, memory, at):
        def floor(s):
            return scale(quotient(s, memory.fill2, limit=jnp.full_like(s, self.floor)), self.eps, 0)

        scales = jtu.tree_map(floor, memory.second)
        return at.value + kinetic_energy(memory.first, memory.fill1, scales, self.tau1)

    def _average(self, m: PyTree, g: PyTree) -> PyTree:
        return jtu.tree_map(lambda m, g: (g - m) / self.tau1, m, g)

    def _surprise(self, m: PyTree, s: PyTree, g: PyTree) -> PyTree:
        return jtu.tree_map(
            lambda m, s, g: (jnp.square(g - m) + self.floor - s) / self.tau2, m, s, g
        )
