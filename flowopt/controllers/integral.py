"""The elementary step-size law: the next step is the one at which this error would have been just right."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.tree import real_dtype, rms_norm


class IntegralController(diffrax.AbstractAdaptiveStepSizeController):
    """h <- h clip(safety (1/e)^(1/order), factormin, factormax),  e = norm(error/(atol + rtol max(|y0|, |y1|))).

    Keeps a step iff e <= 1, and chooses the next step by the same formula whether it was kept or not.
    `diffrax.PIDController` with its default coefficients is the same law with one difference: after a
    step that was kept it never shrinks the next one (factormin is 1 there). For integrating an
    ODE that is sound. For an optimizer it means that steps grow to the limit of stability and are
    corrected only by rejections; and on the last stretch to a minimum, where the error no longer limits
    the step, it is a different method (the published shares of Euler-Richardson are met with
    this law and not with that one).   [Hairer, Norsett, Wanner 1993, II.4]
    """

    rtol: float = 0.0
    """Relative tolerance, >= 0."""
    atol: float = 1.0
    """Absolute tolerance, > 0 unless rtol is."""
    norm: Callable[[PyTree], Any] = rms_norm
    """The norm of the scaled error."""
    safety: float = 0.9
    """Aim below the tolerance by this factor in the step, in (0, 1]."""
    factormin: float = 0.2
    """Least factor from one step to the next, in [0, 1)."""
    factormax: float = 10.0
    """Largest, > 1."""
    error_order: float | None = None
    """Order of the error estimate in h; None for the solver's own."""

    def __check_init__(self):
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise ValueError(
                f"`rtol` and `atol` must be >= 0 and not both 0; got {self.rtol} and {self.atol}"
            )
        if not 0 < self.safety <= 1:
            raise ValueError(f"`safety` must lie in (0, 1]; got {self.safety}")
        if not 0 <= self.factormin < 1 < self.factormax:
            raise ValueError(
                "`factormin` must lie in [0, 1) and `factormax` must be > 1; got "
                f"{self.factormin} and {self.factormax}"
            )

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        if dt0 is not None:
            return t0 + dt0, None
        choose = diffrax.PIDController(
            rtol=self.rtol, atol=self.atol, norm=self.norm, error_order=self.error_order
        )
        return choose.init(terms, t0, t1, y0, dt0, args, func, error_order)[0], None

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ) -> tuple[Any, Any, Any, bool, None, diffrax.RESULTS]:
        if y_error is None:
            raise ValueError(
                "IntegralController needs an error to judge by, and the solver estimates none: "
                "wrap it in flowopt.EnergyGuard or use an embedded pair"
            )
        h = jnp.asarray(t1 - t0)
        error = self._scaled_error(y0, y1_candidate, y_error).astype(h.dtype)
        keep = error <= 1
        order = error_order if self.error_order is None else self.error_order
        factor = self.safety * (1 / jnp.where(error > 0, error, 1)) ** (1 / order)
        # An error of 0, or one that is not finite, says which way to go and not how far.
        factor = jnp.where(error > 0, factor, 10.0)
        factor = jnp.where(jnp.isfinite(error), factor, 0.1)
        factor = jnp.clip(factor, self.factormin, self.factormax)
        # A rejected step must shrink. (Not growing right after a rejection as well, as codes for ODEs do,
        # was tried: on poly2, poly3 and poly4 it saves 0.4 to 3% of the values.)
        factor = jnp.where(keep, factor, jnp.minimum(factor, self.safety))
        # Step sizes are held fixed under differentiation, as in Diffrax: at e = 0 the law has no derivative.
        factor = jax.lax.stop_gradient(factor)
        # Not to 0 or infinity, whatever the bounds: no law finds its way back from there.
        limits = jnp.finfo(h.dtype)
        h_next = jnp.clip(h * factor, limits.tiny, limits.max)
        t_start = jnp.where(keep, t1, t0)
        return keep, t_start, t_start + h_next, False, None, diffrax.RESULTS.successful

    def _scaled_error(self, y0: PyTree, y1: PyTree, error: PyTree) -> Float[Array, ""]:
        dtype = real_dtype(error)
        error = jtu.tree_map(lambda e: e.astype(dtype), error)
        if self.rtol == 0:
            return self.norm(error) / self.atol

        def scale(a, b, e):
            return e / (self.atol + self.rtol * jnp.maximum(jnp.abs(a), jnp.abs(b)))

        return self.norm(jtu.tree_map(scale, y0, y1, error))
