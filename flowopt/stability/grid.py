"""Starts on a grid: at the centres of equal cells over a part of a plane."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, PyTree

from flowopt.stability.plane import Plane, coordinate_plane
from flowopt.stability.starts import check_region


@dataclasses.dataclass(frozen=True)
class Grid:
    """A grid of `sizes` cells over `region` of `plane`; `names` are those of its axes, `unit` that of the space."""

    plane: Plane
    region: tuple[tuple[float, float], ...]
    sizes: tuple[int, int]
    names: tuple[str, str]
    unit: str
    about: str
    """The starts in words, for the attributes of a dataset."""

    def centres(self, axis: int) -> Float[np.ndarray, " k"]:
        """The cells' centres along an axis."""
        (low, high), size = self.region[axis], self.sizes[axis]
        return low + (high - low) * (np.arange(size) + 0.5) / size

    def starts(self, i: Int[np.ndarray, " k"], j: Int[np.ndarray, " k"]) -> PyTree:
        """The params at the centres of the cells (i, j): a pytree with leading axis k."""
        return self.plane.starts(self.centres(0)[i], self.centres(1)[j])

    def every_start(self) -> PyTree:
        """The params at all centres, row by row: a pytree with leading axis n m."""
        i, j = np.indices(self.sizes)
        return self.starts(i.ravel(), j.ravel())

    def places(self, points: xr.Dataset) -> Float[np.ndarray, "point 2"]:
        """(u, v) of the points that lie in the plane, to within a cell; NaN for the others."""
        if "point_params" not in points or points.sizes["param"] != len(self.plane.origin):
            return np.full((points.sizes.get("point", 0), 2), np.nan)
        sides = [(high - low) / n for (low, high), n in zip(self.region, self.sizes, strict=True)]
        u, v, distance = self.plane.place(points.point_params.values).T
        return np.where(distance[:, None] <= max(sides), np.column_stack([u, v]), np.nan)

    def dataset(self, fields: dict[str, tuple], points: xr.Dataset) -> xr.Dataset:
        """`fields` by name, (values over the grid, its attributes), with the points and where they lie."""
        over = {name: (self.names, *rest) for name, rest in fields.items()}
        axes = {
            name: (name, self.centres(k), {"units": self.unit}) for k, name in enumerate(self.names)
        }
        place = (("point", "axis"), self.places(points), {"units": self.unit})
        return xr.Dataset(
            {**over, "point_place": place, **points.data_vars},
            {**axes, **points.coords},
            {"region": [list(pair) for pair in self.region], **points.attrs},
        )


def make_grid(
    region: Sequence[tuple[float, float]],
    resolution: int | tuple[int, int],
    plane: Plane | None,
    numbers: int,
    unit: str = "params",
) -> Grid:
    """The grid that a user asked for, in a space of `numbers` numbers; raises, naming the argument.

    Without a plane the two numbers themselves are the axes: (w, b) of params, (u, v) of a system's state.
    """
    pairs = check_region(region)
    if len(pairs) != 2:
        raise ValueError(
            f"`region` must be two pairs, ((u_lo, u_hi), (v_lo, v_hi)); got {region!r}"
        )
    sizes = _check_resolution(resolution)
    if plane is not None and not isinstance(plane, Plane):
        raise TypeError(f"`plane` must be made by flowopt.plane(...); got {plane!r}")
    if plane is None and numbers != 2:
        raise ValueError(
            f"`plane` is needed where params are {numbers} numbers; make one with flowopt.plane(...)"
        )
    names = ("u", "v") if plane or unit != "params" else ("w", "b")
    about = f"grid over {pairs}" + (f" of {plane!r}" if plane else "")
    return Grid(plane or coordinate_plane(), pairs, sizes, names, unit, about)


def _check_resolution(resolution: Any) -> tuple[int, int]:
    sizes = tuple(resolution) if isinstance(resolution, tuple | list) else (resolution, resolution)
    if len(sizes) != 2 or any(isinstance(s, bool) or not isinstance(s, int) for s in sizes):
        raise TypeError(f"`resolution` must be an int, or two; got {resolution!r}")
    if any(s < 1 for s in sizes):
        raise ValueError(f"`resolution` must be at least 1; got {resolution}")
    return sizes
