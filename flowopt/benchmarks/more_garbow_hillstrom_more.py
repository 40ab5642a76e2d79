"""More test problems of Moré, Garbow and Hillstrom (1981): the ones they offer to general minimisation.

J. J. Moré, B. S. Garbow, K. E. Hillstrom, Testing unconstrained optimization software, ACM TOMS 7 (1981) 17-41:
numbers, data, starts and minima of F = sum r^2 are theirs; R = F/2. Their n is the default where they
leave it free. In (11) the printed "y_i m i x_2" is read as "y_i - x_2", as their own program has it.
"""

import jax.numpy as jnp

from .more_garbow_hillstrom import ResidualProblem


def _powell_badly_scaled(x, args):
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def _brown_badly_scaled(x, args):
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def _beale(x, args):
    y = jnp.asarray([1.5, 2.25, 2.625], x.dtype)
    return y - x[0] * (1 - jnp.stack([x[1], x[1] ** 2, x[1] ** 3]))


def _jennrich_sampson(x, args):
    i = jnp.arange(1, 11, dtype=x.dtype)
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


_GAUSSIAN = (0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521)


def _gaussian(x, args):
    y = jnp.asarray([*_GAUSSIAN, 0.3989, *reversed(_GAUSSIAN)], x.dtype)
    t = (8 - jnp.arange(1, 16, dtype=x.dtype)) / 2
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - y


def _gulf(x, args):
    t = jnp.arange(1, 100, dtype=x.dtype) / 100
    y = 25 + (-50 * jnp.log(t)) ** (2 / 3)
    return jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - t


def _brown_dennis(x, args):
    t = jnp.arange(1, 21, dtype=x.dtype) / 5
    return (x[0] + t * x[1] - jnp.exp(t)) ** 2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2


def _biggs_exp6(x, args):
    t = 0.1 * jnp.arange(1, 14, dtype=x.dtype)
    y = jnp.exp(-t) - 5 * jnp.exp(-10 * t) + 3 * jnp.exp(-4 * t)
    model = x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4])
    return model - y


