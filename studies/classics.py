"""Every classic beside its reference, and on its way to the ODE it discretises.

Two claims: that staggered Euler with the classic's step gives back the classic (its largest relative difference
from optax over 1,000 steps), and that the classic is a discretisation of the flow: as the step is halved,
with the flow's own constants kept, the discrete trajectory approaches the ODE's, with the slope printed.
"""

import pathlib
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import flowopt as fo
from flowopt.objective import Evaluations
from flowopt.run.step import make_stepper
from flowopt.tree import sum_squares
from studies import report
from studies.references import REFERENCES, differences, problems, tanh_network

METHODS: dict[str, fo.Method] = {
    "gd": fo.gd(0.2),
    "momentum": fo.momentum(0.04),
    "nesterov": fo.nesterov(0.04),
    "fading_nesterov": fo.fading_nesterov(0.04),
    "inna": fo.inna(0.2),
    "adagrad": fo.adagrad(0.1),
    "rmsprop": fo.rmsprop(0.02),
    "rmsprop, initial scale 1": fo.rmsprop(0.02, initial_scale=1.0),
    "adam": fo.adam(0.02),
    "adam, no correction": fo.adam(0.02, bias_correction=False),
    "adamw": fo.adamw(0.02, weight_decay=0.1),
    "nadam": fo.nadam(0.02),
    "adamax": fo.adamax(0.02),
    "adabelief": fo.adabelief(0.02),
    "amsgrad": fo.amsgrad(0.02),
    "lion": fo.lion(0.02),
    "sign_gd": fo.sign_gd(0.02),
    "newton": fo.damped_newton(5.0, 0.2),
}
# Okabe and Ito's, which stay apart for colour-blind readers; the marker tells those of one colour apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
STEPS = 8
"""Steps of the classic itself in the time over which it is compared with the ODE."""


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    """Writes report.md and classics.png into `out`, and returns the report.

    `quick`: 3 starts, 200 steps and 2 of the 3 sets of losses in place of 20, 1,000 and all.
    """
    lines = ["# classics: every classic beside its reference and its ODE", ""]
    lines += [*_references(quick, progress), "", *_orders(out, quick, progress)]
    return report.save_report("\n".join(lines), out)


def _references(quick: bool, progress: bool) -> list[str]:
    starts, steps = (3, 200) if quick else (20, 1000)
    losses = problems(starts, jnp.float64)
    if quick:
        losses = {name: losses[name] for name in ("rosenbrock 10-D", "poly2 to poly5")}
    lines = [
        f"Largest relative difference of the params from optax's over {steps} steps from {starts} starts, on "
        f"{', '.join(losses)}. *Replayed*: under the gradients that optax met. *Together*: each under its own. "
        "*Rounding*: between optax and optax with its params changed by a unit in the last place at every step. "
        "*Steady*: the runs in which rounding stays below 1e-12; *together, steady*: the largest difference of those.",
        "",
        "| method | replayed | together | rounding | steady | together, steady |",
        "|---|---|---|---|---|---|",
    ]
    names = ("momentum", "adam", "lion") if quick else REFERENCES
    for name in tqdm(names, disable=not progress, desc="references"):
        found = [differences(name, fn, start, steps) for fn, start in losses.values()]
        replayed, together, rounding = (
            np.concatenate([getattr(d, part) for d in found])
            for part in ("replayed", "together", "rounding")
        )
        steady = rounding <= 1e-12
        lines.append(
            f"| {name} | {replayed.max():.1e} | {together.max():.1e} | {rounding.max():.1e} "
            f"| {steady.sum()}/{steady.size} | {np.max(together[steady], initial=0):.1e} |"
        )
    return lines


def _orders(out: pathlib.Path, quick: bool, progress: bool) -> list[str]:
    divisors = 2 ** np.arange(5 if quick else 8)
    methods = {name: METHODS[name] for name in ("gd", "momentum", "adam")} if quick else METHODS
    lines = [
        f"Distance to the ODE's trajectory after the time of {STEPS} steps of the classic, on the tanh network, as its "
        "step is divided by 1, 2, 4, ...; the slope is that of the last three halvings. It is 1 where the field is "
        "smooth. RMSProp and AdaGrad started from (almost) no memory begin with theta' ~ 1/sqrt(t), which Euler "
        "follows to order 1/2 only, for AdaGrad until one step no longer outgrows its initial scale; "
        "Lion and sign descent jump where a sign changes, to order 1 on average.",
        "",
        "| method | error at the classic's step | at the shortest | slope |",
        "|---|---|---|---|",
    ]
    figure, axes = plt.subplots(figsize=(7.5, 5.5), layout="constrained")
    for i, (name, method) in enumerate(tqdm(methods.items(), disable=not progress, desc="orders")):
        errors = errors_of(method, divisors)
        slope = -np.polyfit(np.log(divisors[-4:]), np.log(errors[-4:]), 1)[0]
        lines.append(f"| {name} | {errors[0]:.1e} | {errors[-1]:.1e} | {slope:.2f} |")
        axes.loglog(
            1 / divisors,
            errors,
            color=COLOURS[i % len(COLOURS)],
            marker="osD"[i // len(COLOURS)],
            markersize=4,
            linewidth=1.2,
            label=f"{name}: {slope:.2f}",
        )
    guide = np.array([1 / divisors[-1], 1.0])
    axes.loglog(guide, 0.5 * guide, "k--", linewidth=1, label="slope 1")
    axes.set_xlabel("step / step of the classic")
    axes.set_ylabel("distance to the ODE [params]")
    axes.set_title("The classics on their way to their flows (slopes in the legend)")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    report.save_figure(figure, out / "classics.png")
    plt.close(figure)
    return [*lines, "", "![distance to the ODE against the step](classics.png)"]


def errors_of(method: fo.Method, divisors: np.ndarray) -> np.ndarray:
    """|theta - theta_ODE|_2 after `STEPS` of the method's own steps, for that step divided by each of `divisors`."""
    rng = np.random.default_rng(3)
    start = {k: jnp.asarray(0.5 * rng.normal(size=s)) for k, s in _shapes().items()}
    assert method.step is not None
    h = float(method.step)
    term = fo.FlowTerm(method.flow, tanh_network)

    @jax.jit
    def exact():
        solution = diffrax.diffeqsolve(
            term,
            diffrax.Tsit5(),
            0.0,
            STEPS * h,
            None,
            term.init(start),
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-12),
            max_steps=2**16,
        )
        ys: Any = solution.ys
        return ys.params

    reference = jtu.tree_map(lambda x: x[0], exact())

    @jax.jit
    def discrete(step: Any, steps: Any):
        shorter = fo.Method(method.flow, method.solver, step=step)
        stepper = make_stepper(tanh_network, start, shorter, None, 1e-300, None, None)
        advance = lambda _, s: stepper.advance(s, (Evaluations(), Evaluations()))
        return jax.lax.fori_loop(0, steps, advance, stepper.start(start)).params

    errors = []
    for divisor in divisors:
        end = discrete(jnp.asarray(h / divisor), int(STEPS * divisor))
        errors.append(jnp.sqrt(sum_squares(jtu.tree_map(jnp.subtract, end, reference))))
    return np.asarray(errors)


def _shapes() -> dict[str, tuple[int, ...]]:
    return dict(w1=(4,), b1=(4,), w2=(4,), b2=())
