"""Basins of attraction: which critical point a run reaches, as a map over where it started."""

import os
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.run.ensemble import ensemble
from flowopt.run.step import Stop
from flowopt.stability.labels import check_problem, describe, describe_points, label_ends
from flowopt.stability.starts import check_region


def basins(
    problem: Problem,
    method: Method,
    region: Sequence[tuple[float, float]] = ((-3.0, 3.0), (-3.0, 3.0)),
    resolution: int | tuple[int, int] = 512,
    *,
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

    - `region`: ((w_lo, w_hi), (b_lo, b_hi)) [params], for a problem whose params are the tuple (w, b).
    - `resolution`: starts along each axis, at the centres of equal cells, so that a share of
      starts is a share of area.
    - `tol`, `max_steps`, `stop`, `store`, `executor`: as in `flowopt.ensemble`.
    - `radius`: distance to a critical point within which a converged run has reached it [params].

    Returns a dataset over (w, b): `label` (the index of the critical point; -1 converged elsewhere, -2
    max_steps, -3 diverged, -4 stalled), `accepted` and `rejected` steps; over `point`: `point_params`,
    `point_value` and `share`; in the attributes all it takes to run it again. The starts have JAX's
    default float dtype: enable x64 for studies.

    Raises TypeError or ValueError, naming the argument.
    """
    check_problem(problem)
    pairs = check_region(region)
    if len(pairs) != 2:
        raise ValueError(
            f"`region` must be two pairs, ((w_lo, w_hi), (b_lo, b_hi)); got {region!r}"
        )
    sizes = _check_resolution(resolution)
    w, b = (
        low + (high - low) * (np.arange(size) + 0.5) / size
        for (low, high), size in zip(pairs, sizes, strict=True)
    )
    grid = np.meshgrid(w, b, indexing="ij")
    starts = tuple(jnp.asarray(x.ravel(), jnp.result_type(float)) for x in grid)
    ends = ensemble(
        problem.loss,
        starts,
        method,
        args=args,
        tol=tol,
        max_steps=max_steps,
        stop=stop,
        store=store,
        executor=executor,
        about={"problem": problem.name},
        progress=progress,
    )
    labels = label_ends(problem, ends, radius)
    points = describe_points(problem)
    share = np.array([np.mean(labels == i) for i in range(len(problem.critical_points))])
    over = ("w", "b")
    return xr.Dataset(
        {
            "label": (over, labels.reshape(sizes)),
            "accepted": (over, np.asarray(ends.accepted).reshape(sizes), {"units": "steps"}),
            "rejected": (over, np.asarray(ends.rejected).reshape(sizes), {"units": "steps"}),
            "share": ("point", share, {"units": "1"}),
            **points.data_vars,
        },
        coords={
            "w": ("w", w, {"units": "params"}),
            "b": ("b", b, {"units": "params"}),
            **points.coords,
        },
        attrs={
            **describe(problem, method, tol, max_steps, radius, stop, f"grid over {pairs}"),
            "region": [list(pair) for pair in pairs],
            "resolution": list(sizes),
            **points.attrs,
        },
    )


def _check_resolution(resolution: Any) -> tuple[int, int]:
    sizes = tuple(resolution) if isinstance(resolution, tuple | list) else (resolution, resolution)
    if len(sizes) != 2 or any(isinstance(s, bool) or not isinstance(s, int) for s in sizes):
        raise TypeError(f"`resolution` must be an int, or two; got {resolution!r}")
    if any(s < 1 for s in sizes):
        raise ValueError(f"`resolution` must be at least 1; got {resolution}")
    return sizes
