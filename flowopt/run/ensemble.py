"""Many runs of one method: lanes that step together, and are refilled as their runs end."""

import dataclasses
import functools as ft
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from tqdm import tqdm

from flowopt.methods import Method
from flowopt.objective import Evaluations, Objective
from flowopt.run.chunks import CHUNK, Work, run_in_chunks
from flowopt.run.describe import describe_runs
from flowopt.run.draw import Distribution, given_or_drawn, leading_size
from flowopt.run.outcome import RUNNING, Outcome
from flowopt.run.settings import callers_settings, progress_bar, under
from flowopt.run.step import RunState, Stepper, Stop, make_stepper
from flowopt.run.store import open_store
from flowopt.tree import where

_CACHE_BYTES = 2**20
_SEGMENT = 512


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
    - `width`: runs stepped together by one thread; chosen so that they fit in cache, if None.
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
    NaN or overflow stays their own, nor on `width`.

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
    like = _as_ensemble(jax.eval_shape(lambda p: _results(stepper.start(p)), one))
    run = ft.partial(_run_all, stepper, like, width=width)
    if store is None and executor is None:
        return run(source.part(0, source.n), threads=threads, progress=progress)
    kept = None
    if store is not None:
        description = describe_runs(stepper, source, chunk, about or {})
        kept = open_store(store, like, source.n, chunk, description)
    return run_in_chunks(Work(run, source, kept), like, chunk, executor, threads, progress)


