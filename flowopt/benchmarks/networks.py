"""Benchmark networks of one neuron whose every critical point is known.

All have R(w, b) = 1/(2P) sum_i (g(w x_i + b) - y_i)^2 with data x = (0, 1) and targets 0 unless
said, so u = b and s = w + b separate the loss. Each function returns the same `Problem` on every
call: a problem is hashed by identity, so compiled code is found again.
"""

import functools

from .neuron import neuron
from .problem import Problem


@functools.cache
def poly2() -> Problem:
    """g = z^2 - 1: nine regular points, 4 global minima (R = 0), 4 saddles and 1 maximum.

    Critical coordinates -1 and 1 (minima), 0 (maximum). The easy one: every method should find a
    minimum, and which of the four says what its basins are like.
    """
    return neuron("z**2 - 1", (0, 1), (0, 0), name="poly2")


@functools.cache
def poly3() -> Problem:
    """g = 2z^3 - 3z^2 + 5 = (z + 1)(2z^2 - 5z + 5): minima of unequal depth.

    Critical coordinates -1 (minimum, g = 0), 0 (maximum), 1 (minimum, g = 4). R = 0 only at (w, b)
    = (0, -1); the other minima have R = 4, 4 and 8, so a method is judged by how often it finds the
    deep one.
    """
    return neuron("2*z**3 - 3*z**2 + 5", (0, 1), (0, 0), name="poly3")


@functools.cache
def poly4() -> Problem:
    """g = z^4 - 2z^2 + 3: all four minima have R = 2.

    Critical coordinates -1 and 1 (minima, g = 2), 0 (maximum). The residuals do not vanish at the
    minima, so the Gauss-Newton Hessian is wrong there: it is zero, since g' = 0, while the Hessian
    is not.
    """
    return neuron("z**4 - 2*z**2 + 3", (0, 1), (0, 0), name="poly4")


@functools.cache
def poly5() -> Problem:
    """g = z^5 - 4z^4 + 2z^3 + 8z^2 - 11z - 12 = (z + 1)^2 (z - 3)(z^2 - 3z + 4): singular Hessians.

    Critical coordinates -1 (flat minimum, R' has order 3), 1 (flat and no extremum, order 2), 11/5
    (maximum) and 3 (minimum). Of the 16 points only 4 have a regular Hessian. At the 7 flat points
    a method can crawl for as long as it likes and stop by its gradient, though none is an extremum.
    """
    return neuron("z**5 - 4*z**4 + 2*z**3 + 8*z**2 - 11*z - 12", (0, 1), (0, 0), name="poly5")
