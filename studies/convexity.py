"""Are the basins of adaptive and energy schemes convex? Measures of their geometry, against the gradient flow's."""

import pathlib
from typing import Any

import diffrax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import flowopt as fo
from flowopt.stability.refine import refined
from flowopt.stability.systems import Ends
from studies import report
from studies.reach import stop_at_trial_point

REGION = ((-5.0, 5.0), (-5.0, 5.0))
FLOW = "gradient flow"
CONSTANT = ("GD", "momentum", "Adam")
FIRST_ORDER = (
    "Extragradient, adaptive",
    "energy-guarded Euler",
    "energy-guarded Euler-Richardson",
    "energy RMSProp",
)
INERTIA = ("energy-guarded heavy ball", "energy-guarded Adam flow")
SHOWN = (FLOW, "GD", "Adam", FIRST_ORDER[0], FIRST_ORDER[1], INERTIA[0])
"""The methods whose maps are drawn."""
CLOSE = 0.05
"""A solidity within this of the gradient flow's counts as the same."""


def methods(problem: fo.Problem) -> dict[str, tuple[fo.Method, dict[str, Any]]]:
    """By name: the method, and how it is stopped if not by its gradient."""
    # Steps of Tsit5 whose error is far below a cell, and at the minima below what `tol` can see; the first one so
    # short that no stage overflows.
    exact = lambda flow, error: fo.Method(
        flow, diffrax.Tsit5(), diffrax.PIDController(rtol=error, atol=1e-8), step=1e-9
    )
    lr = {"poly2": 0.1, "poly3": 0.01, "poly4": 0.01}[problem.name]
    plain = {
        FLOW: exact(fo.flows.Gradient(), 1e-8),
        "heavy ball flow": exact(fo.flows.HeavyBall(1.0), 1e-6),
        "GD": fo.gd(lr),
        "momentum": fo.momentum(lr, 0.9),
        "Adam": fo.adam(0.1),
        FIRST_ORDER[1]: fo.lyapunov(fo.flows.Gradient()),
        FIRST_ORDER[2]: fo.lyapunov(solver=fo.EulerRichardson()),
        FIRST_ORDER[3]: fo.energy_rmsprop(),
        INERTIA[0]: fo.lyapunov(fo.flows.HeavyBall(1.0)),
        INERTIA[1]: fo.lyapunov(fo.flows.Adam(0.1, 1.0)),
    }
    # By its own gradient it never stops: the study `reach` says why.
    adaptive = (fo.extragradient(0.01), {"stop": stop_at_trial_point(problem.loss, 1e-4)})
    every = {name: (method, {}) for name, method in plain.items()} | {FIRST_ORDER[0]: adaptive}
    order = (FLOW, "heavy ball flow", *CONSTANT, *FIRST_ORDER, *INERTIA)
    return {name: every[name] for name in order}


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    problems = [fo.benchmarks.poly2()]
    if not quick:
        problems += [fo.benchmarks.poly3(), fo.benchmarks.poly4()]
    maps = {}
    for problem in problems:
        for name, (method, settings) in methods(problem).items():
            label = f"{problem.name}, {name}"
            size = 64 if quick else 256
            ds = fo.basins(
                problem,
                method,
                REGION,
                size,
                store=report.unfinished(out, f"{label}, {size}"),
                progress=progress and label,
                **settings,
            )
            maps[problem.name, name] = ds
            report.save_data(ds, report.zarr_path(out, label))
    found = {key: measure(ds, maps[key[0], FLOW]) for key, ds in maps.items()}
    networks = [problem.name for problem in problems]
    for figure, name in (
        (draw_maps(maps, networks), "maps"),
        (draw_measures(found, networks), "measures"),
    ):
        report.save_figure(figure, out / f"{name}.png")
        plt.close(figure)
    text = "\n\n".join(
        [
            "# convexity: the geometry of basins",
            (__doc__ or "").strip(),
            "![maps](maps.png)\n\n![measures](measures.png)",
            *(f"## {network}\n\n{table(found, network)}" for network in networks),
            LEGEND,
            "## Against the source document",
            "\n".join(verdicts(found, networks)),
            "## What refinement misses",
            refinement(maps),
        ]
    )
    return report.save_report(text, out)


