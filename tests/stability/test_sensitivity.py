"""Sensitivity and expansion against a double well, whose basins of gradient descent are half planes."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import flowopt as fo

matplotlib.use("Agg")


def double_well(params, args=None):
    """R = (x^2 - 1)^2/4 + y^2/2: minima (-1, 0), (1, 0), a saddle at 0; the boundary is x = 0."""
    x, y = params
    return (x**2 - 1) ** 2 / 4 + y**2 / 2


WELL = fo.Problem(double_well, [(-1.0, 0.0), (0.0, 0.0), (1.0, 0.0)], name="well")
DISTANCES = (1e-8, 1e-2, 0.5, 0.99, 1.05, 1.2, 1.4)


def test_gd_leaves_where_the_circle_meets_the_other_basin():
    """A share arccos(1/r)/pi of the circle of radius r about a minimum lies beyond x = 0."""
    ds = fo.sensitivity(WELL, fo.gd(0.05), 400, distances=DISTANCES, key=1, confidence=0.999)
    np.testing.assert_array_equal(ds.minimum, [0, 1])
    r = ds.distance.values
    exact = np.where(r > 1, np.arccos(1 / np.maximum(r, 1)) / np.pi, 0)
    assert np.all((ds.lower <= exact) & (exact <= ds.upper))
    np.testing.assert_array_equal(ds.left[:, :4], 0)
    assert np.all(ds.left[:, 4:] > 0) and np.all(np.diff(ds.left[:, 4:]) > 0)
    np.testing.assert_allclose(ds.safe, 0.99)
    np.testing.assert_allclose(ds.safe_upper, 1 - 0.0005 ** (1 / 400), rtol=1e-9)
    assert not ds.hovering.any() and not ds.diverged.any()


def test_the_shortest_kick_is_that_to_the_boundary():
    """At distance 1, straight across; of 400 directions the best is within a degree or two."""
    ds = fo.sensitivity(WELL, fo.gd(0.05), 400, distances=DISTANCES)
    np.testing.assert_allclose(ds.kick, 1, atol=3e-4)
    assert np.all(ds.kick >= 1 - 1e-9)
    np.testing.assert_allclose(ds.kick_direction, [[1, 0], [-1, 0]], atol=0.05)
    # The displacement leaves, and one a little shorter does not.
    for i, scale in ((0, 1.001), (0, 0.999), (1, 1.001), (1, 0.999)):
        x = WELL.critical_points[int(ds.minimum[i])].params[0]
        start = (x, 0.0) + scale * ds.kick.values[i] * ds.kick_direction.values[i]
        end = fo.minimise(double_well, tuple(map(jnp.asarray, start)), fo.gd(0.05), tol=1e-6)
        assert (end.params[0] * x < 0) == (scale > 1)


def test_the_same_directions_for_every_method_and_seed_alone_decides():
    one, two = (
        fo.sensitivity(WELL, fo.gd(0.05), 50, k, distances=(1.2,)) for k in (3, jax.random.key(3))
    )
    np.testing.assert_array_equal(one.left, two.left)
    assert int(one.left.sum()) != int(
        fo.sensitivity(WELL, fo.gd(0.05), 50, 4, distances=(1.2,)).left.sum()
    )


def test_a_method_that_leaves_is_seen_only_if_it_must_go_on():
    """Adam without bias correction steps by lr times 3.2 however small the gradient: it leaves at any distance."""
    adam = fo.adam(0.5, eps=1e-12, bias_correction=False)
    kw = dict(distances=(1e-8, 1e-6), n=50)
    leaves = fo.sensitivity(WELL, adam, **kw)
    assert np.all(leaves.left > 5) and np.all(leaves.safe == 0) and np.all(leaves.kick == 1e-8)
    assert np.all(leaves.safe_upper == 1)
    stays = fo.sensitivity(WELL, adam, settle=0, **kw)
    assert not stays.left.any() and np.all(np.isinf(stays.kick)) and np.all(stays.safe == 1e-6)
    # Diverging is leaving; hovering is not.
    far = fo.sensitivity(WELL, fo.gd(3.0), distances=(0.5,), n=50)
    assert np.array_equal(far.left, far.diverged) or np.all(far.left >= far.diverged)
    assert far.diverged.sum() + far.left.sum() > 0
    hovers = fo.sensitivity(WELL, fo.sign_gd(0.01), distances=(0.1,), n=20, max_steps=300)
    assert not hovers.left.any() and np.all(hovers.hovering == 20)


def bowl(params, args=None):
    return 0.5 * (params[0] ** 2 + 9 * params[1] ** 2) + 2 * params[0] * params[1]


def test_expansion_of_linear_maps():
    """GD on a quadratic: D Phi = (I - h H)^N; and heavy ball, by finite differences of runs."""
    problem = fo.Problem(bowl, [(0.0, 0.0)])
    h = np.array([[1.0, 2.0], [2.0, 9.0]])
    for lr in (0.05, 0.3):
        ds = fo.expansion(problem, fo.gd(lr), resolution=3, steps=40)
        power = np.linalg.matrix_power(np.eye(2) - lr * h, 40)
        np.testing.assert_allclose(ds.exponent, np.log(np.linalg.norm(power, 2)) / 40, rtol=1e-10)
    method = fo.momentum(0.02, 0.8)
    ds = fo.expansion(WELL, method, ((0.2, 0.6), (-0.5, 0.3)), resolution=1, steps=25)

    def end(*start):
        start = tuple(map(jnp.array, start))
        never = lambda run: False
        return np.array(fo.minimise(double_well, start, method, max_steps=25, stop=never).params)

    w, b, e = float(ds.w[0]), float(ds.b[0]), 1e-5
    jacobian = np.stack([end(w + e, b) - end(w - e, b), end(w, b + e) - end(w, b - e)], 1) / (2 * e)
    np.testing.assert_allclose(ds.exponent, np.log(np.linalg.norm(jacobian, 2)) / 25, rtol=1e-6)


def test_expansion_in_a_plane_of_any_params():
    """Of a pytree of three params: all displacements, or those within the plane, through GD's (I - h H)^N."""
    h = np.array([[1.0, 2.0, 0.0], [2.0, 9.0, 1.0], [0.0, 1.0, 20.0]])
    at = lambda *x: {"a": jnp.array(x[:2]), "b": jnp.array(x[2])}

    def loss(p, args=None):
        x = jnp.append(p["a"], p["b"])
        return 0.5 * x @ jnp.asarray(h) @ x

    problem = fo.Problem(loss, [at(0.0, 0.0, 0.0), at(0.0, 0.0, 5.0)])
    plane = fo.plane([at(0.0, 0.0, 0.0), at(1.0, 0.0, 1.0), at(0.0, 1.0, 0.0)])
    power = np.linalg.matrix_power(np.eye(3) - 0.08 * h, 30)
    for within, J in ((False, power), (True, power @ plane.axes.T)):
        ds = fo.expansion(
            problem, fo.gd(0.08), ((-1, 1), (-1, 2)), (3, 2), 30, plane=plane, within=within
        )
        assert ds.exponent.dims == ("u", "v") and ds.exponent.shape == (3, 2)
        np.testing.assert_allclose(ds.exponent, np.log(np.linalg.norm(J, 2)) / 30, rtol=1e-10)
    assert np.linalg.norm(power @ plane.axes.T, 2) < 0.9 * np.linalg.norm(power, 2)
    np.testing.assert_allclose(ds.point_place[0], 0, atol=1e-12)
    ax = fo.plot_expansion(ds)
    assert ax.get_ylabel() == "v [params]" and len(ax.lines) == 1
    matplotlib.pyplot.close(ax.figure)
    with pytest.raises(ValueError, match="`plane` is needed where params are 3 numbers"):
        fo.expansion(problem, fo.gd(0.08))


