"""The named methods that need gradients alone. Names and order of arguments are optax's.

Every `lr` may be a number or a schedule: any function of the step count (see `flows.Scheduled`).
"""

import diffrax

from flowopt import flows, solvers
from flowopt.methods.learning_rate import (
    LearningRate,
    check_decay,
    staggered,
    staggered_second_order,
)
from flowopt.methods.method import Method, check_step


def gd(lr: LearningRate) -> Method:
    """Gradient descent, theta <- theta - lr grad R: Euler on the gradient flow with h = lr [params^2/loss]."""
    if callable(lr):
        return staggered(lambda h: flows.Gradient(), lr)
    check_step(lr, "lr")
    return Method(flows.Gradient(), diffrax.Euler(), step=lr)


def sign_gd(lr: LearningRate) -> Method:
    """Sign descent, theta <- theta - lr sign(grad R): Euler on the sign flow with h = lr [params]."""
    return staggered(lambda h: flows.Sign(), lr)


def momentum(lr: LearningRate, beta: float = 0.9) -> Method:
    """Gradient descent with momentum, m <- beta m + grad R, theta <- theta - lr m.   [Polyak 1964]

    Staggered Euler on the heavy ball with h = sqrt(lr) and friction (1 - beta)/h, where v = -h m.
    """
    check_decay(beta=beta)
    return staggered_second_order(lambda h: flows.HeavyBall((1 - beta) / h), lr)


def nesterov(lr: LearningRate, beta: float = 0.9) -> Method:
    """Nesterov's momentum, m <- beta m + grad R, theta <- theta - lr (beta m + grad R).   [Nesterov 1983]

    Staggered Euler on the Nesterov flow with h = sqrt(lr), friction (1 - beta)/h and a look-ahead of h.
    """
    check_decay(beta=beta)
    return staggered_second_order(lambda h: flows.Nesterov((1 - beta) / h, h), lr)


def fading_nesterov(lr: LearningRate, r: float = 3.0) -> Method:
    """Nesterov's method for convex R, with decay (k - 1)/(k + r - 1) at step k = 0, 1, ...   [Nesterov 1983]

    Staggered Euler on the flow of Su, Boyd and Candes with h = sqrt(lr) and a look-ahead of h.
    """
    return staggered_second_order(lambda h: flows.FadingNesterov(r, h), lr)


def inna(lr: float, alpha: float = 0.5, beta: float = 0.1) -> Method:
    """INNA [Castera et al. 2021]: Euler on the flow with Hessian-driven damping, h = lr [time]."""
    if callable(lr):
        return Method(
            flows.Scheduled(flows.HessianDamping(alpha, beta), lr),
            solvers.StaggeredEuler(),
            step=1.0,
        )
    check_step(lr, "lr")
    return Method(flows.HessianDamping(alpha, beta), diffrax.Euler(), step=lr)


def adagrad(lr: LearningRate, initial_accumulator_value: float = 0.1, eps: float = 1e-7) -> Method:
    """AdaGrad, s <- s + g^2, theta <- theta - lr g/sqrt(s + eps).   [Duchi, Hazan and Singer 2011]

    Staggered Euler on AdaGrad's flow with h = tau = lr.
    """
    return staggered(lambda h: flows.AdaGrad(h, 0.0, eps, initial_accumulator_value), lr)


