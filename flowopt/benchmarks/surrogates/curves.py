"""Two classics that are hard for what they are: Runge's function and the two spirals."""

import numpy as np

from .part import Part, misclassified


def _runge(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = generator.uniform(-1.0, 1.0, (n, 1))
    return x, 1 / (1 + 25 * x**2)


def _spirals(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Radius 6.5 (104 - i)/104 at the angle pi i/16, i in [0, 96]; the other class opposite."""
    i = generator.uniform(0.0, 96.0, n)
    y = np.arange(n) % 2
    radius, angle = 6.5 * (104 - i) / 104, np.pi * i / 16
    sign = np.where(y == 0, 1.0, -1.0)
    return (sign * radius * np.stack([np.sin(angle), np.cos(angle)])).T, y


runge = Part("Runge function", ("x",), ("1/(1 + 25 x^2)",), _runge)
"""x, uniform in [-1, 1] -> 1/(1 + 25 x^2). [Runge 1901]"""
two_spirals = Part("two spirals", ("x", "y"), ("one", "other"), _spirals, misclassified)
"""A point in the plane -> which of two interlocked spirals it is on; three turns each. [Lang and Witbrock 1988]"""
