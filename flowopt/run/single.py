"""One run of a method."""

from collections.abc import Sequence
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PyTree

from flowopt.methods import Method, default_method
from flowopt.objective import Objective, check_params
from flowopt.run.history import make_recorder
from flowopt.run.loop import whole
from flowopt.run.solution import Solution, solution_of
from flowopt.run.step import RunState, Stop, make_stepper
from flowopt.run.watch import Callback, Watch, watched


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
    callback: Callback | None = None,
    every: int = 100,
    progress: bool | str = False,
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
    - `callback`: a function of the run so far, a `Solution` whose outcome is "running"; called after every `every`
      attempted steps, counted from the run's first, and once the run has ended. True ends the run, as converged.
    - `progress`: show a progress bar of attempted steps, with loss, gradient norm and step, in the end the outcome; a
      string to put before it.
    - `adjoint`: how the run is differentiated, with respect to `params`, `args` or the method's numbers;
      any of Diffrax's that allows it, `RecursiveCheckpointAdjoint()` by default.

    A run with `callback` or `progress` is the same to the bit: it is compiled in segments, between which both are
    called from Python, with arrays; so neither goes under `jit`, `vmap` or `grad`.

    Failure is data: see `Solution.outcome`; nothing raises under `jit` or `vmap`. A run that diverges ends at its last
    good params: it is made once more, up to there, so it takes up to twice as long, and what `fn` prints is printed
    again. Raises TypeError or ValueError at once, naming the argument, for arguments that cannot run.
    """
    method = default_method() if method is None else method
    watch = Watch(history, capacity, callback, every, progress)
    names = ("value", "hessian")
    return run(fn, params, method, args, tol, max_steps, stop, watch, adjoint, names)


def run(
    fn: Objective,
    params: PyTree,
    method: Method,
    args: Any,
    tol: float,
    max_steps: int | None,
    stop: Stop | None,
    watch: Watch,
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
    recorder = make_recorder(watch.history, watch.capacity, method.flow)
    start = params if begun is None else begun
    if watch.live:
        return watched(stepper, start, adjoint, recorder, watch, names)
    return solution_of(*whole(stepper, start, adjoint, recorder), names)


def _check_state(state: RunState, expected: RunState) -> None:
    """Raises ValueError unless `state` is one of this method on such params."""
    kinds = lambda tree: jtu.tree_map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
    if kinds(state) != kinds(expected):
        raise ValueError(
            "`params`: this state is of another method, or of params of other shapes or dtypes; give it to the "
            f"method that made it. It holds {state}; expected {expected}"
        )
