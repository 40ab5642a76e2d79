"""Studies: one claim or figure each. `python -m studies --list` names them; each writes into results/NAME/.

A study is a module with a one-line docstring and `run(out, quick, progress)`, which measures, writes its figures
(PNG), its data (Zarr) and a report (report.md) into the folder `out`, and returns the report.
"""

import importlib
import pathlib
from types import ModuleType

DEFAULT = ("figure1", "reach")
"""What `python -m studies` runs."""
MODULES = {
    "figure1": "studies.figure1",
    "reach": "studies.reach",
    "benchmarks": "studies.benchmark_networks",
}
"""Every study, and the module that holds it."""
NAMES = tuple(MODULES)


def find(name: str) -> ModuleType:
    """The study called `name`; ValueError, listing them all, for one that is not there."""
    if name not in NAMES:
        raise ValueError(f"`name`: there is no study {name!r}; the studies are {', '.join(NAMES)}")
    return importlib.import_module(MODULES[name])


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
