"""Which of many boxes provably hold no critical point, and what the others shrink to.

All in outward-rounded interval arithmetic over a chunk of boxes at once. For a box X with middle c,

1. the natural extension of the gradient, and of combinations of its components in which terms
cancel:
   some g_i(X) does not hold zero;
2. the mean value form: some g_i(c) + (H(X)(X - c))_i does not hold zero;
3. the same of V'g, V being the eigenvectors of H(c): near a degenerate point or a curve of critical
   points this looks along the directions in which H is regular;
4. the Krawczyk operator K(X) = c - A g(c) + (I - A H(X))(X - c), A near H(c)^-1: all zeros of g in
X
   are in K(X), so X may be replaced by its intersection with K(X), and discarded if that is empty.

[Neumaier 1990, ch. 5; Hansen and Walster 2004, ch. 11]
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .derivatives import Derivatives
from .interval import Intervals

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Survivors:
    """What is left of a chunk of N boxes of which M were not discarded.

    `index`, (M,): which ones. `boxes`, (M, n, 2): what they shrank to. `smear`, (M, n): by how much
    the gradient varies over each side. `regular`, (M,): whether H is so close to H(c) on the whole
    box that a zero in it would be the only one.
    """

    index: Array
    boxes: Array
    smear: Array
    regular: Array


def _zero_free(values: list[Intervals]) -> Array:
    """Lanes in which some value provably is not zero. NaN proves nothing."""
    free = [(v.lo > 0) | (v.hi < 0) for v in values]
    return np.logical_or.reduce(free)


def _split(boxes: Array) -> tuple[list[Intervals], list[Intervals], list[Intervals]]:
    """X, c and X - c as lists over the coordinates."""
    x = [Intervals(boxes[:, i, 0].copy(), boxes[:, i, 1].copy()) for i in range(boxes.shape[1])]
    middle = [0.5 * v.lo + 0.5 * v.hi for v in x]
    c = [Intervals(m, m) for m in middle]
    return x, c, [a - b for a, b in zip(x, c, strict=True)]


def _dot(row: list[Intervals], column: list) -> Intervals:
    total = row[0] * column[0]
    for a, b in zip(row[1:], column[1:], strict=True):
        total = total + a * b
    return total


def _take(values: list[Intervals], keep: Array) -> list[Intervals]:
    return [Intervals(v.lo[keep], v.hi[keep]) for v in values]


def examine(derivatives: Derivatives, boxes: Array) -> Survivors:
    """The boxes of a chunk, shape (N, n, 2), in which a critical point may lie."""
    with np.errstate(all="ignore"):
        x, _, _ = _split(boxes)
        index = np.flatnonzero(~_zero_free(derivatives.gradient(x) + derivatives.tests(x)))
        boxes = boxes[index]
        if not index.size:
            return _survivors(index, boxes)
        x, c, d = _split(boxes)
        h, g = derivatives.hessian(x), derivatives.gradient(c)
        keep = ~_zero_free([gi + _dot(row, d) for gi, row in zip(g, h, strict=True)])
        index, boxes = index[keep], boxes[keep]
        if not index.size:
            return _survivors(index, boxes)
        c, d, g = _take(c, keep), _take(d, keep), _take(g, keep)
        h = [_take(row, keep) for row in h]
        return _precondition(index, boxes, c, d, g, h)


def _survivors(index: Array, boxes: Array) -> Survivors:
    n = boxes.shape[1]
    return Survivors(index, boxes, np.zeros((len(index), n)), np.zeros(len(index), bool))


def _precondition(index, boxes, c, d, g, h) -> Survivors:
    n = len(c)
    middle = np.stack([np.stack([0.5 * e.lo + 0.5 * e.hi for e in row], -1) for row in h], -2)
    smear = np.max([[np.maximum(np.abs(e.lo), np.abs(e.hi)) for e in row] for row in h], axis=0).T
    smear = smear * (boxes[:, :, 1] - boxes[:, :, 0])
    values, vectors = np.linalg.eigh(np.where(np.isfinite(middle), middle, 0.0))
    v = [[np.ascontiguousarray(vectors[:, i, j]) for j in range(n)] for i in range(n)]
    # t = V'H(X) and s = V'g(c), one row per eigenvector
    t = [
        [_dot([h[k][j] for k in range(n)], [v[k][i] for k in range(n)]) for j in range(n)]
        for i in range(n)
    ]
    s = [_dot(g, [v[k][i] for k in range(n)]) for i in range(n)]
    excluded = _zero_free([si + _dot(row, d) for si, row in zip(s, t, strict=True)])
    # A = V diag(1/lambda) V'. Any A is sound; where an eigenvalue is nearly zero this one is
    # useless, K(X) is larger than X, and nothing happens.
    scale = [1 / np.where(values[:, i] == 0, 1e-300, values[:, i]) for i in range(n)]
    t = [[e * scale[i] for e in t[i]] for i in range(n)]
    s = [s[i] * scale[i] for i in range(n)]
    low, high, contraction = [], [], np.zeros(len(index))
    for i in range(n):
        row = [_dot([t[k][j] for k in range(n)], v[i]) for j in range(n)]
        slack = [float(i == j) - row[j] for j in range(n)]
        newton = c[i] - _dot(s, v[i])
        image = newton + _dot(slack, d)
        # fmax and fmin: where the image is NaN the side stays as it is
        low.append(np.fmax(boxes[:, i, 0], image.lo))
        high.append(np.fmin(boxes[:, i, 1], image.hi))
        excluded |= low[-1] > high[-1]
        contraction = np.maximum(
            contraction, sum(np.maximum(np.abs(e.lo), np.abs(e.hi)) for e in slack)
        )
    shrunk = np.stack([np.stack(low, -1), np.stack(high, -1)], -1)
    keep = ~excluded
    return Survivors(index[keep], shrunk[keep], smear[keep], (contraction < 1)[keep])
