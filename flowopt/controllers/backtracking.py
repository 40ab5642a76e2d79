"""Backtracking: shrink the step until it is accepted, then grow it."""

from typing import Any

import diffrax
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from flowopt.tree import real_dtype


class Backtracking(diffrax.AbstractStepSizeController):
    """Divides the step by `shrink` until it is accepted, then multiplies it by `grow`.

    A step is accepted iff max |error/(atol + rtol max(|y0|, |y1|))| <= 1. Behind an `EnergyGuard`, whose
    error is already scaled (rtol = 0, atol = 1, the defaults), that is the energy test to the last
    bit. With `grow` = 10_000 it is the law of the source document; with `grow` = 1 and Euler on the
    gradient flow it is Armijo's backtracking.
    """

    shrink: float = 2.0
    """Divisor after a rejected step, > 1."""
    grow: float = 10_000.0
    """Factor after an accepted step, >= 1."""
    rtol: float = 0.0
    """Relative tolerance on the error, >= 0."""
    atol: float = 1.0
    """Absolute tolerance on the error, > 0 unless rtol is."""
    dtmax: float | None = None
    """Longest step [time]; None for no bound."""

    def __check_init__(self):
        if not self.shrink > 1:
            raise ValueError(f"`shrink` must be > 1; got {self.shrink}")
        if not self.grow >= 1:
            raise ValueError(f"`grow` must be >= 1; got {self.grow}")
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise ValueError(
                f"`rtol` and `atol` must be >= 0 and not both 0; got {self.rtol} and {self.atol}"
            )
        if self.dtmax is not None and not self.dtmax > 0:
            raise ValueError(f"`dtmax` must be > 0, or None; got {self.dtmax}")

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        if dt0 is None:
            raise ValueError("Backtracking needs a first step: pass `dt0` (`step` of a Method)")
        return t0 + self._bounded(dt0), None

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ) -> tuple[Any, Any, Any, bool, None, diffrax.RESULTS]:
        if y_error is None:
            raise ValueError(
                "Backtracking needs an error to judge by, and the solver estimates none: "
                "wrap it in flowopt.EnergyGuard"
            )
        h = t1 - t0
        keep = self._scaled_error(y0, y1_candidate, y_error) <= 1
        # Divided, not multiplied by 1/shrink, so that a power of two loses no digit of the step.
        t_next = jnp.where(keep, t1 + self._bounded(self.grow * h), t0 + h / self.shrink)
        return keep, jnp.where(keep, t1, t0), t_next, False, None, diffrax.RESULTS.successful

    def _bounded(self, h: Any) -> Any:
        return h if self.dtmax is None else jnp.minimum(h, self.dtmax)

    def _scaled_error(self, y0: PyTree, y1: PyTree, error: PyTree) -> Float[Array, ""]:
        dtype = real_dtype(error)
        error = jtu.tree_map(lambda e: e.astype(dtype), error)
        if self.rtol == 0 and self.atol == 1:
            return optx.max_norm(error)

        def scale(a, b, e):
            return e / (self.atol + self.rtol * jnp.maximum(jnp.abs(a), jnp.abs(b)))

        return optx.max_norm(jtu.tree_map(scale, y0, y1, error))
