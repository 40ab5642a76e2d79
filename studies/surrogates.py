"""Small networks in place of simulation parts: which method gives the smallest error, at which width, for what cost?

Each network has one hidden layer of tanh and normalised inputs and outputs, all methods start from the same params
and fit the same data. Nothing of this library, of Optimistix, of SciPy and optax's L-BFGS is tuned. Adam's learning
rate, constant or falling to 0 as a cosine, is the best of a random search, on validation data and the first start, and
the search is charged: every run of it.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from tqdm import tqdm

import flowopt as fo
from flowopt.benchmarks import surrogates
from studies import report
from studies.surrogate_methods import (
    ADAM,
    METHODS,
    RATES,
    SEARCH_SEED,
    UNTUNED,
    Budget,
    algebra,
    size,
    tuned_adam,
)
from studies.surrogate_report import bounds, claims, draw, median, smallest

ALGEBRA = 5e10
"""A method whose fit may take more multiplications for its linear algebra is left out."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A part, its data, and how much is spent on it."""

    part: surrogates.Part
    train: int
    widths: tuple[int, ...]
    starts: int
    budget: Budget


def settings(quick: bool) -> list[Setting]:
    """The three parts of simulation codes."""
    if quick:
        small = Budget(second=5, newton=5, quasi=10, first=20, searched=2)
        return [Setting(surrogates.riemann_problem, 30, (4,), 2, small)]
    widths, budget = (4, 8, 16, 32, 64), Budget(60, 200, 1000, 4000, 12)
    return [
        Setting(surrogates.riemann_problem, 400, widths, 20, budget),
        Setting(surrogates.equation_of_state, 300, widths, 20, budget),
        Setting(surrogates.opacity, 60, widths, 20, budget),
    ]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A part at one width: what every method is given."""

    setting: Setting
    width: int
    residuals: Any
    starts: list
    train: Any
    unseen: Any

    def error(self, params: Any, data: Any) -> float:
        predicted = jax.vmap(self.residuals.rebuild(params))(data.x)
        return self.setting.part.error(np.asarray(predicted), np.asarray(data.y))


def problem_of(setting: Setting, width: int) -> Problem:
    train, unseen = setting.part.sample(setting.train, seed=0), setting.part.sample(2000, seed=1)
    starts, rebuild = [], None
    for key in range(setting.starts):
        sizes = train.x.shape[1], train.y.shape[1], width
        net = fo.networks.mlp(*sizes, key=jax.random.key(key))
        start, rebuild = fo.networks.split(fo.networks.normalised(net, train))
        starts.append(start)
    assert rebuild is not None
    return Problem(setting, width, fo.networks.Residuals(rebuild), starts, train, unseen)


def fit_all(name: str, problem: Problem) -> dict[str, list[float]]:
    """What becomes of each start by the method `name`; nothing where its matrices are too large."""
    train, budget = problem.train, problem.setting.budget
    if algebra(name, train, problem.starts[0], budget) > ALGEBRA:
        return {}
    fits, seconds = [], []
    if name == ADAM:
        check = problem.setting.part.sample(200, seed=2)
        error = lambda params: problem.error(params, check)
        begin = time.process_time()
        fits = tuned_adam(problem.residuals, problem.starts, train, budget, error)
        jax.block_until_ready([fit.params for fit in fits])
        seconds = [(time.process_time() - begin) / len(fits)] * len(fits)
    else:
        for start in problem.starts:
            begin = time.process_time()
            fits.append(UNTUNED[name](problem.residuals, start, train, budget))
            jax.block_until_ready(fits[-1].params)
            seconds.append(time.process_time() - begin)
    return dict(
        error=[problem.error(fit.params, problem.unseen) for fit in fits],
        train_error=[problem.error(fit.params, train) for fit in fits],
        evaluations=[float(fit.evaluations) for fit in fits],
        cost=[float(fit.cost) for fit in fits],
        seconds=seconds,
    )


def kept(path: pathlib.Path, measure: Callable[[], dict]) -> dict:
    """What was measured before and stands in the file `path`; else what `measure` finds, put there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".part")
        half.write_text(json.dumps(measure()))
        os.replace(half, path)
    return json.loads(path.read_text())


