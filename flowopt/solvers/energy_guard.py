"""The energy guard: V makes a step stand or fall, and tells the controller how close it was."""

from typing import Any, NamedTuple

import diffrax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.flows.flow import FlowTerm, State, energy_rate
from flowopt.solvers.native import estimates_error, native
from flowopt.solvers.trial import AbstractFlowSolver, Trial
from flowopt.tree import all_finite, real_dtype, rms_norm


class _Guarded(NamedTuple):
    inner: PyTree
    """What the inner solver remembers."""
    budget: Float[Array, ""] | None
    """V(y_0) - lam sum h |V'| over the steps kept so far; None where the energy of the step before is what counts."""


class EnergyGuard(AbstractFlowSolver):
    """Keeps a step of `solver` iff the energy falls at least the fraction `lam` of what the flow promises:

        V(y1) - V(y0) <= lam h V'(y0) + slack.

    For the gradient flow under Euler this is the Armijo condition. Since V' <= 0 along a flow with a
    Lyapunov function, V never rises (beyond the slack), so a guarded run cannot diverge from where
    V is bounded below and its sublevel sets are bounded.

    The test is reported as the scaled error of a first-order method. With r = (V1 - V0)/(h V'0), which
    tends to 1 as h -> 0, let e = (1 - r)/(1 - lam): then e <= 1 is the test, e is proportional to h
    for small h, and any controller of step sizes by errors, `flowopt.IntegralController()` or Diffrax's
    `PIDController(rtol=0, atol=1)`, becomes a law of step sizes by energy. e is infinite where y1 or V1 is
    not finite.

    With `rtol` and `atol` the inner solver's own error estimate counts too: the larger of e and its
    scaled error (as the root of its order, so that both grow like h) is reported. Without them the
    energy alone decides.

    Works with every flow that defines `energy`. V and V' at y0 come from the gradient known there, so
    an attempted step costs one value, and a gradient only if it is kept.
    """

    solver: diffrax.AbstractSolver
    """The solver whose steps are judged."""
    lam: float = 0.5
    """Fraction in (0, 1) of the promised decrease that is demanded."""
    rtol: float | None = None
    """Relative tolerance on the inner solver's error; None to leave it out."""
    atol: float | None = None
    """Absolute tolerance on the inner solver's error [params]; None to leave it out."""
    nonmonotone: bool = False
    """Compare with the initial energy less the dissipation demanded so far, V(y_n) <= V(y_0) - lam sum h |V'|,
    and not with the energy of the step before: V may then rise for a while, never above V(y_0)."""
    promise: str = "start"
    """Where V' is taken: "start", at y0; or "staggered", at the old params and the new memory, where a
    staggered solver takes its velocity from. The latter demands a decrease also of a heavy ball at rest."""
    slack_ulps: float = 4.0
    """Rounding allowed in V1 - V0, in units of the last place of |V|: each V is rounded by about two. It takes a
    run whose V does not tend to 0 to |grad R| = sqrt(ulp L) or so, L the curvature; without it runs stall before.
    (On a quadratic with R = 1 at its minimum, none of 256 runs came to 1e-8 without, all with 4 ulp.)"""

    def __check_init__(self):
        if not isinstance(self.solver, diffrax.AbstractSolver):
            raise TypeError(f"`solver` must be a diffrax solver; got {self.solver!r}")
        if isinstance(self.lam, float | int) and not 0 < self.lam < 1:
            raise ValueError(f"`lam` must lie in (0, 1); got {self.lam}")
        if self.promise not in ("start", "staggered"):
            raise ValueError(f'`promise` must be "start" or "staggered"; got {self.promise!r}')
        if (self.rtol is None) != (self.atol is None):
            raise ValueError("`rtol` and `atol` go together: give both, or neither")
        if self.rtol is not None and not estimates_error(self.solver):
            raise ValueError(
                f"`rtol` and `atol` need a solver with an error estimate; "
                f"{type(self.solver).__name__} makes none"
            )

    @property
    def gives_error(self) -> bool:
        return True

    def order(self, terms):
        return self.solver.order(terms)

    def error_order(self, terms):
        return 1

    def start(self, flow, y, at):
        inner = native(self.solver).start(flow, y, at)
        return _Guarded(inner, flow.energy(y.params, y.memory, at) if self.nonmonotone else None)

    def trial(self, flow, y, at, h, state: _Guarded):
        inner = native(self.solver).trial(flow, y, at, h, state.inner)
        energy = flow.energy(y.params, y.memory, at)
        promised = h.astype(energy.dtype) * energy_rate(flow, self._where_promised(y, inner), at)
        candidate = flow.energy(inner.y.params, inner.y.memory, inner.at)
        # What V1 is compared with: V0, or what is left of the initial energy after the dissipation so far.
        before = energy if state.budget is None else jnp.maximum(state.budget, energy)
        scaled = energy_error(energy, candidate, promised, self.lam, self.slack_ulps, before)
        scaled = jnp.where(all_finite(inner.y), scaled, jnp.inf)
        if self.rtol is not None:
            scaled = jnp.maximum(scaled, self._inner_error(flow, y, inner))
        error = jtu.tree_map(lambda x: scaled.astype(x.dtype), inner.y)
        budget = None if state.budget is None else before + self.lam * jnp.minimum(promised, 0)
        return inner._replace(
            error=error, keep=inner.keep & (scaled <= 1), state=_Guarded(inner.state, budget)
        )

    def _where_promised(self, y: State, inner: Trial) -> State:
        return State(y.params, inner.y.memory) if self.promise == "staggered" else y

    def _inner_error(self, flow, y, inner: Trial) -> Float[Array, ""]:
        assert self.rtol is not None and self.atol is not None
        rtol, atol = self.rtol, self.atol

        def scale(y0, y1, error):
            return error / (atol + rtol * jnp.maximum(jnp.abs(y0), jnp.abs(y1)))

        scaled = rms_norm(jtu.tree_map(scale, y, inner.y, inner.error))
        order: Any = self.solver.error_order(FlowTerm(flow, inner.at.fn))
        scaled = scaled.astype(real_dtype(y.params)) ** (1 / order)
        return jnp.where(jnp.isnan(scaled), jnp.inf, scaled)


def energy_error(
    energy: Float[Array, ""],
    after: Float[Array, ""],
    promised: Float[Array, ""],
    lam: float,
    slack_ulps: float,
    before: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """e = (1 - r)/(1 - lam), r = (after - before)/promised; e <= 1 iff after - before <= lam promised + slack.

    `before` is the `energy` at y0 unless another reference, not below it, is given.

    At rest, where nothing is promised, e is 0 if the energy did not rise beyond the slack, else
    infinite; so it is where V' or V1 is not a number. Where the flow itself would raise V (promised > 0),
    e is 0 only if the energy fell: a slack would let it creep upwards there, one rounding error a step.
    """
    climbs = promised > 0
    promised = jnp.minimum(promised, 0)
    before = energy if before is None else before
    size = jnp.maximum(jnp.abs(energy), jnp.abs(after))
    slack = slack_ulps * jnp.finfo(energy.dtype).eps * size
    excess = jnp.maximum(after - before - promised - slack, 0)
    allowed = (1 - lam) * -promised
    refused = jnp.where(climbs, after >= before, excess > 0)
    unpromised = jnp.where(refused, jnp.inf, 0.0).astype(energy.dtype)
    e = jnp.where(allowed > 0, excess / jnp.where(allowed > 0, allowed, 1), unpromised)
    return jnp.where(jnp.isfinite(after) & ~jnp.isnan(promised), e, jnp.inf)
