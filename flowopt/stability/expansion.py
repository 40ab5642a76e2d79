"""How fast neighbouring runs part: finite-time Lyapunov exponents of the discrete method."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PyTree

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.objective import Evaluations
from flowopt.run.step import Stepper, make_stepper
from flowopt.stability.grid import make_grid
from flowopt.stability.labels import check_problem, describe, describe_points
from flowopt.stability.plane import Plane
from flowopt.tree import ravel, unravel


def expansion(
    problem: Problem,
    method: Method,
    region: Sequence[tuple[float, float]] = ((-3.0, 3.0), (-3.0, 3.0)),
    resolution: int | tuple[int, int] = 128,
    steps: int = 100,
    *,
    plane: Plane | None = None,
    within: bool = False,
    args: Any = None,
) -> xr.Dataset:
    """The finite-time Lyapunov exponent of `method` over a grid of starts: ln |D Phi|_2 / steps.

    Phi takes the params at the start to those after `steps` attempted steps, memory started as the method does; D Phi
    is its Jacobian, by jvp through every step; |D Phi|_2 is the most that it stretches a small displacement. Positive:
    neighbouring starts part, as across the boundary of two basins; negative: they meet. Which steps are kept, and
    how long they are, is held fixed in the derivative.

    - `region`, `resolution`, `plane`: the starts, as in `flowopt.basins`.
    - `within`: of the displacements, only those within the plane; it takes two jvps a step, however many params there
      are, where all displacements take one for each. The same where params are two numbers.

    Returns a dataset over (w, b), or (u, v) of a plane: `exponent` [1/step], NaN where the run or its derivative
    overflowed, and -inf where the derivative is 0; over `point` what `flowopt.basins` says of the critical points.
    Raises TypeError or ValueError, naming the argument.   [Shadden, Lekien and Marsden 2005]
    """
    check_problem(problem)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"`steps` must be an int >= 1; got {steps!r}")
    points = describe_points(problem)
    grid = make_grid(region, resolution, plane, points.sizes.get("param", 2))
    starts = grid.every_start()
    first = jtu.tree_map(lambda x: x[0], starts)
    stepper = make_stepper(problem.loss, first, method, args, 1.0, None, _never)
    numbers = len(grid.plane.origin)
    along = jnp.asarray(grid.plane.axes if within else np.eye(numbers), ravel(first).dtype)
    exponent = np.asarray(_exponents(stepper, starts, along, steps)).reshape(grid.sizes)
    ds = grid.dataset({"exponent": (exponent, {"units": "1/step"})}, points)
    run = describe(problem, method, 0.0, steps, 0.0, _never, grid.about)
    return ds.assign_attrs(**run, steps=steps, within=int(within))


def _never(run) -> bool:
    return False


@eqx.filter_jit
def _exponents(
    stepper: Stepper, starts: PyTree, along: Float[Array, "k n"], steps: int
) -> Float[Array, " m"]:
    """The exponent from each of m starts, of the displacements spanned by the rows of `along`."""

    def end(start: PyTree) -> Float[Array, " n"]:
        def step(state, _):
            return stepper.advance(state, (Evaluations(), Evaluations())), None

        state, _ = jax.lax.scan(step, stepper.start(start), None, steps)
        return ravel(state.params)

    def exponent(start: PyTree) -> Float[Array, ""]:
        push = lambda x: jax.jvp(end, (start,), (unravel(x, start),))[1]
        stretched = jax.vmap(push)(along)
        # Scaled first: the squares of a long run's derivative over- or underflow.
        size = jnp.max(jnp.abs(stretched))
        usable = jnp.isfinite(size) & (size > 0)
        ratio = jnp.where(usable, stretched / jnp.where(usable, size, 1), 1)
        log = jnp.log(size) + jnp.log(jnp.linalg.norm(ratio, 2))
        return jnp.where(usable, log, jnp.where(size == 0, -jnp.inf, jnp.nan)) / steps

    return jax.lax.map(exponent, starts, batch_size=1024)
