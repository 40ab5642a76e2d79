"""Distributions of starts against their formulas, McNemar's test, and what the intervals cover."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import flowopt as fo
from flowopt.stability.intervals import clopper_pearson
from flowopt.stability.starts import INITIALISERS

POLY2 = fo.benchmarks.poly2()
LAYER = {"w": jnp.zeros((30, 20), jnp.float32), "b": jnp.zeros(20), "scale": jnp.zeros(())}
FANS = {"glorot": (30 + 20) / 2, "he": 30 / 2, "lecun": 30}


@pytest.mark.parametrize("name", INITIALISERS)
def test_initialisers_have_their_moments_and_dtypes(name):
    starts = fo.initialised(LAYER, name)(jax.random.key(0), 50)
    assert starts["w"].shape == (50, 30, 20) and starts["w"].dtype == jnp.float32
    assert starts["b"].shape == (50, 20) and starts["b"].dtype == jnp.float64
    assert not np.any(starts["b"]) and not np.any(starts["scale"])
    w = np.asarray(starts["w"], np.float64)
    family = name.partition("_")[0]
    if family in FANS:
        assert abs(w.mean()) < 0.005
        np.testing.assert_allclose(w.var() * FANS[family], 1, rtol=0.02)
        assert scipy.stats.kurtosis(w.ravel()) < (-1.1 if name.endswith("uniform") else 0.1)
    elif name == "orthogonal":
        np.testing.assert_allclose(
            np.swapaxes(w, 1, 2) @ w, np.broadcast_to(np.eye(20), (50, 20, 20)), atol=1e-5
        )
    else:
        assert np.all(w == (name == "ones"))


def test_a_neuron_is_a_one_by_one_layer():
    distribution = fo.initialised((0.0, 0.0), ("glorot_uniform", "zeros"))
    ds = fo.reach(POLY2, fo.gd(0.1), distribution, 400, key=0)
    w, b = ds.start.values.T
    assert np.all(b == 0) and np.max(np.abs(w)) < np.sqrt(3) and np.max(np.abs(w)) > 1.7
    assert "glorot_uniform" in ds.attrs["starts"]


def test_normal_starts():
    w, b = fo.normal((1.0, 2.0), (-1.0, 0.5))(jax.random.key(1), 20_000)
    assert scipy.stats.kstest(np.asarray(w), scipy.stats.norm(1, 2).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(np.asarray(b), scipy.stats.norm(-1, 0.5).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(w, b)[0, 1]) < 0.03


def test_mcnemar_counts_the_discordant_pairs():
    region = fo.uniform((-3, 3), (-3, 3))
    gd, adam = (fo.reach(POLY2, m, region, 400, key=0) for m in (fo.gd(0.1), fo.adam(0.1)))
    test = fo.mcnemar(gd, adam)
    for end in test.end.values:
        a, b = gd.label.values == end, adam.label.values == end
        row = test.sel(end=end)
        assert [int(row[k]) for k in ("both", "only_one", "only_other", "neither")] == [
            np.sum(a & b), np.sum(a & ~b), np.sum(~a & b), np.sum(~a & ~b)
        ]  # fmt: skip
        k, m = int(row.only_one), int(row.only_other)
        tail = scipy.stats.binom.cdf(min(k, m), k + m, 0.5)
        np.testing.assert_allclose(row.p_value, min(1, 2 * tail))
        np.testing.assert_allclose(row.difference, a.mean() - b.mean())
    tested = (test.only_one + test.only_other).values > 0
    p, adjusted = test.p_value.values[tested], test.p_holm.values[tested]
    np.testing.assert_allclose(adjusted.min(), min(1, p.min() * tested.sum()))
    assert np.all(adjusted >= p) and np.all(test.p_holm.values[~tested] == 1)
    # GD diverges where Adam does not: the test sees it; and finds nothing between a method and itself.
    assert float(test.p_holm.sel(end=-3)) < 1e-6 and float(test.difference.sel(end=-3)) > 0
    assert np.all(fo.mcnemar(gd, gd).p_value == 1)


def test_mcnemar_keeps_its_level():
    """Under the hypothesis it rejects at 5% no more often than that."""
    rng = np.random.default_rng(0)
    from flowopt.stability.paired import _two_sided

    only_one = rng.binomial(60, 0.5, 4000)
    rejected = np.mean([_two_sided(int(k), 60 - int(k)) < 0.05 for k in only_one])
    assert 0.01 < rejected <= 0.05


@pytest.mark.parametrize("n", [1, 10, 200])
@pytest.mark.parametrize("p", [0.0, 0.003, 0.2048, 0.5, 0.97, 1.0])
def test_clopper_pearson_intervals_cover(n, p):
    """In simulation, 95% or more; and by the exact sum over all counts, which has no error of its own."""
    low, high = clopper_pearson(np.arange(n + 1), n, 0.95)
    covers = (low <= p) & (p <= high)
    draws = np.random.default_rng(7).binomial(n, p, 20_000)
    exact = np.sum(scipy.stats.binom.pmf(np.arange(n + 1), n, p)[covers])
    assert exact >= 0.95 - 1e-12
    # Three standard deviations of the simulation, where the exact coverage is just 95%.
    assert covers[draws].mean() >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 20_000)
    if n == 200 and 0.1 < p < 0.9:
        assert exact < 0.98  # nor are they needlessly wide


_GD = fo.reach(POLY2, fo.gd(0.1), (np.array([0.1, 0.2]), np.array([0.9, 0.8])))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fo.initialised(LAYER, "xavier"), ValueError, "`weights` must be among glorot_uniform"),
        (lambda: fo.initialised(LAYER, biases="he"), ValueError, "`biases` must be among"),
        (lambda: fo.initialised(LAYER, biases="he_normal"), ValueError, "`biases`"),
        (lambda: fo.initialised(LAYER, ("zeros",)), ValueError, "`weights`"),
        (lambda: fo.initialised({"w": jnp.zeros((2, 2), int)}), TypeError, "`params`"),
        (lambda: fo.normal((0, -1)), ValueError, "`moments`"),
        (lambda: fo.normal(0, 1), TypeError, "`moments`"),
        (lambda: fo.reach(POLY2, fo.gd(0.1), fo.normal((0, 1), (0, 1)), 0, 0), ValueError, "`n`"),
        (lambda: fo.mcnemar(_GD, _GD.isel(run=[1, 0])), ValueError, "`other`"),
        (lambda: fo.mcnemar(_GD, _GD.isel(end=slice(1, None))), ValueError, "`other`"),
        (lambda: fo.mcnemar("gd", _GD), TypeError, "`one`"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
