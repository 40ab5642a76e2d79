"""Maxima and saddles are unstable: the spectrum at every exact critical point, and the time to leave from close by."""

import functools as ft
import math
import pathlib
from collections import Counter
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import matplotlib.pyplot as plt
import numpy as np
import optimistix as optx
import xarray as xr

import flowopt as fo
from flowopt.tree import sum_squares
from studies import report

EXIT = 0.1
"""How far from the point a run has left [params]."""
DIRECTIONS = 8
ADAPTIVE = diffrax.PIDController(rtol=1e-3, atol=1e-6)
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
STEPPED = {
    "GD, lr 0.01": fo.gd(0.01),
    "momentum, lr 0.01": fo.momentum(0.01),
    "Adam, lr 0.01, eps 1": fo.adam(0.01, eps=1.0),
    "Adam, lr 0.01, eps 1e-8": fo.adam(0.01),
}
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    networks = ("poly2", "poly5") if quick else ("poly2", "poly3", "poly4", "poly5", "poly8")
    networks += () if quick else ("rational", "exp2", "exp4", "exp5")
    problems = [getattr(fo.benchmarks, name)() for name in networks]
    flows = {k: v for k, v in FLOWS.items() if not quick or k in ("gradient", "Adam")}
    radii = 10.0 ** -np.arange(2, 13, 2 if quick else 1)
    ends = ("GD, lr 0.01", "Adam, lr 0.01, eps 1e-8")
    stepped = {k: v for k, v in STEPPED.items() if not quick or k in ends}
    counts = verdict_counts(problems, flows)
    timed = exits(problems[:1] if quick else problems, TIMED[:2] if quick else TIMED, radii)
    steps = {name: step_exits(problems[0], m, radii) for name, m in stepped.items()}
    slow = algebraic_exits([p for p in problems if p.name in ("poly5", "poly8")])
    bounds = critical_steps(problems[0], quick)
    draw(timed, steps, slow, radii, out)
    save(timed, steps, radii, out)
    text = "\n\n".join(
        [
            "# instability: maxima and saddles",
            (__doc__ or "").strip(),
            "![exit times](instability.png)",
            "## Spectrum",
            f"{sum(len(p.critical_points) for p in problems)} critical points of {', '.join(networks)}, each under "
            f"{len(flows)} flows ({', '.join(flows)}). Eigenvalues decide where their real parts are not 0; "
            "elsewhere the exact nature of the point and the flow's energy.",
            spectrum_table(counts),
            "## Exit times",
            f"Time until the distance from the point exceeds {EXIT:g}, from {DIRECTIONS} random directions at "
            f"distances {radii[0]:.0e} to {radii[-1]:.0e}, the memory started as a run starts it; its slope over "
            "ln(1/r), r <= 1e-5, against 1/mu, mu the largest eigenvalue there.",
            slope_table(timed),
            "Steps of discrete methods on poly2, likewise, against 1/ln|z|, z the largest multiplier of a step:",
            steps_table(steps, radii),
            "Where no eigenvalue is positive the gradient flow leaves algebraically: along a coordinate in which the "
            "derivative of the loss vanishes like a u^m, T = r^(1 - m)/((m - 1) a). Starts along the coordinates, on "
            "the side where the loss falls, r = 1e-1.5 to 1e-3:",
            slow_table(slow),
            "## Steps at the minima",
            bounds_table(bounds),
            "## Against the source document",
            "\n".join(verdicts(counts, timed, steps, slow)),
        ]
    )
    return report.save_report(text, out)


def verdict_counts(problems: list[fo.Problem], flows: dict) -> Counter:
    """How often (nature, stability, decided by) is found."""
    found: Counter = Counter()
    for problem in problems:
        for flow in flows.values():
            method = fo.Method(flow, diffrax.Heun(), ADAPTIVE, step=0.1)
            for point in problem.critical_points:
                ds = fo.spectrum(method, problem, point)
                found[point.nature, ds.attrs["stability"], ds.attrs["decided_by"]] += 1
    return found


@ft.cache
def shifted(loss: Any):
    """The loss as a function of the distance from a centre, which is given as args."""
    return lambda x, centre: loss(jtu.tree_map(jnp.add, x, centre), None)


def directions() -> np.ndarray:
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, DIRECTIONS)
    return np.stack([np.cos(angles), np.sin(angles)])


def exit_times(
    problem: fo.Problem,
    point: fo.CriticalPoint,
    flow: fo.AbstractFlow,
    starts: np.ndarray,
    t1: float,
    solver: diffrax.AbstractSolver,
) -> np.ndarray:
    """The time at which each run from point + `starts`, shape (2, ...), has left; NaN for one that has not at t1."""
    centre = tuple(jnp.asarray(x, float) for x in point.params)
    x = tuple(jnp.asarray(s) for s in starts.reshape(2, -1))
    times = _exit_times(shifted(problem.loss), flow, solver, x, centre, jnp.asarray(t1))
    return np.asarray(times).reshape(starts.shape[1:])


