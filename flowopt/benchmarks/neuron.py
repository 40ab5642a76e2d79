"""One neuron: the loss of an activation and data, and its exact critical points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .problem import CriticalPoint, Problem

if TYPE_CHECKING:
    import sympy as sp


def neuron(g: Any, x: Sequence[Any], y: Sequence[Any], *, name: str | None = None) -> Problem:
    """The loss of one neuron with activation g on the data (x_i, y_i), and all its critical points.

        R(w, b) = 1/(2P) sum_i (g(w x_i + b) - y_i)^2,    params = (w, b), two scalars.

    With two data, u = w x_0 + b and s = w x_1 + b are new coordinates of the plane, in which
    R = (phi_0(u) + phi_1(s))/4 with phi_i(z) = (g(z) - y_i)^2. So the critical points of R are the
    product of the critical sets of phi_0 and phi_1, which are found exactly (see `univariate.py`),
    and the natures multiply: minimum x minimum is a minimum, maximum x maximum a maximum, minimum x
    maximum a saddle, and with a flat factor the point is flat, all this also where the Hessian is
    singular.

    **Arguments:**

    - `g`: the activation, a SymPy expression in one free symbol, or a string for `sympy.sympify`
      (which evaluates it: do not pass text from strangers).
    - `x`, `y`: the data, integers, fractions or SymPy numbers; a float is read as its shortest
      decimal, so that 0.1 means 1/10. The x must be distinct.
    - `name`: for tables and messages; by default made from g.

    **Returns:** a `Problem`. Its loss is scalar JAX arithmetic in Horner form, in the dtype of the
    params.

    **Raises:** ValueError or TypeError, naming the argument.
    """
    import sympy as sp

    from . import univariate

    z = sp.Symbol("z", real=True)
    activation = _activation(g, z)
    x, y = _data(x, y)
    w, b = sp.Symbol("w", real=True), sp.Symbol("b", real=True)
    count = len(x)
    loss_expression = sum(
        (activation.subs(z, w * xi + b) - yi) ** 2 for xi, yi in zip(x, y, strict=True)
    )
    if count != 2:
        raise ValueError(f"x: the loss separates for two data, got {count}.")
    try:
        sets = [univariate.critical_set(activation, z, yi) for yi in y]
    except univariate.NotExact as error:
        raise ValueError(
            f"g: no exact critical set is known for {activation} ({error})."
        ) from error
    points = [_product(u, s, activation, z, x, y) for u, s in itertools.product(*sets)]
    return Problem(
        neuron_loss(activation, z, x, y),
        points,
        name or f"neuron({activation})",
        expression=loss_expression / (2 * count),
        symbols=(w, b),
        statement="All critical points in the plane, exactly.",
    )


def _activation(g: Any, z: sp.Symbol) -> sp.Expr:
    """g as an exact expression in the symbol z."""
    import sympy as sp

    from .exact import exact_expression

    try:
        expression = sp.sympify(g)
    except (sp.SympifyError, TypeError, SyntaxError) as error:
        raise ValueError(
            f"g: must be a SymPy expression or a string for one, got {g!r}."
        ) from error
    if not isinstance(expression, sp.Expr):
        raise TypeError(f"g: must be a SymPy expression in one symbol, got {type(g).__name__}.")
    free = sorted(expression.free_symbols, key=str)
    if len(free) != 1:
        raise ValueError(f"g: must have one free symbol, got {len(free)}: {free}.")
    return exact_expression(expression.subs(free[0], z))


def _data(x: Sequence[Any], y: Sequence[Any]) -> tuple[list[sp.Expr], list[sp.Expr]]:
    """The data as exact numbers, checked."""
    from .exact import exact_number

    exact_x = [exact_number(v, "x") for v in x]
    exact_y = [exact_number(v, "y") for v in y]
    if not exact_x:
        raise ValueError("x: must hold at least two numbers, got none.")
    if len(exact_x) != len(exact_y):
        raise ValueError(f"y: must be as long as x, got {len(exact_y)} for {len(exact_x)}.")
    if len(exact_x) < 2:
        raise ValueError(
            "x: must hold at least two numbers; with one the loss is constant along lines."
        )
    if any((a - c).equals(0) for a, c in itertools.combinations(exact_x, 2)):
        raise ValueError(f"x: must be distinct, else the loss does not separate; got {exact_x}.")
    return exact_x, exact_y


def neuron_loss(
    g: sp.Expr, z: sp.Symbol, x: Sequence[sp.Expr], y: Sequence[sp.Expr]
) -> Callable[..., Any]:
    """The loss as plain scalar JAX arithmetic.

    Params are two scalars and every constant is a Python float, so that the params' own dtype is
    kept and an ensemble over lanes sees no small arrays. Horner's form is the shortest and, near a
    root, the most accurate order of evaluation there is without knowing the roots.
    """
    activation = lambdify_jax(g, z)
    data = [(float(a), float(c)) for a, c in zip(x, y, strict=True)]
    scale = 1 / (2 * len(data))

    def loss(params, args=None):
        w, b = params
        residuals = [activation(w * xi + b if xi else b) - yi for xi, yi in data]
        return scale * sum(r * r for r in residuals)

    return loss


def lambdify_jax(g: sp.Expr, z: sp.Symbol) -> Callable[[Any], Any]:
    """g as a function of a JAX scalar, all of whose constants are Python floats."""
    import sympy as sp

    return sp.lambdify(z, _constants_to_floats(_horner(g, z)), modules="jax")


def _horner(g: sp.Expr, z: sp.Symbol) -> sp.Expr:
    import sympy as sp

    if g.is_polynomial(z):
        return sp.horner(g, wrt=z)
    return g.func(*(_horner(a, z) for a in g.args)) if g.args else g


def _constants_to_floats(expression: sp.Expr) -> sp.Expr:
    """Every constant but an exponent becomes a float.

    `jnp.sqrt(5)` would bring its own dtype along, and a Python integer past 2**31 does not fit
    JAX's default.
    """
    import sympy as sp

    if expression.is_number:
        return sp.N(expression, 17)
    if expression.is_Pow and expression.exp.is_Rational:
        return sp.Pow(_constants_to_floats(expression.base), expression.exp)
    if not expression.args:
        return expression
    return expression.func(*(_constants_to_floats(a) for a in expression.args))


_NATURES = {
    ("minimum", "minimum"): "minimum",
    ("maximum", "maximum"): "maximum",
    ("minimum", "maximum"): "saddle",
    ("maximum", "minimum"): "saddle",
}


def _product(
    u, s, g: sp.Expr, z: sp.Symbol, x: Sequence[sp.Expr], y: Sequence[sp.Expr]
) -> CriticalPoint:
    """The critical point of R at the critical coordinates u of phi_0 and s of phi_1."""
    import flint
    import numpy as np

    from .exact import ball, nearest_float
    from .univariate import tidy

    w = tidy((s.exact - u.exact) / (x[1] - x[0]))
    b = tidy(u.exact - w * x[0])
    value = tidy((u.phi + s.phi) / 4)
    with flint.ctx.workprec(256):
        curvatures = []
        for coordinate, target in ((u, y[0]), (s, y[1])):
            second = ((g - target) ** 2).diff(z, 2) / 4
            at = {z: coordinate.ball()}
            curvatures.append(
                nearest_float(ball(second, at)) if coordinate.multiplicity == 1 else 0.0
            )
        params = tuple(nearest_float(ball(v)) for v in (w, b))
        loss = nearest_float(ball(value))
    rows = np.array([[float(x[0]), 1.0], [float(x[1]), 1.0]])  # d(u, s)/d(w, b)
    return CriticalPoint(
        params=params,
        exact=(w, b),
        multiplicity=(u.multiplicity, s.multiplicity),
        value=loss,
        exact_value=value,
        nature=_NATURES.get((u.nature, s.nature), "flat"),
        hessian=rows.T @ np.diag(curvatures) @ rows,
    )
