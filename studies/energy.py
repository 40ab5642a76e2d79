"""Energy explains who leaves a minimum; guarded against unguarded; the steps that each law chooses."""

import pathlib
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import flowopt as fo
from flowopt.objective import Evaluations
from flowopt.run.step import Stepper, make_stepper
from flowopt.tree import sum_squares
from studies import report

NETWORKS = (fo.benchmarks.poly2, fo.benchmarks.poly3, fo.benchmarks.poly4, fo.benchmarks.poly5)
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")


def pairs(lr: float) -> dict[str, tuple[fo.Method, fo.Method]]:
    """Each method as it is, and its own flow guarded by its own energy."""
    plain = {
        "GD": fo.gd(lr),
        "momentum 0.9": fo.momentum(lr, 0.9),
        "RMSProp": fo.rmsprop(0.1),
        "Adam": fo.adam(0.1),
        "Adam, no correction": fo.adam(0.1, bias_correction=False),
    }
    return {name: (m, fo.lyapunov(m.flow, step=0.1)) for name, m in plain.items()}


LAWS: dict[str, fo.Method] = {
    "backtracking 2, 10^4": fo.lyapunov(controller=fo.Backtracking()),
    "backtracking 2, 2": fo.lyapunov(controller=fo.Backtracking(2, 2)),
    "log-bisection 30, 3": fo.lyapunov(controller=fo.LogBisection()),
    "energy error, integral 0.5 (default)": fo.lyapunov(),
    "energy error, integral 0.9": fo.lyapunov(controller=fo.IntegralController()),
    "energy error, PID 0.9": fo.lyapunov(controller=diffrax.PIDController(rtol=0, atol=1)),
    "quadratic model = Barzilai-Borwein": fo.lyapunov(controller=fo.IntegralController(safety=1.0)),
    "the same, nonmonotone": fo.Method(
        fo.flows.Gradient(),
        fo.EnergyGuard(fo.StaggeredEuler(), nonmonotone=True),
        fo.IntegralController(safety=1.0),
        step=0.1,
    ),
}


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    networks = [make() for make in NETWORKS[: 1 if quick else None]]
    left, left_verdict = leaving(out, quick)
    sections = [
        "# energy: what the Lyapunov function explains, and what guarding by it changes",
        "## Who leaves a minimum",
        left,
        "## Guarded against unguarded",
        *guarded_against_unguarded(networks, quick, progress),
        "## Step-size laws under the guard, on the gradient flow",
        *laws(networks, out, quick, progress),
        "## Local stability",
        *local_stability(networks, quick, progress),
        "## Against the source document",
        left_verdict,
    ]
    return report.save_report("\n\n".join(sections), out)


