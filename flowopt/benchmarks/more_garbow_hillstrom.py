"""Least-squares test problems of Moré, Garbow and Hillstrom (1981), with their standard starts and minima.

J. J. Moré, B. S. Garbow, K. E. Hillstrom, Testing unconstrained optimization software, ACM TOMS 7 (1981) 17-41:
the problem numbers, data, starts and minima F = sum r^2 below are theirs. R = F/2 here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class ResidualProblem:
    """Residuals r(x), a start, and the published minima of their sum of squares."""

    name: str
    number: int
    """In the collection."""
    residuals: Callable[[Float[Array, " n"], Any], Float[Array, " m"]]
    """(x, args) -> r; in the dtype of x."""
    start: tuple[float, ...]
    """The standard start."""
    minima: tuple[float, ...]
    """Published local minima of F = sum r^2, the global one first."""
    asymptotic: tuple[float, ...] = ()
    """Published infima of F that are approached only as x goes to infinity."""

    def reached(self, value: Any, rtol: float = 1e-4, atol: float = 1e-10) -> bool:
        """Whether R = `value` is a published minimum: F within `rtol` of one (they have six digits), or `atol` of 0."""
        total = 2 * float(value)
        return any(abs(total - f) <= rtol * f + atol for f in self.minima + self.asymptotic)


def _column(values: str, like: Array) -> Array:
    return jnp.asarray([float(v) for v in values.split()], like.dtype)


def _rosenbrock(x, args):
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def _freudenstein_roth(x, args):
    a, b = x
    return jnp.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])


def _helical_valley(x, args):
    # arctan(x2/x1)/(2 pi), + 1/2 where x1 < 0: continuous across x1 = 0 except where x2 < 0 too.
    safe = jnp.where(x[0] == 0, 1, x[0])
    angle = jnp.arctan(x[1] / safe) / (2 * jnp.pi) + jnp.where(x[0] < 0, 0.5, 0.0)
    angle = jnp.where(x[0] == 0, 0.25 * jnp.sign(x[1]), angle)
    radius = jnp.sqrt(x[0] ** 2 + x[1] ** 2)
    return jnp.stack([10 * (x[2] - 10 * angle), 10 * (radius - 1), x[2]])


_BARD = "0.14 0.18 0.22 0.25 0.29 0.32 0.35 0.39 0.37 0.58 0.73 0.96 1.34 2.10 4.39"


def _bard(x, args):
    y = _column(_BARD, x)
    u = jnp.arange(1, 16, dtype=x.dtype)
    v = 16 - u
    return y - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


_KOWALIK_Y = "0.1957 0.1947 0.1735 0.1600 0.0844 0.0627 0.0456 0.0342 0.0323 0.0235 0.0246"
_KOWALIK_U = "4 2 1 0.5 0.25 0.167 0.125 0.1 0.0833 0.0714 0.0625"


def _kowalik_osborne(x, args):
    y, u = _column(_KOWALIK_Y, x), _column(_KOWALIK_U, x)
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


_MEYER = "34780 28610 23650 19630 16370 13720 11540 9744 8261 7030 6005 5147 4427 3820 3307 2872"


def _meyer(x, args):
    t = 45 + 5 * jnp.arange(1, 17, dtype=x.dtype)
    return x[0] * jnp.exp(x[1] / (t + x[2])) - _column(_MEYER, x)


def _powell_singular(x, args):
    return jnp.stack(
        [
            x[0] + 10 * x[1],
            5**0.5 * (x[2] - x[3]),
            (x[1] - 2 * x[2]) ** 2,
            10**0.5 * (x[0] - x[3]) ** 2,
        ]
    )


def _wood(x, args):
    return jnp.stack(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            90**0.5 * (x[3] - x[2] ** 2),
            1 - x[2],
            10**0.5 * (x[1] + x[3] - 2),
            10**-0.5 * (x[1] - x[3]),
        ]
    )


def _box(x, args):
    t = 0.1 * jnp.arange(1, 11, dtype=x.dtype)
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (jnp.exp(-t) - jnp.exp(-10 * t))


_OSBORNE = """0.844 0.908 0.932 0.936 0.925 0.908 0.881 0.850 0.818 0.784 0.751 0.718 0.685 0.658 0.628 0.603
    0.580 0.558 0.538 0.522 0.506 0.490 0.478 0.467 0.457 0.448 0.438 0.431 0.424 0.420 0.414 0.411 0.406"""


def _osborne1(x, args):
    t = 10 * jnp.arange(33, dtype=x.dtype)
    return _column(_OSBORNE, x) - (x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4]))


def rosenbrock() -> ResidualProblem:
    """(1) Rosenbrock: n = m = 2, a curved valley; F = 0 at (1, 1)."""
    return ResidualProblem("rosenbrock", 1, _rosenbrock, (-1.2, 1.0), (0.0,))


def freudenstein_roth() -> ResidualProblem:
    """(2) Freudenstein and Roth: n = m = 2; F = 0 at (5, 4), and a local minimum 48.9842 at (11.41, -0.8968)."""
    return ResidualProblem("freudenstein_roth", 2, _freudenstein_roth, (0.5, -2.0), (0.0, 48.9842))


def helical_valley() -> ResidualProblem:
    """(7) Helical valley (Fletcher and Powell): n = m = 3; F = 0 at (1, 0, 0)."""
    return ResidualProblem("helical_valley", 7, _helical_valley, (-1.0, 0.0, 0.0), (0.0,))


def bard() -> ResidualProblem:
    """(8) Bard: n = 3, m = 15; F = 8.21487e-3, and 17.4286 at (0.8406..., -inf, -inf)."""
    return ResidualProblem("bard", 8, _bard, (1.0, 1.0, 1.0), (8.21487e-3,), (17.4286,))


def meyer() -> ResidualProblem:
    """(10) Meyer: n = 3, m = 16, scales from 1e-2 to 1e4; F = 87.9458."""
    return ResidualProblem("meyer", 10, _meyer, (0.02, 4000.0, 250.0), (87.9458,))


def box() -> ResidualProblem:
    """(12) Box three-dimensional: n = 3, m = 10; F = 0 at (1, 10, 1), (10, 1, -1) and wherever x1 = x2, x3 = 0."""
    return ResidualProblem("box", 12, _box, (0.0, 10.0, 20.0), (0.0,))


def powell_singular() -> ResidualProblem:
    """(13) Powell singular: n = m = 4, J singular at the minimum; F = 0 at 0."""
    return ResidualProblem("powell_singular", 13, _powell_singular, (3.0, -1.0, 0.0, 1.0), (0.0,))


def wood() -> ResidualProblem:
    """(14) Wood: n = 4, m = 6; F = 0 at (1, 1, 1, 1)."""
    return ResidualProblem("wood", 14, _wood, (-3.0, -1.0, -3.0, -1.0), (0.0,))


def kowalik_osborne() -> ResidualProblem:
    """(15) Kowalik and Osborne: n = 4, m = 11; F = 3.07505e-4, and 1.02734e-3 at (inf, -14.07..., -inf, -inf)."""
    return ResidualProblem(
        "kowalik_osborne",
        15,
        _kowalik_osborne,
        (0.25, 0.39, 0.415, 0.39),
        (3.07505e-4,),
        (1.02734e-3,),
    )


def osborne1() -> ResidualProblem:
    """(17) Osborne 1: n = 5, m = 33, two exponentials; F = 5.46489e-5."""
    return ResidualProblem("osborne1", 17, _osborne1, (0.5, 1.5, -1.0, 0.01, 0.02), (5.46489e-5,))


def residual_problems() -> tuple[ResidualProblem, ...]:
    """All of them, by their number."""
    return (
        rosenbrock(),
        freudenstein_roth(),
        helical_valley(),
        bard(),
        meyer(),
        box(),
        powell_singular(),
        wood(),
        kowalik_osborne(),
        osborne1(),
    )
