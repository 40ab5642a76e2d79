"""Independent searches find no critical point that is not listed."""

import collections
import functools
import os

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowopt import benchmarks
from flowopt.benchmarks.derivatives import Derivatives

# 10^5 is what the issue asks for: FLOWOPT_STARTS=100000 pytest ... takes about a minute and a half
# on one core
STARTS = int(os.environ.get("FLOWOPT_STARTS", "4000"))
SIDE = 5.0
ALL = ["poly2", "poly3", "poly4", "poly5", "poly8", "bell", "rational", "exp2", "exp4", "exp5"]


def solve(h, g):
    """h^-1 g for a symmetric 2 x 2 matrix, and the shortest least-squares solution if h is singular to rounding."""
    (a, b), (_, c) = h
    det, trace = a * c - b * b, a + c
    regular = jnp.abs(det) > 1e-15 * jnp.sum(h * h)
    full = jnp.array([c * g[0] - b * g[1], a * g[1] - b * g[0]]) / jnp.where(regular, det, 1.0)
    single = h @ g / jnp.where(trace == 0, 1.0, trace) ** 2
    return jnp.where(regular, full, single)


def newton(gradient, hessian, x):
    """Newton's method for grad R = 0, its steps capped at one unit."""
    step = solve(hessian(x), gradient(x))
    return x - step * jnp.minimum(1.0, 1.0 / jnp.linalg.norm(step))


def gradient_norm(gradient, hessian, x):
    """A step of descent on |grad R|^2: the best of several damped Gauss-Newton steps and none."""
    g, h = gradient(x), hessian(x)
    scale = jnp.linalg.norm(h)
    damping = scale**2 * jnp.array([1e-30, 1e-12, 1e-6, 1e-3, 1e-1, 1e1])
    steps = jax.vmap(lambda m: solve(h @ h + m * jnp.eye(2), h @ g))(damping)
    candidates = jnp.concatenate([x[None] - steps, x[None]])
    norms = jax.vmap(lambda y: jnp.linalg.norm(gradient(y)))(candidates)
    return candidates[jnp.argmin(jnp.where(jnp.isfinite(norms), norms, jnp.inf))]


@functools.partial(jax.jit, static_argnums=(0, 1))
def search(problem, method, starts):
    """Where 150 steps end, and the length of the Newton step that would be the next one."""
    gradient = jax.grad(lambda x: problem.loss((x[0], x[1])))
    hessian = jax.hessian(lambda x: problem.loss((x[0], x[1])))

    def one(x):
        x = jax.lax.fori_loop(0, 150, lambda _, y: method(gradient, hessian, y), x)
        return x, jnp.linalg.norm(solve(hessian(x), gradient(x)))

    return jax.vmap(one)(starts)


def continued(problem, point):
    """Where 25 more Newton steps lead in arithmetic of 60,000 bits, and the length of the last."""
    derivatives = Derivatives(problem.expression, problem.symbols)
    size = np.inf
    with flint.ctx.workprec(60_000):
        x = [flint.arb(float(v)) for v in point]
        for _ in range(25):
            slope = flint.arb_mat([[g] for g in derivatives.gradient(x)])
            step = flint.arb_mat(derivatives.hessian(x)).solve(slope)
            size = max(abs(float(step[i, 0])) for i in range(len(x)))
            x = [(v - step[i, 0]).mid() for i, v in enumerate(x)]
            if size < 1e-12 or size > 5:
                break
    return tuple(float(v) for v in x), size


