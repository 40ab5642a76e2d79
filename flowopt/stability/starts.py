"""Distributions of starts."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


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

    def __call__(self, key: jax.Array, n: int) -> PyTree:
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