def _watson(x, args):
    n = x.size
    t = jnp.arange(1, 30, dtype=x.dtype)[:, None] / 29
    powers = t ** jnp.arange(n, dtype=x.dtype)
    slopes = jnp.arange(1, n, dtype=x.dtype) * powers[:, :-1]
    r = slopes @ x[1:] - (powers @ x) ** 2 - 1
    return jnp.concatenate([r, jnp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def _extended_rosenbrock(x, args):
    return jnp.concatenate([10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]])


def _extended_powell_singular(x, args):
    a, b, c, d = x[::4], x[1::4], x[2::4], x[3::4]
    return jnp.concatenate([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])


def _penalty1(x, args):
    return jnp.concatenate([1e-5**0.5 * (x - 1), jnp.sum(x**2)[None] - 0.25])


def _penalty2(x, args):
    n = x.size
    i = jnp.arange(2, n + 1, dtype=x.dtype)
    y = jnp.exp(i / 10) + jnp.exp((i - 1) / 10)
    pairs = 1e-5**0.5 * (jnp.exp(x[1:] / 10) + jnp.exp(x[:-1] / 10) - y)
    singles = 1e-5**0.5 * (jnp.exp(x[1:] / 10) - jnp.exp(jnp.asarray(-0.1, x.dtype)))
    weights = jnp.arange(n, 0, -1, dtype=x.dtype)
    return jnp.concatenate([x[:1] - 0.2, pairs, singles, (weights @ x**2 - 1)[None]])


def _variably_dimensioned(x, args):
    s = jnp.arange(1, x.size + 1, dtype=x.dtype) @ (x - 1)
    return jnp.concatenate([x - 1, jnp.stack([s, s**2])])


def _trigonometric(x, args):
    i = jnp.arange(1, x.size + 1, dtype=x.dtype)
    return x.size - jnp.sum(jnp.cos(x)) + i * (1 - jnp.cos(x)) - jnp.sin(x)


def _brown_almost_linear(x, args):
    linear = x + jnp.sum(x) - (x.size + 1)
    return jnp.concatenate([linear[:-1], jnp.prod(x)[None] - 1])


def _discrete_boundary_value(x, args):
    h = 1 / (x.size + 1)
    t = h * jnp.arange(1, x.size + 1, dtype=x.dtype)
    padded = jnp.pad(x, 1)
    return 2 * x - padded[:-2] - padded[2:] + h**2 * (x + t + 1) ** 3 / 2


def _broyden_tridiagonal(x, args):
    padded = jnp.pad(x, 1)
    return (3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1


def _broyden_banded(x, args):
    # The sum over the neighbours j = i - 5, ..., i + 1 but i itself.
    z = jnp.pad(x * (1 + x), (5, 1))
    near = sum((z[k : k + x.size] for k in (0, 1, 2, 3, 4, 6)), jnp.zeros_like(x))
    return x * (2 + 5 * x**2) + 1 - near


def _chebyquad(x, args):
    n = x.size
    z = 2 * x - 1
    before, now, rows = jnp.ones_like(x), z, []
    for i in range(1, n + 1):
        integral = -1 / (i**2 - 1) if i % 2 == 0 else 0.0
        rows.append(jnp.mean(now) - integral)
        before, now = now, 2 * z * now - before
    return jnp.stack(rows)


def general_problems(n: int = 10) -> tuple[ResidualProblem, ...]:
    """The eleven problems of fixed size, and the others at n = 10 params, or at their published size; by number."""
    ramp = [j / (n + 1) for j in range(1, n + 1)]
    return (
        ResidualProblem("powell_badly_scaled", 3, _powell_badly_scaled, (0.0, 1.0), (0.0,)),
        ResidualProblem("brown_badly_scaled", 4, _brown_badly_scaled, (1.0, 1.0), (0.0,)),
        ResidualProblem("beale", 5, _beale, (1.0, 1.0), (0.0,)),
        ResidualProblem("jennrich_sampson", 6, _jennrich_sampson, (0.3, 0.4), (124.362,)),
        ResidualProblem("gaussian", 9, _gaussian, (0.4, 1.0, 0.0), (1.12793e-8,)),
        ResidualProblem("gulf", 11, _gulf, (5.0, 2.5, 0.15), (0.0,)),
        ResidualProblem("brown_dennis", 16, _brown_dennis, (25.0, 5.0, -5.0, -1.0), (85822.2,)),
        ResidualProblem(
            "biggs_exp6", 18, _biggs_exp6, (1.0, 2.0, 1.0, 1.0, 1.0, 1.0), (0.0, 5.65565e-3)
        ),
        ResidualProblem("watson", 20, _watson, (0.0,) * 6, (2.28767e-3,)),
        extended_rosenbrock(n),
        extended_powell_singular(4 * max(1, n // 4)),
        ResidualProblem("penalty1", 23, _penalty1, (1.0, 2.0, 3.0, 4.0), (2.24997e-5,)),
        ResidualProblem("penalty2", 24, _penalty2, (0.5,) * 4, (9.37629e-6,)),
        variably_dimensioned(n),
        ResidualProblem("trigonometric", 26, _trigonometric, (0.1,) * 10, (0.0, 2.79506e-5)),
        ResidualProblem("brown_almost_linear", 27, _brown_almost_linear, (0.5,) * n, (0.0, 1.0)),
        ResidualProblem(
            "discrete_boundary_value",
            28,
            _discrete_boundary_value,
            tuple(t * (t - 1) for t in ramp),
            (0.0,),
        ),
        broyden_tridiagonal(n),
        ResidualProblem("broyden_banded", 31, _broyden_banded, (-1.0,) * n, (0.0,)),
        ResidualProblem(
            "chebyquad", 35, _chebyquad, tuple(j / 9 for j in range(1, 9)), (3.51687e-3,)
        ),
    )


def extended_rosenbrock(n: int) -> ResidualProblem:
    """(21) Extended Rosenbrock: n even; n/2 valleys side by side; F = 0 at (1, ..., 1)."""
    return ResidualProblem(
        "extended_rosenbrock", 21, _extended_rosenbrock, (-1.2, 1.0) * (n // 2), (0.0,)
    )


def extended_powell_singular(n: int) -> ResidualProblem:
    """(22) Extended Powell singular: n a multiple of 4; F = 0 at 0, where H is singular."""
    start = (3.0, -1.0, 0.0, 1.0) * (n // 4)
    return ResidualProblem("extended_powell_singular", 22, _extended_powell_singular, start, (0.0,))


def variably_dimensioned(n: int) -> ResidualProblem:
    """(25) Variably dimensioned: any n; F = 0 at (1, ..., 1)."""
    start = tuple(1 - j / n for j in range(1, n + 1))
    return ResidualProblem("variably_dimensioned", 25, _variably_dimensioned, start, (0.0,))


def broyden_tridiagonal(n: int) -> ResidualProblem:
    """(30) Broyden tridiagonal: any n; F = 0."""
    return ResidualProblem("broyden_tridiagonal", 30, _broyden_tridiagonal, (-1.0,) * n, (0.0,))


def large_problems(n: int = 1000) -> tuple[ResidualProblem, ...]:
    """Four of those of any size, at a size where no matrix is formed; n a multiple of 4."""
    return (
        extended_rosenbrock(n),
        extended_powell_singular(n),
        variably_dimensioned(n),
        broyden_tridiagonal(n),
    )
