"""The package itself: quick to import, quiet about precision, clean."""

import pathlib
import subprocess
import sys

import pytest

import flowopt as fo

ROOT = pathlib.Path(__file__).parent.parent


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def test_importing_does_not_touch_precision_and_loads_no_drawing():
    out = python(
        "import sys, flowopt, jax; print(jax.config.jax_enable_x64, jax.numpy.ones(1).dtype, "
        "[m for m in ('matplotlib', 'xarray', 'sympy', 'scipy', 'optax') if m in sys.modules])"
    )
    assert out.split(maxsplit=2) == ["False", "float32", "[]\n"]


def test_every_public_name_is_there():
    for name in dir(fo):
        assert getattr(fo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fo.nothing
    assert fo.__version__


@pytest.mark.parametrize(
    "command",
    [["ruff", "check"], ["ruff", "format", "--check"], ["pyright", "--pythonpath", sys.executable]],
)
def test_clean(command):
    run = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout
