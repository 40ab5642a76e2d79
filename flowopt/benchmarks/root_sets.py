"""The real roots of g = y and of g' = 0, exactly and with their orders.

Both sets are roots of polynomials for the activations below, and roots of polynomials with
algebraic coefficients are isolated exactly, with their order:

- rational functions of z with algebraic coefficients;
- rational functions of exp(a z), such as tanh(z) or 1/(1 + exp(-z)): a rational function of t =
  exp(a z), whose roots t > 0 map back by z = log(t)/a, a change of variable that keeps orders and
  natures;
- A(z) exp(p(z)) + C with polynomials A, p: g' = (A' + A p') exp(p), and exp(p) > 0 has no root. For
  y not C and A constant, p(z) = log((y - C)/A).
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from .exact import ball, sign


class NotExact(Exception):
    """There is no exact method for this activation."""


def tidy(number: Any) -> Any:
    """A number in short form. Radicals are cleared; anything heavier is left as it is."""
    if number.has(sp.CRootOf):
        return number
    return sp.radsimp(sp.expand(number)) if number.is_algebraic else sp.powsimp(sp.expand(number))


Roots = list[tuple[Any, int]]


def root_sets(g: Any, z: Any, y: Any) -> tuple[Roots, Roots]:
    """The real roots of g = y, and those of g' = 0 that are not among them, each with its order."""
    for method in (_rational, _rational_in_exp, _times_exp):
        sets = method(g, z, y)
        if sets is not None:
            return sets
    raise NotExact(str(g))


def _polynomial(expression: Any, z: Any) -> Any | None:
    """The polynomial over an algebraic number field, or None if it is not one."""
    if not expression.is_polynomial(z):
        return None
    poly = sp.Poly(expression, z)
    if not all(c.is_algebraic for c in poly.all_coeffs()):
        return None
    return sp.Poly(expression, z, extension=True)


def _without(poly: Any, other: Any) -> Any:
    """`poly` with every factor that it shares with `other` divided out, however often it occurs."""
    while (common := poly.gcd(other)).degree() > 0:
        poly = poly.quo(common)
    return poly


def _rational(g: Any, z: Any, y: Any) -> tuple[Roots, Roots] | None:
    if not g.is_rational_function(z):
        return None
    parts: list[Any] = [_polynomial(part, z) for part in sp.fraction(sp.together(g - y))]
    if parts[0] is None or parts[1] is None:
        return None
    numerator, denominator = sp.Poly.unify(*parts)
    common = numerator.gcd(denominator)
    numerator, denominator = numerator.quo(common), denominator.quo(common)
    slope = numerator.diff(z) * denominator - numerator * denominator.diff(z)
    slope = _without(_without(slope, denominator), numerator)  # g' = slope / denominator^2
    return _real_roots(numerator), _real_roots(slope)


def _real_roots(poly: Any) -> Roots:
    if poly.degree() < 1:
        return []
    return [(tidy(root), int(order)) for root, order in poly.real_roots(multiple=False)]


def _rational_in_exp(g: Any, z: Any, y: Any) -> tuple[Roots, Roots] | None:
    g = sp.expand(g.rewrite(sp.exp), power_exp=True, deep=True, mul=False)
    rates = [e.exp.coeff(z) for e in g.atoms(sp.exp) if e.exp.has(z)]
    if not rates or not all(r.is_Rational and r != 0 for r in rates):
        return None
    rate = sp.gcd_list([abs(r) for r in rates])
    t = sp.Dummy("t", positive=True)
    in_t = g.subs(z, sp.log(t) / rate)
    in_t = sp.powsimp(sp.simplify(in_t))
    if in_t.has(z):
        return None
    sets = _rational(in_t, t, y)
    if sets is None:
        return None
    zeros, stationary = (
        [(sp.log(root) / rate, order) for root, order in roots if sign_of_root(root) > 0]
        for roots in sets
    )
    return zeros, stationary


def sign_of_root(root: Any) -> int:
    """The sign of an algebraic number; SymPy knows which ones are zero."""
    return 0 if root.is_zero else sign(lambda: ball(root))


def _times_exp(g: Any, z: Any, y: Any) -> tuple[Roots, Roots] | None:
    atoms = [e for e in g.atoms(sp.exp) if e.has(z)]
    if len(atoms) != 1 or not atoms[0].exp.is_polynomial(z):
        return None
    exponential = sp.Dummy("e", positive=True)
    in_e = sp.expand(g.subs(atoms[0], exponential))
    factor, constant = in_e.coeff(exponential, 1), in_e.coeff(exponential, 0)
    if sp.expand(in_e - factor * exponential - constant) != 0 or constant.has(z):
        return None
    amplitude, power = _polynomial(factor, z), _polynomial(atoms[0].exp, z)
    if amplitude is None or power is None:
        return None
    amplitude, power = sp.Poly.unify(amplitude, power)
    slope = amplitude.diff(z) + amplitude * power.diff(z)
    target = sp.simplify(y - constant)
    if target == 0:
        return _real_roots(amplitude), _real_roots(_without(slope, amplitude))
    if amplitude.degree() > 0:
        return None
    ratio = sp.simplify(target / amplitude.as_expr())
    if sign_of_root(ratio) < 0:
        return [], _real_roots(slope)
    if ratio == 1:
        return _real_roots(power), _real_roots(_without(slope, power))
    # log of an algebraic number other than 1 is transcendental (Lindemann), so p = log(ratio)
    # shares no root with p', whose roots are algebraic: all its roots are simple.
    return _transcendental_roots(power, sp.log(ratio)), _real_roots(slope)


def _transcendental_roots(power: Any, level: Any) -> Roots:
    if power.degree() > 2:
        return _not_closed(power)
    z = power.gen
    roots = sp.roots(sp.Poly(power.as_expr() - level, z))
    return [(root, 1) for root in roots if _is_real(root)]


def _is_real(root: Any) -> bool:
    real = root.is_real
    if real is None:
        raise NotExact(f"whether {root} is real")
    return bool(real)


def _not_closed(power: Any) -> Roots:
    raise NotExact(f"the level sets of {power.as_expr()}, which have no closed form")
