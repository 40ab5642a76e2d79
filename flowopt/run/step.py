"""The one definition of a step, shared by single runs and ensembles.

A step is attempted, judged, and kept or undone; only then is the gradient taken at the new point. The
controller is asked inside the step, not by `diffeqsolve`, for two reasons. A rejected step then costs
no gradient, whichever controller rejected it (Diffrax asks its controller after the solver has
returned, and the solver has evaluated the new point by then). And every step is integrated on [0, h]:
h is never computed as (t + h) - t, so learning rates are exact and a long run does not lose its small
steps.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from flowopt.flows.flow import FlowTerm, State, check_flow_shapes
from flowopt.methods import Method
from flowopt.objective import (
    At,
    Evaluations,
    Known,
    Model,
    Objective,
    SumOfSquares,
    check_objective,
)
from flowopt.run.compiling import computed_once, in_turn, once_on_cpu
from flowopt.run.outcome import RUNNING, code_of
from flowopt.solvers.native import native
from flowopt.solvers.trial import AbstractFlowSolver, Trial, model_kind
from flowopt.stochastic import Stochastic
from flowopt.tree import equal, real_dtype, sum_squares, where


class RunState(eqx.Module):
    """Where a run is: all that the next step needs. `stop` functions are given this."""

    y: State
    value: Float[Array, ""]
    """R at the params [loss]."""
    grad: PyTree
    """grad R at the params [loss/params]. An ensemble may leave value, grad and model None until they are asked for."""
    model: Model | None
    """The Jacobian or Hessian there, where the method reads one and it is formed."""
    step: Float[Array, ""]
    """The step to attempt next [time]."""
    accepted: Int[Array, ""]
    rejected: Int[Array, ""]
    code: Int[Array, ""]
    """The outcome's code; -1 while running."""
    solver: PyTree
    controller: PyTree
    noise: UInt32[Array, " words"] | None
    """The run's random key, where the objective is `Stochastic`."""

    @property
    def params(self) -> PyTree:
        return self.y.params

    @property
    def memory(self) -> PyTree:
        return self.y.memory

    @property
    def grad_norm(self) -> Float[Array, ""]:
        """The 2-norm of the gradient [loss/params]."""
        return jnp.sqrt(sum_squares(self.grad))

    @property
    def attempted(self) -> Int[Array, ""]:
        """Steps attempted so far, kept or not."""
        return self.accepted + self.rejected


Stop = Callable[[RunState], Any]

STANDING = RUNNING - 1
"""The code of a run that is still going, whose last step changed nothing: stalled, unless it ends otherwise there."""


def forgotten(state: RunState) -> RunState:
    """`state` without what is known of the objective there."""
    return eqx.tree_at(
        lambda s: (s.value, s.grad, s.model), state, (None,) * 3, is_leaf=lambda x: x is None
    )


def knowing(state: RunState, known: Known) -> RunState:
    """`state` with what is known of the objective there."""
    return eqx.tree_at(
        lambda s: (s.value, s.grad, s.model), state, tuple(known), is_leaf=lambda x: x is None
    )


def at_its_end(state: RunState) -> RunState:
    """`state`; diverged, where the run has come to an end at params whose squares have no finite sum. Loss and
    gradient may be finite there, as those of `tanh` are.

    Asked of runs that have ended, not after every step, where it would be a pass over the params.
    """
    overflowed = (state.code >= 0) & ~jnp.isfinite(sum_squares(state.params))
    code = jnp.where(overflowed, code_of("diverged"), state.code)
    return eqx.tree_at(lambda s: s.code, state, code.astype(state.code.dtype))


