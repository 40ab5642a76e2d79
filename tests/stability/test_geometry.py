"""Measures of the geometry of basins: against published and exact values, and on maps made by hand."""

import diffrax
import jax.numpy as jnp
import numpy as np
import published_systems as published
import pytest

import flowopt as fo
from flowopt.stability.geometry import (
    basin_entropy,
    geometry,
    mean_solidity,
    parts,
    solidity,
    wada,
)
from flowopt.stability.scaling import boundary_dimension, uncertainty_exponent

I, J = np.mgrid[:200, :240]
DISC = np.hypot(I - 90.3, J - 100.8) < 70
SECTORS = (np.arctan2(I - 99.3, J - 120.6) // (2 * np.pi / 3)).astype(int)


@pytest.fixture(scope="module")
def newton():
    return fo.basins(published.newton(), region=((-1, 1), (-1, 1)), resolution=512)


def test_newton_has_the_published_dimension_and_is_wada(newton):
    """d = 1.42 [Epureanu and Greenside 1998, SIAM Review 40, 102], hence alpha = 0.58; S_bb > log 2 [Daza 2016]."""
    g = geometry(newton)
    assert abs(float(g.boundary_dimension) - 1.42) < 0.03
    assert abs(float(g.uncertainty_exponent) - 0.58) < 3 * float(g.uncertainty_exponent_error)
    assert float(g.boundary_basin_entropy) > np.log(2)
    assert float(g.wada) > 0.95
    # The map z -> conj(z) swaps the last two basins.
    np.testing.assert_allclose(g.share[1], g.share[2], atol=1e-4)
    np.testing.assert_allclose(g["share"].sum(), 1)


def test_the_theta_map_has_the_published_exponent():
    """alpha = 0.2 [Grebogi, McDonald, Ott and Yorke 1983]; S_b in 0.40-0.42, S_bb in 0.60-0.61 on this
    grid with boxes of 6 cells
    [the tests of Attractors.jl]."""
    step = 2 * np.pi / 299, 1 / 299  # cell centres from 0 to 2 pi and -0.5 to 0.5
    region = ((-step[0] / 2, 2 * np.pi + step[0] / 2), (-0.5 - step[1] / 2, 0.5 + step[1] / 2))
    ds = fo.basins(published.theta_map(), region=region, resolution=300)
    s_b, s_bb = basin_entropy(ds.label.values, 6)
    assert 0.40 <= s_b <= 0.42 and 0.60 <= s_bb <= 0.61
    fine = fo.basins(published.theta_map(), region=((0, 2 * np.pi), (-0.5, 0.5)), resolution=1024)
    alpha = uncertainty_exponent(fine.label.values)
    assert abs(alpha.value - 0.2) < 3 * alpha.error < 0.02
    # d = 2 - alpha
    assert abs(boundary_dimension(fine.label.values).value - 1.8) < 0.02
    np.testing.assert_allclose(fine.share, 0.5, atol=0.005)


def test_cantors_set_has_its_dimension():
    """A boundary that is Cantor's set x a line has d = 1 + log 2/log 3, alpha = 1 - log 2/log 3: exactly."""
    labels = fo.reach(
        published.cantor_map(),
        None,
        (np.arange(3**7) / 3**7 + 0.5 / 3**7, np.zeros(3**7), np.zeros(3**7)),
    ).label.values
    stripes = np.tile(labels[:, None], (1, len(labels)))
    exact = np.log(2) / np.log(3)
    alpha, d = uncertainty_exponent(stripes), boundary_dimension(stripes)
    assert abs(alpha.value - (1 - exact)) < 3 * alpha.error < 0.1
    assert abs(d.value - (1 + exact)) < 3 * d.error < 0.15


def test_smooth_boundaries_have_exponent_and_dimension_one():
    i, j = np.mgrid[:600, :800]
    for labels in (np.hypot(i - 290.3, j - 400.8) < 250, i > 0.7 * j + 13):
        alpha, d = uncertainty_exponent(labels), boundary_dimension(labels)
        assert abs(alpha.value - 1) < 0.04 and abs(d.value - 1) < 0.06
        assert basin_entropy(labels)[1] < np.log(2)
    for none in (np.zeros((300, 300), int), DISC[:20, :20]):
        assert np.isnan(uncertainty_exponent(none).value) and np.isnan(
            boundary_dimension(none).value
        )


def test_entropy_by_hand():
    """Two boxes of one label and two of two, halves and one in four."""
    labels = np.array([[1, 1, 1, 1], [1, 1, 2, 2], [3, 3, 1, 1], [3, 3, 1, 4]])
    halves, quarter = np.log(2), -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert basin_entropy(labels, 2) == pytest.approx(
        ((halves + quarter) / 4, (halves + quarter) / 2)
    )
    assert basin_entropy(np.zeros((8, 8), int), 4) == (0.0, 0.0)
    # Labels by chance: each box has the entropy of its shares; of many cells, log 3.
    chance = np.random.default_rng(0).integers(0, 3, (300, 300))
    assert basin_entropy(chance, 50)[0] == pytest.approx(np.log(3), abs=1e-3)
    # Straight boundaries in all directions, by chance: from 40,000 lines across a box.
    big = np.hypot(*(np.mgrid[:1500, :1500] - 750.2)) < 700
    assert basin_entropy(big.astype(int))[1] == pytest.approx(0.483, abs=0.01)


def test_solidity_of_known_shapes():
    square = np.zeros((40, 50), bool)
    square[5:15, 20:40] = True
    ell = square.copy()
    ell[15:25, 20:30] = True
    assert solidity(square) == solidity(DISC) == solidity(I > 0.7 * J + 13) == 1.0
    # An L of three 10 x 10 squares: the hull adds the lattice points of a triangle.
    hull = ell.copy()
    for k in range(10):
        hull[15 + k, 30 : 30 + 9 - k] = True
    assert solidity(ell) == ell.sum() / hull.sum()
    two = square.copy()
    two[30:40, :20] = True
    assert solidity(two) < 0.7 and mean_solidity(two) == 1.0 and parts(two) == 2
    ring = DISC & (np.hypot(I - 90.3, J - 100.8) > 35)
    assert solidity(ring) == pytest.approx(0.75, abs=0.01)
    line = np.zeros((9, 9), bool)
    line[[0, 2, 8], [0, 2, 8]] = True
    assert solidity(line) == 3 / 9 and mean_solidity(line) == 1.0
    dot = np.zeros((3, 3), bool)
    assert np.isnan(solidity(dot)) and np.isnan(mean_solidity(dot))
    dot[1, 1] = True
    assert solidity(dot) == 1.0


def test_parts():
    corner = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
    assert parts(corner) == 3 and parts(corner, least=2) == 2 and parts(~corner) == 1


def test_three_sectors_are_not_wada():
    """They all meet at one point only; stripes one cell wide are Wada at radius 2."""
    assert wada(SECTORS) < 0.05
    assert wada((I // 2) % 3, radius=4) == 1.0
    with pytest.raises(ValueError, match="three basins"):
        wada(DISC)


def test_the_forced_pendulum_is_wada():
    """theta'' + 0.2 theta' + sin(theta) = 1.66 cos t, three basins   [Kennedy and Yorke 1991; Daza 2015]"""

    def feature(ts, ys):
        turns = (ys[0][-1] - ys[0][0]) / (8 * np.pi)
        return 1 + jnp.round(turns).astype(jnp.int32)

    system = fo.ODE(
        published.field(lambda t, x, v: (v, -0.2 * v - jnp.sin(x) + 1.66 * jnp.cos(t))),
        t1=80 * np.pi,
        feature=feature,
        names=("turns back", "swings", "turns forward"),
        ts=np.array([72, 80]) * np.pi,
        controller=diffrax.ConstantStepSize(),
        dt0=np.pi / 16,
    )
    ds = fo.basins(system, region=((-2.2, 0.2), (-0.5, 1.9)), resolution=100)
    g = geometry(ds)
    assert g.end.values.tolist() == [0, 1, 2]
    assert float(g.wada) > 0.9 and float(g.boundary_basin_entropy) > np.log(2)
    assert (g.share > 0.1).all()


def test_the_forced_pendulum_has_the_exponent_of_its_transients():
    """alpha = kappa/lambda: of chaotic transients before one of two rotations, how fast they end and neighbours part.

    Two ways that share nothing but the field. alpha as Grebogi et al. 1983 measure it, from random starts and no
    grid.   [Kantz and Grassberger 1985; Hsu, Ott and Grebogi 1988]
    """
    rng = np.random.default_rng(0)
    theta, omega = jnp.array(rng.uniform((-np.pi, -2), (np.pi, 4), (2048, 2)).T)
    system = published.forced_pendulum()
    ends = lambda shift: fo.reach(system, None, (theta + shift, omega)).label.values
    base, scales = ends(0.0), np.array([1e-2, 1e-5, 1e-8])
    assert set(base) <= {0, 1, -1} and np.mean(base == -1) < 0.01
    uncertain = [np.mean((ends(eps) != base) | (ends(-eps) != base)) for eps in scales]
    alpha = np.polyfit(np.log(scales), np.log(uncertain), 1)[0]
    kappa, growth = published.transients(system, theta, omega)
    assert abs(alpha - kappa / growth) < 0.01
    assert abs(alpha - 0.057) < 0.01


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: basin_entropy(np.zeros((4, 4), int), 5), "`box`"),
        (lambda: basin_entropy(np.zeros((4, 4), int), 2.0), "`box`"),  # pyright: ignore
        (lambda: wada(SECTORS, radius=-1.0), "`radius`"),
        (lambda: fo.geometry(fo.reach(published.newton(), None, (np.ones(2), np.ones(2)))), "`ds`"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
