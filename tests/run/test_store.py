"""Results on disk: the same bits however they came there, and nothing lost or overwritten."""

import hashlib
import itertools
import multiprocessing
import os
import pathlib
import random
import resource
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from problems import starts

import flowopt as fo
from flowopt.run import store as stores
from flowopt.run.draw import BLOCK, given_or_drawn

POLY3 = fo.benchmarks.poly3()
SQUARE = fo.uniform((-3, 3), (-3, 3))
CALL = dict(n=1000, key=7, tol=1e-4, max_steps=300)
KILLS = int(os.environ.get("FLOWOPT_KILLS", "3"))


def run(method=None, **settings) -> fo.Ensemble:
    return fo.ensemble(POLY3.loss, SQUARE, method or fo.gd(1e-2), **CALL | settings)


def bits(ends) -> list:
    return [(x.dtype, x.shape, x.tobytes()) for x in map(np.asarray, jax.tree.leaves(vars(ends)))]


def files(folder: pathlib.Path) -> dict:
    """Every file below, its contents and when it was written."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finished(store: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in (store / "finished" / "c").glob("*") if path.name.isdigit()]


@pytest.fixture
def stops_after(monkeypatch):
    """Lets so many chunks be written, then calls `fail`."""
    write = stores.Store.write

    def arrange(chunks: int, fail):
        left = iter(range(chunks))

        def failing(self, first, ends):
            if next(left, None) is None:
                fail(lambda: write(self, first, ends))
            write(self, first, ends)

        monkeypatch.setattr(stores.Store, "write", failing)

    yield arrange


def interrupt(_):
    raise KeyboardInterrupt


def test_drawn_starts_depend_on_key_and_index_alone():
    drawn = given_or_drawn(SQUARE, 2 * BLOCK + 100, jax.random.key(1))
    whole = drawn.part(0, drawn.n)
    assert len(whole[0]) == drawn.n and len(np.unique(whole[0])) == drawn.n
    cuts = [0, 1, 999, BLOCK, BLOCK + 1, 2 * BLOCK - 1, drawn.n]
    parts = [drawn.part(a, b) for a, b in itertools.pairwise(cuts)]
    for i in range(2):
        np.testing.assert_array_equal(np.concatenate([p[i] for p in parts]), whole[i])
    seed = given_or_drawn(SQUARE, drawn.n, 1)
    assert seed.digest() == drawn.digest() and str(seed) == str(drawn)
    assert given_or_drawn(SQUARE, drawn.n, 2).digest() != drawn.digest()
    plain = run(max_steps=0)
    np.testing.assert_array_equal(plain.params[1], given_or_drawn(SQUARE, 1000, 7).part(0, 1000)[1])


@pytest.mark.parametrize(
    "method",
    [fo.gd(1e-2), fo.lyapunov(fo.flows.HeavyBall(1.0)), fo.euler_richardson()],
    ids=["gd", "guarded heavy ball", "Euler-Richardson"],
)
def test_stored_in_chunks_of_any_size_and_in_memory_the_same_bits(method, tmp_path):
    plain = bits(run(method, n=300))
    for chunk in (300, 97, 65_536):
        assert bits(run(method, n=300, store=tmp_path / str(chunk), chunk=chunk)) == plain


def test_the_store_is_a_described_dataset(tmp_path):
    ends = run(store=tmp_path / "runs", chunk=300, about={"problem": "poly3"})
    assert isinstance(ends.value, xr.DataArray) and len(ends) == 1000
    ds = xr.open_zarr(tmp_path / "runs", consolidated=False)
    assert dict(ds.sizes) == {"run": 1000, "chunk": 4} and bool(ds.finished.all())
    np.testing.assert_array_equal(ds["params.1"], ends.params[1])
    assert ds.value.attrs["units"] == "loss" and ds.outcome.dtype == np.int32
    meanings = ds.outcome.attrs["flag_meanings"].split()
    assert tuple(meanings[1:]) == fo.Outcome.names and ds.outcome.attrs["flag_values"][0] == -1
    assert ds.attrs["problem"] == "poly3" and "step=0.01" in ds.attrs["method"]
    assert "key [0, 7]" in ds.attrs["starts"] and ds.attrs["jax version"] == jax.__version__
    for name in ("tol", "max_steps", "stop", "runs", "flowopt version", "step sha256"):
        assert name in ds.attrs
    before = files(tmp_path)
    assert bits(run(store=tmp_path / "runs", chunk=300, about={"problem": "poly3"})) == bits(ends)
    assert files(tmp_path) == before  # all is done: nothing is run or written


def test_signs_of_zero_and_pytrees_survive(tmp_path):
    fn = lambda p, args: p["a/b"] ** 2 + jnp.sum(p["x"] ** 2)
    first = {"x": np.full((5, 3), -0.0, np.float32), "a/b": np.full(5, -0.0, np.float32)}
    ends = fo.ensemble(fn, first, fo.gd(0.1), store=tmp_path / "runs", chunk=5)
    assert ends.params["x"].dtype == np.float32 and ends.params["x"].shape == (5, 3)
    assert np.all(np.signbit(ends.params["x"])) and np.all(np.signbit(ends.params["a/b"]))
    nobody = {name: x[:0] for name, x in first.items()}
    assert len(fo.ensemble(fn, nobody, fo.gd(0.1), store=tmp_path / "none")) == 0


def test_an_interrupted_run_goes_on_and_says_how_long(tmp_path, stops_after, capsys):
    plain = bits(run())
    with pytest.MonkeyPatch.context(), pytest.raises(KeyboardInterrupt):
        stops_after(3, interrupt)
        run(store=tmp_path / "runs", chunk=100)
    ds = xr.open_zarr(tmp_path / "runs", consolidated=False)
    assert int(ds.finished.sum()) == 3
    np.testing.assert_array_equal((ds.outcome == -1).values, np.arange(1000) >= 300)
    before = files(tmp_path)
    stops_after(1000, interrupt)
    assert bits(run(store=tmp_path / "runs", chunk=100, progress="poly3")) == plain
    after = files(tmp_path)
    assert all(after[path] == was for path, was in before.items())  # no chunk was run twice
    bar = capsys.readouterr().err
    assert "poly3:  30%" in bar and "300/1000" in bar and "<" in bar


def _run_in_a_process(store):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        run(n=30_000, store=store, chunk=500)


def test_killed_at_random_moments_it_resumes_to_the_same_bits(tmp_path):
    plain = bits(run(n=30_000))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flowopt"])
    store, moments = tmp_path / "runs", random.Random(time.time())
    for _ in range(KILLS):
        before = len(finished(store))
        process = context.Process(target=_run_in_a_process, args=[store])
        process.start()
        wanted = before + moments.randrange(50 // KILLS)
        while len(finished(store)) < wanted and process.is_alive():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05) if wanted > before else moments.uniform(0, 3))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if store.exists():
            xr.open_zarr(store, consolidated=False).load()  # readable at any moment
    done = {path: path.stat().st_ino for path in finished(store)}
    assert len(done) < 60
    assert bits(run(n=30_000, store=store, chunk=500)) == plain
    assert len(finished(store)) == 60
    assert all(path.stat().st_ino == inode for path, inode in done.items())


def test_another_description_is_refused_and_nothing_overwritten(tmp_path):
    store = tmp_path / "runs"
    scaled = lambda c: lambda p, args: c * POLY3.loss(p) + args
    usual = dict(fn=scaled(1.0), starts=SQUARE, method=fo.gd(1e-2), args=1.0, chunk=500, **CALL)
    call = lambda **change: fo.ensemble(store=store, **usual | change)
    call()
    before = files(tmp_path)
    given = dict(starts=starts(1000), n=None, key=None)
    for change, says in [
        (dict(tol=1e-5), "tol is 0.0001 there and 1e-05 here"),
        (dict(max_steps=301), "max_steps is 300 there and 301 here"),
        (dict(key=8), r"starts is '1000 from .*, key \[0, 7\]' there"),
        (dict(n=999), "runs is 1000 there and 999 here"),
        (dict(starts=fo.uniform((-3, 3), (-3, 2))), "starts sha256"),
        (given, "starts is .* and 'given' here"),
        (dict(method=fo.gd(2e-2)), r"method is .*step=0.02\)' here"),
        (dict(method=fo.gd(jnp.array(2e-2))), "step sha256"),
        (dict(fn=scaled(2.0)), "step sha256"),  # by name the same function
        (dict(args=2.0), "step sha256"),
        (dict(stop=lambda state: state.value < 1), "stop is 'gradient norm below tol' there"),
        (dict(chunk=400), "chunk is 500 there"),
        (dict(about={"problem": "mine"}), "problem is None there and 'mine' here"),
    ]:
        with pytest.raises(ValueError, match=f"`store`.*nothing was written.*{says}"):
            call(**change)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores.importlib.metadata, "version", lambda package: "99")
        with pytest.raises(ValueError, match=r"`store`.*jax version"):
            call()
    assert files(tmp_path) == before
    call(fn=scaled(1.0))  # made anew, the same function


def test_a_package_that_is_only_on_the_path_has_no_version(monkeypatch):
    def version(package):
        raise stores.importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(stores.importlib.metadata, "version", version)
    assert stores.versions()["flowopt version"] == "not installed"


def test_what_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    xr.Dataset({"label": ("run", [1])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    before = files(tmp_path)
    for name in ("file", "folder", "other.zarr"):
        with pytest.raises(ValueError, match=r"`store`.*nothing was written"):
            run(store=tmp_path / name)
    assert files(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert len(run(store=tmp_path / "empty", n=10)) == 10


@pytest.mark.parametrize("folder", ["/proc", "file"])
def test_an_unwritable_folder_is_a_clear_error(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"`store`: .*runs"):
        run(store=tmp_path / folder / "runs")
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_a_clear_error_and_leaves_what_was_written(tmp_path, stops_after):
    """The kernel refuses the write, as on a full disk; here it is a limit on the size of files."""

    def full(write):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
        try:
            write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    plain = bits(run())
    stops_after(2, full)
    with pytest.raises(OSError, match=r"`store`: File too large; .* kept") as error:
        run(store=tmp_path / "runs", chunk=100)
    assert "200 of 1000 runs are finished, and kept" in error.value.__notes__[0]
    ds = xr.open_zarr(tmp_path / "runs", consolidated=False).load()
    assert int(ds.finished.sum()) == 2 and int((ds.outcome >= 0).sum()) == 200
    assert not list((tmp_path / "runs").rglob("*.partial"))
    stops_after(1000, full)
    assert bits(run(store=tmp_path / "runs", chunk=100)) == plain


def test_basins_and_reach_go_through_a_store(tmp_path):
    maps = [fo.basins(POLY3, fo.gd(1e-2), resolution=8, store=s) for s in (None, tmp_path / "b")]
    xr.testing.assert_identical(*maps)
    shares = [
        fo.reach(POLY3, fo.gd(1e-2), SQUARE, 50, key=0, store=s) for s in (None, tmp_path / "r")
    ]
    xr.testing.assert_identical(*shares)
    assert xr.open_zarr(tmp_path / "r", consolidated=False).attrs["problem"] == "poly3"
    with pytest.raises(ValueError, match=r"`store`.*problem is 'poly3' there and 'poly2' here"):
        fo.reach(fo.benchmarks.poly2(), fo.gd(1e-2), SQUARE, 50, key=0, store=tmp_path / "r")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (dict(chunk=0), ValueError, "`chunk`"),
        (dict(threads=0), ValueError, "`threads`"),
        (dict(n=0), ValueError, "`n`"),
        (dict(n=2.0), TypeError, "`n`"),
        (dict(key=None), TypeError, "`key`"),
        (dict(starts=starts(3)), TypeError, "`n` and `key`"),
        (dict(starts=lambda key, n: jnp.ones(n + 1)), ValueError, "`starts`.*as many"),
    ],
)
def test_bad_input_is_named(change, error, says):
    arguments = dict(fn=POLY3.loss, starts=SQUARE, method=fo.gd(0.1)) | CALL | change
    with pytest.raises(error, match=says):
        fo.ensemble(**arguments)
