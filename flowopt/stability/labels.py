"""Where a run ended, as one integer: the index of a critical point, or why it reached none."""

from collections.abc import Callable
from typing import Any

import jax.tree_util as jtu
import numpy as np
import xarray as xr

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.run.describe import describe_stop
from flowopt.run.ensemble import Ensemble
from flowopt.run.store import versions

ELSEWHERE, MAX_STEPS, DIVERGED, STALLED = -1, -2, -3, -4
NO_POINT = {
    ELSEWHERE: "converged elsewhere",
    MAX_STEPS: "max_steps",
    DIVERGED: "diverged",
    STALLED: "stalled",
}
"""The labels that are not the index of a critical point."""


def label_ends(problem: Problem, ends: Ensemble, radius: float) -> np.ndarray:
    """The label of each run, int32: the index of the critical point within `radius` [params] of where it converged,
    or one of `NO_POINT`."""
    labels = problem.classify(ends.params, radius).astype(np.int32)
    for name, label in (("max_steps", MAX_STEPS), ("diverged", DIVERGED), ("stalled", STALLED)):
        labels[np.asarray(ends.outcome == name)] = label
    return labels


def check_problem(problem: Any) -> None:
    """Raises TypeError unless `problem` is a `Problem`."""
    if not isinstance(problem, Problem):
        raise TypeError(
            "`problem` must be a flowopt.Problem, such as flowopt.benchmarks.poly2(), or "
            f"flowopt.Problem(loss, critical_points); got {problem!r}"
        )


def describe(
    problem: Problem,
    method: Method,
    tol: float,
    max_steps: int,
    radius: float,
    stop: Callable | None,
    starts: Any,
) -> dict[str, Any]:
    """What one needs to know to run it again, as attributes of a dataset."""
    return {
        "problem": problem.name,
        "method": repr(method),
        "tol": float(tol),
        "max_steps": int(max_steps),
        "radius": float(radius),
        "stop": describe_stop(stop),
        "starts": starts,
        "labels": "index of the critical point; "
        + ", ".join(f"{label} {name}" for label, name in NO_POINT.items()),
        **versions(),
    }


def describe_points(problem: Problem) -> xr.Dataset:
    """The critical points as a dataset over `point`: `point_params` [params], `point_value` [loss], natures in the
    attributes."""
    points = problem.critical_points
    flat = [np.concatenate([np.ravel(x) for x in jtu.tree_leaves(p.params)]) for p in points]
    values = np.array([p.value for p in points])
    data: dict[str, Any] = {"point_value": ("point", values, {"units": "loss"})}
    if points:
        data["point_params"] = (("point", "param"), np.array(flat), {"units": "params"})
    return xr.Dataset(
        data,
        coords={"point": np.arange(len(points))},
        attrs={"natures": [p.nature for p in points]},
    )
