"""The step-size laws of the Levenberg-Marquardt family: by what a step gained of what its model promised."""

import abc
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.tree import inner, sum_squares, where


class AbstractRule(eqx.Module):
    """From rho = (gain)/(promised gain) to whether a step stands, and the factor to the next one. mu = 1/h."""

    def init(self, params: PyTree, dtype: Any) -> PyTree:
        """What the rule remembers, at the start."""
        return None

    @abc.abstractmethod
    def judge(
        self, rho: Float[Array, ""], report: Any, move: PyTree, state: PyTree
    ) -> tuple[Any, Float[Array, ""], PyTree]:
        """(keep, h_next/h, new state); `move` is theta1 - theta0, `report` a `solvers.Gain`."""


class Marquardt(AbstractRule):
    """Keep where R falls; then mu <- mu/factor, else mu <- factor mu.   [Marquardt 1963]"""

    factor: float = 10.0

    def __check_init__(self):
        if not self.factor > 1:
            raise ValueError(f"`factor` must be > 1; got {self.factor}")

    def judge(self, rho, report, move, state):
        keep = rho > 0
        return keep, jnp.where(keep, self.factor, 1 / self.factor), state


class Fletcher(AbstractRule):
    """Keep where R falls; mu <- mu/2 where rho > 3/4; where rho < 1/4, mu <- mu nu, nu in [2, 10] from a parabola.

    1/nu = -<g, d>/(2 (R1 - R0 - <g, d>)) is where the parabola through R0, R1 and the slope at theta0
    has its minimum, in units of the step.   [Fletcher 1971, without his cut to mu = 0]
    """

    def judge(self, rho, report, move, state):
        return (
            rho > 0,
            jnp.where(rho > 0.75, 2, jnp.where(rho < 0.25, parabola(rho, report), 1)),
            state,
        )


class More(AbstractRule):
    """Keep where rho > 1e-4; h <- 2h where rho >= 3/4; where rho <= 1/4, h <- h clip(1/nu, 1/10, 1/2), as `Fletcher`'s.

    The rule of MINPACK for the radius of its trust region, here for h = 1/mu, which bounds the
    step as the radius does: |d| <= h |grad R| in the metric.   [Moré 1978]
    """

    def judge(self, rho, report, move, state):
        shrunk = jnp.where(report.after <= report.before, 0.5, parabola(rho, report))
        return rho > 1e-4, jnp.where(rho >= 0.75, 2, jnp.where(rho <= 0.25, shrunk, 1)), state


class Nielsen(AbstractRule):
    """Keep where R falls, mu <- mu max(1/3, 1 - (2 rho - 1)^3); else mu <- mu 2, 4, 8, ... at each failure in a row.

    No jumps between factors, and quick out of a bad region.   [Nielsen 1999]
    """

    def init(self, params, dtype):
        return jnp.full((), 2, dtype)

    def judge(self, rho, report, move, state):
        keep = rho > 0
        shrink = jnp.maximum(1 / 3, 1 - (2 * jnp.clip(rho, 0, 1) - 1) ** 3)
        # Not past what can be multiplied: after 60 failures in a row the step is nothing anyway.
        doubled = jnp.minimum(2 * state, 2.0**60)
        return keep, 1 / jnp.where(keep, shrink, state), jnp.where(keep, 2, doubled)


class Uphill(AbstractRule):
    """Keep where R falls, or where (1 - cos)^b R1 <= the least R so far; mu <- mu/down if kept, else mu <- up mu.

    cos is that of the angle between this move and the last one kept: moves in one direction may go uphill,
    along a narrow valley, where moves that turn back may not. "Bold acceptance" with "delayed
    gratification".   [Transtrum and Sethna 2012]
    """

    b: float = 2.0
    """1 or 2: the larger, the bolder."""
    up: float = 2.0
    down: float = 3.0

    def __check_init__(self):
        for name, value, least in (("b", self.b, 0), ("up", self.up, 1), ("down", self.down, 1)):
            if not value > least:
                raise ValueError(f"`{name}` must be > {least}; got {value}")

    def init(self, params, dtype):
        # The least R so far, and the last move kept: none yet.
        return jnp.full((), jnp.inf, dtype), jnp.zeros((), dtype), params

    def judge(self, rho, report, move, state):
        least, moved, last = state
        least = jnp.minimum(least, report.before.astype(least.dtype))
        sizes = jnp.sqrt(sum_squares(move) * sum_squares(last)).astype(least.dtype)
        cos = inner(move, last).astype(least.dtype) / jnp.where(sizes > 0, sizes, 1)
        cos = jnp.where(sizes > 0, cos, 0) * moved
        after = report.after.astype(least.dtype)
        bold = (moved > 0) & ((1 - jnp.clip(cos, -1, 1)) ** self.b * after <= least)
        keep = ((rho > 0) | bold) & jnp.isfinite(after) & jnp.isfinite(report.excess)
        pick = lambda a, b: jnp.where(keep, a, b)
        new = jnp.minimum(least, pick(after, least)), pick(1, moved), where(keep, move, last)
        return keep, pick(self.down, 1 / self.up), new


