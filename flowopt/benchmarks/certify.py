"""All critical points of a loss in a box, with proof, by subdivision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .certificate import Certificate, connected
from .critical_point import CriticalPoint
from .problem import Problem

RESOLUTION_BITS = {
    1: 14,
    2: 14,
    3: 10,
}  # a curve of critical points in n params takes 2^bits boxes or more


def certify_critical_points(
    loss: Any,
    box: Sequence[tuple[float, float]],
    *,
    symbols: Sequence[Any] | None = None,
    resolution: float | None = None,
    max_boxes: int = 2_000_000,
    progress: bool = True,
) -> Certificate:
    """All critical points of a loss in a box, each with an enclosure in which it provably lies alone.

    The box is cut into smaller ones until each provably holds no critical point (`exclusion.py`),
    or lies in a region in which one point is proven to be the only one (`krawczyk.py`), or is
    smaller than `resolution` and left undecided. Natures come from the certified inertia of the
    Hessian.

    **Arguments:**

    - `loss`: a `Problem` that has an expression (all that `fo.benchmarks` makes), or a SymPy
      expression.
    - `box`: (low, high) for each param.
    - `symbols`: the symbols of an expression, in the order of the box; by default sorted by name.
    - `resolution`: the side, in units of the params, below which a box is not cut; by default the
      longest side times 2^-14 for up to two params, 2^-10 for three and 2^-8 for more.
    - `max_boxes`: the work limit: how many boxes are examined at most. The largest come first, so
      that what is left when it is reached is as even as can be.
    - `progress`: whether to show a progress bar (the share of the volume that is decided).

    **Raises:** ValueError or TypeError, naming the argument.
    """
    from .subdivide import subdivide
    from .symmetry import symmetries

    expression, symbols = read_expression(loss, symbols)
    bounds = _box(box, len(symbols))
    sides = bounds[:, 1] - bounds[:, 0]
    if resolution is None:
        resolution = float(sides.max()) * 2.0 ** -RESOLUTION_BITS.get(len(symbols), 8)
    if not (np.isfinite(resolution) and resolution > 0):
        raise ValueError(f"resolution: must be a positive number, got {resolution!r}.")
    if isinstance(max_boxes, bool) or not isinstance(max_boxes, (int, np.integer)) or max_boxes < 1:
        raise ValueError(f"max_boxes: must be a positive integer, got {max_boxes!r}.")
    from .derivatives import Derivatives

    derivatives = Derivatives(expression, symbols)
    group = symmetries(expression, symbols, bounds)
    search = subdivide(derivatives, bounds, group, resolution, int(max_boxes), progress)
    points = [_point(root, expression, symbols) for root in search.roots]
    order = sorted(range(len(points)), key=lambda i: (points[i].value, points[i].params))
    undecided = search.undecided
    return Certificate(
        points=tuple(points[i] for i in order),
        regions=np.array([search.roots[i].region for i in order]).reshape(-1, len(symbols), 2),
        box=bounds,
        undecided=undecided,
        clusters=connected(undecided),
        volume_undecided=float(np.sum(np.prod(undecided[..., 1] - undecided[..., 0], axis=1))),
        symmetries=tuple(s.name for s in group),
        boxes_examined=search.examined,
        limit_reached=search.limit_reached,
        resolution=float(resolution),
    )


def read_expression(loss: Any, symbols: Sequence[Any] | None) -> tuple[Any, tuple[Any, ...]]:
    import sympy as sp

    if isinstance(loss, Problem):
        if loss.expression is None:
            raise ValueError(
                f"loss: {loss.name} has no SymPy expression; give the expression itself."
            )
        return loss.expression, loss.symbols
    if not isinstance(loss, sp.Expr):
        raise TypeError(
            f"loss: must be a Problem or a SymPy expression, got {type(loss).__name__}."
        )
    free = loss.free_symbols
    chosen = tuple(sorted(free, key=str)) if symbols is None else tuple(symbols)
    if not chosen or not free <= set(chosen):
        raise ValueError(f"symbols: must hold all of {sorted(map(str, free))}, got {chosen}.")
    from .exact import exact_expression

    # SymPy simplifies sqrt(x**2) and the like only for symbols known to be real
    real = {v: sp.Symbol(str(v), real=True) for v in chosen}
    return exact_expression(loss.xreplace(real)), tuple(real.values())


def _box(box: Sequence[tuple[float, float]], n: int) -> np.ndarray:
    try:
        bounds = np.array([[float(v) for v in side] for side in box])
    except (TypeError, ValueError) as error:
        raise ValueError(f"box: must be (low, high) for each param, got {box!r}.") from error
    if bounds.shape != (n, 2):
        raise ValueError(f"box: must be (low, high) for each of {n} params, got {box!r}.")
    if not np.all(np.isfinite(bounds)) or np.any(bounds[:, 0] >= bounds[:, 1]):
        raise ValueError(f"box: each side must have low < high, both finite, got {box!r}.")
    return bounds


def _point(root: Any, expression: Any, symbols: tuple[Any, ...]) -> CriticalPoint:
    import flint

    from .exact import ball, nearest_float

    with flint.ctx.workprec(128):
        at = {v: flint.arb(float(c)) for v, c in zip(symbols, root.centre, strict=True)}
        value = nearest_float(ball(expression, at))
    return CriticalPoint(
        params=tuple(float(c) for c in root.centre),
        value=value,
        nature=root.nature,
        hessian=root.hessian,
        enclosure=tuple((float(a), float(b)) for a, b in root.enclosure),
    )
