"""What a user gives as activation and data, read exactly; and expressions made into JAX code."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

ACTIVATIONS = {
    "tanh": "tanh(z)",
    "sigmoid": "1/(1 + exp(-z))",
    "softplus": "log(1 + exp(z))",
    "sine": "sin(z)",
    "gelu": "z*(1 + erf(z/sqrt(2)))/2",
    "bell": "exp(-z**2/2)",
}


def read_activation(g: Any, z: Any) -> Any:
    """g, an expression, a string for one or one of the names above, as an exact expression in z."""
    import sympy as sp

    from .exact import exact_expression

    try:
        expression = sp.sympify(ACTIVATIONS.get(g, g) if isinstance(g, str) else g)
    except (sp.SympifyError, TypeError, SyntaxError) as error:
        message = f"g: must be a SymPy expression or a string for one, got {g!r}."
        raise ValueError(message) from error
    if not isinstance(expression, sp.Expr):
        raise TypeError(f"g: must be a SymPy expression in one symbol, got {type(g).__name__}.")
    free = sorted(expression.free_symbols, key=str)
    if len(free) != 1:
        raise ValueError(f"g: must have one free symbol, got {len(free)}: {free}.")
    return exact_expression(expression.subs(free[0], z))


def read_data(x: Sequence[Any], y: Sequence[Any], least: int) -> tuple[list[Any], list[Any]]:
    """The data as exact numbers; the x must be distinct and at least `least` in number."""
    from .exact import exact_number

    exact_x = [exact_number(v, "x") for v in x]
    exact_y = [exact_number(v, "y") for v in y]
    if len(exact_x) < least:
        raise ValueError(f"x: must hold at least {least} numbers, got {len(exact_x)}.")
    if len(exact_x) != len(exact_y):
        raise ValueError(f"y: must be as long as x, got {len(exact_y)} for {len(exact_x)}.")
    if any((a - c).equals(0) for a, c in itertools.combinations(exact_x, 2)):
        raise ValueError(f"x: must be distinct (else the loss does not separate), got {exact_x}.")
    return exact_x, exact_y


def lambdify_activation(g: Any, z: Any) -> Callable[[Any], Any]:
    """g as a function of a JAX scalar, in Horner's form, all of whose constants are Python floats."""
    import sympy as sp

    return sp.lambdify(z, constants_to_floats(_horner(g, z)), modules=jax_modules())


def jax_modules() -> list[Any]:
    """Where SymPy finds functions for JAX code. It knows NumPy's names and not SciPy's."""
    import jax.scipy.special

    return [{name: getattr(jax.scipy.special, name) for name in ("erf", "erfc")}, "jax"]


def _horner(g: Any, z: Any) -> Any:
    import sympy as sp

    if g.is_polynomial(z):
        return sp.horner(g, wrt=z)
    return g.func(*(_horner(a, z) for a in g.args)) if g.args else g


def constants_to_floats(expression: Any) -> Any:
    """Every constant but an exponent becomes a float.

    `jnp.sqrt(5)` would bring its own dtype along, and a Python integer past 2**31 does not fit
    JAX's default.
    """
    import sympy as sp

    if expression.is_number:
        return sp.N(expression, 17)
    if expression.is_Pow and expression.exp.is_Rational:
        return sp.Pow(constants_to_floats(expression.base), expression.exp)
    if not expression.args:
        return expression
    return expression.func(*(constants_to_floats(a) for a in expression.args))
