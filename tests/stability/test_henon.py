"""Henon's map: the basin of its attractor, from published and exact values."""

import numpy as np
import published_systems as published

import flowopt as fo

A, B = 1.4, 0.3
# The fixed point on the boundary, and the eigenvalue and eigenvector that lead away from it.
X = (-(1 - B) - np.sqrt((1 - B) ** 2 + 4 * A)) / (2 * A)
GROWTH = -A * X + np.sqrt((A * X) ** 2 + B)
ALONG = np.array([GROWTH, B]) / np.hypot(GROWTH, B)


def test_the_published_trapping_region_is_of_the_basin():
    """Henon's quadrilateral is mapped into itself: no start in it escapes.   [Commun. Math. Phys. 50, 69]"""
    corners = np.array([(-1.33, 0.42), (1.32, 0.133), (1.245, -0.14), (-1.06, -0.5)])
    p, q = np.random.default_rng(0).uniform(size=(2, 2000, 1))
    a, b, c, d = corners
    starts = (1 - p) * ((1 - q) * a + q * b) + p * ((1 - q) * d + q * c)
    ends = fo.reach(published.henon(), None, (starts[:, 0], starts[:, 1]))
    assert int(ends["count"].sel(end=0)) == 2000
    # Beyond it on the left lies the other basin.
    far = fo.reach(published.henon(), None, (np.full(9, -3.0), np.linspace(-1, 1, 9)))
    assert np.all(far.label.values == -3)


def test_the_boundary_passes_through_the_saddle_and_is_left_at_its_eigenvalue():
    """It is the stable manifold of the fixed point: one side escapes, after n ~ ln(1/r)/ln(growth) steps."""
    r = np.logspace(-10, -3, 141)
    start = lambda side: (X + side * r * ALONG[0], B * X + side * r * ALONG[1])
    inner = fo.reach(published.henon(), None, start(1))
    outer = fo.reach(published.henon(), None, start(-1))
    assert np.all(inner.label.values == 0) and np.all(outer.label.values == -3)
    slope = np.polyfit(-np.log(r), outer.accepted.values, 1)[0]
    np.testing.assert_allclose(slope, 1 / np.log(GROWTH), rtol=0.01)