def test_expansion_is_largest_on_the_boundary_and_nan_where_it_overflows():
    ds = fo.expansion(WELL, fo.lyapunov(), ((-1.5, 1.5), (-1, 0.8)), resolution=9, steps=10)
    np.testing.assert_array_equal(ds.w[np.argmax(ds.exponent.values, axis=0)], 0)
    assert ds.exponent.sel(w=0).min() > 0 and ds.exponent.dims == ("w", "b")
    far = fo.expansion(WELL, fo.gd(10.0), ((-9, 9), (-1, 1)), resolution=4, steps=60)
    assert np.isnan(far.exponent).any()


def test_figures():
    ds = fo.sensitivity(WELL, fo.gd(0.05), 40, distances=DISTANCES)
    ax = fo.plot_sensitivity(ds)
    assert ax.get_xscale() == "log" and "[params]" in ax.get_xlabel()
    assert ax.get_legend().get_texts()[0].get_text().startswith("minimum (-1, 0)")
    matplotlib.pyplot.close(ax.figure)
    ax = fo.plot_expansion(fo.expansion(WELL, fo.gd(0.05), resolution=8, steps=5))
    assert ax.get_xlabel() == "w [params]" and len(ax.images) == 1
    matplotlib.pyplot.close(ax.figure)
    for plot in (fo.plot_sensitivity, fo.plot_expansion):
        with pytest.raises(ValueError, match="`ds`"):
            plot(ds.drop_vars(["probability"]))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fo.sensitivity(WELL, fo.gd(0.1), 0), ValueError, "`n`"),
        (lambda: fo.sensitivity(WELL, fo.gd(0.1), 2.5), TypeError, "`n`"),
        (lambda: fo.sensitivity(WELL, fo.gd(0.1), distances=(1, 0.5)), ValueError, "`distances`"),
        (lambda: fo.sensitivity(WELL, fo.gd(0.1), distances=(0.0, 1)), ValueError, "`distances`"),
        (lambda: fo.sensitivity(WELL, fo.gd(0.1), distances=()), ValueError, "`distances`"),
        (lambda: fo.sensitivity(WELL, fo.gd(0.1), confidence=0), ValueError, "`confidence`"),
        (lambda: fo.sensitivity(WELL, fo.gd(0.1), settle=-1), ValueError, "`settle`"),
        (lambda: fo.sensitivity(WELL, fo.gd(0.1), key="x"), TypeError, "`key`"),
        (lambda: fo.sensitivity(fo.Problem(double_well), fo.gd(0.1)), ValueError, "`problem`"),
        (lambda: fo.sensitivity(double_well, fo.gd(0.1)), TypeError, "`problem`"),
        (lambda: fo.expansion(WELL, fo.gd(0.1), steps=0), ValueError, "`steps`"),
        (lambda: fo.expansion(WELL, fo.gd(0.1), resolution=0), ValueError, "`resolution`"),
        (lambda: fo.expansion(WELL, fo.gd(0.1), ((0, 1),)), ValueError, "`region`"),
        (lambda: fo.expansion(WELL, fo.gd(0.1), plane=3), TypeError, "`plane`"),
        (lambda: fo.expansion(WELL, fo.gd(0.1), resolution=2.5), TypeError, "`resolution`"),
        (lambda: fo.expansion(WELL, "gd"), TypeError, "`method`"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
