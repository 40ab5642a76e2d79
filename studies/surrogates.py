"""Small networks in place of simulation parts: which method gives the smallest error, at which width, for what cost?

Each network has one hidden layer of tanh and normalised inputs and outputs, all methods start from the same params
and fit the same data. Nothing of this library, of Optimistix or of SciPy is tuned. Adam's learning rate is the best
of a random search, on validation data and the first start, and the search is charged: every run of it.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import optimistix as optx
import scipy.optimize
import xarray as xr
from jax.flatten_util import ravel_pytree
from matplotlib.ticker import NullFormatter
from tqdm import tqdm

import flowopt as fo
from flowopt.benchmarks import surrogates
from flowopt.plotting import line_style
from studies import report

LM, DEFAULT, ADAM = "flowopt least_squares", "flowopt minimise", "Adam, tuned"
OURS = (LM, DEFAULT)
TOL = 1e-8
"""On the gradient's norm, or as the others' rtol and atol."""
RATES = (1e-4, 1e-1)
"""Of Adam's learning rate, searched uniformly in its logarithm."""
SEARCH_SEED = 7


@dataclasses.dataclass(frozen=True)
class Setting:
    """A part, and how much is spent on it."""

    part: surrogates.Part
    train: int
    widths: tuple[int, ...]
    second: int
    """Most steps of Levenberg-Marquardt and Newton methods."""
    bfgs: int
    adam: int
    searched: int = 8
    starts: int = 3


def settings(quick: bool) -> list[Setting]:
    if quick:
        return [Setting(surrogates.riemann_problem, 30, (4,), 10, 20, 50, searched=2, starts=2)]
    widths = (4, 8, 16, 32)
    return [
        Setting(surrogates.riemann_problem, 400, widths, 150, 1500, 4000),
        Setting(surrogates.equation_of_state, 300, widths, 150, 1500, 4000),
        Setting(surrogates.opacity, 60, (4, 8), 30, 500, 2000),
    ]


@dataclasses.dataclass(frozen=True)
class Fit:
    """The params a method ends with, and what it spent to get there."""

    params: Any
    evaluations: float
    """Calls of the loss, its gradient, Hessian, residuals or Jacobian, each of them one."""
    cost: float
    """The same in gradients: a forward pass 1/2, a Jacobian as many as there are params, a Hessian twice that."""


def least_squares(residuals, params, data, setting: Setting) -> Fit:
    end = fo.least_squares(residuals, params, args=data, tol=TOL, max_steps=setting.second)
    r, j = int(end.stats["residual_evals"]), int(end.stats["jacobian_evals"])
    return Fit(end.params, r + j, 0.5 * r + size(params) * j)


def minimise(residuals, params, data, setting: Setting) -> Fit:
    loss = fo.networks.MeanSquaredError(residuals.rebuild)
    end = fo.minimise(loss, params, args=data, tol=TOL, max_steps=setting.second)
    passes = int(end.stats["value_evals"]) + int(end.stats["grad_evals"])
    products = int(end.stats["hessian_products"])
    return Fit(end.params, passes + products / size(params), 0.5 * passes + 2.0 * products)


@eqx.filter_jit
def _optimistix_lm(residuals, params, data, steps):
    solver = optx.LevenbergMarquardt(rtol=TOL, atol=TOL)
    return optx.least_squares(residuals, solver, params, data, max_steps=steps, throw=False)


def optimistix_lm(residuals, params, data, setting: Setting) -> Fit:
    end = _optimistix_lm(residuals, params, data, setting.second)
    steps = int(end.stats["num_steps"])
    return Fit(end.value, 2 * steps, (0.5 + size(params)) * steps)


@eqx.filter_jit
def _optimistix_bfgs(residuals, params, data, steps):
    loss = fo.networks.MeanSquaredError(residuals.rebuild)
    solver = optx.BFGS(rtol=TOL, atol=TOL)
    return optx.minimise(loss, solver, params, data, max_steps=steps, throw=False)


