"""What a set of results are the results of."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from flowopt.objective import Evaluations
from flowopt.run.draw import Drawn, Given, digest
from flowopt.run.step import Stepper
from flowopt.run.store import versions


def describe_runs(
    stepper: Stepper, starts: Given | Drawn, chunk: int, about: dict[str, Any]
) -> dict[str, Any]:
    """The description of an ensemble, as attributes. Two of the same description have the same results.

    `step sha256` is that of the program of one step, in StableHLO, and of the arrays it is given: objective,
    `args`, method, `tol`, `max_steps` and `stop`, whatever they are called and however they came about.
    """
    one = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), starts.part(0, 1))

    def step(stepper: Stepper, params: PyTree):
        return stepper.advance(stepper.start(params), (Evaluations(), Evaluations()))

    jitted: Any = eqx.filter_jit(step)
    program = jitted.lower(stepper, one).as_text()
    return {
        **about,
        "objective": _name(stepper.fn),
        "method": repr(stepper.method),
        "tol": float(stepper.tol),
        "max_steps": stepper.max_steps,
        "stop": describe_stop(stepper.stop),
        "starts": str(starts),
        "runs": starts.n,
        "chunk": chunk,
        "backend": jax.default_backend(),
        "step sha256": digest(eqx.filter(stepper, eqx.is_array), program),
        "starts sha256": starts.digest(),
        **versions(),
    }


def describe_stop(stop: Any) -> str:
    """The stopping rule, in words or by name."""
    return "gradient norm below tol" if stop is None else _name(stop)


def _name(fn: Any) -> str:
    return getattr(fn, "__qualname__", type(fn).__qualname__)
