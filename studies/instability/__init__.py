"""Maxima and saddles are unstable: the spectrum at every exact critical point, and the time to leave from close by."""

import functools as ft
import pathlib
from collections import Counter

import numpy as np
import xarray as xr
from tqdm import tqdm

import flowopt as fo
from studies import report
from studies.instability import spectra
from studies.instability.figure import draw
from studies.instability.leaving import (
    DIRECTIONS,
    ENDS,
    EXIT,
    MAX_STEPS,
    algebraic_exits,
    exits,
    log_linear,
    step_exits,
)

FLOWS = {
    "gradient": fo.flows.Gradient(),
    "heavy ball": fo.flows.HeavyBall(1.0),
    "Nesterov": fo.flows.Nesterov(1.0, 0.1),
    "Hessian-driven damping": fo.flows.HessianDamping(1.0, 0.1),
    "AdaGrad": fo.flows.AdaGrad(0.1),
    "RMSProp": fo.flows.RMSProp(1.0),
    "Adam": fo.flows.Adam(0.1, 1.0),
}
TIMED = ("gradient", "heavy ball", "Nesterov")
"""Flows linear in the gradient: those with a scale sqrt(s) are linear only where |grad R| is far below eps."""
NONLINEAR = "Adam, lr 0.01, eps 1e-8"
STEPPED = {
    "GD, lr 0.01": fo.gd(0.01),
    "momentum, lr 0.01": fo.momentum(0.01),
    "Adam, lr 0.01, eps 1": fo.adam(0.01, eps=1.0),
    NONLINEAR: fo.adam(0.01),
}
SLOW = ("poly5", "poly8")
"""Networks with unstable points at which the gradient flow has no positive eigenvalue."""


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    networks = ("poly2", "poly5") if quick else ("poly2", "poly3", "poly4", "poly5", "poly8")
    networks += () if quick else ("rational", "exp2", "exp4", "exp5")
    problems = {name: getattr(fo.benchmarks, name)() for name in networks}
    flows = {k: v for k, v in FLOWS.items() if not quick or k in ("gradient", "Adam")}
    radii = 10.0 ** -np.arange(2, 13, 2 if quick else 1)
    stepped = {k: v for k, v in STEPPED.items() if not quick or k in ("GD, lr 0.01", NONLINEAR)}
    jobs = [("poly2", "heavy ball")] if quick else [(n, f) for n in networks for f in TIMED]
    slow_ones = [name for name in networks if name in SLOW]

    with tqdm(total=len(jobs) + len(stepped) + len(slow_ones), disable=not progress) as bar:

        def measured(kind: str, name: str, compute, *args) -> xr.Dataset:
            label = f"{kind}, {name}, {len(radii)}"
            ds = report.kept(out, label, ft.partial(compute, *args))
            bar.update()
            return ds

        counts = spectra.counts(list(problems.values()), flows)
        timed = {
            (n, f): measured("exits", f"{n}, {f}", exits, problems[n], FLOWS[f], radii)
            for n, f in jobs
        }
        poly2 = problems["poly2"]
        steps = {
            name: measured("steps", name, step_exits, poly2, method, radii)
            for name, method in stepped.items()
        }
        slow = {name: measured("slow", name, algebraic_exits, problems[name]) for name in slow_ones}
    draw(timed, steps, slow, out)
    save(timed, steps, slow, out)
    text = "\n\n".join(
        [
            "# instability: maxima and saddles",
            (__doc__ or "").strip(),
            "![exit times](instability.png)",
            "## Spectrum",
            f"{sum(len(p.critical_points) for p in problems.values())} critical points of {', '.join(networks)}, "
            f"each under {len(flows)} flows ({', '.join(flows)}). Eigenvalues decide where their real parts are not 0; "
            "elsewhere the exact nature of the point and the flow's energy.",
            spectra.counts_table(counts),
            "## Exit times",
            f"Time until the distance from the point exceeds {EXIT:g}, from {DIRECTIONS} random directions at "
            f"distances {radii[0]:.0e} to {radii[-1]:.0e}, the memory started as a run starts it; its slope over "
            "ln(1/r), r <= 1e-5, against 1/mu, mu the largest eigenvalue there.",
            slope_table(timed),
            f"How these runs ended: {ended(timed.values())}.",
            "Steps of discrete methods on poly2, likewise, against 1/ln|z|, z the largest multiplier of a step:",
            steps_table(steps),
            "Where no eigenvalue is positive the gradient flow leaves algebraically: along a coordinate in which the "
            "derivative of the loss vanishes like a u^m, T = r^(1 - m)/((m - 1) a). Starts along the coordinates, on "
            "the side where the loss falls, r = 1e-1.5 to 1e-3:",
            slow_table(slow),
            f"How these runs ended: {ended(slow.values())}.",
            "## Steps at the minima",
            spectra.steps_table(spectra.critical_steps(poly2, quick)),
            "## Against the source document",
            "\n".join(verdicts(counts, timed, steps, slow)),
        ]
    )
    return report.save_report(text, out)


