"""Methods side by side, on the same problems and from the same starts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PyTree

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.stability.hyperparameters import (
    QUANTILES,
    hyperparameters,
    reach_each,
    with_hyperparameter,
)
from flowopt.stability.labels import NO_POINT

TAUS = tuple(2.0 ** (np.arange(0, 61) / 6))
"""Factors at which performance profiles are drawn: from 1 to about 1000."""


def compare(
    problems: Problem | Sequence[Problem],
    methods: Mapping[str, Method],
    starts: PyTree | Callable[[Array, int], PyTree],
    n: int | None = None,
    key: Array | int | None = None,
    *,
    factors: Sequence[float] = (0.1, 10.0),
    **settings: Any,
) -> xr.Dataset:
    """What becomes of the runs of each method on each problem, what they cost, and how much that hangs on its numbers.

    - `methods`: by name. `starts`, `n`, `key`, `settings` (`tol`, `max_steps`, `radius`, ...): as in `flowopt.reach`.
    - `factors`: every number of a method (`flowopt.hyperparameters`), its first step among them, is multiplied by
      each of these in turn, and all is run again; () to leave that out.

    Returns a dataset over `problem` and `optimizer` (the names of the methods), of which `fo.comparison_table(ds)`
    makes Markdown and `fo.plot_comparison(ds)` a figure:

    - `probability`, `lower`, `upper` over `end` (as in `flowopt.reach`; NaN for points that a problem has not, whose
      names are in `end_name`), `converged`, and `label` over `run`;
    - `cost` of each run to its tolerance [gradients: a forward and a backward pass are 1/2 each, a Hessian-vector
      product 2], infinite where it did not converge, NaN where it is not known; its `cost_quantile`s, of all runs;
    - `profile` over `optimizer` and `tau`: the share of all problems and starts on which the method's cost is at most
      tau times that of the best method there;
    - `varied_converged` and `varied_cost` (the median) over `hyperparameter` and `factor`; NaN where a method has no
      such number, or may not have it so.

    Raises TypeError or ValueError, naming the argument.   [Dolan and Moré 2002]
    """
    if isinstance(problems, Problem):
        problems = [problems]
    elif not isinstance(problems, Sequence) or any(not isinstance(p, Problem) for p in problems):
        raise TypeError(f"`problems` must be a flowopt.Problem, or several; got {problems!r}")
    if not problems:
        raise ValueError("`problems` must hold at least one flowopt.Problem")
    if len({p.name for p in problems}) != len(problems):
        raise ValueError("`problems` must have different names")
    if not isinstance(methods, Mapping) or not methods:
        raise TypeError(
            '`methods` must map names to methods, such as {"GD": flowopt.gd(0.1)}; got '
            f"{methods!r}"
        )
    if any(not 0 < f < np.inf for f in factors):
        raise ValueError(f"`factors` must be finite and > 0; got {factors!r}")
    varied = {name: _variants(method, factors) for name, method in methods.items()}
    rows = []
    for problem in problems:
        row = []
        for name, method in methods.items():
            variants = varied[name]
            found = reach_each(problem, [method, *variants.values()], starts, n, key, **settings)
            row.append(_with_variants(found, variants, factors))
        rows.append(_join(row, "optimizer", list(methods)).assign(end_name=_end_names(problem)))
    ds = _join(rows, "problem", [p.name for p in problems])
    ds = ds.sel(end=sorted(ds.end.values.tolist(), key=lambda e: (e < 0, abs(e))))
    ds = ds.assign_attrs(methods=[repr(method) for method in methods.values()])
    return ds.assign(
        profile=(("optimizer", "tau"), profile(ds.cost.values), {"units": "1"})
    ).assign_coords(tau=("tau", np.array(TAUS), {"units": "1"}))


def profile(cost: Float[np.ndarray, "problem optimizer run"]) -> Float[np.ndarray, "optimizer tau"]:
    """The share of all (problem, run) on which each method's cost is at most tau times the least."""
    cost = np.where(np.isnan(cost), np.inf, cost)
    best = cost.min(axis=1, keepdims=True)
    # Where nobody converges all fail, and the ratio of infinities is no success.
    ratio = np.where(np.isfinite(cost), cost / np.where(np.isfinite(best), best, 1), np.inf)
    return np.stack([(ratio <= tau).mean(axis=(0, 2)) for tau in TAUS], axis=1)


