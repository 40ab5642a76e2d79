"""The compiled part of an ensemble: lanes that step together, each one run.

Every array has the lanes as its last axis, so that one instruction serves neighbouring lanes whatever the
shape of the params; users' functions are written for one run all the same, and mapped here.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from flowopt.objective import Evaluations, Objective
from flowopt.run.outcome import RUNNING, code_of
from flowopt.run.step import RunState, Stepper
from flowopt.solvers.trial import model_kind
from flowopt.stochastic import Stochastic
from flowopt.tree import inner, where

SEGMENT = 512
"""Most steps before the host looks in."""


class _EvaluatedOnce(eqx.Module):
    """`fn`, of which one computation gives value and gradient, in a branch that XLA fuses with nothing else.

    XLA's CPU compiler makes a loop of its own for each array that a step returns, and into each fuses all that
    it depends on: a gradient would be computed once for every param, moment and counter (measured on poly3, 2,048
    lanes: GD 7.3 -> 4.7 ns a step, Euler-Richardson 27 -> 12). What a conditional returns is computed once.
    `live` is always true, which the compiler cannot know. Under vmap the gradient of an attempt is
    computed whether it is kept or not, so nothing is lost by computing it beside the value.
    """

    fn: Objective
    live: Bool[Array, ""]

    def __call__(self, params: PyTree, args: Any) -> Float[Array, ""]:
        plain = jax.value_and_grad(lambda p: self.fn(p, args))

        # Derivatives of any order: those of the gradient itself are taken of the plain function.
        @jax.custom_jvp
        def both(p):
            none = jtu.tree_map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(plain, p))
            return jax.lax.cond(self.live, plain, lambda _: none, p)

        @jax.custom_jvp
        def value(p):
            return both(p)[0]

        @both.defjvp
        def _(primals, tangents):
            return jax.jvp(plain, primals, tangents)

        @value.defjvp
        def _(primals, tangents):
            end, grad = both(*primals)
            return end, inner(grad, *tangents).astype(end.dtype)

        return value(params)


def _over_lanes(fn):
    return jax.vmap(fn, in_axes=-1, out_axes=-1)


def results_of(state: RunState) -> tuple:
    """What is kept of a run that has ended."""
    ends = state.params, state.value, state.grad_norm
    return *ends, state.code, state.accepted, state.rejected


@eqx.filter_jit
def begin(stepper: Stepper, starts: PyTree) -> RunState:
    """The lanes at `starts`, none of them running."""
    state = _over_lanes(stepper.start)(starts)
    return eqx.tree_at(lambda s: s.code, state, jnp.zeros_like(state.code))


@eqx.filter_jit
def advance(
    stepper: Stepper,
    state: RunState,
    starts: PyTree,
    fresh: Bool[Array | np.ndarray, " width"],
    floor: Int[Array | np.ndarray, ""],
) -> tuple[RunState, Bool[Array, " width"], tuple]:
    """Puts the `fresh` lanes at their starts, then steps all until no more than `floor` run, or for `SEGMENT` steps.

    Returns the lanes, which of them have ended, and what is to be kept of those. A lane that has ended stays
    as it is.
    """
    refill = lambda: _over_lanes(where)(
        jnp.asarray(fresh), _over_lanes(stepper.start)(starts), state
    )
    state = jax.lax.cond(jnp.any(fresh), refill, lambda: state)
    # Of a stochastic objective each step samples its own; second-order methods evaluate more than value and gradient.
    one_evaluation = model_kind(
        stepper.method.flow, stepper.method.solver
    ) is None and not isinstance(stepper.fn, Stochastic)

    def going_on(carry):
        n, state, _ = carry
        return (n < SEGMENT) & (jnp.sum(state.code == RUNNING, dtype=jnp.int32) > floor)

    def body(carry):
        n, state, before = carry
        fn = _EvaluatedOnce(stepper.fn, n >= 0) if one_evaluation else stepper.fn
        here = Stepper(
            stepper.method, fn, stepper.args, stepper.tol, stepper.max_steps, stepper.stop
        )
        running = state.code == RUNNING

        def step(state: RunState) -> RunState:
            return here.advance(state, (Evaluations(), Evaluations()), state.code == RUNNING)

        before = _over_lanes(where)(running, state.params, before)
        return n + 1, _over_lanes(step)(state), before

    carry = jnp.zeros((), jnp.int32), state, state.params
    _, after, before = jax.lax.while_loop(going_on, body, carry)
    diverged = (state.code == RUNNING) & (after.code == code_of("diverged"))
    undo = lambda: _over_lanes(where)(diverged, _over_lanes(_undone(stepper))(after, before), after)
    after = jax.lax.cond(jnp.any(diverged), undo, lambda: after)
    # What had ended before, at its very start perhaps, keeps the value that it had there to the last bit.
    state = _over_lanes(where)(state.code == RUNNING, after, state)
    return state, state.code != RUNNING, _over_lanes(results_of)(state)


def _undone(stepper: Stepper):
    """The results of a run whose last step diverged, without that step; they are evaluated once more at its start.

    Only the params before each step are carried along. To undo a step inside the loop cost GD on poly3 a third of its
    time, this an eighth.
    """

    def undone(state: RunState, before: PyTree) -> RunState:
        n = state.accepted - 1
        state = eqx.tree_at(
            lambda s: (s.y.params, s.accepted, s.rejected, s.value, s.grad, s.model),
            state,
            (before, n, state.rejected + 1, None, None, None),
            is_leaf=lambda x: x is None,
        )
        known = stepper.known_at(state, Evaluations()).known()
        new = known.value, known.grad, known.model
        return eqx.tree_at(
            lambda s: (s.value, s.grad, s.model), state, new, is_leaf=lambda x: x is None
        )

    return undone
