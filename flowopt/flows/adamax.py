"""AdaMax: Adam in the infinity norm."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_positive, quotient
from flowopt.tree import real_dtype


class InfinityMoments(NamedTuple):
    """The memory of AdaMax."""

    first: PyTree
    """m, a moving average of the gradient [loss/params]."""
    largest: PyTree
    """u, the largest |g|, fading [loss/params]."""
    fill1: Float[Array, ""]
    """c1 = 1 - exp(-t/tau1) [1]."""


class AdaMax(AbstractFlow):
    """m' = (g - m)/tau1,  c1' = (1 - c1)/tau1,  u' = max((|g| + eps - u)/tau3, -u/tau2),
    theta' = -(m/c1)/max(u, |g| + eps),  g = grad R(theta), all started from 0.   [Kingma and Ba 2015]

    No `energy` where u follows |g| at a finite rate: the scale may then fall as fast as |g| does. In the
    limit tau3 -> 0, where u >= |g| + eps and u falls no faster than by u' = -u/tau2, V = R + (tau1/2) sum
    m^2/(c1 u) has dV/dt <= -sum m^2/(c1 u) [(1 + c1)/(2 c1) - tau1/(2 tau2)] <= 0 if tau1 <= 2 tau2,
    and a jump of u upwards lowers V too.

    Staggered Euler with step h = tau3 makes u the larger of |g| + eps and (1 - h/tau2) u: AdaMax with learning
    rate h and decays 1 - h/tau. Then u >= |g| + eps, and the max in theta' is u; it keeps theta' bounded
    for every other solver at the start. At t = 0, m/c1 is g. Units: tau in time, eps in loss/params; time is in params.
    """

    tau1: float
    """Time constant of the first moment [time]."""
    tau2: float
    """Time constant with which the largest fades [time]."""
    tau3: float
    """Time in which a larger one is followed, <= tau2 [time]."""
    eps: float = 1e-8
    """Floor of the scale [loss/params]."""

    def __check_init__(self):
        check_positive(tau1=self.tau1, tau2=self.tau2, tau3=self.tau3, eps=self.eps)

    def init(self, params):
        zeros = jtu.tree_map(jnp.zeros_like, params)
        return InfinityMoments(zeros, zeros, jnp.zeros((), real_dtype(params)))

    def memory_field(self, params, memory, at):
        def follow(u, g):
            return jnp.maximum((jnp.abs(g) + self.eps - u) / self.tau3, -u / self.tau2)

        return InfinityMoments(
            first=jtu.tree_map(lambda m, g: (g - m) / self.tau1, memory.first, at.grad),
            largest=jtu.tree_map(follow, memory.largest, at.grad),
            fill1=(1 - memory.fill1) / self.tau1,
        )

    def params_field(self, params, memory, at):
        def velocity(m, u, g):
            largest = jnp.maximum(u, jnp.abs(g) + self.eps)
            return -quotient(m, memory.fill1, g, largest)

        return jtu.tree_map(velocity, memory.first, memory.largest, at.grad)