def optimistix_bfgs(residuals, params, data, setting: Setting) -> Fit:
    end = _optimistix_bfgs(residuals, params, data, setting.bfgs)
    steps, accepted = int(end.stats["num_steps"]), int(end.state.num_accepted_steps)
    return Fit(end.value, steps + accepted, 0.5 * (steps + accepted))


@eqx.filter_jit
def _flat(residuals, rebuild, flat, data):
    return residuals(rebuild(flat), data).ravel()


@eqx.filter_jit
def _jacobian(residuals, rebuild, flat, data):
    return jax.jacfwd(lambda p: residuals(rebuild(p), data).ravel())(flat)


def scipy_least_squares(residuals, params, data, setting: Setting) -> Fit:
    flat, rebuild = ravel_pytree(params)
    rebuild = jax.tree_util.Partial(rebuild)
    jacobian: Any = lambda p: np.asarray(_jacobian(residuals, rebuild, jnp.asarray(p), data))
    end = scipy.optimize.least_squares(
        lambda p: np.asarray(_flat(residuals, rebuild, jnp.asarray(p), data)),
        np.asarray(flat),
        jacobian,
        max_nfev=setting.second,
    )
    r, j = end.nfev, end.njev or 0
    return Fit(rebuild(jnp.asarray(end.x)), r + j, 0.5 * r + flat.size * j)


@eqx.filter_jit
def _adam(residuals, params, data, rates, steps):
    """Adam from stacked `params`, by the stacked `rates`: the last params of each."""
    loss = fo.networks.MeanSquaredError(residuals.rebuild)

    def one(params, rate):
        adam = optax.adam(rate)

        def step(carry, _):
            params, state = carry
            updates, state = adam.update(jax.grad(loss)(params, data), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, adam.init(params)), length=steps)[0][0]

    return jax.vmap(one)(params, rates)


def tuned_adam(residuals, starts: list, data, setting: Setting) -> list[Fit]:
    """All starts, by the learning rate that was best on validation data from the first."""
    generator = np.random.default_rng(SEARCH_SEED)
    rates = jnp.asarray(
        np.exp(generator.uniform(np.log(RATES[0]), np.log(RATES[1]), setting.searched))
    )
    many = jax.tree.map(lambda x: jnp.stack([x] * setting.searched), starts[0])
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps as integers
        tried = _adam(residuals, many, data, rates, setting.adam)
    check = setting.part.sample(200, seed=2)
    errors = [
        error_of(setting.part, residuals, jax.tree.map(lambda x, i=i: x[i], tried), check)
        for i in range(setting.searched)
    ]
    best = rates[int(np.argmin(np.nan_to_num(errors, nan=np.inf)))]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    with jax.numpy_dtype_promotion("standard"):
        ends = _adam(residuals, stacked, data, jnp.full(len(starts), best), setting.adam)
    spent = (setting.searched + 1) * setting.adam
    return [Fit(jax.tree.map(lambda x, i=i: x[i], ends), spent, spent) for i in range(len(starts))]


UNTUNED: dict[str, Callable[..., Fit]] = {
    LM: least_squares,
    DEFAULT: minimise,
    "Optimistix LM": optimistix_lm,
    "Optimistix BFGS": optimistix_bfgs,
    "SciPy least_squares": scipy_least_squares,
}
METHODS = (*UNTUNED, ADAM)


