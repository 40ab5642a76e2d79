"""Hessian-driven damping, without a Hessian: the inertial Newton algorithm INNA."""

import jax.numpy as jnp
import jax.tree_util as jtu

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative
from flowopt.tree import sum_squares


class HessianDamping(AbstractFlow):
    """u' = -alpha u + (1 - alpha beta) g,  theta' = -u - beta g,  g = grad R(theta).

    The first-order form of theta'' + alpha theta' + beta H(theta) theta' + g = 0: geometric damping beta takes
    out the oscillations that viscous damping alpha leaves.   [Alvarez, Attouch, Bolte, Redont 2002; Attouch et
    al. 2016; as INNA: Castera, Bolte, Fevotte, Pauwels 2021]

    V = (1 + alpha beta) R + |u|^2/2,  dV/dt = -alpha |theta'|^2 - beta |g|^2 <= 0.

    Derivation: dV/dt = (1 + alpha beta) <g, -u - beta g> + <u, -alpha u + (1 - alpha beta) g>
    = -alpha |u|^2 - 2 alpha beta <g, u> - beta (1 + alpha beta) |g|^2 = -alpha |u + beta g|^2 - beta |g|^2.

    INNA's own variable is psi with u = (alpha - 1/beta) theta + psi/beta; Euler commutes with that change, so
    explicit Euler (`diffrax.Euler`) with step h is INNA with step size h. u = 0 at the start is
    its usual psi = (1 - alpha beta) theta. Units: u in params/time, time in params/sqrt(loss).
    """

    alpha: float = 0.5
    """Viscous damping, >= 0 [1/time]."""
    beta: float = 0.1
    """Geometric damping, >= 0 [time]; at 0 this is the heavy ball with v = -u."""

    def __check_init__(self):
        check_not_negative(alpha=self.alpha, beta=self.beta)

    def init(self, params):
        return jtu.tree_map(jnp.zeros_like, params)

    def memory_field(self, params, memory, at):
        push = 1 - self.alpha * self.beta
        return jtu.tree_map(lambda u, g: -self.alpha * u + push * g, memory, at.grad)

    def params_field(self, params, memory, at):
        return jtu.tree_map(lambda u, g: -u - self.beta * g, memory, at.grad)

    def energy(self, params, memory, at):
        return (1 + self.alpha * self.beta) * at.value + 0.5 * sum_squares(memory)
