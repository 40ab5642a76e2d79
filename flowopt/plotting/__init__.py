"""Figures: each function draws on the axes it is given, and returns them."""

from flowopt.plotting.comparison import (
    line_style,
    plot_comparison,
    plot_cost,
    plot_expansion,
    plot_hyperparameters,
    plot_profile,
    plot_sensitivity,
    plot_shares,
)
from flowopt.plotting.runs import (
    MARKERS,
    plot_basins,
    plot_energy,
    plot_stability_region,
    point_colours,
)

__all__ = [
    "MARKERS",
    "line_style",
    "plot_basins",
    "plot_comparison",
    "plot_cost",
    "plot_energy",
    "plot_expansion",
    "plot_hyperparameters",
    "plot_profile",
    "plot_sensitivity",
    "plot_shares",
    "plot_stability_region",
    "point_colours",
]
