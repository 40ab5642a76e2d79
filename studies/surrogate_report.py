"""What the study `surrogates` concludes from its numbers, and its figure."""

import pathlib

import matplotlib.pyplot as plt
import numpy as np
import scipy.stats
import xarray as xr
from matplotlib.ticker import NullFormatter

from flowopt.plotting import line_style
from studies import report
from studies.surrogate_methods import ADAM, METHODS, OURS


def median(values: xr.DataArray) -> xr.DataArray:
    """Over the starts; a run that ended in NaN counts as infinitely bad, and so does a method left out."""
    return values.fillna(np.inf).median("start")


def bounds(values: np.ndarray) -> tuple[float, float]:
    """An interval of the median, of 95% at least, by order statistics; (NaN, NaN) for too few values."""
    found = scipy.stats.quantile_test(np.nan_to_num(values, nan=np.inf)).confidence_interval(0.95)
    return float(found.low), float(found.high)


def left_out(ds: xr.Dataset) -> xr.DataArray:
    """Which (width, method) have not been run."""
    return ds.seconds.isnull().all("start")


def widths_needed(ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Goals, the median errors of tuned Adam at each width, and the least width with which each method meets each: one
    row for each method, NaN where none does."""
    error = median(ds.error)
    goals = error.sel({"method": ADAM}).values
    met = error.values[:, :, None] <= goals  # (width, method, goal)
    width = ds.width.values[:, None, None]
    return goals, np.where(met.any(0), np.where(met, width, np.inf).min(0), np.nan)


def smallest(ds: xr.Dataset) -> str:
    """The table of the least widths."""
    goals, needed = widths_needed(ds)
    head = ["least width for a median error of", *(f"{g:.3g}" for g in goals)]
    rows = [
        [name, *("-" if np.isnan(w) else f"{w:.0f}" for w in row)]
        for name, row in zip(METHODS, needed, strict=True)
    ]
    return report.table(head, rows)


def claims(found: list[xr.Dataset]) -> list[str]:
    """Each claim, computed."""
    lines = [smallest_of_all(found)]
    for name in OURS:
        for unit, what in (("evaluations", "evaluations"), ("cost", "cost in gradients")):
            met, cells, misses = 0, 0, []
            for ds in found:
                for width in ds.width.values:
                    why = _why_not(ds.sel(width=width), name, unit)
                    cells, met = cells + 1, met + (why is None)
                    if why is not None:
                        misses.append(f"{ds.attrs['part']} at width {width} ({why})")
            lines.append(
                report.verdict(
                    True if met == cells else None if met else False,
                    f"{name}, untuned, has at equal width a median error no worse than tuned Adam's for at most a "
                    f"third of its {what}, tuning charged",
                    f"{met} of {cells} widths of all parts"
                    + (f"; not {'; '.join(misses)}" if misses else ""),
                )
            )
    return lines


def smallest_of_all(found: list[xr.Dataset]) -> str:
    """Which method needs the fewest neurons for the errors of tuned Adam, counted over all goals of all parts."""
    wins, fewest = dict.fromkeys(METHODS, 0), 0
    for ds in found:
        for needed in widths_needed(ds)[1].T:
            if np.isnan(needed).all():
                continue
            fewest += 1
            for name, width in zip(METHODS, needed, strict=True):
                wins[name] += bool(width == np.nanmin(needed))
    ranked = sorted(wins.items(), key=lambda pair: -pair[1])
    best = [name for name, n in ranked if n == ranked[0][1]]
    counts = "; ".join(f"{name} {n}" for name, n in ranked)
    return (
        f"- **Which optimizer gives the smallest network for a given error?** {' and '.join(best)}: of all methods "
        f"the fewest neurons, or as few, for {ranked[0][1]} of the {fewest} errors that tuned Adam has (the tables of "
        f"least widths). All counts: {counts}."
    )


def _why_not(ds: xr.Dataset, name: str, unit: str) -> str | None:
    """Why the method `name` does not beat tuned Adam at a third of its `unit`, at one width; None where it does."""
    ours, adam = ds.sel({"method": name}), ds.sel({"method": ADAM})
    if np.isnan(ours.seconds).all() or np.isnan(adam.seconds).all():
        return "left out"
    why = []
    error, reference = float(median(ours.error)), float(median(adam.error))
    if not error <= reference:
        fit, theirs = float(median(ours.train_error)), float(median(adam.train_error))
        if fit < theirs:
            reason = f"it fits the data of training better, {fit:.2g} to {theirs:.2g}: overfitting"
        else:
            reason = f"on the data of training too, {fit:.2g} to {theirs:.2g}"
        why.append(f"error {error:.3g} to {reference:.3g}; {reason}")
    spent, third = float(ours[unit].median()), float(adam[unit].median()) / 3
    if not spent <= third:
        why.append(f"{unit} {spent:.3g}, more than {third:.3g}")
    return "; ".join(why) or None


def draw(found: list[xr.Dataset], out: pathlib.Path) -> None:
    """Median error on unseen data over width, evaluations and cost; bars are intervals of the median."""
    figure, axes = plt.subplots(
        3, len(found), figsize=(5.2 * len(found) + 1, 12), layout="constrained", squeeze=False
    )
    for ds, (above, middle, below) in zip(found, axes.T, strict=True):
        missing = left_out(ds)
        for i, name in enumerate(METHODS):
            one = ds.sel({"method": name}).isel(width=~missing.sel({"method": name}).values)
            if not one.sizes["width"]:
                continue
            e = median(one.error).values
            e = np.where(np.isfinite(e), e, np.nan)
            interval = np.array([bounds(x) for x in one.error.values]).T
            bars = np.nan_to_num(np.abs(interval - e), nan=0, posinf=0)
            width = 2.2 if name in OURS else 1.1
            style = dict(marker="o", ms=4, lw=width, label=name, **line_style(i))
            # Side by side, as bars at the same width would hide each other.
            shift = 1.025 ** (i - len(METHODS) / 2)
            above.errorbar(one.width.values * shift, e, bars, elinewidth=1, **style)
            middle.plot(one.evaluations.median("start").values, e, **style)
            below.plot(one.cost.median("start").values, e, **style)
        above.set_xscale("log", base=2)
        above.set_xticks(ds.width.values, [str(w) for w in ds.width.values])
        above.set(title=ds.attrs["part"], xlabel="width [neurons]", yscale="log")
        middle.set(xlabel="evaluations, tuning charged [1]", xscale="log", yscale="log")
        below.set(xlabel="cost, tuning charged [gradients]", xscale="log", yscale="log")
        for ax in (middle, below):
            ax.xaxis.set_minor_formatter(NullFormatter())
    for row in axes:
        row[0].set_ylabel("rms error on unseen data [outputs]")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    report.save_figure(figure, out / "surrogates.png")
    plt.close(figure)