def measure(ds: xr.Dataset, flow: xr.Dataset) -> dict[str, float]:
    """The numbers of a map that the claim is about; solidities are averaged over the basins by area."""
    g = fo.geometry(ds)
    at_point = g.sel(end=g.end >= 0)
    average = lambda measure: float(at_point[measure].weighted(at_point["share"]).mean())
    return dict(
        solidity=average("solidity"),
        mean_solidity=average("mean_solidity"),
        parts=int(at_point.parts.sum()),
        basins=at_point.sizes["end"],
        reached=float(at_point["share"].sum()),
        alpha=float(g.uncertainty_exponent),
        alpha_error=float(g.uncertainty_exponent_error),
        dimension=float(g.boundary_dimension),
        entropy=float(g.basin_entropy),
        boundary_entropy=float(g.boundary_basin_entropy),
        wada=float(g.wada),
        same=float((ds.label == flow.label).mean()),
    )


def table(found: dict, network: str) -> str:
    head = [
        "method",
        "starts that reach a point",
        "ends where the gradient flow does",
        "solidity",
        "solidity of the parts",
        "parts",
        "S_b",
        "S_bb",
        "alpha",
        "dimension",
        "Wada",
    ]
    rows = [
        [
            name,
            report.percent(f["reached"]),
            report.percent(f["same"]),
            f"{f['solidity']:.3f}",
            f"{f['mean_solidity']:.3f}",
            f"{f['parts']} of {f['basins']} basins",
            f"{f['entropy']:.3f}",
            f"{f['boundary_entropy']:.3f}",
            f"{f['alpha']:.2f} +- {f['alpha_error']:.2f}",
            f"{f['dimension']:.2f}",
            f"{f['wada']:.2f}",
        ]
        for (where, name), f in found.items()
        if where == network
    ]
    return report.table(head, rows)


LEGEND = (
    "`solidity`: area of a basin over that of its convex hull, averaged over the basins of critical points by area; "
    "`solidity of the parts`: the same of their connected parts, which does not see a speck far from its basin, as the "
    "hull does. `S_b`, `S_bb`: basin entropy and boundary basin "
    "entropy in boxes of 5 x 5 cells [nats]; S_bb > log 2 = 0.693 shows a fractal boundary. `alpha`: uncertainty "
    "exponent, 1 for a smooth boundary, with its standard error; `dimension`: of the boundary, by counting boxes. "
    "`Wada`: share of the boundary that borders every basin. Diverged and unfinished runs count as basins in "
    "the last five. The gradient flow is integrated by Tsit5 to a relative error of 1e-8 per step, "
    "the heavy ball flow to 1e-6."
)


