"""Figures of sensitivity, expansion and comparisons. Every function takes an `ax`, or a figure, to draw in."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowopt.plotting.runs import MARKERS, NO_POINT_COLOURS, draw_points, point_colours

_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6BB1")
_STYLES = ("-", "--", "-.", ":")


def line_style(i: int) -> dict[str, Any]:
    """Colour and dashes of the i-th line of several: told apart by either."""
    return dict(color=_LINES[i % len(_LINES)], ls=_STYLES[(i // len(_LINES) + i) % len(_STYLES)])


def plot_sensitivity(ds: xr.Dataset, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draws `flowopt.sensitivity`: the probability of ending elsewhere, over the distance of the start.

    Bands are the intervals; a vertical line marks the shortest kick after which a run was seen to leave.
    """
    if not {"probability", "lower", "upper", "kick"} <= set(ds.data_vars):
        raise ValueError("`ds` must be a dataset as flowopt.sensitivity returns it")
    ax = _axes(ax)
    natures = list(ds.attrs["natures"])
    colours = point_colours(natures)
    r = ds.distance.values
    for i, k in enumerate(ds.minimum.values):
        one = ds.isel(minimum=i)
        where = ", ".join(f"{x:.3g}" for x in one.point_params.sel(point=k).values)
        name = f"minimum ({where}), R = {float(one.point_value.sel(point=k)):.3g}"
        ax.fill_between(r, one.lower, one.upper, color=colours[k], alpha=0.15, lw=0)
        ax.semilogx(
            r,
            one.probability,
            _STYLES[i % len(_STYLES)],
            color=colours[k],
            lw=1.6,
            marker=MARKERS["minimum"],
            ms=3,
            label=name,
        )
        if np.isfinite(one.kick):
            ax.axvline(float(one.kick), color=colours[k], lw=0.7, ls=":")
    ax.set(
        xlabel="distance of the start from the minimum [params]",
        ylabel="probability of ending elsewhere",
        ylim=(-0.03, 1.03),
    )
    if legend:
        ax.legend(frameon=False, fontsize="small")
    return ax


def plot_expansion(
    ds: xr.Dataset, ax: Axes | None = None, *, limit: float | None = None, colorbar: bool = True
) -> Axes:
    """Draws `flowopt.expansion`: red where neighbouring runs part, blue where they meet, grey where they overflowed.

    White markers are the critical points in the plane of the map, by nature. `limit` [1/step] is the end of the colour
    scale either way; the 99% quantile of |exponent| if None.
    """
    if "exponent" not in ds:
        raise ValueError("`ds` must be a dataset as flowopt.expansion returns it")
    ax = _axes(ax)
    x = ds.exponent.values
    finite = np.abs(x[np.isfinite(x)])
    limit = limit or (float(np.quantile(finite, 0.99)) if len(finite) else 1.0)
    (u_lo, u_hi), (v_lo, v_hi) = ds.attrs["region"]
    ax.set_facecolor("#BFBFBF")
    image = ax.imshow(
        np.where(np.isnan(x), np.nan, np.clip(x, -limit, limit)).T,
        origin="lower",
        extent=(u_lo, u_hi, v_lo, v_hi),
        interpolation="nearest",
        aspect="auto",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
    )
    draw_points(ds, ax, ds.exponent.dims)
    if colorbar:
        label = f"exponent over {ds.attrs['steps']} steps [1/step]"
        ax.figure.colorbar(image, ax=ax, label=label)
    return ax


