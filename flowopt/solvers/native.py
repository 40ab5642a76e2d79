"""Any Diffrax solver as a flow solver: one gradient per point wherever its stages are explicit."""

import operator
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx

from flowopt.flows.flow import FlowTerm, field
from flowopt.solvers.staggered_euler import StaggeredEuler
from flowopt.solvers.trial import AbstractFlowSolver, Trial
from flowopt.tree import add_scaled, where


class ExplicitStages(AbstractFlowSolver):
    """The stages of an explicit Runge-Kutta method, written out from its Butcher tableau.

    The same step as Diffrax's own `AbstractERK.step`, to rounding. Diffrax evaluates the first stage
    anew unless the method happens to be first-same-as-last, because it cannot know that the caller
    has the gradient at y0; and it runs the stages in a loop, because there may be many. Here the first
    stage takes what is known at y0, and a last stage at y1 is the next step's first.
    """

    solver: diffrax.AbstractERK | diffrax.Euler

    def order(self, terms):
        return self.solver.order(terms)

    def error_order(self, terms):
        return self.solver.error_order(terms)

    def start(self, flow, y, at):
        return None

    def trial(self, flow, y, at, h, state):
        if isinstance(self.solver, diffrax.Euler):
            rate = field(flow, y, at)
            end = add_scaled(y, h, rate)
            return Trial(end, None, at.elsewhere(end.params), True, state, (h, rate.params))
        tableau: Any = self.solver.tableau
        stages = [field(flow, y, at)]
        end, at_end = y, at
        for row in tableau.a_lower:
            end = _combine(y, h, row, stages)
            at_end = at.elsewhere(end.params)
            stages.append(field(flow, end, at_end))
        if not tableau.ssal:
            end = _combine(y, h, tableau.b_sol, stages)
            at_end = at.elsewhere(end.params)
        zero = jtu.tree_map(jnp.zeros_like, y)
        error = _combine(zero, h, tableau.b_error, stages)
        return Trial(end, error, at_end, True, state)


class OpaqueSteps(AbstractFlowSolver):
    """Any other Diffrax solver, stepped as it is: what it evaluates inside a step stays its own affair."""

    solver: diffrax.AbstractSolver

    def order(self, terms):
        return self.solver.order(terms)

    def error_order(self, terms):
        return self.solver.error_order(terms)

    def start(self, flow, y, at):
        zero = jnp.zeros_like(at.value)
        return self.solver.init(FlowTerm(flow, at.fn), zero, zero + 1, y, at.args)

    def trial(self, flow, y, at, h, state):
        term = FlowTerm(flow, at.fn)
        zero = jnp.zeros_like(h)
        end, error, _, state, result = self.solver.step(term, zero, h, y, at.args, state, False)
        # A step that failed (a root not found) offers nothing to keep.
        failed = result != diffrax.RESULTS.successful
        end = where(failed, jtu.tree_map(lambda x: jnp.full_like(x, jnp.nan), end), end)
        if isinstance(self.solver, diffrax.LeapfrogMidpoint):
            # It remembers when the point before was: on the clock of the next step, which starts at 0.
            state = (state[0] - h, state[1])
        if error is not None:
            error = where(failed, jtu.tree_map(lambda x: jnp.full_like(x, jnp.inf), error), error)
        at.evaluations.exact = False
        return Trial(end, error, at.elsewhere(end.params), True, state)


def native(
    solver: diffrax.AbstractSolver, controller: diffrax.AbstractStepSizeController | None = None
) -> AbstractFlowSolver:
    """`solver` as a flow solver; one that is so already is returned as it is.

    An implicit solver whose root finder has no tolerances of its own takes those of an adaptive
    `controller`, as in `diffeqsolve`, and without one rtol = 1e-6 and atol = 1e-9. A solver that can
    report its gain does so to a controller that wants it.
    """
    if isinstance(solver, AbstractFlowSolver):
        if hasattr(solver, "report_gain") and getattr(controller, "wants_gain", False):
            return eqx.tree_at(lambda s: s.report_gain, solver, True)
        return solver
    if type(solver) is diffrax.SemiImplicitEuler:
        # The same step wherever it is defined: memory driven by the params alone, and they by it.
        return StaggeredEuler()
    explicit = isinstance(solver, diffrax.AbstractERK) and isinstance(
        getattr(solver, "tableau", None), diffrax.ButcherTableau
    )
    if explicit or type(solver) is diffrax.Euler:
        return ExplicitStages(solver)  # pyright: ignore[reportArgumentType]
    if isinstance(solver, diffrax.AbstractImplicitSolver):
        solver = _with_tolerances(solver, controller)
    return OpaqueSteps(solver)


def _with_tolerances(
    solver: diffrax.AbstractImplicitSolver, controller: diffrax.AbstractStepSizeController | None
) -> diffrax.AbstractSolver:
    tolerances = dict(rtol=1e-6, atol=1e-9, norm=optx.rms_norm)
    if isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
        tolerances = {name: getattr(controller, name) for name in tolerances}
    for name, value in tolerances.items():
        given = getattr(solver.root_finder, name, value)
        # Diffrax marks "to be taken from the controller" by an object that is neither number nor function.
        if not (eqx.is_array_like(given) or callable(given)):
            where = operator.attrgetter(f"root_finder.{name}")
            solver = eqx.tree_at(where, solver, value)
    return solver


def estimates_error(solver: diffrax.AbstractSolver) -> bool:
    """Whether `solver` gives an error estimate, as adaptive controllers need."""
    if isinstance(solver, ExplicitStages | OpaqueSteps):
        return estimates_error(solver.solver)
    return bool(getattr(solver, "gives_error", isinstance(solver, diffrax.AbstractAdaptiveSolver)))


def _combine(y, h, weights, stages):
    """y + h sum_j weights_j stages_j, leaving out the zeros of the tableau."""
    for weight, stage in zip(weights.tolist(), stages, strict=True):
        if weight != 0:
            y = jtu.tree_map(lambda a, b, w=weight: a + (w * h).astype(a.dtype) * b, y, stage)
    return y