@pytest.mark.parametrize("method", [newton, gradient_norm])
@pytest.mark.parametrize("name", ALL)
def test_searches_end_at_listed_points_or_at_nothing(name, method):
    """A run has found a point if it is in the box and its next Newton step is short.

    (The gradient's size says little: on bell's plateaus it is 1e-30 and nothing is there, while a
    Newton step is about a tenth. Below 1e-3 and not 1e-15, since near a degenerate point rounding
    alone moves it that much.) On the exp networks one eigenvalue of the Hessian can be lost to
    rounding beside the other, and a float64 step is then short for no reason; so from what is not
    listed Newton goes on with 60,000 bits (from 8 such points at most).
    """
    problem = getattr(benchmarks, name)()
    starts = np.random.default_rng(0).uniform(-SIDE, SIDE, (STARTS, 2))
    x, step = (np.asarray(v) for v in search(problem, method, jnp.asarray(starts)))
    ended = (step < 1e-3) & (np.abs(x).max(axis=1) < 1.2 * SIDE)
    found = problem.classify((x[ended, 0], x[ended, 1]), radius=0.02)
    for point in x[ended][found < 0][:8]:
        end, size = continued(problem, point)
        # in a tail like exp(-p(z)) all steps have the length 1/(2 p'), which may be short
        assert size > 1e-6 or problem.classify(end) >= 0, point
    if method is newton and name != "exp5":  # nor is any listed point out of reach
        assert set(found) - {-1} == set(range(len(problem.critical_points)))


def numerical_critical_coordinates(g, z, y):
    """Where the slope of (g - y)^2 vanishes, by Newton's method from a fine grid."""
    phi = sp.Poly(sp.expand((g - y) ** 2), z)
    slope = np.array([float(c) for c in phi.diff(z).all_coeffs()])
    curvature = np.polyder(slope)
    bound = 1 + np.abs(slope[1:] / slope[0]).max()
    x = np.linspace(-bound, bound, 40_001)
    for _ in range(200):
        with np.errstate(all="ignore"):
            x = x - np.polyval(slope, x) / np.polyval(curvature, x)
    with np.errstate(all="ignore"):
        step = np.abs(np.polyval(slope, x) / np.polyval(curvature, x))
        ended = (step < 1e-6 * (1 + np.abs(x))) | (np.polyval(slope, x) == 0)
    return np.unique(np.round(x[ended], 6))


coefficients = st.lists(st.integers(-5, 5), min_size=3, max_size=7)
rationals = st.fractions(-3, 3, max_denominator=6)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(coefficients, rationals, rationals, rationals, rationals)
def test_random_polynomial_activations(c, first, second, x0, x1):
    assume(c[-1] != 0 and x0 != x1)
    z = sp.Symbol("z", real=True)
    g = sum(ck * z**k for k, ck in enumerate(c))
    problem = benchmarks.neuron(g, (x0, x1), (first, second))
    points = problem.critical_points
    at = [sp.Rational(x.numerator, x.denominator) for x in (x0, x1)]
    exact = [np.unique([round(float(p.exact[1] + x * p.exact[0]), 12) for p in points]) for x in at]
    assert len(points) == len(exact[0]) * len(exact[1])
    for coordinates, y in zip(exact, (first, second), strict=True):
        seen = numerical_critical_coordinates(g, z, sp.Rational(y.numerator, y.denominator))
        # near a multiple root rounding spreads what the search sees
        for s in seen:
            assert np.abs(coordinates - s).min() < 2e-3 * (1 + abs(s))
        for e in coordinates:
            assert np.abs(seen - e).min() < 2e-3 * (1 + abs(e))
    count = collections.Counter(p.nature for p in points)
    assert count["minimum"] >= 1  # R grows without bound in every direction
    if all(p.multiplicity == (1, 1) for p in points):
        assert count["minimum"] - count["saddle"] + count["maximum"] == 1
        for p in points:
            eigenvalues = np.linalg.eigvalsh(p.hessian)
            expected = {0: "minimum", 1: "saddle", 2: "maximum"}[int(np.sum(eigenvalues < 0))]
            assert p.nature == expected


@pytest.mark.parametrize("name", ALL)
def test_the_morse_relation(name):
    """Minima - saddles + maxima = 1 where R is proper, a degenerate extremum counting as one."""
    problem = getattr(benchmarks, name)()
    count = collections.Counter(p.nature for p in problem.critical_points)
    if name.startswith("poly") or name in ("exp2", "exp4"):
        assert count["minimum"] - count["saddle"] + count["maximum"] == 1
