"""Newton's flow, and the damped one."""

from typing import ClassVar

from flowopt import linear
from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_positive
from flowopt.objective import ModelKind
from flowopt.tree import ravel, sum_squares


class Newton(AbstractFlow):
    """theta' = -H^-1 g,  g = grad R(theta),  H its derivative.   V = |g|^2/2,  dV/dt = -|g|^2 <= 0.   [Smale 1976]

    Derivation: g' = H theta' = -g, so g = exp(-t) g(0): straight to a zero of the gradient, of
    whichever kind it is (V falls towards saddles and maxima too; R need not). Defined where H is regular.

    Time in 1: the flow has no scale. Euler with step 1 is Newton's method, with a smaller one the
    relaxed method. V in loss^2/params^2. Up to `DENSE_LIMIT` params the step is solved by LU, above it
    matrix-free by conjugate gradients on H^2.
    """

    model: ClassVar[ModelKind | None] = "hessian"

    def params_field(self, params, memory, at):
        return at.unravel(linear.symmetric(at.hessian, ravel(at.grad)))

    def energy(self, params, memory, at):
        return (0.5 * sum_squares(at.grad)).astype(at.value.dtype)


class DampedNewton(AbstractFlow):
    """theta' = -(H + mu I)^-1 g,  g = grad R(theta),  H its derivative.

    V = R,  dV/dt = -g'(H + mu I)^-1 g, which is <= 0 where H + mu I is positive definite: mu above minus the
    lowest eigenvalue of H.   [Levenberg 1944; Goldfeld, Quandt and Trotter 1966]

    Time in 1, mu in loss/params^2. Euler with step 1 is Newton's method with the Hessian shifted
    by mu. Where H + mu I is not positive definite there is no such step: dense, theta' is then NaN (and a
    guard rejects what comes of it); matrix-free, it is what conjugate gradients have when they meet it.
    """

    mu: float
    """The shift, > 0 [loss/params^2]."""
    model: ClassVar[ModelKind | None] = "hessian"

    def __check_init__(self):
        check_positive(mu=self.mu)

    def params_field(self, params, memory, at):
        grad = ravel(at.grad)
        mu = grad.dtype.type(self.mu) if isinstance(self.mu, float | int) else self.mu
        return at.unravel(linear.positive(at.hessian, grad, mu)[0])

    def energy(self, params, memory, at):
        return at.value
