"""What a single run returns."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from flowopt.run.history import History
from flowopt.run.loop import Part
from flowopt.run.outcome import Outcome
from flowopt.run.step import RunState


class Solution(eqx.Module):
    """The end of a run; or, as a `callback` sees it, a run so far."""

    params: PyTree
    """The last params kept; of a run that diverged those before the step that did."""
    value: Float[Array, ""]
    """R there [loss]."""
    grad: PyTree
    """grad R there [loss/params]."""
    grad_norm: Float[Array, ""]
    """Its 2-norm."""
    outcome: Outcome
    """How the run ended: compare with "converged", "max_steps", "stalled" or "diverged"; "running" while it goes on."""
    stats: dict[str, Any]
    """`accepted` and `rejected` steps; `value_evals` and `grad_evals`, the forward and backward passes taken,
    `hessian_evals`, and `hessian_products`, n for each Hessian of n params that is formed and those of the
    conjugate gradients of `RosenbrockEuler` (None for solvers with an inner loop, whose evaluations are not
    counted); of a run that diverged not those by which it is made again. `step`, the next step it would have
    attempted [time]; `field_norm`, the 2-norm of the flow's field at the end. From `least_squares`, `residual_evals`
    and `jacobian_evals` stand for `value_evals` and `hessian_evals`, and `hessian_products` counts pairs of products
    with J and J' where J is never formed."""
    state: RunState
    """All that a next step would need, memory included."""
    history: History | None
    """What was recorded on the way, where that was asked for."""


def solution_of(part: Part, speed: Float[Array, ""], names: tuple[str, str]) -> Solution:
    """`part` of a run, whose flow's field has the norm `speed`; `names` are those of a forward pass and of a matrix."""
    state = part.state
    values, grads, matrices, products = (None,) * 4 if part.counts is None else part.counts
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
        history=part.history,
    )
