"""Reach probabilities against published shares, basins against single runs, and figures."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import scipy.stats

import flowopt as fo
from flowopt.plotting import point_colours
from studies.reach import MINIMA, PUBLISHED, methods, share_at

matplotlib.use("Agg")
POLY2 = fo.benchmarks.poly2()
REGION = ((-3.0, 3.0), (-3.0, 3.0))


@pytest.mark.parametrize(("network", "name"), PUBLISHED)
def test_published_shares_are_met(network, name):
    """Within 0.015 each; 40,000 starts, so that our own noise is half of theirs."""
    problem = getattr(fo.benchmarks, network)()
    method, settings = methods(problem)[name]
    ds = fo.reach(problem, method, fo.uniform(*REGION), 40_000, key=1, **settings)
    measured = [share_at(ds, point) for point in MINIMA] + [float(ds.probability.sel(end=-3))]
    np.testing.assert_allclose(measured, PUBLISHED[network, name], atol=0.015)
    assert int(ds["count"].sum()) == 40_000


def test_an_unguarded_pair_hovers_and_the_guard_cures_it():
    runs = {
        name: methods(POLY2)[name]
        for name in methods(POLY2)
        if "radient" in name or "Richardson" in name
    }
    converged = {}
    for name, (method, settings) in runs.items():
        ds = fo.reach(POLY2, method, fo.uniform(*REGION), 300, key=0, **settings)
        converged[name] = int(ds["count"].sel(end=[0, 1, 2, 3]).sum())
        # Hovering is not diverging.
        assert int(ds["count"].sel(end=-3)) == 0
    assert converged["Extragradient, stopped at its own gradient"] == 0
    assert converged["Euler-Richardson, stopped at its own gradient"] < 30
    assert converged["Extragradient, stopped at the trial point"] == 300
    assert converged["energy-guarded Extragradient"] == 300
    assert converged["energy-guarded Euler-Richardson"] == 300


def test_intervals_are_those_of_clopper_and_pearson():
    ds = fo.reach(POLY2, fo.gd(0.1), fo.uniform(*REGION), 200, key=3, confidence=0.9)
    for end in ds.end.values:
        k = int(ds["count"].sel(end=end))
        lower = scipy.stats.beta.ppf(0.05, k, 201 - k) if k else 0.0
        upper = scipy.stats.beta.ppf(0.95, k + 1, 200 - k) if k < 200 else 1.0
        np.testing.assert_allclose(
            [ds.lower.sel(end=end), ds.upper.sel(end=end)], [lower, upper], atol=1e-9
        )
        assert lower <= float(ds.probability.sel(end=end)) <= upper


def test_reach_can_be_run_again():
    """From given starts, from the starts of the data set, and from the key: the same labels."""
    one = fo.reach(POLY2, fo.gd(0.1), fo.uniform(*REGION), 100, key=5)
    again = fo.reach(POLY2, fo.gd(0.1), fo.uniform(*REGION), 100, key=jax.random.key(5))
    given = fo.reach(POLY2, fo.gd(0.1), tuple(one.start.values.T))
    np.testing.assert_array_equal(one.label, again.label)
    np.testing.assert_array_equal(one.label, given.label)
    for name in (
        "problem",
        "method",
        "tol",
        "max_steps",
        "radius",
        "starts",
        "jax version",
        "flowopt version",
    ):
        assert name in one.attrs
    assert "step=0.1" in one.attrs["method"] and "key [0, 5]" in one.attrs["starts"]


def test_labels_say_why_a_run_reached_no_point():
    far = (np.array([0.0, 0.01, 50.0]), np.array([1.0, 1.001, 50.0]))
    label = lambda method, **kw: fo.reach(POLY2, method, far, **kw).label.values.tolist()
    at = POLY2.classify((0.0, 1.0)).item()
    assert label(fo.gd(0.1)) == [at, at, -3]
    assert label(fo.gd(1e-12), max_steps=5) == [at, -2, -2]
    assert label(fo.gd(1e-30)) == [at, -4, -4]
    nowhere = fo.Problem(POLY2.loss, [(2.0, -1.0)])
    assert fo.reach(nowhere, fo.gd(0.1), far).label.values.tolist() == [-1, -1, -3]


def test_basins_are_single_runs_on_a_grid():
    ds = fo.basins(POLY2, fo.gd(0.1), ((-3, 3), (-2, 2)), (6, 4))
    assert ds.label.dims == ("w", "b") and ds.label.shape == (6, 4)
    np.testing.assert_allclose(ds.w, [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    np.testing.assert_allclose(ds.b, [-1.5, -0.5, 0.5, 1.5])
    for w in ds.w.values:
        for b in ds.b.values:
            end = fo.minimise(POLY2.loss, (jnp.array(w), jnp.array(b)), fo.gd(0.1), tol=1e-4)
            cell = ds.sel(w=w, b=b)
            expected = -3 if end.outcome == "diverged" else POLY2.classify(end.params).item()
            assert int(cell.label) == expected and int(cell.accepted) == end.stats["accepted"]
    np.testing.assert_allclose(ds.share, [(ds.label == i).mean() for i in range(9)])


def test_basins_survive_zarr(tmp_path):
    import xarray as xr

    ds = fo.basins(POLY2, fo.gd(0.1), REGION, 8)
    ds.to_zarr(tmp_path / "basins.zarr", consolidated=False)
    read = xr.open_zarr(tmp_path / "basins.zarr", consolidated=False).load()
    xr.testing.assert_identical(read, ds)


def test_plot_basins_names_value_and_share():
    ds = fo.basins(POLY2, fo.gd(0.1), ((-5, 5), (-5, 5)), 24)
    ax = fo.plot_basins(ds)
    legend = ax.get_legend()
    assert legend is not None
    texts = [t.get_text() for t in legend.get_texts()]
    assert any(t.startswith("diverged: ") for t in texts)
    assert any("minimum (-2, 1), R = 0: " in t for t in texts)
    assert ax.get_xlabel() == "w [params]"
    # The map's colours: brown where it diverged, and that of the point elsewhere.
    image = ax.images[0].get_array()
    colours = point_colours(ds.attrs["natures"])
    for i in range(24):
        label = int(ds.label[i, 3])
        expected = matplotlib.colors.to_rgb("#5C3317") if label == -3 else colours[label]
        np.testing.assert_allclose(image[3, i], expected)
    matplotlib.pyplot.close(ax.figure)
    with pytest.raises(ValueError, match="`ds`"):
        fo.plot_basins(ds.drop_vars("label"))


def test_colours_are_distinct_and_fixed_by_the_point():
    for make in (fo.benchmarks.poly2, fo.benchmarks.poly5):
        colours = point_colours([p.nature for p in make().critical_points])
        assert len(set(map(tuple, colours))) == len(colours)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fo.basins(POLY2, fo.gd(0.1), ((3, -3), (-3, 3))), ValueError, "`region`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), ((0, 0), (-3, 3))), ValueError, "`region`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), ((0, float("inf")), (-3, 3))), ValueError, "`region`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), (-3, 3)), TypeError, "`region`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), REGION[:1]), ValueError, "`region`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), REGION, 0), ValueError, "`resolution`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), REGION, 2.5), TypeError, "`resolution`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), REGION, 8, tol=0.0), ValueError, "`tol`"),
        (lambda: fo.basins(POLY2, fo.gd(0.1), REGION, 8, radius=0.0), ValueError, "radius"),
        (lambda: fo.basins(POLY2.loss, fo.gd(0.1)), TypeError, "`problem`"),
        (lambda: fo.basins(POLY2, "gd", REGION, 8), TypeError, "`method`"),
        (lambda: fo.reach(POLY2, fo.gd(0.1), fo.uniform(*REGION), 0, key=0), ValueError, "`n`"),
        (lambda: fo.reach(POLY2, fo.gd(0.1), fo.uniform(*REGION), key=0), TypeError, "`n`"),
        (lambda: fo.reach(POLY2, fo.gd(0.1), fo.uniform(*REGION), 10), TypeError, "`key`"),
        (lambda: fo.reach(POLY2, fo.gd(0.1), (np.ones(3), np.ones(3)), 3), TypeError, "`n` and `key`"),
        (lambda: fo.reach(POLY2, fo.gd(0.1), (np.ones(0), np.ones(0))), ValueError, "`starts`"),
        (lambda: fo.reach(POLY2, fo.gd(0.1), fo.uniform(*REGION), 9, 0, confidence=1.0), ValueError, "`confidence`"),
        (lambda: fo.uniform((1, 0)), ValueError, "`region`"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
