"""Systems with published basins, for `flowopt.basins` and `flowopt.reach`."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import flowopt as fo


def newton() -> fo.Map:
    """Newton's method for z^3 = 1, z = x + iy. Every point of the boundary borders all three basins (its Julia set)."""

    def step(z, args):
        x, y = z
        r4 = (x**2 + y**2) ** 2
        return 2 * x / 3 + (x**2 - y**2) / (3 * r4), 2 * y / 3 - 2 * x * y / (3 * r4)

    angles = (0.0, 2 * np.pi / 3, -2 * np.pi / 3)
    return fo.Map(step, [(float(np.cos(a)), float(np.sin(a))) for a in angles])


def theta_map() -> fo.Map:
    """The map of Grebogi, McDonald, Ott and Yorke 1983, with fixed points (0, -0.3) and (pi, 0.3)."""

    def step(z, args):
        theta, x = z
        kick = 1.32 * jnp.sin(2 * theta) - 0.9 * jnp.sin(4 * theta) - x * jnp.sin(theta)
        return jnp.mod(theta + kick, 2 * jnp.pi), -0.3 * jnp.cos(theta)

    # theta is an angle: (0, -0.3) and (2 pi, -0.3) are the same point.
    return fo.Map(step, [[(0.0, -0.3), (2 * np.pi, -0.3)], (np.pi, 0.3)], radius=0.05)


def cantor_map() -> fo.Map:
    """x -> 3 min(x, 1 - x): all but Cantor's set leave [0, 1], after an odd or even number of steps, the two labels."""

    def step(z, args):
        x, y, steps = z
        inside = (x >= 0) & (x <= 1)
        return (
            jnp.where(inside, 3 * jnp.minimum(x, 1 - x), x),
            y,
            jnp.where(inside, steps + 1, steps),
        )

    return fo.Map(
        step,
        feature=lambda z: z[2][-1].astype(jnp.int32) % 2,
        names=("after even steps", "after odd steps"),
        max_steps=40,
    )


def field(function):
    """A Diffrax term of a field of several variables, the state a tuple of them."""
    return diffrax.ODETerm(lambda t, y, args: function(t, *y))


def pendulum() -> fo.ODE:
    """theta'' = -0.1 theta' + 0.5 - sin(theta): rest or rotation.   [Menck et al. 2013; case 1 of bSTAB]"""

    def feature(ts, ys):
        omega = ys[1]
        return (jnp.max(omega) - jnp.mean(omega) >= 0.01).astype(jnp.int32)

    return fo.ODE(
        field(lambda t, theta, omega: (omega, -0.1 * omega + 0.5 - jnp.sin(theta))),
        t1=200.0,
        feature=feature,
        names=("fixed point", "limit cycle"),
        ts=np.linspace(180, 200, 100),
        controller=diffrax.PIDController(rtol=1e-6, atol=1e-8),
        dt0=0.1,
    )


def forced_pendulum() -> fo.ODE:
    """theta'' + 0.1 theta' + sin(theta) = 2.1 cos t: in the end it rotates once a period, one way or the other."""
    turn = 2 * np.pi

    def feature(ts, ys):
        turns = (ys[0][-1] - ys[0][0]) / (ts[-1] - ts[0])  # per period
        rotates = jnp.abs(jnp.abs(turns) - 1) < 0.05
        return jnp.where(rotates, (turns > 0).astype(jnp.int32), -1)

    return fo.ODE(
        field(lambda t, theta, v: (v, -0.1 * v - jnp.sin(theta) + 2.1 * jnp.cos(t))),
        t1=100 * turn,
        feature=feature,
        names=("backward", "forward"),
        ts=np.array([90, 100]) * turn,
        controller=diffrax.ConstantStepSize(),
        dt0=turn / 32,
    )


def transients(system: fo.ODE, *starts) -> tuple[float, float]:
    """(kappa, lambda) of a forced pendulum's transients: the rate at which they end, and their Lyapunov exponent.

    Both per period, of 2 pi: of the starts still in transit after 5 to 25 periods; over periods 8 to 28 of those that
    are after 35.
    """
    periods, turn = 60, 2 * np.pi

    def period(y):
        sol = diffrax.diffeqsolve(
            system.term, system.solver, 0.0, turn, system.dt0, y, max_steps=64,
            stepsize_controller=system.controller, adjoint=diffrax.ForwardMode(),
        )  # fmt: skip
        return jax.tree.map(lambda x: x[-1], sol.ys)

    def step(carry, _):
        y, v = carry
        y, v = jax.jvp(period, (y,), (v,))
        size = jnp.hypot(*v)
        return (y, jax.tree.map(lambda x: x / size, v)), (y[0], jnp.log(size))

    @jax.jit
    @jax.vmap
    def orbit(y):
        return jax.lax.scan(step, (y, (1.0, 0.0)), None, periods)[1]

    angle, growth = map(np.asarray, orbit(starts))
    turns = np.diff(angle, axis=1, prepend=np.asarray(starts[0])[:, None]) / turn
    wandering = np.abs(turns - np.round(turns[:, -1:])) > 0.05
    last = np.where(wandering.any(axis=1), periods - np.argmax(wandering[:, ::-1], axis=1), 0)
    n = np.arange(5, 25)
    kappa = -np.polyfit(n, np.log([np.mean(last > k) for k in n]), 1)[0]
    return float(kappa), float(growth[last > 35, 8:28].mean())


# Where each cycle is at the times 2 pi n, from the starts that bSTAB gives for them, by SciPy to 1e-10.
DUFFING_CYCLES = [
    [(-0.2054086, 0.0171525)],
    [(1.0460444, 0.7912581)],
    [(0.2572954, 0.0848595), (-0.6712467, 0.0190052)],
    [(-0.2924614, -0.1682297), (-0.4482533, 0.2927724)],
    [(-0.3608696, -0.0754726), (-0.4287363, 0.1238582), (0.0790713, 0.0348637)],
]


def duffing() -> fo.ODE:
    """x'' = -0.08 x' - x^3 + 0.2 cos t and its five cycles.   [Thompson and Stewart 1986, fig. 1.9; bSTAB]"""
    return fo.ODE(
        field(lambda t, x, v: (v, -0.08 * v - x**3 + 0.2 * jnp.cos(t))),
        t1=120 * np.pi,
        attractors=DUFFING_CYCLES,
        radius=0.02,
        names=("y1", "y2", "y3", "y4", "y5"),
        controller=diffrax.ConstantStepSize(),
        dt0=2 * np.pi / 48,
    )


def lorenz() -> fo.ODE:
    """Lorenz with sigma 0.12, r 0, b -0.6: two chaotic attractors, or no bound.   [Li and Sprott 2014; bSTAB]"""
    return fo.ODE(
        field(lambda t, x, y, z: (0.12 * (y - x), -x * z - y, x * y + 0.6 * z)),
        t1=1000.0,
        feature=lambda ts, ys: (jnp.mean(ys[0]) <= 0).astype(jnp.int32),
        names=("butterfly 1", "butterfly 2"),
        ts=np.linspace(900, 1000, 200),
        controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        dt0=0.01,
        bound=200.0,
    )


def henon() -> fo.Map:
    """x -> 1 - 1.4 x^2 + y, y -> 0.3 x: one strange attractor, or no bound.   [Henon 1976]"""
    return fo.Map(
        lambda z, args: (1 - 1.4 * z[0] ** 2 + z[1], 0.3 * z[0]),
        feature=lambda zs: jnp.zeros((), jnp.int32),
        names=("attractor",),
        max_steps=500,
    )
