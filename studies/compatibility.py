"""Which flow x solver x controller combinations run, found by trying; and why the others do not."""

import pathlib
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import optimistix as optx

import flowopt as fo
from flowopt.objective import Evaluations
from flowopt.run.step import make_stepper

F = fo.flows
FLOWS: tuple[fo.AbstractFlow, ...] = (
    F.Gradient(),
    F.PGradient(3.0),
    F.Normalised(),
    F.Clipped(1.0),
    F.Sign(),
    F.HeavyBall(1.0),
    F.Nesterov(1.0, 0.1),
    F.FadingNesterov(),
    F.HessianDamping(),
    F.AdaGrad(1.0),
    F.RMSProp(1.0),
    F.Adam(1.0, 1.0),
    F.UncorrectedAdam(1.0, 1.0),
    F.AdamW(1.0, 1.0),
    F.NAdam(1.0, 1.0, 0.1),
    F.AMSGrad(1.0, 1.0, 0.1),
    F.AdaMax(1.0, 1.0, 0.1),
    F.AdaBelief(1.0, 1.0),
    F.Lion(1.0, 0.9),
    F.Momentum(F.RMSProp(1.0), 1.0),
    F.Scheduled(F.Adam(1.0, 1.0), lambda n: 1 / (1 + n)),
    F.Newton(),
    F.DampedNewton(1.0),
    F.GaussNewton(),
    F.LevenbergMarquardt(1.0),
)

_newton = lambda: optx.Newton(rtol=1e-6, atol=1e-6)
SOLVERS: dict[str, diffrax.AbstractSolver] = {
    "Euler": diffrax.Euler(),
    "StaggeredEuler": fo.StaggeredEuler(),
    "SemiImplicitEuler": diffrax.SemiImplicitEuler(),
    "LeapfrogMidpoint": diffrax.LeapfrogMidpoint(),
    "Heun": diffrax.Heun(),
    "EulerRichardson": fo.EulerRichardson(),
    "Tsit5": diffrax.Tsit5(),
    "ReversibleHeun": diffrax.ReversibleHeun(),
    "ImplicitEuler": diffrax.ImplicitEuler(root_finder=_newton()),
    "Kvaerno3": diffrax.Kvaerno3(root_finder=_newton()),
    "KenCarp3": diffrax.KenCarp3(),
    "EulerHeun": diffrax.EulerHeun(),
    "RosenbrockEuler": fo.RosenbrockEuler(),
    "EnergyGuard(Euler)": fo.EnergyGuard(diffrax.Euler()),
    "EnergyGuard(StaggeredEuler)": fo.EnergyGuard(fo.StaggeredEuler()),
    "EnergyGuard(Tsit5)": fo.EnergyGuard(diffrax.Tsit5()),
    "EnergyGuard(RosenbrockEuler)": fo.EnergyGuard(fo.RosenbrockEuler()),
}

CONTROLLERS: dict[str, tuple[str, diffrax.AbstractStepSizeController]] = {
    "C": ("diffrax.ConstantStepSize()", diffrax.ConstantStepSize()),
    "P": ("diffrax.PIDController", diffrax.PIDController(rtol=0, atol=1)),
    "I": ("flowopt.IntegralController", fo.IntegralController()),
    "B": ("flowopt.Backtracking", fo.Backtracking()),
    "L": ("flowopt.LogBisection", fo.LogBisection()),
    "G": ("flowopt.GainRatio", fo.GainRatio()),
}


@jax.jit  # traced once, and not again for each of 500 steps
def _residuals(x: Any, args: Any) -> Any:
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0], 0.1 * x[0]])


def attempt(
    flow: fo.AbstractFlow, solver: diffrax.AbstractSolver, controller: Any, trace: bool = True
) -> str | None:
    """None if a step of this combination can be made, else the error."""
    try:
        method = fo.Method(flow, solver, controller, step=0.1)
        if trace:
            start = jnp.array([-1.2, 1.0])
            stepper = make_stepper(
                fo.SumOfSquares(_residuals), start, method, None, 1e-6, None, None
            )
            step = lambda x: stepper.advance(stepper.start(x), (Evaluations(), Evaluations()))
            jax.eval_shape(step, start)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def combinations(report: Callable[[str], None] = lambda name: None) -> dict[tuple[str, str], str]:
    """(flow, solver): the letters of the controllers with which they run.

    Every combination is made a `Method`; one step of each flow with each solver is traced (with the first
    controller that the `Method` takes), and of each solver with each controller.
    """
    out = {}
    for flow in FLOWS:
        name = type(flow).__name__
        report(name)
        for label, solver in SOLVERS.items():
            letters, traced = "", False
            for letter, (_, controller) in CONTROLLERS.items():
                trace = not traced or name == "Gradient"
                if attempt(flow, solver, controller, trace) is None:
                    letters, traced = letters + letter, True
            out[name, label] = letters
    return out


def render() -> str:
    """The table in Markdown, and the reasons why what does not run does not."""
    found = combinations()
    names = [type(flow).__name__ for flow in FLOWS]
    lines = [
        "Every flow with every solver: the controllers with which they run, "
        + ", ".join(f"**{k}** `{name}`" for k, (name, _) in CONTROLLERS.items())
        + ". A dash: none; the error says why, as below. Any other Diffrax solver of one ODE behaves as those here: "
        "explicit like `Heun` and `Tsit5`, implicit like `ImplicitEuler` and `Kvaerno3`, of split or noisy "
        "equations like `KenCarp3` and `EulerHeun`.",
        "",
        "| flow | " + " | ".join(SOLVERS) + " |",
        "|---|" + "---|" * len(SOLVERS),
    ]
    for name in names:
        cells = [found[name, label] or "–" for label in SOLVERS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Why the others do not run:", ""]
    reasons: dict[str, str] = {}
    for flow in FLOWS:
        for label, solver in SOLVERS.items():
            for letter, (_, controller) in CONTROLLERS.items():
                if letter not in found[type(flow).__name__, label]:
                    error = attempt(flow, solver, controller, trace=False)
                    error = error or attempt(flow, solver, controller) or ""
                    reasons.setdefault(
                        _kind(error), f"{type(flow).__name__} x {label} x {letter}: {error}"
                    )
    lines += [f"- {text}" for text in reasons.values()]
    return "\n".join(lines) + "\n"


def _kind(error: str) -> str:
    """The error without the names in it."""
    return " ".join(word for word in error.split() if word.islower())[:60]


BEGIN, END = "<!-- compatibility -->", "<!-- /compatibility -->"


def between(text: str) -> str:
    """What stands between the markers."""
    return text.split(BEGIN, 1)[1].split(END, 1)[0].strip() + "\n"


def replaced(text: str, table: str) -> str:
    """`text` with `table` between the markers."""
    head, rest = text.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{table}{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    readme = pathlib.Path("README.md")
    readme.write_text(replaced(readme.read_text(), render()))
