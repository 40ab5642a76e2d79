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
from flowopt.stability.grid import make_grid
from flowopt.stability.plane import Plane
from flowopt.stability.refine import refined
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
      levels, on 256 x 256 cells, less than 0.1% of the cells where boundaries are smooth, and 1.3% where they are
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
    points = system.points()
    unit = "state" if isinstance(system, AbstractSystem) else "params"
    grid = make_grid(region, resolution, plane, points.sizes.get("param", 2), unit)
    _check_refine(refine, grid.sizes)
    levels = itertools.count()

    def run(i, j):
        here = system
        if refine and isinstance(system, Descent):
            here = system.stored_at(f"level-{next(levels)}")
        return here.ends(grid.starts(i, j), progress)

    ends, evaluated = refined(run, grid.sizes, refine)
    n = points.sizes["point"]
    share = np.array([np.mean(ends.label == i) for i in range(n)])
    fields = {
        "label": (ends.label,),
        "accepted": (ends.accepted, {"units": "steps"}),
        "rejected": (ends.rejected, {"units": "steps"}),
        "evaluated": (evaluated,),
    }
    ds = grid.dataset(fields, points).assign(share=("point", share, {"units": "1"}))
    settings = {"resolution": list(grid.sizes), "refine": refine}
    return ds.assign_attrs(**system.describe(grid.about), **settings)


def _check_refine(refine: Any, sizes: tuple[int, int]) -> None:
    if isinstance(refine, bool) or not isinstance(refine, int):
        raise TypeError(f"`refine` must be an int, the number of levels; got {refine!r}")
    if refine < 0 or 2**refine >= min(sizes):
        raise ValueError(
            f"`refine` must be at least 0, and 2**refine below the resolution {sizes}; got {refine}"
        )
