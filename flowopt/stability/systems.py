"""Systems with attractors that are not optimizers, for `flowopt.basins` and `flowopt.reach`."""

import abc
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int, PyTree
from tqdm import tqdm

from flowopt.objective import check_params
from flowopt.stability.labels import DIVERGED, ELSEWHERE, NO_POINT
from flowopt.tree import ravel

_CHUNK = 1024


class Ends(NamedTuple):
    """How each of n runs ended."""

    label: Int[np.ndarray, " n"]
    """The index of an attractor (of a critical point, for a problem), or one of `labels.NO_POINT`."""
    accepted: Int[np.ndarray, " n"]
    """Steps kept."""
    rejected: Int[np.ndarray, " n"]
    """Steps attempted and not kept."""


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


class AbstractSystem(eqx.Module):
    """Something that starts from a state and ends at one of finitely many attractors, or at none.

    A subclass says how one run ends; running many of them, on any device, is the same for all.
    """

    names: eqx.AbstractVar[tuple[str, ...]]
    """What each attractor is called, in the order of the labels."""

    @abc.abstractmethod
    def end(self, start: PyTree) -> tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""]]:
        """(label, accepted, rejected) of one run; traced by JAX, so failure is a label and not an exception."""

    @abc.abstractmethod
    def points(self) -> xr.Dataset:
        """The attractors as a dataset over `point`."""

    def ends(self, starts: PyTree, progress: bool | str = False) -> Ends:
        """How the runs from `starts`, a pytree with leading axis n, end. They run in chunks of 1,024, side by side."""
        starts = jtu.tree_map(np.asarray, check_params(starts, "starts"))
        n = len(jtu.tree_leaves(starts)[0])
        numbers = sum(x.size for x in jtu.tree_leaves(starts)) // max(n, 1)
        wanted = self.points().sizes.get("param", numbers)
        if n and numbers != wanted:
            raise ValueError(
                f"`starts`: a state has {wanted} numbers, as the attractors do; got {numbers}"
            )
        bar = tqdm(
            total=n,
            disable=not progress,
            desc=progress if isinstance(progress, str) else None,
            unit="run",
            leave=False,
        )
        with bar:
            parts = list(self._chunks(starts, n, bar))
        if not parts:
            return Ends(*(np.zeros(0, np.int32) for _ in Ends._fields))
        return Ends(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _chunks(self, starts: PyTree, n: int, bar: tqdm) -> Iterator[list[np.ndarray]]:
        # A power of two, so that batches of many sizes share few compiled shapes.
        width = min(_CHUNK, 2 ** int(np.ceil(np.log2(max(n, 64)))))
        for first in range(0, n, width):
            # The last chunk is filled up with copies of its own first start.
            rows = np.arange(first, first + width)
            here = np.where(rows < n, rows, first)
            out = _run(self, jtu.tree_map(lambda x: x[here], starts))  # noqa: B023
            bar.update(min(width, n - first))
            yield [np.asarray(x)[: n - first].astype(np.int32) for x in out]

    def describe(self, starts: str) -> dict[str, Any]:
        """What one needs to know to run it again from `starts`, as attributes of a dataset."""
        packages = ("flowopt", "jax", "diffrax", "equinox", "numpy")
        return {
            "system": eqx.tree_pformat(self, short_arrays=False),
            "starts": starts,
            "labels": "index of the attractor; "
            + ", ".join(f"{label} {name}" for label, name in NO_POINT.items()),
            **{f"{name} version": importlib.metadata.version(name) for name in packages},
        }


@eqx.filter_jit
def _run(system: AbstractSystem, starts: PyTree):
    return jax.vmap(system.end)(starts)


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
