"""One run of a method, through `diffrax.diffeqsolve`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.flows.flow import field
from flowopt.methods import Method, default_method
from flowopt.objective import Evaluations, Objective, check_params
from flowopt.run.history import History, Recorder, make_recorder
from flowopt.run.outcome import RUNNING, Outcome
from flowopt.run.step import RunState, Stepper, Stop, make_stepper
from flowopt.tree import sum_squares


class Solution(eqx.Module):
    """The end of a run."""

    params: PyTree
    """The last params kept."""
    value: Float[Array, ""]
    """R there [loss]."""
    grad: PyTree
    """grad R there [loss/params]."""
    grad_norm: Float[Array, ""]
    """Its 2-norm."""
    outcome: Outcome
    """How the run ended: compare with "converged", "max_steps", "stalled" or "diverged"."""
    stats: dict[str, Any]
    """`accepted` and `rejected` steps; `value_evals` and `grad_evals`, the forward and backward passes taken,
    `hessian_evals`, and `hessian_products`, n for each Hessian of n params that is formed and those of the
    conjugate gradients of `RosenbrockEuler` (None for solvers with an inner loop, whose evaluations are not
    counted); `step`, the next step it would have attempted [time]; `field_norm`, the 2-norm of the flow's field at
    the end. From `least_squares`, `residual_evals` and `jacobian_evals` stand for `value_evals` and `hessian_evals`."""
    state: RunState
    """All that a next step would need, memory included."""
    history: History | None
    """What was recorded on the way, where that was asked for."""


def minimise(
    fn: Objective,
    params: PyTree,
    method: Method | None = None,
    *,
    args: Any = None,
    tol: float = 1e-6,
    max_steps: int | None = 10_000,
    stop: Stop | None = None,
    history: Sequence[str] | str | bool | None = None,
    capacity: int = 1024,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Solution:
    """Runs `method` on fn(params, args) from `params` until |grad R|_2 < `tol`.

    - `params`: any pytree of floating arrays; their dtypes are kept. Or the `state` of an earlier solution by the same
      method: the run goes on from there as if it had never ended, to the same bits; `max_steps` and the counts of
      steps are those of the whole, counts of evaluations and the history those of this call.
    - `method`: None for `default_method()`, which has nothing to tune.
    - `tol`: on the 2-norm of the gradient [loss/params].
    - `max_steps`: bound on the steps attempted, kept or not; None for none (not differentiable then).
    - `stop`: a function of the run's state (`params`, `memory`, `value`, `grad`, `grad_norm`, `step`,
      `accepted`, `rejected`), tested after every attempted step in place of the gradient test.
    - `history`: what to record at the accepted steps, see `flowopt.History`: names among "time", "step", "value",
      "grad_norm", "energy", "kinetic", "rate", "defect"; True for all that the flow has; None for nothing.
    - `capacity`: most records kept, an even number: when they are as many, every other one is dropped, and from
      then on only every second accepted step recorded, and so on.
    - `adjoint`: how the run is differentiated, with respect to `params`, `args` or the method's numbers;
      any of Diffrax's that allows it, `RecursiveCheckpointAdjoint()` by default.

    Failure is data: see `Solution.outcome`; nothing raises under `jit` or `vmap`. Raises TypeError or
    ValueError at once, naming the argument, for arguments that cannot run.
    """
    method = default_method() if method is None else method
    names = ("value", "hessian")
    return run(fn, params, method, args, tol, max_steps, stop, history, capacity, adjoint, names)


def run(
    fn: Objective,
    params: PyTree,
    method: Method,
    args: Any,
    tol: float,
    max_steps: int | None,
    stop: Stop | None,
    history: Sequence[str] | str | bool | None,
    capacity: int,
    adjoint: diffrax.AbstractAdjoint | None,
    names: tuple[str, str],
) -> Solution:
    """What `minimise` and `least_squares` share; `names` of a forward pass and of a matrix are for the stats."""
    begun = params if isinstance(params, RunState) else None
    params = check_params(params if begun is None else begun.params)
    stepper = make_stepper(fn, params, method, args, tol, max_steps, stop)
    if begun is not None:
        _check_state(begun, jax.eval_shape(stepper.start, params))
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    recorder = make_recorder(history, capacity, method.flow)
    state, counts, recorded, speed = _solve(
        stepper, params if begun is None else begun, adjoint, recorder
    )
    values, grads, matrices, products = (None,) * 4 if counts is None else counts
    stats = {
        "accepted": state.accepted,
        "rejected": state.rejected,
        f"{names[0]}_evals": values,
        "grad_evals": grads,
        f"{names[1]}_evals": matrices,
        "hessian_products": products,
        "step": state.step,
        "field_norm": speed,
    }
    return Solution(
        params=state.params,
        value=state.value,
        grad=state.grad,
        grad_norm=state.grad_norm,
        outcome=Outcome(state.code),
        stats=stats,
        state=state,
        history=recorded,
    )


class _Counted(eqx.Module):
    """A run's state less `y`; the evaluations made so far, None where they cannot be counted; and its history."""

    state: RunState
    counts: tuple[Array, ...] | None
    history: History | None


