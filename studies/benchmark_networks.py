"""A sheet for every benchmark network, and one table of them all.

Each sheet shows the loss as a surface and as contours with its critical points, and a table of their
coordinates and values. A point's marker says its nature; its colour is the one it has in every basin map.
"""

from __future__ import annotations

import collections
import itertools
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from flowopt import benchmarks
from flowopt.plotting import MARKERS, point_colours
from studies import report

NETWORKS = (
    "poly2",
    "poly3",
    "poly4",
    "poly5",
    "poly8",
    "bell",
    "rational",
    "exp2",
    "exp4",
    "exp5",
)
ROWS = 16


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    """Writes a PNG sheet per network and the report into `out`, and returns the report.

    `quick` draws three networks on a coarse grid, to see that all is in order.
    """
    names = ("poly2", "poly5", "bell") if quick else NETWORKS
    problems = [getattr(benchmarks, name)() for name in names]
    for problem in tqdm(problems, disable=not progress, unit="sheet", leave=False):
        sheet(problem, out / f"{problem.name}.png", grid=60 if quick else 400)
    return report.save_report("\n".join(_report(problems)), out)


def view(problem: benchmarks.Problem) -> np.ndarray:
    """The part of the plane to draw, shape (2, 2): the critical points with a margin around them."""
    points = np.array([p.params for p in problem.critical_points])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = np.maximum(0.35 * (high - low), 1.0)
    return np.stack([low - margin, high + margin], axis=1)


def height(values: np.ndarray, problem: benchmarks.Problem) -> np.ndarray:
    """log10 of the excess over the lowest critical value, floored at a thousandth of the spread.

    The losses range over many orders, and some contours of interest lie close together at the
    bottom.
    """
    levels = sorted(p.value for p in problem.critical_points)
    gaps = [b - a for a, b in itertools.pairwise(levels) if b - a > 1e-12 * (1 + abs(b))]
    floor = 0.05 * min(gaps) if gaps else 0.01 * max(levels[0], 1e-3)
    excess = np.clip(values - levels[0], 0.0, None)
    return np.log10(excess + floor)


