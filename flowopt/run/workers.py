"""The host's part of an ensemble: threads that keep their lanes filled from one queue of starts."""

import dataclasses
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
from flowopt.run.lanes import Ended, Pool, advance, empty, over_lanes, results_of
from flowopt.run.settings import callers_settings, under
from flowopt.run.step import Stepper
from flowopt.solvers.trial import model_kind

_CACHE_BYTES = 2**20
_LEAST = 64  # lanes: a multiple of every vector's length, so that no lane is a vector's remainder
_MOST = {"cpu": 2048}
_MOST_ELSEWHERE = 2**17
# XLA rounds batches of matrix products and solves by their size, so that the width of those is one for all.
_WITH_MATRICES = 128
_MOST_ROUNDS = 8
_STEPS, _MOST_STEPS = 512, 2**16  # in a first call, and in any
_SECONDS = 0.05  # that a call should take


def run_all(
    stepper: Stepper, starts: PyTree, n: int, width: int | None, threads: int | None, bar: tqdm
) -> tuple:
    """Runs every start to its end; returns `results_of` each, with leading axis n."""
    starts = jtu.tree_map(np.asarray, starts)
    one = _one(starts)
    if n == 0:
        ends = jax.eval_shape(lambda p: results_of(stepper.start(p)), one)
        return jtu.tree_map(lambda x: np.empty((0, *x.shape), x.dtype), ends)
    devices = _devices(threads)[: max(1, n // _LEAST)]
    if _has_matrices(stepper, one):
        width = _WITH_MATRICES
    elif width is None:
        width = _width(one, -(-n // len(devices)), devices[0].platform)
    width = -(-width // _LEAST) * _LEAST
    rounds = _rounds(one, width)
    ends = [_compile(stepper, starts, width, rounds, device) for device in set(devices)]
    results = jtu.tree_map(lambda x: np.empty((n, *x.shape[1:-1]), x.dtype), ends[0])
    queue = _Queue(n, bar)
    job = lambda device: _work(stepper, starts, results, queue, width, rounds, device)
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
    fits = _CACHE_BYTES // max(_bytes(one), 1) if platform == "cpu" else _MOST_ELSEWHERE
    most = max(_LEAST, min(_MOST.get(platform, _MOST_ELSEWHERE), fits))
    return 2 ** int(np.ceil(np.log2(max(_LEAST, min(runs, most)))))


def _rounds(one: PyTree, width: int) -> int:
    """Rounds in one call: the results of each are held until it returns."""
    return int(np.clip(_CACHE_BYTES // max(_bytes(one) * width, 1), 1, _MOST_ROUNDS))


def _one(starts: PyTree) -> PyTree:
    return jtu.tree_map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), starts)


def _bytes(one: PyTree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jtu.tree_leaves(one))


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
        one = lambda p: stepper.advance(stepper.start(p), (Evaluations(), Evaluations())).code
        return over_lanes(one)(params)

    lanes = jtu.tree_map(lambda x: jax.ShapeDtypeStruct((*x.shape, _LEAST), x.dtype), one)
    return _multiplies(jax.make_jaxpr(step)(shapes, lanes).jaxpr)


def _multiplies(jaxpr: Any) -> bool:
    return any(
        _is_product(e) or any(map(_multiplies, jaxprs_in_params(e.params))) for e in jaxpr.eqns
    )


def _is_product(equation: Any) -> bool:
    """Whether it multiplies matrices; inner products of two vectors of each run, as in norms, are loops over lanes."""
    if equation.primitive.name == "conv_general_dilated":
        return True
    if equation.primitive.name != "dot_general":
        return False
    axes = zip(*equation.params["dimension_numbers"], strict=True)
    pairs = zip(equation.invars, axes, strict=True)
    return any(np.delete(x.aval.shape, (*over, *batch)).prod() > 1 for x, (over, batch) in pairs)


class _Queue:
    """The starts not yet taken, shared by the threads."""

    def __init__(self, n: int, bar: tqdm):
        self.n, self.next, self.bar, self.lock = n, 0, bar, threading.Lock()

    def take(self, most: int) -> tuple[int, int]:
        """Up to `most` starts: the first, and the one after the last."""
        with self.lock:
            first, self.next = self.next, min(self.next + most, self.n)
            return first, self.next

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


def _work(
    stepper: Stepper,
    starts: PyTree,
    results: PyTree,
    queue: _Queue,
    width: int,
    rounds: int,
    device: Any,
) -> None:
    """One thread: lanes, kept filled until the queue is empty."""
    with jax.default_device(device):
        lanes = empty(stepper, _one(starts), width)
        first = last = 0  # of the starts that this thread has taken and its lanes have not
        limit, pool = _STEPS, None
        while True:
            if first == last:
                first, last = queue.take(rounds * width)
                if first == last and not np.any(np.asarray(lanes.owner) >= 0):
                    return
            if pool is None or last > first:
                pool = _pool(starts, first, last, rounds * width)
            called = time.perf_counter()
            how_many = np.asarray(limit, np.int32)
            pool = dataclasses.replace(
                pool, size=np.asarray(last - first, np.int32), last=np.asarray(queue.empty())
            )
            lanes, taken, ended, steps = advance(stepper, lanes, pool, how_many, rounds)
            first += int(taken)
            queue.done(_write(results, ended))
            # So many steps that Ctrl-C and the progress bar are served soon, and the host is called seldom.
            pace = _SECONDS / max(time.perf_counter() - called, 1e-6) * int(steps) / limit
            limit = int(np.clip(limit * np.clip(pace, 0.25, 4), 16, _MOST_STEPS))


def _pool(starts: PyTree, first: int, last: int, held: int) -> Pool:
    """The starts from `first` up to `last`, and the last of them again to make `held`."""
    source = np.minimum(np.arange(first, first + held), max(last - 1, 0))
    batch = jtu.tree_map(lambda x: _lanes_last(x, source), starts)
    number = lambda i: np.asarray(i, np.int32)
    return Pool(batch, number(first), number(last - first), np.asarray(False))


def _write(results: PyTree, ended: Ended) -> int:
    """Puts what has ended to its place, and returns how many those are."""
    owner = np.asarray(ended.owner)
    turn, lane = np.nonzero(owner >= 0)
    runs = owner[turn, lane]
    for array, values in zip(jtu.tree_leaves(results), jtu.tree_leaves(ended.results), strict=True):
        array[runs] = np.asarray(values)[turn, ..., lane]
    return len(runs)


def _lanes_last(x: np.ndarray, source: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x[source], 0, -1))


def _compile(stepper: Stepper, starts: PyTree, width: int, rounds: int, device: Any) -> tuple:
    """Compiles, once, what the threads would otherwise compile each for itself; returns results of no meaning."""
    with jax.default_device(device):
        lanes, pool = empty(stepper, _one(starts), width), _pool(starts, 0, 0, rounds * width)
        return advance(stepper, lanes, pool, np.asarray(0, np.int32), rounds)[2].results