def measure(chosen: list[Setting], out: pathlib.Path, bar: tqdm) -> list[xr.Dataset]:
    """Of each part: errors, evaluations, cost and seconds over width, method and start; NaN where left out.

    The narrow networks first, all parts in turn. What is finished is kept in `out`/unfinished.
    """
    shapes = [(len(s.widths), len(METHODS), s.starts) for s in chosen]
    names = ("error", "train_error", "evaluations", "cost", "seconds")
    found = [{name: np.full(shape, np.nan) for name in names} for shape in shapes]
    params = [np.zeros(len(s.widths), int) for s in chosen]
    for w in range(max(len(s.widths) for s in chosen)):
        for i, setting in enumerate(chosen):
            if w >= len(setting.widths):
                continue
            problem = problem_of(setting, setting.widths[w])
            params[i][w] = size(problem.starts[0])
            for m, name in enumerate(METHODS):
                label = f"{setting.part.name}, width {problem.width}, {name}"
                bar.set_postfix_str(label)
                as_asked = f"{label}, {setting.train}, {setting.starts}, {setting.budget}"
                code = hashlib.sha256(as_asked.encode()).hexdigest()[:16]
                path = out / "unfinished" / f"{code}.json"
                for key, values in kept(path, lambda n=name, p=problem: fit_all(n, p)).items():
                    found[i][key][w, m] = values
                bar.update()
    return [dataset(*args) for args in zip(chosen, found, params, strict=True)]


def dataset(setting: Setting, found: dict, params: np.ndarray) -> xr.Dataset:
    dims = ("width", "method", "start")
    about = {
        "error": {"long_name": "rms error on unseen data"},
        "train_error": {"long_name": "rms error on the data of training"},
        "evaluations": {"units": "1"},
        "cost": {"units": "gradients"},
        "seconds": {"units": "s", "long_name": "processor time, compiling too"},
    }
    return xr.Dataset(
        {name: (dims, found[name], about[name]) for name in about} | {"params": ("width", params)},
        coords={"width": list(setting.widths), "method": list(METHODS)},
        attrs={"part": setting.part.name, "train": setting.train, "starts": setting.starts}
        | dataclasses.asdict(setting.budget),
    )


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    """Measures, draws, and writes report.md into `out`."""
    chosen = settings(quick)
    total = sum(len(s.widths) * len(METHODS) for s in chosen)
    with tqdm(total=total, disable=not progress, desc="surrogates") as bar:
        found = measure(chosen, out, bar)
    return written(found, out)


def written(found: list[xr.Dataset], out: pathlib.Path) -> str:
    """The report of what was found, its data and its figure."""
    for ds in found:
        # Zarr has no settled type for strings: the names go into the attributes.
        data = ds.drop_vars("method").assign_attrs(methods=list(METHODS))
        report.save_data(data, out / f"{ds.attrs['part'].replace(' ', '-')}.zarr")
    draw(found, out)
    body = [
        "# surrogates: which method gives the smallest network?",
        (__doc__ or "").partition("\n\n")[2].strip(),
        "Medians over the starts; in brackets their interval, of 95% at least, by order statistics. *Evaluations* are "
        "calls, each one, of the loss, the gradient, the residuals, a Jacobian or a Hessian, or a product with a "
        "Jacobian that is never formed; *cost* is in gradients: a value and a gradient together 1, a Jacobian as many "
        "as there are params, a Hessian twice that. *Seconds* are of processor time for a start, compiling too; Adam's "
        "search is shared out among them. Every attempted step of Optimistix LM is charged a Jacobian. The error is "
        "that of the params at the end, not of the best on the way: none stops early. A dash: left out, as a fit "
        f"might take more than {ALGEBRA:.0e} multiplications for its linear algebra.",
        *(text for ds in found for text in section(ds)),
        "## Verdict",
        "\n".join(claims(found)),
    ]
    return report.save_report("\n\n".join(body), out)


def section(ds: xr.Dataset) -> list[str]:
    """The table of one part."""
    rows = []
    for width in ds.width.values:
        for name in METHODS:
            one = ds.sel({"width": width, "method": name})
            cells = [f"{width} ({int(one.params)})", name]
            if np.isfinite(one.seconds).any():
                cells += [_spread(one.error), _spread(one.train_error)]
                cells += [f"{float(one[k].median()):.3g}" for k in ("evaluations", "cost")]
                cells += [f"{float(one.seconds.median()):.2g}"]
            else:
                cells += ["-"] * 5
            rows.append(cells)
    head = ["width (params)", "method", "error on unseen data", "on those of training"]
    a = ds.attrs
    return [
        f"## {a['part']}",
        f"{a['train']} data, {a['starts']} starts; at most {a['second']} steps of Levenberg-Marquardt, {a['newton']} "
        f"of Newton, {a['quasi']} of BFGS and L-BFGS, {a['first']} of guarded descent and of Adam, whose constants are "
        f"the best of {a['searched']} drawn, the rate log-uniformly from {RATES[0]:g} to {RATES[1]:g} (seed "
        f"{SEARCH_SEED}).",
        report.table([*head, "evaluations", "cost", "seconds"], rows),
        smallest(ds),
    ]


def _spread(values: xr.DataArray) -> str:
    """The median, and its interval."""
    low, high = bounds(values.values)
    shown = "" if np.isnan(low + high) else f" ({low:.3g} to {high:.3g})"
    return f"{float(median(values)):.3g}{shown}"
