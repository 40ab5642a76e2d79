"""How fast neighbouring runs part: finite-time Lyapunov exponents of the discrete method."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.objective import Evaluations
from flowopt.run.step import Stepper, make_stepper
from flowopt.stability.labels import check_problem, describe
from flowopt.stability.starts import check_region


def expansion(
    problem: Problem,
    method: Method,
    region: Sequence[tuple[float, float]] = ((-3.0, 3.0), (-3.0, 3.0)),
    resolution: int = 128,
    steps: int = 100,
    *,
    args: Any = None,
) -> xr.Dataset:
    """The finite-time Lyapunov exponent of `method` over a grid of starts: ln |D Phi|_2 / steps.

    Phi takes the params at the start to those after `steps` attempted steps, memory started as the method does; D Phi
    is its Jacobian, by jvp through every step; |D Phi|_2 is the most that it stretches a small displacement. Positive:
    neighbouring starts part, as across the boundary of two basins; negative: they meet. Which steps are kept, and
    how long they are, is held fixed in the derivative.

    - `region`, `resolution`: as in `flowopt.basins`, for params (w, b).

    Returns a dataset over (w, b): `exponent` [1/step], NaN where the run or its derivative overflowed, and -inf where
    the derivative is 0. Raises TypeError or ValueError, naming the argument.   [Shadden, Lekien and Marsden 2005]
    """
    check_problem(problem)
    pairs = check_region(region)
    if len(pairs) != 2:
        raise ValueError(
            f"`region` must be two pairs, ((w_lo, w_hi), (b_lo, b_hi)); got {region!r}"
        )
    for name, value in (("resolution", resolution), ("steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be an int >= 1; got {value!r}")
    w, b = (lo + (hi - lo) * (np.arange(resolution) + 0.5) / resolution for lo, hi in pairs)
    starts = np.stack([x.ravel() for x in np.meshgrid(w, b, indexing="ij")], axis=-1)
    starts = jnp.asarray(starts, jnp.result_type(float))
    stepper = make_stepper(problem.loss, tuple(starts[0]), method, args, 1.0, None, _never)
    exponent = np.asarray(_exponents(stepper, starts, steps)).reshape(resolution, resolution)
    return xr.Dataset(
        {"exponent": (("w", "b"), exponent, {"units": "1/step"})},
        coords={"w": ("w", w, {"units": "params"}), "b": ("b", b, {"units": "params"})},
        attrs={
            **describe(problem, method, 0.0, steps, 0.0, _never, f"grid over {pairs}"),
            "region": [list(pair) for pair in pairs],
            "steps": steps,
        },
    )


def _never(run) -> bool:
    return False


@eqx.filter_jit
def _exponents(stepper: Stepper, starts: Float[Array, "m 2"], steps: int) -> Float[Array, " m"]:
    def end(start: Float[Array, " 2"]) -> Float[Array, " 2"]:
        def step(state, _):
            return stepper.advance(state, (Evaluations(), Evaluations())), None

        state, _ = jax.lax.scan(step, stepper.start((start[0], start[1])), None, steps)
        return jnp.stack(state.params)

    def exponent(start: Float[Array, " 2"]) -> Float[Array, ""]:
        jacobian = jax.jacfwd(end)(start)
        # Scaled first: the squares of a long run's derivative over- or underflow.
        size = jnp.max(jnp.abs(jacobian))
        usable = jnp.isfinite(size) & (size > 0)
        (a, b), (c, d) = jacobian / jnp.where(usable, size, 1)
        # The larger singular value of a 2 x 2 matrix.
        sum_, root = (
            a**2 + b**2 + c**2 + d**2,
            jnp.hypot(a**2 + b**2 - c**2 - d**2, 2 * (a * c + b * d)),
        )
        log = jnp.log(size) + 0.5 * jnp.log((sum_ + root) / 2)
        return jnp.where(usable, log, jnp.where(size == 0, -jnp.inf, jnp.nan)) / steps

    return jax.lax.map(exponent, starts, batch_size=1024)
