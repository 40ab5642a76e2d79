"""Ten benchmark networks of one neuron whose every critical point is known.

All have R(w, b) = 1/(2P) sum_i (g(w x_i + b) - y_i)^2 with data x = (0, 1) and targets 0 unless
said, so u = b and s = w + b separate the loss, and the critical points are all pairs of the
critical coordinates given below, with w = s - u and b = u. `python -m studies benchmarks` draws
them.

Each function returns the same `Problem` on every call: a problem is hashed by identity, so compiled
code is found again. "Corners" are those of [-5, 5]^2; |grad R| there was computed in float64.
"""

import functools

from .neuron import neuron
from .problem import Problem


@functools.cache
def poly2() -> Problem:
    """g = z^2 - 1: nine regular points.

    Critical coordinates -1 and 1 (minima), 0 (maximum): 4 global minima (R = 0), 4 saddles and 1
    maximum. The easy one: every method should find a minimum, and which of the four says what its
    basins look like. |grad R| at the corners is up to 1.5e3.
    """
    return neuron("z**2 - 1", (0, 1), (0, 0), name="poly2")


@functools.cache
def poly3() -> Problem:
    """g = 2z^3 - 3z^2 + 5: minima of unequal depth.

    g = (z + 1)(2z^2 - 5z + 5), g' = 6z(z - 1). Critical coordinates -1 (minimum, g = 0), 0
    (maximum), 1 (minimum, g = 4). R = 0 only at (w, b) = (0, -1); the other minima have R = 4, 4
    and 8, so a method is judged by how often it finds the deep one. |grad R| at the corners is up
    to 1.1e6.
    """
    return neuron("2*z**3 - 3*z**2 + 5", (0, 1), (0, 0), name="poly3")


@functools.cache
def poly4() -> Problem:
    """g = z^4 - 2z^2 + 3: all four minima have R = 2.

    Critical coordinates -1 and 1 (minima, g = 2), 0 (maximum). The residuals do not vanish at the
    minima and g' does, so the Gauss-Newton matrix is zero there while the Hessian is regular. |grad
    R| at the corners is up to 2.8e7.
    """
    return neuron("z**4 - 2*z**2 + 3", (0, 1), (0, 0), name="poly4")


@functools.cache
def poly5() -> Problem:
    """g = z^5 - 4z^4 + 2z^3 + 8z^2 - 11z - 12: singular Hessians and flat non-extrema.

    g = (z + 1)^2 (z - 3)(z^2 - 3z + 4), g' = (z + 1)(z - 1)^2 (5z - 11). Critical coordinates -1
    (flat minimum, of order 3 in R'), 1 (flat and no extremum, order 2), 11/5 (maximum) and 3
    (minimum). Only 4 of the 16 points have a regular Hessian. At the 7 flat ones a method can crawl
    for as long as it likes and stop by its gradient, though none is an extremum. |grad R| at the
    corners is up to 6.6e9.
    """
    return neuron("z**5 - 4*z**4 + 2*z**3 + 8*z**2 - 11*z - 12", (0, 1), (0, 0), name="poly5")


@functools.cache
def poly8() -> Problem:
    """g' = 280 z (z - 1)^3 (z - 2)^3, g(0) = 1: flat minima, and very steep far away.

    g = 35z^8 - 360z^7 + 1540z^6 - 3528z^5 + 4620z^4 - 3360z^3 + 1120z^2 + 1. Critical coordinates 0
    (minimum, g = 1), 1 (flat maximum, order 3), 2 (flat minimum, order 3, g = 65). R = 1/2 at the
    deep minimum, 1056.5 at two and 2112.5 at the flattest. |grad R| at the corners is up to 4.1e19,
    so a learning rate that is safe there never arrives.
    """
    return neuron(
        "35*z**8 - 360*z**7 + 1540*z**6 - 3528*z**5 + 4620*z**4 - 3360*z**3 + 1120*z**2 + 1",
        (0, 1),
        (0, 0),
        name="poly8",
    )


@functools.cache
def bell() -> Problem:
    """g = exp(-z^2/2), x = (0, 1, 2), y = (1, 0, 1): gradients vanish far away.

    Three data, so it does not separate; the points in [-6, 6]^2 are certified by subdivision, and
    the `statement` of the problem says what is proven. Two minima at (0, +-sqrt(2 log(3/2))) with
    R = 1/9; four saddles; and the origin, a saddle with a singular Hessian, exact. An area of 3.2e-6
    around the origin remains undecided. On the plateaus beyond, R tends to 1/3 or less and the
    gradient to zero: |grad R| at the corners is 1.2e-5 at most, and a method that stops by the
    gradient stops at nothing.
    """
    return neuron("bell", (0, 1, 2), (1, 0, 1), box=((-6, 6), (-6, 6)), name="bell")


@functools.cache
def rational() -> Problem:
    """g = 2/(3 + sqrt 5) (z^2 + 1)/(z^2 - 2z + 2), targets 1: a flat minimum among plateaus.

    Critical coordinates (1 + sqrt 5)/2 (flat minimum, order 3, g = 1, the golden ratio) and
    (1 - sqrt 5)/2 (maximum). The only minimum, at (0, golden ratio) with R = 0, has a Hessian of
    zero, so convergence is slow there; and g tends to 0.38 far away, so gradients vanish as 1/z^2.
    |grad R| at the corners is 0.11 at most.
    """
    return neuron("2/(3 + sqrt(5))*(z**2 + 1)/(z**2 - 2*z + 2)", (0, 1), (1, 1), name="rational")


@functools.cache
def exp2() -> Problem:
    """g = exp((z^2 - 2z)/2): one minimum in a very steep bowl.

    Critical coordinate 1 (minimum), so R has one critical point, (0, 1), with R = exp(-1)/2. |grad
    R| at the corners is up to 1.0e53: what is hard is the range of scales.
    """
    return neuron("exp((z**2 - 2*z)/2)", (0, 1), (0, 0), name="exp2")


@functools.cache
def exp4() -> Problem:
    """g = exp((z^4 - 2z^2)/2): four equal minima between walls that overflow.

    Critical coordinates -1 and 1 (minima), 0 (maximum); all minima have R = exp(-1)/2. |grad R| is
    6.3e251 at two corners and beyond float64 at the other two.
    """
    return neuron("exp((z**4 - 2*z**2)/2)", (0, 1), (0, 0), name="exp4")


@functools.cache
def exp5() -> Problem:
    """g = exp((6z^5 - 15z^4 - 10z^3 + 30z^2)/2): walls on one side, plateaus on the other.

    Critical coordinates -1 and 1 (maxima), 0 and 2 (minima): 4 minima, 8 saddles and 4 maxima, with
    R from 1.7e-4 to 8.9e7. The minima have R = exp(-8)/2 (deep), 1/4 + exp(-8)/4 (twice) and 1/2. To the left
    g falls to zero, so R has valleys that run to infinity and in which it falls below every minimum: it is
    not proper. (g^2 underflows in float64 from about z = -2.5 on, and the gradient is then zero.) |grad R|
    at the corners is beyond float64 at two and zero at the other two.
    """
    return neuron("exp((6*z**5 - 15*z**4 - 10*z**3 + 30*z**2)/2)", (0, 1), (0, 0), name="exp5")
