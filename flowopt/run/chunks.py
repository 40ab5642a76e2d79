"""Many runs in chunks: each a task by itself, which any process may do, at any time, twice if need be."""

import dataclasses
import functools as ft
import itertools
import os
import pickle
import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from flowopt.run.draw import Drawn, Given
from flowopt.run.settings import callers_settings, progress_bar, under
from flowopt.run.store import Store, columns, from_columns

CHUNK = 16_384
"""Runs in one task, and in one Zarr chunk."""
_AHEAD = 1024
"""Tasks in an executor's hands at one time."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What all tasks of one ensemble share: the same call on other starts."""

    run: Callable[..., Any]
    """(starts, **how) -> the ensemble of their ends."""
    starts: Given | Drawn
    store: Store | None

    def chunk(self, first: int, last: int, starts: PyTree = None, **how: Any) -> Any:
        """Runs the starts from `first` up to `last` and returns their ends, or writes them and returns None."""
        ends = self.run(self.starts.part(first, last) if starts is None else starts, **how)
        if self.store is None:
            return ends
        self.store.write(first, ends)
        return None


def run_in_chunks(
    work: Work,
    like: Any,
    chunk: int,
    executor: Any,
    threads: int | None,
    progress: bool | str | tqdm,
) -> Any:
    """The ends of all runs of `work`: an ensemble like `like`, which has the dtypes and shapes of one run's end."""
    n, store = work.starts.n, work.store
    arrays = {}
    if store is None:
        arrays = {name: np.empty((n, *x.shape), x.dtype) for name, x in columns(like).items()}
    waiting = range(0, n, chunk) if store is None else store.unfinished()
    bounds = [(first, min(first + chunk, n)) for first in waiting]
    done = n - sum(last - first for first, last in bounds)
    with progress_bar(progress, n, done) as bar:
        try:
            if executor is None:
                results = ((b, work.chunk(*b, threads=threads, progress=bar)) for b in bounds)
            else:
                results = _submitted(work, executor, bounds)
            for (first, last), ends in results:
                if ends is not None:
                    for name, column in columns(ends).items():
                        arrays[name][first:last] = column
                done += last - first
                if executor is not None:
                    bar.update(last - first)
        except Exception as e:
            kept = f"kept in {store.path}: the same call goes on from there" if store else "lost"
            e.add_note(f"`ensemble`: {done} of {n} runs are finished, and {kept}")
            raise
    return from_columns(like, arrays) if store is None else store.read(like)


def _submitted(
    work: Work, executor: Any, bounds: Iterable[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Any]]:
    """Each chunk's bounds and ends, as they come from the executor."""
    if hasattr(executor, "get_executor"):  # a Dask client; no task is the same as an earlier one
        executor = executor.get_executor(pure=False)
    payload, settings, driver = _dumps(work), tuple(callers_settings().items()), os.getpid()
    waiting = iter(bounds)
    done = queue.SimpleQueue()
    flying = {}
    try:
        while True:
            for first, last in itertools.islice(waiting, _AHEAD - len(flying)):
                leaves = None
                if isinstance(work.starts, Given):
                    leaves = jtu.tree_leaves(work.starts.part(first, last))
                try:
                    future = executor.submit(_task, payload, settings, driver, first, last, leaves)
                except Exception as e:
                    raise RuntimeError(f"`executor` takes no tasks; is it closed? {e}") from e
                flying[future] = first, last
                future.add_done_callback(done.put)
            if not flying:
                return
            future = done.get()
            yield flying.pop(future), future.result()
    finally:
        for future in flying:
            future.cancel()


def _dumps(work: Work) -> bytes:
    """`work` without its starts, where they are given: a task gets those of its chunk."""
    if isinstance(work.starts, Given):
        work = dataclasses.replace(work, starts=Given(work.starts.part(0, 0), 0))
    try:
        try:
            import cloudpickle as pickler  # takes lambdas, closures, and what a script defines
        except ImportError:
            pickler = pickle
        return pickler.dumps(work)
    except Exception as e:
        raise TypeError(
            "`executor`: its workers must be sent `fn`, `method`, `args`, `stop` and a distribution of `starts`, and "
            f"one of them cannot be pickled ({e}); define functions at the top of a module, or "
            'pip install "flowopt[cluster]", which brings cloudpickle'
        ) from e


@ft.lru_cache(maxsize=4)
def _loads(payload: bytes, settings: tuple) -> Work:
    """The same objects for every task of an ensemble, so that a worker compiles once. Arrays need x64 as it was."""
    with under(dict(settings)):
        return pickle.loads(payload)


def _task(
    payload: bytes, settings: tuple, driver: int, first: int, last: int, leaves: list | None
) -> Any:
    """One chunk, on a worker."""
    if os.getpid() != driver:
        # Workers share a machine's cores by running tasks side by side, one thread each. XLA reads
        # this number of cores when it starts, for the threads inside an operation.
        os.environ.setdefault("NPROC", "1")
    try:
        work = _loads(payload, settings)
    except (ImportError, AttributeError) as e:
        raise RuntimeError(
            f"`executor`: a worker cannot load `fn`, `method`, `args`, `stop` or `starts` ({type(e).__name__}: {e}); "
            "every worker must be able to import the modules they are defined in: install them there, or put "
            "their folder on its PYTHONPATH"
        ) from e
    starts = leaves
    if leaves is not None:
        starts = jtu.tree_unflatten(jtu.tree_structure(work.starts.part(0, 0)), leaves)
    with under(dict(settings)):
        return work.chunk(first, last, starts, threads=1)
