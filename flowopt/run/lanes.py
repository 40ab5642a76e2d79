"""The compiled part of an ensemble: lanes that step together, each one run.

Every array has the lanes as its last axis, so that one instruction serves neighbouring lanes whatever the
shape of the params; users' functions are written for one run all the same, and mapped here.
"""

import functools as ft
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from flowopt.objective import Evaluations, Objective
from flowopt.run.compiling import compiled, computed_once, in_one_function
from flowopt.run.outcome import RUNNING, code_of
from flowopt.run.step import RunState, Stepper, at_its_end, forgotten, knowing
from flowopt.solvers.trial import model_kind
from flowopt.stochastic import Stochastic
from flowopt.tree import inner, where

REFILL = 16.0
"""What a round costs, in steps of all lanes: to evaluate the starts, to write down what has ended. (On poly3, with GD,
Adam, Euler-Richardson and guarded GD, 40 to 2,000 steps a run: 8 to 32 are alike within about a tenth.)"""


class Plan(NamedTuple):
    """How the loop is compiled."""

    width: int
    rounds: int
    """At most so many in one call."""
    unrolled: int
    """Steps in the body of the loop, whose every turn copies what it hands on."""
    as_one: bool
    """Whether all of it is one function of machine code; a step must be `compiling.plain` for that."""


class _EvaluatedOnce(eqx.Module):
    """`fn`, of which one computation gives value and gradient (see `computed_once`; measured on poly3, ns a step: GD
    1.8 -> 1.7, Adam 3.9 -> 3.4, Euler-Richardson 5.7 -> 3.5).

    Under vmap the gradient of an attempt is computed whether it is kept or not, so nothing is lost by computing it
    beside the value.
    """

    fn: Objective
    live: Bool[Array, ""]

    def __call__(self, params: PyTree, args: Any) -> Float[Array, ""]:
        plain = jax.value_and_grad(lambda p: self.fn(p, args))

        # Derivatives of any order: those of the gradient itself are taken of the plain function.
        @jax.custom_jvp
        def both(p):
            return computed_once(self.live, lambda: plain(p))

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


def over_lanes(fn):
    """`fn`, written for one run, of many: lanes last, in and out."""
    return jax.vmap(fn, in_axes=-1, out_axes=-1)


def results_of(state: RunState) -> tuple:
    """What is kept of a run that has ended."""
    ends = state.params, state.value, state.grad_norm
    return *ends, state.code, state.accepted, state.rejected


class Lanes(eqx.Module):
    """Runs side by side, the last axis of every array."""

    state: RunState
    """Without value, gradient and model where a step leaves them unknown: see `_step`."""
    first: PyTree
    """The start of each."""
    until: Int[Array, " width"]
    """Steps attempted, at most: fewer than `max_steps` where a run that diverged is made once more, up to the step
    before."""
    owner: Int[Array, " width"]
    """The number of the run that each lane holds; -1 where it holds none."""


class Pool(eqx.Module):
    """Starts that lanes may take."""

    starts: PyTree
    """Lanes last, like everything; more than `size` where there are not as many."""
    first: Int[np.ndarray, ""]
    """The number of the first run."""
    taken: Int[np.ndarray, ""]
    """How many of them lanes have taken already."""
    size: Int[np.ndarray, ""]
    last: Bool[np.ndarray, ""]
    """Whether no others will follow."""


class Ended(eqx.Module):
    """What is kept of the runs that ended in each round."""

    owner: Int[Array, "rounds width"]
    """Which run; -1 where none ended."""
    results: tuple
    """`results_of` each, the rounds as first axis and the lanes as last."""


@eqx.filter_jit
def empty(stepper: Stepper, one: PyTree, width: int) -> Lanes:
    """Lanes without runs, for params like `one`."""
    number = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = eqx.filter_eval_shape(ft.partial(_start, stepper), one, number)
    zeros = lambda x: jnp.zeros((*x.shape, width), x.dtype) if _is_shape(x) else x
    state = jtu.tree_map(zeros, shapes)
    none = jnp.full(width, -1, jnp.int32)
    return Lanes(state, state.params, none, none)