@ft.partial(jax.jit, static_argnums=(0, 1, 2))
def _exit_times(fn, flow, solver, starts, centre, t1):
    term = fo.FlowTerm(flow, fn)

    def one(start):
        atol = 1e-7 * jnp.sqrt(sum_squares(start))
        left = diffrax.Event(
            lambda t, y, args, **_: sum_squares(y.params) - EXIT**2,
            optx.Newton(rtol=1e-8, atol=1e-8),
        )
        solution = diffrax.diffeqsolve(
            term,
            solver,
            jnp.zeros_like(t1),
            t1,
            None,
            term.init(start),
            centre,
            stepsize_controller=diffrax.PIDController(rtol=1e-7, atol=atol),
            event=left,
            max_steps=20_000,
            throw=False,
        )
        assert solution.ts is not None
        out = solution.result == diffrax.RESULTS.event_occurred
        return jnp.where(out, solution.ts[-1], jnp.nan)

    return jax.vmap(one)(starts)


def exits(problems: list[fo.Problem], names: tuple[str, ...], radii: np.ndarray) -> list[dict]:
    """Exit times from every critical point with a positive eigenvalue, under every timed flow."""
    found = []
    for problem in problems:
        for name in names:
            method = fo.Method(FLOWS[name], diffrax.Heun(), ADAPTIVE, step=0.1)
            for point in problem.critical_points:
                ds = fo.spectrum(method, problem, point)
                if (ds.attrs["stability"], ds.attrs["decided_by"]) != ("unstable", "eigenvalues"):
                    continue
                mu = float(ds.eigenvalue.values.real.max())
                starts = directions()[:, :, None] * radii
                times = exit_times(problem, point, FLOWS[name], starts, 80 / mu, diffrax.Tsit5())
                found.append(
                    dict(problem=problem.name, flow=name, nature=point.nature, mu=mu, times=times)
                    | dict(ratio=slope(times, radii) * mu)
                )
    return found


def slope(times: np.ndarray, radii: np.ndarray) -> float:
    """The mean slope of (directions, radii) over ln(1/r), r <= 1e-5, of the directions whose runs all left."""
    times = times[:, close := radii <= 1.01e-5]
    times = times[np.isfinite(times).all(axis=1)]
    return (
        float(np.mean(np.polyfit(-np.log(radii[close]), times.T, 1)[0])) if len(times) else np.nan
    )


def step_exits(problem: fo.Problem, method: fo.Method, radii: np.ndarray) -> list[dict]:
    """Steps until each run has left a maximum or saddle, and the largest multiplier there."""
    found = []
    for point in problem.critical_points:
        if point.nature == "minimum":
            continue
        starts = (directions()[:, :, None] * radii).reshape(2, -1)
        ends = fo.ensemble(
            shifted(problem.loss),
            tuple(jnp.asarray(s) for s in starts),
            method,
            args=tuple(jnp.asarray(x, float) for x in point.params),
            max_steps=20_000,
            stop=has_left,
        )
        steps = np.where(ends.outcome == "converged", ends.accepted, np.nan)
        steps = steps.reshape(DIRECTIONS, -1)
        z = np.abs(fo.spectrum(method, problem, point).multiplier.values[0])
        found.append(dict(nature=point.nature, z=z, steps=steps, slope=slope(steps, radii)))
    return found


def has_left(state):
    return sum_squares(state.params) > EXIT**2


def algebraic_exits(problems: list[fo.Problem]) -> list[dict]:
    """Exit times of the gradient flow from unstable points without a positive eigenvalue, along a coordinate."""
    radii = 10.0 ** -np.array([1.5, 2.0, 2.5, 3.0])
    method = fo.Method(FLOWS["gradient"], diffrax.Heun(), ADAPTIVE, step=0.1)
    # u = b and s = w + b separate the loss.
    along = {0: np.array([-1.0, 1.0]), 1: np.array([1.0, 0.0])}
    found = []
    for problem in problems:
        for point in problem.critical_points:
            ds = fo.spectrum(method, problem, point)
            if (ds.attrs["stability"], ds.attrs["decided_by"]) != ("unstable", "energy"):
                continue
            for coordinate, m in enumerate(point.multiplicity or ()):
                for side in (1, -1):
                    d = side * along[coordinate] / np.linalg.norm(along[coordinate])
                    near = tuple(x + 0.02 * y for x, y in zip(point.params, d, strict=True))
                    if m < 2 or not float(problem.loss(near, None)) < point.value:
                        continue
                    # Stiff where the other coordinate has a curvature.
                    solver = diffrax.Kvaerno5() if np.any(point.hessian) else diffrax.Tsit5()
                    starts = d[:, None] * radii
                    times = exit_times(problem, point, FLOWS["gradient"], starts, 1e12, solver)
                    power = float(np.polyfit(np.log(radii[1:]), np.log(times[1:]), 1)[0])
                    found.append(dict(problem=problem.name, nature=point.nature, m=m, power=power))
                    found[-1] |= dict(radii=radii, times=times)
    return found


