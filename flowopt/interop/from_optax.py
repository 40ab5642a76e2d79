"""An optax transformation as a method."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu

from flowopt.flows.gradient import Gradient
from flowopt.methods import Method
from flowopt.solvers.trial import AbstractFlowSolver, Trial

try:
    import optax
except ImportError as e:
    raise ImportError(
        "flowopt.from_optax needs optax: pip install 'flowopt[optax]', or pip install optax"
    ) from e


class OptaxSteps(AbstractFlowSolver):
    """params1 = params0 + u, u the updates of an optax transformation; the flow and the step length have no say.

    Its state is the solver's, and it is given `value`, `grad` and `value_fn`, so line searches work; what they
    evaluate is not counted.
    """

    transformation: Any = eqx.field(static=True)
    """An `optax.GradientTransformation`."""

    def order(self, terms):
        return 1

    def start(self, flow, y, at):
        return jtu.tree_map(jnp.asarray, self.transformation.init(y.params))

    def trial(self, flow, y, at, h, state):
        tx = optax.with_extra_args_support(self.transformation)
        at.evaluations.exact = False
        updates, state = tx.update(
            at.grad,
            state,
            y.params,
            value=at.value,
            grad=at.grad,
            value_fn=lambda params: at.fn(params, at.args),
        )
        end = y._replace(params=optax.apply_updates(y.params, updates))
        return Trial(end, None, at.elsewhere(end.params), True, state)


def from_optax(transformation: Any) -> Method:
    """An optax transformation as a method, a peer wherever the library takes one: `minimise`, `ensemble`, `basins`, ...

        flowopt.minimise(fn, params, flowopt.from_optax(optax.lbfgs()))

    One step is one update, and the gradient test and the outcomes are those of every run. A run ends as stalled at
    updates of 0. Evaluations are not counted in `stats`, for line searches make some of their own. optax mixes dtypes
    here and there, which `jax_numpy_dtype_promotion="strict"` forbids.

    Raises TypeError for what is no transformation.
    """
    if not isinstance(transformation, optax.GradientTransformation):
        raise TypeError(
            "`transformation` must be an optax.GradientTransformation, such as optax.adam(1e-3); got "
            f"{transformation!r}"
        )
    return Method(Gradient(), OptaxSteps(transformation), step=1.0)
