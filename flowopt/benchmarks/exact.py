"""Exact numbers: reading them from what a user gives, and enclosing them in balls.

A ball (`flint.arb`) is a midpoint and a radius; arithmetic on balls rounds outwards, so a ball
always holds the true value. SymPy says what a number is, the ball says where.
"""

from __future__ import annotations

import fractions
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flint
import numpy as np
import sympy as sp

MAX_BITS = 1 << 14


def exact_number(value: Any, name: str) -> Any:
    """`value` as an exact real SymPy number.

    Integers, fractions and SymPy numbers are taken as they are. A float is taken to mean its
    shortest decimal, so 0.1 is 1/10 and not 3602879701896397/2**55.
    """
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: must hold numbers, got {value!r}.")
    if isinstance(value, (int, np.integer)):
        return sp.Integer(int(value))
    if isinstance(value, fractions.Fraction):
        return sp.Rational(value.numerator, value.denominator)
    try:
        # str of a float of any width is its shortest decimal
        number = (
            sp.Rational(str(value))
            if isinstance(value, (float, np.floating))
            else sp.sympify(value)
        )
    except (TypeError, ValueError, sp.SympifyError) as error:
        raise ValueError(f"{name}: must hold finite real numbers, got {value!r}.") from error
    if not isinstance(number, sp.Expr) or not number.is_number:
        raise TypeError(f"{name}: must hold numbers, got {value!r}.")
    number = exact_expression(number)
    if number.is_finite is False or number.is_real is not True:
        raise ValueError(f"{name}: must hold finite real numbers, got {value!r}.")
    return number


def exact_expression(expression: Any) -> Any:
    """`expression` with every float in it replaced by the rational of its decimal."""
    return expression.xreplace(
        {f: sp.nsimplify(f, rational=True) for f in expression.atoms(sp.Float)}
    )


def rational_ball(number: Any) -> flint.arb:
    """A ball around a SymPy rational."""
    return flint.arb(flint.fmpq(int(number.p), int(number.q)))


@functools.lru_cache(maxsize=1024)
def _real_roots(coefficients: tuple[int, ...], bits: int) -> tuple[flint.arb, ...]:
    with flint.ctx.workprec(bits):
        roots: Any = flint.fmpz_poly(list(coefficients)).complex_roots()
        real = [root for root, _ in roots if isinstance(root, flint.arb) or root.imag.is_zero()]
        return tuple(sorted((flint.arb(r.real) for r in real), key=lambda ball: ball.mid()))


def _root_ball(root: Any) -> flint.arb:
    """A ball around a real `sympy.CRootOf`, which counts real roots from the left."""
    coefficients = tuple(int(c) for c in reversed(root.poly.all_coeffs()))
    return _real_roots(coefficients, flint.ctx.prec)[root.index]


_FUNCTIONS: dict[Any, Callable[[flint.arb], flint.arb]] = {
    sp.exp: flint.arb.exp,
    sp.log: flint.arb.log,
    sp.sin: flint.arb.sin,
    sp.cos: flint.arb.cos,
    sp.tan: flint.arb.tan,
    sp.sinh: flint.arb.sinh,
    sp.cosh: flint.arb.cosh,
    sp.tanh: flint.arb.tanh,
    sp.atan: flint.arb.atan,
    sp.erf: flint.arb.erf,
    sp.erfc: flint.arb.erfc,
    sp.Abs: abs,
}


def ball(expression: Any, values: Mapping[Any, flint.arb] | None = None) -> flint.arb:
    """A ball that holds the value of `expression`, its symbols being anywhere in the given balls.

    The radius is about 2**-p for p = `flint.ctx.prec` where the expression is well conditioned.

    **Raises:** NotImplementedError on a function there is no ball arithmetic for.
    """
    values = values or {}

    def go(e: Any) -> flint.arb:
        if e in values:
            return values[e]
        if isinstance(e, sp.Rational):
            return rational_ball(e)
        if isinstance(e, sp.CRootOf):
            return _root_ball(e)
        if isinstance(e, sp.Add):
            return functools.reduce(lambda a, b: a + b, map(go, e.args))
        if isinstance(e, sp.Mul):
            return functools.reduce(lambda a, b: a * b, map(go, e.args))
        if isinstance(e, sp.Pow):
            base, exponent = e.args
            if base == sp.E:
                return go(exponent).exp()
            if exponent == sp.Rational(1, 2):
                return go(base).sqrt()
            if isinstance(exponent, sp.Integer):
                return ball_power(go(base), int(exponent))
            return go(base) ** go(exponent)
        if e.func in _FUNCTIONS:
            return _FUNCTIONS[e.func](go(e.args[0]))
        if e is sp.pi:
            return flint.arb.pi()
        if e is sp.E:
            return flint.arb(1).exp()
        if e is sp.GoldenRatio:
            return (1 + flint.arb(5).sqrt()) / 2
        return _unknown(e)

    return go(expression)


def ball_power(x: flint.arb, power: int) -> flint.arb:
    """x**power. (python-flint's own is NaN for a ball that holds zero: 0.9.0.)"""
    if power < 0:
        return 1 / ball_power(x, -power)
    if power == 0:
        return flint.arb(1)
    half = ball_power(x, power // 2)
    return half * half * x if power % 2 else half * half


def _unknown(expression: Any) -> flint.arb:
    raise NotImplementedError(
        f"no ball arithmetic for {type(expression).__name__} in {expression}."
    )


def sign(value: Callable[[], flint.arb]) -> int:
    """The sign of a number known not to be zero; `value()` encloses it at the precision in force.

    Doubles the precision until the ball excludes zero, which proves the sign.
    """
    bits = 128
    while bits <= MAX_BITS:
        with flint.ctx.workprec(bits):
            enclosure = value()
            if enclosure > 0:
                return 1
            if enclosure < 0:
                return -1
        bits *= 2
    raise ArithmeticError(
        f"a number that ought not to be zero is not told from it at {MAX_BITS} bits."
    )


def nearest_float(value: flint.arb) -> float:
    """The float64 at the middle of a ball, the nearest one if the ball is much below an ulp."""
    return float(value.mid())
