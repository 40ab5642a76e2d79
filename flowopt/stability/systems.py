"""Systems with attractors that are not optimizers, for `flowopt.basins` and `flowopt.reach`."""

import abc
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import Array, Int, PyTree
from tqdm import tqdm

from flowopt.objective import check_params
from flowopt.run.store import versions
from flowopt.stability.labels import NO_POINT

_CHUNK = 1024


class Ends(NamedTuple):
    """How each of n runs ended."""

    label: Int[np.ndarray, " n"]
    """The index of an attractor (of a critical point, for a problem), or one of `labels.NO_POINT`."""
    accepted: Int[np.ndarray, " n"]
    """Steps kept."""
    rejected: Int[np.ndarray, " n"]
    """Steps attempted and not kept."""


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
        return {
            "system": eqx.tree_pformat(self, short_arrays=False),
            "starts": starts,
            "labels": "index of the attractor; "
            + ", ".join(f"{label} {name}" for label, name in NO_POINT.items()),
            **versions(),
        }


@eqx.filter_jit
def _run(system: AbstractSystem, starts: PyTree):
    return jax.vmap(system.end)(starts)
