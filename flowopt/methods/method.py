"""A method: a flow, a solver and a controller that work together."""

import inspect
from typing import Any

import diffrax
import equinox as eqx

from flowopt import controllers, solvers
from flowopt.flows.flow import AbstractFlow, has_energy
from flowopt.flows.gradient import Gradient
from flowopt.solvers.native import estimates_error


class Method(eqx.Module):
    """An optimizer: `flow` integrated by `solver` with steps chosen by `controller`, the first of length `step`.

    Swap any of the three: `Method(flow, diffrax.Tsit5(), diffrax.PIDController(rtol=1e-3, atol=1e-6), step=0.1)`.
    Raises TypeError or ValueError, naming the argument, for parts that cannot work together.
    """

    flow: AbstractFlow
    """The ODE."""
    solver: diffrax.AbstractSolver
    """How one step is made: any Diffrax solver of ODEs, or one of `flowopt.solvers`."""
    controller: diffrax.AbstractStepSizeController = diffrax.ConstantStepSize()
    """How long the next step is, and whether this one stands."""
    step: float | None = None
    """The first step [time]; None lets a controller choose that can."""

    def __check_init__(self):
        for name, value, kind in (
            ("flow", self.flow, AbstractFlow),
            ("solver", self.solver, diffrax.AbstractSolver),
            ("controller", self.controller, diffrax.AbstractStepSizeController),
        ):
            if not isinstance(value, kind):
                raise TypeError(
                    f"`{name}` must be an instance of {kind.__name__}; got {value!r}"
                    + (" (the class: call it)" if isinstance(value, type) else "")
                )
        check_step(self.step)
        _check_one_term(self.flow, self.solver)
        if isinstance(self.controller, diffrax.StepTo | diffrax.ClipStepSizeController):
            raise ValueError(
                f"`controller`: {type(self.controller).__name__} goes by the time, and a run has none: every "
                "step is integrated on [0, h]; use one that goes by steps, such as diffrax.PIDController(...)"
            )
        adaptive = isinstance(self.controller, diffrax.AbstractAdaptiveStepSizeController)
        if self.step is None and not adaptive:
            raise ValueError(
                f"`step` is needed: {type(self.controller).__name__} cannot choose the first step; "
                "give one > 0"
            )
        if getattr(self.controller, "wants_gain", False) and not hasattr(
            self.solver, "report_gain"
        ):
            raise ValueError(
                f"`controller`: {type(self.controller).__name__} judges a step by what its quadratic model "
                f"promised, and {type(self.solver).__name__} has none; use flowopt.RosenbrockEuler(), not wrapped"
            )
        if hasattr(self.solver, "report_gain") and not isinstance(self.flow, Gradient):
            raise ValueError(
                f"`solver`: RosenbrockEuler linearises the gradient flow; got {type(self.flow).__name__}. Newton's, "
                "Gauss-Newton's and Levenberg-Marquardt's own flows go with diffrax.Euler()"
            )
        guarded = isinstance(self.solver, solvers.EnergyGuard)
        laws = controllers.Backtracking | controllers.LogBisection
        wants_error = adaptive or isinstance(self.controller, laws)
        if wants_error and not estimates_error(self.solver):
            raise ValueError(
                f"`controller`: {type(self.controller).__name__} judges a step by its error, and "
                f"{type(self.solver).__name__} estimates none; wrap it in flowopt.EnergyGuard, or use "
                "an embedded pair such as flowopt.EulerRichardson() or diffrax.Heun()"
            )
        if guarded and not has_energy(self.flow):
            raise ValueError(
                f"`flow`: {type(self.flow).__name__} defines no energy to guard; give it an `energy` method"
            )
        if guarded and isinstance(self.controller, diffrax.ConstantStepSize):
            raise ValueError(
                "`controller`: a constant step keeps every step, so the guard would have no say; use "
                "flowopt.IntegralController() or flowopt.Backtracking()"
            )
        scaled = guarded or hasattr(self.solver, "report_gain")
        if scaled and adaptive and not _unscaled(self.controller):
            raise ValueError(
                f"`controller`: the error of {type(self.solver).__name__} is already scaled, so "
                f"{type(self.controller).__name__} needs rtol=0 and atol=1 beside it; tolerances on the "
                "inner solver's error go to EnergyGuard(solver, rtol=..., atol=...)"
            )

    def __str__(self) -> str:
        """The equation, the solver, the controller and the first step, a line each."""
        controller = _brief(self.controller)
        step = "chosen by the controller" if self.step is None else f"{_number(self.step)}"
        return (
            f"{_equation(self.flow)}\n"
            f"  flow        {_brief(self.flow)}\n"
            f"  solver      {_brief(self.solver)}\n"
            f"  controller  {controller}, "
            + ("h" if isinstance(self.controller, diffrax.ConstantStepSize) else "first h")
            + f" = {step}"
        )


def _check_one_term(flow: AbstractFlow, solver: Any) -> None:
    """Raises ValueError for a solver, or one inside it, of something other than one autonomous ODE."""
    if isinstance(solver, diffrax.SemiImplicitEuler):
        if type(flow).memory_field is AbstractFlow.memory_field:
            raise ValueError(
                f"`solver`: SemiImplicitEuler steps two parts of the state in turn, and {type(flow).__name__} has no "
                "memory; use diffrax.Euler()"
            )
    elif solver.term_structure is not diffrax.AbstractTerm:
        raise ValueError(
            f"`solver`: {type(solver).__name__} is for an ODE split into several terms, or one with noise, and a flow "
            "is one term; use a solver of one ODE, such as diffrax.Tsit5() or diffrax.Kvaerno5()"
        )
    inner = getattr(solver, "solver", None)
    if isinstance(inner, diffrax.AbstractSolver):
        _check_one_term(flow, inner)


def _equation(flow: AbstractFlow) -> str:
    """The first paragraph of the flow's docstring, which by custom is its equation; for one on top of another, both."""
    text = (inspect.getdoc(type(flow)) or type(flow).__name__).split("\n\n")[0]
    inner = getattr(flow, "flow", None)
    if isinstance(inner, AbstractFlow):
        text += f"\n  with f from\n{_equation(inner)}"
    return text


def _number(x: Any) -> str:
    return f"{x:.6g}" if isinstance(x, float) else str(x)


def _brief(part: Any) -> str:
    """A module with the fields that are not at their defaults, in one line."""
    shown = []
    for field in getattr(part, "__dataclass_fields__", {}).values():
        value = getattr(part, field.name, None)
        if field.name == "term_compatible_contr_kwargs" or value is field.default:
            continue
        if isinstance(value, bool | str | float | int | type(None)):
            if value != field.default:
                text = _number(value)
            else:
                continue
        elif isinstance(value, eqx.Module):
            text = _brief(value)
        elif eqx.is_array_like(value):
            text = _number(value)
        else:
            text = getattr(value, "__name__", repr(value))
        shown.append(f"{field.name}={text}")
    return f"{type(part).__name__}({', '.join(shown)})"


def check_step(step: float | None, name: str = "step") -> None:
    """Raises unless `step` is None, traced, or a finite number > 0."""
    if isinstance(step, bool) or not (
        step is None or isinstance(step, float | int) or eqx.is_array_like(step)
    ):
        raise TypeError(f"`{name}` must be a number > 0; got {step!r}")
    if isinstance(step, float | int) and not 0 < step < float("inf"):
        raise ValueError(f"`{name}` must be finite and > 0; got {step}")


def _unscaled(controller: diffrax.AbstractStepSizeController) -> bool:
    return getattr(controller, "rtol", None) == 0 and getattr(controller, "atol", None) == 1
