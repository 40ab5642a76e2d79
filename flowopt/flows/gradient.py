"""Steepest descent in its variants: flows without memory, along a rescaled gradient."""

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, PyTree

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_positive
from flowopt.tree import sum_squares


class Gradient(AbstractFlow):
    """theta' = -grad R(theta).   V = R,  dV/dt = -|grad R|^2 <= 0.   [Cauchy 1847]

    Time in params^2/loss. Euler with step h is gradient descent with learning rate h.
    """

    def params_field(self, params, memory, at):
        return jtu.tree_map(lambda g: -g, at.grad)

    def energy(self, params, memory, at):
        return at.value


class PGradient(AbstractFlow):
    """theta' = -|g|^((2 - p)/(p - 1)) g,  g = grad R(theta),  p > 1.

    V = R,  dV/dt = -|g|^(p/(p - 1)) <= 0.   [Wibisono, Wilson and Jordan 2016, "rescaled gradient flow"]

    Derivation: dV/dt = -|g|^((2 - p)/(p - 1) + 2), and (2 - p + 2p - 2)/(p - 1) = p/(p - 1). The speed
    is |g|^(1/(p - 1)): p = 2 is the gradient flow, p -> infinity the normalised one, which needs
    only a finite time to a minimum, as do all p > 2 where R grows quadratically.

    Time in params (params/loss)^(1/(p - 1)). Euler with step h moves by the minimum of
    <g, d> + |d|^p/(p h^(p - 1)).
    """

    p: float
    """The power of the distance that a step is charged for, > 1."""

    def __check_init__(self):
        if isinstance(self.p, float | int) and not self.p > 1:
            raise ValueError(f"`p` must be > 1; got {self.p} (2 is the gradient flow)")

    def params_field(self, params, memory, at):
        norm, at_rest = _norm(at.grad)
        factor = jnp.where(at_rest, 0, norm ** ((2 - self.p) / (self.p - 1)))
        return _rescaled(at.grad, factor)

    def energy(self, params, memory, at):
        return at.value


class Normalised(AbstractFlow):
    """theta' = -g/|g|,  g = grad R(theta), and 0 where g = 0.   V = R,  dV/dt = -|g| <= 0.   [Cortes 2006]

    Time in params: the speed is 1 everywhere. Euler with step h is normalised gradient descent with
    learning rate h; it ends within about h of a minimum, not at it.
    """

    def params_field(self, params, memory, at):
        norm, at_rest = _norm(at.grad)
        return _rescaled(at.grad, jnp.where(at_rest, 0, 1 / norm))

    def energy(self, params, memory, at):
        return at.value


class Clipped(AbstractFlow):
    """theta' = -min(1, c/|g|) g,  g = grad R(theta).   V = R,  dV/dt = -min(1, c/|g|) |g|^2 <= 0.

    Time in params^2/loss. Euler with step h is gradient descent with learning rate h and the
    gradient clipped to norm c (`optax.clip_by_global_norm`).   [Mikolov 2012; Pascanu, Mikolov, Bengio 2013]
    """

    limit: float
    """c, the largest norm that is left as it is, > 0 [loss/params]."""

    def __check_init__(self):
        check_positive(limit=self.limit)

    def params_field(self, params, memory, at):
        norm, at_rest = _norm(at.grad)
        long = ~at_rest & (norm > self.limit)
        return _rescaled(at.grad, jnp.where(long, self.limit / norm, 1))

    def energy(self, params, memory, at):
        return at.value


class Sign(AbstractFlow):
    """theta' = -sign(g),  g = grad R(theta), entry by entry.   V = R,  dV/dt = -|g|_1 <= 0.

    Time in params. Euler with step h is sign descent with learning rate h.   [Bernstein et al. 2018]
    """

    def params_field(self, params, memory, at):
        return jtu.tree_map(lambda g: -jnp.sign(g), at.grad)

    def energy(self, params, memory, at):
        return at.value


def _norm(grad: PyTree) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """|g|, or 1 where g = 0, so that it may be divided by; and whether g = 0."""
    squares = sum_squares(grad)
    at_rest = squares == 0
    return jnp.sqrt(jnp.where(at_rest, 1, squares)), at_rest


def _rescaled(grad: PyTree, factor: Float[Array, ""]) -> PyTree:
    return jtu.tree_map(lambda g: -factor.astype(g.dtype) * g, grad)
