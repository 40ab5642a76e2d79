"""The host's part of an ensemble: threads that keep their lanes filled from one queue of starts."""

import dataclasses
import functools as ft
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from flowopt.objective import Evaluations
from flowopt.run.compiling import multiplies, operations, plain
from flowopt.run.lanes import Ended, Plan, Pool, advance, empty, over_lanes, results_of
from flowopt.run.settings import callers_settings, under
from flowopt.run.step import Stepper
from flowopt.solvers.trial import model_kind

_CACHE_BYTES, _NEAREST_BYTES = 2**20, 2**14
_LEAST = 64  # lanes: a multiple of every vector's length, so that no lane is a vector's remainder
_MOST, _MOST_PLAIN, _MOST_ELSEWHERE = 2048, 512, 2**17
# XLA rounds batches of matrix products and solves by their size, so that the width of those is one for all.
_WITH_MATRICES = 128
# So many operations in one turn of the loop, or one step: to compile more takes longer than it saves. (On poly3, ns a
# step, one a turn -> 4: GD 2.0 -> 1.5, Euler-Richardson 3.4 -> 3.3.)
_OPERATIONS, _MOST_UNROLLED = 1200, 4
_MOST_HELD = 2**15  # runs whose ends one call may return
_STEPS, _MOST_STEPS = 512, 2**16  # in a first call, and in any
_SECONDS = 0.05  # that a call should take


