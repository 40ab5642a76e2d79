"""Figures. Every function takes an `ax` to draw in; the same critical point has the same colour in all of them."""

from collections.abc import Sequence
from typing import Any

import diffrax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from flowopt.run.solution import Solution
from flowopt.stability.labels import DIVERGED, ELSEWHERE, MAX_STEPS, NO_POINT, STALLED
from flowopt.stability.region import growth_factor
from flowopt.stability.starts import check_region

# Okabe and Ito's colours, which stay apart for colour-blind readers, without black; minima come first.
_POINT_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#D55E00")
NO_POINT_COLOURS = {
    DIVERGED: "#5C3317",  # brown
    MAX_STEPS: "#BFBFBF",
    STALLED: "#6E6E6E",
    ELSEWHERE: "#000000",
}
MARKERS = {"minimum": "o", "maximum": "^", "saddle": "X", "flat": "s", "undecided": "D"}
"""The marker of each nature of critical point."""


def point_colours(natures: list[str]) -> list[Any]:
    """One colour per critical point, by its place in the list: the minima have the most distinct ones."""
    order = sorted(range(len(natures)), key=lambda i: (natures[i] != "minimum", i))
    rest = max(len(natures) - len(_POINT_COLOURS), 1)
    colours: list[Any] = [None] * len(natures)
    for rank, i in enumerate(order):
        if rank < len(_POINT_COLOURS):
            colours[i] = to_rgb(_POINT_COLOURS[rank])
        else:
            colours[i] = plt.get_cmap("cividis")((rank - len(_POINT_COLOURS)) / rest)[:3]
    return colours


