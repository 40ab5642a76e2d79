"""The named methods: points in flow x solver x controller."""

import diffrax
import equinox as eqx
import optimistix as optx

from flowopt import controllers, flows, solvers
from flowopt.flows.flow import AbstractFlow, has_energy
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
        adaptive = isinstance(self.controller, diffrax.AbstractAdaptiveStepSizeController)
        if self.step is None and not adaptive:
            raise ValueError(
                f"`step` is needed: {type(self.controller).__name__} cannot choose the first step; "
                "give one > 0"
            )
        guarded = isinstance(self.solver, solvers.EnergyGuard)
        wants_error = adaptive or isinstance(self.controller, controllers.Backtracking)
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
        if guarded and adaptive and not _unscaled(self.controller):
            raise ValueError(
                "`controller`: the error of an EnergyGuard is already scaled, so "
                f"{type(self.controller).__name__} needs rtol=0 and atol=1 beside it; tolerances on the "
                "inner solver's error go to EnergyGuard(solver, rtol=..., atol=...)"
            )


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


def _decay(beta: float, name: str) -> None:
    if not 0 <= beta < 1:
        raise ValueError(f"`{name}` must lie in [0, 1); got {beta}")


def gd(lr: float) -> Method:
    """Gradient descent, theta <- theta - lr grad R: Euler on the gradient flow with h = lr [params^2/loss]."""
    check_step(lr, "lr")
    return Method(flows.Gradient(), diffrax.Euler(), step=lr)


def momentum(lr: float, beta: float = 0.9) -> Method:
    """Gradient descent with momentum, m <- beta m + grad R, theta <- theta - lr m.   [Polyak 1964]

    Staggered Euler on the heavy ball with h = sqrt(lr) and friction (1 - beta)/h, where v = -h m.
    """
    check_step(lr, "lr")
    _decay(beta, "beta")
    h = lr**0.5
    return Method(flows.HeavyBall((1 - beta) / h), solvers.StaggeredEuler(), step=h)


def adam(
    lr: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    bias_correction: bool = True,
) -> Method:
    """Adam [Kingma and Ba 2015]: staggered Euler on Adam's flow with h = lr and tau = lr/(1 - b).

    `bias_correction=False` leaves the averages as they are, started from 0.
    """
    check_step(lr, "lr")
    _decay(b1, "b1")
    _decay(b2, "b2")
    flow = flows.Adam if bias_correction else flows.UncorrectedAdam
    return Method(flow(lr / (1 - b1), lr / (1 - b2), eps), solvers.StaggeredEuler(), step=lr)


def euler_richardson(tol: float = 1e-2, step: float = 0.1) -> Method:
    """Adaptive gradient descent: the Euler-Richardson pair on the gradient flow, each error kept below `tol`.

    The 2-norm of the error estimate [params] is held below `tol` by an `IntegralController` with safety 0.9
    and no bound on the change of step. `tol` is absolute, so near a minimum nothing holds h back but
    instability: the iterates hover where the estimate is about `tol`, and the gradient need not
    fall below a small tolerance. `lyapunov(solver=EulerRichardson())` guards it by energy, and converges.
    """
    return _embedded(solvers.EulerRichardson(), tol, step)


def extragradient(tol: float = 1e-2, step: float = 0.1) -> Method:
    """As `euler_richardson`, with the Extragradient pair: the variant behind the published shares."""
    return _embedded(solvers.Extragradient(), tol, step)


def _embedded(solver: diffrax.AbstractSolver, tol: float, step: float) -> Method:
    check_step(tol, "tol")
    controller = controllers.IntegralController(
        rtol=0, atol=tol, norm=optx.two_norm, safety=0.9, factormin=0, factormax=float("inf")
    )
    return Method(flows.Gradient(), solver, controller, step=step)


def lyapunov(
    flow: AbstractFlow | None = None,
    solver: diffrax.AbstractSolver | None = None,
    controller: diffrax.AbstractStepSizeController | None = None,
    *,
    lam: float = 0.5,
    step: float = 0.1,
) -> Method:
    """Energy-stable descent: `solver` on `flow`, guarded by the flow's own energy; no learning rate to choose.

    Defaults: the gradient flow, staggered Euler, and the integral law on the
    energy error. `step` is only the first to be tried. Raises ValueError for a flow without energy.
    """
    flow = flows.Gradient() if flow is None else flow
    solver = solvers.StaggeredEuler() if solver is None else solver
    controller = controllers.IntegralController() if controller is None else controller
    return Method(flow, solvers.EnergyGuard(solver, lam=lam), controller, step=step)
