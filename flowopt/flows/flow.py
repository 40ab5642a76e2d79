"""The interface of a flow, the Diffrax term made of it, and the rate of its energy."""

import abc
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.objective import At, Evaluations, ModelKind, Objective
from flowopt.tree import add_scaled, inner


class State(NamedTuple):
    """Where a flow is: the params, and what it remembers of its past (None where it has no memory)."""

    params: PyTree
    memory: PyTree


class AbstractFlow(eqx.Module):
    """An optimizer as an autonomous ODE on (params, memory), with a Lyapunov function where one is known.

        params' = params_field(params, memory, at)          [params/time]
        memory' = memory_field(params, memory, at)
        V = energy(params, memory, at),  V' <= 0 along it    [loss]

    `at` is what is known of the objective at `params`: `at.value` and `at.grad`. A flow with no
    memory defines `params_field` alone (and `energy`, to be guarded or monitored); one with memory
    defines `init` and `memory_field` too. Fields return pytrees of the structure, shapes and dtypes
    of what they move. Nothing may read the time: a flow that needs a clock keeps one in its memory.

    A flow that reads `at.hessian`, or `at.residuals` and `at.jacobian`, says so by `model`.
    """

    model: ClassVar[ModelKind | None] = None
    """"hessian" or "jacobian", for a flow that reads it; kept from step to step like the gradient."""

    def init(self, params: PyTree) -> PyTree:
        """The memory at the start, from the params; None for a flow without memory."""
        return None

    def memory_field(self, params: PyTree, memory: PyTree, at: At) -> PyTree:
        """memory', a pytree like `memory`."""
        return None

    @abc.abstractmethod
    def params_field(self, params: PyTree, memory: PyTree, at: At) -> PyTree:
        """params', a pytree like `params` [params/time]."""

    def advance_memory(self, params: PyTree, memory: PyTree, at: At, h: Float[Array, ""]) -> PyTree:
        """The memory after a staggered step of length `h` [time]: one Euler step of all of it at once.

        Only a flow whose memory is itself a chain (one part drives the next) needs another: there each
        part moves with what drives it already moved, as the params move with the new memory.
        """
        return add_scaled(memory, h, self.memory_field(params, memory, at))

    def energy(self, params: PyTree, memory: PyTree, at: At) -> Float[Array, ""]:
        """The Lyapunov function V [loss]; raises NotImplementedError for a flow of which none is known."""
        raise NotImplementedError(
            f"{type(self).__name__} defines no `energy`; give it one to guard or monitor it"
        )


def has_energy(flow: AbstractFlow) -> bool:
    """Whether `flow` defines an energy."""
    return type(flow).energy is not AbstractFlow.energy


def field(flow: AbstractFlow, y: State, at: At) -> State:
    """The vector field at `y`: (params', memory')."""
    return State(
        params=flow.params_field(y.params, y.memory, at),
        memory=flow.memory_field(y.params, y.memory, at),
    )


def energy_rate(flow: AbstractFlow, y: State, at: At) -> Float[Array, ""]:
    """dV/dt along the flow at `y` [loss/time], by one jvp of the energy along the field.

    dR/dt = <grad R, params'>, so the objective is not evaluated again. Only an energy that reads
    `at.grad` itself (that of Newton's flow) costs a Hessian-vector product.
    """
    rate = field(flow, y, at)

    def along(params, memory, value):
        return flow.energy(params, memory, At(at.fn, params, at.args, at.evaluations, value=value))

    dvalue = inner(at.grad, rate.params).astype(at.value.dtype)
    _, dV = jax.jvp(along, (y.params, y.memory, at.value), (rate.params, rate.memory, dvalue))
    return dV


class FlowTerm(diffrax.AbstractTerm):
    """The Diffrax term of a flow on an objective, for `diffrax.diffeqsolve` by hand.

    The state is a `State`, started by `term.init(params)`; `args` of `diffeqsolve` are those of
    `fn(params, args)`.
    """

    flow: AbstractFlow
    fn: Objective

    def init(self, params: PyTree) -> State:
        """The state to start from."""
        return State(params, self.flow.init(params))

    def at(self, params: PyTree, args: Any) -> At:
        """What is known of the objective at `params`: nothing yet."""
        return At(self.fn, params, args, Evaluations(), kind=self.flow.model)

    def vf(self, t, y, args) -> State:
        return field(self.flow, y, self.at(y.params, args))

    def contr(self, t0, t1, **kwargs):
        return t1 - t0

    def prod(self, vf, control):
        return jtu.tree_map(lambda f: jnp.asarray(control).astype(f.dtype) * f, vf)


def flow_term(terms: Any) -> FlowTerm:
    """The `FlowTerm` inside the wrappers that `diffeqsolve` puts around it; TypeError if there is none."""
    term = terms
    while not isinstance(term, FlowTerm):
        if not hasattr(term, "term"):
            raise TypeError(
                "`terms` must be a flowopt.FlowTerm for this solver, which steps params and memory "
                f"apart; got {type(term).__name__}. Write diffeqsolve(flowopt.FlowTerm(flow, fn), ...)"
            )
        term = term.term
    return term


def check_flow_shapes(flow: AbstractFlow, fn: Objective, params: PyTree, args: Any) -> None:
    """Raises TypeError or ValueError, naming the method of the flow at fault, unless its fields fit its state."""
    if not isinstance(flow, AbstractFlow):
        raise TypeError(f"`flow` must be a flowopt.AbstractFlow; got {type(flow).__name__}")
    name = type(flow).__name__
    memory = jax.eval_shape(flow.init, params)
    for leaf in jtu.tree_leaves(memory):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"`flow`: {name}.init must return floating arrays; got {leaf.dtype}")

    def check(what: str, method, expected: PyTree) -> None:
        def call(params, memory):
            return method(params, memory, At(fn, params, args, Evaluations(), kind=flow.model))

        got = jax.eval_shape(call, params, memory)
        if jtu.tree_structure(got) != jtu.tree_structure(expected):
            raise TypeError(
                f"`flow`: {name}.{what} must return a pytree like {expected}; got {got}"
            )
        for g, e in zip(jtu.tree_leaves(got), jtu.tree_leaves(expected), strict=True):
            if g.shape != e.shape:
                raise ValueError(
                    f"`flow`: {name}.{what} must return shapes like those it moves; got "
                    f"{g.shape} for a leaf of shape {e.shape}"
                )
            if g.dtype != e.dtype:
                raise TypeError(
                    f"`flow`: {name}.{what} must keep the dtype of what it moves; got {g.dtype} "
                    f"for a leaf of {e.dtype}"
                )

    check("memory_field", flow.memory_field, memory)
    check("params_field", flow.params_field, jax.eval_shape(lambda p: p, params))
    if has_energy(flow):
        energy = jax.eval_shape(
            lambda p, m: flow.energy(p, m, At(fn, p, args, Evaluations())), params, memory
        )
        if getattr(energy, "shape", None) != ():
            raise ValueError(f"`flow`: {name}.energy must return a scalar; got {energy}")
