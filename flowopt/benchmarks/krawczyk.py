"""Proof, in ball arithmetic, that a box holds exactly one critical point, and of what nature.

For a point x, a matrix A close to H(x)^-1 and a box X around x, the Krawczyk operator

    K(X) = x - A g(x) + (I - A H(X)) (X - x)

maps X into its interior only if X holds exactly one zero of g, and that zero lies in K(X)
[Krawczyk 1969; Moore 1977; Neumaier 1990, ch. 5]. H(X) encloses the Hessian on all of X.
"""

from __future__ import annotations

import dataclasses

import flint
import numpy as np

from .derivatives import Derivatives

BITS = 128


@dataclasses.dataclass(frozen=True, eq=False)
class Root:
    """One certified critical point.

    `enclosure`, shape (n, 2), holds it; `region`, shape (n, 2), holds no other; `centre` is the
    float64 nearest to the middle of the enclosure. `nature` is `"undecided"` if the Hessian's
    inertia is.
    """

    centre: np.ndarray
    enclosure: np.ndarray
    region: np.ndarray
    nature: str
    hessian: np.ndarray


def _column(values) -> flint.arb_mat:
    return flint.arb_mat([[v] for v in values])


def _map(derivatives: Derivatives, x: list[flint.arb], box: list[flint.arb]) -> list[flint.arb]:
    """K(box) around the point x, which must be exact (radius zero)."""
    n = len(x)
    inverse = flint.arb_mat(derivatives.hessian(x)).inv().mid()
    slack = flint.arb_mat(n, n, [int(i == j) for i in range(n) for j in range(n)])
    slack = slack - inverse * flint.arb_mat(derivatives.hessian(box))
    moved = _column(x) - inverse * _column(derivatives.gradient(x))
    moved = moved + slack * _column([b - a for a, b in zip(x, box, strict=True)])
    return [moved[i, 0] for i in range(n)]


def _maps_inside(derivatives: Derivatives, x: list[flint.arb], radii: list) -> bool:
    box = [flint.arb(a, r) for a, r in zip(x, radii, strict=True)]
    try:
        image = _map(derivatives, x, box)
    except ZeroDivisionError:  # the Hessian at x is not provably regular
        return False
    return all(b.contains_interior(k) for b, k in zip(box, image, strict=True))


def prove(derivatives: Derivatives, start: np.ndarray, widths: np.ndarray) -> Root | None:
    """The critical point that Newton's method reaches from `start`, proven; or None.

    `widths`, shape (n,), is the shape of the region in which it is shown to be alone: the region is
    as many times that large as the proof allows.
    """
    with flint.ctx.workprec(BITS):
        try:
            x = _newton(derivatives, start)
        except (ZeroDivisionError, ValueError):
            return None
        if x is None:
            return None
        scale = [max(abs(float(a)), 1.0) for a in x]
        tight = [s * 2.0 ** (48 - BITS) for s in scale]
        if not _maps_inside(derivatives, x, tight):
            return None
        # a coordinate that may be zero for all one knows is taken to be
        middle = np.array(
            [0.0 if abs(float(a)) < t else float(a) for a, t in zip(x, tight, strict=True)]
        )
        # the middle is rounded to float64, so the float enclosure is a few ulps wide
        slack = 2.0**-51 * np.array(scale)
        enclosure = np.stack([middle - slack, middle + slack], axis=1)
        region = _region(derivatives, x, middle, widths, enclosure)
        balls = [flint.arb(a, r) for a, r in zip(x, tight, strict=True)]
        hessian = derivatives.hessian(balls)
        floats = np.array([[float(h.mid()) for h in row] for row in hessian])
        return Root(middle, enclosure, region, nature(hessian, floats), floats)


def _newton(derivatives: Derivatives, start: np.ndarray) -> list[flint.arb] | None:
    """Newton's method at full precision from a float start; the result is exact (a point)."""
    x = [flint.arb(float(a)) for a in start]
    for _ in range(12):
        hessian = flint.arb_mat(derivatives.hessian(x)).mid()
        step = hessian.inv().mid() * _column(derivatives.gradient(x)).mid()
        x = [(a - step[i, 0]).mid() for i, a in enumerate(x)]
        size = max(abs(float(step[i, 0])) for i in range(len(x)))
        if not np.isfinite(size):
            return None
        if size < 2.0 ** (40 - BITS) * (1 + max(abs(float(a)) for a in x)):
            return x
    return None


def _region(derivatives, x, middle, widths, enclosure) -> np.ndarray:
    """The largest box, of the given shape and a power of two times its size, with one zero in it."""
    region = enclosure
    rounding = 2.0**-50 * np.maximum(np.abs(middle), 1.0)
    factor = 2.0**-20
    while factor < 2.0**20:
        radii = np.maximum(factor * widths, enclosure[:, 1] - enclosure[:, 0])
        # a little more, for the rounding of the region's float ends
        if not _maps_inside(derivatives, x, [float(r) for r in radii + rounding]):
            break
        region = np.stack([middle - radii, middle + radii], axis=1)
        factor *= 2
    return region


def nature(hessian: list[list[flint.arb]], floats: np.ndarray) -> str:
    """The nature by certified inertia: Sylvester's law on V'HV, with V near the eigenvectors.

    V'HV is nearly diagonal. If none of its Gershgorin discs holds zero then it is regular, hence so
    is V, and its diagonal has the signs of the eigenvalues of H.
    """
    if not np.all(np.isfinite(floats)):
        return "undecided"
    n = len(hessian)
    vectors = np.linalg.eigh(floats)[1]
    v = flint.arb_mat([[flint.arb(float(e)) for e in row] for row in vectors])
    m = v.transpose() * flint.arb_mat(hessian) * v
    negative = 0
    for i in range(n):
        others = sum((abs(m[i, j]) for j in range(n) if j != i), flint.arb(0))
        if m[i, i] < -others:
            negative += 1
        elif not m[i, i] > others:
            return "undecided"
    return {0: "minimum", n: "maximum"}.get(negative, "saddle")
