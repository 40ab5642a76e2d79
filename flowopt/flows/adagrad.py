"""AdaGrad: each entry's step shrinks with all the gradients it has seen."""

import jax.numpy as jnp
import jax.tree_util as jtu

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative, check_positive, safe_sqrt


class AdaGrad(AbstractFlow):
    """s' = g^2/tau,  theta' = -g/D,  D = sqrt(s + eps_root) + eps,  g = grad R(theta),  s(0) = initial.

    V = R,  dV/dt = -sum g^2/D <= 0.   [Duchi, Hazan and Singer 2011]

    Time in params; tau in time. Staggered Euler with step h = tau is AdaGrad with learning rate h.
    `optax.adagrad(lr, initial, eps)` has its eps under the root: eps_root here, and eps = 0.
    """

    tau: float
    """Time in which a gradient adds its square [time]."""
    eps: float = 1e-8
    """Floor of the scale, >= 0 [loss/params]; may be 0 where `initial` or `eps_root` is not."""
    eps_root: float = 0.0
    """Floor under the root, >= 0 [loss^2/params^2]."""
    initial: float = 0.0
    """s at the start, >= 0 [loss^2/params^2]."""

    def __check_init__(self):
        check_positive(tau=self.tau)
        check_not_negative(eps=self.eps, eps_root=self.eps_root, initial=self.initial)
        parts = (self.eps, self.eps_root, self.initial)
        if all(isinstance(x, float | int) and x == 0 for x in parts):
            raise ValueError("`eps` must be > 0 where `eps_root` and `initial` are 0: 0/0 at rest")

    def init(self, params):
        return jtu.tree_map(lambda x: jnp.full_like(x, self.initial), params)

    def memory_field(self, params, memory, at):
        return jtu.tree_map(lambda g: jnp.square(g) / self.tau, at.grad)

    def params_field(self, params, memory, at):
        def velocity(s, g):
            return -g / (safe_sqrt(s + self.eps_root) + self.eps)

        return jtu.tree_map(velocity, memory, at.grad)

    def energy(self, params, memory, at):
        return at.value
