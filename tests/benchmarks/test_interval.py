"""Intervals hold what they say: against ball arithmetic, at points and over boxes."""

import flint
import numpy as np
import pytest
import sympy as sp

from flowopt.benchmarks.derivatives import FUNCTIONS, Derivatives, _dispatch
from flowopt.benchmarks.eliminants import eliminants
from flowopt.benchmarks.interval import CDF_MARGIN, MARGIN, Intervals
from flowopt.benchmarks.stable import stable

DOMAINS = {
    "log": (1e-6, 50.0),
    "sqrt": (0.0, 50.0),
    "exp": (-700.0, 700.0),
    "sech_squared": (-300, 300),
}
UNARY = sorted(set(FUNCTIONS) - {"polynomial", "power"})


def exactly(name, value):
    with flint.ctx.workprec(200):
        return _dispatch(name)(flint.arb(float(value)))


@pytest.mark.parametrize("name", UNARY)
def test_the_platforms_functions_are_far_within_the_margin(name):
    """What `interval.py` takes for granted. 20,000 points, half of them near zero; measured: below 2^-50."""
    low, high = DOMAINS.get(name, (-40.0, 40.0))
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, 10_000)
    x = np.concatenate([x, x * 10.0 ** rng.uniform(-8, 0, 10_000)])
    approximate = _dispatch(name)(x)
    worst = 0.0
    for a, v in zip(approximate, x, strict=True):
        truth = exactly(name, v)
        error = abs(flint.arb(float(a)) - truth)
        # sums of order one inside (log_cosh, cos near its zeros) are right to an ulp of one, not of
        # themselves
        scale = abs(truth) + (1 if name in ("cos", "sin", "tan", "log_cosh") else 0)
        worst = max(worst, float((error / scale).upper()) if scale > 1e-290 else 0.0)
    assert worst < (CDF_MARGIN if name == "normal_cdf" else MARGIN) / 16


@pytest.mark.parametrize("name", UNARY)
def test_ranges_hold_the_values_inside(name):
    low, high = DOMAINS.get(name, (-20.0, 20.0))
    rng = np.random.default_rng(1)
    ends = np.sort(rng.uniform(low, high, (2, 400)), axis=0)
    ends[1, ::2] = ends[0, ::2] + (ends[1, ::2] - ends[0, ::2]) * 1e-3
    result = _dispatch(name)(Intervals(*ends))
    for t in (0.0, 0.2, 0.5, 0.9, 1.0):
        inside = ends[0] + t * (ends[1] - ends[0])
        for lane in range(0, 400, 4):
            truth = exactly(name, inside[lane])
            assert truth > float(result.lo[lane]) and truth < float(result.hi[lane])


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a * b,
        lambda a, b: a / b,
        lambda a, b: 3 - a * 2 + 1 / b,
        lambda a, b: a * a * a - b * b,
    ],
)
def test_arithmetic_holds_the_exact_values(f):
    rng = np.random.default_rng(2)
    a, b = (np.sort(rng.normal(size=(2, 300)), axis=0) for _ in range(2))
    with np.errstate(all="ignore"):
        result = f(Intervals(*a), Intervals(*b))
    for lane in range(300):
        for t, u in ((0.0, 1.0), (1.0, 0.0), (0.3, 0.6)):
            x = flint.arb(float(np.clip(a[0, lane] + t * (a[1] - a[0])[lane], *a[:, lane])))
            y = flint.arb(float(np.clip(b[0, lane] + u * (b[1] - b[0])[lane], *b[:, lane])))
            with flint.ctx.workprec(300):
                truth = f(x, y)
            assert truth > float(result.lo[lane]) and truth < float(result.hi[lane])


