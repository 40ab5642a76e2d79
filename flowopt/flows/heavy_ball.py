"""The heavy ball: a point mass that rolls on the loss with friction."""

import jax.numpy as jnp
import jax.tree_util as jtu

from flowopt.flows.flow import AbstractFlow
from flowopt.tree import sum_squares


class HeavyBall(AbstractFlow):
    """theta' = v,  v' = -gamma v - grad R(theta).   V = R + |v|^2/2,  dV/dt = -gamma |v|^2 <= 0.   [Polyak 1964]

    Derivation: dV/dt = <grad R, v> + <v, -gamma v - grad R>, and the gradient cancels. The kinetic
    energy |v|^2/2 is why momentum may leave a minimum that it passes: V decreases, R need not.

    Units: v in params/time, time in params/sqrt(loss). Staggered Euler with step h is momentum with
    learning rate h^2 and decay 1 - gamma h.
    """

    friction: float
    """gamma >= 0 [1/time]."""

    def __check_init__(self):
        if isinstance(self.friction, float | int) and not self.friction >= 0:
            raise ValueError(f"`friction` must be >= 0; got {self.friction}")

    def init(self, params):
        return jtu.tree_map(jnp.zeros_like, params)

    def memory_field(self, params, memory, at):
        return jtu.tree_map(lambda v, g: -self.friction * v - g, memory, at.grad)

    def params_field(self, params, memory, at):
        return memory

    def energy(self, params, memory, at):
        return at.value + 0.5 * sum_squares(memory)
