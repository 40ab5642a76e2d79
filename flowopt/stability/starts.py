"""Distributions of starts: functions of (key, n) that give a pytree of n starts, to hand to `flowopt.reach`."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.nn import initializers
from jaxtyping import Array, PyTree


def check_region(region, name: str = "region") -> tuple[tuple[float, float], ...]:
    """`region` as a tuple of (low, high) pairs of floats; raises, naming the argument, unless low < high."""
    try:
        pairs = tuple((float(low), float(high)) for low, high in region)
    except (TypeError, ValueError) as e:
        raise TypeError(
            f"`{name}` must be pairs (low, high), one per parameter; got {region!r}"
        ) from e
    for low, high in pairs:
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(
                f"`{name}`: each pair must be finite with low < high; got ({low}, {high})"
            )
    return pairs


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Params uniform in a box: a tuple of scalars, one per pair (low, high) of `region` [params]."""

    region: tuple[tuple[float, float], ...]

    def __post_init__(self):
        object.__setattr__(self, "region", check_region(self.region))

    def __call__(self, key: Array, n: int) -> PyTree:
        """`n` starts: a tuple of arrays of shape (n,), in JAX's default float dtype."""
        keys = jax.random.split(key, len(self.region))
        dtype = jnp.result_type(float)
        return tuple(
            jax.random.uniform(k, (n,), dtype, minval=low, maxval=high)
            for k, (low, high) in zip(keys, self.region, strict=True)
        )


def uniform(*region: tuple[float, float]) -> Uniform:
    """Starts uniform in a box: `uniform((w_lo, w_hi), (b_lo, b_hi))`."""
    return Uniform(region)


@dataclasses.dataclass(frozen=True)
class Normal:
    """Independent normal params: a tuple of scalars, one per pair (mean, standard deviation) [params]."""

    moments: tuple[tuple[float, float], ...]

    def __post_init__(self):
        try:
            pairs = tuple((float(mean), float(deviation)) for mean, deviation in self.moments)
        except (TypeError, ValueError) as e:
            raise TypeError(
                "`moments` must be pairs (mean, standard deviation), one per parameter; got "
                f"{self.moments!r}"
            ) from e
        if not all(math.isfinite(m) and math.isfinite(d) and d > 0 for m, d in pairs):
            raise ValueError(
                f"`moments`: each pair must be finite with a standard deviation > 0; got {pairs}"
            )
        object.__setattr__(self, "moments", pairs)

    def __call__(self, key: Array, n: int) -> PyTree:
        """`n` starts: a tuple of arrays of shape (n,), in JAX's default float dtype."""
        keys = jax.random.split(key, len(self.moments))
        dtype = jnp.result_type(float)
        return tuple(
            mean + deviation * jax.random.normal(k, (n,), dtype)
            for k, (mean, deviation) in zip(keys, self.moments, strict=True)
        )


def normal(*moments: tuple[float, float]) -> Normal:
    """Starts of independent normal params: `normal((w_mean, w_std), (b_mean, b_std))`."""
    return Normal(moments)


INITIALISERS = {
    "glorot_uniform": initializers.glorot_uniform,
    "glorot_normal": initializers.glorot_normal,
    "he_uniform": initializers.he_uniform,
    "he_normal": initializers.he_normal,
    "lecun_uniform": initializers.lecun_uniform,
    "lecun_normal": initializers.lecun_normal,
    "orthogonal": initializers.orthogonal,
    "zeros": lambda: initializers.zeros,
    "ones": lambda: initializers.ones,
}
"""The initialisers of networks by name: those of `jax.nn.initializers`."""


@dataclasses.dataclass(frozen=True)
class Initialised:
    """Params drawn as the weights and biases of a network, leaf by leaf."""

    shapes: PyTree
    """What a run's params look like: `jax.ShapeDtypeStruct`s."""
    names: tuple[str, ...]
    """The name of each leaf's initialiser, among `INITIALISERS`."""

    def __repr__(self) -> str:
        sizes = [x.shape for x in jtu.tree_leaves(self.shapes)]
        return (
            f"Initialised({', '.join(f'{n} {s}' for n, s in zip(self.names, sizes, strict=True))})"
        )

    def __call__(self, key: Array, n: int) -> PyTree:
        """`n` starts: a pytree of the structure and dtypes of `shapes`, each leaf with a leading axis n."""
        leaves, structure = jtu.tree_flatten(self.shapes)
        keys = jax.random.split(key, len(leaves))
        out = []
        for name, leaf, k in zip(self.names, leaves, keys, strict=True):
            # A scalar is the weight of one input to one neuron.
            shape = leaf.shape or (1, 1)
            draw = lambda k, name=name, s=shape, d=leaf.dtype: INITIALISERS[name]()(k, s, d)
            out.append(jax.vmap(draw)(jax.random.split(k, n)).reshape(n, *leaf.shape))
        return jtu.tree_unflatten(structure, out)


def initialised(
    params: PyTree, weights: Any = "glorot_uniform", biases: str = "zeros"
) -> Initialised:
    """Starts drawn as networks are initialised: Glorot, He, LeCun, orthogonal, by `jax.nn.initializers`.

    - `params`: params, or `jax.ShapeDtypeStruct`s, whose structure, shapes and dtypes the starts have. A matrix is
      (fan in, fan out), as for x @ W; more axes in front are those of a convolution's kernel.
    - `weights`: the name of an initialiser, for every leaf of at least two axes; or a pytree of names like `params`,
      one for each leaf, where a scalar weight counts as a 1 x 1 matrix.
    - `biases`: the name for the leaves of fewer axes, where `weights` is one name: "zeros" or "ones".

    Raises TypeError or ValueError, naming the argument.   [Glorot and Bengio 2010; He et al. 2015; LeCun et al. 1998;
    Saxe et al. 2014]
    """
    struct = lambda x: isinstance(x, jax.ShapeDtypeStruct)
    shapes = jtu.tree_map(
        lambda x: x if struct(x) else jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)),
        params,
        is_leaf=struct,
    )
    leaves, structure = jtu.tree_flatten(shapes)
    if not leaves or not all(jnp.issubdtype(x.dtype, jnp.floating) for x in leaves):
        raise TypeError("`params` must be a pytree of floating arrays, or of their shapes")
    if isinstance(weights, str):
        _check_name(weights, "weights")
        _check_name(biases, "biases")
        names = [weights if x.ndim >= 2 else biases for x in leaves]
    else:
        names, given = jtu.tree_flatten(weights)
        if given != structure:
            raise ValueError(
                f"`weights` must be a name, or a pytree of names like `params`, {structure}; got {given}"
            )
        for name in names:
            _check_name(name, "weights")
    for name, x in zip(names, leaves, strict=True):
        if x.ndim == 1 and name not in ("zeros", "ones"):
            raise ValueError(
                f"`biases`: {name!r} needs to know the fan in and fan out, and a leaf of shape {x.shape} has "
                'neither; use "zeros" or "ones", or a matrix'
            )
    return Initialised(shapes, tuple(names))


def _check_name(name: Any, argument: str) -> None:
    if name not in INITIALISERS:
        raise ValueError(f"`{argument}` must be among {', '.join(INITIALISERS)}; got {name!r}")