def test_powers_and_polynomials_are_tight_and_hold_the_exact_values():
    x = Intervals(np.array([-1.0, 2.0, -3.0]), np.array([2.0, 2.5, -2.0]))
    square, cube = x.power(2), x.power(3)
    np.testing.assert_allclose(square.lo, [0.0, 4.0, 4.0], atol=1e-12)
    np.testing.assert_allclose(square.hi, [4.0, 6.25, 9.0])
    np.testing.assert_allclose(cube.lo, [-1.0, 8.0, -27.0])
    inverse = x.power(-1)
    assert inverse.lo[0] == -np.inf and inverse.hi[0] == np.inf
    coefficients = (1.0, -2.0, 0.0, 1.0)
    wide = Intervals(np.array([0.9]), np.array([1.1])).polynomial(*coefficients)
    grid = np.linspace(0.9, 1.1, 101)
    values = np.polynomial.polynomial.polyval(grid, coefficients)
    assert wide.lo[0] <= values.min() and wide.hi[0] >= values.max()
    assert wide.hi[0] - wide.lo[0] < 1.2 * (values.max() - values.min())


def test_overflow_and_undefined_results_never_exclude_anything():
    with np.errstate(all="ignore"):
        big = Intervals(np.array([700.0]), np.array([800.0])).exp()
        assert np.isfinite(big.lo[0]) and big.hi[0] == np.inf
        product = Intervals(np.array([0.0]), np.array([1.0])) * big
        assert product.lo[0] <= 0 and product.hi[0] == np.inf
        undefined = Intervals(np.array([-2.0]), np.array([-1.0])).log()
    assert not (undefined.lo[0] > 0) and not (undefined.hi[0] < 0)


w, b = sp.symbols("w b", real=True)
LOSSES = [
    (sp.tanh(w + b) - 1) ** 2 + (sp.tanh(b) + sp.Rational(1, 3)) ** 2,
    (sp.log(1 + sp.exp(w + b)) - 1) ** 2 + (sp.log(1 + sp.exp(-b)) - 2) ** 2 / 3,
    (1 / (1 + sp.exp(-w)) - b) ** 2 + b**4,
    (b * (1 + sp.erf(b / sp.sqrt(2))) / 2 - w) ** 2 + sp.sin(w) ** 2,
    ((w + b) ** 5 - 4 * (w + b) ** 2 + 1) ** 2 + sp.exp(b**2 - b**3) + sp.sqrt(1 + w**2),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_compiled_derivatives_are_those_of_the_expression(loss):
    derivatives = Derivatives(loss, (w, b))
    slopes = [loss.diff(v) for v in (w, b)]
    curvatures = sp.hessian(loss, (w, b))
    for point in np.random.default_rng(3).normal(size=(5, 2)):
        at = {w: sp.Float(point[0], 30), b: sp.Float(point[1], 30)}
        lanes = [Intervals(np.array([v]), np.array([v])) for v in point]
        with flint.ctx.workprec(100):
            on_balls = derivatives.gradient([flint.arb(float(v)) for v in point])
        for i in range(2):
            truth = float(slopes[i].evalf(30, subs=at))
            scale = 1e-9 * (1 + abs(truth))
            interval = derivatives.gradient(lanes)[i]
            assert interval.lo[0] - 1e-14 <= truth <= interval.hi[0] + 1e-14
            assert interval.hi[0] - interval.lo[0] < scale
            assert abs(float(on_balls[i].mid()) - truth) < scale
            assert abs(float(derivatives.gradient(list(point))[i]) - truth) < scale
            for j in range(2):
                truth = float(curvatures[i, j].evalf(30, subs=at))
                entry = derivatives.hessian(lanes)[i][j]
                assert abs(entry.lo[0] - truth) + abs(entry.hi[0] - truth) < 1e-8 * (1 + abs(truth))


@pytest.mark.parametrize("loss", LOSSES)
def test_eliminants_are_combinations_of_the_gradient(loss):
    """Each must vanish where the gradient does: here it lies in the span of the slopes."""
    slopes = [stable(loss).diff(v) for v in (w, b)]
    points = np.random.default_rng(4).normal(size=(8, 2))
    plain = [sp.lambdify((w, b), loss.diff(v), modules=["scipy", "numpy"]) for v in (w, b)]
    matrix = np.array([[f(*p) for f in plain] for p in points])
    combined = Derivatives(loss, (w, b))
    for k in range(len(eliminants(slopes, (w, b)))):
        values = np.array([float(combined.tests(list(p))[k]) for p in points])
        left = np.linalg.lstsq(matrix, values)[0]
        np.testing.assert_allclose(matrix @ left, values, atol=1e-10 * (1 + np.abs(values).max()))