def ended(datasets) -> str:
    """How many runs ended in which way."""
    codes = np.concatenate([ds.ended.values.ravel() for ds in datasets])
    why = (
        f"within {EXIT:g} at the time limit",
        f"not yet there after {MAX_STEPS:,} steps",
        "with no step to go on with",
    )
    count = np.bincount(codes, minlength=len(ENDS))
    lost = [f"{n} {text}" for n, text in zip(count[1:], why, strict=True) if n]
    return f"{count[0]:,} of {codes.size:,} left" + (f"; {', '.join(lost)}" if lost else "")


def slope_table(timed: dict[tuple[str, str], xr.Dataset]) -> str:
    rows = []
    for flow in dict.fromkeys(flow for _, flow in timed):
        for nature in ("maximum", "saddle", "flat"):
            some = [
                (ds.ratio.values[i], ds.eigenvalue.values[i])
                for (_, name), ds in timed.items()
                for i, n in enumerate(ds.attrs["natures"])
                if (name, n) == (flow, nature)
            ]
            if some:
                ratio, mu = np.transpose(some)
                rows.append([flow, nature, str(len(some)), f"{min(mu):.3g} to {max(mu):.3g}"])
                rows[-1] += [f"{np.nanmin(ratio):.4f} to {np.nanmax(ratio):.4f}"]
    return report.table(["flow", "at", "points", "mu [1/time]", "slope x mu"], rows)


def steps_table(steps: dict[str, xr.Dataset]) -> str:
    rows = []
    for name, ds in steps.items():
        for nature in ("maximum", "saddle"):
            some = ds.isel(point=[n == nature for n in ds.attrs["natures"]])
            first, last = (float(some.steps.isel(r=i).mean(skipna=False)) for i in (0, -1))
            expected = float((1 / np.log(some.multiplier)).mean())
            rows.append([name, nature, f"{float(some.multiplier.mean()):.5g}", f"{first:.1f}"])
            rows[-1] += [f"{last:.1f}", f"{float(some.slope.mean()):.4g}", f"{expected:.4g}"]
    radii = next(iter(steps.values())).r.values
    head = ["method", "at", "abs z", f"steps from {radii[0]:.0e}", f"from {radii[-1]:.0e}"]
    return report.table([*head, "slope [steps]", "1/ln abs z"], rows)


def slow_table(slow: dict[str, xr.Dataset]) -> str:
    rows = []
    for network, ds in slow.items():
        natures = np.array(ds.attrs["natures"])
        for nature, m in dict.fromkeys(
            zip(natures.tolist(), ds.order.values.tolist(), strict=True)
        ):
            powers = ds.power.values[(natures == nature) & (ds.order.values == m)]
            left = powers[np.isfinite(powers)]
            spread = f"{left.min():.3f} to {left.max():.3f}" if len(left) else "-"
            rows.append([network, nature, str(m), f"{len(left)} of {len(powers)}", spread])
            rows[-1].append(str(1 - m))
    return report.table(["network", "at", "m", "starts that left", "power of r", "1 - m"], rows)


