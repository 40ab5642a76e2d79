"""The named methods that use Hessians or Jacobians, and the implicit one."""

import diffrax
import optimistix as optx

from flowopt import controllers, flows, solvers
from flowopt.flows.numbers import check_positive
from flowopt.methods.method import Method, check_step


def newton(step: float = 1.0) -> Method:
    """Newton's method, theta <- theta - step H^-1 grad R: Euler on Newton's flow. It seeks any critical point."""
    check_step(step)
    return Method(flows.Newton(), diffrax.Euler(), step=step)


def damped_newton(mu: float, step: float = 1.0) -> Method:
    """Newton's method with the Hessian shifted by mu, theta <- theta - step (H + mu I)^-1 grad R."""
    check_positive(mu=mu)
    check_step(step)
    return Method(flows.DampedNewton(mu), diffrax.Euler(), step=step)


def gauss_newton(step: float = 1.0) -> Method:
    """Gauss-Newton, theta <- theta - step J^+ r: Euler on its flow. For `least_squares`."""
    check_step(step)
    return Method(flows.GaussNewton(), diffrax.Euler(), step=step)


def levenberg_marquardt(
    mu: float = 1.0,
    rule: controllers.AbstractRule | None = None,
    *,
    scaling: str = "none",
    geodesic: float = 0.0,
) -> Method:
    """Levenberg-Marquardt: Rosenbrock-Euler on the gradient flow with J'J, h = 1/mu. For `least_squares`.

    `mu` is only the first [loss/params^2]. `rule` is how it goes on, by default Nielsen's; see
    `flowopt.controllers` for those of Marquardt, Fletcher, Moré and Transtrum and Sethna. `scaling` and `geodesic`:
    see `RosenbrockEuler`; with a scaling, mu is in units of the scaled J'J, whose diagonal is 1. For one
    fixed mu, use Euler on `flows.LevenbergMarquardt(mu)`.

    The defaults are the middle of a plateau, measured on the ten problems of More, Garbow and Hillstrom from the
    standard start and ten times it: in the plain metric all 20 runs find a published minimum from mu = 0.1, 1, 10 and
    100, with 1,764 to 1,930 residual evaluations in all. Moré's scaling with mu = 1e-3, 1e-2 and 1 takes 2,068 to 2,106
    and always misses one (Box from ten times its start); with mu = 1e-6 it takes 1,022, for one lucky run on Meyer's
    problem. Below mu = 0.1 the plain metric misses Meyer's or Kowalik and Osborne's.
    """
    check_positive(mu=mu)
    rule = controllers.Nielsen() if rule is None else rule
    solver = solvers.RosenbrockEuler("gauss_newton", scaling, geodesic)  # pyright: ignore[reportArgumentType]
    return Method(flows.Gradient(), solver, controllers.GainRatio(rule), step=1 / mu)


def proximal_point(lr: float, *, rtol: float = 1e-10, atol: float = 1e-10) -> Method:
    """The proximal point method, theta <- argmin R + |. - theta|^2/(2 lr): implicit Euler on the gradient flow, h = lr.

    Each step is solved by Newton's method on theta1 + lr grad R(theta1) = theta, to the tolerances
    `rtol` and `atol` [params] (take larger ones in float32); where that fails within 50 iterations the run
    ends as diverged. [Martinet 1970; Rockafellar 1976]
    """
    check_step(lr, "lr")
    check_positive(rtol=rtol, atol=atol)
    solver = diffrax.ImplicitEuler(
        root_finder=optx.Newton(rtol=rtol, atol=atol), root_find_max_steps=50
    )
    return Method(flows.Gradient(), solver, step=lr)
