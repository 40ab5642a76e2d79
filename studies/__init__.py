"""Studies: one claim or figure each. `python -m studies --list` names them; each writes into results/NAME/.

A study is a module with a one-line docstring and `run(out, quick, progress)`, which measures, writes its figures
(PNG and PDF), its data (Zarr) and a report (report.md) into the folder `out`, and returns the report.
"""

import ast
import importlib
import importlib.util
import os
import pathlib
from types import ModuleType

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Read when NumPy is loaded. Matrices here are small, and threads wait for each other on a busy machine: 60 steps of
# Levenberg-Marquardt with J of 800 x 50, on two cores with a load of 12, took 38 s by two threads and 0.05 s by one.

DEFAULT = ("figure1", "reach")
"""What `python -m studies` runs."""
MODULES = {
    "figure1": "studies.figure1",
    "reach": "studies.reach",
    "benchmarks": "studies.benchmark_networks",
    "classics": "studies.classics",
    "energy": "studies.energy",
    "instability": "studies.instability",
    "convexity": "studies.convexity",
    "default": "studies.default_method",
    "ensemble": "studies.benchmarks.ensemble",
    "sensitivity": "studies.sensitivity",
    "hyperparameters": "studies.hyperparameters",
    "surrogates": "studies.surrogates",
    "training": "studies.benchmarks.training",
}
"""Every study, and the module that holds it."""
NAMES = tuple(MODULES)


def find(name: str) -> ModuleType:
    """The study called `name`; ValueError, listing them all, for one that is not there."""
    if name not in NAMES:
        raise ValueError(f"`name`: there is no study {name!r}; the studies are {', '.join(NAMES)}")
    try:
        return importlib.import_module(MODULES[name])
    except ModuleNotFoundError as e:
        raise ModuleNotFoundError(
            f'the study {name!r} compares with {e.name}: pip install -e ".[test]"', name=e.name
        ) from e


def about(name: str) -> str:
    """The study's first line, read without running it."""
    spec = importlib.util.find_spec(MODULES[name])
    assert spec is not None and spec.origin is not None
    text = ast.get_docstring(ast.parse(pathlib.Path(spec.origin).read_text())) or ""
    return text.partition("\n")[0]


def run(
    name: str, out: str | pathlib.Path = "results", quick: bool = False, progress: bool = False
) -> str:
    """Runs the study `name` into the folder `out`/`name` and returns its report.

    `quick` runs it small: to see that it works, not for its numbers. Turns on float64, as every study needs it.
    """
    import jax
    import matplotlib

    study = find(name)
    folder = pathlib.Path(out) / name
    folder.mkdir(parents=True, exist_ok=True)
    matplotlib.use("Agg")  # studies write files; they need no screen
    with jax.enable_x64(True):
        return study.run(folder, quick, progress)
