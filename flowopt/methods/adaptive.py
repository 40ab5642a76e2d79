"""The methods that choose their own steps: by an error estimate, or by the flow's energy."""

import diffrax
import optimistix as optx

from flowopt import controllers, flows, solvers
from flowopt.flows.flow import AbstractFlow
from flowopt.methods.method import Method, check_step


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
