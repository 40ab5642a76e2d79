"""Many runs of one method: lanes that step together, and are refilled as their runs end."""

import contextlib
import dataclasses
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
from flowopt.objective import Evaluations, Objective, check_params
from flowopt.run.outcome import RUNNING, Outcome
from flowopt.run.step import RunState, Stepper, Stop, make_stepper
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

    starts = jtu.tree_map(np.asarray, starts)
    results = jtu.tree_map(
        lambda x: np.empty((n, *x.shape), x.dtype),
        jax.eval_shape(lambda p: _results(stepper.start(p)), one),
    )
    workers = min(os.cpu_count() or 1, max(1, n // 64))
    width = width or _width(one, -(-n // workers))
    label = progress if isinstance(progress, str) else None
    with tqdm(
        total=n, disable=not progress, desc=label, leave=label is None, unit="run", smoothing=0
    ) as bar:
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
    params, value, grad_norm, code, accepted, rejected = results
    return Ensemble(params, value, grad_norm, Outcome(code), accepted, rejected)


def _leading_size(starts: PyTree) -> int:
    sizes = {x.shape[0] if x.ndim else -1 for x in jtu.tree_leaves(starts)}
    if -1 in sizes or len(sizes) != 1:
        raise ValueError(
            "`starts`: every leaf needs a leading axis, of one length for all; got shapes "
            f"{[x.shape for x in jtu.tree_leaves(starts)]}"
        )
    return sizes.pop()


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
    """`work`, under the settings that JAX's context managers (`jax.enable_x64(True)`, ...) have made in this thread.

    JAX keeps them per thread, so a new thread would fall back to the global ones.
    """
    names = (
        "enable_x64",
        "numpy_dtype_promotion",
        "default_matmul_precision",
        "default_device",
        "debug_nans",
    )
    settings = {name: getattr(jax.config, f"jax_{name}") for name in names}

    def configured(*args):
        with contextlib.ExitStack() as stack:
            for name, value in settings.items():
                stack.enter_context(getattr(jax, name)(value))
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
