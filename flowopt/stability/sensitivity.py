"""Does a method stay at a minimum that it was started next to?"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.run.ensemble import ensemble
from flowopt.run.step import RunState
from flowopt.stability.intervals import clopper_pearson
from flowopt.stability.labels import check_problem, describe, describe_points
from flowopt.stochastic import as_key

DISTANCES = tuple(10.0**k for k in np.arange(-8, 0.25, 0.5))


def sensitivity(
    problem: Problem,
    method: Method,
    n: int = 1000,
    key: Array | int = 0,
    *,
    distances: Sequence[float] = DISTANCES,
    settle: int = 100,
    args: Any = None,
    tol: float = 1e-4,
    max_steps: int = 10_000,
    radius: float = 0.05,
    confidence: float = 0.95,
    bisections: int = 20,
    progress: bool | str = False,
) -> xr.Dataset:
    """The probability that a run of `method`, started at distance r from a minimum, ends elsewhere: for each minimum.

    - `n`: directions, uniform on the sphere, drawn from `key` (a JAX key, or a seed); the same for every minimum,
      distance and method.
    - `distances`: r, increasing [params].
    - `settle`: the gradient is tested only after so many accepted steps. Next to a minimum it is below any `tol` at
      the start; only a run that goes on shows whether the method stays.
    - `tol`, `max_steps`: as in `flowopt.ensemble`. A run has left if it ends farther than `radius` [params] from its
      minimum, for whatever reason: at another point, at none, or diverged. One that hovers within has not.
    - `confidence`: of the Clopper-Pearson intervals.
    - `bisections`: of the distance, along the directions that leave first.

    Returns a dataset over `minimum` (its index among the problem's critical points) and `distance`: `left` [runs],
    `probability`, `lower`, `upper`, `diverged` and `hovering` (within the radius, but with a gradient above `tol`)
    [runs]. Over `minimum`: `safe`, the largest distance up to which no run left at any distance tried (0 if runs left
    at the smallest), and `safe_upper`, which bounds the probability of leaving at each of these distances, at the
    `confidence`; `kick`, the shortest displacement found after which a run leaves, by bisection between a distance at
    which a direction stays and the next, at which it leaves (infinite if none does), and `kick_direction`. Both are of
    the distances and directions sampled: a thin tongue of another basin between them is not seen.

    Raises TypeError or ValueError, naming the argument, also for a problem that knows no minimum.
    """
    check_problem(problem)
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"`n`, the number of directions, must be an int; got {n!r}")
    if n < 1:
        raise ValueError(f"`n` must be at least 1; got {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie in (0, 1); got {confidence}")
    if isinstance(settle, bool) or not isinstance(settle, int) or settle < 0:
        raise ValueError(f"`settle` must be an int >= 0; got {settle!r}")
    r = np.asarray(distances, float)
    if r.ndim != 1 or not len(r) or not np.all(np.isfinite(r)) or np.any(np.diff([0.0, *r]) <= 0):
        raise ValueError(f"`distances` must be finite, > 0 and increasing; got {distances!r}")
    minima = [i for i, p in enumerate(problem.critical_points) if p.nature == "minimum"]
    if not minima:
        raise ValueError(f"`problem`: {problem.name} knows no minimum to start next to")

    # Compiled once: the tolerance is part of the function, and the function the same for all runs.
    def settled(run: RunState):
        return (run.grad_norm < tol) & (run.accepted >= settle)

    def run(starts: Float[np.ndarray, "m params"], minimum: int):
        """(left, diverged, hovering) of the runs from there."""
        ends = ensemble(
            problem.loss,
            _params(problem, starts),
            method,
            args=args,
            tol=tol,
            max_steps=max_steps,
            stop=settled,
            width=256,  # one for many runs and for few, so that it is compiled once
            progress=progress,
        )
        flat = [np.reshape(x, (len(starts), -1)) for x in jtu.tree_leaves(ends.params)]
        with np.errstate(over="ignore", invalid="ignore"):
            away = np.linalg.norm(np.concatenate(flat, axis=1) - point(minimum), axis=1)
        diverged = np.asarray(ends.outcome == "diverged")
        left = diverged | ~(away <= radius)
        return left, diverged, ~left & ~(ends.grad_norm < tol)

    def point(minimum: int) -> Float[np.ndarray, " params"]:
        leaves = jtu.tree_leaves(problem.critical_points[minimum].params)
        return np.concatenate([np.ravel(np.asarray(x, float)) for x in leaves])

    towards = np.asarray(jax.random.normal(as_key(key), (n, point(minima[0]).size)), float)
    towards = towards / np.linalg.norm(towards, axis=1, keepdims=True)
    counts = {
        name: np.zeros((len(minima), len(r)), int) for name in ("left", "diverged", "hovering")
    }
    kick, direction = np.full(len(minima), np.inf), np.zeros((len(minima), towards.shape[1]))
    for row, minimum in enumerate(minima):
        starts = point(minimum) + r[:, None, None] * towards
        found = [x.reshape(len(r), n) for x in run(starts.reshape(-1, towards.shape[1]), minimum)]
        for name, each in zip(counts, found, strict=True):
            counts[name][row] = each.sum(axis=1)
        left = found[0]
        if left.any():
            kick[row], direction[row] = _shortest_kick(
                left, r, towards, lambda x, m=minimum: run(point(m) + x, m)[0], bisections
            )
    lower, upper = clopper_pearson(counts["left"], n, confidence)
    never = np.logical_and.accumulate(counts["left"] == 0, axis=1).sum(axis=1)
    safe = np.array([0.0, *r])[never]
    over = ("minimum", "distance")
    points = describe_points(problem)
    return xr.Dataset(
        {
            **{name: (over, count, {"units": "runs"}) for name, count in counts.items()},
            "probability": (over, counts["left"] / n, {"units": "1"}),
            "lower": (over, lower, {"units": "1"}),
            "upper": (over, upper, {"units": "1"}),
            "safe": ("minimum", safe, {"units": "params"}),
            "safe_upper": (
                "minimum",
                np.where(never > 0, clopper_pearson(np.array(0), n, confidence)[1], 1.0),
                {"units": "1"},
            ),
            "kick": ("minimum", kick, {"units": "params"}),
            "kick_direction": (("minimum", "param"), direction, {"units": "1"}),
            **points.data_vars,
        },
        coords={
            "minimum": minima,
            "distance": ("distance", r, {"units": "params"}),
            **points.coords,
        },
        attrs={
            **describe(
                problem, method, tol, max_steps, radius, None, f"{n} directions, key {key!r}"
            ),
            "settle": settle,
            "confidence": float(confidence),
            "bisections": int(bisections),
            **points.attrs,
        },
    )


def _params(problem: Problem, flat: Float[np.ndarray, "m params"]) -> Any:
    """Rows of flat params as a pytree with leading axis m, in JAX's default float dtype."""
    leaves, structure = jtu.tree_flatten(problem.critical_points[0].params)
    out, begin = [], 0
    for leaf in leaves:
        size = int(np.prod(np.shape(leaf)))
        part = flat[:, begin : begin + size].reshape(len(flat), *np.shape(leaf))
        out.append(jnp.asarray(part, jnp.result_type(float)))
        begin += size
    return jtu.tree_unflatten(structure, out)


def _shortest_kick(
    left: Bool[np.ndarray, "distance n"],
    r: Float[np.ndarray, " distance"],
    towards: Float[np.ndarray, "n params"],
    leaves: Any,
    bisections: int,
) -> tuple[float, np.ndarray]:
    """The shortest displacement that leaves, of the directions that leave at the least distance, and its direction."""
    first = int(np.argmax(left.any(axis=1)))
    some = towards[left[first]]
    high = np.full(len(some), r[first])
    low = np.full(len(some), r[first - 1] if first else 0.0)
    for _ in range(bisections if first else 0):
        # In the logarithm: the distances span decades.
        middle = np.sqrt(low * high)
        out = leaves(middle[:, None] * some)
        high, low = np.where(out, middle, high), np.where(out, low, middle)
    best = int(np.argmin(high))
    return float(high[best]), some[best]
