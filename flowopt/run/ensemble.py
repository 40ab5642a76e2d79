"""Many runs of one method: lanes that step together, and are refilled as their runs end."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from flowopt.methods import Method
from flowopt.objective import Objective, check_params
from flowopt.run.outcome import Outcome
from flowopt.run.step import Stop, make_stepper
from flowopt.run.workers import run_all


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The ends of n runs, in the order of their starts. Every array has leading axis n."""

    params: PyTree
    """The last params kept."""
    value: np.ndarray
    """R there [loss]."""
    grad_norm: np.ndarray
    """|grad R|_2 there [loss/params]."""
    outcome: Outcome
    """How each run ended: `ensemble.outcome == "converged"` is an array of bools."""
    accepted: np.ndarray
    """Steps kept."""
    rejected: np.ndarray
    """Steps attempted and not kept."""

    def __len__(self) -> int:
        return len(self.value)


def ensemble(
    fn: Objective,
    starts: PyTree,
    method: Method,
    *,
    args: Any = None,
    tol: float = 1e-6,
    max_steps: int = 10_000,
    stop: Stop | None = None,
    width: int | None = None,
    progress: bool | str = False,
) -> Ensemble:
    """Runs `method` on fn(params, args) from every start. `fn` is written for one run, as for `minimise`.

    - `starts`: a pytree like the params, each leaf with one more axis, in front, of the same length n.
    - `tol`, `max_steps`, `stop`: as in `minimise`, for each run on its own.
    - `width`: runs stepped together by one thread; chosen so that they fit in cache, if None.
    - `progress`: show a progress bar of finished runs; a string to put before it.

    Runs until the last one has ended, on all cores. A lane whose run has ended takes the next start
    from the queue, so memory is that of the lanes and of the results, and a slow run delays nobody.
    What becomes of a run depends on its start and the method alone: not on its neighbours, whose
    NaN or overflow stays their own, nor on `width`.

    Raises TypeError or ValueError, naming the argument, for arguments that cannot run.
    """
    starts = check_params(starts, "starts")
    n = _leading_size(starts)
    one = jtu.tree_map(lambda x: x[0] if n else jnp.zeros(x.shape[1:], x.dtype), starts)
    if max_steps is None:
        raise ValueError(
            "`max_steps` must be an int: one run that never ends would hold up all others"
        )
    stepper = make_stepper(fn, one, method, args, tol, max_steps, stop)
    if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
        raise ValueError(f"`width` must be an int >= 1; got {width!r}")

    label = progress if isinstance(progress, str) else None
    with tqdm(
        total=n, disable=not progress, desc=label, leave=label is None, unit="run", smoothing=0
    ) as bar:
        ends = run_all(stepper, starts, n, width, bar)
    params, value, grad_norm, code, accepted, rejected = ends
    return Ensemble(params, value, grad_norm, Outcome(code), accepted, rejected)


def _leading_size(starts: PyTree) -> int:
    sizes = {x.shape[0] if x.ndim else -1 for x in jtu.tree_leaves(starts)}
    if -1 in sizes or len(sizes) != 1:
        raise ValueError(
            "`starts`: every leaf needs a leading axis, of one length for all; got shapes "
            f"{[x.shape for x in jtu.tree_leaves(starts)]}"
        )
    return sizes.pop()
