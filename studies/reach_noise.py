"""The part of the study `reach` with noise on the gradient: is any maximum or saddle found?"""

import functools as ft
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from tqdm import tqdm

import flowopt as fo
from flowopt.stability.intervals import clopper_pearson
from studies import report

REGION = ((-3.0, 3.0), (-3.0, 3.0))
STEPS = 1000
"""Steps with noise, before it is turned off."""
LRS = {"poly2": 0.01, "poly3": 1e-3, "poly4": 1e-3, "poly5": 1e-5}
SIGMA = 1.0
"""Standard deviation of the noise in each entry of the gradient [loss/params]."""
KINDS = ("additive", "mini-batch", "SDE")


def measure(
    problems: Sequence[fo.Problem], n: int, out: pathlib.Path, quick: bool, progress: bool
) -> dict[tuple[str, ...], xr.Dataset]:
    """By (network, method, kind of noise, where from): `reach` of guarded descent from where the noise led."""
    found = {}
    jobs = [(p, *job) for p in problems for job in _jobs(p, quick)]
    for problem, name, kind, noisy in tqdm(jobs, desc="noise", disable=not progress):
        for origin, starts in (
            ("uniform", fo.uniform(*REGION)(jax.random.key(0), n)),
            ("at unstable points", at_unstable(problem, n)),
        ):
            if starts is not None:
                key = (problem.name, name, kind, origin)
                asked = ft.partial(_followed, problem, noisy, starts)
                found[key] = report.kept(out, f"{', '.join(key)}, {n}", asked)
    return found


def _followed(problem: fo.Problem, noisy: Callable, starts: Any) -> xr.Dataset:
    ds = fo.reach(problem, fo.lyapunov(), noisy(starts), tol=1e-4)
    return ds.assign_attrs(lingering=_still_there(problem, ds))


def _jobs(problem: fo.Problem, quick: bool) -> list[tuple[str, str, Callable]]:
    """(method, kind of noise, the noisy run: starts -> ends)."""
    lr = LRS[problem.name]
    methods = {
        f"GD, lr {lr:g}": fo.gd(lr),
        "Adam, lr 0.01": fo.adam(0.01),
        "energy-guarded Euler": fo.lyapunov(),
    }
    out = []
    for name, method in list(methods.items())[: 1 if quick else None]:
        fns = {"additive": fo.gaussian_noise(problem.loss, SIGMA), "mini-batch": one_datum(problem)}
        for kind, fn in fns.items():
            if fn is not None:
                out.append((name, kind, ft.partial(_run, fn, method)))
    return [*out, ("gradient flow", "SDE", ft.partial(_diffused, problem, lr))]


def _run(fn: fo.Stochastic, method: fo.Method, starts: Any) -> Any:
    ends = fo.ensemble(fn, starts, method, max_steps=STEPS, stop=lambda run: False)
    # What diverged under the noise has not ended anywhere, and is not to be followed from its last good params.
    lost = np.asarray(ends.outcome == "diverged")
    return jax.tree.map(lambda x: np.where(lost, np.nan, x), ends.params)


def _diffused(problem: fo.Problem, lr: float, starts: Any) -> Any:
    # The noise of SGD at this learning rate: h sigma xi a step is sqrt(h) sigma dW.
    return fo.diffuse(problem.loss, starts, SIGMA * lr**0.5, STEPS * lr, lr)


def one_datum(problem: fo.Problem) -> fo.Stochastic | None:
    """Mini-batches of one of the two data, as R(w, b) = (l(b) + l(w + b))/2: l is the loss of one datum alone."""
    half = lambda u: problem.loss((jnp.zeros_like(u), u))
    w, b = jnp.array(0.7), jnp.array(-0.4)
    # So it is for targets that are equal, and only then.
    if not np.allclose(problem.loss((w, b)), (half(b) + half(w + b)) / 2):
        return None
    return fo.minibatch(
        lambda params, x: half(params[0] * x[0] + params[1]), jnp.array([0.0, 1.0]), 1
    )