def save(timed: dict, steps: dict, slow: dict, out: pathlib.Path) -> None:
    for (network, flow), ds in timed.items():
        report.save_data(ds, out / f"{network}-{flow.replace(' ', '-')}.zarr")
    for kind, found in (("steps", steps), ("slow", slow)):
        for name, ds in found.items():
            report.save_data(ds, out / f"{kind}-{name.replace(', ', '-').replace(' ', '-')}.zarr")


def verdicts(counts: Counter, timed: dict, steps: dict, slow: dict) -> list[str]:
    tally = lambda natures, stability: sum(
        n for key, n in counts.items() if key[0] in natures and key[1] == stability
    )
    unstable = ("maximum", "saddle")
    total = sum(n for key, n in counts.items() if key[0] in unstable)
    minima = sum(n for key, n in counts.items() if key[0] == "minimum")
    flats = sum(n for key, n in counts.items() if key[0] == "flat")
    ratios = np.concatenate([ds.ratio.values for ds in timed.values()])
    off = np.nanmax(np.abs(ratios - 1))
    linear = {name: ds for name, ds in steps.items() if name != NONLINEAR}
    steps_off = max(log_linear(ds) for ds in linear.values())
    orders, powers = (
        np.concatenate([ds[k].values for ds in slow.values()]) for k in ("order", "power")
    )
    left = np.isfinite(powers)
    from_1 = np.max(np.abs(powers - 1 + orders)[left], initial=0)
    adam, gd = steps[NONLINEAR], steps["GD, lr 0.01"]
    mean = lambda ds, i: f"{float(ds.steps.isel(r=i).mean()):.0f}"
    adam_off = log_linear(adam)
    return [
        report.verdict(
            tally(unstable, "unstable") == total,
            "maxima and saddles are unstable",
            f"{tally(unstable, 'unstable')} of {total} maxima and saddles x flows are unstable, "
            f"{tally(unstable, 'stable')} stable, {tally(unstable, 'undecided')} undecided; of the minima "
            f"{tally(('minimum',), 'stable')} of {minima} are stable; of the flat points that are no extrema "
            f"{tally(('flat',), 'unstable')} of {flats} unstable, though the gradient flow comes to rest there from "
            "one side",
        ),
        report.verdict(
            bool(off < 0.01 and steps_off < 0.05),
            "the time to leave is log-linear in the distance, with slope 1 over the largest eigenvalue",
            f"slope x eigenvalue is within {off:.2%} of 1 for {np.isfinite(ratios).sum()} of {ratios.size} points x "
            f"flows, and the slope in steps within {steps_off:.1%} of 1/ln|z| for "
            f"{sum(ds.sizes['point'] for ds in linear.values())} points x methods; of the runs of the flows "
            f"{ended(timed.values())}",
        ),
        report.verdict(
            bool(np.all(np.abs(powers[left]) < 0.1)),
            "the same where no eigenvalue is positive",
            f"such points are left algebraically, T ~ r^(1 - m), with powers within {from_1:.3f} of 1 - m on "
            f"{left.sum()} of {left.size} starts: far slower than log-linear; of the runs {ended(slow.values())}",
        ),
        report.verdict(
            adam_off < 0.05,
            "the same for Adam at its usual eps",
            f"from 1e-12 it takes {mean(adam, -1)} steps, from 1e-2 {mean(adam, 0)}, means over "
            f"points and directions (GD {mean(gd, -1)} and {mean(gd, 0)}): slope x ln|z| is up to "
            f"{adam_off:.1f} from 1, for its step is linear only where |grad R| is far below eps; farther out it "
            "moves by about lr a step",
        ),
    ]