def leaving(out: pathlib.Path, quick: bool) -> tuple[str, str]:
    """How far a run gets that starts at distance d from the minimum (0, 1) of poly2, at rest or moving."""
    problem, centre = fo.benchmarks.poly2(), np.array([0.0, 1.0])
    barrier = min(p.value for p in problem.critical_points if p.nature == "saddle")
    distances = 10.0 ** np.arange(-12, 0.5, 2 if quick else 1)
    angles = np.linspace(0, 2 * np.pi, 8 if quick else 64, endpoint=False)
    around = np.stack([np.cos(angles), np.sin(angles)])
    methods = {
        "GD, lr 0.1": fo.gd(0.1),
        "momentum, lr 0.1, beta 0.9": fo.momentum(0.1, 0.9),
        "Adam, lr 0.1": fo.adam(0.1),
        "energy-guarded heavy ball": fo.lyapunov(fo.flows.HeavyBall(1.0)),
        "energy-guarded Adam flow": fo.lyapunov(fo.adam(0.1).flow),
    }
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    rows, furthest = [], {}
    for colour, (name, method) in zip(COLOURS, methods.items(), strict=False):
        far = np.array(
            [excursion(problem, method, centre, d * around, 0.0).max() for d in distances]
        )
        furthest[name] = far[0]
        axes[0].loglog(distances, far, "o-", ms=4, color=colour, label=name)
        rows.append(
            [name, *(f"{far[np.argmin(abs(distances - d))]:.1e}" for d in (1e-12, 1e-6, 1e-2))]
        )
    axes[0].loglog(distances, distances, "k--", lw=1, label="start")
    axes[0].set(
        xlabel="distance of the start [params]", ylabel="largest distance in 1,000 steps [params]"
    )
    axes[0].set_title("started at rest")
    speeds = 10.0 ** np.linspace(-2, 0.5, 6 if quick else 26)
    kept, expected = [], []
    for colour, name in zip(
        COLOURS[1:4:2], ("momentum, lr 0.1, beta 0.9", "energy-guarded heavy ball"), strict=True
    ):
        far = np.array(
            [excursion(problem, methods[name], centre, 1e-12 * around, v).max() for v in speeds]
        )
        axes[1].semilogx(speeds**2 / 2, far, "o-", ms=4, color=colour, label=name)
        below = speeds**2 / 2 < barrier
        kept.append(bool(np.all(far[below] < 1.0)))
        expected.append(bool(np.any(far[~below] > 1.0)))
    axes[1].axvline(barrier, color="k", ls="--", lw=1, label=f"lowest saddle, R = {barrier:g}")
    axes[1].set(
        xlabel="kinetic energy at the start [loss]",
        ylabel="largest distance in 1,000 steps [params]",
    )
    axes[1].set_title("started at the minimum, moving")
    for ax in axes:
        ax.legend(fontsize="small", frameon=False)
    report.save_figure(figure, out / "leaving.png")
    plt.close(figure)
    text = "\n\n".join(
        [
            "Runs started around the minimum (0, 1) of poly2, in all directions: the largest distance in 1,000 steps.",
            "![leaving](leaving.png)",
            report.table(["started at rest at distance", "1e-12", "1e-06", "1e-02"], rows),
            "At rest V = R there, below every saddle, so no run of a method whose V decreases can leave. GD, "
            "momentum and the guarded methods do not. Adam as it is used does move off: its first step is the "
            "learning rate long however small the gradient, because m/c1 over sqrt(s/c2) is its sign; that step "
            "raises V, the discretisation's doing and not the flow's, and the guard refuses it. With kinetic energy "
            "the heavy ball may climb as high as V allows: it leaves once |v|^2/2 exceeds the lowest saddle.",
        ]
    )
    adam, guard = furthest["Adam, lr 0.1"], furthest["energy-guarded Adam flow"]
    verdicts = [
        report.verdict(
            adam > 1e3 * 1e-12 and guard < 1e-6,
            "close to a minimum Adam still updates though it should stop, and an energy law prevents it",
            f"from 1e-12 away Adam gets to {adam:.1e}, its guarded flow to {guard:.1e}",
        ),
        report.verdict(
            all(kept) and all(expected),
            "with momentum the kinetic energy decides: below the lowest saddle the run stays, above it some leave",
            f"below it {'all' if all(kept) else 'not all'} stay within 1 of the minimum; above it "
            f"{'some' if all(expected) else 'none'} leave",
        ),
    ]
    return text, "\n".join(verdicts)


def stepper_for(problem: fo.Problem, method: fo.Method, tol: float) -> Stepper:
    zero = (jnp.array(0.0), jnp.array(0.0))
    return make_stepper(problem.loss, zero, method, None, tol, None, None)


def excursion(
    problem: fo.Problem, method: fo.Method, centre: np.ndarray, offsets: np.ndarray, speed: float
) -> np.ndarray:
    """The largest distance from `centre` in 1,000 attempted steps, of runs started at `offsets` (2, n) from it with
    a velocity of size `speed` [params/time] outwards, for a flow whose memory is a velocity."""
    stepper = stepper_for(problem, method, 1e-300)
    outwards = offsets / np.linalg.norm(offsets, axis=0)
    middle = tuple(jnp.asarray(c) for c in centre)
    velocity = None if speed == 0 else jnp.asarray(speed)  # a flow without memory has none
    far = _excursions(stepper, middle, jnp.asarray(offsets.T), jnp.asarray(outwards.T), velocity)
    return np.nan_to_num(np.asarray(far), nan=np.inf)


@eqx.filter_jit
def _excursions(stepper: Stepper, middle: Any, offsets: Any, outwards: Any, speed: Any) -> Any:
    def one(offset: Any, outwards: Any) -> Any:
        state = stepper.start((middle[0] + offset[0], middle[1] + offset[1]))
        if speed is not None:
            memory = (speed * outwards[0], speed * outwards[1])
            y = state.y._replace(memory=memory)
            state = eqx.tree_at(lambda s: s.y, state, y)

        def step(state: Any, _: Any) -> Any:
            new = stepper.advance(state, (Evaluations(), Evaluations()))
            return new, jnp.sqrt(sum_squares(jtu.tree_map(jnp.subtract, new.params, middle)))

        return jnp.max(jax.lax.scan(step, state, length=1000)[1])

    return jax.vmap(one)(offsets, outwards)