def plot_shares(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draws where the runs of each method end, for one problem of `flowopt.compare`, in the points' colours."""
    ax = _axes(ax)
    if "problem" in ds.dims:
        raise ValueError("`ds` must be of one problem: pass ds.sel(problem=...)")
    names = [str(x) for x in ds.end_name.values]
    ends = [int(e) for e in ds.end.values]
    # Points that this problem has not are NaN, and come with no name.
    here = [
        e
        for e, p in zip(ends, ds.probability.values.T, strict=True)
        if e < 0 or np.isfinite(p).all()
    ]
    natures = [names[ends.index(e)].partition(" ")[0] for e in here if e >= 0]
    colours = point_colours(natures)
    left = np.zeros(ds.sizes["optimizer"])
    rows = np.arange(ds.sizes["optimizer"])
    for e in here:
        share = ds.probability.sel(end=e).values
        if np.any(share > 0):
            colour = colours[e] if e >= 0 else NO_POINT_COLOURS[e]
            ax.barh(rows, share, left=left, color=colour, label=names[ends.index(e)], height=0.7)
            left = left + share
    ax.set(yticks=rows, yticklabels=ds.optimizer.values, xlim=(0, 1), xlabel="share of the starts")
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_cost(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draws what the runs of each method cost, all problems together: median, quartiles, 95% quantile (line)."""
    ax = _axes(ax)
    rows = np.arange(ds.sizes["optimizer"])
    for i in rows:
        cost = ds.cost.isel(optimizer=i).values.ravel()
        low, median, high, tail = np.quantile(cost, [0.25, 0.5, 0.75, 0.95], method="inverted_cdf")
        colour = line_style(int(i))["color"]
        if np.isfinite(low):
            # What never ends goes on to the edge of the figure.
            edge = lambda x: x if np.isfinite(x) else 1e300
            ax.plot(
                [low, edge(high)], [i, i], lw=9, color=colour, alpha=0.45, solid_capstyle="butt"
            )
            ax.plot([low, edge(tail)], [i, i], lw=1, color=colour)
        if np.isfinite(median):
            ax.plot(median, i, "o", color=colour, mec="black", ms=5)
    finite = ds.cost.values[np.isfinite(ds.cost.values)]
    if len(finite):
        ax.set_xlim(max(float(finite.min()), 0.5) / 1.5, float(finite.max()) * 1.5)
    ax.set(
        yticks=rows,
        yticklabels=ds.optimizer.values,
        xscale="log",
        xlabel="cost of a run [gradients]",
    )
    ax.set_ylim(len(rows) - 0.5, -0.5)
    return ax


def plot_profile(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draws the performance profile: how often each method costs at most tau times the cheapest."""
    ax = _axes(ax)
    for i, name in enumerate(ds.optimizer.values):
        ax.step(
            ds.tau,
            ds.profile.isel(optimizer=i),
            where="post",
            lw=1.6,
            label=str(name),
            **line_style(i),
        )
    ax.set(
        xscale="log",
        xlabel="tau: cost, over that of the cheapest",
        ylabel="share of problems and starts",
        ylim=(0, 1.02),
    )
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_hyperparameters(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draws, for each method, the least and largest share of converged runs as each of its numbers varies."""
    ax = _axes(ax)
    rows, ticks = [], []
    for i, name in enumerate(ds.optimizer.values):
        one = ds.isel(optimizer=i)
        over = [d for d in ("problem", "factor") if d in one.varied_converged.dims]
        lows, highs = one.varied_converged.min(over), one.varied_converged.max(over)
        for h in ds.hyperparameter.values:
            low, high = float(lows.sel(hyperparameter=h)), float(highs.sel(hyperparameter=h))
            if np.isfinite(low):
                y = len(rows)
                ax.plot([low, high], [y, y], "o-", color=line_style(i)["color"], ms=4, lw=1.4)
                rows.append(y)
                ticks.append(f"{name}: {h.rpartition('.')[2]}")
    ax.set(yticks=rows, xlim=(-0.03, 1.03), xlabel="share converged, each number varied")
    ax.set_yticklabels(ticks, fontsize="x-small")
    ax.invert_yaxis()
    return ax


def plot_comparison(ds: xr.Dataset, figure: Figure | None = None) -> Figure:
    """Draws a dataset of `flowopt.compare`: shares for each problem, costs, the performance profile, and what varying
    the methods' numbers does."""
    if not {"probability", "cost", "profile", "varied_converged"} <= set(ds.data_vars):
        raise ValueError("`ds` must be a dataset as flowopt.compare returns it")
    problems = ds.sizes["problem"]
    rows = problems + (2 if ds.sizes["factor"] else 1)
    if figure is None:
        figure = plt.figure(
            figsize=(11, 2.8 * problems + 3.4 * (rows - problems)), layout="constrained"
        )
    grid = figure.add_gridspec(rows, 2)
    for i, problem in enumerate(ds.problem.values):
        ax = plot_shares(ds.sel(problem=problem), figure.add_subplot(grid[i, :]))
        ax.set_title(str(problem))
    plot_cost(ds, figure.add_subplot(grid[problems, 0]))
    plot_profile(ds, figure.add_subplot(grid[problems, 1]))
    if ds.sizes["factor"]:
        plot_hyperparameters(ds, figure.add_subplot(grid[problems + 1, :]))
    return figure


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(figsize=(6.4, 4.4), layout="constrained")[1] if ax is None else ax
