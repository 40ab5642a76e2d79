"""Every study runs, small, and writes what it promises."""

import math
import pathlib
import resource

import numpy as np
import pytest
import xarray as xr

import studies
from flowopt.run.store import Store
from studies import hyperparameters, report, surrogates
from studies.__main__ import main


@pytest.mark.parametrize("name", studies.NAMES)
def test_every_study_runs_and_reports(name, tmp_path):
    report = studies.run(name, tmp_path, quick=True)
    folder = tmp_path / name
    assert (folder / "report.md").read_text() == report + "\n"
    assert report.startswith(f"# {name}")
    assert (studies.find(name).__doc__ or "").startswith(studies.about(name)) and studies.about(
        name
    )


def test_the_command_line_lists_and_goes_on_where_it_was_killed(tmp_path, monkeypatch, capsys):
    """Maps that were finished are not made again; what is kept on the way is gone in the end."""
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in studies.NAMES)
    wrote, write, folder = [], Store.write, tmp_path / "figure1"
    monkeypatch.setattr(Store, "write", lambda *args: (wrote.append(args[0].path), write(*args)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(report, "save_data", _interrupt)
        main(["figure1", "--quick", "--out", str(tmp_path)])
    assert len(wrote) == 1 and pathlib.Path(wrote[0]).parent == folder / "unfinished"
    assert main(["figure1", "--quick", "--out", str(tmp_path)]) == 0
    assert len(wrote) == len(set(wrote)) == 6
    assert not (folder / "unfinished").exists()
    assert (folder / "figure1.png").stat().st_size > 10_000
    assert (folder / "poly2-GD.zarr").is_dir()


def test_surrogates_go_on_where_they_were_killed(tmp_path, monkeypatch):
    """What was measured is not measured again, and is gone in the end."""
    called = []

    def fit_all(name, problem):
        called.append((name, problem.width))
        if len(called) == 4:
            raise KeyboardInterrupt
        if name == "SciPy BFGS":
            return {}
        keys = ("error", "train_error", "evaluations", "cost", "seconds")
        found = {key: [1.0, 2.0] for key in keys}
        return found | {"error": [math.nan, math.nan]} if name == "SciPy LM" else found

    monkeypatch.setattr(surrogates, "fit_all", fit_all)
    with pytest.raises(KeyboardInterrupt):
        studies.run("surrogates", tmp_path, quick=True)
    text = studies.run("surrogates", tmp_path, quick=True)
    assert len(called) == len(set(called)) + 1 == 1 + len(surrogates.METHODS)
    assert "| 4 (26) | SciPy BFGS | - | - |" in text and "| 4 (26) | SciPy LM | inf |" in text
    assert not (tmp_path / "surrogates" / "unfinished").exists()


def test_reports_and_figures_are_put_together(tmp_path):
    """Each figure once: where the report shows it, and at its end those that it does not."""
    (tmp_path / "one").mkdir()
    for figure in ("map", "shown"):
        (tmp_path / "one" / f"{figure}.png").touch()
    reports = {"one": "# one\n\n![a map](shown.png) [far](https://a.org/b.png)", "two": "# two"}
    page = report.save_together(reports, tmp_path).read_text()
    shown = "# one\n\n![a map](one/shown.png) [far](https://a.org/b.png)"
    assert page == f"{shown}\n\n![map](one/map.png)\n\n# two\n"


def test_what_is_kept_is_not_computed_again_unless_the_code_changed(tmp_path, monkeypatch):
    calls = []

    def compute():
        calls.append(1)
        return xr.Dataset({"x": ("r", np.array([0.1, np.nan]) * len(calls))}, attrs={"n": [1, 2]})

    one, again = (report.kept(tmp_path, "a, b", compute) for _ in range(2))
    xr.testing.assert_identical(one, again)
    assert len(calls) == 1 and again.attrs == {"n": [1, 2]} and float(one.x[0]) == 0.1
    monkeypatch.setattr(report, "_code", lambda: "other")
    assert float(report.kept(tmp_path, "a, b", compute).x[0]) == 0.2 and len(calls) == 2


def test_a_study_killed_between_its_parts_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """Of `hyperparameters`, with three constants, whose parts are kept one by one: only the third is made anew."""
    every = hyperparameters.constants
    few = ("GD: learning rate", "guarded Euler: first step", "guarded Euler: lam")
    monkeypatch.setattr(hyperparameters, "constants", lambda n: {k: every(n)[k] for k in few})
    whole = studies.run("hyperparameters", tmp_path / "whole", quick=True)
    kept, made = report.kept, []

    def counting(out, label, compute):
        if len(made) == 2 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        return kept(out, label, lambda: (made.append(label), compute())[1])

    monkeypatch.setattr(report, "kept", counting)
    with pytest.raises(KeyboardInterrupt):
        studies.run("hyperparameters", tmp_path / "killed", quick=True)
    (tmp_path / "again").touch()
    assert studies.run("hyperparameters", tmp_path / "killed", quick=True) == whole
    assert len(made) == len(set(made)) == 3
    for path in (tmp_path / "whole" / "hyperparameters").glob("*.zarr"):
        one, other = (
            xr.open_zarr(p, consolidated=False).load()
            for p in (path, tmp_path / "killed" / "hyperparameters" / path.name)
        )
        xr.testing.assert_identical(one, other)


def test_a_full_disk_keeps_the_figure_and_the_data_of_before(tmp_path, capsys):
    """A limit on the size of files stands for the full disk."""
    old = xr.Dataset({"x": ("r", np.arange(9.0))})
    report.save_data(old, tmp_path / "a.zarr")
    report.save_report("old", tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            report.save_data(xr.Dataset({"x": ("r", np.sin(np.arange(999)))}), tmp_path / "a.zarr")
        with pytest.raises(OSError, match="File too large"):
            report.save_report("new" * 99, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "a.zarr", consolidated=False).load(), old)
    assert (tmp_path / "report.md").read_text() == "old\n"
    (tmp_path / "file").touch()
    assert main(["figure1", "--quick", "--out", str(tmp_path / "file")]) == 1
    assert "--out" in capsys.readouterr().err


def _interrupt(*_):
    raise KeyboardInterrupt


def test_an_unknown_study_is_named(capsys):
    with pytest.raises(ValueError, match="`name`: there is no study 'figure7'"):
        studies.run("figure7")
    with pytest.raises(SystemExit) as stop:
        main(["figure7"])
    assert stop.value.code == 2 and "figure7" in capsys.readouterr().err
