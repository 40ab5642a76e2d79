"""How long runs take to leave a maximum or saddle that they were started next to: flows, and steps of methods."""

import functools as ft
import math
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optimistix as optx
import xarray as xr

import flowopt as fo
from flowopt.tree import sum_squares

EXIT = 0.1
"""How far from the point a run has left [params]."""
DIRECTIONS = 8
MAX_STEPS = 20_000
FIRST_STEP = 1e-13
"""So short that no stage overflows: an error that is not finite does not say how much shorter the next try must be."""
ENDS = ("left", "time_limit", "step_limit", "failed")
"""How a run ended, by its code: it left, or was late at t1, or at `MAX_STEPS`, or had no step to go on with."""
ADAPTIVE = diffrax.PIDController(rtol=1e-3, atol=1e-6)


@ft.cache
def shifted(loss: Any):
    """The loss as a function of the distance from a centre, which is given as args."""
    return lambda x, centre: loss(jtu.tree_map(jnp.add, x, centre), None)


def directions() -> np.ndarray:
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, DIRECTIONS)
    return np.stack([np.cos(angles), np.sin(angles)])


def exit_times(
    problem: fo.Problem,
    point: fo.CriticalPoint,
    flow: fo.AbstractFlow,
    starts: np.ndarray,
    t1: float,
    solver: diffrax.AbstractSolver,
    rtol: float = 1e-7,
) -> tuple[np.ndarray, np.ndarray]:
    """When each run from point + `starts`, shape (2, ...), left, NaN if it did not; and how it ended, in `ENDS`."""
    centre = tuple(jnp.asarray(x, float) for x in point.params)
    x = tuple(jnp.asarray(s) for s in starts.reshape(2, -1))
    found = _exit_times(shifted(problem.loss), flow, solver, x, centre, jnp.asarray(t1), rtol)
    times, ends = (np.asarray(x).reshape(starts.shape[1:]) for x in found)
    return times, ends


@ft.partial(jax.jit, static_argnums=(0, 1, 2))
def _exit_times(fn, flow, solver, starts, centre, t1, rtol):
    term = fo.FlowTerm(flow, fn)

    # What a rounding of centre + start moves the field by, no shorter step mends.
    rounding = jnp.finfo(t1.dtype).eps * (1 + jnp.sqrt(sum_squares(centre)))

    def one(start):
        atol = rtol * jnp.sqrt(sum_squares(start)) + 4 * rounding
        left = lambda t, y, args, **_: sum_squares(y.params) - EXIT**2
        late = lambda t, y, args, **_: t >= t1
        solution = diffrax.diffeqsolve(
            term,
            solver,
            jnp.zeros_like(t1),
            jnp.full_like(
                t1, jnp.inf
            ),  # near a finite end, a rejected step may be tried again for ever
            FIRST_STEP,
            term.init(start),
            centre,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            event=diffrax.Event((left, late), optx.Newton(rtol=1e-8, atol=1e-8)),
            max_steps=MAX_STEPS,
            throw=False,
        )
        assert solution.ts is not None and solution.event_mask is not None
        out = solution.result == diffrax.RESULTS.max_steps_reached
        ends = jnp.select([*solution.event_mask, out], [0, 1, 2], 3)
        return jnp.where(ends == 0, solution.ts[-1], jnp.nan), ends

    return jax.vmap(one)(starts)


def exits(problem: fo.Problem, flow: fo.AbstractFlow, radii: np.ndarray) -> xr.Dataset:
    """Exit times under `flow` from every critical point with a positive eigenvalue, the largest of which is mu."""
    method = fo.Method(flow, diffrax.Heun(), ADAPTIVE, step=0.1)
    points, mus, found = [], [], []
    for i, point in enumerate(problem.critical_points):
        ds = fo.spectrum(method, problem, point)
        if (ds.attrs["stability"], ds.attrs["decided_by"]) == ("unstable", "eigenvalues"):
            points.append(i)
            mus.append(float(ds.eigenvalue.values.real.max()))
            starts = directions()[:, :, None] * radii
            found.append(exit_times(problem, point, flow, starts, 80 / mus[-1], diffrax.Tsit5()))
    shape = (len(points), DIRECTIONS, len(radii))
    times = np.array([t for t, _ in found]).reshape(shape)
    slopes = [slope(t, radii) for t in times]
    over = ("point", "direction", "r")
    meaning = {"flag_values": list(range(len(ENDS))), "flag_meanings": " ".join(ENDS)}
    return xr.Dataset(
        {
            "exit_time": (over, times, {"units": "time"}),
            "ended": (over, np.array([e for _, e in found], int).reshape(shape), meaning),
            "eigenvalue": ("point", np.array(mus, float), {"units": "1/time"}),
            "ratio": ("point", np.array(slopes, float) * mus, {"units": "1"}),
        },
        coords={"point": np.array(points, int), "r": ("r", radii, {"units": "params"})},
        attrs={"natures": [problem.critical_points[i].nature for i in points]},
    )


