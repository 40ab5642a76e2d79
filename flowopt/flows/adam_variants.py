"""AdamW and NAdam: Adam with decoupled weight decay, and with Nesterov's look-ahead."""

import jax.numpy as jnp
import jax.tree_util as jtu

from flowopt.flows.adam import Adam, corrected_field, no_moments, scale
from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative, check_positive, quotient


class AdamW(AbstractFlow):
    """As `Adam`, and theta' = -(m/c1)/D - lambda theta.   [Loshchilov and Hutter 2019]

    No `energy`: none is known for lambda > 0. (The decay is not in the gradient, so the flow does not come to rest
    at a critical point of R + lambda |theta|^2/2, nor of R.) At lambda = 0 it is Adam, which has one.

    Staggered Euler with step h is AdamW with learning rate h, decays 1 - h/tau and weight decay
    lambda. Units as in `Adam`: time is in params, so lambda is in 1/params.
    """

    tau1: float
    """Time constant of the first moment [time]."""
    tau2: float
    """Time constant of the second moment [time]."""
    eps: float = 1e-8
    """Floor of the scale [loss/params]."""
    eps_root: float = 0.0
    """Floor under the root, >= 0 [loss^2/params^2]."""
    weight_decay: float = 1e-4
    """lambda >= 0 [1/time]."""

    def __check_init__(self):
        check_positive(tau1=self.tau1, tau2=self.tau2, eps=self.eps)
        check_not_negative(eps_root=self.eps_root, weight_decay=self.weight_decay)

    def init(self, params):
        return no_moments(params)

    def memory_field(self, params, memory, at):
        return corrected_field(memory, at.grad, self.tau1, self.tau2)

    def params_field(self, params, memory, at):
        adam = Adam(self.tau1, self.tau2, self.eps, self.eps_root)
        velocity = adam.params_field(params, memory, at)
        return jtu.tree_map(lambda v, x: v - self.weight_decay * x, velocity, params)


class NAdam(AbstractFlow):
    """m, s, c1, c2 as in `Adam`,  theta' = -((1 - k) m/c+ + k g/max(c1, k))/D,  c+ = c1 + k (1 - c1),  k = s/tau1.

    The first moment is looked ahead by the time s (`lookahead`): after one Euler step of that length under the
    same gradient it would be (1 - k) m + k g, filled to c+. Euler has c1 >= k from its first step on; the max
    says so for every solver, else g/c1 would drive theta infinitely far as t -> 0.   [Dozat 2016]

    No `energy`: none is known. D and the limits at t = 0 as in `Adam`. Staggered Euler with step h = s is NAdam with
    learning rate h and decays 1 - h/tau (`optax.nadam`). Units as in `Adam`.
    """

    tau1: float
    """Time constant of the first moment [time]."""
    tau2: float
    """Time constant of the second moment [time]."""
    lookahead: float
    """s in (0, tau1] [time]."""
    eps: float = 1e-8
    """Floor of the scale [loss/params]."""
    eps_root: float = 0.0
    """Floor under the root, >= 0 [loss^2/params^2]."""

    def __check_init__(self):
        check_positive(tau1=self.tau1, tau2=self.tau2, lookahead=self.lookahead, eps=self.eps)
        check_not_negative(eps_root=self.eps_root)
        numbers = isinstance(self.lookahead, float | int) and isinstance(self.tau1, float | int)
        # A decay of 0 makes them equal up to rounding.
        if numbers and self.lookahead > self.tau1 * (1 + 1e-12):
            raise ValueError(f"`lookahead` must be <= tau1 = {self.tau1}; got {self.lookahead}")

    def init(self, params):
        return no_moments(params)

    def memory_field(self, params, memory, at):
        return corrected_field(memory, at.grad, self.tau1, self.tau2)

    def params_field(self, params, memory, at):
        k = self.lookahead / self.tau1
        ahead = memory.fill1 + k * (1 - memory.fill1)
        filled = jnp.maximum(memory.fill1, k)

        def velocity(m, s, g):
            first = (1 - k) * m / ahead.astype(m.dtype) + k * g / filled.astype(g.dtype)
            s = quotient(s, memory.fill2, limit=jnp.square(g))
            return -first / scale(s, self.eps, self.eps_root)

        return jtu.tree_map(velocity, memory.first, memory.second, at.grad)
