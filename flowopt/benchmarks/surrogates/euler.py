"""The exact Riemann solver of the Euler equations of an ideal gas, as Godunov's scheme calls it at every face."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .part import Part

ITERATIONS = 60


class State(NamedTuple):
    """A gas on one side of a face; arrays that broadcast, in any consistent units."""

    density: Float[np.ndarray, "..."]
    velocity: Float[np.ndarray, "..."]
    pressure: Float[np.ndarray, "..."]

    def sound_speed(self, gamma: float) -> Float[np.ndarray, "..."]:
        return np.sqrt(gamma * np.asarray(self.pressure) / self.density)


def star(
    left: State, right: State, gamma: float = 1.4
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """(p*, u*), pressure and velocity between the two waves that leave the face: f_L(p) + f_R(p) + u_R - u_L = 0, with

        f_K(p) = (p - p_K) sqrt(A_K/(p + B_K))            if p > p_K, a shock,
                 2 a_K/(gamma - 1) ((p/p_K)^e - 1)        if not, a rarefaction;
        e = (gamma - 1)/(2 gamma),  A_K = 2/((gamma + 1) rho_K),  B_K = (gamma - 1)/(gamma + 1) p_K,

    and u* = (u_L + u_R + f_R(p*) - f_L(p*))/2. Where the gases part so fast that a vacuum opens between them,
    u_R - u_L >= 2 (a_L + a_R)/(gamma - 1), p* = 0 and u* = NaN: nothing moves there. [Toro 2009, ch. 4]

    Newton's method in z = p^e: a rarefaction is linear in z and a shock convex, so from the pressure of two
    rarefactions, which is never too low, the iterates fall to p* and stay positive.

    Raises ValueError for a density or pressure that is not positive, and for gamma outside (1, 3].
    """
    if not 1 < gamma <= 3:
        raise ValueError(f"`gamma` must be in (1, 3]; got {gamma}")
    for name, state in (("left", left), ("right", right)):
        if not (np.all(np.asarray(state[0]) > 0) and np.all(np.asarray(state[2]) > 0)):
            raise ValueError(f"`{name}` must have a positive density and pressure; got {state}")
    left, right = State(*left), State(*right)
    e = (gamma - 1) / (2 * gamma)

    def side(state: State, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """f_K and df_K/dz."""
        rho, p_k, a = (
            np.asarray(state.density),
            np.asarray(state.pressure),
            state.sound_speed(gamma),
        )
        p = z ** (1 / e)
        A, B = 2 / ((gamma + 1) * rho), (gamma - 1) / (gamma + 1) * p_k
        root = np.sqrt(A / (p + B))
        shock = (p - p_k) * root
        dshock = root * (1 - (p - p_k) / (2 * (p + B))) * z ** (1 / e - 1) / e
        slope = 2 * a / (gamma - 1) * p_k**-e
        fan = slope * z - 2 * a / (gamma - 1)
        return np.where(p > p_k, shock, fan), np.where(p > p_k, dshock, slope)

    du = np.asarray(right.velocity, float) - left.velocity
    slopes = [side(k, np.zeros_like(du))[1] for k in (left, right)]
    room = 2 * (left.sound_speed(gamma) + right.sound_speed(gamma)) / (gamma - 1) - du
    vacuum = room <= 0
    z = np.where(vacuum, 1.0, room) / (slopes[0] + slopes[1])
    for _ in range(ITERATIONS):
        (f_l, d_l), (f_r, d_r) = side(left, z), side(right, z)
        step = (f_l + f_r + du) / (d_l + d_r)
        # In a vacuum there is no root: z stays where it is, and is not used.
        z = np.where(vacuum, z, z - step)
        if np.all(vacuum | (np.abs(step) <= 4e-16 * z)):
            break
    f_l, f_r = side(left, z)[0], side(right, z)[0]
    u = 0.5 * (np.asarray(left.velocity) + right.velocity + f_r - f_l)
    return np.where(vacuum, 0.0, z ** (1 / e)), np.where(vacuum, np.nan, u)


def _draw(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform in (log10 rho_R/rho_L, log10 p_R/p_L, (u_R - u_L)/a_L) over [-1, 1] x [-2, 2] x [-3, 3], vacua left out.

    Units of density and pressure and a moving frame take the six numbers of two states to these three.
    """
    x = np.zeros((0, 3))
    while len(x) < n:
        new = generator.uniform((-1.0, -2.0, -3.0), (1.0, 2.0, 3.0), (n, 3))
        x = np.concatenate([x, new[star(*_states(new))[0] > 0]])
    x = x[:n]
    left, right = _states(x)
    p, u = star(left, right)
    return x, np.stack([np.log(p), u / left.sound_speed(1.4)], axis=1)


def _states(x: np.ndarray) -> tuple[State, State]:
    one = np.ones(len(x))
    left = State(one, 0 * one, one)
    return left, State(10 ** x[:, 0], x[:, 2] * left.sound_speed(1.4), 10 ** x[:, 1])


riemann_problem = Part(
    "Riemann problem",
    ("log10 rho_R/rho_L", "log10 p_R/p_L", "(u_R - u_L)/a_L"),
    ("ln p*/p_L", "(u* - u_L)/a_L"),
    _draw,
)
"""States left and right of a face, gamma = 1.4 -> `star` pressure and velocity, all relative to the left state."""
