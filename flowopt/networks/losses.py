"""Losses of a model on data: functions of (params, data), for `minimise`, `least_squares` and `ensemble`.

They are modules, and the data their `args`, so neither is compiled in: other data of the same shape compile nothing.
"""

import abc
import functools as ft
import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.networks.data import Data


class Residuals(eqx.Module):
    """r with 1/2 |r|^2 = 1/(2 W) sum_i w_i |(model(x_i) - y_i)/scale|^2 + l2/2 |weights|^2, W = sum w: least squares.

    flowopt.least_squares(flowopt.networks.Residuals(rebuild), params, args=data)
    """

    rebuild: Callable[[PyTree], Callable]
    """params -> a model of one datum, as `split` gives it; any function."""
    l2: float = 0.0
    """Weight decay, on all params with two axes or more (not on biases) [loss/params^2]."""
    scale: Any = 1.0
    """The unit of the outputs: one number, or one of each [outputs]."""

    def __check_init__(self):
        _check(self.rebuild, self.l2, None)

    def __call__(self, params: PyTree, data: Data) -> PyTree:
        r = _errors(self.rebuild, self.scale, params, data)
        w = _shares(data, r.dtype)
        r = jnp.sqrt(w).reshape(-1, *[1] * (r.ndim - 1)) * r
        if isinstance(self.l2, float | int) and self.l2 == 0:
            return r
        return r, [jnp.sqrt(jnp.asarray(self.l2, x.dtype)) * x for x in _weights(params)]


class _MeanLoss(eqx.Module):
    """A weighted mean over the data, taken whole or in blocks, and weight decay."""

    rebuild: eqx.AbstractVar[Callable[[PyTree], Callable]]
    l2: eqx.AbstractVar[float]
    block: eqx.AbstractVar[int | None]

    def __check_init__(self):
        _check(self.rebuild, self.l2, self.block)

    @abc.abstractmethod
    def each(self, params: PyTree, data: Data) -> Float[Array, " n"]:
        """The loss of each datum."""

    def __call__(self, params: PyTree, data: Data) -> Float[Array, ""]:
        def total(block: Data) -> Float[Array, ""]:
            return jnp.sum(jnp.asarray(block.weights) * self.each(params, block))

        dtype = jax.eval_shape(self.each, params, data).dtype
        data = eqx.tree_at(
            lambda d: d.weights, data, _shares(data, dtype), is_leaf=lambda x: x is None
        )
        mean = total(data) if self.block is None else _in_blocks(total, data, self.block)
        squares = [jnp.sum(x**2) for x in _weights(params)]
        if not squares or (isinstance(self.l2, float | int) and self.l2 == 0):
            return mean
        decay = 0.5 * ft.reduce(operator.add, squares)
        return mean + jnp.asarray(self.l2, decay.dtype) * decay


class MeanSquaredError(_MeanLoss):
    """1/(2 W) sum_i w_i |(model(x_i) - y_i)/scale|^2 + l2/2 |weights|^2, W = sum w: `Residuals` as one scalar."""

    rebuild: Callable[[PyTree], Callable]
    """params -> a model of one datum, as `split` gives it; any function."""
    l2: float = 0.0
    """Weight decay, on all params with two axes or more (not on biases) [loss/params^2]."""
    scale: Any = 1.0
    """The unit of the outputs: one number, or one of each [outputs]."""
    block: int | None = None
    """Data taken at a time, for bounded memory; the same sum in another order. None for all at once."""

    def each(self, params, data):
        r = _errors(self.rebuild, self.scale, params, data)
        return 0.5 * jnp.sum(r**2, axis=tuple(range(1, r.ndim)))


class CrossEntropy(_MeanLoss):
    """1/W sum_i w_i (log sum_k exp(z_ik) - z_i,y_i) + l2/2 |weights|^2 for classes y_i and logits z_i = model(x_i)."""

    rebuild: Callable[[PyTree], Callable]
    """params -> a model of one datum, as `split` gives it; any function."""
    l2: float = 0.0
    """Weight decay, on all params with two axes or more (not on biases) [loss/params^2]."""
    block: int | None = None
    """Data taken at a time, for bounded memory; the same sum in another order. None for all at once."""

    def each(self, params, data):
        z = jax.vmap(self.rebuild(params))(data.x)
        if not jnp.issubdtype(data.y.dtype, jnp.integer) or data.y.ndim != 1 or z.ndim != 2:
            raise TypeError(
                "`data` must have integer classes `y` of shape (n,), and the model must give one logit for each class; "
                f"got y of {data.y.dtype} and shape {data.y.shape}, logits of shape {z.shape}"
            )
        picked = jnp.take_along_axis(z, data.y[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(z, axis=1) - picked


def _in_blocks(total: Callable[[Data], Array], data: Data, size: int) -> Float[Array, ""]:
    """total(data), a sum over the data, block by block; a backward pass computes each block anew."""
    n = len(data)
    blocks = -(-n // size)

    def cut(x: Array) -> Array:
        # Filled up with the last datum, whose weight there is 0: finite where the others are.
        x = jnp.pad(x, [(0, blocks * size - n)] + [(0, 0)] * (x.ndim - 1), mode="edge")
        return x.reshape(blocks, size, *x.shape[1:])

    cuts = jtu.tree_map(cut, data)
    used = (jnp.arange(blocks * size) < n).reshape(blocks, size)
    cuts = eqx.tree_at(lambda d: d.weights, cuts, jnp.where(used, cuts.weights, 0))

    @jax.checkpoint
    def add(so_far: Array, block: Data) -> tuple[Array, None]:
        return so_far + total(block), None

    zero = jnp.zeros((), jax.eval_shape(total, data).dtype)
    return jax.lax.scan(add, zero, cuts)[0]


def _errors(rebuild: Callable, scale: Any, params: PyTree, data: Data) -> Array:
    out = jax.vmap(rebuild(params))(data.x)
    if out.shape != data.y.shape:
        raise ValueError(
            f"`data`: the model gives outputs of shape {out.shape} and the targets `y` have {data.y.shape}; they must "
            "be the same (one output of each datum is (n, 1), not (n,))"
        )
    return (out - data.y) / jnp.asarray(scale, out.dtype)


def _shares(data: Data, dtype: Any) -> Float[Array, " n"]:
    """w_i/W."""
    if data.weights is None:
        return jnp.full(len(data), 1 / len(data), dtype)
    return (data.weights / jnp.sum(data.weights)).astype(dtype)


def _weights(params: PyTree) -> list[Array]:
    return [x for x in jtu.tree_leaves(params) if x.ndim >= 2]


def _check(rebuild: Any, l2: Any, block: Any) -> None:
    if not callable(rebuild):
        raise TypeError(
            f"`rebuild` must be a function from params to a model, as flowopt.networks.split gives it; got {rebuild!r}"
        )
    if isinstance(l2, float | int) and not l2 >= 0:
        raise ValueError(f"`l2` must be >= 0; got {l2}")
    if block is not None and (isinstance(block, bool) or not isinstance(block, int) or block < 1):
        raise ValueError(f"`block` must be an int >= 1, or None; got {block!r}")
