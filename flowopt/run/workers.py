"""The host's part of an ensemble: threads that keep their lanes filled from one queue of starts."""

import functools as ft
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
from jax.extend.core import jaxprs_in_params
from jaxtyping import PyTree
from tqdm import tqdm

from flowopt.objective import Evaluations
from flowopt.run.lanes import advance, begin, results_of
from flowopt.run.settings import callers_settings, under
from flowopt.run.step import Stepper
from flowopt.solvers.trial import model_kind

_CACHE_BYTES = 2**20
_LEAST = 64  # lanes: a multiple of every vector's length, so that no lane is a vector's remainder
_MOST = {"cpu": 2048}
_MOST_ELSEWHERE = 2**17
# XLA rounds batches of matrix products and solves by their size, so that the width of those is one for all.
_WITH_MATRICES = 128
_MATRICES = {"dot_general", "conv_general_dilated"}


def run_all(
    stepper: Stepper, starts: PyTree, n: int, width: int | None, threads: int | None, bar: tqdm
) -> tuple:
    """Runs every start to its end; returns `results_of` each, with leading axis n."""
    starts = jtu.tree_map(np.asarray, starts)
    one = jtu.tree_map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), starts)
    if n == 0:
        ends = jax.eval_shape(lambda p: results_of(stepper.start(p)), one)
        return jtu.tree_map(lambda x: np.empty((0, *x.shape), x.dtype), ends)
    devices = _devices(threads)[: max(1, n // _LEAST)]
    if _has_matrices(stepper, one):
        width = _WITH_MATRICES
    elif width is None:
        width = _width(one, -(-n // len(devices)), devices[0].platform)
    width = -(-width // _LEAST) * _LEAST
    ends = [_compile(stepper, starts, width, device) for device in set(devices)]
    results = jtu.tree_map(lambda x: np.empty((n, *x.shape[:-1]), x.dtype), ends[0])
    queue = _Queue(n, bar)
    job = lambda device: _work(stepper, starts, results, queue, width, device)
    if len(devices) == 1:
        job(devices[0])
        return results
    with ThreadPoolExecutor(len(devices)) as pool:
        for done in [pool.submit(_with_callers_config(job), device) for device in devices]:
            done.result()
    return results


def _devices(threads: int | None) -> list[Any]:
    """Where each thread works: the CPU once per thread (None: per core), each accelerator once, or the set default."""
    chosen = getattr(jax.config, "jax_default_device")  # noqa: B009 (unknown to type checkers)
    if isinstance(chosen, str):
        chosen = jax.devices(chosen)[0]
    local = jax.local_devices() if chosen is None else [chosen]
    return local[:1] * (threads or os.cpu_count() or 1) if local[0].platform == "cpu" else local


def _width(one: PyTree, runs: int, platform: str) -> int:
    """Lanes of one thread: a power of two, as many as stay in cache with their params."""
    size = sum(x.size * x.dtype.itemsize for x in jtu.tree_leaves(one))
    fits = _CACHE_BYTES // max(size, 1) if platform == "cpu" else _MOST_ELSEWHERE
    most = max(_LEAST, min(_MOST.get(platform, _MOST_ELSEWHERE), fits))
    return 2 ** int(np.ceil(np.log2(max(_LEAST, min(runs, most)))))


def _has_matrices(stepper: Stepper, one: PyTree) -> bool:
    """Whether a step multiplies, or solves with, matrices."""
    if model_kind(stepper.method.flow, stepper.method.solver) is not None:
        return True
    arrays, rest = eqx.partition(stepper, eqx.is_array)
    shapes = jtu.tree_map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
    leaves, tree = jtu.tree_flatten((shapes, rest, one))
    return _step_multiplies(tuple(leaves), tree)


@ft.lru_cache(maxsize=64)
def _step_multiplies(leaves: tuple, tree: Any) -> bool:
    """Traces a step, once for each method, objective and shapes."""
    shapes, rest, one = jtu.tree_unflatten(tree, leaves)

    def step(arrays, params):
        stepper = eqx.combine(arrays, rest)
        return stepper.advance(stepper.start(params), (Evaluations(), Evaluations())).code

    return _multiplies(jax.make_jaxpr(step)(shapes, one).jaxpr)


def _multiplies(jaxpr: Any) -> bool:
    return any(
        e.primitive.name in _MATRICES or any(map(_multiplies, jaxprs_in_params(e.params)))
        for e in jaxpr.eqns
    )


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
    settings = callers_settings()

    def configured(*args):
        with under(settings):
            return work(*args)

    return configured


class _Idle:
    """How many lanes may stand idle before the host looks in: so many that they cost what the looking-in costs.

    With runs that end at a steady rate, letting a share f of the lanes run idle costs f/2 of the time on
    the device, and looking in costs the same however few lanes it refills. The sum is least where both
    are equal. Neither touches what becomes of a run.
    """

    def __init__(self):
        self.share = 1 / 8

    def learn(self, host: float, device: float) -> None:
        """From the seconds spent on the host and on the device in one round."""
        balance = 2 * host / max(self.share * device, 1e-9)
        self.share = float(np.clip(self.share * np.clip(balance, 0.25, 4) ** 0.25, 1 / 32, 3 / 4))


def _work(
    stepper: Stepper, starts: PyTree, results: PyTree, queue: _Queue, width: int, device: Any
) -> None:
    """One thread: step the lanes, take out the runs that have ended, refill, until the queue is empty."""
    with jax.default_device(device):
        owner, idle, state = np.full(width, -1), _Idle(), None
        batch = jtu.tree_map(lambda x: _lanes_last(x, np.zeros(width, int)), starts)
        clock = time.perf_counter()
        while True:
            free = np.flatnonzero(owner < 0)
            taken = queue.take(len(free))
            lanes = free[: len(taken)]
            owner[lanes] = taken
            if np.all(owner < 0):
                return
            fresh = np.zeros(width, bool)
            fresh[lanes] = True
            if len(taken):  # a lane without a run holds some start, and never reads it
                batch = jtu.tree_map(lambda x: _lanes_last(x, np.maximum(owner, 0)), starts)
            if state is None:
                state = begin(stepper, batch)
            floor = 0 if queue.empty() else int(width * (1 - idle.share))
            called = time.perf_counter()
            state, ended, ends = advance(stepper, state, batch, fresh, np.asarray(floor, np.int32))
            ended = np.flatnonzero(np.asarray(ended) & (owner >= 0))
            back = time.perf_counter()
            if len(ended):
                out = zip(jtu.tree_leaves(results), jtu.tree_leaves(ends), strict=True)
                for array, value in out:
                    array[owner[ended]] = np.moveaxis(np.asarray(value), -1, 0)[ended]
                owner[ended] = -1
                queue.done(len(ended))
            idle.learn(called - clock, back - called)
            clock = back


def _lanes_last(x: np.ndarray, source: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x[source], 0, -1))


def _compile(stepper: Stepper, starts: PyTree, width: int, device: Any) -> tuple:
    """Compiles, once, what the threads would otherwise compile each for itself; returns results of no meaning."""
    with jax.default_device(device):
        batch = jtu.tree_map(lambda x: _lanes_last(x, np.zeros(width, int)), starts)
        state = begin(stepper, batch)
        return advance(stepper, state, batch, np.zeros(width, bool), np.asarray(0, np.int32))[2]
