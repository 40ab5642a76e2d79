"""The compiled loop of one run: `diffrax.diffeqsolve` over its steps."""

import operator
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, Int, PyTree

from flowopt.flows.flow import field
from flowopt.objective import Evaluations
from flowopt.run.history import History, Recorder
from flowopt.run.outcome import RUNNING, code_of
from flowopt.run.step import RunState, Stepper, last_good
from flowopt.tree import sum_squares


class Part(eqx.Module):
    """A run so far."""

    state: RunState
    counts: tuple[Array, ...] | None
    """The evaluations made, by kind; None where they cannot be counted."""
    history: History | None


@eqx.filter_jit
def begin(stepper: Stepper, params: PyTree, recorder: Recorder | None) -> Part:
    """A run before its first step, from params, or from where an earlier one was."""
    begun = Evaluations()
    if isinstance(params, RunState):
        start = stepper.resume(params)
    else:
        start = stepper.start(params, begun)
    counts = None
    if _countable(stepper, start):
        counts = tuple(jnp.asarray(n, jnp.int32) for n in _numbers(begun))
    return Part(start, counts, None if recorder is None else recorder.start(stepper, start))


@eqx.filter_jit
def proceed(
    stepper: Stepper,
    part: Part,
    adjoint: diffrax.AbstractAdjoint,
    recorder: Recorder | None,
    pause: Int[Array, ""],
) -> tuple[Part, Float[Array, ""]]:
    """`part` gone on to its end, or until `pause` steps have been attempted; and |field|_2 there."""
    start = part.state
    # `diffeqsolve` promotes the state to the dtype of the time: take the lowest.
    dtype = min((x.dtype for x in jtu.tree_leaves(start.y)), key=lambda d: jnp.finfo(d).bits)
    clock = jnp.zeros((), dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: y),
        _Steps(stepper, recorder, pause),
        clock,
        (start.code == RUNNING).astype(dtype),
        clock + 1,
        start.y,
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
        stepsize_controller=_KeepAll(),
        solver_state=_Carry(_with_y(part, None), _pared(start)),
        adjoint=adjoint,
        max_steps=None if stepper.max_steps is None else max(stepper.max_steps, 1),
        throw=False,
    )
    final: Any = solution.solver_state
    end = _with_y(final.part, jtu.tree_map(lambda x: x[-1], solution.ys))
    undo = (end.state.code == code_of("diverged")) & (end.state.attempted > start.attempted)
    undone = Evaluations()
    state = jax.lax.cond(
        undo, lambda: _undone(stepper, final.before, end.state, undone), lambda: end.state
    )
    counts = end.counts
    if counts is not None:
        more = (jnp.where(undo, jnp.asarray(n, jnp.int32), 0) for n in _numbers(undone))
        counts = tuple(map(operator.add, counts, more))
    at = stepper.known_at(state, Evaluations())
    speed = jnp.sqrt(sum_squares(field(stepper.method.flow, state.y, at)))
    return Part(state, counts, end.history), speed


def whole(
    stepper: Stepper, params: PyTree, adjoint: diffrax.AbstractAdjoint, recorder: Recorder | None
) -> tuple[Part, Float[Array, ""]]:
    """A run from its beginning to its end, by the very programs that make it in parts: so both give the same bits."""
    never = jnp.asarray(jnp.iinfo(jnp.int32).max, jnp.int32)
    return proceed(stepper, begin(stepper, params, recorder), adjoint, recorder, never)


class _Carry(eqx.Module):
    """What the loop hands on beside `y`."""

    part: Part
    """Less its `y`."""
    before: RunState
    """Where the run was before its last attempted step, to go back to if that diverged; less gradient and model,
    which are evaluated anew if need be: to keep them too cost GD 15% of a step (1,000 params, 10 data)."""


class _Steps(diffrax.AbstractSolver):
    """A run's step as a solver, so that `diffeqsolve` is the loop: its adjoints, and differentiation, work.

    The step has already been judged when `diffeqsolve` sees it, so the controller there keeps every one.
    """

    stepper: Stepper
    recorder: Recorder | None
    pause: Int[Array, ""]

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms):
        return 1

    def init(self, terms, t0, t1, y0, args):
        raise NotImplementedError("the state is given to diffeqsolve")

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        part = _with_y(solver_state.part, y0)
        old = part.state
        attempt, kept = Evaluations(), Evaluations()
        new = self.stepper.advance(old, (attempt, kept))
        counts = None
        if part.counts is not None:
            n = new.accepted - old.accepted
            counts = tuple(
                count + always + n * if_kept
                for count, always, if_kept in zip(
                    part.counts, _numbers(attempt), _numbers(kept), strict=True
                )
            )
        history = part.history
        if self.recorder is not None and history is not None:
            history = self.recorder.update(history, self.stepper, old, new)
        ended = (new.code != RUNNING) | (new.attempted >= self.pause)
        carry = _Carry(_with_y(Part(new, counts, history), None), _pared(old))
        ended = ended.astype(jnp.result_type(t0))
        return new.y, ended, dict(y0=y0, y1=new.y), carry, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        raise NotImplementedError


class _KeepAll(diffrax.AbstractStepSizeController):
    """Keeps every step, on a clock that stands at 0 while the run goes on and is 1, the end, when it has ended.

    A run's own time is in its steps. `_Steps` reports in place of an error whether the run has ended:
    of a step's results only that and the state reach `diffeqsolve` whatever the adjoint.
    """

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return t0 + dt0, None

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error: Any, error_order, controller_state
    ) -> tuple[bool, Any, Any, bool, None, diffrax.RESULTS]:
        return True, y_error, y_error + 1, False, None, diffrax.RESULTS.successful


def _pared(state: RunState) -> RunState:
    return eqx.tree_at(_evaluated, state, (None, None), is_leaf=lambda x: x is None)


def _undone(
    stepper: Stepper, before: RunState, end: RunState, evaluations: Evaluations
) -> RunState:
    """The run that diverged at `end`, as it was `before` that step."""
    before = eqx.tree_at(_evaluated, before, _evaluated(end), is_leaf=lambda x: x is None)
    state = last_good(before, end)
    known = stepper.known_at(state, evaluations).elsewhere(state.params).known()
    return eqx.tree_at(_evaluated, state, (known.grad, known.model), is_leaf=lambda x: x is None)


def _evaluated(state: RunState) -> tuple[PyTree, PyTree]:
    return state.grad, state.model


def _with_y(part: Part, y: Any) -> Part:
    return eqx.tree_at(lambda p: p.state.y, part, y, is_leaf=lambda x: x is None)


def _numbers(evaluations: Evaluations) -> tuple[Any, ...]:
    return evaluations.values, evaluations.grads, evaluations.matrices, evaluations.products


def _countable(stepper: Stepper, state: RunState) -> bool:
    """Whether the evaluations of a step are straight-line code, so that tracing it counts them."""
    attempt, kept = Evaluations(), Evaluations()
    jax.eval_shape(lambda s: stepper.advance(s, (attempt, kept)), state)
    return attempt.exact and kept.exact
