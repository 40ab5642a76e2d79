"""Symmetries of a loss: exchanges of params, with or without a change of sign, that leave it as it is.

Exchanging two neurons exchanges their params; an odd activation allows the signs of a neuron's
input and output weights to be flipped together. Each doubles the critical points and halves the
work of finding them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy as sp

MAX_CANDIDATES = 50_000


class Symmetry:
    """x -> (sign_i x_{source_i})_i."""

    def __init__(self, source: Sequence[int], sign: Sequence[int], symbols: Sequence[Any]):
        self.source, self.sign = np.array(source), np.array(sign)
        parts = [f"{'-' if s < 0 else ''}{symbols[j]}" for j, s in zip(source, sign, strict=True)]
        self.name = f"({', '.join(map(str, symbols))}) -> ({', '.join(parts)})"

    def __repr__(self) -> str:
        return self.name

    def box(self, box: np.ndarray) -> np.ndarray:
        """The image of boxes of shape (..., n, 2)."""
        moved = box[..., self.source, :]
        return np.where(self.sign[:, None] < 0, -moved[..., ::-1], moved)

    def point(self, x: np.ndarray) -> np.ndarray:
        """The image of points of shape (..., n)."""
        return self.sign * x[..., self.source]

    def hessian(self, h: np.ndarray) -> np.ndarray:
        """The Hessian at the image of a point whose Hessian is h."""
        return self.sign[:, None] * h[np.ix_(self.source, self.source)] * self.sign[None, :]

    def redundant(self, boxes: np.ndarray) -> np.ndarray:
        """Which boxes, shape (N, n, 2), hold only points that are not the greatest of their orbit.

        Of every orbit the point that comes last in lexicographic order is kept. It is not before
        its image, so in the first coordinate that the symmetry changes it is not less than its
        image.
        """
        moves = (self.source != np.arange(len(self.source))) | (self.sign < 0)
        first = int(np.argmax(moves))
        image = self.box(boxes)
        return boxes[:, first, 1] < image[:, first, 0]


def symmetries(expression: Any, symbols: Sequence[Any], box: np.ndarray) -> list[Symmetry]:
    """All signed exchanges of the symbols, but for the identity, that leave the expression and the box as they are.

    Candidates are sifted by value at random points and then proven by SymPy; what it cannot prove
    is not used.
    """
    n = len(symbols)
    if 2**n * sp.factorial(n) > MAX_CANDIDATES:
        return []
    value = sp.lambdify(list(symbols), expression, modules=["scipy", "numpy"])
    x = np.random.default_rng(0).uniform(box[:, :1], box[:, 1:], size=(n, 5))
    with np.errstate(all="ignore"):
        truth = np.asarray(value(*x))
    found = []
    for source in itertools.permutations(range(n)):
        for sign in itertools.product((1, -1), repeat=n):
            candidate = Symmetry(source, sign, symbols)
            if source == tuple(range(n)) and min(sign) > 0:
                continue
            if not np.array_equal(candidate.box(box), box):
                continue
            with np.errstate(all="ignore"):
                same = np.allclose(value(*candidate.point(x.T).T), truth, rtol=1e-9, atol=1e-12)
            if same and _proven(expression, symbols, candidate):
                found.append(candidate)
    return _closed(found, symbols)


def _closed(found: list[Symmetry], symbols: Sequence[Any]) -> list[Symmetry]:
    """All products of the symmetries found, but for the identity.

    SymPy may have failed to prove one of them; but the greatest point of an orbit stands for all of
    it only if every element of the group is at hand to lead back.
    """
    n = len(symbols)
    group = {(*range(n), *([1] * n))}
    fresh = set(group)
    while fresh:
        made = set()
        for one in fresh:
            source, sign = np.array(one[:n]), np.array(one[n:])
            for s in found:
                image = (*source[s.source].tolist(), *(s.sign * sign[s.source]).tolist())
                made.add(image)
        fresh = made - group
        group |= fresh
    identity = (*range(n), *([1] * n))
    return [Symmetry(g[:n], g[n:], symbols) for g in sorted(group - {identity})]


def _proven(expression: Any, symbols: Sequence[Any], candidate: Symmetry) -> bool:
    image = {
        symbols[i]: int(candidate.sign[i]) * symbols[candidate.source[i]]
        for i in range(len(symbols))
    }
    difference = expression.subs(image, simultaneous=True) - expression
    return difference == 0 or sp.expand(difference) == 0
