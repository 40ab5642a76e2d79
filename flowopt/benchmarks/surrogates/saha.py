"""The equation of state of a partially ionised gas of hydrogen and helium, by Saha's equation."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import constants as si

from .part import Part

EV = si.elementary_charge
M_H, M_HE = 1.00784 * si.atomic_mass, 4.002602 * si.atomic_mass
CHI_H, CHI_HE = 13.598434 * EV, (24.587389 * EV, 54.417765 * EV)
"""Ionisation energies [J]. [NIST Atomic Spectra Database]"""
HYDROGEN = 0.74
"""Share of hydrogen in the mass, about the Sun's surface."""


class Gas(NamedTuple):
    """What `state` gives, each of the shape of its arguments."""

    pressure: Float[np.ndarray, "..."]
    """[Pa]"""
    energy: Float[np.ndarray, "..."]
    """Internal energy, 0 for neutral atoms at rest [J/kg]."""
    electrons: Float[np.ndarray, "..."]
    """Free electrons of each nucleus."""


def state(
    density: Float[np.ndarray, "..."],
    temperature: Float[np.ndarray, "..."],
    hydrogen: float = HYDROGEN,
) -> Gas:
    """Pressure and energy at `density` [kg/m^3] and `temperature` [K], `hydrogen` the mass share of H, the rest He:

        n_{i+1} n_e/n_i = 2 g_{i+1}/g_i (2 pi m_e k T/h^2)^{3/2} exp(-chi_i/(k T)),
        p = (n_H + n_He + n_e) k T,    density * energy = 3/2 p + sum_i n_i (energy to ionise it).

    Atoms in their ground states, no molecules, no degeneracy, no forces between particles, no radiation: so the
    gas has a free energy, and d(energy)/d(density) at fixed T = (p - T dp/dT)/density^2 holds exactly.
    n_e by bisection in its logarithm. [Saha 1920; Mihalas 1978, ch. 5; Kippenhahn et al. 2012, ch. 14]

    Raises ValueError for a density or temperature that is not positive, and for `hydrogen` outside [0, 1].
    """
    rho, T = np.broadcast_arrays(np.asarray(density, float), np.asarray(temperature, float))
    if not (np.all(rho > 0) and np.all(T > 0)):
        raise ValueError("`density` [kg/m^3] and `temperature` [K] must be positive")
    if not 0 <= hydrogen <= 1:
        raise ValueError(f"`hydrogen` must be in [0, 1], a share of the mass; got {hydrogen}")
    kT = si.k * T
    n_h, n_he = hydrogen * rho / M_H, (1 - hydrogen) * rho / M_HE
    waves = (2 * np.pi * si.m_e * kT / si.h**2) ** 1.5

    def ions(n_e: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shares of H+ among H, and of He+ and He++ among He."""
        s_h = 2 * (1 / 2) * waves * np.exp(-CHI_H / kT) / n_e
        s_1 = 2 * (2 / 1) * waves * np.exp(-CHI_HE[0] / kT) / n_e
        s_2 = 2 * (1 / 2) * waves * np.exp(-CHI_HE[1] / kT) / n_e
        below, above = 1 / (1 + s_1 * (1 + s_2)), 1 / (1 + (1 + 1 / s_1) / s_2)
        return s_h / (1 + s_h), s_1 * below, above

    with np.errstate(over="ignore", divide="ignore"):  # 1/0 = inf: a stage that is not there
        nuclei = n_h + n_he
        high = np.log(2 * nuclei)
        low = high - 250.0
        for _ in range(64):
            middle = 0.5 * (low + high)
            x, y1, y2 = ions(np.exp(middle))
            more = n_h * x + n_he * (y1 + 2 * y2) > np.exp(middle)
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        n_e = np.exp(0.5 * (low + high))
        x, y1, y2 = ions(n_e)
    pressure = (nuclei + n_e) * kT
    bound = n_h * x * CHI_H + n_he * (y1 * CHI_HE[0] + y2 * (CHI_HE[0] + CHI_HE[1]))
    return Gas(pressure, (1.5 * pressure + bound) / rho, n_e / nuclei)


def _draw(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = generator.uniform((-7.0, 3.5), (0.0, 6.0), (n, 2))
    gas = state(10 ** x[:, 0], 10 ** x[:, 1])
    return x, np.log(np.stack([gas.pressure, gas.energy], axis=1))


equation_of_state = Part(
    "equation of state",
    ("log10 density [kg/m^3]", "log10 temperature [K]"),
    ("ln pressure [Pa]", "ln energy [J/kg]"),
    _draw,
)
"""Density (1e-7 to 1 kg/m^3) and temperature (3200 to 1e6 K), uniform in their logarithms -> pressure and energy."""
