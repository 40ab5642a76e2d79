"""The Gauss-Newton flow, and that of Levenberg and Marquardt: for sums of squares."""

from typing import ClassVar

import jax.numpy as jnp

from flowopt import linear
from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_positive
from flowopt.objective import ModelKind


class GaussNewton(AbstractFlow):
    """theta' = -J^+ r,  J = dr/dtheta,  R = |r|^2/2.   V = R,  dV/dt = -|P r|^2 <= 0,  P = J J^+.   [Gauss 1809]

    Derivation: grad R = J'r, so dV/dt = -r'J J^+ r, and P is the projection onto what J can reach. Where P r = r
    (J of full row rank) r' = -r: straight to a zero of the residuals. J^+ is the pseudo-inverse: of all
    shortest-residual steps the shortest, so J may be rank-deficient and of either shape.

    Time in 1. Euler with step 1 is the Gauss-Newton method. For `flowopt.least_squares` only.
    """

    model: ClassVar[ModelKind | None] = "jacobian"

    def params_field(self, params, memory, at):
        return at.unravel(linear.least_squares(at.jacobian, at.residuals))

    def energy(self, params, memory, at):
        return at.value


class LevenbergMarquardt(AbstractFlow):
    """theta' = -(J'J + mu I)^-1 g,  g = J'r,  J = dr/dtheta,  R = |r|^2/2.

    V = R,  dV/dt = -g'(J'J + mu I)^-1 g <= 0.

    Derivation: dV/dt = <g, theta'>, and J'J + mu I is positive definite for every J. mu -> 0 is the Gauss-Newton flow;
    mu -> infinity is the gradient flow, slowed down by mu.   [Levenberg 1944; Marquardt 1963]

    Time in 1, mu in loss/params^2. Euler with step 1 is the Levenberg-Marquardt method at this mu; it is the same
    step as `RosenbrockEuler(scaling="none")` takes on the plain gradient flow with h = 1/mu. For
    `flowopt.least_squares` only.
    """

    mu: float
    """The damping, > 0 [loss/params^2]."""
    model: ClassVar[ModelKind | None] = "jacobian"

    def __check_init__(self):
        check_positive(mu=self.mu)

    def params_field(self, params, memory, at):
        x = at.vector
        damping = jnp.full_like(x, jnp.sqrt(jnp.asarray(self.mu, x.dtype)))
        return at.unravel(linear.damped_least_squares(at.jacobian, at.residuals, damping))

    def energy(self, params, memory, at):
        return at.value
