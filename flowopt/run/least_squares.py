"""One run of a method on a sum of squares."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PyTree

from flowopt.methods import Method, levenberg_marquardt
from flowopt.objective import SumOfSquares, check_params
from flowopt.run.single import run
from flowopt.run.solution import Solution
from flowopt.run.step import RunState, Stop
from flowopt.run.watch import Callback, Watch


def least_squares(
    residuals: Callable[[PyTree, Any], PyTree],
    params: PyTree,
    method: Method | None = None,
    *,
    args: Any = None,
    tol: float = 1e-6,
    max_steps: int | None = 10_000,
    stop: Stop | None = None,
    history: Sequence[str] | str | bool | None = None,
    capacity: int = 1024,
    callback: Callback | None = None,
    every: int = 100,
    progress: bool | str = False,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Solution:
    """Runs `method` on R = 1/2 sum r^2, r = residuals(params, args), from `params` until |grad R|_2 = |J'r|_2 < `tol`.

    - `residuals`: gives a pytree of floating arrays, of any number of residuals, fewer than params or more.
    - `method`: `levenberg_marquardt()` by default; any other method runs too, on R.
    - The rest, and the solution, are those of `minimise`; in `stats`, `residual_evals` and `jacobian_evals` count
      r and J (however many columns J has), `grad_evals` the backward passes of methods that form no J.

    For many runs, give `flowopt.SumOfSquares(residuals)` to `ensemble`.

    Raises TypeError or ValueError, naming the argument, for arguments that cannot run.
    """
    at = params.params if isinstance(params, RunState) else params
    method = levenberg_marquardt() if method is None else method
    objective = SumOfSquares(check_residuals(residuals, check_params(at), args))
    watch = Watch(history, capacity, callback, every, progress)
    names = ("residual", "jacobian")
    return run(objective, params, method, args, tol, max_steps, stop, watch, adjoint, names)


class _SameShape(eqx.Module):
    """Residuals that raise as soon as their shape is not what it was at first."""

    residuals: Callable
    structure: Any = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def __call__(self, params: PyTree, args: Any) -> PyTree:
        r = self.residuals(params, args)
        leaves, structure = jtu.tree_flatten(r)
        if (structure, tuple(jnp.shape(x) for x in leaves)) != (self.structure, self.shapes):
            first = jtu.tree_unflatten(self.structure, self.shapes)
            raise ValueError(
                f"`residuals` must have the same shape at every call; got {first} at first and "
                f"{jtu.tree_map(jnp.shape, r)} later"
            )
        return r


def check_residuals(residuals: Callable, params: PyTree, args: Any) -> Callable:
    """`residuals`, if they are; raises TypeError or ValueError naming them if not."""
    if not callable(residuals):
        raise TypeError(
            f"`residuals` must be callable as residuals(params, args); got {residuals!r}"
        )
    out = jax.eval_shape(lambda p: residuals(p, args), params)
    leaves = jtu.tree_leaves(out)
    if not leaves:
        raise ValueError(f"`residuals` must return at least one array; got {out}")
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"`residuals` must return floating arrays; got {leaf.dtype}")
    if len(leaves) == 1 and leaves[0].shape == ():
        raise ValueError(
            "`residuals` returned one scalar, which looks like a loss: return the residuals themselves, not "
            "the sum of their squares, or give the loss to flowopt.minimise. (One residual is an array of shape (1,).)"
        )
    return _SameShape(residuals, jtu.tree_structure(out), tuple(x.shape for x in leaves))
