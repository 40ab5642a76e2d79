"""Do methods stay at a minimum that they were started next to?"""

import functools as ft
import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import flowopt as fo
from flowopt.plotting import plot_expansion, plot_sensitivity
from studies import report

NEXT_TO = 1e-6
"""As far as "next to" goes [params]."""
PROBLEMS = {"poly2": 0.1, "poly3": 0.01}
"""Networks, and the learning rate at which gradient descent is stable at their minima."""


def methods(lr: float) -> dict[str, fo.Method]:
    return {
        f"GD, lr {lr:g}": fo.gd(lr),
        "Adam, lr 0.1": fo.adam(0.1, eps=1e-7),
        "Adam without correction, lr 0.1": fo.adam(0.1, eps=1e-7, bias_correction=False),
        "Adam, lr 0.001": fo.adam(0.001, eps=1e-7),
        "Adam without correction, lr 0.001": fo.adam(0.001, eps=1e-7, bias_correction=False),
        "Euler-Richardson": fo.euler_richardson(),
        "energy-guarded Euler": fo.lyapunov(),
        "energy-guarded heavy ball": fo.lyapunov(fo.flows.HeavyBall(1.0)),
        "energy-guarded Adam flow": fo.lyapunov(fo.flows.Adam(0.1, 1.0)),
    }


def is_adam(name: str) -> bool:
    return name.startswith("Adam")


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    n, steps, resolution = (40, 2000, 24) if quick else (1000, 20_000, 192)
    distances = tuple(10.0 ** np.arange(-8, 0.01, 2 if quick else 0.5))
    found = {}
    for network, lr in list(PROBLEMS.items())[: 1 if quick else None]:
        problem = getattr(fo.benchmarks, network)()
        chosen = methods(lr)
        if quick:
            chosen = {k: chosen[k] for k in [*list(chosen)[:3], "energy-guarded Euler"]}
        for name, method in chosen.items():
            label = f"{network}, {name}"
            asked = ft.partial(
                fo.sensitivity,
                problem,
                method,
                n,
                key=0,
                distances=distances,
                max_steps=steps,
                progress=progress and label,
            )
            found[network, name] = report.kept(out, f"{label}, {n}", asked)
        draw(problem, {k: ds for (p, k), ds in found.items() if p == network}, out)
        draw_expansion(problem, chosen, resolution, out)
        both: Any = xr.concat(
            [ds for (p, _), ds in found.items() if p == network],
            dim=xr.DataArray(np.arange(len(chosen)), dims="optimizer"),
            data_vars="all",
            combine_attrs="drop_conflicts",
        )
        both.attrs["optimizers"] = list(chosen)
        report.save_data(both, out / f"{network}.zarr")
    text = "\n\n".join(
        [
            "# sensitivity: does a method stay at a minimum that it was started next to?",
            f"Starts on circles about each minimum, {n:,} directions, the same for every method; each run goes on for "
            f"at least 100 accepted steps, then until |grad R| < 1e-4 or {steps:,} steps. It has left if it ends "
            "farther than 0.05 from its minimum. Intervals are 95% Clopper-Pearson, in percent.",
            table(found),
            "## Against the source document",
            "\n".join(verdicts(found)),
        ]
    )
    return report.save_report(text, out)


def table(found: dict) -> str:
    rows = []
    for (network, name), ds in found.items():
        near = ds.sel(distance=ds.distance <= NEXT_TO)
        worst = near.isel(near.probability.argmax(["minimum", "distance"]))
        share, low, high = (100 * float(worst[k]) for k in ("probability", "lower", "upper"))
        where = ", ".join(f"{x:.3g}" for x in ds.point_params.sel(point=worst.minimum).values)
        kicks = ds.kick.values
        rows.append(
            [
                network,
                name,
                f"{share:.1f} [{low:.1f}, {high:.1f}], of ({where}) at {float(worst.distance):.0e}",
                f"{float(ds.safe.min()):.2g}",
                f"{kicks.min():.3g} to {kicks.max():.3g}",
                report.percent(float(ds.hovering.mean()) / n_of(ds)),
            ]
        )
    head = ["network", "method", f"most that leave from within {NEXT_TO:g}", "safe distance"]
    return report.table([*head, "shortest kick that leaves", "hovering"], rows)


