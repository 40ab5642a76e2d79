"""Extragradient: the whole step looks ahead, then goes back and uses what it saw."""

from typing import ClassVar

import diffrax
import numpy as np


class Extragradient(diffrax.AbstractERK):
    """k1 = f(y0),  k2 = f(y0 + h k1),  y1 = y0 + h k2,  error (h/2) (k2 - k1).

    Order 1: y1 - y(h) = (h^2/2) f' f + O(h^3), and that is what the estimate measures, to order 2 in h.
    As a method of its own [Korpelevich 1976]; with this estimate and step-size control it is the
    variant of Euler-Richardson behind the source document's published shares.
    """

    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.ButcherTableau(
        c=np.array([1.0]),
        a_lower=(np.array([1.0]),),
        b_sol=np.array([0.0, 1.0]),
        b_error=np.array([-0.5, 0.5]),
    )
    interpolation_cls: ClassVar = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms):
        return 1

    def error_order(self, terms):
        return 2