def sheet(problem: benchmarks.Problem, path: pathlib.Path, grid: int) -> None:
    """One page: surface, contours with critical points, and a table of them."""
    w, b, values = _values(problem, grid)
    lift = height(values, problem)
    tops = [float(height(np.array(p.value), problem)) for p in problem.critical_points]
    ceiling = max(tops) + max(0.35 * (max(tops) - min(tops)), 1.0)
    figure = plt.figure(figsize=(15, 9.5), layout="constrained")
    cells = figure.add_gridspec(2, 2, height_ratios=(1.35, 1))
    surface = figure.add_subplot(cells[0, 0], projection="3d")
    shown = np.where(lift < ceiling, lift, np.nan)
    step = max(1, grid // 100)
    surface.plot_surface(  # pyright: ignore[reportAttributeAccessIssue]
        *(v[::step, ::step] for v in (w, b, shown)),
        cmap="cividis",
        linewidth=0,
        rcount=100,
        ccount=100,
    )
    surface.set(xlabel="w", ylabel="b", zlabel="log10(R - R_min + c)", title="Surface")
    contours = figure.add_subplot(cells[0, 1])
    levels = np.linspace(np.nanmin(lift), ceiling, 24)
    drawn = contours.contourf(w, b, np.minimum(lift, ceiling), levels=levels, cmap="cividis")
    contours.contour(w, b, np.minimum(lift, ceiling), levels=levels, colors="white", linewidths=0.3)
    figure.colorbar(drawn, ax=contours, label="log10(R - R_min + c)")
    natures = [p.nature for p in problem.critical_points]
    for point, colour in zip(problem.critical_points, point_colours(natures), strict=True):
        marker = MARKERS[point.nature]
        contours.plot(*point.params, marker, mfc=colour, mec="white", ms=9, zorder=3)
    for nature, count in collections.Counter(natures).items():
        label = f"{nature} ({count})"
        contours.plot([], [], MARKERS[nature], mfc="none", mec="black", ms=9, label=label)
    contours.set(xlabel="w", ylabel="b", title="Contours and critical points")
    contours.legend(loc="upper right", framealpha=0.9)
    table = figure.add_subplot(cells[1, :])
    table.axis("off")
    rows = _rows(problem)
    drawn = table.table(
        cellText=rows[:ROWS],
        colLabels=_HEAD,
        loc="upper center",
        cellLoc="center",
        colWidths=[0.17, 0.17, 0.15, 0.15, 0.14, 0.1, 0.12],
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    formula = (problem_doc(problem).splitlines() or [""])[0]
    figure.suptitle(f"{problem.name}: {formula}", fontsize=13)
    report.save_figure(figure, path)
    plt.close(figure)


def problem_doc(problem: benchmarks.Problem) -> str:
    """What the network's own documentation says."""
    return getattr(benchmarks, problem.name).__doc__ or ""


def _values(problem: benchmarks.Problem, grid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import jax

    low_high = view(problem)
    w, b = np.meshgrid(*(np.linspace(low, high, grid) for low, high in low_high), indexing="ij")
    values = jax.jit(jax.vmap(lambda p: problem.loss(p)))((w.ravel(), b.ravel()))
    values = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=np.inf, posinf=1e300)
    return w, b, values.reshape(w.shape)


_HEAD = ["w", "b", "w (float)", "b (float)", "R", "multiplicity", "nature"]


def _short(number: object) -> str:
    text = str(number).replace("sqrt", "√").replace("*", "")
    return text if len(text) <= 24 else "see report"


def _rows(problem: benchmarks.Problem, shorten: bool = True) -> list[list[str]]:
    rows = []
    for p in problem.critical_points:
        exact = p.exact or ("certified", "certified")
        rows.append(
            [
                *(_short(e) if shorten else f"`{e}`" for e in exact),
                *(f"{v + 0.0:.12g}" for v in p.params),
                f"{p.value:.8g}",
                " x ".join(map(str, p.multiplicity)) if p.multiplicity else "-",
                p.nature,
            ]
        )
    return rows


def corner_gradient(problem: benchmarks.Problem) -> float:
    """The largest |grad R| at the corners of [-5, 5]^2; it may be infinite in float64."""
    import jax

    gradient = jax.grad(problem.loss)
    corners = itertools.product((-5.0, 5.0), repeat=2)
    slopes = [[float(g) for g in gradient(corner)] for corner in corners]
    return float(np.linalg.norm(slopes, axis=1).max())


def _report(problems: list[benchmarks.Problem]) -> list[str]:
    lines = [
        "# benchmarks: networks whose critical points are known",
        "",
        "R(w, b) = 1/(2P) sum_i (g(w x_i + b) - y_i)^2.",
        "",
    ]
    lines += [
        "| network | points | minima | saddles | maxima | flat | lowest R | "
        "largest \\|grad R\\| at the corners of [-5, 5]^2 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for problem in problems:
        count = collections.Counter(p.nature for p in problem.critical_points)
        kinds = [str(count[n]) for n in ("minimum", "saddle", "maximum", "flat")]
        low = min(p.value for p in problem.critical_points)
        lines.append(
            f"| [{problem.name}](#{problem.name}) | {len(problem.critical_points)} | {' | '.join(kinds)} | "
            f"{low:.6g} | {corner_gradient(problem):.3g} |"
        )
    for problem in problems:
        lines += [
            "",
            f"## {problem.name}",
            "",
            *map(str.strip, problem_doc(problem).splitlines()),
            "",
        ]
        lines += [f"![{problem.name}]({problem.name}.png)", "", problem.statement, ""]
        lines += ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
        lines += ["| " + " | ".join(row) + " |" for row in _rows(problem, shorten=False)]
    return lines
