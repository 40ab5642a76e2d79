"""Combinations of the components of a gradient in which terms cancel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import sympy as sp


def eliminants(slopes: Sequence[Any], symbols: Sequence[Any]) -> list[Any]:
    """The combinations a g_i - b g_j, with constants a and b, in which a term that both share is gone.

    For one neuron g_w - x_i g_b has no term of the datum i. Where that term is far greater than the
    others (they are saturated, say) no box on which it vanishes somewhere can be discarded by g_w
    and g_b themselves.
    """
    rows = []
    for slope in slopes:
        row: dict[Any, Any] = {}
        for factor, term in (_constant_factor(t, symbols) for t in sp.Add.make_args(slope)):
            row[term] = row.get(term, 0) + factor  # log(2) t and t/4 are two terms of one kind
        rows.append(row)
    found = [_without_positive_factors(t) for row in rows if len(row) == 1 for t in row]
    for i, j in itertools.combinations(range(len(rows)), 2):
        for term in rows[i].keys() & rows[j].keys():
            a, b = rows[j][term], rows[i][term]
            terms = sorted((rows[i].keys() | rows[j].keys()) - {term}, key=str)
            rest = [(a * rows[i].get(t, 0) - b * rows[j].get(t, 0)) * t for t in terms]
            rest = [t for t in rest if t != 0]
            found.append(_without_positive_factors(rest[0]) if len(rest) == 1 else sum(rest))
    return found


def _without_positive_factors(term: Any) -> Any:
    """The factors of a product that may be zero: exp(p) is not, though in float64 it may underflow."""
    return sp.Mul(*(f for f in sp.Mul.make_args(term) if not isinstance(f, sp.exp)))


def _constant_factor(term: Any, symbols: Sequence[Any]) -> tuple[Any, Any]:
    """`term` as a constant times the rest, such that -1/2 - t/2 and 1/2 + t/2 have one rest."""
    constant, rest = sp.factor_terms(term).as_independent(*symbols, as_Add=False)
    factors = []
    for f in sp.Mul.make_args(rest):
        if f.is_Add and f.could_extract_minus_sign():
            constant, f = -constant, -f
        factors.append(f)
    return constant, sp.Mul(*factors)
