"""Basins in a plane of any parameter space, and refined grids against full ones."""

import jax
import jax.numpy as jnp
import numpy as np
import published_systems as published
import pytest
import scipy.ndimage

import flowopt as fo
from flowopt.stability.refine import refined
from flowopt.stability.systems import Ends

POLY2 = fo.benchmarks.poly2()


def params(*x):
    return {"a": jnp.array(x[:2]), "b": jnp.array(x[2])}


def test_three_points_lie_where_they_should():
    three = [params(1.0, 2.0, 3.0), params(1.0, 2.0, 5.0), params(4.0, 2.0, 4.0)]
    plane = fo.plane(three)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-15)
    at = plane.starts(np.array([0.0, 2.0, 1.0]), np.array([0.0, 0.0, 3.0]))
    np.testing.assert_allclose(at["a"], [p["a"] for p in three], atol=1e-14)
    np.testing.assert_allclose(at["b"], [p["b"] for p in three], atol=1e-14)
    place = plane.place(np.array([[4.0, 7.0, 4.0]]))
    np.testing.assert_allclose(place, [[1.0, 3.0, 5.0]], atol=1e-14)


def test_random_directions_are_orthonormal_and_depend_on_the_key_alone():
    points = [params(1.0, 2.0, 3.0), params(0.0, 2.0, 3.0)]
    through_two = fo.plane(points, key=3)
    np.testing.assert_allclose(through_two.axes[0], [-1, 0, 0], atol=1e-15)
    for some in (points, points[:1]):
        one, again = fo.plane(some, key=3), fo.plane(some, key=jax.random.key(3))
        np.testing.assert_array_equal(one.axes, again.axes)
        np.testing.assert_allclose(one.axes @ one.axes.T, np.eye(2), atol=1e-15)
        assert not np.allclose(one.axes, fo.plane(some, key=4).axes)


def test_a_plane_keeps_the_dtype():
    at = fo.plane([(jnp.zeros(3, jnp.float32),)], key=0).starts(np.zeros(4), np.ones(4))
    assert at[0].dtype == jnp.float32 and at[0].shape == (4, 3)


def test_the_plane_of_the_coordinates_is_the_map_without_one():
    zero, w, b = (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)
    plain = fo.basins(POLY2, fo.gd(0.1), resolution=12)
    in_plane = fo.basins(POLY2, fo.gd(0.1), resolution=12, plane=fo.plane([zero, w, b]))
    assert in_plane.label.dims == ("u", "v") and "plane(origin" in in_plane.attrs["starts"]
    np.testing.assert_array_equal(plain.label.values, in_plane.label.values)
    np.testing.assert_allclose(in_plane.point_place, in_plane.point_params)
    turned = fo.basins(POLY2, fo.gd(0.1), resolution=12, plane=fo.plane([zero, b, w]))
    np.testing.assert_array_equal(plain.label.values, turned.label.values.T)


def test_a_plane_of_many_params():
    """Of the eight minima of sum (x_i^2 - 1)^2, i = 1, 2, 3, four lie in the plane x_3 = 1."""
    loss = lambda p, args: jnp.sum((p["x"] ** 2 - 1) ** 2)
    at = lambda *x: {"x": jnp.array(x)}
    problem = fo.Problem(loss, [at(s, t, 1.0) for s in (-1.0, 1.0) for t in (-1.0, 1.0)])
    plane = fo.plane([at(0.0, 0.0, 1.0), at(1.0, 0.0, 1.0), at(0.0, 1.0, 1.0)])
    ds = fo.basins(problem, fo.gd(0.05), ((-1.5, 1.5), (-1.5, 1.5)), 10, plane=plane)
    expected = 2 * (ds.u.values > 0)[:, None] + (ds.v.values > 0)[None, :]
    np.testing.assert_array_equal(ds.label, expected)
    np.testing.assert_allclose(ds.point_place, ds.point_params.values[:, :2])
    off = fo.plane([at(0.0, 0.0, 0.5), at(1.0, 0.0, 0.5), at(0.0, 1.0, 0.5)])
    assert fo.basins(problem, fo.gd(0.05), resolution=16, plane=off).point_place.isnull().all()


def test_refinement_runs_less_and_finds_the_same():
    full = fo.basins(POLY2, fo.gd(0.1), ((-5, 5), (-5, 5)), 128)
    assert full.evaluated.all()
    quick = fo.basins(POLY2, fo.gd(0.1), ((-5, 5), (-5, 5)), 128, refine=3)
    assert float(quick.evaluated.mean()) < 0.5
    differ = (quick.label != full.label).values
    assert differ.mean() < 0.001
    # Where it was run it is the same, and all that lies next to another label was run.
    assert not differ[quick.evaluated.values].any()
    np.testing.assert_array_equal(
        quick.accepted.values[quick.evaluated], full.accepted.values[quick.evaluated]
    )
    labels = quick.label.values
    low, high = (
        f(labels, size=3, mode="nearest")
        for f in (scipy.ndimage.minimum_filter, scipy.ndimage.maximum_filter)
    )
    assert quick.evaluated.values[low != high].all()


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_refinement_misses_islands_only(levels):
    """Of a disc, a thin ring around it and a speck, the disc is exact; what is missed never touches what was run."""
    i, j = np.mgrid[:61, :53]
    r = np.hypot(i - 30.2, j - 25.7)
    truth = np.where(r < 18, 1, 0) + np.where((r > 19) & (r < 20), 2, 0)
    truth[3, 5] = 7
    run = lambda rows, columns: Ends(*(truth[rows, columns],) * 3)
    ends, done = refined(run, truth.shape, levels)
    wrong = ends.label != truth
    assert not wrong[done].any() and not wrong[r < 22].any()
    assert wrong.sum() <= 1 and (truth[wrong] == 7).all()
    everything, all_done = refined(run, truth.shape, 0)
    np.testing.assert_array_equal(everything.label, truth)
    assert all_done.all()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fo.plane([(0.0, 0.0), (1.0, 2.0), (2.0, 4.0)]), ValueError, "`through`.*one line"),
        (lambda: fo.plane([(1e8, 0.1), (1e8 + 1, 0.3), (1e8 + 2, 0.5)]), ValueError, "one line"),
        (lambda: fo.plane([(1.0, 1.0), (1.0, 1.0), (2.0, 4.0)]), ValueError, "the same"),
        (lambda: fo.plane([(1.0, 1.0), (2.0, 1.0), (1.0, 1.0)]), ValueError, "one line"),
        (lambda: fo.plane([(1.0, 1.0), (1.0, 1.0)], key=0), ValueError, "the same"),
        (lambda: fo.plane([(1.0, 1.0), (1.0, 2.0)]), TypeError, "`key`"),
        (lambda: fo.plane([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)], key=0), TypeError, "`key`"),
        (lambda: fo.plane([(0.0, 0.0), (1.0, 0.0), jnp.ones(2)]), ValueError, "`through`"),
        (lambda: fo.plane([(0.0, float("nan"))], key=0), ValueError, "finite"),
        (lambda: fo.plane([(0.0,)], key=0), ValueError, "two numbers"),
        (lambda: fo.plane([(0, 0)], key=0), TypeError, "`through`"),
        (lambda: fo.plane([]), TypeError, "`through`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), plane=3), TypeError, "`plane`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), refine=-1), ValueError, "`refine`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), refine=1.0), TypeError, "`refine`"),
        (lambda: fo.basins(published.newton(), resolution=8, refine=3), ValueError, "`refine`"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
