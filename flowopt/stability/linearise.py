"""A flow, and one step of a method, linearised at rest in a critical point."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from flowopt.benchmarks import CriticalPoint, Problem
from flowopt.flows.flow import AbstractFlow, FlowTerm, State, check_flow_shapes, field
from flowopt.methods import Method
from flowopt.objective import At, Evaluations, Objective, SumOfSquares, check_params
from flowopt.solvers.native import native
from flowopt.solvers.trial import model_kind
from flowopt.tree import ravel, unravel

_ROUNDS = 10


class Quadratic(eqx.Module):
    """R(point) + x'Hx/2, x = params - point: what a linearisation knows of R.

    Its gradient at the point is 0, where that of R is a rounding error, which Adam would divide by eps. A degenerate
    point of an exact benchmark brings a Hessian whose zeros are zeros, which differentiation in floating point loses.
    """

    value: Float[Array, ""]
    hessian: Float[Array, "n n"]
    centre: PyTree

    def __call__(self, params: PyTree, args: Any = None) -> Float[Array, ""]:
        x = ravel(params) - ravel(self.centre)
        return self.value + 0.5 * x @ self.hessian @ x


def quadratic(problem: Problem, point: CriticalPoint) -> Quadratic:
    """The quadratic model of the problem's loss at `point`; raises ValueError where it has none."""
    centre = jtu.tree_map(lambda x: jnp.asarray(x, jnp.result_type(float)), point.params)
    vector = ravel(check_params(centre, "point"))
    hessian = point.hessian
    if hessian is None:
        hessian = jax.hessian(lambda x: problem.loss(unravel(x, centre), None))(vector)
    if not np.all(np.isfinite(np.asarray(hessian))):
        raise ValueError("`point`: the loss has no finite second derivatives there")
    value = jnp.asarray(point.value, vector.dtype)
    return Quadratic(value, jnp.asarray(hessian, vector.dtype), centre)


def objective(problem: Problem, point: CriticalPoint, method: Method) -> tuple[Objective, PyTree]:
    """The loss that the method is linearised on, and the params of the point as arrays; raises if it cannot run on it.

    A method that reads residuals gets the loss itself, for what it reads is not in its second derivatives.
    """
    model = quadratic(problem, point)
    fn: Any = model
    if model_kind(method.flow, method.solver) == "jacobian":
        fn = problem.loss
        if not isinstance(fn, SumOfSquares):
            raise TypeError(
                "`method`: it needs residuals, and the problem's loss is a scalar; give "
                "flowopt.Problem(flowopt.SumOfSquares(residuals), ...)"
            )
    check_flow_shapes(method.flow, fn, model.centre, None)
    return fn, model.centre


@eqx.filter_jit
def at_rest(flow: AbstractFlow, fn: Objective, params: PyTree) -> State:
    """The state with the memory that stays as it is while the params do: memory' = 0, reached from `flow.init`.

    By Newton's method on each entry that moves, so that a moment that starts at 0 is exactly 0. What drives another
    entry settles first; ten rounds are enough for a chain of ten. A clock goes on moving.
    """
    y = State(params, flow.init(params))
    if not jtu.tree_leaves(y.memory):
        return y

    def rate(vector):
        return ravel(flow.memory_field(params, unravel(vector, y.memory), _at(flow, fn, params)))

    def settle(_, x):
        f, slope = rate(x), jnp.diagonal(jax.jacfwd(rate)(x))
        moves = (f != 0) & (slope != 0)
        return jnp.where(moves, x - f / jnp.where(moves, slope, 1), x)

    vector = jax.lax.fori_loop(0, _ROUNDS, settle, ravel(y.memory))
    return y._replace(memory=unravel(vector, y.memory))


def flow_jacobian(flow: AbstractFlow, fn: Objective, y: State) -> np.ndarray:
    """The derivative of the field at `y` [1/time and units of the state], shape (n, n).

    NaN where the field is not defined. Raises ValueError where it is not 0.
    """
    try:
        f, A = map(np.asarray, _rate_and_jacobian(flow, fn, y))
    except eqx.EquinoxRuntimeError:  # Newton's flow at a singular Hessian
        return np.full((ravel(y).size,) * 2, np.nan)
    # Rounding moves it by eps |A| |y|. Where the field is not finite nothing can be said of it.
    rounding = np.sqrt(np.finfo(f.dtype).eps) * (np.abs(A) @ np.abs(np.asarray(ravel(y))))
    moving = np.isfinite(A).all() and np.isfinite(f).all() and np.any(np.abs(f) > rounding)
    if moving:
        n = ravel(y.params).size
        what = "params" if np.any(np.abs(f[:n]) > rounding[:n]) else "memory"
        raise ValueError(
            f"`method`: {type(flow).__name__} does not rest at `point`: a clock, a schedule or weight decay drives its "
            f"{what} on; linearise the flow without it"
        )
    return A