@compiled
def advance(
    stepper: Stepper,
    lanes: Lanes,
    pool: Pool,
    limit: Int[np.ndarray, ""],
    plan: Plan,
) -> tuple[Lanes, Int[Array, ""], Ended, Int[Array, ""]]:
    """Fills the lanes from the pool, steps them, takes out what has ended, and so on: `plan.rounds` times, for `limit`
    steps, or until the pool is empty. Returns the lanes, `taken` of the pool, what has ended, and the steps made.

    A lane whose run has ended stands idle, at its cost, until the next round, which has a cost of its own. So a round
    ends when the lanes have stood idle for as long as it costs: of all rules that do not know how long a run
    takes, none is better by more than a factor of two, and where runs end at a steady rate none is
    better at all.
    """
    width, rounds = plan.width, plan.rounds
    none = jnp.zeros((), jnp.int32)
    results = jax.eval_shape(ft.partial(_ends, stepper), lanes)
    blocks = jtu.tree_map(lambda x: jnp.zeros((rounds, *x.shape), x.dtype), results)
    ended = Ended(jnp.full((rounds, width), -1, jnp.int32), blocks)

    def going_on(carry):
        turn, steps, taken, lanes, _ = carry
        more = (taken < pool.size) | (pool.last & jnp.any(lanes.owner >= 0))
        return (turn < rounds) & (steps < limit) & more

    def body(carry):
        turn, steps, taken, lanes, ended = carry
        lanes, taken = _refill(stepper, lanes, pool, taken)
        patience = jnp.where(pool.last & (taken >= pool.size), jnp.inf, REFILL)
        lanes, steps = _step(
            stepper, lanes, steps, limit, patience.astype(jnp.float32), plan.unrolled
        )
        lanes = eqx.tree_at(lambda l: l.state, lanes, over_lanes(at_its_end)(lanes.state))
        over = (lanes.owner >= 0) & (lanes.state.code >= 0) & ~_to_make_again(stepper, lanes)
        out = Ended(jnp.where(over, lanes.owner, -1), _ends(stepper, lanes))
        ended = jtu.tree_map(lambda all, x: all.at[turn].set(x), ended, out)
        lanes = eqx.tree_at(lambda l: l.owner, lanes, jnp.where(over, -1, lanes.owner))
        return turn + 1, steps, taken, lanes, ended

    start = none, none, pool.taken, lanes, ended
    loop = lambda carry: jax.lax.while_loop(going_on, body, carry)
    _, steps, taken, lanes, ended = (in_one_function(loop) if plan.as_one else loop)(start)
    return lanes, taken, ended, steps


def _start(stepper: Stepper, params: PyTree, until: Int[Array, ""]) -> RunState:
    """A run before its first step, evaluated where the step wants to know."""
    state = _up_to(stepper, until).start(params)
    if not stepper.leaves_unknown(state):
        return state
    return eqx.tree_at(lambda s: s.code, forgotten(state), jnp.full_like(state.code, RUNNING))


def _up_to(stepper: Stepper, until: Int[Array, ""]) -> Stepper:
    return eqx.tree_at(lambda s: s.max_steps, stepper, until)


def _made_again(stepper: Stepper, lanes: Lanes) -> Bool[Array, " width"]:
    """Which runs are made once more, as they have diverged before."""
    return lanes.until != jnp.asarray(stepper.max_steps, jnp.int32)


def _to_make_again(stepper: Stepper, lanes: Lanes) -> Bool[Array, " width"]:
    """Which have just diverged, and shall be."""
    begun = (lanes.state.code == code_of("diverged")) & (lanes.state.attempted > 0)
    return (lanes.owner >= 0) & begun & ~_made_again(stepper, lanes)


