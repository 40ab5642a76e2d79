"""What a step costs: evaluations, counted while it is traced."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree

from flowopt.methods import Method
from flowopt.objective import Evaluations, Objective
from flowopt.run.step import make_stepper
from flowopt.solvers.trial import model_kind
from flowopt.tree import ravel


class Work(NamedTuple):
    """What the start of a run, an attempted step, and keeping it cost [gradients].

    A gradient is the unit: a forward pass is 1/2, a backward pass 1/2; a Hessian-vector product 2, forward over
    reverse; a dense Jacobian of n params n. Linear algebra is free.
    """

    start: float
    attempt: float
    kept: float

    def of(self, accepted: Int[np.ndarray, "..."], rejected: Int[np.ndarray, "..."]) -> np.ndarray:
        """The cost of runs of so many steps [gradients]."""
        accepted, attempts = np.asarray(accepted), np.asarray(accepted) + np.asarray(rejected)
        return self.start + self.attempt * attempts + self.kept * accepted


def work(fn: Objective, params: PyTree, method: Method, args: Any = None) -> Work | None:
    """The work of `method` on `fn` from params like these; None where only a run can tell (inner loops)."""
    stepper = make_stepper(fn, params, method, args, 1.0, None, None)
    start, attempt, kept = Evaluations(), Evaluations(), Evaluations()
    state = jax.eval_shape(lambda p: stepper.start(p, start), params)
    jax.eval_shape(lambda s: stepper.advance(s, (attempt, kept)), state)
    parts = (start, attempt, kept)
    if not all(e.exact and isinstance(e.products, int) for e in parts):
        return None
    jacobian = model_kind(method.flow, method.solver) == "jacobian"
    columns = jax.eval_shape(lambda p: ravel(jax.tree.map(jnp.asarray, p)), params).size
    costs = [
        (e.values + e.grads) / 2 + 2 * e.products + (e.matrices * columns if jacobian else 0)
        for e in parts
    ]
    return Work(*costs)
