"""A loss known only through samples: noise on the gradient, and mini-batches."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree, UInt32

from flowopt.objective import Objective
from flowopt.tree import inner


class Stochastic(eqx.Module):
    """R(params) = E fn(params, args, key): an objective of which each step sees one sample.

    The n-th accepted step of a run, and every attempt at it, sees the sample of key fold_in(run, n), so a guard
    compares V at both ends on the same sample, and one gradient per point is all that is taken (a guarded
    step pays one more value: at its end the loss is wanted on two samples). Within a step the flow stays autonomous.
    The key of a run is made of `key` and of the bits of its start, so its noise depends on nothing but its
    start: the same in any ensemble, and paired between methods. Equal starts see equal noise; another `key`, other
    noise.

    The value and the gradient of a run, and its test of convergence, are those of a sample; to
    stop by the true gradient, give `stop`. For a study of where noise leads: run as many steps as you like, then
    follow the loss itself from there (`flowopt.reach` from the ends), as quenching does.
    """

    fn: Callable[[PyTree, Any, Array], Float[Array, ""]]
    """(params, args, key) -> a sample of the loss, differentiable in params."""
    key: Array
    """A JAX random key."""

    def __init__(self, fn: Callable[[PyTree, Any, Array], Any], key: Array | int = 0):
        if not callable(fn):
            raise TypeError(f"`fn` must be callable as fn(params, args, key); got {fn!r}")
        self.fn = fn
        self.key = as_key(key)

    def __call__(self, params: PyTree, args: Any = None) -> Float[Array, ""]:
        """One sample, always the same."""
        return self.fn(params, args, self.key)

    def run_key(self, params: PyTree) -> UInt32[Array, " words"]:
        """The data of the key of the run that starts at `params`."""
        return jax.random.key_data(key_of_start(self.key, params))

    def sample(self, run_key: UInt32[Array, " words"], n: Any) -> "Sample":
        """The objective that the n-th accepted step sees."""
        key = jax.random.wrap_key_data(run_key, impl=jax.random.key_impl(self.key))
        return Sample(self.fn, jax.random.fold_in(key, n))


class Sample(eqx.Module):
    """One sample of a `Stochastic` objective, itself an objective."""

    fn: Callable[[PyTree, Any, Array], Float[Array, ""]]
    key: Array

    def __call__(self, params: PyTree, args: Any) -> Float[Array, ""]:
        return self.fn(params, args, self.key)


def gaussian_noise(fn: Objective, sigma: float, key: Array | int = 0) -> Stochastic:
    """`fn` with white noise on its gradient: g = grad R + sigma xi, xi standard normal in every entry, new each step.

    Each sample is R + sigma <xi, params>: a loss of which g is the gradient, at all points of the step. `sigma` has
    the units of the gradient [loss/params], is at least 0 and traced, so changing it compiles nothing.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, float | int) or not 0 <= sigma < jnp.inf:
        raise ValueError(f"`sigma` must be finite and >= 0; got {sigma!r}")
    return Stochastic(_Tilted(fn, jnp.asarray(sigma, jnp.result_type(float))), key)


class _Tilted(eqx.Module):
    fn: Objective
    sigma: Float[Array, ""]

    def __call__(self, params, args, key):
        value = self.fn(params, args)
        leaves, structure = jtu.tree_flatten(params)
        keys = jax.random.split(key, len(leaves))
        draws = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
        tilt = inner(jtu.tree_unflatten(structure, draws), params)
        return value + (self.sigma.astype(tilt.dtype) * tilt).astype(value.dtype)


def minibatch(
    fn: Callable[[PyTree, Any], Float[Array, ""]],
    data: PyTree,
    size: int,
    key: Array | int = 0,
) -> Stochastic:
    """fn(params, batch) on `size` rows of `data`, drawn anew each step, without replacement within a step.

    - `fn`: the mean loss over the rows of a batch, so that its expectation is that over all of `data`.
    - `data`: a pytree of arrays with one leading axis, the rows. It takes the place of `args`.

    Raises ValueError for leading axes that differ and a `size` beyond the number of rows.
    """
    rows = {x.shape[0] if x.ndim else -1 for x in map(jnp.asarray, jtu.tree_leaves(data))}
    if len(rows) != 1 or min(rows) < 1:
        raise ValueError(
            f"`data`: every leaf needs a leading axis of one length >= 1; got {sorted(rows)}"
        )
    (n,) = rows
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= n:
        raise ValueError(f"`size` must be an int from 1 to the {n} rows of `data`; got {size!r}")
    return Stochastic(_Batch(fn, jtu.tree_map(jnp.asarray, data), size, n), key)


class _Batch(eqx.Module):
    fn: Callable[[PyTree, Any], Float[Array, ""]]
    data: PyTree
    size: int
    rows: int

    def __call__(self, params, args, key):
        chosen = jax.random.choice(key, self.rows, (self.size,), replace=False)
        return self.fn(params, jtu.tree_map(lambda x: x[chosen], self.data))


def as_key(key: Array | int) -> Array:
    """`key` as a typed JAX key; an int seeds one; TypeError for anything else."""
    if isinstance(key, int) and not isinstance(key, bool):
        return jax.random.key(key)
    if isinstance(key, jax.Array):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            return key
        if key.dtype == jnp.uint32 and key.shape[-1:] == (2,):
            return jax.random.wrap_key_data(key)
    raise TypeError(f"`key` must be a JAX random key, or an int to seed one; got {key!r}")


def key_of_start(key: Array, params: PyTree) -> Array:
    """A key made of `key` and of every bit of `params`: hashed word by word, then xor-ed."""
    words = []
    for x in jtu.tree_leaves(params):
        kind = jnp.uint16 if x.dtype.itemsize == 2 else jnp.uint32
        words.append(jax.lax.bitcast_convert_type(x, kind).astype(jnp.uint32).reshape(-1))
    bits = jnp.concatenate(words)
    hashed = jax.vmap(jax.random.fold_in)(jax.random.split(key, bits.size), bits)
    data = jax.lax.reduce(
        jax.random.key_data(hashed), jnp.uint32(0), jax.lax.bitwise_xor, dimensions=(0,)
    )
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