class _Steps(diffrax.AbstractSolver):
    """A run's step as a solver, so that `diffeqsolve` is the loop: its adjoints, and differentiation, work.

    The step has already been judged when `diffeqsolve` sees it, so the controller there keeps every one.
    """

    stepper: Stepper
    recorder: Recorder | None

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms):
        return 1

    def init(self, terms, t0, t1, y0, args):
        raise NotImplementedError("the state is given to diffeqsolve")

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        old = eqx.tree_at(lambda s: s.y, solver_state.state, y0, is_leaf=lambda x: x is None)
        attempt, kept = Evaluations(), Evaluations()
        new = self.stepper.advance(old, (attempt, kept))
        counts = None
        if solver_state.counts is not None:
            n = new.accepted - old.accepted
            counts = tuple(
                count + always + n * if_kept
                for count, always, if_kept in zip(
                    solver_state.counts, _numbers(attempt), _numbers(kept), strict=True
                )
            )
        history = solver_state.history
        if self.recorder is not None:
            history = self.recorder.update(history, self.stepper, old, new)
        counted = _Counted(eqx.tree_at(lambda s: s.y, new, None), counts, history)
        ended = (new.code != RUNNING).astype(jnp.result_type(t0))
        return new.y, ended, dict(y0=y0, y1=new.y), counted, diffrax.RESULTS.successful

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


@eqx.filter_jit
def _solve(
    stepper: Stepper, params: PyTree, adjoint: diffrax.AbstractAdjoint, recorder: Recorder | None
):
    begun = Evaluations()
    if isinstance(params, RunState):
        start = stepper.resume(params)
    else:
        start = stepper.start(params, begun)
    counts = None
    if _countable(stepper, start):
        counts = tuple(jnp.asarray(n, jnp.int32) for n in _numbers(begun))
    history = None if recorder is None else recorder.start(stepper, start)
    counted = _Counted(eqx.tree_at(lambda s: s.y, start, None), counts, history)
    # `diffeqsolve` promotes the state to the dtype of the time: take the lowest.
    dtype = min((x.dtype for x in jtu.tree_leaves(start.y)), key=lambda d: jnp.finfo(d).bits)
    clock = jnp.zeros((), dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: y),
        _Steps(stepper, recorder),
        clock,
        (start.code == RUNNING).astype(dtype),
        clock + 1,
        start.y,
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
        stepsize_controller=_KeepAll(),
        solver_state=counted,
        adjoint=adjoint,
        max_steps=None if stepper.max_steps is None else max(stepper.max_steps, 1),
        throw=False,
    )
    y = jtu.tree_map(lambda x: x[-1], solution.ys)
    final: Any = solution.solver_state
    state = eqx.tree_at(lambda s: s.y, final.state, y, is_leaf=lambda x: x is None)
    at = stepper.known_at(state, Evaluations())
    speed = jnp.sqrt(sum_squares(field(stepper.method.flow, state.y, at)))
    return state, final.counts, final.history, speed


def _check_state(state: RunState, expected: RunState) -> None:
    """Raises ValueError unless `state` is one of this method on such params."""
    kinds = lambda tree: jtu.tree_map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
    if kinds(state) != kinds(expected):
        raise ValueError(
            "`params`: this state is of another method, or of params of other shapes or dtypes; give it to the "
            f"method that made it. It holds {state}; expected {expected}"
        )


def _numbers(evaluations: Evaluations) -> tuple[Any, ...]:
    return evaluations.values, evaluations.grads, evaluations.matrices, evaluations.products


def _countable(stepper: Stepper, state: RunState) -> bool:
    """Whether the evaluations of a step are straight-line code, so that tracing it counts them."""
    attempt, kept = Evaluations(), Evaluations()
    jax.eval_shape(lambda s: stepper.advance(s, (attempt, kept)), state)
    return attempt.exact and kept.exact
