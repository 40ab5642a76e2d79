"""Euler-Richardson: the midpoint rule, with an error estimate from its own two stages."""

from typing import ClassVar

import diffrax
import numpy as np


class EulerRichardson(diffrax.AbstractERK):
    """k1 = f(y0),  k2 = f(y0 + (h/2) k1),  y1 = y0 + h k2,  error (h/2) (k2 - k1).

    Order 2. The estimate is the Richardson difference between one Euler step and two half steps, of
    order 2 in h.   [Gould, Tobochnik and Christian 2007, chapter 3]
    """

    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.ButcherTableau(
        c=np.array([0.5]),
        a_lower=(np.array([0.5]),),
        b_sol=np.array([0.0, 1.0]),
        b_error=np.array([-0.5, 0.5]),
    )
    interpolation_cls: ClassVar = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms):
        return 2