def parabola(rho: Float[Array, ""], report: Any) -> Float[Array, ""]:
    """1/nu in [1/10, 1/2]: -<g, d>/(2 (R1 - R0 - <g, d>)), both divided by what the model promised."""
    slope = report.slope.astype(rho.dtype)
    bend = slope - rho
    least = 0.5 * slope / jnp.where(bend > 0, bend, 1)
    return jnp.clip(jnp.where(jnp.isfinite(rho) & (bend > 0), least, 0.1), 0.1, 0.5)


class GainRatio(diffrax.AbstractStepSizeController):
    """Judges a step of `RosenbrockEuler` by rho, its gain over what its quadratic model promised, under a `rule`.

    h stays within [h_min, h_max]: mu = 1/h is bounded on both sides. A NaN or infinite R counts as rho = -infinity.
    Gives up (the run has `stalled`) where a step at h_min fails, or where the model promises less than
    the rounding of R.
    """

    rule: AbstractRule = Nielsen()
    """Marquardt(), Fletcher(), More(), Nielsen() or Uphill()."""
    h_min: float = 0.0
    """Shortest step, >= 0; a run at it that still fails ends as stalled."""
    h_max: float = float("inf")
    """Longest step, > h_min."""

    @property
    def wants_gain(self) -> bool:
        """For `Method`: have the solver report a `Gain`."""
        return True

    def __check_init__(self):
        if not isinstance(self.rule, AbstractRule):
            raise TypeError(f"`rule` must be a rule such as Nielsen(); got {self.rule!r}")
        if not 0 <= self.h_min < self.h_max:
            raise ValueError(
                f"`h_min` and `h_max` must satisfy 0 <= h_min < h_max; got {self.h_min} and {self.h_max}"
            )

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        if dt0 is None:
            raise ValueError("GainRatio needs a first step: pass `dt0` (`step` of a Method)")
        return t0 + dt0, self.rule.init(y0.params, jnp.result_type(dt0))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error: Any, error_order, controller_state
    ) -> tuple[Any, Any, Any, bool, PyTree, diffrax.RESULTS]:
        if not hasattr(y_error, "slope"):
            raise ValueError(
                "GainRatio judges by the report of flowopt.RosenbrockEuler(report_gain=True); this solver makes none"
            )
        h = jnp.asarray(t1 - t0)
        rho = 1 - y_error.excess.astype(h.dtype)
        move = jtu.tree_map(jnp.subtract, y1_candidate.params, y0.params)
        keep, factor, state = self.rule.judge(rho, y_error, move, controller_state)
        limits = jnp.finfo(h.dtype)
        lowest, highest = max(self.h_min, float(limits.tiny)), min(self.h_max, float(limits.max))
        h_next = jnp.clip(h * factor.astype(h.dtype), lowest, highest)
        # At the shortest step a rejected one would be tried again for ever; and what is promised
        # may be less than the rounding of R, so that no step can be judged any more.
        rounding = jnp.finfo(y_error.before.dtype).eps * jnp.abs(y_error.before)
        stuck = (~keep & (h_next >= h)) | (y_error.promised <= rounding)
        result = diffrax.RESULTS.where(
            stuck, diffrax.RESULTS.dt_min_reached, diffrax.RESULTS.successful
        )
        start = jnp.where(keep, t1, t0)
        return keep, start, start + h_next, False, state, result