class Stepper(eqx.Module):
    """What stays the same along a run: the method, the objective, and when to stop."""

    method: Method
    fn: Objective
    args: Any
    tol: Float[Array, ""] | float
    max_steps: int | None
    stop: Stop | None = None
    live: Bool[Array, ""] | None = None
    """Of an ensemble: true, which its compiler cannot know; see `computed_once`."""

    def start(self, params: PyTree, evaluations: Evaluations | None = None) -> RunState:
        """The state before the first step; its outcome is settled already where nothing is left to do."""
        self._check(params)
        flow, solver = self.method.flow, self._solver
        noise = self.fn.run_key(params) if isinstance(self.fn, Stochastic) else None
        none = jnp.zeros((), jnp.int32)
        term = FlowTerm(flow, self._objective(noise, none))
        y = State(params, flow.init(params))
        at = term.at(params, self.args)
        at.kind = model_kind(flow, solver)
        at.evaluations = at.evaluations if evaluations is None else evaluations
        known = at.known()
        zero = jnp.zeros((), real_dtype(params))
        first = None if self.method.step is None else jnp.asarray(self.method.step, zero.dtype)
        end, controller = self._controller.init(
            term, zero, zero + jnp.inf, y, first, self.args, solver.func, solver.error_order(term)
        )
        state = RunState(
            y=y,
            value=known.value,
            grad=known.grad,
            model=known.model,
            step=jnp.asarray(end, zero.dtype),
            accepted=none,
            rejected=none,
            code=none + RUNNING,
            solver=solver.start(flow, y, at),
            controller=None if self._constant else jtu.tree_map(jnp.asarray, controller),
            noise=noise,
        )
        return self._settle(state, stalled=jnp.array(False))

    def resume(self, state: RunState) -> RunState:
        """The state of an earlier run, to go on from: running, unless it is at an end by what is asked now."""
        return self._settle(state, stalled=jnp.array(False))

    def advance(
        self,
        state: RunState,
        evaluations: tuple[Evaluations, Evaluations],
        going: Bool[Array, ""] | bool = True,
    ) -> RunState:
        """One attempted step. `evaluations` count, while tracing, those of an attempt and those of keeping it.

        With `going` false the run stays where it is, which costs an ensemble less here than undoing a whole step
        afterwards. Its value and gradient may then be evaluated once more, at the same params.
        """
        attempt, kept = evaluations
        at = self.known_at(state, attempt)
        trial = self._trial(state, at)
        if self._constant:
            moved = self._moved(state, trial, going)
            end = self._at_end(moved, trial, kept)
            known = end.known() if end.unknown else end.if_kept(going, at)
            return self._arrived(moved, known, going)

        keep, step, controller, failed = self._judgement(state, trial, going)
        keep = keep & going
        accepted = jnp.asarray(keep, jnp.int32)
        end = trial.at
        if state.noise is not None:
            # The next step sees another sample, of which nothing is known here yet.
            fn = self._objective(state.noise, state.accepted + 1)
            end = At(fn, trial.y.params, self.args, kept, kind=at.kind)
        end.evaluations = kept
        known = end.if_kept(keep, at)
        unmoved = _unmoved(state.y, trial.y)
        if going is True:
            y = _kept(keep, unmoved, _live(state), trial.y, state.y)
        else:  # lanes, which choose between both anyway: it would only cost (Euler-Richardson on poly3: 3.4 -> 3.6 ns)
            y = where(keep, trial.y, state.y)
        new = RunState(
            y=y,
            value=known.value,
            grad=known.grad,
            model=known.model,
            step=where(going, step, state.step),
            accepted=state.accepted + accepted,
            rejected=state.rejected + (jnp.asarray(going, jnp.int32) - accepted),
            code=state.code,
            solver=where(keep, trial.state, state.solver),
            controller=where(going, controller, state.controller),
            noise=state.noise,
        )
        # A step that changes nothing and will not be followed by a longer one: the run stands still.
        settled = self._settle(new, failed | (unmoved & (step <= state.step)))
        return eqx.tree_at(lambda s: s.code, settled, where(going, settled.code, state.code))

    def leaves_unknown(self, state: RunState) -> bool:
        """Whether every step is kept and tells nothing of where it leads: then `advance` is `depart`, `arrive`."""
        found = []

        def look(state):
            trial = self._trial(state, self.known_at(state, Evaluations()))
            found.append(state.noise is not None or trial.at.unknown)

        if self._constant:
            jax.eval_shape(look, state)
        return self._constant and found[0]

    def depart(
        self, state: RunState, evaluations: Evaluations, going: Bool[Array, ""] | bool = True
    ) -> RunState:
        """The first half of a step that `leaves_unknown`: the run is at its end, which is not evaluated."""
        trial = self._trial(state, self.known_at(state, evaluations))
        return self._moved(state, trial, going)

    def arrive(
        self, state: RunState, evaluations: Evaluations, going: Bool[Array, ""] | bool = True
    ) -> RunState:
        """The second half: the evaluation there, and whether the run has come to an end."""
        return self._arrived(state, self.known_at(state, evaluations).known(), going)

    def known_at(self, state: RunState, evaluations: Evaluations) -> At:
        """What is known of the objective at the params of `state`; `evaluations` count what is asked for beyond it."""
        kind = model_kind(self.method.flow, self._solver)
        known = state.value, state.grad, kind, state.model
        fn = self._objective(state.noise, state.accepted)
        return At(fn, state.params, self.args, evaluations, *known)

    def _trial(self, state: RunState, at: At, h: Float[Array, ""] | None = None) -> Trial:
        h = self._step(state) if h is None else h
        return self._solver.trial(self.method.flow, state.y, at, h, state.solver)

    def _moved(self, state: RunState, trial: Trial, going: Bool[Array, ""] | bool) -> RunState:
        """At the end of a step that is kept whatever it leads to. What stays behind does so before it is evaluated."""
        if going is True and trial.at.unknown and trial.at.kind is None:
            again = lambda: _led_to(self, state, self._step(state))[0]
            still = _unmoved(state.y, trial.y, again)
            y, solver = _made_unless(still, self, state)
        else:
            y, solver = where(going, (trial.y, trial.state), (state.y, state.solver))
            still = _unmoved(state.y, y) & going
        return eqx.tree_at(
            lambda s: (s.y, s.accepted, s.solver, s.code),
            forgotten(state),
            (
                y,
                state.accepted + jnp.asarray(going, jnp.int32),
                solver,
                jnp.where(still, STANDING, state.code),
            ),
            is_leaf=lambda x: x is None,
        )

    def _at_end(self, moved: RunState, trial: Trial, evaluations: Evaluations) -> At:
        """What `trial` tells of where it led."""
        end = trial.at
        if moved.noise is not None or end.unknown:
            return self.known_at(moved, evaluations)
        end.evaluations = evaluations
        return end

    def _arrived(self, moved: RunState, known: Known, going: Bool[Array, ""] | bool) -> RunState:
        settled = self._settle(knowing(moved, known), moved.code == STANDING)
        return eqx.tree_at(lambda s: s.code, settled, where(going, settled.code, moved.code))

    def _objective(self, noise: Array | None, n: Array) -> Objective:
        """What the n-th accepted step sees: the objective, or a sample of it."""
        if noise is None:
            return self.fn
        assert isinstance(self.fn, Stochastic)
        return self.fn.sample(noise, n)

    def _step(self, state: RunState) -> Float[Array, ""]:
        """The step to attempt. One that never changes is the method's, not the state's: so the compiler may know it."""
        if self._constant and self.method.step is not None:
            return jnp.asarray(self.method.step, state.step.dtype)
        return state.step

    @property
    def _constant(self) -> bool:
        return isinstance(self.method.controller, diffrax.ConstantStepSize)

    @property
    def _solver(self) -> AbstractFlowSolver:
        return native(self.method.solver, self.method.controller)

    @property
    def _controller(self) -> diffrax.AbstractStepSizeController:
        return self.method.controller.wrap(1)

    def _judgement(
        self, state: RunState, trial: Trial, going: Bool[Array, ""] | bool
    ) -> tuple[Any, Array, PyTree, Any]:
        judge = lambda: jtu.tree_map(jnp.asarray, self._judge(state, trial.y, trial.error))
        if going is True:
            return once_on_cpu(_live(state), judge)
        return judge() if self.live is None else computed_once(self.live, judge)

    def _judge(
        self, state: RunState, candidate: State, error: State | None
    ) -> tuple[Any, Array, PyTree, Any]:
        """Whether to keep the candidate, the next step, the controller's new state, and whether it gave up."""
        if error is not None:
            error = jtu.tree_map(lambda e: jnp.where(jnp.isnan(e), jnp.inf, e), error)
        # A candidate that is no number would make the controller's scale, and with it the next step, one too.
        candidate = jtu.tree_map(
            lambda new, old: jnp.where(jnp.isfinite(new), new, old), candidate, state.y
        )
        zero = jnp.zeros_like(state.step)
        order: Any = self._solver.error_order(FlowTerm(self.method.flow, self.fn))
        judged: tuple[Any, ...] = self._controller.adapt_step_size(
            zero, state.step, state.y, candidate, self.args, error, order, state.controller
        )
        keep, start, end, _, controller, result = judged
        failed = result != diffrax.RESULTS.successful
        controller = jtu.tree_map(
            lambda new, old: jnp.asarray(new, old.dtype), controller, state.controller
        )
        return keep, (end - start).astype(zero.dtype), controller, failed

    def _check(self, params: PyTree) -> None:
        """Raises, naming the argument, unless the objective and the flow fit the params: by tracing them, so at the
        first call of a compiled run and at no other."""
        flow, fn = self.method.flow, self.fn
        check_objective(fn, params, self.args)
        if model_kind(flow, self.method.solver) == "jacobian" and not isinstance(fn, SumOfSquares):
            raise TypeError(
                "`method`: it needs residuals, and `fn` is a scalar loss; use "
                "flowopt.least_squares(residuals, params, method)"
            )
        check_flow_shapes(flow, fn, params, self.args)

    def _settle(self, state: RunState, stalled: Any) -> RunState:
        """The outcome, if the run has come to one; see also `at_its_end`."""
        size = sum_squares(state.grad)
        diverged = ~jnp.isfinite(size + state.value.astype(size.dtype))
        if self.stop is None:
            converged = state.grad_norm < self.tol
        else:
            converged = jnp.asarray(self.stop(state), bool)
        code = jnp.asarray(RUNNING, jnp.int32)
        if self.max_steps is not None:
            code = jnp.where(state.attempted >= self.max_steps, code_of("max_steps"), code)
        code = jnp.where(stalled, code_of("stalled"), code)
        code = jnp.where(converged, code_of("converged"), code)
        code = jnp.where(diverged, code_of("diverged"), code)
        return eqx.tree_at(lambda s: s.code, state, code.astype(jnp.int32))


