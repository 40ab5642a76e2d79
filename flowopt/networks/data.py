"""Data to learn, checked once, and their normalisation as part of a model."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
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

    def __init__(self, x: Any, y: Any, weights: Any = None, *, dtype: Any = None):
        """`dtype`: of inputs, and of targets that are no classes; by default their own."""
        self.x, self.y = jnp.asarray(x, dtype), jnp.asarray(y)
        if jnp.issubdtype(self.y.dtype, jnp.floating):
            self.y = jnp.asarray(self.y, dtype)
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

    A component that does not vary has scale 1. Where the targets are classes the outputs, logits, stay as they are. A
    model that is used later, or elsewhere, carries its units with it.
    """
    x, y = np.asarray(data.x), np.asarray(data.y)
    if not np.issubdtype(y.dtype, np.floating):
        return Normalised(net, *_units(x), np.zeros((), x.dtype), np.ones((), x.dtype))
    return Normalised(net, *_units(x), *_units(y))


def _units(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the data; 1 for the latter where nothing varies."""
    scale = values.std(axis=0)
    return np.asarray(values.mean(axis=0)), np.where(scale > 0, scale, 1).astype(values.dtype)