def size(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def error_of(part: surrogates.Part, residuals, params, data) -> float:
    predicted = jax.vmap(residuals.rebuild(params))(data.x)
    return part.error(np.asarray(predicted), np.asarray(data.y))


def measure(setting: Setting, advance: Callable[[str], None]) -> xr.Dataset:
    """Error on unseen data, evaluations, cost and seconds, of each width, method and start."""
    part = setting.part
    train, unseen = part.sample(setting.train, seed=0), part.sample(2000, seed=1)
    dims = ("width", "method", "start")
    shape = (len(setting.widths), len(METHODS), setting.starts)
    error, evaluations, cost, seconds = (np.full(shape, np.nan) for _ in range(4))
    params = np.zeros(len(setting.widths), int)
    for w, width in enumerate(setting.widths):
        starts, residuals = [], None
        for key in range(setting.starts):
            net = fo.networks.mlp(
                train.x.shape[1], train.y.shape[1], width, key=jax.random.key(key)
            )
            start, rebuild = fo.networks.split(fo.networks.normalised(net, train))
            starts.append(start)
            residuals = fo.networks.Residuals(rebuild)
        params[w] = size(starts[0])
        for m, name in enumerate(METHODS):
            advance(f"{part.name}, width {width}, {name}")
            fits, took = [], []
            if name == ADAM:
                begin = time.process_time()
                fits = tuned_adam(residuals, starts, train, setting)
                jax.block_until_ready([fit.params for fit in fits])
                took = [time.process_time() - begin] * setting.starts
            else:
                for start in starts:
                    begin = time.process_time()
                    fits.append(UNTUNED[name](residuals, start, train, setting))
                    jax.block_until_ready(fits[-1].params)
                    took.append(time.process_time() - begin)
            for s, fit in enumerate(fits):
                error[w, m, s] = error_of(part, residuals, fit.params, unseen)
                evaluations[w, m, s], cost[w, m, s] = fit.evaluations, fit.cost
            seconds[w, m] = took
    return xr.Dataset(
        {
            "error": (dims, error, {"long_name": "rms error on unseen data"}),
            "evaluations": (dims, evaluations),
            "cost": (dims, cost, {"units": "gradients"}),
            "seconds": (
                dims,
                seconds,
                {"units": "s", "long_name": "processor time, compiling too"},
            ),
            "params": ("width", params),
        },
        coords={"width": list(setting.widths), "method": list(METHODS)},
        attrs={"part": part.name, "train": setting.train, "starts": setting.starts},
    )


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    """Measures, draws, and writes report.md into `out`."""
    chosen, found = settings(quick), []
    total = sum(len(s.widths) * len(METHODS) for s in chosen)
    with tqdm(total=total, disable=not progress, desc="surrogates") as bar:

        def advance(label: str) -> None:
            bar.set_postfix_str(label)
            bar.update()

        for setting in chosen:
            ds = measure(setting, advance)
            # Zarr has no settled type for strings: the names go into the attributes.
            data = ds.drop_vars("method").assign_attrs(methods=list(METHODS))
            report.save_data(data, out / f"{setting.part.name.replace(' ', '-')}.zarr")
            found.append(ds)
    draw(found, out)
    parts = [text for s, ds in zip(chosen, found, strict=True) for text in section(s, ds)]
    body = [
        "# surrogates: which method gives the smallest network?",
        (__doc__ or "").partition("\n\n")[2].strip(),
        "Medians over the starts; in brackets the least and the largest. *Evaluations* are calls, each one, of the "
        "loss, the gradient, the residuals, a Jacobian or a Hessian; *cost* is in gradients, a Jacobian charged as "
        "many as there are params, a Hessian twice that. *Seconds* are of processor time, compiling too; Adam's are "
        "of all its runs. Every attempted step of Optimistix LM is charged a Jacobian. The error is that of the "
        "params at the end, not of the best on the way: none stops early.",
        *parts,
        "## Verdict",
        "\n".join(verdicts(found)),
    ]
    return report.save_report("\n\n".join(body), out)


def median(values: xr.DataArray) -> xr.DataArray:
    """Over the starts; a run that ended in NaN counts as infinitely bad."""
    return values.fillna(np.inf).median("start")


def section(setting: Setting, ds: xr.Dataset) -> list[str]:
    rows = []
    for width in ds.width.values:
        for name in METHODS:
            one = ds.sel({"width": width, "method": name})
            e = one.error.fillna(np.inf)
            rows.append(
                [
                    f"{width} ({int(one.params)})",
                    name,
                    f"{float(e.median()):.3g} ({float(e.min()):.2g} to {float(e.max()):.2g})",
                    f"{float(one.evaluations.median()):.0f}",
                    f"{float(one.cost.median()):.3g}",
                    f"{float(one.seconds.median()):.1f}",
                ]
            )
    head = ["width (params)", "method", "error on unseen data", "evaluations", "cost", "seconds"]
    return [
        f"## {ds.attrs['part']}",
        f"{setting.train} data, {setting.starts} starts; at most {setting.second} steps of the Levenberg-Marquardt "
        f"and Newton methods, {setting.bfgs} of BFGS, {setting.adam} of Adam, whose learning rate is the best of "
        f"{setting.searched} drawn log-uniformly from {RATES[0]:g} to {RATES[1]:g} (seed {SEARCH_SEED}).",
        report.table(head, rows),
        smallest(ds),
    ]


def smallest(ds: xr.Dataset) -> str:
    """The smallest width of each method with a median error no worse than tuned Adam's best."""
    error = median(ds.error)
    goal = float(error.sel({"method": ADAM}).min())
    found = []
    for name in METHODS:
        good = ds.width.values[error.sel({"method": name}).values <= goal]
        found.append(f"{name} {good.min() if len(good) else 'none'}")
    return f"Smallest width for tuned Adam's best median error, {goal:.3g}: {'; '.join(found)}."


def verdicts(found: list[xr.Dataset]) -> list[str]:
    lines = []
    for name in OURS:
        for unit, what in (("evaluations", "evaluations"), ("cost", "cost in gradients")):
            met, cells, misses = 0, 0, []
            for ds in found:
                error, spent = median(ds.error), ds[unit].median("start")
                for width in ds.width.values:
                    ours, adam = (dict(method=m, width=width) for m in (name, ADAM))
                    better = float(error.sel(ours)) <= float(error.sel(adam))
                    cheap = float(spent.sel(ours)) <= float(spent.sel(adam)) / 3
                    cells, met = cells + 1, met + (better and cheap)
                    if not (better and cheap):
                        why = [w for w, ok in (("error", better), (unit, cheap)) if not ok]
                        misses.append(f"{ds.attrs['part']} at width {width} ({', '.join(why)})")
            lines.append(
                report.verdict(
                    True if met == cells else None if met else False,
                    f"{name}, untuned, has at equal width a median error no worse than tuned Adam's at a third of its "
                    f"{what}, tuning charged, or less",
                    f"{met} of {cells} widths of all parts"
                    + (f"; not {'; '.join(misses)}" if misses else ""),
                )
            )
    return lines


def draw(found: list[xr.Dataset], out: pathlib.Path) -> None:
    """Median error on unseen data over width, and over cost in gradients; bars from the least to the largest."""
    figure, axes = plt.subplots(
        2, len(found), figsize=(5 * len(found) + 1, 8), layout="constrained", squeeze=False
    )
    for ds, (above, below) in zip(found, axes.T, strict=True):
        for i, name in enumerate(METHODS):
            one = ds.sel({"method": name})
            e = one.error.where(np.isfinite(one.error))
            middle = e.median("start").values
            bars = np.abs([middle - e.min("start").values, e.max("start").values - middle])
            style = dict(marker="o", ms=4, lw=1.4, label=name, **line_style(i))
            # Side by side, as bars at the same width would hide each other.
            above.errorbar(ds.width.values * 1.03 ** (i - 2.5), middle, bars, capsize=2, **style)
            below.plot(one.cost.median("start").values, middle, **style)
        above.set_xscale("log", base=2)
        above.set_xticks(ds.width.values, [str(w) for w in ds.width.values])
        above.set(title=ds.attrs["part"], xlabel="width [neurons]", yscale="log")
        below.set(xlabel="cost, tuning charged [gradients]", xscale="log", yscale="log")
        below.xaxis.set_minor_formatter(NullFormatter())
    for row in axes:
        row[0].set_ylabel("rms error on unseen data [outputs]")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    report.save_figure(figure, out / "surrogates.png")
    plt.close(figure)