def critical_steps(problem: fo.Problem, quick: bool) -> dict[str, float]:
    """The largest stable learning rate at the steepest minimum."""
    least = [p for p in problem.critical_points if p.nature == "minimum"]
    steepest = max(least, key=lambda p: np.linalg.eigvalsh(np.asarray(p.hessian))[-1])
    makers = {
        "GD": fo.gd,
        "Adam, eps 1e-8": fo.adam,
        "Adam, eps 1e-3": lambda lr: fo.adam(lr, eps=1e-3),
        "momentum 0.9": fo.momentum,
        "Nesterov 0.9": fo.nesterov,
    }
    names = list(makers)[: 2 if quick else None]
    return {name: fo.critical_step(makers[name], problem, steepest) for name in names}


def spectrum_table(counts: Counter) -> str:
    rows = [[*key, str(n)] for key, n in sorted(counts.items())]
    return report.table(["nature", "the flow there is", "decided by", "points x flows"], rows)


def slope_table(timed: list[dict]) -> str:
    rows = []
    for flow in dict.fromkeys(t["flow"] for t in timed):
        for nature in ("maximum", "saddle", "flat"):
            some = [t for t in timed if (t["flow"], t["nature"]) == (flow, nature)]
            if some:
                ratio, mu = [t["ratio"] for t in some], [t["mu"] for t in some]
                rows.append([flow, nature, str(len(some)), f"{min(mu):.3g} to {max(mu):.3g}"])
                rows[-1] += [f"{min(ratio):.4f} to {max(ratio):.4f}"]
    return report.table(["flow", "at", "points", "mu [1/time]", "slope x mu"], rows)


def steps_table(steps: dict, radii: np.ndarray) -> str:
    rows = []
    for name, points in steps.items():
        for nature in ("maximum", "saddle"):
            some = [p for p in points if p["nature"] == nature]
            mean = lambda key, some=some: np.mean([p[key] for p in some])
            first, last = (np.mean([p["steps"][:, i].mean() for p in some]) for i in (0, -1))
            expected = np.mean([1 / math.log(p["z"]) for p in some])
            rows.append([name, nature, f"{mean('z'):.5g}", f"{first:.1f}", f"{last:.1f}"])
            rows[-1] += [f"{mean('slope'):.4g}", f"{expected:.4g}"]
    head = ["method", "at", "abs z", f"steps from {radii[0]:.0e}", f"from {radii[-1]:.0e}"]
    return report.table([*head, "slope [steps]", "1/ln abs z"], rows)


def slow_table(slow: list[dict]) -> str:
    rows = []
    for key in dict.fromkeys((s["problem"], s["nature"], s["m"]) for s in slow):
        powers = [s["power"] for s in slow if (s["problem"], s["nature"], s["m"]) == key]
        left = [p for p in powers if np.isfinite(p)]
        spread = f"{min(left):.3f} to {max(left):.3f}" if left else "-"
        rows.append([key[0], key[1], str(key[2]), f"{len(left)} of {len(powers)}"])
        rows[-1] += [spread, str(1 - key[2])]
    return report.table(["network", "at", "m", "starts that left", "power of r", "1 - m"], rows)


def bounds_table(bounds: dict[str, float]) -> str:
    text = (
        "The largest learning rate at which every minimum of poly2 is stable (`critical_step`), by multipliers, "
        "memory at rest. Adam's is proportional to eps: at rest it is momentum with learning rate (1 - b1) lr/eps, "
        "so at usual learning rates no minimum is a stable fixed point of its step: one must be left before sqrt(s) "
        "has grown to hold it.\n\n"
    )
    return text + report.table(
        ["method", "critical lr"], [[k, f"{v:.4g}"] for k, v in bounds.items()]
    )


