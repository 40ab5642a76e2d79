"""Many runs of one method: lanes that step together, and are refilled as their runs end."""

import dataclasses
import functools as ft
import os
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from flowopt.methods import Method
from flowopt.objective import Objective
from flowopt.run.chunks import CHUNK, Work, run_in_chunks
from flowopt.run.describe import describe_runs
from flowopt.run.draw import Distribution, given_or_drawn, leading_size
from flowopt.run.lanes import results_of
from flowopt.run.outcome import Outcome
from flowopt.run.settings import progress_bar
from flowopt.run.step import Stepper, Stop, make_stepper
from flowopt.run.store import open_store
from flowopt.run.workers import run_all


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The ends of n runs, in the order of their starts. Every array has leading axis n."""

    params: PyTree
    """The last params kept; of a run that diverged those before the step that did."""
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
    starts: PyTree | Distribution,
    method: Method,
    *,
    n: int | None = None,
    key: jax.Array | int | None = None,
    args: Any = None,
    tol: float = 1e-6,
    max_steps: int = 10_000,
    stop: Stop | None = None,
    width: int | None = None,
    threads: int | None = None,
    store: str | os.PathLike | None = None,
    executor: Any = None,
    chunk: int = CHUNK,
    about: dict[str, Any] | None = None,
    progress: bool | str | tqdm = False,
) -> Ensemble:
    """Runs `method` on fn(params, args) from every start. `fn` is written for one run, as for `minimise`.

    - `starts`: a pytree like the params, each leaf with one more axis, in front, of the same length n;
      or a distribution, a function of (key, n) such as `flowopt.uniform((-3, 3))`, which then needs
      `n` and `key` (a JAX key, or a seed) and is drawn in blocks of 4,096 with keys of their own.
    - `tol`, `max_steps`, `stop`: as in `minimise`, for each run on its own.
    - `width`: runs stepped together by one thread; rounded up to a multiple of 64; chosen so that they fit in cache, if
      None. Always 128 where a step multiplies or solves with matrices, which XLA rounds by the size of their batch.
    - `threads`: one per core, if None.
    - `store`: a path where the results go, in Zarr, chunk by chunk; the arrays of what is returned stay
      there until they are used (`xarray.DataArray`), and of the starts that are drawn there are never
      more than a chunk, so that memory does not grow with n. Ended at any moment and called again, it
      goes on from there, to the same bits. A store of another description (method, objective, starts,
      `tol`, versions, ...; `about` are entries of your own) is an error, and left as it is.
    - `executor`: a `concurrent.futures.Executor`, or what has its `submit`, such as a Dask client: its
      workers run the chunks, one thread each. They import what `fn` and the method are made of; with
      cloudpickle installed, lambdas and closures go too.
    - `chunk`: runs in one task and in one piece of the store. No result depends on it.
    - `progress`: show a progress bar of finished runs; a string to put before it.

    Runs until the last one has ended, on all cores. A lane whose run has ended takes the next start
    from the queue, so memory is that of the lanes and of the results, and a slow run delays nobody.
    What becomes of a run depends on its start and the method alone: not on its neighbours, whose
    NaN or overflow stays their own, nor on `width`, `threads`, `chunk` or which process ran it: to the bit, on one
    kind of processor, with the same versions and settings of JAX. Elsewhere (another instruction set, GPU or version)
    the compiler joins and orders operations otherwise: results agree to rounding, which a run that is close to the
    boundary of a basin, or a controller's decision, may amplify to another end. A GPU adds up the entries of params in
    arrays in an order that may depend on `width`, and so on how many runs there are. A run that diverges is made once
    more, up to the step before.

    Raises TypeError or ValueError, naming the argument, for arguments that cannot run; OSError where the
    store cannot be written: what was finished is kept.
    """
    source = given_or_drawn(starts, n, key)
    template = source.part(0, min(1, source.n))
    one = jtu.tree_map(lambda x: jnp.zeros(x.shape[1:], x.dtype), template)
    if max_steps is None:
        raise ValueError(
            "`max_steps` must be an int: one run that never ends would hold up all others"
        )
    stepper = make_stepper(fn, one, method, args, tol, max_steps, stop)
    for name, number in (("width", width), ("threads", threads), ("chunk", chunk)):
        if number is not None and (
            isinstance(number, bool) or not isinstance(number, int) or number < 1
        ):
            raise ValueError(f"`{name}` must be an int >= 1; got {number!r}")
    if executor is not None and not hasattr(executor, "submit"):
        raise TypeError(
            "`executor` must have `submit`, as a concurrent.futures.Executor or a Dask client has; "
            f"got {executor!r}"
        )
    run = ft.partial(_run_all, stepper, width=width)
    if store is None and executor is None:
        return run(source.part(0, source.n), threads=threads, progress=progress)
    like = _as_ensemble(jax.eval_shape(lambda p: results_of(stepper.start(p)), one))
    kept = None
    if store is not None:
        description = describe_runs(stepper, source, chunk, about or {})
        kept = open_store(store, like, source.n, chunk, description)
    return run_in_chunks(Work(run, source, kept), like, chunk, executor, threads, progress)


def _run_all(
    stepper: Stepper,
    starts: PyTree,
    *,
    width: int | None,
    threads: int | None = None,
    progress: bool | str | tqdm = False,
) -> Ensemble:
    """The ends of the runs from `starts`, NumPy arrays, in this process."""
    n = leading_size(starts)
    with progress_bar(progress, n) as bar:
        return _as_ensemble(run_all(stepper, starts, n, width, threads, bar))


def _as_ensemble(results: tuple) -> Ensemble:
    params, value, grad_norm, code, accepted, rejected = results
    return Ensemble(params, value, grad_norm, Outcome(code), accepted, rejected)