def guarded_against_unguarded(networks: list[fo.Problem], quick: bool, progress: bool) -> list[str]:
    n, steps = (100, 200) if quick else (2000, 1000)
    start = fo.uniform((-5, 5), (-5, 5))(jax.random.key(0), n)
    rates = {"poly2": 0.1, "poly3": 0.01, "poly4": 0.01, "poly5": 1e-4}
    rows, broken = [], 0
    for problem in tqdm(networks, disable=not progress, desc="guarded", leave=False):
        chosen = list(pairs(rates[problem.name]).items())[: 2 if quick else None]
        for name, (plain, guarded) in chosen:
            cells = []
            for method in (plain, guarded):
                diverged, raised, rise, cost = watch(problem, method, start, steps)
                cells.append([report.percent(diverged), report.percent(raised), cost])
                broken += int(method is guarded and rise > 8)
            rows.append([problem.name, name, *(f"{a} / {b}" for a, b in zip(*cells, strict=True))])
    head = [
        "network",
        "method",
        "diverged",
        "steps that raise V",
        "gradients to |grad R| < 1e-4, median",
    ]
    return [
        f"{n:,} starts uniform in [-5, 5]^2, {steps} attempted steps each; unguarded / guarded. A step raises V if it "
        "does so by more than 8 units in the last place. Converged: |grad R| < 1e-4.",
        report.table(head, rows),
        f"Guarded combinations in which an accepted step broke that bound: {broken}.",
    ]


def watch(
    problem: fo.Problem, method: fo.Method, start: Any, steps: int
) -> tuple[float, float, float, str]:
    """Share diverged, share of accepted steps that raise V, the largest rise [ulp], and the median gradients used."""
    stepper = stepper_for(problem, method, 1e-4)
    flow = method.flow

    def energy(state: Any) -> Any:
        at = stepper.known_at(state, Evaluations())
        return flow.energy(state.params, state.memory, at)

    def step(state: Any, _: Any) -> Any:
        new = stepper.advance(state, (Evaluations(), Evaluations()))
        going = state.code < 0
        kept = going & (new.accepted > state.accepted)
        before, after = energy(state), energy(new)
        ulps = (after - before) / (jnp.finfo(float).eps * jnp.maximum(jnp.abs(before), 1e-300))
        # An energy that is no longer finite has been raised.
        ulps = jnp.where(jnp.isnan(ulps), jnp.inf, ulps)
        new = jtu.tree_map(lambda a, b: jnp.where(going, a, b), new, state)
        return new, (kept, jnp.where(kept, ulps, -jnp.inf))

    ends, (kept, ulps) = jax.jit(
        jax.vmap(lambda s: jax.lax.scan(step, stepper.start(s), length=steps))
    )(start)
    done = np.asarray(ends.code) == 0
    cost = f"{np.median(np.asarray(ends.accepted)[done]) + 1:.0f}" if done.mean() > 0.5 else "-"
    raised = float(jnp.sum(ulps > 8) / jnp.maximum(jnp.sum(kept), 1))
    return float(jnp.mean(ends.code == 3)), raised, float(ulps.max()), cost