def _run_all(
    stepper: Stepper,
    like: Ensemble,
    starts: PyTree,
    *,
    width: int | None,
    threads: int | None = None,
    progress: bool | str | tqdm = False,
) -> Ensemble:
    """The ends of the runs from `starts`, NumPy arrays; `like` has the dtypes and shapes of one."""
    n = leading_size(starts)
    one = jtu.tree_map(lambda x: x[0] if n else np.zeros(x.shape[1:], x.dtype), starts)
    ends = jtu.tree_map(lambda x: np.empty((n, *x.shape), x.dtype), vars(like))
    results = tuple(ends[field.name] for field in dataclasses.fields(Ensemble))
    workers = min(threads or os.cpu_count() or 1, max(1, n // 64))
    width = width or _width(one, -(-n // workers))
    with progress_bar(progress, n) as bar:
        queue = _Queue(n, bar)
        if workers == 1:
            _work(stepper, starts, results, queue, width)
        else:
            _compile(stepper, starts, width)
            with ThreadPoolExecutor(workers) as pool:
                work = _with_callers_config(_work)
                jobs = [
                    pool.submit(work, stepper, starts, results, queue, width)
                    for _ in range(workers)
                ]
                for job in jobs:
                    job.result()
    return Ensemble(**ends)


def _as_ensemble(results: tuple) -> Ensemble:
    params, value, grad_norm, code, accepted, rejected = results
    return Ensemble(params, value, grad_norm, Outcome(code), accepted, rejected)


def _width(params: PyTree, runs: int) -> int:
    """Lanes of one thread: a power of two, at least 64 (so that no lane is a vector's remainder)."""
    size = sum(x.size * x.dtype.itemsize for x in jtu.tree_leaves(params))
    fits = max(64, min(2048, _CACHE_BYTES // max(size, 1)))
    return 2 ** int(np.ceil(np.log2(max(64, min(runs, fits)))))


class _Queue:
    """The starts not yet taken, shared by the threads."""

    def __init__(self, n: int, bar: tqdm):
        self.n, self.next, self.bar, self.lock = n, 0, bar, threading.Lock()

    def take(self, most: int) -> np.ndarray:
        """The indices of up to `most` starts."""
        with self.lock:
            first, self.next = self.next, min(self.next + most, self.n)
            return np.arange(first, self.next)

    def empty(self) -> bool:
        return self.next >= self.n

    def done(self, count: int) -> None:
        with self.lock:
            self.bar.update(count)


def _with_callers_config(work: Callable) -> Callable:
    """`work`, under the settings of this thread: a new one has JAX's global ones."""
    settings = {**callers_settings(), "default_device": jax.config.jax_default_device}  # pyright: ignore

    def configured(*args):
        with under(settings):
            return work(*args)

    return configured


def _results(state: RunState):
    return (
        state.params,
        state.value,
        state.grad_norm,
        state.code,
        state.accepted,
        state.rejected,
    )


def _work(stepper: Stepper, starts: PyTree, results: PyTree, queue: _Queue, width: int) -> None:
    """One thread: step the lanes, take out the runs that have ended, refill, until the queue is empty."""
    owner = np.full(width, -1)
    state = None
    while True:
        free = np.flatnonzero(owner < 0)
        taken = queue.take(len(free))
        owner[free[: len(taken)]] = taken
        if np.all(owner < 0):
            return
        fresh = np.zeros(width, bool)
        fresh[free[: len(taken)]] = True
        # A lane without a run steps along from some start, ended from the outset and never read.
        source = np.maximum(owner, 0)
        batch = jtu.tree_map(lambda x: x[source], starts)  # noqa: B023
        if state is None:
            state = _begin(stepper, batch, owner >= 0)
        elif len(taken):
            state = _refill(stepper, state, batch, fresh)
        # With more starts waiting, come back as soon as an eighth of the lanes stand idle.
        floor = 0 if queue.empty() else width - width // 8
        state, ended = _segment(stepper, state, np.asarray(floor, np.int32))
        ended = np.flatnonzero(np.asarray(ended) & (owner >= 0))
        if len(ended):
            final = jax.device_get(_results_of(state))
            for out, lanes in zip(jtu.tree_leaves(results), jtu.tree_leaves(final), strict=True):
                out[owner[ended]] = lanes[ended]
            owner[ended] = -1
            queue.done(len(ended))


def _compile(stepper: Stepper, starts: PyTree, width: int) -> None:
    """Compiles, once, what the threads would otherwise compile each for itself."""
    batch = jtu.tree_map(lambda x: np.repeat(x[:1], width, axis=0), starts)
    unused = np.zeros(width, bool)
    state = _begin(stepper, batch, unused)
    state, _ = _segment(stepper, state, np.asarray(0, np.int32))
    _refill(stepper, state, batch, unused)
    _results_of(state)


@eqx.filter_jit
def _begin(stepper: Stepper, starts: PyTree, used: Bool[Array | np.ndarray, " width"]) -> RunState:
    state = jax.vmap(stepper.start)(starts)
    return eqx.tree_at(lambda s: s.code, state, jnp.where(used, state.code, 0))


@eqx.filter_jit
def _refill(
    stepper: Stepper, state: RunState, starts: PyTree, fresh: Bool[Array | np.ndarray, " width"]
) -> RunState:
    new = jax.vmap(stepper.start)(starts)
    return jax.vmap(where)(jnp.asarray(fresh), new, state)


@eqx.filter_jit
def _segment(stepper: Stepper, state: RunState, floor: Int[Array | np.ndarray, ""]):
    """Steps all lanes together until no more than `floor` are running, or for `_SEGMENT` steps."""

    def running(state):
        return state.code == RUNNING

    def step(state: RunState) -> RunState:
        new = stepper.advance(state, (Evaluations(), Evaluations()))
        return where(running(state), new, state)

    def going_on(carry):
        n, state = carry
        return (n < _SEGMENT) & (jnp.sum(running(state), dtype=jnp.int32) > floor)

    def body(carry):
        n, state = carry
        return n + 1, jax.vmap(step)(state)

    _, state = jax.lax.while_loop(going_on, body, (jnp.zeros((), jnp.int32), state))
    return state, ~running(state)


@eqx.filter_jit
def _results_of(state: RunState):
    return jax.vmap(_results)(state)