def plot_basins(ds: xr.Dataset, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draws the map of `flowopt.basins`: the start's colour is that of the critical point its run reached.

    Diverging starts are brown. White markers are the critical points in the plane of the map, by nature; the legend
    names, for every label on the map, the point, its loss R, and its share of the starts; or, for a
    system, the attractor.
    """
    if "label" not in ds or "point_place" not in ds or ds.label.ndim != 2:
        raise ValueError(
            "`ds` must be a dataset as flowopt.basins returns it, with `label` over a plane"
        )
    if ax is None:
        _, ax = plt.subplots(figsize=(5.2, 6.2), layout="constrained")
    natures = list(ds.attrs["natures"])
    colours = point_colours(natures)
    colour = {**dict(enumerate(colours)), **{k: to_rgb(c) for k, c in NO_POINT_COLOURS.items()}}
    labels = ds.label.values
    image = np.zeros((*labels.shape, 3))
    for k in np.unique(labels):
        image[labels == k] = colour[int(k)]
    (u_lo, u_hi), (v_lo, v_hi) = ds.attrs["region"]
    ax.imshow(
        image.transpose(1, 0, 2),
        origin="lower",
        extent=(u_lo, u_hi, v_lo, v_hi),
        interpolation="nearest",
        aspect="auto",
    )
    draw_points(ds, ax, ds.label.dims)
    if legend:
        ax.legend(
            handles=_legend(ds, labels, natures, colour),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
            fontsize="small",
            frameon=False,
            ncols=1,
        )
    return ax


def draw_points(ds: xr.Dataset, ax: Axes, dims: Sequence[Any]) -> None:
    """The critical points in the plane of a map over `dims`, white, by nature; and the map's limits and axis labels."""
    (u_lo, u_hi), (v_lo, v_hi) = ds.attrs["region"]
    for (u, v), nature in zip(ds.point_place.values, ds.attrs["natures"], strict=True):
        if u_lo <= u <= u_hi and v_lo <= v <= v_hi:
            ax.plot(u, v, MARKERS.get(nature, "o"), mfc="white", mec="black", ms=6, mew=1)
    u_name, v_name = (f"{name} [{ds[name].attrs['units']}]" for name in dims)
    ax.set(xlabel=u_name, ylabel=v_name, xlim=(u_lo, u_hi), ylim=(v_lo, v_hi))


def plot_energy(sol: Solution, ax: Axes | None = None, *, floor: float | None = None) -> Axes:
    """Draws the energy V of a run, and its parts R and V - R, over the accepted steps, on a logarithmic axis.

    Needs `history` with "energy" and "value" (and draws "step" in grey, on an axis of its own, where it was
    recorded). `floor` [loss] is subtracted: the least value known, by default the least recorded one.
    """
    history = sol.history
    if history is None or not {"energy", "value"} <= set(history.quantities):
        raise ValueError(
            '`sol` must be a solution with a history of "energy" and "value": run with history=True'
        )
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    value, energy = history["value"], history["energy"]
    floor = float(value.min()) if floor is None else floor
    lines = [
        ("V, energy", energy - floor, "#000000", "-"),
        ("R, potential", value - floor, "#0072B2", "-"),
        ("V - R, kinetic", energy - value, "#D55E00", "--"),
    ]
    for name, quantity, colour, style in lines:
        # A logarithm knows no zero: what is not positive is left out.
        shown = np.where(quantity > 0, quantity, np.nan)
        ax.semilogy(history.accepted, shown, style, color=colour, lw=1.4, label=name)
    below = f" - {floor:.3g}" if floor else ""
    ax.set(xlabel="accepted steps", ylabel=f"energy{below} [loss]")
    handles, labels = ax.get_legend_handles_labels()
    if "step" in history.quantities:
        right = ax.twinx()
        (line,) = right.semilogy(
            history.accepted[1:], history["step"][1:], color="#BBBBBB", lw=0.8, label="h, step"
        )
        # The energies are what the figure is about: in front of the steps.
        ax.set_zorder(right.get_zorder() + 1)
        ax.patch.set_visible(False)
        right.set_ylabel("step [time]")
        handles, labels = [*handles, line], [*labels, "h, step"]
    ax.legend(handles, labels, frameon=False, fontsize="small")
    return ax


def plot_stability_region(
    solver: diffrax.AbstractSolver,
    ax: Axes | None = None,
    *,
    region: tuple[tuple[float, float], tuple[float, float]] = ((-8.0, 4.0), (-6.0, 6.0)),
    resolution: int = 301,
    colour: str | None = None,
    label: str | None = None,
) -> Axes:
    """Draws the stability region of `solver`, |R(z)| <= 1 on y' = lambda y, z = h lambda, bounded by |R(z)| = 1.

    - `region`: ((re_lo, re_hi), (im_lo, im_hi)) [1] to look in; the axes close in on what lies inside it.
    - `resolution`: points along each axis.
    - `colour`, `label`: of the region, to draw several into one `ax`; by default the next, and the solver's name.

    For which solvers, see `flowopt.stability.growth_factor`. A region without interior, such as the segment of
    LeapfrogMidpoint on the imaginary axis, does not show.
    """
    pairs = check_region(region)
    if len(pairs) != 2:
        raise ValueError(f"`region` must be two pairs, (real, imaginary); got {region!r}")
    if isinstance(resolution, bool) or not isinstance(resolution, int) or resolution < 2:
        raise ValueError(f"`resolution` must be an int >= 2; got {resolution!r}")
    re, im = (np.linspace(low, high, resolution) for low, high in pairs)
    factor = growth_factor(solver, re[None, :] + 1j * im[:, None])
    if ax is None:
        _, ax = plt.subplots(figsize=(5.2, 5.2), layout="constrained")
    first = not ax.get_lines()
    if first:
        for draw in (ax.axhline, ax.axvline):
            draw(0, color="#999999", lw=0.6, zorder=0)
    handles = ax.get_legend_handles_labels()[0]
    colour = _POINT_COLOURS[len(handles) % len(_POINT_COLOURS)] if colour is None else colour
    # Where there is no step the factor is infinite, and a contour cannot cross that.
    factor = np.minimum(factor, 10.0)
    ax.contourf(re, im, factor, levels=[0, 1], colors=[colour], alpha=0.15)
    ax.contour(re, im, factor, levels=[1], colors=[colour], linewidths=1.5)
    ax.plot([], [], color=colour, label=type(solver).__name__ if label is None else label)
    for axis, grid, across in (("x", re, 0), ("y", im, 1)):
        stable: np.ndarray = np.any(factor <= 1, axis=across)
        inside = stable.any() and not (stable[0] or stable[-1])
        ends = (grid[stable][0], grid[stable][-1]) if inside else (grid[0], grid[-1])
        margin = 0.1 * (ends[1] - ends[0]) + 0.1
        low, high = max(ends[0] - margin, grid[0]), min(ends[1] + margin, grid[-1])
        if not first:
            old = getattr(ax, f"get_{axis}lim")()
            low, high = min(low, old[0]), max(high, old[1])
        ax.set(**{f"{axis}lim": (low, high)})
    ax.set(xlabel="Re z, z = h λ [1]", ylabel="Im z [1]", aspect="equal")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize="small", frameon=False)
    return ax


def _legend(ds: xr.Dataset, labels: np.ndarray, natures: list[str], colour: dict) -> list[Line2D]:
    """Handles for the labels on the map, the largest share first."""
    found, count = np.unique(labels, return_counts=True)
    handles = []
    for k, c in sorted(zip(found.tolist(), count.tolist(), strict=True), key=lambda kc: -kc[1]):
        share = f"{c / labels.size:.1%}" if c / labels.size >= 5e-4 else "<0.1%"
        if k >= 0:
            name, marker = f"{_name(ds, natures, k)}: {share}", MARKERS.get(natures[k], "o")
        else:
            name, marker = f"{NO_POINT[k]}: {share}", "s"
        handles.append(
            Line2D([], [], ls="", marker=marker, mfc=colour[k], mec="black", ms=8, label=name)
        )
    return handles


def _name(ds: xr.Dataset, natures: list[str], k: int) -> str:
    """What point k is: its nature, where it is (by its number where that is long), and its loss."""
    if "point_value" not in ds:
        return natures[k]
    at = ds.point_params.values[k]
    where = f"({', '.join(f'{x:.3g}' for x in at)})" if len(at) <= 3 else f"{k}"
    return f"{natures[k]} {where}, R = {ds.point_value.values[k]:.3g}"
