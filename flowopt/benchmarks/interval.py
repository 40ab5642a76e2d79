"""Interval arithmetic over many boxes at once, rounded outwards.

`Intervals(lo, hi)` holds two float64 arrays; every operation returns bounds that hold every value
the operation takes on the operands, rounding included. It is about ten times faster than ball
arithmetic here and tighter on wide boxes, and it only ever has to discard boxes: what is claimed of
a critical point is proven in ball arithmetic (`krawczyk.py`).

Why the bounds hold:

- IEEE + - * / and sqrt are within half an ulp, 2**-53 of the result (or 2**-1074 near zero). Each
  bound is moved outwards by 2**-51 of itself and 1e-300. (`np.nextafter` says the same in one word
  and takes 4.7 ns an element instead of 1.0.)
- The elementary functions of NumPy and SciPy are taken to be right to `MARGIN` = 2**-44 of the
  result (the normal distribution function to `CDF_MARGIN`), 64 times what NumPy documents (4 ulp);
  `tests/benchmarks/test_interval.py` compares them with ball arithmetic. This is the one thing here
  that is measured and not proven.
- An infinite bound means "unbounded". A lower bound is never +inf nor an upper one -inf, so sums
  make no NaN; in products 0 * inf is dropped by fmin and fmax. What is NaN all the same stays NaN
  and compares false, and then nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EPS = 2.0**-51
TINY = 1e-300
HUGE = np.finfo(np.float64).max
MARGIN = 2.0**-44
CDF_MARGIN = 2.0**-36  # its relative error grows with x^2 to the left; measured 2^-42
TURN = 2 * np.pi

Array = np.ndarray


def _outward(lo: Array, hi: Array, eps: float = EPS) -> Intervals:
    lo, hi = np.minimum(lo, HUGE), np.maximum(hi, -HUGE)
    return Intervals(lo - (np.abs(lo) * eps + TINY), hi + (np.abs(hi) * eps + TINY))


class Intervals:
    """Arrays of intervals [lo, hi], one per lane. Made for the code that `derivatives.py` compiles."""

    __array_ufunc__ = None  # so that array * Intervals comes here
    __slots__ = ("hi", "lo")

    def __init__(self, lo: Array, hi: Array):
        self.lo, self.hi = lo, hi

    def __add__(self, other):
        other = _intervals(other)
        return _outward(self.lo + other.lo, self.hi + other.hi)

    __radd__ = __add__

    def __neg__(self):
        return Intervals(-self.hi, -self.lo)

    def __sub__(self, other):
        return self + -_intervals(other)

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, other):
        if not isinstance(other, Intervals):  # a point: two products are enough
            a, b = self.lo * other, self.hi * other
            return _outward(np.fmin(a, b), np.fmax(a, b))
        a, b = self.lo * other.lo, self.lo * other.hi
        c, d = self.hi * other.lo, self.hi * other.hi
        return _outward(
            np.fmin(np.fmin(a, b), np.fmin(c, d)), np.fmax(np.fmax(a, b), np.fmax(c, d))
        )

    __rmul__ = __mul__

    def reciprocal(self):
        inside = (self.lo <= 0) & (self.hi >= 0)
        lo, hi = np.where(inside, -np.inf, 1 / self.hi), np.where(inside, np.inf, 1 / self.lo)
        return _outward(lo, hi)

    def __truediv__(self, other):
        return self * _intervals(other).reciprocal()

    def __rtruediv__(self, other):
        return self.reciprocal() * other

    def __pow__(self, power: int):
        if power < 0:
            return (self**-power).reciprocal()
        if power % 2:
            return self._monotone(lambda x: _power(x, power), eps=power * EPS)
        return self._even(lambda x: _power(x, power), eps=power * EPS)

    def power(self, n):
        return self ** int(n)

    def _monotone(self, f: Callable[[Array], Array], eps: float = MARGIN) -> Intervals:
        """The range of an increasing function."""
        return _outward(f(self.lo), f(self.hi), eps)

    def _even(self, f: Callable[[Array], Array], eps: float = MARGIN) -> Intervals:
        """The range of an even function that increases on the positive half line."""
        a, b = np.abs(self.lo), np.abs(self.hi)
        least = np.where((self.lo <= 0) & (self.hi >= 0), 0.0, np.minimum(a, b))
        return _outward(f(least), f(np.maximum(a, b)), eps)

    def exp(self):
        return self._monotone(np.exp)

    def log(self):
        return self._monotone(np.log)

    def sqrt(self):
        return self._monotone(np.sqrt, EPS)

    def tanh(self):
        return self._monotone(np.tanh)

    def sinh(self):
        return self._monotone(np.sinh)

    def cosh(self):
        return self._even(np.cosh)

    def sech_squared(self):
        return self.cosh() ** -2

    def log_cosh(self):
        return self._even(lambda x: x + np.log1p(np.exp(-2 * x)) - np.log(2)).widened(1e-15)

    def atan(self):
        return self._monotone(np.arctan)

    def normal_cdf(self):
        return self._monotone(normal_cdf, CDF_MARGIN)

    def cos(self):
        """1 and -1 wherever a top or a bottom may lie within, else the values at the ends."""
        a, b = np.cos(self.lo), np.cos(self.hi)
        lo = np.where(_meets(self, 0.5), -1.0, np.minimum(a, b))
        hi = np.where(_meets(self, 0.0), 1.0, np.maximum(a, b))
        return Intervals(lo - 1e-12, hi + 1e-12)

    def sin(self):
        return (self - _intervals(np.pi / 2).widened(1e-15)).cos()

    def polynomial(self, *c) -> Intervals:
        """c0 + c1 x + c2 x^2 + ..., by its Taylor form at the middle m: sum_k t_k (x - m)^k."""
        middle = 0.5 * self.lo + 0.5 * self.hi
        m = Intervals(middle, middle)
        t = [_intervals(ck) for ck in c]
        for k in range(len(t) - 1):  # Horner's scheme, over and over
            for j in range(len(t) - 2, k - 1, -1):
                t[j] = t[j] + m * t[j + 1]
        offset, total = self - m, t[0]
        for k, tk in enumerate(t[1:], start=1):
            total = total + tk * offset**k
        return total

    def widened(self, by: float) -> Intervals:
        return Intervals(self.lo - by, self.hi + by)


def _meets(x: Intervals, phase: float) -> Array:
    """Whether x may hold (m + phase) turns for an integer m; true where that is hard to say."""
    slack = 1e-9
    below, above = x.lo / TURN - phase - slack, x.hi / TURN - phase + slack
    far = ~(np.maximum(np.abs(x.lo), np.abs(x.hi)) < 1e5)
    return far | (np.floor(above) >= np.ceil(below))


def _intervals(x) -> Intervals:
    return x if isinstance(x, Intervals) else Intervals(np.asarray(x, float), np.asarray(x, float))


def normal_cdf(x: Array) -> Array:
    from scipy.special import ndtr

    return ndtr(x)


def _power(x: Array, power: int) -> Array:
    """x**power by multiplying, each factor of which is within 2**-53: power - 1 roundings in all."""
    result = x
    for _ in range(power - 1):
        result = result * x
    return result
