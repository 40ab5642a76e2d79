"""Arithmetic on pytrees of arrays: the few vector operations that flows and solvers share."""

import functools as ft
import operator

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, PyTree


def real_dtype(tree: PyTree) -> jnp.dtype:
    """The dtype of scalars (steps, norms, energies) that go with `tree`: at least float32."""
    with jax.numpy_dtype_promotion("standard"):  # of dtypes only: no array is promoted here
        return jnp.result_type(jnp.float32, *(x.dtype for x in jtu.tree_leaves(tree)))


def _total(terms: list[Array], dtype: jnp.dtype) -> Array:
    terms = [x.astype(dtype) for x in terms]
    return ft.reduce(operator.add, terms) if terms else jnp.zeros((), dtype)


def inner(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """<a, b>, summed over all leaves of two pytrees of the same structure."""
    products = jtu.tree_map(lambda x, y: jnp.sum(x * y), a, b)
    return _total(jtu.tree_leaves(products), real_dtype(a))


def sum_squares(a: PyTree) -> Float[Array, ""]:
    """|a|^2, summed over all leaves."""
    return _total([jnp.sum(jnp.square(x)) for x in jtu.tree_leaves(a)], real_dtype(a))


def two_norm(a: PyTree) -> Float[Array, ""]:
    """|a|, over all entries; its derivative at 0 is 0.

    As `optimistix.two_norm`, which takes inner products; XLA joins sums of squares with what they are sums of.
    """
    return _root(sum_squares(a))


def rms_norm(a: PyTree) -> Float[Array, ""]:
    """The root of the mean of the squares of all entries; its derivative at 0 is 0. As `optimistix.rms_norm`."""
    return _root(sum_squares(a) / max(sum(x.size for x in jtu.tree_leaves(a)), 1))


def _root(squares: Float[Array, ""]) -> Float[Array, ""]:
    some = squares > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), squares)


def add_scaled(y: PyTree, h: Float[Array, ""], f: PyTree) -> PyTree:
    """y + h f; the scalar `h` takes the dtype of each leaf, so that no leaf changes its own."""
    return jtu.tree_map(lambda yi, fi: yi + h.astype(yi.dtype) * fi, y, f)


def where(keep: Bool[Array, ""] | bool, a: PyTree, b: PyTree) -> PyTree:
    """`a` if `keep` else `b`, leaf by leaf; resolved at once where `keep` is a Python bool."""
    if isinstance(keep, bool):
        return a if keep else b
    return jtu.tree_map(lambda x, y: jnp.where(keep, x, y), a, b)


def equal(a: PyTree, b: PyTree) -> Bool[Array, ""]:
    """Whether every entry of `a` equals that of `b`; a NaN equals nothing."""
    leaves = zip(jtu.tree_leaves(a), jtu.tree_leaves(b), strict=True)
    return ft.reduce(operator.and_, [jnp.all(x == y) for x, y in leaves], jnp.array(True))


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether the squares of all entries of `tree` have a finite sum: none is NaN or infinite, or about to overflow."""
    sums = [sum_squares(leaf) for leaf in jtu.tree_leaves(tree)]
    return jnp.stack([jnp.isfinite(x) for x in sums]).all() if sums else jnp.array(True)


def ravel(tree: PyTree) -> Float[Array, " n"]:
    """All leaves in one vector; leaves of several dtypes go up to the one that holds them all."""
    leaves = jtu.tree_leaves(tree)
    with jax.numpy_dtype_promotion("standard"):  # of dtypes only
        dtype = jnp.result_type(*(x.dtype for x in leaves))
    return jnp.concatenate([x.reshape(-1).astype(dtype) for x in leaves])


def unravel(vector: Float[Array, " n"], like: PyTree) -> PyTree:
    """The inverse of `ravel`: a pytree of the structure, shapes and dtypes of `like`."""
    leaves, structure = jtu.tree_flatten(like)
    out, start = [], 0
    for leaf in leaves:
        part = vector[start : start + leaf.size]
        out.append(part.reshape(leaf.shape).astype(leaf.dtype))
        start += leaf.size
    return jtu.tree_unflatten(structure, out)
