"""Basins of attraction: which critical point a run reaches, as a map over where it started."""

import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.run.step import Stop
from flowopt.stability.descent import Descent, as_system
from flowopt.stability.plane import Plane, coordinate_plane
from flowopt.stability.refine import refined
from flowopt.stability.starts import check_region
from flowopt.stability.systems import AbstractSystem


def basins(
    problem: Problem | AbstractSystem,
    method: Method | None = None,
    region: Sequence[tuple[float, float]] = ((-3.0, 3.0), (-3.0, 3.0)),
    resolution: int | tuple[int, int] = 512,
    *,
    plane: Plane | None = None,
    refine: int = 0,
    args: Any = None,
    tol: float = 1e-4,
    max_steps: int = 10_000,
    radius: float = 0.05,
    stop: Stop | None = None,
    store: str | os.PathLike | None = None,
    executor: Any = None,
    progress: bool | str = False,
) -> xr.Dataset:
    """Runs `method` on `problem` from a grid of starts over `region` and labels each by where it ended.

    - `problem`: a `flowopt.Problem`, with its method; or a system with its attractors, `flowopt.Map` or
      `flowopt.ODE`, which takes no method, and of what follows only the first four.
    - `region`: ((u_lo, u_hi), (v_lo, v_hi)) [params], the part of the plane that is mapped.
    - `resolution`: starts along each axis, at the centres of equal cells, so that a share of
      starts is a share of area.
    - `plane`: where in the space of params the starts lie, as `flowopt.plane` makes it. None for params that are
      a tuple of two numbers, such as (w, b), which are then u and v themselves.
    - `refine`: levels of refinement. With r of them, only every 2^r-th cell along each axis is run at first,
      and the others only where labels change; what was not run takes the label and the steps of its nearest
      run cell. The map is the same but for islands that no coarser grid has met: with three
      levels, on 256 x 256 cells, at most 0.1% of the cells where boundaries are smooth, and 2.6% where they are
      worst shattered, as the study `convexity` measures.
    - `tol`, `max_steps`, `stop`, `store`, `executor`: as in `flowopt.ensemble`.
    - `radius`: distance to a critical point within which a converged run has reached it [params].

    Returns a dataset over (w, b), or (u, v) for a system or a plane: `label` (the index of the critical point or
    attractor; -1 converged elsewhere, -2 max_steps, -3 diverged, -4 stalled), `accepted` and `rejected`
    steps, `evaluated` (whether the cell was run); over `point`: `share`, `point_params`, `point_value`, and
    `point_place`, (u, v) of the points in the plane and NaN for others; in the attributes all it takes
    to run it again. The starts have JAX's default float dtype, or that of the plane: enable x64 for studies.

    Raises TypeError or ValueError, naming the argument.
    """
    system = as_system(
        problem,
        method,
        args=args,
        tol=tol,
        max_steps=max_steps,
        radius=radius,
        stop=stop,
        store=store,
        executor=executor,
    )
    pairs = check_region(region)
    if len(pairs) != 2:
        raise ValueError(
            f"`region` must be two pairs, ((u_lo, u_hi), (v_lo, v_hi)); got {region!r}"
        )
    sizes = _check_resolution(resolution)
    _check_refine(refine, sizes)
    if plane is not None and not isinstance(plane, Plane):
        raise TypeError(f"`plane` must be made by flowopt.plane(...); got {plane!r}")
    unit = "state" if isinstance(system, AbstractSystem) else "params"
    points = system.points()
    if plane is None and points.sizes.get("param", 2) != 2:
        raise ValueError(
            f"`plane` is needed where params are {points.sizes['param']} numbers; make one with flowopt.plane(...)"
        )
    over = ("u", "v") if plane or isinstance(system, AbstractSystem) else ("w", "b")
    flat = plane or coordinate_plane()
    u, v = (
        low + (high - low) * (np.arange(size) + 0.5) / size
        for (low, high), size in zip(pairs, sizes, strict=True)
    )
    levels = itertools.count()

    def run(i, j):
        here = system
        if refine and isinstance(system, Descent):
            here = system.stored_at(f"level-{next(levels)}")
        return here.ends(flat.starts(u[i], v[j]), progress)

    ends, evaluated = refined(run, sizes, refine)
    n = points.sizes["point"]
    share = np.array([np.mean(ends.label == i) for i in range(n)])
    cell = max((high - low) / size for (low, high), size in zip(pairs, sizes, strict=True))
    return xr.Dataset(
        {
            "label": (over, ends.label),
            "accepted": (over, ends.accepted, {"units": "steps"}),
            "rejected": (over, ends.rejected, {"units": "steps"}),
            "evaluated": (over, evaluated),
            "share": ("point", share, {"units": "1"}),
            "point_place": (("point", "axis"), _places(points, flat, cell), {"units": unit}),
            **points.data_vars,
        },
        coords={
            over[0]: (over[0], u, {"units": unit}),
            over[1]: (over[1], v, {"units": unit}),
            **points.coords,
        },
        attrs={
            **system.describe(f"grid over {pairs}" + (f" of {plane!r}" if plane else "")),
            "region": [list(pair) for pair in pairs],
            "resolution": list(sizes),
            "refine": refine,
            **points.attrs,
        },
    )


def _places(points: xr.Dataset, plane: Plane, cell: float) -> np.ndarray:
    """(u, v) of the points that lie in the plane, to within a cell; NaN for the others."""
    if "point_params" not in points or points.sizes["param"] != len(plane.origin):
        return np.full((points.sizes["point"], 2), np.nan)
    u, v, distance = plane.place(points.point_params.values).T
    return np.where(distance[:, None] <= cell, np.column_stack([u, v]), np.nan)


def _check_refine(refine: Any, sizes: tuple[int, int]) -> None:
    if isinstance(refine, bool) or not isinstance(refine, int):
        raise TypeError(f"`refine` must be an int, the number of levels; got {refine!r}")
    if refine < 0 or 2**refine >= min(sizes):
        raise ValueError(
            f"`refine` must be at least 0, and 2**refine below the resolution {sizes}; got {refine}"
        )


def _check_resolution(resolution: Any) -> tuple[int, int]:
    sizes = tuple(resolution) if isinstance(resolution, tuple | list) else (resolution, resolution)
    if len(sizes) != 2 or any(isinstance(s, bool) or not isinstance(s, int) for s in sizes):
        raise TypeError(f"`resolution` must be an int, or two; got {resolution!r}")
    if any(s < 1 for s in sizes):
        raise ValueError(f"`resolution` must be at least 1; got {resolution}")
    return sizes
