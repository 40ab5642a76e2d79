"""Every study runs, small, and writes what it promises."""

import math
import pathlib

import pytest

import studies
from flowopt.run.store import Store
from studies import report, surrogates
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
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "map.png").touch()
    page = report.save_together({"one": "# one", "two": "# two"}, tmp_path).read_text()
    assert page == "# one\n\n![map](one/map.png)\n\n# two\n"


def _interrupt(*_):
    raise KeyboardInterrupt


def test_an_unknown_study_is_named(capsys):
    with pytest.raises(ValueError, match="`name`: there is no study 'figure7'"):
        studies.run("figure7")
    with pytest.raises(SystemExit) as stop:
        main(["figure7"])
    assert stop.value.code == 2 and "figure7" in capsys.readouterr().err