class _Traits(NamedTuple):
    """What there is to know of a step before it is compiled."""

    matrices: bool
    """Whether it multiplies, or solves with, matrices."""
    plain: bool
    """Whether it may be compiled `in_one_function`."""
    operations: int
    bytes: int
    """What a run holds."""


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
    platform, traits = devices[0].platform, _traits(stepper, one)
    as_one = traits.plain and platform == "cpu"
    if traits.matrices:
        width = _WITH_MATRICES
    elif width is None:
        width = _width(one, traits, -(-n // len(devices)), platform)
    width = -(-width // _LEAST) * _LEAST
    unrolled = int(np.clip(_OPERATIONS // traits.operations, 1, _MOST_UNROLLED))
    plan = Plan(width, _rounds(one, width), unrolled, as_one)
    plan, ends = _compiled(stepper, one, plan, frozenset(devices))
    results = jtu.tree_map(lambda x: np.empty((n, *x.shape[1:-1]), x.dtype), ends)
    queue = _Queue(n, len(devices), bar)
    job = lambda device: _work(stepper, starts, results, queue, plan, device)
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


def _width(one: PyTree, traits: _Traits, runs: int, platform: str) -> int:
    """Lanes of one thread: a power of two, as many as stay in cache: the nearest, where calls cost nothing."""
    if platform != "cpu":
        most = _MOST_ELSEWHERE
    elif traits.plain:
        most = min(_NEAREST_BYTES // traits.bytes, _MOST_PLAIN)
    else:
        most = min(_CACHE_BYTES // max(_bytes(one), 1), _MOST)
    return 2 ** int(np.ceil(np.log2(max(_LEAST, min(runs, most)))))


def _rounds(one: PyTree, width: int) -> int:
    """Rounds in one call: the results of each are held until it returns."""
    held = min(_CACHE_BYTES // max(_bytes(one), 1), _MOST_HELD)
    return max(1, held // width)


def _one(starts: PyTree) -> PyTree:
    return jtu.tree_map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), starts)


def _bytes(one: PyTree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jtu.tree_leaves(one))


def _kind(stepper: Stepper, one: PyTree) -> tuple[tuple, Any]:
    """What a program is compiled for, as leaves and structure that can be compared: all but the numbers in arrays."""
    arrays, rest = eqx.partition(stepper, eqx.is_array)
    shapes = jtu.tree_map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
    leaves, tree = jtu.tree_flatten((shapes, rest, one))
    return tuple(leaves), tree


def _traits(stepper: Stepper, one: PyTree) -> _Traits:
    return _traced_traits(*_kind(stepper, one))


@ft.lru_cache(maxsize=64)
def _traced_traits(leaves: tuple, tree: Any) -> _Traits:
    """Traces a step, once for each method, objective and shapes."""
    shapes, rest, one = jtu.tree_unflatten(tree, leaves)

    def step(arrays, params):
        stepper = eqx.combine(arrays, rest)

        def one(p):
            start = stepper.start(p)
            return stepper.advance(start, (Evaluations(), Evaluations()), start.code < 0)

        return over_lanes(one)(params)

    lanes = jtu.tree_map(lambda x: jax.ShapeDtypeStruct((*x.shape, _LEAST), x.dtype), one)
    closed, ends = jax.make_jaxpr(step, return_shape=True)(shapes, lanes)
    second_order = model_kind(rest.method.flow, rest.method.solver) is not None
    matrices = second_order or multiplies(closed.jaxpr)
    held = _bytes(ends) // _LEAST
    return _Traits(
        matrices,
        not matrices and plain(closed.jaxpr),
        operations(closed.jaxpr),
        held + _bytes(one),
    )


class _Queue:
    """The starts not yet taken, shared by the threads."""

    def __init__(self, n: int, threads: int, bar: tqdm):
        self.n, self.next, self.threads, self.bar = n, 0, threads, bar
        self.lock = threading.Lock()

    def take(self, least: int, most: int) -> tuple[int, int]:
        """The first of the starts taken, and the one after the last: fewer towards the end, so that the threads end
        together."""
        with self.lock:
            share = (self.n - self.next) // (2 * self.threads)
            count = max(least, min(most, share))
            first, self.next = self.next, min(self.next + count, self.n)
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
    plan: Plan,
    device: Any,
) -> None:
    """One thread: lanes, kept filled until the queue is empty."""
    with jax.default_device(device):
        lanes, held = empty(stepper, _one(starts), plan.width), plan.rounds * plan.width
        pool, limit = _pool(starts, 0, 0, held), _STEPS
        while True:
            if pool.taken == pool.size:
                first, last = queue.take(min(8 * plan.width, held), held)
                if last > first:
                    pool = _pool(starts, first, last, held)
                elif not np.any(np.asarray(lanes.owner) >= 0):
                    return
            called = time.perf_counter()
            how_many, last = np.asarray(limit, np.int32), np.asarray(queue.empty())
            pool = dataclasses.replace(pool, last=last)
            lanes, taken, ended, steps = advance(stepper, lanes, pool, how_many, plan)
            pool = dataclasses.replace(pool, taken=np.asarray(taken))
            queue.done(_write(results, ended))
            # So many steps that Ctrl-C and the progress bar are served soon, and the host is called seldom.
            pace = _SECONDS / max(time.perf_counter() - called, 1e-6) * int(steps) / limit
            limit = int(np.clip(limit * np.clip(pace, 0.25, 4), 16, _MOST_STEPS))


def _pool(starts: PyTree, first: int, last: int, held: int) -> Pool:
    """The starts from `first` up to `last`, and the last of them again to make `held`."""
    source = np.minimum(np.arange(first, first + held), max(last - 1, 0))
    batch = jtu.tree_map(lambda x: _lanes_last(x, source), starts)
    number = lambda i: np.asarray(i, np.int32)
    return Pool(batch, number(first), number(0), number(last - first), np.asarray(False))


def _write(results: PyTree, ended: Ended) -> int:
    """Puts what has ended to its place, and returns how many those are."""
    owner = np.asarray(ended.owner).reshape(-1)
    place = np.flatnonzero(owner >= 0)
    runs = owner[place]
    for array, values in zip(jtu.tree_leaves(results), jtu.tree_leaves(ended.results), strict=True):
        flat = np.moveaxis(np.asarray(values), -1, 1).reshape(-1, *array.shape[1:])
        array[runs] = flat[place]
    return len(runs)


def _lanes_last(x: np.ndarray, source: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x[source], 0, -1))


def _compiled(stepper: Stepper, one: PyTree, plan: Plan, devices: frozenset) -> tuple[Plan, PyTree]:
    """Compiles, once, what the threads would otherwise compile each for itself; returns the plan that could be, and
    the shapes of what has ended."""
    found = _found(*_kind(stepper, one), plan, devices, tuple(callers_settings().items()))
    if not found:
        try:
            ends = [_compile(stepper, one, plan, device) for device in devices]
        except jax.errors.JaxRuntimeError:
            if not plan.as_one:
                raise
            # Another version of XLA may not find `plain` what this one does.
            plan = plan._replace(as_one=False)
            ends = [_compile(stepper, one, plan, device) for device in devices]
        found.append((plan, jax.eval_shape(lambda: ends[0])))
    return found[0]


@ft.lru_cache(maxsize=64)
def _found(*kind: Any) -> list[tuple[Plan, PyTree]]:
    """Where `_compiled` remembers."""
    return []


def _compile(stepper: Stepper, one: PyTree, plan: Plan, device: Any) -> tuple:
    with jax.default_device(device):
        lanes = empty(stepper, one, plan.width)
        starts = jtu.tree_map(lambda x: np.zeros((1, *x.shape), x.dtype), one)
        pool = _pool(starts, 0, 0, plan.rounds * plan.width)
        return advance(stepper, lanes, pool, np.asarray(0, np.int32), plan)[2].results
