"""Degenerate critical points with rational coordinates: found, proven, and their nature decided.

Where the Hessian is singular no interval test can succeed, so subdivision leaves a small undecided
piece. If an exact point in it makes the gradient exactly zero, that much is proven by substitution;
and if the Hessian has corank one the nature follows from the splitting lemma [Gromoll and Meyer
1969; Poston and Stewart 1978, ch. 4]: with the null direction t and the other directions y solved
for by dR/dy(t, y(t)) = 0, R is a regular quadratic form plus psi(t) = R(t, y(t)) = a t^m + ..., so
the point is an extremum iff m is even and a has the sign of the form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from .critical_point import CriticalPoint
from .derivatives import Derivatives

if TYPE_CHECKING:
    from .certificate import Certificate

MAX_DENOMINATOR = 60
MAX_ORDER = 8


def degenerate_points(
    expression: Any, symbols: Sequence[Any], certificate: Certificate
) -> list[CriticalPoint]:
    """The exact degenerate critical points in the undecided pieces of a certificate."""
    derivatives = Derivatives(expression, symbols)
    found = {}
    for piece in range(int(certificate.clusters.max(initial=-1)) + 1):
        boxes = certificate.undecided[certificate.clusters == piece]
        low, high = boxes[..., 0].min(axis=0), boxes[..., 1].max(axis=0)
        x = _polish(derivatives, 0.5 * (low + high))
        if x is None:
            continue
        exact = tuple(sp.Rational(float(v)).limit_denominator(MAX_DENOMINATOR) for v in x)
        close = np.array([float(e) for e in exact])
        slack = certificate.resolution
        if np.any(close < low - slack) or np.any(close > high + slack) or exact in found:
            continue
        at = dict(zip(symbols, exact, strict=True))
        if all(sp.simplify(expression.diff(v).subs(at)) == 0 for v in symbols):
            found[exact] = _describe(expression, symbols, exact)
    return [found[exact] for exact in sorted(found)]


def _polish(derivatives: Derivatives, x: np.ndarray) -> np.ndarray | None:
    """Gauss-Newton on the gradient; it converges, if slowly, to degenerate points too."""
    for _ in range(200):
        g = np.array([float(v) for v in derivatives.gradient(list(x))])
        h = np.array([[float(v) for v in row] for row in derivatives.hessian(list(x))])
        if not (np.all(np.isfinite(g)) and np.all(np.isfinite(h))):
            return None
        x = x - np.linalg.lstsq(h, g, rcond=1e-9)[0]
    return x


def _describe(expression: Any, symbols: Sequence[Any], exact: tuple) -> CriticalPoint:
    at = dict(zip(symbols, exact, strict=True))
    value = sp.simplify(expression.subs(at))
    hessian = sp.hessian(expression, list(symbols)).subs(at).applyfunc(sp.simplify)
    return CriticalPoint(
        params=tuple(float(e) for e in exact),
        exact=exact,
        value=float(value),
        exact_value=value,
        nature=_nature(expression, symbols, exact, hessian),
        hessian=np.array(hessian, dtype=float),
    )


def _nature(expression: Any, symbols: Sequence[Any], exact: tuple, hessian: Any) -> str:
    """The nature by the splitting lemma; `"undecided"` if the corank is not one or psi starts late."""
    null = hessian.nullspace()
    if len(null) != 1:
        return "undecided"
    n = len(symbols)
    pivot = next(i for i in range(n) if null[0][i] != 0)
    others = [i for i in range(n) if i != pivot]
    form = hessian.extract(others, others)  # regular: the null vector is not in this subspace
    t = sp.Symbol("t", real=True)
    path = [exact[i] + t * null[0][i] for i in range(n)]
    slopes = [expression.diff(symbols[i]) for i in others]
    inverse = form.inv()
    for _ in range(MAX_ORDER):  # each step settles one more order of y(t)
        on_path = dict(zip(symbols, path, strict=True))
        residual = sp.Matrix([_series(s.subs(on_path), t) for s in slopes])
        step = inverse * residual
        if step.is_zero_matrix:
            break
        for row, i in enumerate(others):
            path[i] = sp.expand(path[i] - step[row])
    psi = sp.Poly(_series(expression.subs(dict(zip(symbols, path, strict=True))), t), t)
    terms = sorted((m[0], a) for m, a in psi.terms() if m[0] > 0 and sp.simplify(a) != 0)
    if not terms or terms[0][0] > MAX_ORDER:
        return "undecided"
    order, leading = terms[0]
    if order % 2:
        return "flat"
    signs = {leading > 0} | {e > 0 for e in form.eigenvals(multiple=True)}
    if len(signs) == 2:
        return "saddle"
    return "minimum" if signs.pop() else "maximum"


def _series(expression: Any, t: Any) -> Any:
    return sp.expand(sp.series(expression, t, 0, MAX_ORDER + 1).removeO())