def n_of(ds: xr.Dataset) -> int:
    """The directions behind a dataset."""
    return round(float(ds.left.max() / ds.probability.max())) if ds.left.any() else 1


def leaves(ds: xr.Dataset) -> float:
    """The largest share of runs that leave from within `NEXT_TO` of any minimum."""
    return float(ds.probability.sel(distance=ds.distance <= NEXT_TO).max())


def verdicts(found: dict) -> list[str]:
    adam = {k: leaves(ds) for k, ds in found.items() if is_adam(k[1])}
    others = {k: leaves(ds) for k, ds in found.items() if not is_adam(k[1])}
    gone = {k: v for k, v in adam.items() if v > 0}
    names = lambda some: "; ".join(f"{k[1]} ({k[0]}, {report.percent(v)})" for k, v in some.items())
    stayed = {k: v for k, v in adam.items() if v == 0}
    out = {k: v for k, v in others.items() if v > 0}
    kicks = {k: float(ds.kick.min()) for k, ds in found.items() if is_adam(k[1])}
    nearest = min((v for v in kicks.values() if v > NEXT_TO), default=np.inf)
    bare = (1 - 0.9) / (1 - 0.999) ** 0.5
    return [
        report.verdict(
            True if len(gone) == len(adam) else None if gone else False,
            "Adam leaves minima that it was started next to",
            f"from within {NEXT_TO:g} of a minimum it leaves as "
            + (names(gone) if gone else "none of those tried")
            + ("; it stays as " + names(stayed) if stayed else "")
            + f". However small the gradient, its first step is lr (1 - b1)/sqrt(1 - b2) = {bare:.2f} lr in each param "
            f"without bias correction, and lr with it; at lr 0.1 that is {bare * 0.1 * 2**0.5:.2f} and "
            f"{0.1 * 2**0.5:.2f} in two params, at lr 0.001 a hundredth, where a kick of {nearest:.2f} is the shortest "
            "that those which stay do not come back from",
        ),
        report.verdict(
            not out,
            "gradient descent, Euler-Richardson and the energy-guarded methods stay",
            f"from within {NEXT_TO:g} "
            + ("none of them leaves any minimum" if not out else "these leave: " + names(out)),
        ),
    ]


def draw(problem: fo.Problem, found: dict[str, xr.Dataset], out: pathlib.Path) -> None:
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3 * rows + 0.8), layout="constrained",
        squeeze=False, sharey=True,
    )  # fmt: skip
    for ax, (name, ds) in zip(axes.flat, found.items(), strict=False):
        plot_sensitivity(ds, ax, legend=False)
        ax.set_title(name, fontsize="medium")
        ax.set(xlabel="distance of the start [params]", ylabel="")
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    figure.supylabel("probability of ending elsewhere")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    report.save_figure(figure, out / f"sensitivity-{problem.name}.png")
    plt.close(figure)


def draw_expansion(
    problem: fo.Problem, methods: dict[str, fo.Method], resolution: int, out: pathlib.Path
) -> None:
    """Maps of the finite-time exponent: one colour scale for all."""
    some = [k for k in methods if "0.001" not in k and "Richardson" not in k][:4]
    figure, axes = plt.subplots(1, len(some), figsize=(3.6 * len(some), 3.6), layout="constrained")
    for ax, name in zip(axes, some, strict=True):
        ds = fo.expansion(problem, methods[name], resolution=resolution, steps=50)
        plot_expansion(ds, ax, limit=0.3, colorbar=ax is axes[-1])
        ax.set_title(name, fontsize="medium")
        report.save_data(ds, report.zarr_path(out, f"expansion, {problem.name}, {name}"))
    report.save_figure(figure, out / f"expansion-{problem.name}.png")
    plt.close(figure)
