"""Reach probabilities: with what probability is each critical point found?"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.objective import check_params
from flowopt.run.ensemble import ensemble
from flowopt.run.step import Stop
from flowopt.stability.intervals import clopper_pearson
from flowopt.stability.labels import (
    NO_POINT,
    check_problem,
    describe,
    describe_points,
    label_ends,
)


def reach(
    problem: Problem,
    method: Method,
    starts: PyTree | Callable[[jax.Array, int], PyTree],
    n: int | None = None,
    key: jax.Array | int | None = None,
    *,
    args: Any = None,
    tol: float = 1e-4,
    max_steps: int = 10_000,
    radius: float = 0.05,
    stop: Stop | None = None,
    confidence: float = 0.95,
    progress: bool | str = False,
) -> xr.Dataset:
    """The probability that `method` ends at each critical point of `problem`, with its Clopper-Pearson interval.

    - `starts`: a pytree of starts with leading axis n, or a distribution: a function of (key, n), such
      as `flowopt.uniform((-3, 3), (-3, 3))`, which then needs `n` and `key` (a JAX key, or a seed).
    - `tol`, `max_steps`, `stop`: as in `flowopt.ensemble`; `radius` as in `flowopt.basins`.
    - `confidence`: of the intervals, which cover at least with that probability.

    Returns a dataset over `end`, the labels of `flowopt.basins` (critical points first, then -1
    converged elsewhere, -2 max_steps, -3 diverged, -4 stalled): `count`, `probability`, `lower`,
    `upper`; over `run`: `label`, `accepted`, `rejected`, `start`; over `point`: what the points are.

    Raises TypeError or ValueError, naming the argument.   [Clopper and Pearson 1934]
    """
    check_problem(problem)
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie in (0, 1); got {confidence}")
    what = "given"
    if callable(starts):
        if n is None or isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"`n`, the number of starts to draw, must be an int; got {n!r}")
        if n < 1:
            raise ValueError(f"`n` must be at least 1; got {n}")
        if key is None:
            raise TypeError(
                "`key` is needed to draw starts: a JAX random key, or an int to seed one"
            )
        what = f"{n} from {starts!r}, key {_key_data(key)}"
        starts = starts(jax.random.key(key) if isinstance(key, int) else key, n)
    elif n is not None or key is not None:
        raise TypeError("`n` and `key` go with a distribution; here `starts` are given")
    starts = check_params(starts, "starts")
    ends = ensemble(
        problem.loss,
        starts,
        method,
        args=args,
        tol=tol,
        max_steps=max_steps,
        stop=stop,
        progress=progress,
    )
    if len(ends) == 0:
        raise ValueError("`starts` must hold at least one start")
    labels = label_ends(problem, ends, radius)
    points = describe_points(problem)
    where = np.array([*range(len(problem.critical_points)), *NO_POINT])
    count = np.array([np.sum(labels == i) for i in where])
    lower, upper = clopper_pearson(count, len(labels), confidence)
    flat = [np.reshape(x, (len(labels), -1)) for x in jtu.tree_leaves(starts)]
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
            **describe(problem, method, tol, max_steps, radius, stop, what),
            "confidence": float(confidence),
            **points.attrs,
        },
    )


def _key_data(key: Any) -> Any:
    if isinstance(key, int):
        return key
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(key) if typed else key).tolist()
