"""The methods that choose their own steps: by an error estimate, or by the flow's energy."""

import diffrax

from flowopt import controllers, flows, solvers
from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_positive
from flowopt.methods.method import Method, check_step
from flowopt.tree import two_norm


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
        rtol=0, atol=tol, norm=two_norm, safety=0.9, factormin=0, factormax=float("inf")
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

    Defaults: the gradient flow, staggered Euler, and the integral law on the energy error, aimed at half of
    what the guard would bear: closer to the edge, more steps are refused than longer steps save. A step is at
    most twice the one before: a heavy ball at rest has promised nothing yet, so that its step grows freely,
    and growing tenfold it passed the barrier around a minimum that it had started next to. `step` is only
    the first to be tried. Raises ValueError for a flow without energy.
    """
    flow = flows.Gradient() if flow is None else flow
    solver = solvers.StaggeredEuler() if solver is None else solver
    if controller is None:
        controller = controllers.IntegralController(safety=0.5, factormax=2.0)
    return Method(flow, solvers.EnergyGuard(solver, lam=lam), controller, step=step)


def energy_momentum(
    b: float = 2.0,
    lam: float | None = None,
    *,
    shrink: float = 2.0,
    grow: float = 10_000.0,
    step: float = 0.1,
) -> Method:
    """Momentum that decreases its energy, as the source document's authors define it.

    v <- (1 - b h) v + h grad R,  theta <- theta - h v,  with h <= 1/b the first of h, h/shrink, ... for which
    E = R + |v|^2/2 changes by at most -lam b h |v|^2, v the new one; then h <- grow h. lam = 1/(4 b) by default.

    The heavy ball with friction b, its v reversed, under staggered Euler, guarded at the staggered point.
    """
    check_positive(b=b, step=step)
    return _published(
        flows.HeavyBall(b), b, 1 / (4 * b) if lam is None else lam, shrink, grow, step
    )


def energy_rmsprop(
    b: float = 10.0,
    eps: float = 0.1,
    lam: float = 0.5,
    *,
    shrink: float = 2.0,
    grow: float = 10_000.0,
    step: float = 0.1,
) -> Method:
    """RMSProp that decreases the loss, as the source document's authors define it.

    s <- (1 - b h) s + b h g^2,  u = g/(sqrt(s) + eps),  theta <- theta - h u,  with h <= 1/b the first of h,
    h/shrink, ... for which R changes by at most -lam h <g, u>; then h <- grow h.

    RMSProp's flow with tau = 1/b under staggered Euler, guarded at the staggered point.
    """
    check_positive(b=b, eps=eps, step=step)
    return _published(flows.RMSProp(1 / b, eps), b, lam, shrink, grow, step)


def _published(
    flow: AbstractFlow, b: float, lam: float, shrink: float, grow: float, step: float
) -> Method:
    guard = solvers.EnergyGuard(solvers.StaggeredEuler(), lam=lam, promise="staggered")
    law = controllers.Backtracking(shrink=shrink, grow=grow, dtmax=1 / b)
    return Method(flow, guard, law, step=min(step, 1 / b))
