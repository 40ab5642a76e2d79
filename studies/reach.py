"""With what probability does each method find each critical point?"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.stats
import xarray as xr

import flowopt as fo
from flowopt.stability.labels import NO_POINT
from flowopt.tree import add_scaled, sum_squares
from studies import reach_noise, report

REGION = ((-3.0, 3.0), (-3.0, 3.0))
PUBLISHED = {
    # Shares of 10,000 uniform starts, from the source document's authors: (-2, 1), (2, -1), (0, -1), (0, 1), diverged.
    ("poly2", "GD, lr 0.1"): (0.2078, 0.2048, 0.1892, 0.1805, 0.2177),
    ("poly2", "Adam without correction, lr 0.1"): (0.1510, 0.1481, 0.3539, 0.3470, 0.0),
    ("poly2", "Extragradient, stopped at the trial point"): (0.2138, 0.2087, 0.2927, 0.2848, 0.0),
    ("poly3", "energy-guarded Euler, backtracking 2, 2"): (0.2157, 0.2155, 0.2832, 0.2856, 0.0),
}
PUBLISHED_RUNS = 10_000
QUICK = {
    *PUBLISHED,
    ("poly2", "Euler-Richardson, stopped at its own gradient"),
    ("poly2", "energy-guarded Euler-Richardson"),
}
"""What a quick run measures: what the report sets against published shares or draws its verdicts from."""
MINIMA = ((-2.0, 1.0), (2.0, -1.0), (0.0, -1.0), (0.0, 1.0))


def stop_at_trial_point(fn, tol: float):
    """Stops once |grad R| < tol at y - h g, the point that an extragradient step looks at, and not at y itself."""

    def stop(run):
        trial = add_scaled(run.params, -run.step, run.grad)
        return jnp.sqrt(sum_squares(jax.grad(fn)(trial, None))) < tol

    return stop


def methods(problem: fo.Problem) -> dict[str, tuple[fo.Method, dict[str, Any]]]:
    """By name: the method, and the tolerance and stopping rule it is run with."""
    guard, backtracking = fo.EnergyGuard, fo.Backtracking(shrink=2, grow=2)
    gradient = fo.flows.Gradient()
    lr = {"poly2": 0.1, "poly3": 0.01, "poly4": 0.01, "poly5": 1e-4}[problem.name]
    return {
        f"GD, lr {lr:g}": (fo.gd(lr), dict(tol=1e-4)),
        f"momentum, lr {lr:g}, beta 0.9": (fo.momentum(lr, 0.9), dict(tol=1e-4)),
        "Adam, lr 0.1": (fo.adam(0.1, eps=1e-7), dict(tol=1e-5)),
        "Adam without correction, lr 0.1": (
            fo.adam(0.1, eps=1e-7, bias_correction=False),
            dict(tol=1e-5),
        ),
        "Extragradient, stopped at the trial point": (
            fo.extragradient(0.01),
            dict(stop=stop_at_trial_point(problem.loss, 1e-4)),
        ),
        "Extragradient, stopped at its own gradient": (fo.extragradient(0.01), dict(tol=1e-4)),
        "Euler-Richardson, stopped at its own gradient": (
            fo.euler_richardson(0.01),
            dict(tol=1e-4),
        ),
        "energy-guarded Extragradient": (fo.lyapunov(solver=fo.Extragradient()), dict(tol=1e-4)),
        "energy-guarded Euler-Richardson": (
            fo.lyapunov(solver=fo.EulerRichardson()),
            dict(tol=1e-4),
        ),
        "energy-guarded Euler, backtracking 2, 2": (
            fo.Method(gradient, guard(fo.StaggeredEuler()), backtracking, step=0.1),
            dict(tol=1e-4),
        ),
        "energy-guarded Euler": (fo.lyapunov(gradient), dict(tol=1e-4)),
        "energy-guarded heavy ball": (fo.lyapunov(fo.flows.HeavyBall(1.0)), dict(tol=1e-4)),
        "energy-guarded Adam flow": (fo.lyapunov(fo.flows.Adam(0.1, 1.0)), dict(tol=1e-4)),
    }


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    n = 500 if quick else 10_000
    sections, found, lingering = [], {}, {}
    problems = [fo.benchmarks.poly2(), fo.benchmarks.poly3()]  # those with published shares
    if not quick:
        problems += [fo.benchmarks.poly4(), fo.benchmarks.poly5()]
    for problem in problems:
        start = fo.uniform(*REGION)
        for name, (method, settings) in methods(problem).items():
            if quick and (problem.name, name) not in QUICK:
                continue
            found[problem.name, name] = fo.reach(
                problem,
                method,
                start,
                n,
                key=0,
                store=report.unfinished(out, f"{problem.name}, {name}, {n}"),
                progress=progress and f"{problem.name}, {name}",
                **settings,
            )
            lingering[problem.name, name] = linger(
                problem, method, found[problem.name, name], settings
            )
        here = {name: ds for (network, name), ds in found.items() if network == problem.name}
        sections.append(f"## {problem.name}\n\n{shares(here)}")
        both: Any = xr.concat(
            [ds.drop_vars(["start"]) for ds in here.values()],
            dim=xr.DataArray(np.arange(len(here)), dims="method"),
            data_vars="all",
            combine_attrs="drop_conflicts",
        )
        both.attrs["methods"] = list(here)
        report.save_data(both, out / f"{problem.name}.zarr")
    few = (problems[:1], 60) if quick else (problems, n)
    noisy = reach_noise.measure(*few, out, quick, progress)
    for key, ds in noisy.items():
        report.save_data(ds, report.zarr_path(out, ", ".join(key)))
    draw(found, out / "reach.png")
    text = "\n\n".join(
        [
            "# reach: the probability of each critical point",
            f"{n:,} starts, uniform in [-3, 3]^2, the same for every method. Each share is followed by its 95% "
            "Clopper-Pearson interval, in percent. `reach.png` shows the shares.",
            *sections,
            "## With noise on the gradient",
            reach_noise.table(noisy),
            "## Against the published shares",
            against_published(found),
            "## Against the source document",
            "\n".join([*verdicts(found, lingering), *reach_noise.verdicts(noisy)]),
            HOVERING,
        ]
    )
    return report.save_report(text, out)


def ends(ds: xr.Dataset) -> list[str]:
    """What each end is."""
    names = []
    for label in ds.end.values:
        if label < 0:
            names.append(NO_POINT[int(label)])
            continue
        w, b = ds.point_params.values[label]
        value = float(ds.point_value.values[label])
        names.append(f"{ds.attrs['natures'][label]} ({w:.3g}, {b:.3g}), R = {value:.3g}")
    return names


def draw(found: dict[tuple[str, str], xr.Dataset], path: pathlib.Path) -> None:
    """The shares of each network's critical points, a bar for each method."""
    networks = list(dict.fromkeys(network for network, _ in found))
    rows = {x: [name for network, name in found if network == x] for x in networks}
    figure, axes = plt.subplots(
        len(networks),
        figsize=(10, 1 + sum(1 + 0.25 * len(names) for names in rows.values())),
        height_ratios=[2 + len(names) for names in rows.values()],
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, (network, names) in zip(axes[:, 0], rows.items(), strict=True):
        runs = [found[network, name] for name in names]
        data = {
            "probability": (("optimizer", "end"), [ds.probability.values for ds in runs]),
            "end_name": ("end", ends(runs[0])),
        }
        coords = {"optimizer": names, "end": runs[0].end.values}
        fo.plotting.plot_shares(xr.Dataset(data, coords), ax)
        ax.set_title(network, loc="left")
        ax.label_outer()
    report.save_figure(figure, path)
    plt.close(figure)


def shares(runs: dict[str, xr.Dataset]) -> str:
    """A table, methods by what they reached; what nobody reached is left out."""
    some = next(iter(runs.values()))
    names = ends(some)
    reached = [i for i in range(len(names)) if any(ds["count"].values[i] for ds in runs.values())]
    rows = []
    for name, ds in runs.items():
        cells = [
            f"{100 * ds.probability.values[i]:.1f} [{100 * ds.lower.values[i]:.1f}, {100 * ds.upper.values[i]:.1f}]"
            if ds["count"].values[i]
            else "-"
            for i in reached
        ]
        rows.append([name, *cells, f"{float((ds.accepted + ds.rejected).mean()):.0f}"])
    return report.table(["method", *(names[i] for i in reached), "steps per run"], rows)


def share_at(ds: xr.Dataset, point: tuple[float, float]) -> float:
    """The probability of the critical point at `point`."""
    index = int(np.argmin(np.hypot(*(ds.point_params.values - np.array(point)).T)))
    return float(ds.probability.sel(end=index))


def against_published(found: dict) -> str:
    rows = []
    for (network, name), published in PUBLISHED.items():
        ds = found[network, name]
        measured = (*(share_at(ds, p) for p in MINIMA), float(ds.probability.sel(end=-3)))
        cells = [f"{m:.4f} ({p:.4f})" for m, p in zip(measured, published, strict=True)]
        furthest = max(abs(m - p) for m, p in zip(measured, published, strict=True))
        runs = np.array([ds.sizes["run"], PUBLISHED_RUNS])
        counts = np.rint(runs[:, None] * np.array([measured, published]))
        _, p, *_ = scipy.stats.chi2_contingency(counts[:, counts.any(axis=0)])
        rows.append([f"{network}, {name}", *cells, f"{furthest:.4f}", f"{p:.2g}"])
    head = ["run", *(f"({w:g}, {b:g})" for w, b in MINIMA), "diverged", "largest difference", "p"]
    text = (
        "Measured, and published in brackets; p is that of the chi-squared test that both, theirs of "
        f"{PUBLISHED_RUNS:,} starts, are counts of the same shares. Our starts are the same in all four rows, so is "
        "part of the chance.\n\n"
    )
    return text + report.table(head, rows)


def linger(
    problem: fo.Problem, method: fo.Method, ds: xr.Dataset, settings: dict
) -> tuple[int, int]:
    """How many runs stopped at a saddle or maximum, and how many of them still do with a tolerance 10^6 times smaller.

    A start next to the stable manifold of a saddle passes it so closely that the gradient is below any
    tolerance for a while. Only a smaller one tells whether the run rests there or was on its way.
    """
    unstable = [
        i for i, nature in enumerate(ds.attrs["natures"]) if nature in ("saddle", "maximum")
    ]
    stopped = np.isin(ds.label.values, unstable)
    if not stopped.any():
        return 0, 0
    again = tuple(ds.start.values[stopped].T)
    if "stop" in settings:
        settings = dict(stop=stop_at_trial_point(problem.loss, 1e-10))
    else:
        settings = dict(tol=settings["tol"] * 1e-6)
    ends = fo.reach(problem, method, again, max_steps=100_000, **settings)
    return int(stopped.sum()), int(np.isin(ends.label.values, unstable).sum())


def verdicts(found: dict, lingering: dict) -> list[str]:
    stopped, stayed = (sum(counts) for counts in zip(*lingering.values(), strict=True))
    runs = sum(ds.sizes["run"] for ds in found.values())
    plain = {k: v for k, v in found.items() if k[1].endswith("stopped at its own gradient")}
    converged = lambda ds: 1 - float(ds.probability.sel(end=[-2, -3, -4]).sum())
    guarded = {k: v for k, v in found.items() if k[1].startswith("energy-guarded")}
    diverged = max(float(ds.probability.sel(end=-3)) for ds in guarded.values())
    at_most = max(converged(ds) for (network, _), ds in plain.items() if network == "poly2")
    cured = min(
        converged(ds)
        for (network, name), ds in guarded.items()
        if network == "poly2" and "Richardson" in name
    )
    return [
        report.verdict(
            stayed == 0,
            "first-order methods reach no maximum and no saddle, even without noise",
            f"of {runs:,} runs, all methods and networks together, {stopped} stopped at one; with a "
            f"tolerance 10^6 times smaller {stayed} of these still do",
        ),
        report.verdict(
            diverged == 0,
            "energy-guarded methods do not diverge",
            f"{report.percent(diverged)} of the runs of any of them, on any network",
        ),
        report.verdict(
            at_most < 0.5 and cured > 0.99,
            "under an absolute error tolerance alone the iterates hover, and the energy guard cures it",
            f"on poly2 at most {report.percent(at_most)} of the runs of an unguarded pair converge by their own "
            f"gradient, {report.percent(cured)} of the guarded Euler-Richardson",
        ),
    ]


HOVERING = """### Why an adaptive pair hovers, and why it can be stopped at the trial point

Near a minimum with curvature L, let z = h L. An Extragradient step is y1 = (1 - z + z^2) y, and its error
estimate (h/2) |g(y - h g) - g| = (z^2/2) |y|. The step-size law holds the estimate at 0.81 of the tolerance, so as y
shrinks, h grows, and z with it, until y stops shrinking: at z = 1, where 1 - z + z^2 = 1. There |y| stays at 1.62
tolerances for ever, and |grad R(y)| with it. (The fixed point attracts: the linearised map of
(log |y|, z) has eigenvalues (1 +- i)/2.) But z = 1 is also where y - h g is the minimum itself,
so the gradient at the *trial* point vanishes: a run that stops there looks converged and is. The energy guard
rejects steps that do not decrease R enough, which bounds z below 1; then y does go to the minimum.
"""