def draw(timed: list, steps: dict, slow: list, radii: np.ndarray, out: pathlib.Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.2), layout="constrained")
    for flow, colour in zip(TIMED, COLOURS, strict=False):
        for i, t in enumerate([t for t in timed if t["flow"] == flow]):
            scaled = t["times"].mean(axis=0) * t["mu"]
            axes[0].semilogx(radii, scaled, color=colour, lw=0.8, label=None if i else flow)
    guide = np.log(EXIT / radii)
    axes[0].semilogx(radii, guide, "k--", lw=1, label="ln(0.1/r)")
    axes[0].set(ylabel="exit time x largest eigenvalue [1]", title="Flows, eigenvalue > 0")
    for (name, points), colour in zip(steps.items(), COLOURS, strict=False):
        for i, p in enumerate(points):
            style = "-" if p["nature"] == "maximum" else ":"
            mean = p["steps"].mean(axis=0)
            axes[1].loglog(radii, mean, style, color=colour, lw=1.2, label=None if i else name)
    axes[1].set(ylabel="steps to leave", title="Methods on poly2 (saddles dotted)")
    for m, colour in zip((2, 3), COLOURS, strict=False):
        for i, s in enumerate([s for s in slow if s["m"] == m]):
            label = None if i else f"m = {m}: power {1 - m}"
            axes[2].loglog(s["radii"], s["times"], "o-", ms=3, lw=0.8, color=colour, label=label)
    axes[2].set(ylabel="exit time [time]", title="Gradient flow, no eigenvalue > 0")
    for ax in axes:
        ax.set_xlabel("distance at the start, r [params]")
        ax.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=2,
            fontsize="small",
            frameon=False,
        )
    report.save_figure(figure, out / "instability.png")
    figure.savefig(out / "instability.pdf")
    plt.close(figure)


def save(timed: list[dict], steps: dict, radii: np.ndarray, out: pathlib.Path) -> None:
    over = ("run", "direction", "r")
    ds = xr.Dataset(
        {
            "exit_time": (over, np.array([t["times"] for t in timed]), {"units": "time"}),
            "eigenvalue": ("run", np.array([t["mu"] for t in timed]), {"units": "1/time"}),
            "steps": (
                ("step_run", "direction", "r"),
                np.array([p["steps"] for points in steps.values() for p in points]),
                {"units": "steps"},
            ),
        },
        coords={"r": ("r", radii, {"units": "params"})},
        attrs={
            "runs": [f"{t['problem']}, {t['flow']}, {t['nature']}" for t in timed],
            "step_runs": [f"{name}, {p['nature']}" for name, ps in steps.items() for p in ps],
        },
    )
    report.save_data(ds, out / "instability.zarr")


def verdicts(counts: Counter, timed: list, steps: dict, slow: list) -> list[str]:
    tally = lambda natures, stability: sum(
        n for key, n in counts.items() if key[0] in natures and key[1] == stability
    )
    unstable = ("maximum", "saddle")
    total = sum(n for key, n in counts.items() if key[0] in unstable)
    minima = sum(n for key, n in counts.items() if key[0] == "minimum")
    flats = sum(n for key, n in counts.items() if key[0] == "flat")
    lost = sum(int(np.isnan(t["times"]).sum()) for t in timed)
    off = max(abs(t["ratio"] - 1) for t in timed if np.isfinite(t["ratio"]))
    left = [s for s in slow if np.isfinite(s["power"])]
    plain = [p for name, ps in steps.items() if not name.endswith("1e-8") for p in ps]
    steps_off = max(abs(p["slope"] * math.log(p["z"]) - 1) for p in plain)
    powers = max((abs(s["power"] - 1 + s["m"]) for s in left), default=math.nan)
    adam = np.array([p["steps"] for p in steps["Adam, lr 0.01, eps 1e-8"]])
    gd = np.array([p["steps"] for p in steps["GD, lr 0.01"]])
    adam_off = max(abs(p["slope"] * math.log(p["z"]) - 1) for p in steps["Adam, lr 0.01, eps 1e-8"])
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
            off < 0.01 and steps_off < 0.05,
            "the time to leave is log-linear in the distance, with slope 1 over the largest eigenvalue",
            f"slope x eigenvalue is within {off:.2%} of 1 for {len(timed)} points x flows, and the slope in steps "
            f"within {steps_off:.1%} of 1/ln|z| for {len(plain)} points x methods; {lost} "
            f"of {sum(t['times'].size for t in timed)} "
            "runs of the flows had not left when their integration ended, and are left out",
        ),
        report.verdict(
            all(abs(s["power"]) < 0.1 for s in left),
            "the same where no eigenvalue is positive",
            f"such points are left algebraically, T ~ r^(1 - m), with powers within {powers:.3f} of 1 - m on "
            f"{len(left)} of {len(slow)} starts, all that had left when their integration ended: far slower than "
            "log-linear",
        ),
        report.verdict(
            adam_off < 0.05,
            "the same for Adam at its usual eps",
            f"from 1e-12 it takes {adam[..., -1].mean():.0f} steps, from 1e-2 {adam[..., 0].mean():.0f}, means over "
            f"points and directions (GD {gd[..., -1].mean():.0f} and {gd[..., 0].mean():.0f}): slope x ln|z| is up to "
            f"{adam_off:.1f} from 1, for its step is linear only where |grad R| is far below eps; farther out it "
            "moves by about lr a step",
        ),
    ]
