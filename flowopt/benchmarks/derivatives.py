"""Gradient and Hessian of a SymPy expression, compiled to run on intervals, balls or arrays alike."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import flint
import numpy as np
import sympy as sp

from .eliminants import eliminants
from .exact import ball, ball_power
from .interval import Intervals, normal_cdf
from .stable import power_, stable

# name here -> name in the code that SymPy prints
FUNCTIONS = {
    **{name: name for name in ("exp", "log", "sqrt", "sin", "cos", "sinh", "cosh", "atan")},
    **{
        name: f"{name}_"
        for name in ("tanh", "sech_squared", "log_cosh", "polynomial", "power", "normal_cdf")
    },
}


def _polynomial_on_balls(x: flint.arb, *c: Any) -> flint.arb:
    """The Taylor form at the middle of the ball."""
    middle = x.mid()
    shifted = flint.arb_poly(list(c))(flint.arb_poly([middle, 1]))
    return shifted(x - middle)


def _polynomial_on_arrays(x: np.ndarray, *c: Any) -> np.ndarray:
    return functools.reduce(lambda total, ck: total * x + ck, reversed(c[:-1]), c[-1])


_ON_BALLS = {
    "sech_squared": lambda x: ball_power(x.sech(), 2),
    "normal_cdf": lambda x: (-x / flint.arb(2).sqrt()).erfc() / 2,
    "log_cosh": lambda x: x.cosh().log(),
    "polynomial": _polynomial_on_balls,
    "power": ball_power,
}
_ON_ARRAYS = {
    "sech_squared": lambda x: 4 / (np.exp(-np.abs(x)) + np.exp(np.minimum(np.abs(x), 350.0))) ** 2,
    "normal_cdf": normal_cdf,
    "log_cosh": lambda x: np.logaddexp(x, -x) - np.log(2),
    "atan": np.arctan,
    "polynomial": _polynomial_on_arrays,
    "power": lambda x, n: x ** float(n),
}


def _dispatch(name: str):
    """Balls and intervals bring their own functions; arrays use NumPy's."""

    def function(x, *c):
        if isinstance(x, flint.arb):
            return _ON_BALLS[name](x, *c) if name in _ON_BALLS else getattr(x, name)()
        if isinstance(x, Intervals):
            return getattr(x, name)(*c)
        return _ON_ARRAYS[name](x, *c) if name in _ON_ARRAYS else getattr(np, name)(x)

    return function


class Derivatives:
    """The gradient g and Hessian H of a loss, as straight-line code with common parts shared.

    `gradient(values)` is a list of n, `hessian(values)` an n x n list of lists; `values` are n
    `Intervals`, n `flint.arb` or n arrays, and the results are of the same kind. Constants that are
    not integers are kept exact and enclosed for the kind at hand.

    **Raises:** ValueError, naming the loss, on a function outside `FUNCTIONS`.
    """

    def __init__(self, expression: Any, symbols: Sequence[Any]):
        self.symbols = tuple(symbols)
        self.size = len(self.symbols)
        expression = stable(expression)
        slopes = [expression.diff(v) for v in self.symbols]
        self._pairs = list(itertools.combinations_with_replacement(range(self.size), 2))
        curvatures = [slopes[i].diff(self.symbols[j]) for i, j in self._pairs]
        unknown = {str(f.func) for e in slopes + curvatures for f in e.atoms(sp.Function)} - set(
            FUNCTIONS.values()
        )
        if unknown:
            raise ValueError(
                f"loss: must be made of {sorted(FUNCTIONS)} and arithmetic; got {unknown}."
            )
        self._constants: dict[Any, sp.Dummy] = {}
        self._gradient = self._compile(slopes)
        self._hessian = self._compile(curvatures)
        self._tests = self._compile(eliminants(slopes, self.symbols))
        self._enclosed: dict[Any, list[Any]] = {}

    def gradient(self, values: Sequence[Any]) -> list[Any]:
        return self._gradient(*values, *self._constants_for(values[0]))

    def hessian(self, values: Sequence[Any]) -> list[list[Any]]:
        upper = self._hessian(*values, *self._constants_for(values[0]))
        full: list[list[Any]] = [[None] * self.size for _ in range(self.size)]
        for (i, j), entry in zip(self._pairs, upper, strict=True):
            full[i][j] = full[j][i] = entry
        return full

    def tests(self, values: Sequence[Any]) -> list[Any]:
        """Functions that are zero wherever the gradient is: see `eliminants`."""
        return self._tests(*values, *self._constants_for(values[0]))

    def _compile(self, expressions: list[Any]):
        named = [self._name_constants(e) for e in expressions]
        shared, outputs = sp.cse(named, order="none")
        # constants met later, in the Hessian, are arguments that the gradient does not have
        known = len(self._constants)
        arguments = [*self.symbols, *self._constants.values()]
        code = sp.lambdify(
            arguments,
            outputs,
            modules=[{printed: _dispatch(name) for name, printed in FUNCTIONS.items()}],
            cse=lambda _: (shared, outputs),  # pyright: ignore[reportArgumentType]
        )
        return lambda *values: [
            _like(v, values[0]) for v in code(*values[: self.size], *values[self.size :][:known])
        ]

    def _name_constants(self, e: Any) -> Any:
        if e.is_number and not e.is_Integer:
            if e not in self._constants:
                self._constants[e] = sp.Dummy(f"c{len(self._constants)}", real=True)
            return self._constants[e]
        if e.is_Pow and e.exp.is_Integer and e.exp != -1:
            return power_(self._name_constants(e.base), e.exp)
        if e.is_Pow and e.exp == -1:
            return 1 / self._name_constants(e.base)
        if e.is_Pow and (sp.Integer(2) * e.exp).is_Integer:
            return power_(sp.sqrt(self._name_constants(e.base)), 2 * e.exp)
        return e.func(*(self._name_constants(a) for a in e.args)) if e.args else e

    def _constants_for(self, value: Any) -> list[Any]:
        key = flint.ctx.prec if isinstance(value, flint.arb) else type(value)
        if key not in self._enclosed:
            self._enclosed[key] = [_enclose(c, value) for c in self._constants]
        return self._enclosed[key]


def _enclose(constant: Any, kind: Any) -> Any:
    if isinstance(kind, flint.arb):
        return ball(constant)
    with flint.ctx.workprec(128):
        middle = np.float64(float(ball(constant).mid()))
    if isinstance(kind, Intervals):
        return Intervals(*(np.asarray(np.nextafter(middle, end)) for end in (-np.inf, np.inf)))
    return middle


def _like(value: Any, kind: Any) -> Any:
    """An entry that does not depend on the params comes out as a number: give it the kind and shape."""
    if isinstance(kind, Intervals):
        value = (
            value if isinstance(value, Intervals) else Intervals(*(np.asarray(value, float),) * 2)
        )
        if np.shape(value.lo) != np.shape(kind.lo):
            return Intervals(*(np.broadcast_to(v, np.shape(kind.lo)) for v in (value.lo, value.hi)))
        return value
    if isinstance(kind, flint.arb):
        return flint.arb(value)
    return np.broadcast_to(value, np.shape(kind))
