"""Lion: the sign of a momentum, with weight decay that turns into a box."""

import jax.numpy as jnp
import jax.tree_util as jtu

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative, check_positive
from flowopt.tree import inner


class Lion(AbstractFlow):
    """m' = (g - m)/tau,  theta' = -sign(z) - lambda theta,  z = a m + (1 - a) g,  g = grad R(theta).

    V = R + k sum(|m| + lambda m theta),  k = a tau/(1 + lambda tau (1 - a)), is a Lyapunov function if 0 <= a <= 1
    and lambda |theta| <= 1 entry by entry: the box that every trajectory enters exponentially fast and stays
    in.   [Chen et al. 2023; the energy: Chen, Liu, Liang and Liu 2024]

    Derivation: with e = (1 - a) tau, z = m + e m' and g = z + a tau m', and a tau - k lambda e = k, so
    dV/dt = (1 + k lambda) sum z theta' + k sum m' (sign m - sign z). In the box z theta' = -|z| - lambda theta z <= 0;
    and e m' (sign m - sign z) = (z - m)(sign m - sign z) <= 0 (for e = 0, z = m and it is 0).

    Time in params, tau in time, lambda in 1/time. Staggered Euler with step h is Lion with learning rate
    h, b2 = 1 - h/tau, b1 = a b2 and weight decay lambda; a > 1 (b1 > b2) is allowed, without an energy.
    """

    tau: float
    """Time constant of the momentum [time]."""
    share: float
    """a, the share of the momentum in the sign, >= 0 [1]."""
    weight_decay: float = 0.0
    """lambda >= 0 [1/time]."""

    def __check_init__(self):
        check_positive(tau=self.tau)
        check_not_negative(share=self.share, weight_decay=self.weight_decay)

    def init(self, params):
        return jtu.tree_map(jnp.zeros_like, params)

    def memory_field(self, params, memory, at):
        return jtu.tree_map(lambda m, g: (g - m) / self.tau, memory, at.grad)

    def params_field(self, params, memory, at):
        def velocity(x, m, g):
            return -jnp.sign(self.share * m + (1 - self.share) * g) - self.weight_decay * x

        return jtu.tree_map(velocity, params, memory, at.grad)

    def energy(self, params, memory, at):
        size = sum(jnp.sum(jnp.abs(m)).astype(at.value.dtype) for m in jtu.tree_leaves(memory))
        decay = self.weight_decay
        k = self.share * self.tau / (1 + decay * self.tau * (1 - self.share))
        return at.value + k * (size + decay * inner(memory, params).astype(at.value.dtype))
