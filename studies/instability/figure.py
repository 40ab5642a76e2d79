"""The figure of the study `instability`."""

import math
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from flowopt.plotting import line_style
from studies import report
from studies.instability.leaving import EXIT


def draw(
    timed: dict[tuple[str, str], xr.Dataset],
    steps: dict[str, xr.Dataset],
    slow: dict[str, xr.Dataset],
    out: pathlib.Path,
) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
    draw_flows(timed, axes[0])
    draw_methods(steps, axes[1])
    draw_slow(slow, axes[2])
    for ax in axes:
        ax.set_xlabel("distance at the start, r [params]")
        ax.legend(
            handles=ax.get_legend_handles_labels()[0],
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=2,
            fontsize="small",
            frameon=False,
        )
    report.save_figure(figure, out / "instability.png")
    plt.close(figure)


def draw_flows(timed: dict[tuple[str, str], xr.Dataset], ax: Axes) -> None:
    """Exit time x eigenvalue for each flow: the median over points and directions, and all of them as a band."""
    for i, flow in enumerate(dict.fromkeys(flow for _, flow in timed)):
        some = [ds for (_, name), ds in timed.items() if name == flow]
        scaled = [(ds.exit_time * ds.eigenvalue).values.reshape(-1, ds.sizes["r"]) for ds in some]
        rows, radii = np.concatenate(scaled), some[0].r.values
        style = line_style(i)
        band = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        ax.fill_between(radii, *band, color=style["color"], alpha=0.2, lw=0)
        ax.semilogx(radii, np.nanmedian(rows, axis=0), lw=1.6, label=flow, **style)
    radii = next(iter(timed.values())).r.values
    ax.semilogx(radii, np.log(EXIT / radii), color="black", lw=1, ls=":", label=f"ln({EXIT:g}/r)")
    ax.set(
        ylabel="exit time x largest eigenvalue [1]",
        title="Flows, eigenvalue > 0: median, and all points",
    )


def draw_methods(steps: dict[str, xr.Dataset], ax: Axes) -> None:
    """Steps x ln|z|, means over directions, one line for each point."""
    for i, (name, ds) in enumerate(steps.items()):
        colour = line_style(i)["color"]
        for steps_, z, nature in zip(
            ds.steps.values, ds.multiplier.values, ds.attrs["natures"], strict=True
        ):
            shown = steps_.mean(axis=0) * math.log(z)
            ls = "-" if nature == "maximum" else "--"
            ax.loglog(ds.r.values, shown, color=colour, ls=ls, lw=1.2)
        ax.plot([], [], color=colour, lw=1.6, label=name)
    ax.plot([], [], color="#555555", ls="--", lw=1.2, label="of these, saddles")
    radii = next(iter(steps.values())).r.values
    ax.loglog(radii, np.log(EXIT / radii), color="black", lw=1, ls=":", label=f"ln({EXIT:g}/r)")
    ax.set(
        ylabel="steps to leave x ln|z| [1]",
        title="Methods on poly2, z the largest multiplier of a step",
    )


def draw_slow(slow: dict[str, xr.Dataset], ax: Axes) -> None:
    """Exit times along coordinates in which the derivative of the loss vanishes to order m."""
    for i, (network, m) in enumerate(
        dict.fromkeys((k, int(m)) for k, ds in slow.items() for m in ds.order.values)
    ):
        ds = slow[network]
        for row in ds.exit_time.values[ds.order.values == m]:
            ax.loglog(ds.r.values, row, "o-", ms=3, lw=0.8, color=line_style(i)["color"])
        label = f"{network}, m = {m}: power {1 - m}"
        ax.add_line(Line2D([], [], color=line_style(i)["color"], marker="o", ms=3, label=label))
    ax.set(ylabel="exit time [time]", title="Gradient flow, no eigenvalue > 0")