def at_unstable(problem: fo.Problem, n: int) -> Any:
    """n starts at the maxima and saddles in turn, to 1e-12: no two the same, as equal starts see equal noise."""
    points = [p.params for p in problem.critical_points if p.nature in ("maximum", "saddle")]
    if not points:
        return None
    rng = np.random.default_rng(0)
    chosen = np.array([np.ravel(points[i % len(points)]) for i in range(n)], float)
    return tuple((chosen + 1e-12 * rng.normal(size=chosen.shape)).T)


def unstable(ds: xr.Dataset) -> np.ndarray:
    """Which runs ended at a maximum or a saddle."""
    ends = [i for i, nature in enumerate(ds.attrs["natures"]) if nature in ("saddle", "maximum")]
    return np.isin(ds.label.values, ends)


def _still_there(problem: fo.Problem, ds: xr.Dataset) -> int:
    """How many of the runs that stopped at a maximum or saddle do so with a tolerance 10^6 times smaller."""
    stopped = unstable(ds)
    if not stopped.any():
        return 0
    again = tuple(ds.start.values[stopped].T)
    ends = fo.reach(problem, fo.lyapunov(), again, tol=1e-10, max_steps=100_000)
    return int(unstable(ends).sum())


def _counts(noisy: dict, kind: str, origin: str) -> tuple[int, int, int]:
    """(runs, those that stopped at a maximum or saddle, those that still do with a smaller tolerance)."""
    chosen = [ds for (_, _, *last), ds in noisy.items() if last == [kind, origin]]
    return (
        sum(ds.sizes["run"] for ds in chosen),
        sum(int(unstable(ds).sum()) for ds in chosen),
        sum(int(ds.attrs["lingering"]) for ds in chosen),
    )


def table(noisy: dict) -> str:
    rows = []
    origins = dict.fromkeys(key[3] for key in noisy)
    for kind in KINDS:
        for origin in origins:
            runs, stopped, stayed = _counts(noisy, kind, origin)
            if runs:
                low, high = clopper_pearson(np.array(stayed), runs)
                share = f"{100 * stayed / runs:.3g} [{100 * low:.2g}, {100 * high:.2g}]"
                rows.append([kind, origin, f"{runs:,}", str(stopped), str(stayed), share])
    text = (
        f"{STEPS:,} steps with noise, then energy-guarded Euler without it until |grad R| < 1e-4. Additive: "
        f"sigma = {SIGMA:g} in each entry. Mini-batch: one datum of the two. SDE: d theta = -grad R dt + "
        "sigma sqrt(lr) dW over the same time, by Diffrax's SRA1. Networks and methods together: "
        f"{', '.join(dict.fromkeys(k[0] for k in noisy))}; {', '.join(dict.fromkeys(k[1] for k in noisy))}."
    )
    head = [
        "noise",
        "starts",
        "runs",
        "at a maximum or saddle",
        "with tolerance 1e-10",
        "in percent",
    ]
    return text + "\n\n" + report.table(head, rows)


def verdicts(noisy: dict) -> list[str]:
    uniform = [_counts(noisy, kind, "uniform") for kind in KINDS]
    runs, stopped, stayed = (sum(column) for column in zip(*uniform, strict=True))
    high = 100 * float(clopper_pearson(np.array(stayed), runs)[1])
    there = {kind: _counts(noisy, kind, "at unstable points") for kind in KINDS}
    there = {kind: counts for kind, counts in there.items() if counts[0]}
    left = {kind: stayed == 0 for kind, (_, _, stayed) in there.items()}
    return [
        report.verdict(
            stayed == 0,
            "nor do they with noise on the gradient",
            f"of {runs:,} runs with noise from uniform starts {stopped} stopped at one, and {stayed} still do with a "
            f"tolerance 10^6 times smaller: at most {high:.2g}% of such runs, at 95%",
        ),
        report.verdict(
            True if all(left.values()) else None if any(left.values()) else False,
            "noise drives runs off the maxima and saddles that they are started at",
            "of the runs started there stay, with a tolerance 10^6 times smaller, "
            + ", ".join(f"{stayed} of {n:,} ({kind})" for kind, (n, _, stayed) in there.items())
            + ". Mini-batch noise vanishes at every critical point of these networks: with equal targets each datum's "
            "own loss is at rest there, so a run leaves no faster than without noise",
        ),
    ]
