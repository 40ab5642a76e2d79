"""Log-bisection: bracket the longest acceptable step, then narrow the bracket in the logarithm."""

from typing import Any, NamedTuple

import diffrax
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx
from jaxtyping import Array, Float, Int

from flowopt.tree import real_dtype


class _Bracket(NamedTuple):
    accepted: Float[Array, ""]
    """The longest step found acceptable from here; 0 while there is none."""
    refused: Float[Array, ""]
    """The shortest step found not acceptable from here; infinite while there is none."""
    left: Int[Array, ""]
    """Bisections left."""


class LogBisection(diffrax.AbstractStepSizeController):
    """Divides the step by `shrink` until it is acceptable; then bisects, `bisections` times, between it and the last
    one refused, in log h; takes the longest acceptable step found, and multiplies it by `grow` for the next.

    The second step-size law of the source document's authors. A step acceptable at the first attempt is
    taken as it is. Finding out costs attempts, which count as rejected: each one value under an
    energy guard, and one more to go back to the longest acceptable step where that was not the last attempt.

    Acceptable means max |error| <= 1: the test of `flowopt.EnergyGuard`, behind which it belongs.
    """

    shrink: float = 30.0
    """Divisor after a refused step, > 1."""
    bisections: int = 3
    """How often the bracket is halved in log h, >= 0."""
    grow: float = 30.0
    """Factor after a step that was taken, >= 1."""

    def __check_init__(self):
        if not self.shrink > 1:
            raise ValueError(f"`shrink` must be > 1; got {self.shrink}")
        if isinstance(self.bisections, bool) or not isinstance(self.bisections, int):
            raise TypeError(f"`bisections` must be an int >= 0; got {self.bisections!r}")
        if self.bisections < 0:
            raise ValueError(f"`bisections` must be >= 0; got {self.bisections}")
        if not self.grow >= 1:
            raise ValueError(f"`grow` must be >= 1; got {self.grow}")

    def wrap(self, direction):
        return self

    def _unknown(self, h: Array) -> _Bracket:
        infinite = jnp.full_like(h, jnp.inf)
        return _Bracket(jnp.zeros_like(h), infinite, jnp.asarray(self.bisections, jnp.int32))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        if dt0 is None:
            raise ValueError("LogBisection needs a first step: pass `dt0` (`step` of a Method)")
        return t0 + dt0, self._unknown(jnp.asarray(dt0))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state: _Bracket
    ) -> tuple[Any, Any, Any, bool, _Bracket, diffrax.RESULTS]:
        if y_error is None:
            raise ValueError(
                "LogBisection needs an error to judge by, and the solver estimates none: "
                "wrap it in flowopt.EnergyGuard"
            )
        h = jnp.asarray(t1 - t0)
        dtype = real_dtype(y_error)
        error = jtu.tree_map(lambda e: e.astype(dtype), y_error)
        acceptable = optx.max_norm(error) <= 1
        bracket = controller_state
        # The attempt that goes back to a step known to be acceptable is taken whatever rounding says.
        back = (bracket.left == 0) & (bracket.accepted > 0) & (h <= bracket.accepted)
        low = jnp.where(acceptable, jnp.maximum(h, bracket.accepted), bracket.accepted)
        high = jnp.where(acceptable, bracket.refused, jnp.minimum(h, bracket.refused))
        bracketed = (low > 0) & jnp.isfinite(high)
        bisecting = bracketed & (bracket.left > 0)
        keep = (acceptable & ~bisecting & (h >= low)) | back
        # Still shrinking; halving the bracket in log h; or back to the longest acceptable step.
        middle = jnp.sqrt(low) * jnp.sqrt(high)
        retry = jnp.where(bisecting, middle, jnp.where(low > 0, low, h / self.shrink))
        left = jnp.where(bisecting, bracket.left - 1, bracket.left)
        fresh = self._unknown(h)
        state = _Bracket(
            *(jnp.where(keep, a, b) for a, b in zip(fresh, (low, high, left), strict=True))
        )
        t_start = jnp.where(keep, t1, t0)
        t_next = t_start + jnp.where(keep, self.grow * h, retry)
        return keep, t_start, t_next, False, state, diffrax.RESULTS.successful
