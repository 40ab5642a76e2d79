"""Do adaptive schemes need tuning? Reach, cost and basins as their constants vary, against a learning rate's."""

import functools as ft
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import diffrax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import flowopt as fo
from flowopt.plotting import line_style
from flowopt.stability.intervals import clopper_pearson
from studies import report
from studies.reach import stop_at_trial_point

NETWORKS = ("poly2", "poly3")
REGION = ((-3.0, 3.0), (-3.0, 3.0))


class Constant(NamedTuple):
    """A number of a method, and the values it takes."""

    adaptive: bool
    make: Callable[[float], fo.Method]
    values: np.ndarray
    usual: float


def constants(per_decade: int) -> dict[str, Constant]:
    """By name. Each varies by at least eight decades, or over all that it may be."""

    def decades(low: int, high: int) -> np.ndarray:
        return 10.0 ** np.linspace(low, high, (high - low) * per_decade + 1)

    shares = np.array([0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99])
    guarded = fo.lyapunov()
    return {
        "GD: learning rate": Constant(False, fo.gd, decades(-6, 2), 0.1),
        "Adam: learning rate": Constant(False, fo.adam, decades(-6, 2), 1e-3),
        "Extragradient: tolerance": Constant(True, fo.extragradient, decades(-6, 2), 1e-2),
        "Extragradient: first step": Constant(
            True, lambda h: fo.extragradient(step=h), decades(-6, 2), 0.1
        ),
        "guarded Euler: first step": Constant(
            True, lambda h: fo.lyapunov(step=h), decades(-6, 2), 0.1
        ),
        "guarded Euler: lam": Constant(True, lambda lam: fo.lyapunov(lam=lam), shares, 0.5),
        "guarded Euler: safety": Constant(
            True,
            lambda s: fo.with_hyperparameter(guarded, "controller.safety", s),
            shares,
            0.5,
        ),
        "guarded Euler-Richardson: tolerance": Constant(True, guarded_pair, decades(-6, 2), 1e-2),
    }


def guarded_pair(tol: float) -> fo.Method:
    """Euler-Richardson under a tolerance and the energy guard together."""
    guard = fo.EnergyGuard(fo.EulerRichardson(), rtol=0.0, atol=tol)
    return fo.Method(fo.flows.Gradient(), guard, diffrax.PIDController(rtol=0, atol=1), step=0.1)


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    n, steps, per_decade = (60, 1000, 1) if quick else (1000, 10_000, 2)
    chosen = constants(per_decade)
    if quick:
        chosen = {name: c._replace(values=c.values[::2]) for name, c in chosen.items()}
    found = {}
    for network in NETWORKS[: 1 if quick else None]:
        problem = getattr(fo.benchmarks, network)()
        for name, constant in chosen.items():
            # An unguarded pair hovers, and is stopped as its authors do: see the study `reach`.
            published = name.startswith("Extragradient")
            asked = ft.partial(
                fo.sweep,
                problem,
                constant.make,
                constant.values,
                fo.uniform(*REGION),
                n,
                key=0,
                max_steps=steps,
                stop=stop_at_trial_point(problem.loss, 1e-4) if published else None,
                progress=progress and f"{network}, {name}",
            )
            found[network, name] = report.kept(out, f"{network}, {name}, {n}", asked)
            report.save_data(found[network, name], report.zarr_path(out, f"{network}, {name}"))
    draw(found, out)
    text = "\n\n".join(
        [
            "# hyperparameters: do adaptive schemes need tuning?",
            f"{n:,} starts, uniform in [-3, 3]^2, the same throughout; |grad R| < 1e-4 within {steps:,} steps "
            "(of Extragradient, which hovers, at its trial point: see the study `reach`). A value "
            "*works* if at least 99% of the runs reach a critical point, at no more than ten times the least median "
            "cost of the same constant.",
            table(found),
            "## Against the source document",
            "\n".join(verdicts(found)),
        ]
    )
    return report.save_report(text, out)


def works(ds: xr.Dataset) -> np.ndarray:
    """At which values: at least 99% reach a critical point, at no more than ten times the least median cost."""
    cost = ds.cost_quantile.sel(quantile=0.5).values
    least = np.min(cost[np.isfinite(cost)], initial=np.inf)
    return (reached(ds) >= 0.99) & (cost <= 10 * least)


def reached(ds: xr.Dataset) -> np.ndarray:
    """The share of runs that end at a critical point, at each value: a run may converge at none."""
    return np.mean(ds.label.values >= 0, axis=1)


def decades_of(ds: xr.Dataset) -> tuple[float, float]:
    """Decades from the least to the largest value of the longest unbroken row that works, and of all values."""
    log, ok = np.log10(ds.value.values), works(ds)
    best, begin = 0.0, None
    for x, good in zip(log, ok, strict=True):
        begin = None if not good else x if begin is None else begin
        best = max(best, x - begin) if begin is not None else best
    return float(best), float(log[-1] - log[0])


def fails(ds: xr.Dataset) -> str:
    """At which values it does not work, and why."""
    lost, value = reached(ds) < 0.99, ds.value.values
    dear = ~works(ds) & ~lost
    why = ((lost, "fewer than 99% reach a point"), (dear, "more than ten times the least cost"))
    return ", ".join(f"{text} at {_values(value[at])}" for at, text in why if at.any())


def _values(values: np.ndarray) -> str:
    return (
        " and ".join(f"{v:.3g}" for v in values)
        if len(values) < 3
        else (f"{len(values)} values from {values[0]:.3g} to {values[-1]:.3g}")
    )