def laws(networks: list[fo.Problem], out: pathlib.Path, quick: bool, progress: bool) -> list[str]:
    n = 200 if quick else 2000
    start = fo.uniform((-5, 5), (-5, 5))(jax.random.key(1), n)
    chosen = dict(list(LAWS.items())[: 2 if quick else None])
    rows = []
    for name, method in tqdm(chosen.items(), disable=not progress, desc="laws", leave=False):
        cells = []
        for problem in networks:
            ends = fo.ensemble(problem.loss, start, method, tol=1e-4, max_steps=20_000)
            values = float((ends.accepted + ends.rejected).mean()) + 1
            share = float(np.mean(np.asarray(ends.outcome == "converged")))
            refused = ends.rejected.sum() / max(ends.accepted.sum(), 1)
            cells.append(
                f"{values:.0f}, {float(ends.accepted.mean()) + 1:.0f}, {refused:.2f}, {report.percent(share)}"
            )
        rows.append([name, *cells])
    figure, axes = plt.subplots(
        2, 4, figsize=(14, 6), layout="constrained", sharex=True, sharey=True
    )
    for ax, colour, (name, method) in zip(axes.flat, COLOURS, chosen.items(), strict=False):
        end = fo.minimise(
            fo.benchmarks.poly3().loss,
            (jnp.array(2.5), jnp.array(-2.0)),
            method,
            tol=1e-4,
            max_steps=2000,
            history="step",
        )
        assert end.history is not None
        steps = end.history["step"][1:]
        ax.semilogy(end.history.accepted[1:], steps, ".-", ms=4, lw=1, color=colour)
        refused = int(end.stats["rejected"])
        ax.set_title(f"{name}\n{len(steps)} steps, {refused} refused", fontsize="small")
    for ax in axes[1]:
        ax.set(xlabel="accepted steps", xlim=(0, 80))
    for ax in axes[:, 0]:
        ax.set_ylabel("step h [params^2/loss]")
    figure.suptitle("Steps chosen from (2.5, -2) on poly3")
    report.save_figure(figure, out / "steps.png")
    plt.close(figure)
    return [
        f"{n:,} starts uniform in [-5, 5]^2, until |grad R| < 1e-4 or 20,000 attempts: values, gradients, refusals per "
        "accepted step (means), share converged.",
        report.table(["law", *(p.name for p in networks)], rows),
        "On the gradient flow under Euler the quadratic model of V along a step has its minimum at h/(2 (1 - r)) = "
        "|g|^2/(g'H g) for a quadratic: taken for the next step, that is the Barzilai-Borwein step, and "
        "the integral law with safety 1 is that guess under the guard. It is tried at the edge of what the guard bears "
        "(at lam = 1/2 the edge is this very step), so most guesses are refused once.",
        "![steps](steps.png)",
    ]


def local_stability(networks: list[fo.Problem], quick: bool, progress: bool) -> list[str]:
    """For each minimum the largest radius of a ball from which all runs converge to it."""
    radii = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    radii = radii[:: 4 if quick else 1]
    first, confirm = (100, 200) if quick else (5_000, 100_000)
    rates = {"poly2": 0.1, "poly3": 0.01, "poly4": 0.01, "poly5": 1e-4}
    rows = []
    networks = [p for p in networks if p.name != "poly5"]
    for problem in tqdm(networks, disable=not progress, desc="local stability", leave=False):
        methods = {
            "guarded gradient": fo.lyapunov(),
            "guarded heavy ball": fo.lyapunov(fo.flows.HeavyBall(1.0)),
            "GD": fo.gd(rates[problem.name]),
            "momentum": fo.momentum(rates[problem.name]),
            "Adam": fo.adam(0.1),
        }
        for index, point in enumerate(problem.critical_points):
            if point.nature != "minimum":
                continue
            cells = []
            for method in methods.values():
                largest = 0.0
                for radius in radii:
                    if not all_stay(problem, method, index, radius, first):
                        break
                    largest = radius
                while largest and not all_stay(problem, method, index, largest, confirm):
                    largest = max([r for r in radii if r < largest], default=0.0)
                cells.append(f"{largest:g}" if largest else f"< {radii[0]:g}")
            rows.append([problem.name, f"({point.params[0]:.3g}, {point.params[1]:.3g})", *cells])
    head = [
        "network",
        "minimum",
        "guarded gradient",
        "guarded heavy ball",
        "GD",
        "momentum",
        "Adam",
    ]
    return [
        f"The largest radius among {', '.join(map(str, radii))} [params] such that all of {confirm:,} starts, "
        "uniform in the ball of that radius around the minimum, converge to it (|grad R| < 1e-4, from rest). poly5 is "
        "left out: its flat minima take a first-order method longer than 20,000 steps.",
        report.table(head, rows),
        "The guard compares the energies at the two ends of a step and knows nothing of what lies between: a long step "
        "may pass over a barrier into a deeper basin. The heavy ball from rest is prone to it, since at rest V' = 0 "
        "promises nothing and the law lets the step grow; at the global minima there is no deeper basin to fall into.",
    ]


def all_stay(problem: fo.Problem, method: fo.Method, index: int, radius: float, n: int) -> bool:
    centre = problem.critical_points[index].params
    random = np.random.default_rng(0)
    r, angle = radius * np.sqrt(random.uniform(size=n)), random.uniform(0, 2 * np.pi, n)
    start = (centre[0] + r * np.cos(angle), centre[1] + r * np.sin(angle))
    ds = fo.reach(problem, method, start, max_steps=20_000)
    return int(ds["count"].sel(end=index)) == n
