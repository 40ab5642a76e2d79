"""Every Python snippet of the README runs, in order, as one reader would type them."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def test_the_snippets_run(tmp_path):
    text = (ROOT / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(snippets) >= 6
    script = tmp_path / "readme.py"
    script.write_text("import matplotlib\nmatplotlib.use('Agg')\n" + "\n".join(snippets))
    run = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for name in ("basins.png", "energy.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert "V' <= 0 everywhere" in run.stdout


def test_the_commands_are_those_that_ci_runs():
    text = (ROOT / "README.md").read_text()
    assert 'pip install -e ".[test]" && pytest' in text
    assert "pip install -e . && python -m studies" in text
    ci = (ROOT / ".ci" / "run").read_text()
    assert '-e ".[test]" && pytest' in ci
