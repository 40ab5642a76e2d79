"""A collisional-radiative model of a hydrogen plasma, and the opacity of its populations: non-LTE, optically thin."""

import itertools

import numpy as np
from jaxtyping import Float
from scipy import constants as si
from scipy.special import erf, exp1

from .part import Part

EV = si.elementary_charge
RY = si.Rydberg * si.h * si.c / EV / (1 + si.m_e / si.m_p)
"""Ionisation energy of the ground state, the proton's recoil counted [eV]."""
M_H = si.m_p + si.m_e
LEVELS = np.arange(1, 11)
"""Principal quantum numbers; the level n has 2 n^2 states, and is bound by RY/n^2."""
BOUND = RY / LEVELS**2
GROUPS = np.geomspace(0.5, 50.0, 65)
"""Edges of the photon groups [eV]."""
KRAMERS = 64 * np.pi * si.alpha * (si.value("Bohr radius")) ** 2 / (3 * np.sqrt(3))
"""Photoionisation cross-section of the ground state at its edge [m^2]."""


def oscillator_strengths() -> Float[np.ndarray, "levels levels"]:
    """f[i, j] of absorption, level i to j: 32/(3 sqrt 3 pi) m^-5 n^-3 (m^-2 - n^-2)^-3; 0 for j <= i. [Kramers 1923]"""
    m, n = LEVELS[:, None].astype(float), LEVELS[None, :].astype(float)
    up = n > m
    gap = np.where(up, m**-2 - n**-2, 1.0)
    return np.where(up, 32 / (3 * np.sqrt(3) * np.pi) / (m**5 * n**3 * gap**3), 0.0)


