"""The parts to be replaced, against published values, limits and laws that their code does not contain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import constants as si

import flowopt as fo
from flowopt.benchmarks import surrogates
from flowopt.benchmarks.surrogates import collisional_radiative as plasma
from flowopt.benchmarks.surrogates import euler, saha
from flowopt.benchmarks.surrogates.part import misclassified, rms

PARTS = [
    surrogates.riemann_problem,
    surrogates.equation_of_state,
    surrogates.opacity,
    surrogates.runge,
    surrogates.two_spirals,
]
TORO = [  # rho, u, p left; right; p*, u*  [Toro 2009, tables 4.1 and 4.2]
    ((1, 0, 1), (0.125, 0, 0.1), 0.30313, 0.92745),
    ((1, -2, 0.4), (1, 2, 0.4), 0.00189, 0.0),
    ((1, 0, 1000), (1, 0, 0.01), 460.894, 19.5975),
    ((1, 0, 0.01), (1, 0, 100), 46.0950, -6.19633),
    ((5.99924, 19.5975, 460.894), (5.99242, -6.19633, 46.0950), 1691.64, 8.68975),
]


@pytest.mark.parametrize(("left", "right", "p", "u"), TORO)
def test_riemann_solver_gives_the_published_star_states(left, right, p, u):
    p_star, u_star = euler.star(left, right)
    assert abs(p_star - p) <= max(5e-6 * p, 5e-6)
    assert abs(u_star - u) <= max(1e-5 * abs(u), 1e-12)


def random_states(n, seed, speed):
    generator = np.random.default_rng(seed)
    rho, p = 10 ** generator.uniform(-3, 3, (2, 2, n))
    u = generator.uniform(-speed, speed, (2, n))
    return euler.State(rho[0], u[0], p[0]), euler.State(rho[1], u[1], p[1])


@pytest.mark.parametrize("gamma", [1.1, 1.4, 5 / 3, 3.0])
def test_star_states_obey_the_conservation_laws_across_each_wave(gamma):
    left, right = random_states(20_000, 0, 10.0)
    p, u = euler.star(left, right, gamma)
    flow = p > 0
    assert 0.5 < flow.mean() < 1 and np.all(np.isnan(u[~flow]))
    for state, sign in ((left, -1), (right, 1)):
        rho0, u0, p0 = (np.asarray(x)[flow] for x in state)
        p1, u1 = p[flow], u[flow]
        shock = p1 > p0
        # Rankine and Hugoniot: the density from energy, the wave's speed from mass, and momentum as the check.
        g = (gamma - 1) / (gamma + 1)
        rho1 = rho0 * (p1 / p0 + g) / (g * p1 / p0 + 1)
        jump = (rho1 * (u1 - u0)) * rho0 / (rho1 - rho0)  # mass flux through the shock
        np.testing.assert_allclose(
            (jump * (u1 - u0))[shock & (p1 > 1.01 * p0)],
            (p1 - p0)[shock & (p1 > 1.01 * p0)],
            rtol=1e-6,
        )
        assert np.all(sign * (u1 - u0)[shock] >= -1e-9 * np.abs(u1[shock]))
        # A rarefaction keeps the entropy and u -+ 2a/(gamma - 1).
        a0, a1 = np.sqrt(gamma * p0 / rho0), np.sqrt(gamma * p1 / (rho0 * (p1 / p0) ** (1 / gamma)))
        fan = ~shock
        invariant0, invariant1 = (v - sign * 2 * a / (gamma - 1) for v, a in ((u0, a0), (u1, a1)))
        np.testing.assert_allclose(
            (invariant1 - invariant0)[fan] / (a0 + np.abs(u0))[fan], 0, atol=1e-9
        )


def test_riemann_solver_is_galilean_mirrored_and_knows_the_vacuum():
    left, right = random_states(1000, 1, 5.0)
    p, u = euler.star(left, right)
    shifted = euler.star(left._replace(velocity=left[1] + 7), right._replace(velocity=right[1] + 7))
    z = lambda p: p ** (1 / 7)  # close to a vacuum p is not well determined, z is
    np.testing.assert_allclose(z(shifted[0]), z(p), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(shifted[1], u + 7, rtol=1e-7, atol=1e-9)
    mirror = euler.star(right._replace(velocity=-right[1]), left._replace(velocity=-left[1]))
    np.testing.assert_allclose(z(mirror[0]), z(p), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(-mirror[1], u, rtol=1e-9, atol=1e-9)
    edge = 2 * 2 * np.sqrt(1.4) / 0.4  # where 1 and 1 part so fast
    p, u = euler.star((1.0, 0.0, 1.0), (1.0, edge * np.array([0.99, 1.001, 1.01]), 1.0))
    assert p[0] > 0 and np.isfinite(u[0]) and np.all(p[1:] == 0) and np.all(np.isnan(u[1:]))


def test_bad_states_are_refused():
    with pytest.raises(ValueError, match="`right` must have a positive density"):
        euler.star((1.0, 0.0, 1.0), (0.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="`gamma` must be in"):
        euler.star((1.0, 0.0, 1.0), (1.0, 0.0, 1.0), gamma=1.0)
    with pytest.raises(ValueError, match="`density`"):
        saha.state(0.0, 1e4)
    with pytest.raises(ValueError, match="`hydrogen`"):
        saha.state(1.0, 1e4, hydrogen=1.2)
    with pytest.raises(ValueError, match="`temperature`"):
        plasma.populations(np.array([-1.0]), np.array([1e20]))


def test_gas_is_ideal_and_neutral_when_cold_and_fully_ionised_when_hot():
    rho, x = 1e-5, 0.7
    atoms = rho * (x / saha.M_H + (1 - x) / saha.M_HE)
    cold, hot = saha.state(rho, 1500.0, x), saha.state(rho, 1e7, x)
    np.testing.assert_allclose(cold.pressure, atoms * si.k * 1500, rtol=1e-12)
    np.testing.assert_allclose(cold.energy, 1.5 * cold.pressure / rho, rtol=1e-10)
    particles = rho * (2 * x / saha.M_H + 3 * (1 - x) / saha.M_HE)
    np.testing.assert_allclose(hot.pressure, particles * si.k * 1e7, rtol=1e-5)
    bound = x / saha.M_H * saha.CHI_H + (1 - x) / saha.M_HE * sum(saha.CHI_HE)
    np.testing.assert_allclose(hot.energy, 1.5 * hot.pressure / rho + bound, rtol=1e-5)


def test_pure_hydrogen_solves_the_quadratic_of_saha():
    rho, T = np.logspace(-8, 0, 30), np.linspace(4000, 40_000, 30)[:, None]
    waves = (2 * np.pi * si.m_e * si.k * T / si.h**2) ** 1.5
    s = waves * np.exp(-saha.CHI_H / (si.k * T)) * saha.M_H / rho  # x^2/(1 - x), with 2 g+/g = 1
    x = 2 * s / (s + np.sqrt(s**2 + 4 * s))
    np.testing.assert_allclose(
        saha.state(rho, T, 1.0).electrons, x, rtol=2e-6
    )  # masses: H, not p + e


@pytest.mark.parametrize("hydrogen", [1.0, 0.74, 0.0])
def test_equation_of_state_obeys_the_thermodynamic_identity(hydrogen):
    rho, T = (a.ravel() for a in np.meshgrid(np.logspace(-7, 0, 15), np.logspace(3.7, 5.3, 15)))
    h = 1e-4
    at = lambda r, t: saha.state(r, t, hydrogen)
    slope = (at(rho * (1 + h), T).energy - at(rho * (1 - h), T).energy) / (2 * h * rho)
    dp = (at(rho, T * (1 + h)).pressure - at(rho, T * (1 - h)).pressure) / (2 * h * T)
    gas = at(rho, T)
    identity = (gas.pressure - T * dp) / rho**2
    rounding = 1e-10 * gas.energy / rho
    assert np.all(np.abs(slope - identity) < 1e-5 * np.abs(identity) + rounding)
    # What is left of it where nothing ionises is next to nothing: it is not that which is compared.
    assert np.mean(np.abs(identity) > 1e3 * rounding) > 0.5


TEMPERATURES = np.array([1.0, 2.0, 5.0, 10.0, 20.0])


def test_dense_plasma_is_in_local_thermodynamic_equilibrium():
    n_e = np.full(5, 1e29)
    levels = plasma.populations(TEMPERATURES, n_e)
    np.testing.assert_allclose(levels, plasma.saha(TEMPERATURES) * n_e[:, None] ** 2, rtol=1e-6)
    departures = [
        np.max(np.abs(plasma.populations(T, n) / (plasma.saha(T) * n[:, None] ** 2) - 1))
        for T, n in ((TEMPERATURES, np.full(5, 10.0**k)) for k in (22, 24, 26))
    ]
    np.testing.assert_allclose(departures[1] / departures[2], 100, rtol=0.1)  # as 1/n_e


def test_saha_of_the_levels_is_saha_of_the_gas():
    """At 1 eV and less nearly all atoms are in the ground state: the two codes agree on n_e^2/n_1."""
    T, n_e = 0.4, 1e18
    atoms = plasma.saha(np.array([T]))[0, 0] * n_e**2
    gas = saha.state((atoms + n_e) * saha.M_H, T * plasma.EV / si.k, 1.0)
    np.testing.assert_allclose(gas.electrons, n_e / (atoms + n_e), rtol=1e-3)


def test_thin_plasma_is_in_coronal_equilibrium():
    n_e = np.full(5, 1e8)
    levels, r = plasma.populations(TEMPERATURES, n_e), plasma.rates(TEMPERATURES)
    # Every capture ends in the ground state, and only from there are electrons freed.
    ratio = levels[:, 0] / n_e
    np.testing.assert_allclose(ratio, r["capture"].sum(1) / r["ionise"][:, 0], rtol=1e-4)
    # The top level is fed from the ground state and by capture, and drained by light.
    fed = n_e * levels[:, 0] * r["excite"][:, 0, -1] + n_e**2 * r["capture"][:, -1]
    np.testing.assert_allclose(levels[:, -1], fed / r["decay"][-1].sum(), rtol=1e-4)
    thinner = plasma.populations(TEMPERATURES, n_e / 10)
    np.testing.assert_allclose(thinner[:, 0] * 10, levels[:, 0], rtol=1e-4)
    np.testing.assert_allclose(thinner[:, 1:] * 100, levels[:, 1:], rtol=1e-3)


def test_rates_are_those_of_the_sources():
    f, decay = plasma.oscillator_strengths(), plasma.rates(np.ones(1))["decay"]
    # Exact Lyman alpha: f = 0.4162, A = 4.699e8/s; of Kramers', the Gaunt factor 0.717 is left out.
    np.testing.assert_allclose(f[0, 1] * 0.7166, 0.4162, rtol=1e-3)
    np.testing.assert_allclose(decay[1, 0] * 0.7166, 4.699e8, rtol=2e-3)
    np.testing.assert_allclose(plasma.KRAMERS, 7.907e-22, rtol=1e-3)
    # Lines run into the continuum: f per energy at the series limit is the cross-section at the edge.
    m, n = 2, 4000.0
    f_n = 32 / (3 * np.sqrt(3) * np.pi) / (m**5 * n**3 * (m**-2 - n**-2) ** 3)
    per_ev = f_n * n**3 / (2 * plasma.RY)
    area = plasma.EV * si.h / (4 * si.epsilon_0 * si.m_e * si.c) * per_ev
    np.testing.assert_allclose(area, plasma.KRAMERS * m, rtol=1e-3)  # recoil: m_e/m_p
    # Recombination to the ground state of hydrogen at 1e4 K: 1.58e-13 cm^3/s [Osterbrock 1989], Gaunt 0.8 to 1.
    T = 1e4 * si.k / plasma.EV
    assert 0.8 < 1.58e-19 / plasma.rates(np.array([T]))["capture"][0, 0] < 1.0


def test_opacity_in_equilibrium_and_its_limits():
    T, n_e = np.array([2.0]), np.array([1e22])
    lte = plasma.saha(T) * n_e**2
    kappa = plasma.absorption(T, n_e, lte)[0]
    # Group-averaged by quadrature on a fine grid, from Kirchhoff's (1 - exp(-E/T)) and no stimulated emission by level.
    mass = plasma.M_H * (n_e[0] + lte.sum())
    thomson = n_e[0] * si.value("Thomson cross section") / mass
    for g in (5, 20, 45, 60):  # groups with no line in them, at least one with an edge
        a, b = plasma.GROUPS[g : g + 2]
        E = a + (np.arange(20_000) + 0.5) / 20_000 * (b - a)
        chi, n = plasma.BOUND[:, None], plasma.LEVELS[:, None]
        sigma = np.where(chi <= E, plasma.KRAMERS * n * (chi / E) ** 3, 0.0)
        free = (
            3.692e8
            * 1e-10
            * (T[0] * plasma.EV / si.k) ** -0.5
            * n_e[0] ** 2
            * (E * plasma.EV / si.h) ** -3
        )
        fine = np.mean((lte[0] @ sigma + free) * -np.expm1(-E / T[0])) / mass + thomson
        lines = plasma.BOUND[:, None] - plasma.BOUND[None, :]
        if not np.any((lines > a * 0.99) & (lines < b * 1.01)):
            np.testing.assert_allclose(kappa[g], fine, rtol=2e-3)
    # Lyman alpha's whole strength is in its group.
    g = np.searchsorted(plasma.GROUPS, plasma.BOUND[0] - plasma.BOUND[1]) - 1
    none = np.zeros((1, 10))
    one = none + np.eye(10)[0] * 1e30
    difference = (
        plasma.absorption(T, n_e, one) - plasma.absorption(T, n_e, none) * n_e / (n_e + 1e30)
    )[0, g]
    width = plasma.GROUPS[g + 1] - plasma.GROUPS[g]
    np.testing.assert_allclose(difference * plasma.M_H * width, 1.0976e-20 * 0.5808, rtol=1e-3)
    hot = plasma.absorption(T * 10, n_e / 1e6, none)[0, -1]
    np.testing.assert_allclose(hot, si.value("Thomson cross section") / plasma.M_H, rtol=1e-3)


@pytest.mark.parametrize("part", PARTS, ids=lambda p: p.name)
def test_a_part_draws_the_same_data_for_the_same_seed(part):
    a, b, c = part.sample(40, 0), part.sample(40, 0), part.sample(40, 1)
    assert np.array_equal(a.x, b.x) and np.array_equal(a.y, b.y) and not np.array_equal(a.x, c.x)
    assert a.x.shape == (40, len(part.inputs)) and bool(jnp.all(jnp.isfinite(a.x)))
    assert bool(jnp.all(jnp.isfinite(a.y)))
    if jnp.issubdtype(a.y.dtype, jnp.floating):
        assert a.y.shape == (40, len(part.outputs))
        assert part.error(a.y, a.y) == 0 and part.error(np.asarray(a.y) + 2, a.y) == pytest.approx(
            2
        )
    with pytest.raises(ValueError, match="`n` must be an int >= 1"):
        part.sample(0, 0)


def test_error_measures():
    assert rms(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]])) == pytest.approx(np.sqrt(2))
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, 1.0], [3.0, 2.0]])
    assert misclassified(logits, np.array([0, 1, 1, 1])) == 0.5


def test_spirals_are_opposite_and_runge_is_runges():
    data = surrogates.two_spirals.sample(500, 0)
    x, y = np.asarray(data.x), np.asarray(data.y)
    radius = np.hypot(*x.T)
    i = 104 - radius / 6.5 * 104
    on = np.where(y == 0, 1, -1)[:, None] * radius[:, None]
    np.testing.assert_allclose(
        x, on * np.stack([np.sin(np.pi * i / 16), np.cos(np.pi * i / 16)], 1), atol=1e-9
    )
    data = surrogates.runge.sample(100, 0)
    np.testing.assert_allclose(data.y * (1 + 25 * data.x**2), 1.0)


def test_a_small_network_learns_the_equation_of_state():
    part = surrogates.equation_of_state
    train, unseen = part.sample(200, 0), part.sample(500, 1)
    net = fo.networks.normalised(fo.networks.mlp(2, 2, 8, key=jax.random.key(0)), train)
    params, rebuild = fo.networks.split(net)
    end = fo.least_squares(fo.networks.Residuals(rebuild), params, args=train, max_steps=100)
    error = lambda p: part.error(jax.vmap(rebuild(p))(unseen.x), unseen.y)
    assert error(params) > 2.0 and error(end.params) < 0.1
