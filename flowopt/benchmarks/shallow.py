"""Networks with one hidden layer: the loss as an expression in its parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .activation import constants_to_floats, jax_modules, read_activation, read_data
from .critical_point import CriticalPoint
from .problem import Problem


def network_expression(
    g: Any,
    x: Sequence[Any],
    y: Sequence[Any],
    *,
    neurons: int = 2,
    biases: bool = False,
    output_bias: bool = False,
) -> tuple[Any, tuple[Any, ...]]:
    """The loss of a network with one hidden layer, and its symbols.

        R = 1/(2P) sum_i (sum_k v_k g(w_k x_i + b_k) + c - y_i)^2

    **Arguments:**

    - `g`, `x`, `y`: as in `neuron`.
    - `neurons`: how many. `biases`: whether there are b_k (else they are 0). `output_bias`: whether
      there is c.

    **Returns:** the SymPy expression, and the symbols in the order w_1 ..., b_1 ..., v_1 ..., c.

    **Raises:** ValueError or TypeError, naming the argument.
    """
    import sympy as sp

    if isinstance(neurons, bool) or not isinstance(neurons, int) or neurons < 1:
        raise ValueError(f"neurons: must be a positive integer, got {neurons!r}.")
    z = sp.Symbol("z", real=True)
    activation = read_activation(g, z)
    xs, ys = read_data(x, y, least=1)

    def family(letter: str, wanted: bool = True) -> list[Any]:
        count = range(1, neurons + 1)
        return [sp.Symbol(f"{letter}{k}", real=True) for k in count] if wanted else []

    w, b, v = family("w"), family("b", biases), family("v")
    c = [sp.Symbol("c", real=True)] if output_bias else []
    shifts = b or [sp.Integer(0)] * neurons
    squares = []
    for xi, yi in zip(xs, ys, strict=True):
        outputs = [
            vk * activation.subs(z, wk * xi + bk) for vk, wk, bk in zip(v, w, shifts, strict=True)
        ]
        squares.append((sum(outputs) + sum(c) - yi) ** 2)
    return sum(squares) / (2 * len(xs)), (*w, *b, *v, *c)


def problem_from_expression(
    expression: Any,
    symbols: Sequence[Any],
    critical_points: Sequence[CriticalPoint] = (),
    name: str = "problem",
    statement: str = "",
) -> Problem:
    """A problem whose loss is a SymPy expression; params are a tuple of scalars, one per symbol."""
    return Problem(
        lambdify_loss(expression, symbols),
        critical_points,
        name,
        expression=expression,
        symbols=tuple(symbols),
        statement=statement,
    )


def lambdify_loss(expression: Any, symbols: Sequence[Any]) -> Callable[..., Any]:
    """The expression as scalar JAX arithmetic on a tuple of params, common parts computed once."""
    import sympy as sp

    function = sp.lambdify(
        list(symbols), constants_to_floats(expression), modules=jax_modules(), cse=True
    )

    def loss(params, args=None):
        return function(*params)

    return loss