def saha(temperature: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n levels"]:
    """n_i/(n_e n_p) in LTE: n^2 (h^2/(2 pi m_e T))^{3/2} exp(bound/T) [m^3]; temperature [eV]."""
    T = np.asarray(temperature, float)[:, None]
    return LEVELS**2 * (si.h**2 / (2 * np.pi * si.m_e * T * EV)) ** 1.5 * np.exp(BOUND / T)


def rates(temperature: Float[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """The rates out of each level, and into it from the continuum, at `temperature` [eV], a Maxwellian's:

    - "decay" [i, j], 1/s: Einstein's A of i -> j, by `oscillator_strengths`;
    - "excite" [., i, j], m^3/s: by electrons, 1.58e-11 f exp(-u) g/(dE sqrt T), u = dE/T [eV], with the effective Gaunt
      factor g = max(0.2, 0.276 exp(u) E1(u)), and down by detailed balance;  [van Regemorter 1962; Mihalas 1978, 5-73]
    - "ionise" [., i], m^3/s: by electrons, 3e-12 E1(u)/(bound sqrt T), u = bound/T;  [Lotz 1968]
    - "three_body" [., i], m^6/s: its inverse, by detailed balance;
    - "capture" [., i], m^3/s: radiative recombination, Milne's relation for the cross-section KRAMERS n (bound/E)^3.
      [Kramers 1923; Milne 1924]
    """
    T = np.asarray(temperature, float)[:, None]
    f, lte = oscillator_strengths(), saha(temperature)
    gap = np.abs(BOUND[:, None] - BOUND[None, :])
    weight = LEVELS**2
    nu = gap * EV / si.h
    up = 2 * np.pi * EV**2 * nu**2 / (si.epsilon_0 * si.m_e * si.c**3) * f
    decay = (up * weight[:, None] / weight[None, :]).T

    safe = np.where(f > 0, gap, 1.0)
    u = safe / T[..., None]
    gaunt = np.maximum(0.2, 0.276 * np.exp(u) * exp1(u))
    excite = 1.58e-11 * f * gaunt * np.exp(-u) / (safe * np.sqrt(T[..., None]))
    down = np.swapaxes(excite * np.exp(u) * weight[:, None] / weight[None, :], 1, 2)

    u = BOUND / T
    ionise = 3e-12 * exp1(u) / (BOUND * np.sqrt(T))
    edge = BOUND * EV / si.h
    capture = lte * 8 * np.pi / si.c**2 * KRAMERS * LEVELS * edge**3 * exp1(u)
    return {
        "decay": decay,
        "excite": excite + down,
        "ionise": ionise,
        "three_body": ionise * lte,
        "capture": capture,
    }


def populations(
    temperature: Float[np.ndarray, " n"], electron_density: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n levels"]:
    """Densities of the levels [m^-3] at rest, at `temperature` [eV] and `electron_density` [m^-3] (as many protons):

        n_i sum_j (A_ij + n_e C_ij) + n_i n_e S_i = sum_j n_j (A_ji + n_e C_ji) + n_e^2 (n_e three_body_i + capture_i).

    Light escapes: nothing is absorbed. Dense, collisions give Saha's and Boltzmann's populations; thin, the corona's.
    [Bates, Kingston and McWhirter 1962]

    Raises ValueError for a temperature or density that is not positive.
    """
    T, n_e = (np.asarray(x, float) for x in (temperature, electron_density))
    if not (np.all(T > 0) and np.all(n_e > 0)):
        raise ValueError("`temperature` [eV] and `electron_density` [m^-3] must be positive")
    r = rates(T)
    move = r["decay"] + n_e[:, None, None] * r["excite"]
    out = np.sum(move, axis=2) + n_e[:, None] * r["ionise"]
    matrix = out[:, :, None] * np.eye(len(LEVELS)) - np.swapaxes(move, 1, 2)
    source = n_e[:, None] ** 2 * (n_e[:, None] * r["three_body"] + r["capture"])
    return np.linalg.solve(matrix, source[..., None])[..., 0]


def absorption(
    temperature: Float[np.ndarray, " n"],
    electron_density: Float[np.ndarray, " n"],
    levels: Float[np.ndarray, "n levels"],
) -> Float[np.ndarray, "n groups"]:
    """Mean opacity of each group of GROUPS [m^2/kg], for the densities of the levels `levels` [m^-3].

    Lines of `oscillator_strengths` in Doppler profiles, photoionisation and free-free by Kramers with Gaunt factor 1,
    each less stimulated emission, and Thomson scattering, over the mass of protons and atoms.
    [Mihalas 1978, ch. 4; Rybicki and Lightman 1979, 5.18]
    """
    T, n_e = (np.asarray(x, float)[:, None] for x in (temperature, electron_density))
    low, high = GROUPS[:-1], GROUPS[1:]
    nodes, share = np.polynomial.legendre.leggauss(8)
    nodes, share = 0.5 * (1 + nodes), 0.5 * share
    lte = saha(temperature) * n_e**2

    # A line's share of a group, by its profile's integral; its strength, h e^2 f/(4 eps0 m c), in m^2 eV.
    f = oscillator_strengths()
    i, j = np.nonzero(f)
    centre = BOUND[i] - BOUND[j]
    doppler = centre * np.sqrt(2 * T * EV / (M_H * si.c**2))
    profile = erf((GROUPS[:, None, None] - centre) / doppler)
    inside = 0.5 * np.diff(profile, axis=0) / (high - low)[:, None, None]
    strength = EV * si.h / (4 * si.epsilon_0 * si.m_e * si.c) * f[i, j]
    net = levels[:, i] - levels[:, j] * (LEVELS[i] / LEVELS[j]) ** 2
    total = np.einsum("nl,gnl->ng", strength * net, inside)

    for k, chi in enumerate(BOUND):
        start = np.clip(chi, low, high)  # the part of a group beyond the edge
        energy = start[:, None] + (high - start)[:, None] * nodes
        left = levels[:, k, None, None] - lte[:, k, None, None] * np.exp(-energy / T[..., None])
        sigma = KRAMERS * LEVELS[k] * (chi / energy) ** 3
        total += np.sum(left * sigma * share, axis=2) * (high - start) / (high - low)

    energy = low[:, None] + (high - low)[:, None] * nodes
    e2 = EV**2 / (4 * np.pi * si.epsilon_0)
    free = 4 * e2**3 / (3 * si.m_e * si.h * si.c) * np.sqrt(2 * np.pi / (3 * si.m_e * T * EV))
    thin = np.sum(-np.expm1(-energy / T[..., None]) * (energy * EV / si.h) ** -3 * share, axis=2)
    total += n_e**2 * free * thin
    total += n_e * si.value("Thomson cross section")
    return total / (M_H * (n_e + np.sum(levels, axis=1, keepdims=True)))


def _draw(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = generator.uniform((0.0, 18.0), (1.3, 23.0), (n, 2))
    T, n_e = 10 ** x[:, 0], 10 ** x[:, 1]
    return x, np.log(absorption(T, n_e, populations(T, n_e)))


opacity = Part(
    "non-LTE opacity",
    ("log10 temperature [eV]", "log10 electron density [m^-3]"),
    tuple(f"ln opacity {a:.3g} to {b:.3g} eV [m^2/kg]" for a, b in itertools.pairwise(GROUPS)),
    _draw,
)
"""Temperature (1 to 20 eV) and electron density (1e18 to 1e23 m^-3) of hydrogen -> opacity in 64 groups."""
