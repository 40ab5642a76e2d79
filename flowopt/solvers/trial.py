"""One attempted step of a flow, and the solvers that make it with one gradient per point."""

import abc
from typing import Any, ClassVar, NamedTuple

import diffrax
from jaxtyping import Array, Bool, Float, PyTree

from flowopt.flows.flow import AbstractFlow, State, flow_term
from flowopt.objective import At, Model, ModelKind


class Trial(NamedTuple):
    """What an attempted step offers."""

    y: State
    """The candidate."""
    error: State | None
    """Its error estimate, for the controller; None where the solver makes none."""
    at: At
    """What is known of the objective at the candidate: as much as the attempt needed."""
    keep: Bool[Array, ""] | bool
    """Whether the solver itself would keep the candidate; no gradient is taken there unless so."""
    state: PyTree
    """What the solver remembers, if the candidate is kept."""
    move: tuple[Float[Array, ""], PyTree] | None = None
    """(a, f), where the candidate's params are those before plus a f, in one sum; None where they come otherwise."""


class _Known(NamedTuple):
    """The solver state in a plain `diffeqsolve`: what belongs to y0 survives a rejected step."""

    value: Float[Array, ""]
    grad: PyTree
    model: Model | None
    state: PyTree


class AbstractFlowSolver(diffrax.AbstractSolver):
    """A Diffrax solver that steps a flow from what is already known at y0, so that no point is evaluated twice.

    In `flowopt.minimise` and `flowopt.ensemble` the run keeps what is known. In a plain
    `diffrax.diffeqsolve(flowopt.FlowTerm(flow, fn), solver, ...)` the solver state does.
    """

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    @property
    def model(self) -> ModelKind | None:
        """What the solver itself reads of the objective beyond values and gradients."""
        return None

    @abc.abstractmethod
    def start(self, flow: AbstractFlow, y: State, at: At) -> PyTree:
        """What the solver remembers between steps, at the start; None if nothing."""

    @abc.abstractmethod
    def trial(
        self, flow: AbstractFlow, y: State, at: At, h: Float[Array, ""], state: PyTree
    ) -> Trial:
        """Attempts a step of length `h` [time] from `y`, where the objective is known to be `at`."""

    def init(self, terms, t0, t1, y0, args) -> PyTree:
        term = flow_term(terms)
        at = term.at(y0.params, args)
        at.kind = model_kind(term.flow, self)
        return _Known(*at.known(), self.start(term.flow, y0, at))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        term = flow_term(terms)
        at = At(
            term.fn,
            y0.params,
            args,
            term.at(y0.params, args).evaluations,
            solver_state.value,
            solver_state.grad,
            model_kind(term.flow, self),
            solver_state.model,
        )
        trial = self.trial(term.flow, y0, at, terms.contr(t0, t1), solver_state.state)
        known = _Known(*trial.at.if_kept(trial.keep, at), trial.state)
        dense_info = dict(y0=y0, y1=trial.y)
        return trial.y, trial.error, dense_info, known, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)


def model_kind(flow: AbstractFlow, solver: diffrax.AbstractSolver) -> ModelKind | None:
    """What the flow, or else the solver or the one inside it, reads beyond values and gradients."""
    part: Any = solver
    while flow.model is None and part is not None:
        kind = getattr(part, "model", None)
        if kind is not None:
            return kind
        part = getattr(part, "solver", None)
    return flow.model