@eqx.filter_jit
def _rate_and_jacobian(flow: AbstractFlow, fn: Objective, y: State):
    """The field at `y` in one vector, params first, and its derivative."""

    def rate(x):
        state = unravel(x, y)
        return ravel(field(flow, state, _at(flow, fn, state.params)))

    return rate(ravel(y)), jax.jacfwd(rate)(ravel(y))


def kinks(flow: AbstractFlow, fn: Objective, y: State) -> Bool[np.ndarray, " n"]:
    """Which entries of the field have no derivative in the gradient and the memory at `y`.

    Tried along random lines so close that no eps is felt. Memory is moved upwards alone: second moments know no other
    side. There sqrt(s) has no derivative either, but m/(sqrt(s) + eps) has: it differs from m/eps by at most
    |m| sqrt(s)/eps^2, of order 3/2. The memory moves less than the gradient's square would drive it.
    """
    n, size = ravel(y.params).size, ravel(y).size
    if flow.model == "jacobian" or not isinstance(fn, Quadratic):
        return np.zeros(size, bool)
    tiny = np.finfo(np.asarray(ravel(y)).dtype).tiny
    bad = np.zeros(size, bool)
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        slope = sign * rng.uniform(0.5, 1.5, n) * rng.choice([-1, 1], n) * tiny**0.45
        moved = rng.uniform(0.5, 1.5, size - n) * tiny ** (2 / 3)
        f, linear, terms = map(np.asarray, _probe(flow, fn, y, slope, moved))
        # What is of second order in the gradient, as s' is, counts as 0.
        bad |= np.abs(f - linear) > np.maximum(1e-3 * terms, tiny ** (0.45 * 1.6))
    return bad


@eqx.filter_jit
def _probe(flow: AbstractFlow, fn: Quadratic, y: State, slope: np.ndarray, moved: np.ndarray):
    """The field were the gradient `slope` and the memory `moved`; what its derivative says; the terms of that."""
    rest, n = ravel(y), len(slope)

    def rate(grad, memory):
        state = unravel(jnp.concatenate([rest[:n], memory]), y)
        at = At(fn, y.params, None, Evaluations(), fn.value, unravel(grad, y.params), flow.model)
        return ravel(field(flow, state, at))

    at_rest = jnp.zeros_like(rest[:n]), rest[n:]
    grad, memory = jnp.asarray(slope, rest.dtype), rest[n:] + jnp.asarray(moved, rest.dtype)
    # A memory that rests elsewhere than at 0 is too large to be moved so little, and stays.
    step = grad, memory - rest[n:]
    parts = jax.jacfwd(rate, argnums=(0, 1))(*at_rest)
    linear = sum(J @ d for J, d in zip(parts, step, strict=True))
    terms = sum(jnp.abs(J) @ jnp.abs(d) for J, d in zip(parts, step, strict=True))
    return rate(grad, memory), linear, terms


@eqx.filter_jit
def step_jacobian(
    method: Method, fn: Objective, y: State, h: Float[Array, ""]
) -> Float[Array, "m m"]:
    """The derivative of one step of length `h` [time] at the fixed point `y`.

    Its state is that of the flow and then what the solver remembers: a point before, of a method of two steps.
    """
    flow, solver = method.flow, native(_forward(method.solver))
    kind = model_kind(flow, solver)

    def at(params):
        return At(fn, params, None, Evaluations(), kind=kind)

    def step(state, memory):
        trial = solver.trial(flow, state, at(state.params), h, memory)
        return trial.y, trial.state

    memory = solver.start(flow, y, at(y.params))
    for _ in range(2):
        _, memory = step(y, memory)
    leaves, structure = jtu.tree_flatten(memory)
    floats = [jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in leaves]
    kept = [jnp.asarray(x) for x, real in zip(leaves, floats, strict=True) if real]

    def moved(x):
        state, some = unravel(x, (y, kept))
        some = iter(some)
        whole = [next(some) if real else x for x, real in zip(leaves, floats, strict=True)]
        state, after = step(state, jtu.tree_unflatten(structure, whole))
        after = [x for x, real in zip(jtu.tree_leaves(after), floats, strict=True) if real]
        return ravel((state, after))

    return jax.jacfwd(moved)(ravel((y, kept)))


def _forward(solver: diffrax.AbstractSolver) -> diffrax.AbstractSolver:
    """`solver` with loops that forward-mode differentiation can go through, as in Diffrax's own `ForwardMode`."""
    if hasattr(solver, "scan_kind"):
        return eqx.tree_at(lambda s: s.scan_kind, solver, "lax", is_leaf=lambda x: x is None)
    return solver


def _at(flow: AbstractFlow, fn: Objective, params: PyTree) -> At:
    return FlowTerm(flow, fn).at(params, None)
