"""The gradient flow."""

import jax.tree_util as jtu

from flowopt.flows.flow import AbstractFlow


class Gradient(AbstractFlow):
    """theta' = -grad R(theta).   V = R,  dV/dt = -|grad R|^2 <= 0.   [Cauchy 1847]

    Time in params^2/loss. Euler with step h is gradient descent with learning rate h.
    """

    def params_field(self, params, memory, at):
        return jtu.tree_map(lambda g: -g, at.grad)

    def energy(self, params, memory, at):
        return at.value