def rmsprop(
    lr: LearningRate,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> Method:
    """RMSProp, s <- decay s + (1 - decay) g^2, theta <- theta - lr g/sqrt(s + eps).   [Tieleman and Hinton 2012]

    Staggered Euler on RMSProp's flow with h = lr and tau = lr/(1 - decay); `momentum` is the decay of a momentum
    on top, with h = sqrt(lr). `centered` divides by the scatter of g; `eps_in_sqrt=False` by sqrt(s) + eps.
    """
    check_decay(decay=decay)
    roots = (0.0, eps) if eps_in_sqrt else (eps, 0.0)

    def flow(h):
        return flows.RMSProp(h / (1 - decay), *roots, initial_scale, centered, bias_correction)

    if momentum is None:
        if nesterov:
            raise ValueError("`nesterov` needs a `momentum`, such as 0.9")
        return staggered(flow, lr)
    check_decay(momentum=momentum)

    def carried(driver, h):
        return flows.Momentum(driver, (1 - momentum) / h, h if nesterov else 0.0)

    if callable(lr):
        # The schedule scales what enters the momentum, not what comes out: as in optax.
        driver = flows.Scheduled(flow(1.0), lr)
        return Method(carried(driver, 1.0), solvers.StaggeredEuler(), step=1.0)
    return staggered_second_order(lambda h: carried(flow(h), h), lr)


def adam(
    lr: LearningRate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    *,
    bias_correction: bool = True,
) -> Method:
    """Adam [Kingma and Ba 2015]: staggered Euler on Adam's flow with h = lr and tau = lr/(1 - b).

    `bias_correction=False` leaves the averages as they are, started from 0.
    """
    check_decay(b1=b1, b2=b2)
    if bias_correction:
        return staggered(lambda h: flows.Adam(h / (1 - b1), h / (1 - b2), eps, eps_root), lr)
    if eps_root != 0:
        raise ValueError("`eps_root` must be 0 where `bias_correction` is False")
    return staggered(lambda h: flows.UncorrectedAdam(h / (1 - b1), h / (1 - b2), eps), lr)


def adamw(
    lr: LearningRate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    *,
    weight_decay: float = 1e-4,
) -> Method:
    """Adam with decoupled weight decay [Loshchilov and Hutter 2019], as `adam` with - weight_decay theta in theta'."""
    check_decay(b1=b1, b2=b2)
    return staggered(
        lambda h: flows.AdamW(h / (1 - b1), h / (1 - b2), eps, eps_root, weight_decay), lr
    )


def nadam(
    lr: LearningRate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Method:
    """NAdam [Dozat 2016]: staggered Euler on NAdam's flow with h = lookahead = lr and tau = lr/(1 - b)."""
    check_decay(b1=b1, b2=b2)
    return staggered(lambda h: flows.NAdam(h / (1 - b1), h / (1 - b2), h, eps, eps_root), lr)


def adamax(lr: LearningRate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Method:
    """AdaMax [Kingma and Ba 2015]: staggered Euler on AdaMax's flow with h = tau3 = lr and tau = lr/(1 - b)."""
    check_decay(b1=b1, b2=b2)
    return staggered(lambda h: flows.AdaMax(h / (1 - b1), h / (1 - b2), h, eps), lr)


def adabelief(
    lr: LearningRate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
) -> Method:
    """AdaBelief [Zhuang et al. 2020]: staggered Euler on AdaBelief's flow with h = lr and tau = lr/(1 - b)."""
    check_decay(b1=b1, b2=b2)
    floor = eps_root / (1 - b2)
    return staggered(lambda h: flows.AdaBelief(h / (1 - b1), h / (1 - b2), eps, floor), lr)


def amsgrad(
    lr: LearningRate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Method:
    """AMSGrad [Reddi et al. 2018]: staggered Euler on AMSGrad's flow with h = tau3 = lr and tau = lr/(1 - b)."""
    check_decay(b1=b1, b2=b2)
    return staggered(lambda h: flows.AMSGrad(h / (1 - b1), h / (1 - b2), h, eps, eps_root), lr)


def lion(
    lr: LearningRate, b1: float = 0.9, b2: float = 0.99, *, weight_decay: float = 1e-3
) -> Method:
    """Lion [Chen et al. 2023]: staggered Euler on Lion's flow with h = lr, tau = lr/(1 - b2) and a = b1/b2."""
    check_decay(b1=b1, b2=b2)
    if isinstance(b2, float | int) and not b2 > 0:
        raise ValueError(f"`b2` must lie in (0, 1), or the momentum remembers nothing; got {b2}")
    return staggered(lambda h: flows.Lion(h / (1 - b2), b1 / b2, weight_decay), lr)
