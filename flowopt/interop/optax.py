"""A method as an optax transformation."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, Int, PyTree

from flowopt.flows.flow import FlowTerm, State
from flowopt.methods import Method
from flowopt.objective import At, Evaluations
from flowopt.run.step import RunState, Stepper
from flowopt.solvers import StaggeredEuler
from flowopt.solvers.native import native
from flowopt.solvers.trial import model_kind
from flowopt.tree import real_dtype, sum_squares, where

try:
    import optax
except ImportError as e:
    raise ImportError(
        "flowopt.as_optax needs optax: pip install 'flowopt[optax]', or pip install optax"
    ) from e


class OptaxState(NamedTuple):
    """What a method remembers between two calls of `update`."""

    attempted: Int[Array, ""]
    """Steps attempted."""
    memory: PyTree
    """The flow's."""
    solver: PyTree
    """The solver's."""
    controller: PyTree
    """The controller's."""
    step: Float[Array, ""] | None
    """The step to attempt next [time]; None for a constant step, which is the method's own."""
    value: Float[Array, ""] | None
    """R at the params that the last updates led to, infinite at first; None where `value_fn` is not needed [loss]."""
    grad: PyTree
    """grad R there, likewise: both are what `optax.value_and_grad_from_state` looks for [loss/params]."""