def basins_change(ds: xr.Dataset) -> float:
    """The share of starts that do not end at the same point at all values that work; NaN where fewer than two do."""
    labels = ds.label.values[works(ds)]
    return float(np.mean(np.any(labels != labels[:1], axis=0))) if len(labels) > 1 else np.nan


def table(found: dict) -> str:
    rows = []
    for (network, name), ds in found.items():
        good, tried = decades_of(ds)
        share = reached(ds)
        cost = ds.cost_quantile.sel(quantile=0.5).values
        some = cost[works(ds)]
        change = basins_change(ds)
        rows.append(
            [
                network,
                name,
                f"{ds.value.values[0]:.3g} to {ds.value.values[-1]:.3g}",
                f"{report.percent(share.min())} to {report.percent(share.max())}",
                f"{good:.1f} of {tried:.1f}",
                f"{works(ds).sum()} of {ds.sizes['value']}",
                f"{some.min():.3g} to {some.max():.3g}" if len(some) else "-",
                "-" if np.isnan(change) else report.percent(change),
            ]
        )
    head = ["network", "constant", "from, to", "reach a critical point", "decades that work"]
    head += ["values that work"]
    return report.table(
        [*head, "median cost there [gradients]", "starts whose end changes there"], rows
    )


def verdicts(found: dict) -> list[str]:
    adaptive = {name for name, constant in constants(1).items() if constant.adaptive}
    every = {k: bool(np.all(works(ds))) for k, ds in found.items() if k[1] in adaptive}
    wide = {k: decades_of(ds) for k, ds in found.items() if k[1] not in adaptive}
    good = [f"{name} on {network}" for (network, name), ok in every.items() if ok]
    bad = [f"{k[1]} on {k[0]} ({fails(found[k])})" for k, ok in every.items() if not ok]
    moved = {k: basins_change(found[k]) for k in every}
    moved = {k: x for k, x in moved.items() if np.isfinite(x)}
    held = [k for k in every if k[1].startswith("guarded Euler:")]
    return [
        report.verdict(
            True if not bad else None if good else False,
            "the adaptive schemes need no hyperparameters: every value of their constants works",
            f"all values work of {', '.join(good) or 'none'}; not all of {'; '.join(bad) or 'none'}",
        ),
        report.verdict(
            True if all(every[k] for k in held) else None if any(every[k] for k in held) else False,
            "so it is with the energy-guarded gradient flow: first step, lam and safety",
            f"{sum(every[k] for k in held)} of {len(held)} of its constants work at all values tried; at every "
            f"value {report.percent(min(reached(found[k]).min() for k in held))} of the runs or more reach a critical "
            "point: what a value can spoil is the cost",
        ),
        report.verdict(
            all(good < tried / 2 for good, tried in wide.values()),
            "a learning rate must be chosen",
            "of its decades work "
            + "; ".join(f"{g:.1f} of {t:.1f} ({k[1]} on {k[0]})" for k, (g, t) in wide.items()),
        ),
        report.verdict(
            max(moved.values(), default=0.0) < 0.05,
            "the constants of the adaptive schemes do not move the basins",
            "a guard bears longer steps, which may pass over a barrier, the smaller lam is; so many starts end at "
            "another point at some of the values that work: "
            + "; ".join(f"{report.percent(x)} ({k[1]} on {k[0]})" for k, x in moved.items())
            + "".join(where_moved(found[k], k) for k, x in moved.items() if x >= 0.05),
        ),
    ]


def where_moved(ds: xr.Dataset, key: tuple[str, str]) -> str:
    """At which of the values that work how many starts end elsewhere than at the last of them."""
    some = ds.isel(value=works(ds))
    apart = np.mean(some.label.values != some.label.values[-1], axis=1)
    shares = ", ".join(
        f"{report.percent(x)} at {v:g}" for x, v in zip(apart, some.value.values[:-1], strict=False)
    )
    return f". Of {key[1]} on {key[0]}, elsewhere than at {some.value.values[-1]:g}: {shares}"


def draw(found: dict, out: pathlib.Path) -> None:
    """Share converged, and median cost, over each constant relative to its usual value."""
    networks = list(dict.fromkeys(network for network, _ in found))
    usual = {name: constant.usual for name, constant in constants(1).items()}
    figure, axes = plt.subplots(
        2, len(networks), figsize=(6 * len(networks), 7.4), layout="constrained", squeeze=False, sharex=True
    )  # fmt: skip
    for column, network in enumerate(networks):
        above, below = axes[:, column]
        for i, name in enumerate(usual):
            ds = found[network, name]
            x = ds.value.values / usual[name]
            style = dict(marker="o", ms=2.5, lw=1.4, label=name, **line_style(i))
            share, n = reached(ds), ds.sizes["run"]
            low, high = clopper_pearson(np.rint(share * n).astype(int), n)
            above.fill_between(x, low, high, color=style["color"], alpha=0.12, lw=0)
            above.semilogx(x, share, **style)
            cost = ds.cost_quantile.sel(quantile=0.5).values
            below.loglog(x, np.where(np.isfinite(cost), cost, np.nan), **style)
        above.set(title=network, ylabel="share that reach a critical point", ylim=(-0.03, 1.03))
        below.set(xlabel="constant / its usual value", ylabel="median cost [gradients]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    report.save_figure(figure, out / "hyperparameters.png")
    plt.close(figure)
