"""What a system's runs may end at: attractors, told apart by proximity or by a feature of the trajectory."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int, PyTree

from flowopt.objective import check_params
from flowopt.stability.labels import DIVERGED, ELSEWHERE
from flowopt.tree import ravel


class Attractors(eqx.Module):
    """Tells attractors apart by proximity: the nearest one, if within `radius` of it.

    `points` holds one array per attractor, of shape (k, d): k points of it, each a state as a vector.
    """

    points: tuple[Float[Array, "k d"], ...]
    radius: float

    def label(self, state: PyTree) -> Int[Array, ""]:
        """The index of the nearest attractor, or `ELSEWHERE` beyond `radius` of all."""
        x = ravel(state)
        squared = [jnp.min(jnp.sum((p.astype(x.dtype) - x) ** 2, axis=1)) for p in self.points]
        distances = jnp.sqrt(jnp.stack(squared))
        near = jnp.min(distances) <= self.radius
        return jnp.where(near, jnp.argmin(distances), ELSEWHERE).astype(jnp.int32)


def outside(state: PyTree, bound: float) -> Bool[Array, ""]:
    """Whether a number of the state is past `bound` in size, or not finite."""
    x = ravel(state)
    return ~jnp.all(jnp.abs(x) <= jnp.asarray(bound, x.dtype))


def feature_label(label: Any, count: int, escaped: Bool[Array, ""]) -> Int[Array, ""]:
    """A user's label as one of ours: none but those of the `count` attractors, and `DIVERGED` where it escaped."""
    label = jnp.asarray(label)
    if label.shape != () or not jnp.issubdtype(label.dtype, jnp.integer):
        raise TypeError(
            "`feature` must return one integer, the index of the attractor; got "
            f"{label.dtype}{list(label.shape)}"
        )
    label = jnp.where((label >= 0) & (label < count), label, ELSEWHERE).astype(jnp.int32)
    return jnp.where(escaped, DIVERGED, label)


def attractor_points(attractors: Attractors | None, names: Sequence[str]) -> xr.Dataset:
    """The dataset over `point`: the first point of each attractor that is given by points; names in the attributes."""
    data = {}
    if attractors is not None:
        first = np.array([np.asarray(p[0]) for p in attractors.points])
        data["point_params"] = (("point", "param"), first, {"units": "state"})
    return xr.Dataset(data, {"point": np.arange(len(names))}, {"natures": list(names)})


def check_target(
    attractors: Sequence[PyTree] | None,
    radius: float,
    feature: Callable | None,
    names: Sequence[str] | None,
) -> tuple[Attractors | None, tuple[str, ...]]:
    """The attractors and their names from what a user gave: either points and a radius, or a feature and names."""
    if (attractors is None) == (feature is None):
        raise TypeError(
            "give either `attractors`, a list of states, or `feature`, a function that labels a trajectory"
        )
    if names is not None and (isinstance(names, str) or not all(isinstance(x, str) for x in names)):
        raise TypeError(f"`names` must be strings, one per attractor; got {names!r}")
    if attractors is None:
        if not callable(feature):
            raise TypeError(f"`feature` must be callable; got {feature!r}")
        if not names:
            raise TypeError("`names` is needed with `feature`: one per label, in their order")
        return None, tuple(names)
    if isinstance(radius, bool) or not isinstance(radius, float | int) or not 0 < radius < np.inf:
        raise ValueError(f"`radius` must be finite and > 0; got {radius!r}")
    points = tuple(_as_points(a) for a in attractors)
    if not points:
        raise ValueError("`attractors` must hold at least one attractor")
    if len({p.shape[1] for p in points}) != 1:
        raise ValueError(
            "`attractors`: all states must be of one size; got sizes "
            f"{[p.shape[1] for p in points]}"
        )
    names = tuple(names or (f"attractor {i}" for i in range(len(points))))
    if len(names) != len(points):
        raise ValueError(
            f"`names` must be one per attractor; got {len(names)} for {len(points)} attractors"
        )
    return Attractors(points, float(radius)), names


def _as_points(attractor: PyTree) -> Float[Array, "k d"]:
    """A state, or a list of the states of a cycle, as the rows of a matrix."""
    states = attractor if isinstance(attractor, list) else [attractor]
    if not states:
        raise ValueError("`attractors`: a list of states must not be empty")
    return jnp.stack([ravel(check_params(s, "attractors")) for s in states])
