"""Data to learn, checked once, and their normalisation as part of a model."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float


class Data(eqx.Module):
    """Inputs and targets of n data, the `args` of a loss. Raises ValueError unless there are n of each."""

    x: Array
    """(n, ...), what the model takes, datum by datum."""
    y: Array
    """(n, ...), what it is to give; for `CrossEntropy` (n,) integers, the classes."""
    weights: Float[Array, " n"] | None = None
    """How much each datum counts, >= 0; None for all alike. Only their ratios matter."""

    def __init__(self, x: Any, y: Any, weights: Any = None):
        self.x, self.y = jnp.asarray(x), jnp.asarray(y)
        self.weights = None if weights is None else jnp.asarray(weights, self.x.dtype)
        if not jnp.issubdtype(self.x.dtype, jnp.floating):
            raise TypeError(f"`x` must be floating; got {self.x.dtype}")
        if self.x.ndim == 0 or self.x.shape[0] == 0:
            raise ValueError(f"`x` must have a leading axis, of the data; got shape {self.x.shape}")
        n = self.x.shape[0]
        if self.y.ndim == 0 or self.y.shape[0] != n:
            raise ValueError(
                f"`y` must have one target for each of the {n} inputs; got shape {self.y.shape}"
            )
        if self.weights is not None and self.weights.shape != (n,):
            raise ValueError(
                f"`weights` must have shape ({n},), one for each datum; got {self.weights.shape}"
            )

    def __len__(self) -> int:
        return self.x.shape[0]


class Normalised(eqx.Module):
    """x -> mean_y + scale_y net((x - mean_x)/scale_x). The four are NumPy arrays, which `split` does not train."""

    net: Any
    mean_x: Float[np.ndarray, "..."]
    scale_x: Float[np.ndarray, "..."]
    mean_y: Float[np.ndarray, "..."]
    scale_y: Float[np.ndarray, "..."]

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.mean_y + self.scale_y * self.net((x - self.mean_x) / self.scale_x)


def normalised(net: Any, data: Data) -> Normalised:
    """`net` between inputs and outputs in the units of `data`, itself seeing mean 0 and standard deviation 1 in each.

    A component that does not vary has scale 1. A model that is used later, or elsewhere, carries its units with it.
    """
    parts = []
    for values in (data.x, data.y):
        values = np.asarray(values)
        scale = values.std(axis=0)
        parts += [values.mean(axis=0), np.where(scale > 0, scale, 1).astype(values.dtype)]
    if not np.issubdtype(parts[2].dtype, np.floating) or not np.issubdtype(
        np.asarray(data.y).dtype, np.floating
    ):
        raise TypeError(f"`data` must have floating targets to be normalised; got {data.y.dtype}")
    return Normalised(net, *jtu.tree_map(np.asarray, parts))
