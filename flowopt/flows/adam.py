"""Adam, with its bias correction as a state, and without."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.flows.flow import AbstractFlow
from flowopt.flows.numbers import check_not_negative, check_positive, quotient, safe_sqrt
from flowopt.tree import real_dtype, sum_squares


class Moments(NamedTuple):
    """The memory of Adam without bias correction."""

    first: PyTree
    """m, a moving average of the gradient [loss/params]."""
    second: PyTree
    """s, a moving average of its square [loss^2/params^2]."""


class UncorrectedAdam(AbstractFlow):
    """m' = (g - m)/tau1,  s' = (g^2 - s)/tau2,  theta' = -m/(sqrt(s) + eps),  g = grad R(theta).

    V = R + (tau1/2) sum m^2/D,  D = sqrt(s) + eps,  dV/dt <= -(1 - tau1/(4 tau2)) sum m^2/D,
    so V is a Lyapunov function if tau1 <= 4 tau2.   [Kingma and Ba 2015, without the correction]

    Derivation: dV/dt = -sum g m/D + sum m (g - m)/D - (tau1/2) sum m^2 D'/D^2
    = -sum m^2/D - (tau1/2) sum m^2 D'/D^2. Since g^2 >= 0, D' = (g^2 - s)/(2 tau2 sqrt(s)) >=
    -sqrt(s)/(2 tau2) >= -D/(2 tau2), which bounds the last term by (tau1/(4 tau2)) sum m^2/D.

    Staggered Euler with step h is Adam with learning rate h, beta = 1 - h/tau, and no bias
    correction. Units: tau1 and tau2 in time, eps in loss/params; the step is the time, in params.
    """

    tau1: float
    """Time constant of the first moment [time]."""
    tau2: float
    """Time constant of the second moment [time]."""
    eps: float = 1e-8
    """Floor of the scale sqrt(s) [loss/params]."""

    def __check_init__(self):
        check_positive(tau1=self.tau1, tau2=self.tau2, eps=self.eps)

    def init(self, params):
        zeros = jtu.tree_map(jnp.zeros_like, params)
        return Moments(zeros, zeros)

    def memory_field(self, params, memory, at):
        return moments_field(memory.first, memory.second, at.grad, self.tau1, self.tau2)

    def params_field(self, params, memory, at):
        return jtu.tree_map(lambda m, s: -m / (safe_sqrt(s) + self.eps), *memory)

    def energy(self, params, memory, at):
        kinetic = jtu.tree_map(
            # Not m^2/D: sqrt(D) keeps m^2 from underflowing where D is small as well.
            lambda m, s: m / jnp.sqrt(safe_sqrt(s) + self.eps),
            memory.first,
            memory.second,
        )
        return at.value + 0.5 * self.tau1 * sum_squares(kinetic)


class CorrectedMoments(NamedTuple):
    """The memory of Adam: the moments, and how much of each average is filled."""

    first: PyTree
    """m [loss/params]."""
    second: PyTree
    """s [loss^2/params^2]."""
    fill1: Float[Array, ""]
    """c1 = 1 - exp(-t/tau1) along the flow, 1 - beta1^n under Euler [1]."""
    fill2: Float[Array, ""]
    """c2, likewise with tau2 and beta2 [1]."""


class Adam(AbstractFlow):
    """m' = (g - m)/tau1,  s' = (g^2 - s)/tau2,  c1' = (1 - c1)/tau1,  c2' = (1 - c2)/tau2,
    theta' = -(m/c1)/D,  D = sqrt(s/c2 + eps_root) + eps,  g = grad R(theta), all started from 0.

    V = R + (tau1/2) sum m^2/(c1 D) is a Lyapunov function if tau1 <= 4 tau2.
    [Kingma and Ba 2015; the energy of the corrected flow is derived here]

    Derivation: as for `UncorrectedAdam`, now with c1 D in place of D,
    dV/dt = -sum m^2/(c1 D) [1 + (tau1/2) (c1'/c1 + D'/D)]. With u = s/c2, u' = (g^2 - u)/(tau2 c2),
    so D'/D >= -1/(2 tau2 c2) (eps_root only helps), and c1'/c1 = (1 - c1)/(tau1 c1). The bracket is at least
    (1 + c1)/(2 c1) - tau1/(4 tau2 c2). With k = tau1/tau2 and x = exp(-t/tau1), c1 = 1 - x and
    c2 = 1 - x^k, it is >= 0 iff 2 (2 - x) (1 - x^k)/(1 - x) >= k for all x in [0, 1): for k <= 1
    because (1 - x^k) >= k (1 - x) and 2 - x >= 1; for 1 < k <= 2 because the left side is >= 2; for
    2 < k <= 4 because it is >= 2 (2 - x)(1 + x) >= 4.

    The correction is a state, so the flow is autonomous and any solver may integrate it. At t = 0
    the quotients 0/0 take their limits m/c1 = g and s/c2 = g^2. Staggered Euler with step h is
    Adam with learning rate h and beta = 1 - h/tau. Units as in `UncorrectedAdam`.
    """

    tau1: float
    """Time constant of the first moment [time]."""
    tau2: float
    """Time constant of the second moment [time]."""
    eps: float = 1e-8
    """Floor of the scale sqrt(s/c2) [loss/params]."""
    eps_root: float = 0.0
    """Floor under the root, >= 0 [loss^2/params^2]."""

    def __check_init__(self):
        check_positive(tau1=self.tau1, tau2=self.tau2, eps=self.eps)
        check_not_negative(eps_root=self.eps_root)

    def init(self, params):
        return no_moments(params)

    def memory_field(self, params, memory, at):
        return corrected_field(memory, at.grad, self.tau1, self.tau2)

    def params_field(self, params, memory, at):
        def velocity(m, s, g):
            s = quotient(s, memory.fill2, limit=jnp.square(g))
            return -quotient(m, memory.fill1, g, scale(s, self.eps, self.eps_root))

        return jtu.tree_map(velocity, memory.first, memory.second, at.grad)

    def energy(self, params, memory, at):
        def floor(s):
            s = quotient(s, memory.fill2, limit=jnp.zeros_like(s))
            return scale(s, self.eps, self.eps_root)

        scales = jtu.tree_map(floor, memory.second)
        return at.value + kinetic_energy(memory.first, memory.fill1, scales, self.tau1)


def no_moments(params: PyTree) -> CorrectedMoments:
    """The memory at the start: nothing yet."""
    zeros = jtu.tree_map(jnp.zeros_like, params)
    empty = jnp.zeros((), real_dtype(params))
    return CorrectedMoments(zeros, zeros, empty, empty)


def corrected_field(
    memory: CorrectedMoments, grad: PyTree, tau1: float, tau2: float
) -> CorrectedMoments:
    """Each average moves towards what it averages, and its fill towards 1."""
    moments = moments_field(memory.first, memory.second, grad, tau1, tau2)
    return CorrectedMoments(*moments, (1 - memory.fill1) / tau1, (1 - memory.fill2) / tau2)


def moments_field(m: PyTree, s: PyTree, g: PyTree, tau1: float, tau2: float) -> Moments:
    """((g - m)/tau1, (g^2 - s)/tau2)."""
    return Moments(
        jtu.tree_map(lambda m, g: (g - m) / tau1, m, g),
        jtu.tree_map(lambda s, g: (jnp.square(g) - s) / tau2, s, g),
    )


def scale(s: Array, eps: float, eps_root: float) -> Array:
    """D = sqrt(s + eps_root) + eps; without the root's floor nothing is computed for it."""
    floored = s if isinstance(eps_root, float | int) and eps_root == 0 else s + eps_root
    return safe_sqrt(floored) + eps


def kinetic_energy(
    m: PyTree, fill: Float[Array, ""], scales: PyTree, tau1: float
) -> Float[Array, ""]:
    """(tau1/2) sum m^2/(c1 D) [loss]; 0 at the start, where m^2/c1 ~ g^2 c1 -> 0."""

    def root(m, d):
        c1 = jnp.where(fill > 0, fill, 1).astype(m.dtype)
        return m / jnp.sqrt(c1 * d)

    return 0.5 * tau1 * sum_squares(jtu.tree_map(root, m, scales))