def _variants(method: Method, factors: Sequence[float]) -> dict[tuple[str, float], Method | None]:
    """The method with each number times each factor; None where that is not allowed."""
    out = {}
    for name, value in hyperparameters(method).items():
        for factor in factors:
            try:
                out[name, factor] = with_hyperparameter(method, name, value * factor)
            except ValueError:
                out[name, factor] = None
    return out


def _with_variants(found: xr.Dataset, variants: dict, factors: Sequence[float]) -> xr.Dataset:
    """The method's own dataset, and over (hyperparameter, factor) that of its variants."""
    own = found.isel(variant=0)
    names = list(dict.fromkeys(name for name, _ in variants))
    over = ("hyperparameter", "factor")
    shape = (len(names), len(factors))
    rest = found.isel(variant=slice(1, None))
    median = rest.cost_quantile.sel(quantile=0.5).values
    return own.assign(
        varied_converged=(over, rest.converged.values.reshape(shape), {"units": "1"}),
        varied_cost=(over, median.reshape(shape), {"units": "gradients"}),
    ).assign_coords(hyperparameter=np.array(names, object), factor=np.array(factors, float))


def _join(parts: list[xr.Dataset], dim: str, names: list[str]) -> xr.Dataset:
    joined = xr.concat(
        parts, dim, data_vars="all", coords="minimal", join="outer", combine_attrs="drop_conflicts"
    )
    return joined.assign_coords({dim: np.array(names, object)})


def _end_names(problem: Problem) -> xr.DataArray:
    """What each end is, for tables."""
    names = {}
    for i, p in enumerate(problem.critical_points):
        where = ", ".join(f"{float(x):.3g}" for x in np.ravel(p.params))
        names[i] = f"{p.nature} ({where})"
    names |= NO_POINT
    return xr.DataArray(
        np.array(list(names.values()), object), dims="end", coords={"end": list(names)}
    )


def comparison_table(ds: xr.Dataset) -> str:
    """The dataset of `flowopt.compare` as Markdown: per problem, a row for each method.

    Shares in percent with their intervals; the cost's median, [quartiles] and 95% quantile in gradients; and, over all
    hyperparameters and factors, the least share of converged runs and the largest change of the median cost either way.
    """
    lines = []
    for problem in ds.problem.values:
        one = ds.sel(problem=problem)
        ends = [e for e in one.end.values if np.any(one.probability.sel(end=e) > 0)]
        head = ["method", *(str(one.end_name.sel(end=e).values) for e in ends)]
        head += ["cost: median [quartiles], 95%"]
        head += ["least converged, numbers varied", "cost varies by"] if ds.sizes["factor"] else []
        lines += [f"### {problem}", "", *(_row(x) for x in (head, ["---"] * len(head)))]
        for name in ds.optimizer.values:
            m = one.sel(optimizer=name)
            cells = [str(name)]
            for e in ends:
                p, lo, hi = (
                    100 * float(m[k].sel(end=e)) for k in ("probability", "lower", "upper")
                )
                cells.append(f"{p:.1f} [{lo:.1f}, {hi:.1f}]" if p else "-")
            low, median, high, tail = (
                _cost(float(m.cost_quantile.sel(quantile=q))) for q in QUANTILES
            )
            cells.append(f"{median} [{low}, {high}], {tail}")
            if ds.sizes["factor"]:
                cells += _varied(m)
            lines.append(_row(cells))
        lines.append("")
    return "\n".join(lines).rstrip()


def _varied(m: xr.Dataset) -> list[str]:
    converged = m.varied_converged
    if not np.any(np.isfinite(converged)):
        return ["-", "-"]
    worst = converged.where(converged == converged.min(), drop=True)
    name, factor = str(worst.hyperparameter.values[0]), float(worst.factor.values[0])
    own, varied = float(m.cost_quantile.sel(quantile=0.5)), m.varied_cost.values
    varied = varied[~np.isnan(varied)]
    if not np.isfinite(own) or not len(varied):
        change = np.nan
    else:
        change = max(float(np.max(varied)) / own, own / float(np.min(varied)))
    return [f"{100 * float(converged.min()):.1f}% ({name} x {factor:g})", f"x {_cost(change)}"]


def _cost(value: float) -> str:
    return "unknown" if np.isnan(value) else "never" if np.isinf(value) else f"{value:.3g}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
