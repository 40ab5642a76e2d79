"""Forms of an expression that lose nothing to cancellation when it is differentiated and enclosed.

SymPy differentiates tanh(z) to 1 - tanh(z)^2, which in floating point is 0 from z = 19 on, and of
which nothing can then be concluded. Here tanh' = sech^2 and (sech^2)' = -2 tanh sech^2, each an
elementary function of its own with a tight range; and

    1/(1 + exp(u)) = (1 - tanh(u/2))/2,    log(1 + exp(u)) = u/2 + log(2) + log(cosh(u/2)).

A polynomial of a linear form becomes one function of that form.
"""

# pyright: reportOperatorIssue=false
# (SymPy types a function class applied to arguments as a class, and no arithmetic on it is allowed.)

from __future__ import annotations

from typing import Any

import sympy as sp


class tanh_(sp.Function):
    """tanh, with a derivative that does not cancel."""

    def fdiff(self, argindex=1):
        return sech_squared_(self.args[0])


class sech_squared_(sp.Function):
    """1/cosh^2 = tanh'."""

    def fdiff(self, argindex=1):
        z = self.args[0]
        return -2 * tanh_(z) * sech_squared_(z)


class log_cosh_(sp.Function):
    """log(cosh(z)), whose derivative is tanh."""

    def fdiff(self, argindex=1):
        return tanh_(self.args[0])


class normal_cdf_(sp.Function):
    """The normal distribution function, (1 + erf(z/sqrt 2))/2; its derivative is the normal density."""

    def fdiff(self, argindex=1):
        return sp.exp(-(self.args[0] ** 2) / 2) / sp.sqrt(2 * sp.pi)


class polynomial_(sp.Function):
    """polynomial_(z, c0, c1, ...) = c0 + c1 z + c2 z^2 + ...

    A function of its own, so that it can be enclosed by its Taylor form at the middle of the
    interval, whose excess width is of second order; term by term, or by Horner, it is of first
    order.
    """

    def fdiff(self, argindex=1):
        if argindex != 1:
            return sp.Integer(0)
        z, *c = self.args
        slope = [k * ck for k, ck in enumerate(c)][1:]
        return polynomial_(z, *slope) if len(slope) > 1 else slope[0]


class power_(sp.Function):
    """power_(x, n) = x^n for an integer n, of which each kind of number has a version of its own."""


def stable(expression: Any) -> Any:
    """The same function, in the forms above."""
    u = sp.Wild("u")
    half = sp.Rational(1, 2)
    forms = (
        (sp.log(1 + sp.exp(u)), lambda u: u / 2 + sp.log(2) + log_cosh_(u / 2)),
        (1 / (1 + sp.exp(u)), lambda u: half - tanh_(u / 2) / 2),
        (sp.log(sp.cosh(u)), lambda u: log_cosh_(u)),
        (sp.tanh(u), lambda u: tanh_(u)),
        # in 1 + erf(u) the ones cancel, as they should: far to the left its value is tiny
        (sp.erfc(u), lambda u: 1 - sp.erf(u)),
        (sp.erf(u), lambda u: 2 * normal_cdf_(sp.sqrt(2) * u) - 1),
    )
    for old, new in forms:
        expression = expression.replace(old, new)
    return _with_polynomials(expression)


def _with_polynomials(e: Any) -> Any:
    """The outermost sums that are polynomials of one linear form, as `polynomial_`."""
    if e.is_Add and (found := _univariate(e)) is not None:
        return found
    return e.func(*map(_with_polynomials, e.args)) if e.args else e


def _univariate(e: Any) -> Any | None:
    """`e` as polynomial_(l, ...) for a linear form l, if it is one of degree two or more; else None."""
    free = sorted(e.free_symbols, key=str)
    if not free or not e.is_polynomial(*free) or sp.Poly(e, *free).total_degree() < 2:
        return None
    bases = {p.base for p in e.atoms(sp.Pow) if p.exp.is_Integer}
    t = sp.Dummy("t", real=True)
    for form in [free[0]] if len(free) == 1 else sorted(bases, key=str):
        if sp.Poly(form, *free).total_degree() != 1:
            continue
        v = min(form.free_symbols, key=str)
        slope = form.coeff(v)
        in_t = sp.expand(e.subs(v, (t - (form - slope * v)) / slope))
        if in_t.free_symbols == {t}:
            return polynomial_(form, *reversed(sp.Poly(in_t, t).all_coeffs()))
    return None