def verdicts(found: dict, networks: list[str]) -> list[str]:
    of = lambda fact, names: {(w, n): found[w, n][fact] for w in networks for n in names}
    flow = {w: found[w, FLOW]["solidity"] for w in networks}
    span = lambda values: f"{min(values):.2f} to {max(values):.2f}"
    first, inertia = of("solidity", FIRST_ORDER), of("solidity", INERTIA)
    constant = of("solidity", CONSTANT)
    above = lambda some: [s > max(constant[w, n] for n in CONSTANT) for (w, _), s in some.items()]
    close = lambda some: [s > flow[w] - CLOSE for (w, _), s in some.items()]
    smooth = lambda names: [alpha > 0.9 for alpha in of("alpha", names).values()]
    tell = lambda holds: f"{sum(holds)} of {len(holds)} maps"
    fluid = {w: found[w, "heavy ball flow"] for w in networks if (w, "heavy ball flow") in found}
    return [
        report.verdict(
            every(above(first)),
            "the basins of adaptive and energy schemes without inertia are more convex than those of any constant step",
            f"on {tell(above(first))}; solidity {span(first.values())}, against "
            f"{span(constant.values())} with a constant step ({', '.join(CONSTANT)}); that of their connected parts "
            f"{span(of('mean_solidity', FIRST_ORDER).values())} against {span(of('mean_solidity', CONSTANT).values())}",
        ),
        report.verdict(
            every(close(first)),
            f"they are as convex as the gradient flow's own, to within {CLOSE:g}",
            f"on {tell(close(first))}; the gradient flow itself has {span(flow.values())}",
        ),
        report.verdict(
            every(smooth(FIRST_ORDER)),
            "their boundaries are smooth (alpha > 0.9)",
            f"on {tell(smooth(FIRST_ORDER))}; with a constant step on {tell(smooth(CONSTANT))}",
        ),
        report.verdict(
            every(above(inertia)),
            "energy schemes with inertia have more convex basins than any constant step, too",
            f"on {tell(above(inertia))}; solidity {span(inertia.values())}, alpha "
            f"{span(of('alpha', INERTIA).values())}. The heavy ball flow itself has solidity "
            f"{span([f['solidity'] for f in fluid.values()])}, alpha {span([f['alpha'] for f in fluid.values()])}",
        ),
    ]


def every(each: list[bool]) -> bool | None:
    """True or False where all are, None where they differ."""
    return each[0] if len(set(each)) == 1 else None


def refinement(maps: dict[Any, xr.Dataset], levels: int = 3) -> str:
    """What `refine=levels` would have run and missed on each of the maps, by looking the labels up in them."""
    rows = []
    for (network, name), ds in maps.items():
        labels = ds.label.values
        look_up = lambda i, j: Ends(*(labels[i, j],) * 3)  # noqa: B023
        ends, done = refined(look_up, labels.shape, levels)
        rows.append(
            [
                network,
                name,
                report.percent(done.mean()),
                report.percent((ends.label != labels).mean()),
            ]
        )
    head = ["network", "method", "cells run", "cells with another label than on the full grid"]
    return f"With `refine={levels}`:\n\n{report.table(head, rows)}"


def draw_maps(maps: dict, networks: list[str]) -> Figure:
    figure, axes = plt.subplots(
        len(networks), len(SHOWN), figsize=(3 * len(SHOWN), 3.2 * len(networks)), squeeze=False,
        sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    for line, network in zip(axes, networks, strict=True):
        for ax, name in zip(line, SHOWN, strict=True):
            fo.plot_basins(maps[network, name], ax, legend=False)
            ax.set_title(f"{network}, {name}", fontsize="small")
            ax.label_outer()
    figure.supxlabel(
        "A start's colour is that of the critical point it reached; brown: diverged, grey: max_steps. White: "
        "minima (circles), saddles (crosses), maxima (triangles)",
        fontsize="small",
    )
    return figure


def draw_measures(found: dict, networks: list[str]) -> Figure:
    names = list(dict.fromkeys(name for _, name in found))
    facts = (
        ("solidity", "solidity of basins [1]", None),
        ("alpha", "uncertainty exponent [1]", "alpha_error"),
        ("boundary_entropy", "boundary basin entropy [nat]", None),
    )
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), sharey=True, layout="constrained")
    for ax, (fact, title, error) in zip(axes, facts, strict=True):
        for k, (network, marker) in enumerate(zip(networks, "os^", strict=False)):
            here = [found[network, name] for name in names]
            ax.errorbar(
                [f[fact] for f in here],
                np.arange(len(names)) + 0.15 * (k - 1),
                xerr=[f[error] for f in here] if error else None,
                fmt=marker,
                color=("#0072B2", "#E69F00", "#009E73")[k],
                label=network,
            )
        ax.set_xlabel(title)
        ax.grid(axis="both", color="#DDDDDD")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].set_xlim(0, 1.05)
    axes[1].set_xlim(0, 1.1)
    axes[2].axvline(np.log(2), color="black", lw=1, ls="--", label="log 2: fractal beyond")
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
