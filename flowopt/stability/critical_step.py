"""The largest stable step of a method at a critical point."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowopt.benchmarks import CriticalPoint, Problem
from flowopt.methods import Method
from flowopt.stability import linearise
from flowopt.stability.labels import check_problem
from flowopt.stability.spectrum import (
    eigenvalues,
    find_point,
    growth,
    multipliers,
    neutral,
    smooth_part,
)

_CHUNK = 64
_PER_OCTAVE = 16
_OCTAVES = 40
_ROUNDING = 1e4
_CREEPING = 1e-6


def critical_step(
    method: Method | Callable[[Any], Method], problem: Problem, point: CriticalPoint | int
) -> float:
    """The h_c such that `method` is stable at the critical point for all steps 0 < h < h_c, and not just above it.

    - a `Method`: h [time] varies while the flow stays as it is: of its solver on its flow, whatever its controller
      and its own step.
    - a function of one number that makes a method of constant step: that number varies, and all that the method makes
      of it. `critical_step(fo.gd, ...)` is 2/L, L the largest curvature; `lambda lr: fo.momentum(lr, 0.9)` gives
      2 (1 + 0.9)/L, where `fo.momentum(lr, 0.9)` itself, whose friction is then fixed, gives another h_c.
    - `point`: as in `spectrum`.

    Stable: no multiplier of the step (see `spectrum`) outside the unit circle; those that are 1 for every step, of
    eigenvalues 0, do not count. 0 where arbitrarily short steps are unstable, as at a saddle of the gradient flow, or
    of Heun's method on a frictionless heavy ball; infinite where all are stable, as of implicit Euler at a
    minimum. Stable steps may come back above h_c: they do not count.

    Found on a grid of 16 steps per octave, from 2^-40 (for a function, 2^-80) to 2^40 times the fastest time, then
    refined, in float64 to about 1e-11; an unstable window narrower than 4% of its place may be missed.

    Raises TypeError or ValueError, naming the argument; ValueError where the flow has no spectrum.
    """
    make = _maker(method)
    check_problem(problem)
    point = find_point(problem, point)
    example = make(1.0)
    fn, params = linearise.objective(problem, point, example)
    y = linearise.at_rest(example.flow, fn, params)
    A, smooth = smooth_part(example.flow, fn, y)
    mu = eigenvalues(A, smooth)
    if not np.isfinite(mu).all():
        raise ValueError(
            f"`method`: the velocity of {type(example.flow).__name__} has no derivative at `point`, so there are no "
            "multipliers to go by"
        )
    zeros = neutral(mu)

    @eqx.filter_jit
    @jax.vmap
    def jacobian(h: Float[Array, ""]) -> Float[Array, "n n"]:
        made = make(h)
        y = linearise.at_rest(made.flow, fn, params)
        step = h if isinstance(method, Method) else jnp.asarray(made.step, h.dtype)
        return linearise.step_jacobian(made, fn, y, step)

    dtype = jnp.result_type(float)
    slack = _ROUNDING * float(jnp.finfo(dtype).eps)

    def growths(steps: np.ndarray) -> list[float]:
        """Of steps, always `_CHUNK` of them, so that it is compiled once."""
        matrices = np.asarray(jacobian(jnp.asarray(steps, dtype)))
        return [growth(multipliers(M, smooth), zeros) for M in matrices]

    def first_unstable(steps: np.ndarray) -> int | None:
        """The index of the first of the steps that is unstable."""
        unstable = [grows > slack for grows in growths(steps)]
        return int(np.argmax(unstable)) if any(unstable) else None

    fixed = isinstance(method, Method)
    fastest = np.max(np.abs(mu if fixed else A), initial=0)
    lowest = -_OCTAVES if fixed else -2 * _OCTAVES
    # Off the powers of 2, where an implicit solver may have a pole.
    exponents = (np.arange(lowest * _PER_OCTAVE, _OCTAVES * _PER_OCTAVE) + 0.3) / _PER_OCTAVE
    grid = 2.0**exponents / (fastest if fastest > 0 else 1.0)
    low, high = 0.0, np.inf
    for chunk in grid.reshape(-1, _CHUNK):
        i = first_unstable(chunk)
        if i is not None:
            low, high = chunk[i - 1] if i else low, chunk[i]
            break
        low = chunk[-1]
    if low == 0 or high == np.inf:
        return float(high) if low else 0.0
    while high - low > 8 * np.finfo(float).eps * high:
        steps = np.linspace(low, high, _CHUNK + 1)[1:]
        i = first_unstable(steps)
        # The last of them is `high`, so one is unstable.
        assert i is not None
        low, high = (steps[i - 1] if i else low), steps[i]
    twice = growths(np.full(_CHUNK, 2 * high))[0]
    return float(high) if twice > _CREEPING else 0.0


def _maker(method: Any) -> Callable[[Any], Method]:
    """The function from a step to the method that has it; raises, naming the argument."""
    if isinstance(method, Method):
        return lambda h: method
    if not callable(method):
        raise TypeError(
            "`method` must be a flowopt.Method, or a function of one number that makes one, such as flowopt.gd; "
            f"got {method!r}"
        )

    def make(x):
        made = method(x)
        if not isinstance(made, Method):
            raise TypeError(f"`method` must make a flowopt.Method of a number; it made {made!r}")
        if not isinstance(made.controller, diffrax.ConstantStepSize):
            raise ValueError(
                "`method` makes a method whose controller changes the step; give that Method itself, to vary the "
                "step of its solver"
            )
        return made

    return make