def slope(times: np.ndarray, radii: np.ndarray) -> float:
    """The mean slope of (directions, radii) over ln(1/r), r <= 1e-5, of the directions whose runs all left."""
    times = times[:, close := radii <= 1.01e-5]
    times = times[np.isfinite(times).all(axis=1)]
    return (
        float(np.mean(np.polyfit(-np.log(radii[close]), times.T, 1)[0])) if len(times) else np.nan
    )


def step_exits(problem: fo.Problem, method: fo.Method, radii: np.ndarray) -> xr.Dataset:
    """Steps until each run has left a maximum or saddle, and the largest multiplier there."""
    points = [i for i, p in enumerate(problem.critical_points) if p.nature != "minimum"]
    steps, growth = [], []
    for i in points:
        point = problem.critical_points[i]
        starts = (directions()[:, :, None] * radii).reshape(2, -1)
        ends = fo.ensemble(
            shifted(problem.loss),
            tuple(jnp.asarray(s) for s in starts),
            method,
            args=tuple(jnp.asarray(x, float) for x in point.params),
            max_steps=MAX_STEPS,
            stop=has_left,
        )
        left = np.where(ends.outcome == "converged", ends.accepted, np.nan)
        steps.append(left.reshape(DIRECTIONS, -1))
        growth.append(np.abs(fo.spectrum(method, problem, point).multiplier.values[0]))
    return xr.Dataset(
        {
            "steps": (("point", "direction", "r"), np.array(steps), {"units": "steps"}),
            "multiplier": ("point", np.array(growth), {"units": "1"}),
            "slope": ("point", np.array([slope(s, radii) for s in steps]), {"units": "steps"}),
        },
        coords={"point": points, "r": ("r", radii, {"units": "params"})},
        attrs={"natures": [problem.critical_points[i].nature for i in points]},
    )


def has_left(state):
    return sum_squares(state.params) > EXIT**2


def algebraic_exits(problem: fo.Problem) -> xr.Dataset:
    """Exit times of the gradient flow from unstable points without a positive eigenvalue, along a coordinate.

    Along a coordinate u in which the derivative of the loss vanishes like a u^m, T = r^(1 - m)/((m - 1) a).
    """
    radii = 10.0 ** -np.array([1.5, 2.0, 2.5, 3.0])
    flow = fo.flows.Gradient()
    method = fo.Method(flow, diffrax.Heun(), ADAPTIVE, step=0.1)
    # u = b and s = w + b separate the loss.
    along = {0: np.array([-1.0, 1.0]), 1: np.array([1.0, 0.0])}
    points, orders, found = [], [], []
    for i, point in enumerate(problem.critical_points):
        ds = fo.spectrum(method, problem, point)
        if (ds.attrs["stability"], ds.attrs["decided_by"]) != ("unstable", "energy"):
            continue
        for coordinate, m in enumerate(point.multiplicity or ()):
            for side in (1, -1):
                d = side * along[coordinate] / np.linalg.norm(along[coordinate])
                near = tuple(x + 0.02 * y for x, y in zip(point.params, d, strict=True))
                if m < 2 or not float(problem.loss(near, None)) < point.value:
                    continue
                # Stiff where the other coordinate has a curvature; below 1e-5 its Newton steps do not converge.
                stiff = bool(np.any(point.hessian))
                solver, rtol = (diffrax.Kvaerno3(), 1e-5) if stiff else (diffrax.Tsit5(), 1e-7)
                starts = d[:, None] * radii
                found.append(exit_times(problem, point, flow, starts, 1e12, solver, rtol))
                points.append(i)
                orders.append(m)
    times = np.array([t for t, _ in found])
    powers = [float(np.polyfit(np.log(radii[1:]), np.log(t[1:]), 1)[0]) for t in times]
    return xr.Dataset(
        {
            "exit_time": (("start", "r"), times, {"units": "time"}),
            "ended": (("start", "r"), np.array([e for _, e in found], int)),
            "order": ("start", np.array(orders)),
            "power": ("start", np.array(powers), {"units": "1"}),
        },
        coords={"point": ("start", points), "r": ("r", radii, {"units": "params"})},
        attrs={"natures": [problem.critical_points[i].nature for i in points]},
    )


def log_linear(ds: xr.Dataset) -> float:
    """How far slope x ln|z| is from 1, at most, over the points of `step_exits`."""
    return max(
        abs(s * math.log(z) - 1) for s, z in zip(ds.slope.values, ds.multiplier.values, strict=True)
    )
