"""One neuron: the loss of an activation and data, and its critical points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from .activation import lambdify_activation, read_activation, read_data
from .critical_point import CriticalPoint
from .problem import Problem


def neuron(
    g: Any,
    x: Sequence[Any],
    y: Sequence[Any],
    *,
    box: Sequence[tuple[float, float]] | None = None,
    name: str | None = None,
) -> Problem:
    """The loss of one neuron with activation g on the data (x_i, y_i), and its critical points.

        R(w, b) = 1/(2P) sum_i (g(w x_i + b) - y_i)^2,    params = (w, b), two scalars.

    With two data, u = w x_0 + b and s = w x_1 + b are new coordinates of the plane, in which
    R = (phi_0(u) + phi_1(s))/4 with phi_i(z) = (g(z) - y_i)^2. So the critical points of R are the
    product of the critical sets of phi_0 and phi_1, which are found exactly (see `univariate.py`),
    and the natures multiply: minimum x minimum is a minimum, maximum x maximum a maximum, minimum x
    maximum a saddle, and with a flat factor the point is flat, all this also where the Hessian is
    singular.

    With more data, or an activation for which there is no exact method, the critical points in
    `box` are certified instead (`certify_critical_points`); the `statement` of the result says what
    is proven.

    **Arguments:**

    - `g`: the activation, a SymPy expression in one free symbol, or a string for `sympy.sympify`
      (which evaluates it: do not pass text from strangers), or one of the names "tanh", "sigmoid",
      "softplus", "sine", "gelu", "bell".
    - `x`, `y`: the data, integers, fractions or SymPy numbers; a float is read as its shortest
      decimal, so that 0.1 means 1/10. The x must be distinct, and at least two.
    - `box`: (low, high) for w and for b; only used where the points are not found exactly.
    - `name`: for tables and messages; by default made from g.

    **Returns:** a `Problem`. Its loss is scalar JAX arithmetic in the dtype of the params.

    **Raises:** ValueError or TypeError, naming the argument.
    """
    import sympy as sp

    from .root_sets import NotExact
    from .univariate import critical_set

    z = sp.Symbol("z", real=True)
    activation = read_activation(g, z)
    xs, ys = read_data(x, y, least=2)
    w, b = sp.Symbol("w", real=True), sp.Symbol("b", real=True)
    squares = [(activation.subs(z, w * a + b) - c) ** 2 for a, c in zip(xs, ys, strict=True)]
    expression = sum(squares) / (2 * len(xs))
    statement = "These are all the critical points in the plane, exactly."
    try:
        if len(xs) != 2:
            raise NotExact(f"with {len(xs)} data the loss does not separate")
        sets = [critical_set(activation, z, yi) for yi in ys]
        points = [_product(u, s, activation, z, xs, ys) for u, s in itertools.product(*sets)]
    except NotExact as reason:
        if box is None:
            raise ValueError(
                f"box: must be given, (low, high) for w and for b, where there is no exact method: {reason}."
            ) from reason
        points, statement = _certified(expression, (w, b), box)
    return Problem(
        neuron_loss(activation, z, xs, ys),
        points,
        name or f"neuron({activation})",
        expression=expression,
        symbols=(w, b),
        statement=statement,
    )


def neuron_loss(g: Any, z: Any, x: Sequence[Any], y: Sequence[Any]) -> Callable[..., Any]:
    """The loss as plain scalar JAX arithmetic.

    Params are two scalars and every constant is a Python float, so that the params' own dtype is
    kept and an ensemble over lanes sees no small arrays. Polynomials are in Horner's form, the
    shortest.
    """
    activation = lambdify_activation(g, z)
    data = [(float(a), float(c)) for a, c in zip(x, y, strict=True)]
    scale = 1 / (2 * len(data))

    def loss(params, args=None):
        w, b = params
        residuals = [activation(w * xi + b if xi else b) - yi for xi, yi in data]
        return scale * sum(r * r for r in residuals)

    return loss


def _certified(expression: Any, symbols: tuple, box: Any) -> tuple[list[CriticalPoint], str]:
    from .certify import certify_critical_points
    from .degenerate import degenerate_points

    certificate = certify_critical_points(expression, box, symbols=symbols, progress=False)
    degenerate = degenerate_points(expression, symbols, certificate)
    statement = certificate.statement
    if degenerate:
        statement += (
            f" {len(degenerate)} degenerate critical points in the undecided pieces are exact; that "
            "they are alone there is not proven."
        )
    return [*certificate.points, *degenerate], statement


_NATURES = {
    ("minimum", "minimum"): "minimum",
    ("maximum", "maximum"): "maximum",
    ("minimum", "maximum"): "saddle",
    ("maximum", "minimum"): "saddle",
}


def _product(u: Any, s: Any, g: Any, z: Any, x: Sequence[Any], y: Sequence[Any]) -> CriticalPoint:
    """The critical point of R at the critical coordinates u of phi_0 and s of phi_1."""
    import flint
    import numpy as np

    from .exact import ball, nearest_float
    from .root_sets import tidy

    w = tidy((s.exact - u.exact) / (x[1] - x[0]))
    b = tidy(u.exact - w * x[0])
    value = tidy((u.phi + s.phi) / 4)
    with flint.ctx.workprec(256):
        curvatures = [0.0, 0.0]  # exactly, where the multiplicity is more than one
        for i, coordinate in enumerate((u, s)):
            if coordinate.multiplicity == 1:
                second = ((g - y[i]) ** 2).diff(z, 2) / 4
                curvatures[i] = nearest_float(ball(second, {z: coordinate.ball()}))
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
