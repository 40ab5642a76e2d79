"""The basins of gradient descent, Adam and energy-stable gradient descent, side by side, on poly2 and poly5."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import flowopt as fo
from flowopt.stability.geometry import parts
from flowopt.stability.labels import DIVERGED, ELSEWHERE, MAX_STEPS, STALLED
from studies import report


def cases(quick: bool) -> list[tuple[fo.Problem, tuple, float, dict[str, Any]]]:
    """(network, region, learning rate of GD, settings of the map): the rate is one at which its minima are stable."""
    return [
        (
            fo.benchmarks.poly2(),
            ((-5.0, 5.0), (-5.0, 5.0)),
            0.1,
            dict(resolution=64 if quick else 512, tol=1e-4, max_steps=10_000),
        ),
        (
            # The minima at coordinate 3 bear no larger step than 3.7e-4, while those at -1 are flat: slow runs.
            fo.benchmarks.poly5(),
            ((-5.0, 5.0), (-3.0, 5.0)),
            1e-4,
            dict(resolution=24 if quick else 192, tol=1e-3, max_steps=40_000),
        ),
    ]


def methods(lr: float):
    """The three methods, by the names they have in the figure."""
    return {
        f"GD, lr = {lr:g}": fo.gd(lr),
        "Adam, lr = 0.1": fo.adam(0.1),
        "energy-stable GD": fo.lyapunov(fo.flows.Gradient()),
    }


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    figure, axes = plt.subplots(2, 3, figsize=(15, 14), layout="constrained")
    rows, found = [], {}
    for line, (problem, region, lr, settings) in zip(axes, cases(quick), strict=True):
        for ax, (name, method) in zip(line, methods(lr).items(), strict=True):
            label = f"{problem.name}, {name}"
            ds = fo.basins(
                problem,
                method,
                region,
                store=report.unfinished(out, f"{label}, {settings['resolution']}"),
                progress=progress and label,
                **settings,
            )
            report.save_data(
                ds, out / f"{problem.name}-{name.split(',')[0].replace(' ', '-')}.zarr"
            )
            fo.plot_basins(ds, ax)
            ax.set_title(label)
            found[problem.name, name.split(",")[0]] = facts = measure(ds)
            rows.append([problem.name, name, *describe(facts)])
    report.save_figure(figure, out / "figure1.png")
    plt.close(figure)
    head = [
        "network",
        "method",
        "diverged",
        "at a minimum",
        "at a flat point",
        "at a saddle or maximum",
    ]
    head += [
        "unfinished",
        "elsewhere",
        "parts of the basins",
        "nearest stray start",
        "steps per run",
    ]
    text = "\n\n".join(
        [
            "# figure1: basins of attraction",
            (__doc__ or "").strip(),
            "![basins](figure1.png)",
            report.table(head, rows),
            "`parts of the basins`: connected parts of all basins together, of more than one cell; a basin without one "
            "does not count. `nearest stray start`: the least distance from a minimum [params] to a start whose run "
            "left it for another critical point or for none. `unfinished`: ended by max_steps or stalled.",
            "## Against the source document",
            "\n".join(verdicts(found)),
            remarks(found),
        ]
    )
    return report.save_report(text, out)


def measure(ds: xr.Dataset) -> dict:
    """The numbers of a map that the claims are about."""
    label, natures = ds.label.values, np.array(ds.attrs["natures"])
    share = lambda *wanted: float(np.isin(label, wanted).mean())
    points = lambda *wanted: [i for i, nature in enumerate(natures) if nature in wanted]
    return dict(
        diverged=share(DIVERGED),
        minimum=share(*points("minimum")),
        flat=share(*points("flat", "undecided")),
        unstable=share(*points("saddle", "maximum")),
        unfinished=share(MAX_STEPS, STALLED),
        elsewhere=share(ELSEWHERE),
        parts=sum(each := [parts(label == i, least=2) for i in range(len(natures))]),
        basins=sum(n > 0 for n in each),
        stray=min((stray(ds, i) for i in points("minimum")), default=np.inf),
        steps=float((ds.accepted + ds.rejected).mean()),
    )


def stray(ds: xr.Dataset, i: int) -> float:
    """The distance from critical point `i` to the nearest start that ends at another point, or diverges."""
    w, b = ds.point_params.values[i]
    distance = np.hypot(ds.w.values[:, None] - w, ds.b.values[None, :] - b)
    away = (ds.label.values != i) & ~np.isin(ds.label.values, (MAX_STEPS, STALLED))
    return float(distance[away].min(initial=np.inf))


def describe(facts: dict) -> list[str]:
    shares = ("diverged", "minimum", "flat", "unstable", "unfinished", "elsewhere")
    return [
        *(report.percent(facts[name]) for name in shares),
        f"{facts['parts']} of {facts['basins']} basins",
        f"{facts['stray']:.2f}",
        f"{facts['steps']:.0f}",
    ]


def verdicts(found: dict) -> list[str]:
    of = lambda method, fact: [facts[fact] for (_, name), facts in found.items() if name == method]
    listed = lambda values, form: " and ".join(form(v) for v in values)
    gd, adam, stable = "GD", "Adam", "energy-stable GD"
    both = "on poly2 and poly5"
    spread = [
        (a - n) > (s - m)
        for a, n, s, m in zip(
            of(adam, "parts"),
            of(adam, "basins"),
            of(stable, "parts"),
            of(stable, "basins"),
            strict=True,
        )
    ]
    unstable = max(facts["unstable"] for facts in found.values())
    return [
        report.verdict(
            agree([share > 0.1 for share in of(gd, "diverged")]),
            "GD diverges over large regions",
            f"{listed(of(gd, 'diverged'), report.percent)} of the starts {both}",
        ),
        report.verdict(
            agree(spread),
            "Adam's basins are in pieces, more of them than those of energy-stable GD are",
            f"{listed(of(adam, 'parts'), str)} connected parts against {listed(of(stable, 'parts'), str)}, of "
            f"{listed(of(adam, 'basins'), str)} and {listed(of(stable, 'basins'), str)} basins, {both}",
        ),
        report.verdict(
            agree([share == 0 for share in of(stable, "diverged")]),
            "GD corrected by its energy is stable everywhere",
            f"{listed(of(stable, 'diverged'), report.percent)} diverged {both}",
        ),
        report.verdict(
            unstable < 1e-3,
            "no method reaches a maximum or a saddle",
            f"at most {report.percent(unstable)} of a map, which holds the starts on the stable manifolds too",
        ),
    ]


def agree(each: list[bool]) -> bool | None:
    """True or False where all say so, None where they differ."""
    return each[0] if len(set(each)) == 1 else None


def remarks(found: dict) -> str:
    flat = {name: facts["flat"] for (network, name), facts in found.items() if network == "poly5"}
    return (
        "Flat points that are no extremum attract from one side: there the loss falls on along a coordinate z "
        "like (z - 1)^3, so the gradient flow itself comes to rest at them, from a half-neighbourhood and hence with "
        "positive probability. Runs that end there (on poly5: "
        + ", ".join(f"{name} {report.percent(share)}" for name, share in flat.items())
        + ") are neither failures of the step nor counterexamples to the claim about maxima and saddles."
    )
