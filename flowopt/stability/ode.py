"""An ODE, given by a Diffrax term, as a system with attractors."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PyTree

from flowopt.stability.attractors import (
    Attractors,
    attractor_points,
    check_target,
    feature_label,
    outside,
)
from flowopt.stability.labels import DIVERGED, MAX_STEPS
from flowopt.stability.systems import AbstractSystem


class ODE(AbstractSystem):
    """An initial value problem from t0 to t1, by `diffrax.diffeqsolve`, and where it leads.

    - `term`: a `diffrax.AbstractTerm`, such as `diffrax.ODETerm(lambda t, y, args: ...)`; it may depend on t.
    - `t1`: the end, by which the transient must be over [time].
    - Either `attractors`: a list with a state for each fixed point, or a list of states for each larger
      attractor: the run belongs to the nearest, if within `radius` [state] of it at t1. Of a term with
      period T and t1 a multiple of it, these are the points of the stroboscopic map's cycles.
    - Or `feature(ts, ys) -> int`: the label of the trajectory, seen at `ts` (times up to t1, by default t1
      alone); `names` says what each label is.
    - `solver`, `controller`, `dt0`, `t0`, `args`, `max_steps`: as in `diffeqsolve`.
    - `bound`: a run with a number past it has diverged, and ends there [state].

    Labels: the index of the attractor; -1 near none, -2 `max_steps` reached before t1, -3 diverged. Raises
    TypeError or ValueError, naming the argument.
    """

    term: diffrax.AbstractTerm
    t1: float
    attractors: Attractors | None
    feature: Callable[[Float[Array, " s"], PyTree], Any] | None
    ts: Float[np.ndarray, " s"]
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    dt0: float | None
    t0: float
    args: Any
    max_steps: int = eqx.field(static=True)
    bound: float
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        term: diffrax.AbstractTerm,
        t1: float,
        attractors: Sequence[PyTree] | None = None,
        *,
        radius: float = 1e-2,
        feature: Callable[[Float[Array, " s"], PyTree], Any] | None = None,
        names: Sequence[str] | None = None,
        ts: Sequence[float] | Float[np.ndarray, " s"] | None = None,
        solver: diffrax.AbstractSolver | None = None,
        controller: diffrax.AbstractStepSizeController | None = None,
        dt0: float | None = None,
        t0: float = 0.0,
        args: Any = None,
        max_steps: int = 100_000,
        bound: float = 1e6,
    ):
        if not isinstance(term, diffrax.AbstractTerm):
            raise TypeError(
                f"`term` must be a diffrax term, such as diffrax.ODETerm(field); got {term!r}"
            )
        if not (np.isfinite(t1) and np.isfinite(t0) and t1 > t0):
            raise ValueError(f"`t1` must be finite and after t0 = {t0}; got {t1}")
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
            raise ValueError(f"`max_steps` must be an int >= 1; got {max_steps!r}")
        if not bound > 0:
            raise ValueError(f"`bound` must be > 0; got {bound}")
        times = np.asarray([t1] if ts is None else ts, float)
        if times.ndim != 1 or not len(times) or not np.all((t0 <= times) & (times <= t1)):
            raise ValueError(f"`ts` must be times in [t0, t1] = [{t0}, {t1}]; got {ts!r}")
        if np.any(np.diff(times) <= 0):
            raise ValueError("`ts` must increase")
        if ts is not None and feature is None:
            raise TypeError("`ts` goes with `feature`; proximity is judged at t1")
        self.attractors, self.names = check_target(attractors, radius, feature, names)
        self.term, self.t1, self.feature, self.ts = term, t1, feature, times
        self.solver = diffrax.Tsit5() if solver is None else solver
        default = diffrax.PIDController(rtol=1e-8, atol=1e-8)
        self.controller = default if controller is None else controller
        self.dt0, self.t0, self.args = dt0, t0, args
        self.max_steps, self.bound = max_steps, bound

    def end(self, start: PyTree):
        sol = diffrax.diffeqsolve(
            self.term,
            self.solver,
            self.t0,
            self.t1,
            self.dt0,
            start,
            self.args,
            stepsize_controller=self.controller,
            saveat=diffrax.SaveAt(ts=jnp.asarray(self.ts)),
            event=diffrax.Event(lambda t, y, args, **_: outside(y, self.bound)),
            max_steps=self.max_steps,
            throw=False,
        )
        assert sol.ts is not None and sol.ys is not None
        finished = sol.result == diffrax.RESULTS.successful
        if self.feature is not None:
            label = feature_label(self.feature(sol.ts, sol.ys), len(self.names), ~finished)
        else:
            assert self.attractors is not None
            label = self.attractors.label(jtu.tree_map(lambda y: y[-1], sol.ys))
            label = jnp.where(finished, label, DIVERGED)
        late = sol.result == diffrax.RESULTS.max_steps_reached
        accepted, rejected = sol.stats["num_accepted_steps"], sol.stats["num_rejected_steps"]
        return jnp.where(late, MAX_STEPS, label), accepted, rejected

    def points(self) -> xr.Dataset:
        return attractor_points(self.attractors, self.names)