def as_optax(method: Method) -> optax.GradientTransformationExtraArgs:
    """`method` as an optax transformation: `optax.apply_updates(params, updates)` makes one attempted step of it.

        tx = flowopt.as_optax(method)
        state = tx.init(params)
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)

    `update` takes what comes in for the gradient, so in an `optax.chain` what stands before changes what the flow
    follows. `params` is always needed. One-stage methods with a constant step (`gd`, `momentum`, `adam`, ...) need no
    more. All others evaluate the loss elsewhere (a guard at the candidate, a Runge-Kutta pair at its stages, Newton
    a Hessian) and need `value_fn`, a function of the params alone, and of those extra arguments of `update` that it
    names; `value` saves them a forward pass. They keep value and gradient of the point they arrive at for
    `optax.value_and_grad_from_state(value_fn)(params, state=state)`, as optax's line searches do: with it the
    loop evaluates each point once, as `flowopt.minimise` does. A step that is refused gives updates of 0.

    The iterates are those of `minimise`, made by the same operations in the same order, where update and
    `apply_updates` are compiled together (one `jit`, or a `scan`), the step is one sum, params + h f, and what a guard
    compares are its own values (`value_and_grad_from_state`). To the bit, then, but for what the compiler does: XLA
    joins products and sums to fused multiply-adds, not always the same ones in an optax loop and in a run. (Told not
    to, by `XLA_FLAGS=--xla_cpu_max_isa=AVX`, it gives the same bits.) Not one sum are the steps of pairs such as
    `euler_richardson`, and `proximal_point`. There is no `tol`: the loop is the caller's.

    Works under `jit`, `scan`, `vmap`, `optax.chain`, `masked` and `MultiSteps`, and under `inject_hyperparams`, which
    makes the method anew at every step: the memory stays, in the units of the flow's own time.

    Raises TypeError or ValueError for a method that needs residuals (see `as_optimistix`) or leaves its first step to
    the controller, and from `update` where `params` or `value_fn` are missing.
    """
    if not isinstance(method, Method):
        raise TypeError(
            f"`method` must be a flowopt.Method, such as flowopt.gd(0.1); got {method!r}"
        )
    kind = model_kind(method.flow, method.solver)
    if kind == "jacobian":
        raise ValueError(
            "`method`: it needs residuals, and optax knows the loss alone; use flowopt.least_squares(residuals, "
            "params, method), or flowopt.as_optimistix(method)"
        )
    if method.step is None:
        raise ValueError(
            "`method` must have a first `step`: optax starts without the loss, of which the controller would "
            "choose it"
        )
    flow, solver = method.flow, native(method.solver, method.controller)
    constant = isinstance(method.controller, diffrax.ConstantStepSize)
    plain = isinstance(solver, StaggeredEuler) or type(method.solver) is diffrax.Euler
    evaluates = not (constant and plain and kind is None)

    def init(params: PyTree) -> Any:
        y = State(params, flow.init(params))
        at = At(_any_loss, params, None, Evaluations(), kind=kind)
        zero = jnp.zeros((), real_dtype(params))
        first = jnp.asarray(method.step, zero.dtype)
        term = FlowTerm(flow, _any_loss)
        end, controller = method.controller.wrap(1).init(
            term, zero, zero + jnp.inf, y, first, None, solver.func, solver.error_order(term)
        )
        # The loss is not known yet: what the solver remembers is made at the first update.
        shapes = jax.eval_shape(lambda y: solver.start(flow, y, at.elsewhere(y.params)), y)
        return OptaxState(
            attempted=jnp.zeros((), jnp.int32),
            memory=y.memory,
            solver=jtu.tree_map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
            controller=jtu.tree_map(jnp.asarray, controller),
            step=None if constant else jnp.asarray(end, zero.dtype),
            value=zero + jnp.inf if evaluates else None,
            grad=jtu.tree_map(jnp.zeros_like, params) if evaluates else None,
        )

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        value: Any = None,
        grad: PyTree = None,
        value_fn: Callable[..., Any] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, Any]:
        del grad  # what came through the chain counts
        if params is None:
            raise ValueError(
                "`params` must be given: call update(grad, state, params) with the present params"
            )
        scalar = real_dtype(params)
        fn = _loss(value_fn, extra)
        value = None if value is None else jnp.asarray(value, scalar)
        y = State(params, state.memory)
        at = At(fn, params, None, Evaluations(), value, updates, kind)
        # A run makes steps of length 0 once it stands still, so its compiler knows no step: nor may this one.
        h = jnp.asarray(method.step, scalar) if state.step is None else state.step
        h = jnp.where(state.attempted < 0, jnp.zeros_like(h), h)
        inner = state.solver
        if jtu.tree_leaves(inner):
            begin = lambda: solver.start(flow, y, at)
            inner = jax.lax.cond(state.attempted == 0, begin, lambda: state.solver)
        trial = solver.trial(flow, y, at, h, inner)

        run = RunState(y, at, updates, None, h, 0, 0, 0, inner, state.controller, None)  # pyright: ignore
        judge = Stepper(method, fn, None, 0.0, None)._judge
        keep, step, controller, _ = judge(run, trial.y, trial.error)
        known = None
        if evaluates:
            at.kind = trial.at.kind = None  # a Hessian that is not kept need not be taken
            known = trial.at.if_kept(keep, at)
        return _move(keep, params, trial), OptaxState(
            attempted=jnp.asarray(optax.safe_increment(state.attempted)),
            memory=where(keep, trial.y.memory, state.memory),
            solver=where(keep, trial.state, inner),
            controller=controller,
            # Where nothing is left to gain it would grow past all numbers.
            step=None if state.step is None else jnp.where(jnp.isfinite(step), step, h),
            value=None if known is None else known.value,
            grad=None if known is None else known.grad,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _move(keep: Any, params: PyTree, trial: Any) -> PyTree:
    """What to add to `params`: the move of the trial if kept, else 0."""
    if trial.move is None:
        move = jtu.tree_map(jnp.subtract, trial.y.params, params)
        return where(keep, move, jtu.tree_map(jnp.zeros_like, move))
    # A product to the last, not a choice between it and 0: so it is fused into the sum with the params as the step's
    # own was, and gives the same bits.
    length, velocity = trial.move
    if not isinstance(keep, bool):
        length = jnp.where(keep, length, jnp.zeros_like(length))
        # What is refused may not be finite; 0 times it must be 0.
        finite = lambda f: jnp.where(jnp.isfinite(f), f, jnp.zeros_like(f))
        velocity = jtu.tree_map(finite, velocity)
    return jtu.tree_map(lambda f: length.astype(f.dtype) * f, velocity)


def _any_loss(params: PyTree, args: Any) -> Float[Array, ""]:
    """Some loss, for its shape."""
    return sum_squares(params)


def _loss(
    value_fn: Callable[..., Any] | None, extra: dict[str, Any]
) -> Callable[[PyTree, Any], Any]:
    """`value_fn` as fn(params, args); one that says what is missing where there is none."""
    named = {}
    if value_fn is not None:
        named = {k: v for k, v in extra.items() if k in inspect.signature(value_fn).parameters}

    def loss(params: PyTree, args: Any) -> Any:
        if value_fn is None:
            raise ValueError(
                "`value_fn` must be given: this method evaluates the loss itself, beyond the gradient it is given. "
                "Call update(grad, state, params, value=value, grad=grad, value_fn=loss)"
            )
        is_masked = lambda x: isinstance(x, optax.MaskedNode)
        if any(map(is_masked, jtu.tree_leaves(params, is_leaf=is_masked))):
            raise ValueError(
                "`value_fn` is a function of all params, and under optax.masked this method sees some of them; give it "
                "the loss of these alone, or take a method that needs no `value_fn`, such as flowopt.adam(1e-3)"
            )
        return value_fn(params, **named)

    return loss
