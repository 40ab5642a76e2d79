"""Chunks on other processes: the same bits, also when a worker dies; clear errors where it cannot be."""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import jax
import numpy as np
import pytest
from problems import starts

import flowopt as fo
from flowopt.run import chunks
from flowopt.run import store as stores

distributed = pytest.importorskip("distributed")
POLY3 = fo.benchmarks.poly3()
SQUARE = fo.uniform((-3, 3), (-3, 3))
CALL = dict(n=2000, key=7, tol=1e-4, max_steps=300)


def run(**settings) -> fo.Ensemble:
    arguments = dict(fn=POLY3.loss, starts=SQUARE, method=fo.gd(1e-2)) | CALL | settings
    return fo.ensemble(**arguments)


def bits(ends) -> list:
    return [(x.dtype, x.shape, x.tobytes()) for x in map(np.asarray, jax.tree.leaves(vars(ends)))]


@pytest.fixture(scope="module")
def client():
    """Two workers, each a process with one thread."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "given"])
def test_dask_workers_give_the_same_bits(client, drawn, tmp_path):
    """In memory and stored; the settings of this process (float64, strict promotion) go along."""
    how = dict(executor=client, chunk=700) | (
        {} if drawn else dict(starts=starts(2000), n=None, key=None)
    )
    plain = bits(run(**how | dict(executor=None)))
    assert bits(run(**how)) == plain
    assert bits(run(**how, store=tmp_path / "runs")) == plain
    assert bits(run(**how | dict(executor=None), store=tmp_path / "runs")) == plain


def test_a_worker_killed_costs_its_chunks_in_flight_alone(client, tmp_path):
    plain = bits(run(n=40_000))
    store, seen = tmp_path / "runs", {}
    marks = store / "finished" / "c"
    whole = lambda: {p.name: p.stat().st_ino for p in marks.glob("*") if p.name.isdigit()}

    def kill(pid):
        while len(whole()) < 10:
            time.sleep(0.002)
        seen.update(whole())
        os.kill(pid, signal.SIGKILL)

    pids = client.run(os.getpid)
    watch = threading.Thread(target=kill, args=[min(pids.values())])
    watch.start()
    ends = run(n=40_000, executor=client, store=store, chunk=500)
    watch.join()
    assert 10 <= len(seen) < 80 and len(whole()) == 80
    assert bits(ends) == plain
    # A chunk that had been finished stays as it was; at most the one being marked is written again.
    assert sum(whole()[name] != inode for name, inode in seen.items()) <= 1
    client.wait_for_workers(2, timeout=60)
    assert min(pids.values()) not in client.run(os.getpid).values()


def test_a_worker_that_cannot_import_the_users_module(client, tmp_path, monkeypatch):
    """What was finished is kept, and the same call goes on where the module is there."""
    (tmp_path / "mine.py").write_text("def loss(p, args):\n    return (p[0] * p[1] - 1) ** 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("mine")
    how = dict(fn=mine.loss, store=tmp_path / "runs", chunk=700)
    write = stores.Store.write
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def once(self, first, ends):
            write(self, first, ends)
            raise KeyboardInterrupt

        patch.setattr(stores.Store, "write", once)
        run(**how)
    with pytest.raises(RuntimeError, match=r"`executor`: a worker cannot load .*'mine'") as error:
        run(**how, executor=client)
    assert "700 of 2000 runs are finished, and kept" in error.value.__notes__[0]
    assert bits(run(**how)) == bits(run(fn=mine.loss))
    del sys.modules["mine"]


def test_closed_executors_keep_what_was_finished(tmp_path):
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="`executor` takes no tasks"):
        run(executor=pool, store=tmp_path / "runs")

    class ClosesEarly:
        """Runs one task, then is shut down."""

        open = True

        def submit(self, fn, *args):
            if not self.open:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.open, future = False, Future()
            future.set_result(fn(*args))
            return future

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch, pytest.raises(RuntimeError, match="is it closed") as error:
        patch.setattr(chunks, "_AHEAD", 1)
        run(executor=ClosesEarly(), store=tmp_path / "some", chunk=500)
    assert "500 of 2000 runs are finished, and kept" in error.value.__notes__[0]
    assert bits(run(store=tmp_path / "some", chunk=500)) == bits(run())


def test_processes_without_dask_give_the_same_bits_and_share_the_cores():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        method = fo.lyapunov(fo.flows.HeavyBall(1.0))
        assert bits(run(method=method, executor=pool, chunk=1500)) == bits(run(method=method))
        # One thread inside an operation: workers side by side fill the cores.
        assert pool.submit(os.getenv, "NPROC").result() == "1"
        shares = fo.reach(POLY3, method, SQUARE, 50, key=0, executor=pool)
    assert shares.identical(fo.reach(POLY3, method, SQUARE, 50, key=0))
    assert os.getenv("NPROC") is None


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="`executor` must have `submit`"):
        run(executor=4)
    with ThreadPoolExecutor(1) as pool:
        lock = threading.Lock()
        with pytest.raises(TypeError, match=r"`executor`.*cannot be pickled"):
            run(fn=lambda p, args: POLY3.loss(p) if lock else p[0], executor=pool)
        with pytest.raises(ValueError, match="`tol`"):
            run(tol=-1.0, executor=pool)
