"""The linear systems of second-order methods: dense where the matrix is formed, matrix-free where it is not."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int


def damped_least_squares(
    jacobian: lx.AbstractLinearOperator, residuals: Float[Array, " m"], damping: Float[Array, " n"]
) -> Float[Array, " n"]:
    """The d that minimises |J d + r|^2 + |damping d|^2, that is -(J'J + damping^2)^-1 J'r; damping > 0.

    Dense by QR of (J; diag(damping)), which J'J, with the square of its condition number, would
    spoil (Meyer's problem needs the digits); matrix-free by LSMR on the same stack.
    """
    zeros = jnp.zeros_like(damping)
    if isinstance(jacobian, lx.MatrixLinearOperator):
        stack = jnp.concatenate([jacobian.matrix, jnp.diag(damping)])
        right = jnp.concatenate([-residuals, zeros])
        return lx.linear_solve(lx.MatrixLinearOperator(stack), right, lx.QR(), throw=False).value

    stacked = lx.FunctionLinearOperator(
        lambda v: (jacobian.mv(v), damping * v), jax.eval_shape(lambda: damping)
    )
    return lx.linear_solve(stacked, (-residuals, zeros), _lsmr(damping), throw=False).value


def damped_step(
    jacobian: lx.AbstractLinearOperator, residuals: Float[Array, " m"], damping: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Int[Array, ""] | int]:
    """The same d as far as a step needs it, and the pairs of products with J and J' that it took.

    Dense it is the same, and takes none: they are in the matrix. Matrix-free by conjugate gradients on (J'J +
    damping^2) d = -J'r, to 1e-3 of the gradient: at that tolerance the square of J's condition number does no harm, and
    LSMR to the end took 1,000 products a step of a network of 600 params, for steps no better.
    """
    if isinstance(jacobian, lx.MatrixLinearOperator):
        return damped_least_squares(jacobian, residuals, damping), 0
    transpose = jacobian.T
    grad = transpose.mv(residuals)
    product = lambda v: transpose.mv(jacobian.mv(v)) + damping**2 * v
    d, _, products = _descent(product, grad, -grad / damping**2)
    return d, products


def least_squares(
    jacobian: lx.AbstractLinearOperator, residuals: Float[Array, " m"]
) -> Float[Array, " n"]:
    """The shortest d that minimises |J d + r|, whatever the shape and rank of J: dense by SVD, else by LSMR."""
    if isinstance(jacobian, lx.MatrixLinearOperator):
        return lx.linear_solve(jacobian, -residuals, lx.SVD(), throw=False).value
    like = jnp.zeros(jacobian.in_size(), residuals.dtype)
    return lx.linear_solve(jacobian, -residuals, _lsmr(like), throw=False).value


def _lsmr(like: Array) -> lx.LSMR:
    eps = float(jnp.finfo(like.dtype).eps)
    return lx.LSMR(rtol=16 * eps, atol=16 * eps, max_steps=8 * like.size + 64)


def symmetric(hessian: lx.AbstractLinearOperator, grad: Float[Array, " n"]) -> Float[Array, " n"]:
    """-H^-1 g for a symmetric H of either sign: dense by LU, else by conjugate gradients on H^2."""
    if isinstance(hessian, lx.MatrixLinearOperator):
        return lx.linear_solve(hessian, -grad, lx.LU(), throw=False).value
    eps = float(jnp.finfo(grad.dtype).eps)
    cg = lx.CG(rtol=eps**0.75, atol=0.0, max_steps=4 * grad.size)
    return lx.linear_solve(hessian, -grad, lx.Normal(cg), throw=False).value


def positive(
    hessian: lx.AbstractLinearOperator, grad: Float[Array, " n"], mu: Float[Array, ""]
) -> tuple[Float[Array, " n"], Array, Array]:
    """-(H + mu I)^-1 g where H + mu I is positive definite, whether it is found to be, and the products H v taken.

    Dense by Cholesky, which fails where it is not (then NaN); matrix-free by conjugate gradients, which stop
    at a direction of negative curvature with what they have: a direction of descent all the same, and -g/mu if
    they have nothing yet. Dense takes no products: they are in the matrix.
    """
    if isinstance(hessian, lx.MatrixLinearOperator):
        shifted = hessian.matrix + mu * jnp.eye(grad.size, dtype=grad.dtype)
        factor = jnp.linalg.cholesky(shifted)
        definite = jnp.all(jnp.isfinite(factor))
        d = jax.scipy.linalg.cho_solve((factor, True), -grad)
        return d, definite, jnp.zeros((), jnp.int32)
    return _descent(lambda v: hessian.mv(v) + mu * v, grad, -grad / mu)


class _Search(NamedTuple):
    """The state of conjugate gradients on A d = -g."""

    d: Array
    residual: Array
    direction: Array
    squares: Array
    definite: Array
    steps: Array


def _descent(product, grad: Array, steepest: Array) -> tuple[Array, Array, Array]:
    """Conjugate gradients from 0 until the residual is below 1e-3 min(1, sqrt|g|) |g|: superlinear [Nash 2000]."""
    squares = grad @ grad
    norm = jnp.sqrt(squares)
    eps = jnp.finfo(grad.dtype).eps
    target = jnp.maximum(eps, jnp.minimum(1e-3, jnp.sqrt(norm) * 1e-3)) * norm

    def going_on(s: _Search):
        return s.definite & (jnp.sqrt(s.squares) > target) & (s.steps < 2 * grad.size + 16)

    def body(s: _Search) -> _Search:
        image = product(s.direction)
        curvature = s.direction @ image
        definite = curvature > 0
        length = s.squares / jnp.where(definite, curvature, 1)
        residual = s.residual - length * image
        squares = residual @ residual
        direction = residual + squares / s.squares * s.direction
        first = s.steps == 0
        # Stopped at once: steepest descent, as long as H = 0 would have it, so that it scales with the step.
        d = jnp.where(definite, s.d + length * s.direction, jnp.where(first, steepest, s.d))
        return _Search(d, residual, direction, squares, definite, s.steps + 1)

    zero = jnp.zeros_like(grad)
    start = _Search(zero, -grad, -grad, squares, jnp.array(True), jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(going_on, body, start)
    return end.d, end.definite, end.steps
