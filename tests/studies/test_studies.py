"""Every study runs, small, and writes what it promises."""

import pytest

import studies
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


def test_the_command_line(tmp_path, capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in studies.NAMES)
    assert main(["figure1", "--quick", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "figure1" / "figure1.png").stat().st_size > 10_000
    assert (tmp_path / "figure1" / "poly2-GD.zarr").is_dir()


def test_an_unknown_study_is_named(capsys):
    with pytest.raises(ValueError, match="`name`: there is no study 'figure7'"):
        studies.run("figure7")
    with pytest.raises(SystemExit) as stop:
        main(["figure7"])
    assert stop.value.code == 2 and "figure7" in capsys.readouterr().err