@jax.custom_jvp
def _kept(keep: Array, unmoved: Array, live: Array, new: State, old: State) -> State:
    """`new` if `keep`, else `old`; which of them is all the same where nothing has moved.

    The comparison comes first so that the compiler may write over `old` without copying it (a guarded step of 10^6
    params on 100 data: 1.17 times one of optax's loop -> 1.08). The derivative is that of `new` all the same.
    """
    turns = in_turn(keep & ~unmoved, live)
    return jtu.tree_map(lambda x, y: jnp.where(next(turns), x, y), new, old)


@_kept.defjvp
def _(primals, tangents):
    keep, _, _, new, old = primals
    return where(keep, new, old), where(keep, *tangents[3:])


@eqx.filter_custom_jvp
def _made_unless(still: Bool[Array, ""], stepper: Stepper, state: RunState) -> tuple[State, PyTree]:
    """Where a step leads, and what the solver remembers; one of length 0 if `still`, when it is to change nothing.

    So all that reads the run's arrays comes before what is written over them, as far as the compiler can tell, and it
    copies none of them: a step of Adam copied 21 (10^6 params on 100 data: it took 1.24 times optax's loop, and takes
    1.00). Each leaf of the gradient waits for `still` in its own turn. The derivative is that of the step all the same.
    """
    h = stepper._step(state)
    turns = in_turn(still, _live(state))
    grad = jtu.tree_map(lambda g: jnp.where(next(turns), jnp.zeros_like(g), g), state.grad)
    state = eqx.tree_at(lambda s: s.grad, state, grad)
    return _led_to(stepper, state, jnp.where(still, jnp.zeros_like(h), h))


