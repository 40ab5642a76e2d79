"""The compiled loop of one run: `diffrax.diffeqsolve` over its steps."""

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
from flowopt.run.step import RunState, Stepper, at_its_end
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
    """`part` gone on to its end, or until `pause` steps have been attempted; and |field|_2 there.

    A part that diverged is made once more, up to the step before. To keep at every step what was before it would cost
    every run a copy of all that it holds, at every step.
    """
    begun = part.state.attempted

    def once(carry: tuple, _: None) -> tuple[tuple, Any]:
        part_or_end, until, undone = carry
        end = _gone_on(stepper, part_or_end, adjoint, recorder, until)
        state = at_its_end(end.state)
        end = eqx.tree_at(lambda p: p.state, end, state)
        undo = (state.code == code_of("diverged")) & (state.attempted > begun)
        until = jnp.where(undo, state.attempted - 1, until)
        # A conditional hands both on as they are; to choose entry by entry takes a program for each array, which has to
        # be compiled (a network of 1,027 params by GD, without tracing: 1.2 -> 1.0 s).
        on = jax.lax.cond(undo, lambda: part, lambda: end)
        return (on, until, undone | undo), end.counts

    # One program for both, so they give the same bits. The second does nothing unless the first diverged, and what it
    # does is not counted.
    (end, _, undone), counts = jax.lax.scan(once, (part, pause, jnp.array(False)), None, length=2)
    state = end.state
    state = eqx.tree_at(
        lambda s: (s.code, s.rejected),
        state,
        (
            jnp.where(undone, code_of("diverged"), state.code).astype(state.code.dtype),
            state.rejected + undone.astype(state.rejected.dtype),
        ),
    )
    at = stepper.known_at(state, Evaluations())
    speed = jnp.sqrt(sum_squares(field(stepper.method.flow, state.y, at)))
    return Part(state, jtu.tree_map(lambda n: n[0], counts), end.history), speed


def whole(
    stepper: Stepper, params: PyTree, adjoint: diffrax.AbstractAdjoint, recorder: Recorder | None
) -> tuple[Part, Float[Array, ""]]:
    """A run from its beginning to its end, by the very programs that make it in parts: so both give the same bits."""
    never = jnp.asarray(jnp.iinfo(jnp.int32).max, jnp.int32)
    return proceed(stepper, begin(stepper, params, recorder), adjoint, recorder, never)


def _gone_on(
    stepper: Stepper,
    part: Part,
    adjoint: diffrax.AbstractAdjoint,
    recorder: Recorder | None,
    pause: Int[Array, ""],
) -> Part:
    """`part` gone on to its end, or until `pause` steps have been attempted."""
    start = part.state
    # `diffeqsolve` promotes the state to the dtype of the time: take the lowest.
    dtype = min((x.dtype for x in jtu.tree_leaves(start.y)), key=lambda d: jnp.finfo(d).bits)
    clock = jnp.zeros((), dtype)
    goes_on = (start.code == RUNNING) & (start.attempted < pause)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: y),
        _Steps(stepper, recorder, pause),
        clock,
        goes_on.astype(dtype),
        clock + 1,
        start.y,
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
        stepsize_controller=_KeepAll(),
        solver_state=_with_y(part, None),
        adjoint=adjoint,
        max_steps=None if stepper.max_steps is None else max(stepper.max_steps, 1),
        throw=False,
    )
    final: Any = solution.solver_state
    return _with_y(final, jtu.tree_map(lambda x: x[-1], solution.ys))


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
        part = _with_y(solver_state, y0)
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
        carry = _with_y(Part(new, counts, history), None)
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


def _with_y(part: Part, y: Any) -> Part:
    return eqx.tree_at(lambda p: p.state.y, part, y, is_leaf=lambda x: x is None)


def _numbers(evaluations: Evaluations) -> tuple[Any, ...]:
    return evaluations.values, evaluations.grads, evaluations.matrices, evaluations.products


def _countable(stepper: Stepper, state: RunState) -> bool:
    """Whether the evaluations of a step are straight-line code, so that tracing it counts them."""
    attempt, kept = Evaluations(), Evaluations()
    jax.eval_shape(lambda s: stepper.advance(s, (attempt, kept)), state)
    return attempt.exact and kept.exact
