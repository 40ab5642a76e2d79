"""The exact critical set of phi(z) = (g(z) - y)^2 on the real line.

phi' = 2 (g - y) g', so the set is {g = y}, where phi = 0 is least, together with {g' = 0}.

- At a root r of g - y of order m, phi' has order 2m - 1 (odd) and r is a minimum.
- At any other root r of g' of order k, phi' has order k, and near r
      phi'(z) = 2 (g(r) - y) g^(k+1)(r) / k! (z - r)^k + ...,
  so the sign of phi' changes iff k is odd: r is a minimum if (g(r) - y) g^(k+1)(r) > 0, a maximum
  if it is negative, and for even k r is flat and no extremum. No second derivative need be regular
  for this.

`root_sets.py` says for which activations both sets are found exactly.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flint
import sympy as sp

from .exact import ball, sign
from .root_sets import root_sets, tidy


@dataclasses.dataclass(frozen=True)
class Coordinate:
    """A critical coordinate of phi: the exact number, its order in phi', nature, and phi."""

    exact: Any
    multiplicity: int
    nature: str
    phi: Any

    def ball(self) -> flint.arb:
        """An enclosure at the precision in force."""
        return ball(self.exact)


def critical_set(g: Any, z: Any, y: Any) -> list[Coordinate]:
    """All real critical coordinates of (g(z) - y)^2, in increasing order.

    **Raises:** NotExact if g is of none of the kinds above; ValueError if g is constant.
    """
    if sp.simplify(g.diff(z)) == 0:
        raise ValueError(f"g: must depend on its symbol, got the constant {g}.")
    zeros, stationary = root_sets(g, z, y)
    found = [
        Coordinate(exact=root, multiplicity=2 * order - 1, nature="minimum", phi=sp.Integer(0))
        for root, order in zeros
    ]
    for root, order in stationary:
        nature = "flat" if order % 2 == 0 else _nature(g, z, y, root, order)
        phi = tidy((g.subs(z, root) - y) ** 2)
        found.append(Coordinate(exact=root, multiplicity=order, nature=nature, phi=phi))
    with flint.ctx.workprec(256):
        return sorted(found, key=lambda c: c.ball().mid())


def _nature(g: Any, z: Any, y: Any, root: Any, order: int) -> str:
    residual, leading = g - y, g.diff(z, order + 1)

    def product() -> flint.arb:
        at = {z: ball(root)}
        return ball(residual, at) * ball(leading, at)

    return "minimum" if sign(product) > 0 else "maximum"
