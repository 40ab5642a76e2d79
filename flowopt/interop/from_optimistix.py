"""An optimistix solver as a method."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx
from jaxtyping import Array, Float

from flowopt.flows.flow import AbstractFlow
from flowopt.methods import Method
from flowopt.objective import At, SumOfSquares
from flowopt.solvers.trial import AbstractFlowSolver, Trial


class Attempts(AbstractFlow):
    """theta' = -grad R,  n' = 1 while the solver goes on: the flow of a solver that does not ask it.

    Its memory n counts the solver's steps, so that one which is refused is not taken for the end of the run.
    """

    def init(self, params):
        return jnp.zeros(())

    def memory_field(self, params, memory, at):
        return jnp.ones_like(memory)

    def params_field(self, params, memory, at):
        return jtu.tree_map(jnp.negative, at.grad)


class OptimistixSteps(AbstractFlowSolver):
    """(params, state) -> the same after one step of an optimistix solver; the flow and the step length have no say."""

    solver: Any
    """An `optimistix.AbstractMinimiser`, or an `AbstractLeastSquaresSolver`."""

    def order(self, terms):
        return 1

    def start(self, flow, y, at):
        at.evaluations.exact = False
        return eqx.filter(self._init(y.params, at), eqx.is_array)

    def trial(self, flow, y, at, h, state):
        at.evaluations.exact = False
        # What of its state is no array is the same at every step, and not carried along.
        shapes = eqx.filter_eval_shape(lambda p: self._init(p, at), y.params)
        static = eqx.filter(shapes, lambda x: not isinstance(x, jax.ShapeDtypeStruct))
        how = y.params, at.args, {}, eqx.combine(state, static), frozenset()
        fn = self._fn(at)
        params, after, _ = self.solver.step(fn, *how)
        done, _ = self.solver.terminate(fn, params, at.args, {}, after, frozenset())
        after = jtu.tree_map(
            lambda new, old: jnp.asarray(new, old.dtype), eqx.filter(after, eqx.is_array), state
        )
        memory: Float[Array, ""] = y.memory + jnp.where(done, 0, 1).astype(y.memory.dtype)
        return Trial(
            y._replace(params=params, memory=memory), None, at.elsewhere(params), True, after
        )

    def _fn(self, at: At) -> Any:
        """What the solver works on: (value, None), or the residuals in place of the value."""
        if not isinstance(self.solver, optx.AbstractLeastSquaresSolver):
            return lambda params, args: (at.fn(params, args), None)
        if not isinstance(at.fn, SumOfSquares):
            raise TypeError(
                f"`fn`: {type(self.solver).__name__} needs residuals, and the objective is a scalar loss; give the "
                "residuals to flowopt.least_squares(residuals, params, method)"
            )
        residuals = at.fn.residuals
        return lambda params, args: (residuals(params, args), None)

    def _init(self, params: Any, at: At) -> Any:
        fn = self._fn(at)
        out, aux = jax.eval_shape(lambda p: fn(p, at.args), params)
        return self.solver.init(fn, params, at.args, {}, out, aux, frozenset())


def from_optimistix(solver: Any) -> Method:
    """An optimistix minimiser as a method, a peer wherever the library takes one: `minimise`, `ensemble`, `compare`.

        flowopt.minimise(fn, params, flowopt.from_optimistix(optimistix.BFGS(rtol=1e-8, atol=1e-8)))

    A least-squares solver too, for `flowopt.least_squares` and other objectives made of residuals. One step is one of
    the solver's, which are trials: many leave the params where they are. The gradient test and the outcomes are those
    of every run; where the solver's own test is met and the params do not move, the run ends as stalled. Evaluations
    are not counted in `stats`: the solver makes its own, beside one at each of the params that it comes to.

    Raises TypeError for what is no such solver.
    """
    if not isinstance(solver, optx.AbstractMinimiser | optx.AbstractLeastSquaresSolver):
        raise TypeError(
            "`solver` must be an optimistix minimiser or least-squares solver, such as "
            f"optimistix.BFGS(rtol=1e-8, atol=1e-8); got {solver!r}"
        )
    return Method(Attempts(), OptimistixSteps(solver), step=1.0)