def _refill(
    stepper: Stepper, lanes: Lanes, pool: Pool, taken: Int[Array, ""]
) -> tuple[Lanes, Int[Array, ""]]:
    """The free lanes at the next starts, and those that diverged at their own. A lane that gets none holds some start
    all the same, and does not run."""
    free = lanes.owner < 0
    place = taken + jnp.cumsum(free, dtype=jnp.int32) - 1
    take = free & (place < pool.size)
    back = _to_make_again(stepper, lanes)
    held = jtu.tree_leaves(pool.starts)[0].shape[-1]

    def refilled():
        starts = jtu.tree_map(lambda x: x[..., jnp.clip(place, 0, held - 1)], pool.starts)
        first = over_lanes(where)(free, starts, lanes.first)
        until = jnp.where(free, jnp.asarray(stepper.max_steps, jnp.int32), lanes.until)
        until = jnp.where(back, lanes.state.attempted - 1, until)
        begun = over_lanes(ft.partial(_start, stepper))(first, until)
        state = over_lanes(where)(free | back, begun, lanes.state)
        idle = jnp.where(free & ~take, code_of("converged"), state.code)
        owner = jnp.where(take, pool.first + place, lanes.owner)
        return Lanes(eqx.tree_at(lambda s: s.code, state, idle), first, until, owner)

    lanes = jax.lax.cond(jnp.any(take | back), refilled, lambda: lanes)
    return lanes, taken + jnp.sum(take, dtype=jnp.int32)


def _step(
    stepper: Stepper,
    lanes: Lanes,
    steps: Int[Array, ""],
    limit: Int[np.ndarray, ""],
    patience: Float[Array, ""],
    unrolled: int,
) -> tuple[Lanes, Int[Array, ""]]:
    """Steps all that run, until `steps` are `limit`, or idle lanes have cost as much as `patience` steps of all.

    Where a step tells nothing of where it leads, the loop goes from evaluation to evaluation: each arrives where the
    step before has led, and departs from there at once, so that value and gradient are not carried from step to
    step (2,048 lanes of poly3, ns a step: GD 2.4 -> 2.2, Adam 9.7 -> 5.0).
    """
    width, unknown = lanes.owner.shape[0], lanes.state.value is None
    # Of a stochastic objective each step samples its own; second-order methods evaluate more than value and gradient.
    one_evaluation = model_kind(
        stepper.method.flow, stepper.method.solver
    ) is None and not isinstance(stepper.fn, Stochastic)

    def going_on(carry):
        steps, running, idle, _ = carry
        return (steps < limit) & (running > 0) & (idle < patience)

    def body(carry):
        steps, running, idle, state = carry
        live = steps >= 0  # true, which the compiler does not know
        fn = _EvaluatedOnce(stepper.fn, live) if one_evaluation else stepper.fn
        here = eqx.tree_at(
            lambda s: (s.fn, s.live), stepper, (fn, live), is_leaf=lambda x: x is None
        )

        def step(state: RunState, until: Int[Array, ""]) -> RunState:
            run = _up_to(here, until)
            if unknown:
                state = run.arrive(state, Evaluations(), state.code < 0)
                return run.depart(state, Evaluations(), state.code == RUNNING)
            return run.advance(state, (Evaluations(), Evaluations()), state.code == RUNNING)

        idle = idle + unrolled * (width - running).astype(jnp.float32) / width
        for _ in range(unrolled):
            state = over_lanes(step)(state, lanes.until)
        return steps + unrolled, _running(state), idle, state

    carry = steps, _running(lanes.state), jnp.zeros((), jnp.float32), lanes.state
    steps, _, _, state = jax.lax.while_loop(going_on, body, carry)
    return eqx.tree_at(lambda l: l.state, lanes, state), steps


def _ends(stepper: Stepper, lanes: Lanes) -> tuple:
    """`results_of` each lane; of a run made once more, after the step that diverged, which is not kept."""
    state, again = lanes.state, _made_again(stepper, lanes)
    if state.value is None:
        evaluated = lambda s: knowing(s, stepper.known_at(s, Evaluations()).known())
        state = over_lanes(evaluated)(state)
    code = jnp.where(again, code_of("diverged"), state.code).astype(state.code.dtype)
    rejected = state.rejected + again.astype(state.rejected.dtype)
    state = eqx.tree_at(lambda s: (s.code, s.rejected), state, (code, rejected))
    return over_lanes(results_of)(state)


def _running(state: RunState) -> Int[Array, ""]:
    return jnp.sum(state.code < 0, dtype=jnp.int32)


def _is_shape(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)