@_made_unless.def_jvp
def _(primals, tangents):
    of_state = lambda stepper, state: _led_to(stepper, state, stepper._step(state))
    return eqx.filter_jvp(of_state, primals[1:], tangents[1:])


def _led_to(stepper: Stepper, state: RunState, h: Array) -> tuple[State, PyTree]:
    trial = stepper._trial(state, stepper.known_at(state, Evaluations()), h)
    return trial.y, trial.state


def _live(state: RunState) -> Bool[Array, ""]:
    """True, which the compiler does not know."""
    return state.attempted >= 0


def _unmoved(old: State, new: State, again: Callable[[], State] | None = None) -> Bool[Array, ""]:
    """Whether all of `new` equals `old`. The smallest of the params is looked at first, the rest, or what `again`
    makes of it, only where that has not moved: else each step would be a pass over all that the run holds."""
    old, new = jax.lax.stop_gradient((old, new))
    a, b = jtu.tree_leaves(old), jtu.tree_leaves(new)
    i = min(range(len(jtu.tree_leaves(new.params))), key=lambda i: a[i].size)

    def rest():
        c = b if again is None else jtu.tree_leaves(jax.lax.stop_gradient(again()))
        return equal(a[:i] + a[i + 1 :], c[:i] + c[i + 1 :])

    return jax.lax.cond(equal(a[i], b[i]), rest, lambda: jnp.array(False))


def make_stepper(
    fn: Objective,
    params: PyTree,
    method: Method,
    args: Any,
    tol: float,
    max_steps: int | None,
    stop: Stop | None,
) -> Stepper:
    """The stepper of a run from `params`-like starts; raises, naming the argument, on anything that cannot run."""
    if not isinstance(method, Method):
        raise TypeError(
            f"`method` must be a flowopt.Method, such as flowopt.gd(0.1); got {method!r}"
        )
    if not callable(fn):
        raise TypeError(f"`fn` must be callable as fn(params, args); got {fn!r}")
    if isinstance(tol, bool) or not (isinstance(tol, float | int) or eqx.is_array_like(tol)):
        raise TypeError(f"`tol` must be a number > 0, on the gradient's 2-norm; got {tol!r}")
    if isinstance(tol, float | int) and not tol > 0:
        raise ValueError(f"`tol` must be > 0, on the gradient's 2-norm; got {tol}")
    if max_steps is not None:
        if isinstance(max_steps, bool) or not isinstance(max_steps, int):
            raise TypeError(f"`max_steps` must be an int >= 0, or None; got {max_steps!r}")
        if max_steps < 0:
            raise ValueError(f"`max_steps` must be >= 0; got {max_steps}")
    if stop is not None and not callable(stop):
        raise TypeError(f"`stop` must be a function of the run's state; got {stop!r}")
    # A traced tolerance, so that changing it compiles nothing.
    return Stepper(method, fn, args, jnp.asarray(tol, real_dtype(params)), max_steps, stop)
