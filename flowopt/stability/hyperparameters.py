"""The numbers in a method, and what becomes of its runs as they vary."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PyTree

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.run.work import work
from flowopt.stability.intervals import clopper_pearson
from flowopt.stability.reach import reach

QUANTILES = (0.25, 0.5, 0.75, 0.95)
"""Of the cost of a run: the quartiles, and the tail."""


def hyperparameters(method: Method) -> dict[str, float]:
    """Every positive finite number in a method, by its place: {"step": 0.1, "solver.lam": 0.5, ...}."""
    if not isinstance(method, Method):
        raise TypeError(f"`method` must be a flowopt.Method; got {method!r}")
    return _numbers(method, "")


def _numbers(part: Any, path: str) -> dict[str, float]:
    out = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name, None)
        if isinstance(value, float) and 0 < value < math.inf:
            out[path + field.name] = value
        elif isinstance(value, eqx.Module):
            out |= _numbers(value, f"{path}{field.name}.")
    return out


def with_hyperparameter(method: Method, name: str, value: float) -> Method:
    """The method with the number at `name` changed; ValueError for a name or a value that it cannot have."""
    known = hyperparameters(method)
    if name not in known:
        raise ValueError(f"`name` must be among {', '.join(known)}; got {name!r}")
    return _with(method, name.split("."), value)


def _with(part: Any, path: list[str], value: float) -> Any:
    head, *rest = path
    new = _with(getattr(part, head), rest, value) if rest else value
    return dataclasses.replace(part, **{head: new})


def sweep(
    problem: Problem,
    make: Callable[[float], Method],
    values: Sequence[float] | Float[np.ndarray, " values"],
    starts: PyTree | Callable[[Array, int], PyTree],
    n: int | None = None,
    key: Array | int | None = None,
    **settings: Any,
) -> xr.Dataset:
    """`flowopt.reach` of make(value) for every value, from the same starts; `settings` are those of `reach`.

    Returns a dataset over `value`: `converged`, the share of runs that converged, with `converged_lower` and
    `converged_upper`; over `end` too `probability`, `lower` and `upper`; over `run` too `label` and `cost`, that of a
    run to its tolerance [gradients, see `flowopt.run.work`], infinite where it did not converge; over `quantile` too
    `cost_quantile`; in the attributes the `methods`, one for each value. All NaN (`label` -9) at values
    that `make` refuses with ValueError.
    """
    if len(values) == 0:
        raise ValueError("`values` must hold at least one value")
    methods = []
    for value in values:
        try:
            methods.append(make(float(value)))
        except ValueError:
            methods.append(None)
    ds = reach_each(problem, methods, starts, n, key, **settings)
    return ds.rename(variant="value").assign_coords(value=np.asarray(values, float))


def reach_each(
    problem: Problem,
    methods: Sequence[Method | None],
    starts: PyTree | Callable[[Array, int], PyTree],
    n: int | None = None,
    key: Array | int | None = None,
    **settings: Any,
) -> xr.Dataset:
    """As `sweep`, over `variant`: of methods alike but for their numbers; None for one that is missing."""
    some = [m for m in methods if m is not None]
    if not some:
        raise ValueError("`values`: none of them makes a method")
    try:
        found = [_reached(problem, m, starts, n, key, settings) for m in _alike(some)]
    except jax.errors.TracerBoolConversionError:  # a part that decides by its numbers in Python
        found = [_reached(problem, m, starts, n, key, settings) for m in some]
    missing = xr.full_like(found[0].drop_vars("label"), np.nan)
    missing["label"] = xr.full_like(found[0].label, -9)
    rest = iter(found)
    out = [missing if m is None else next(rest) for m in methods]
    joined = xr.concat(out, "variant", data_vars="all", combine_attrs="override")
    del joined.attrs["method"]
    return joined.assign_attrs(methods=["" if m is None else repr(m) for m in methods])


def _alike(methods: Sequence[Method]) -> list[Method]:
    """The methods with those numbers in which they differ as arrays: they are then compiled once for all."""
    leaves = [jtu.tree_flatten(m)[0] for m in methods]
    structures = {jtu.tree_structure(m) for m in methods}
    if len(structures) > 1:
        return list(methods)
    vary = [len(set(map(repr, column))) > 1 for column in zip(*leaves, strict=True)]
    structure, out = structures.pop(), []
    for row in leaves:
        arrays = [
            jnp.asarray(x, jnp.result_type(float)) if v and isinstance(x, float) else x
            for x, v in zip(row, vary, strict=True)
        ]
        out.append(jtu.tree_unflatten(structure, arrays))
    return out


def _reached(
    problem: Problem, method: Method, starts: Any, n: Any, key: Any, settings: dict[str, Any]
) -> xr.Dataset:
    """One method's dataset: what `sweep` and `flowopt.compare` keep of `reach`, and the cost."""
    ds = reach(problem, method, starts, n, key, **settings)
    point = problem.critical_points[0].params if problem.critical_points else None
    one = jtu.tree_map(lambda x: jnp.asarray(x, jnp.result_type(float)), point)
    per_step = None if point is None else work(problem.loss, one, method, settings.get("args"))
    over = ds.accepted.values.shape
    cost = np.full(over, np.nan)
    if per_step is not None:
        cost = per_step.of(ds.accepted.values, ds.rejected.values).astype(float)
    converged = ds.label.values >= -1
    cost = np.where(converged, cost, np.inf)
    confidence = ds.attrs["confidence"]
    share = converged.mean()
    lower, upper = clopper_pearson(converged.sum(), converged.size, confidence)
    units = {"units": "1"}
    return xr.Dataset(
        {
            "converged": ((), share, units),
            "converged_lower": ((), lower, units),
            "converged_upper": ((), upper, units),
            "probability": ds.probability,
            "lower": ds.lower,
            "upper": ds.upper,
            "label": ds.label,
            "cost": ("run", cost, {"units": "gradients"}),
            "cost_quantile": (
                "quantile",
                # Of all runs, those without end among them: never of the lucky ones alone.
                np.quantile(cost, QUANTILES, method="inverted_cdf"),
                {"units": "gradients"},
            ),
        },
        coords={"quantile": list(QUANTILES), "end": ds.end},
        attrs=ds.attrs,
    )
