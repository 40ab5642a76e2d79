"""Reach probabilities: with what probability is each critical point found?"""

import os
from typing import Any

import jax
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.run.draw import Distribution, given_or_drawn
from flowopt.run.step import Stop
from flowopt.stability.descent import Descent, as_system
from flowopt.stability.intervals import clopper_pearson
from flowopt.stability.labels import NO_POINT
from flowopt.stability.systems import AbstractSystem


def reach(
    problem: Problem | AbstractSystem,
    method: Method | None,
    starts: PyTree | Distribution,
    n: int | None = None,
    key: jax.Array | int | None = None,
    *,
    args: Any = None,
    tol: float = 1e-4,
    max_steps: int = 10_000,
    radius: float = 0.05,
    stop: Stop | None = None,
    confidence: float = 0.95,
    store: str | os.PathLike | None = None,
    executor: Any = None,
    progress: bool | str = False,
) -> xr.Dataset:
    """The probability that `method` ends at each critical point of `problem`, with its Clopper-Pearson interval.

    - `problem`, `method`: as in `flowopt.basins`; for a system, `method` is None.
    - `starts`: a pytree of starts with leading axis n, or a distribution: a function of (key, n), such
      as `flowopt.uniform((-3, 3), (-3, 3))`, which then needs `n` and `key` (a JAX key, or a seed), and
      is drawn as by `flowopt.ensemble`.
    - `tol`, `max_steps`, `stop`, `store`, `executor`: as in `flowopt.ensemble`; `radius` as in `flowopt.basins`.
    - `confidence`: of the intervals, which cover at least with that probability.

    Returns a dataset over `end`, the labels of `flowopt.basins` (critical points first, then -1
    converged elsewhere, -2 max_steps, -3 diverged, -4 stalled): `count`, `probability`, `lower`,
    `upper`; over `run`: `label`, `accepted`, `rejected`, `start`; over `point`: what the points are.

    Raises TypeError or ValueError, naming the argument.   [Clopper and Pearson 1934]
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
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie in (0, 1); got {confidence}")
    source = given_or_drawn(starts, n, key)
    if source.n == 0:
        raise ValueError("`starts` must hold at least one start")
    here = source.part(0, source.n)
    if isinstance(system, Descent):
        ends = system.ends(starts, progress, n=n, key=key)
    else:
        ends = system.ends(here, progress)
    labels = ends.label
    points = system.points()
    where = np.array([*range(points.sizes["point"]), *NO_POINT])
    count = np.array([np.sum(labels == i) for i in where])
    lower, upper = clopper_pearson(count, len(labels), confidence)
    flat = [np.reshape(x, (len(labels), -1)) for x in jtu.tree_leaves(here)]
    return xr.Dataset(
        {
            "count": ("end", count, {"units": "runs"}),
            "probability": ("end", count / len(labels), {"units": "1"}),
            "lower": ("end", lower, {"units": "1"}),
            "upper": ("end", upper, {"units": "1"}),
            "label": ("run", labels),
            "accepted": ("run", ends.accepted, {"units": "steps"}),
            "rejected": ("run", ends.rejected, {"units": "steps"}),
            "start": (("run", "param"), np.concatenate(flat, axis=1), {"units": "params"}),
            **points.data_vars,
        },
        coords={"end": where, **points.coords},
        attrs={
            **system.describe(str(source)),
            "confidence": float(confidence),
            **points.attrs,
        },
    )
