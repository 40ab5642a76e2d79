"""A loss together with what is known to be true of it: its critical points and their nature."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Int, PyTree

from .critical_point import CriticalPoint, nature_of_hessian


class Problem:
    """A loss with its known critical points. Hashed by identity, so it may be a static argument of
    `jax.jit`.

    `fo.Problem(loss, critical_points=[(0.0, 1.0), ...], name="mine")` is all a user's own loss
    needs: points given as plain params get value and Hessian from the loss, and a nature from the
    eigenvalues of the Hessian where those are clearly nonzero, else `"undecided"`.

    **Arguments:**

    - `loss`: `loss(params, args=None) -> scalar`.
    - `critical_points`: params pytrees, or `CriticalPoint`s. All of one structure.
    - `name`: for tables and error messages.
    - `expression`, `symbols`: the loss as a SymPy expression in the symbols, in the order of the
      leaves of the params; None where there is none. This is what `certify_critical_points` reads.
    - `statement`: what has been proven of the list of points; empty where nothing has.

    **Raises:** ValueError or TypeError, naming the argument.
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        critical_points: Sequence[Any] = (),
        name: str = "problem",
        *,
        expression: Any = None,
        symbols: tuple = (),
        statement: str = "",
    ):
        if not callable(loss):
            raise TypeError(
                f"loss: must be a function loss(params, args), got {type(loss).__name__}."
            )
        points = [_as_critical_point(loss, p) for p in critical_points]
        _check_same_structure(points)
        self.loss = loss
        self.name = name
        self.critical_points = tuple(sorted(points, key=_sort_key))
        self.expression = expression
        self.symbols = tuple(symbols)
        self.statement = statement

    def __repr__(self) -> str:
        return f"Problem({self.name!r}, {len(self.critical_points)} critical points)"

    def classify(self, params: PyTree, radius: float = 0.05) -> Int[np.ndarray, "..."]:
        """Which critical point each of many params lies at: an index into `critical_points`, or -1.

        **Arguments:**

        - `params`: a pytree whose every leaf has shape batch + (shape of that leaf in one point).
        - `radius`: the largest Euclidean distance to the nearest critical point, in units of the
          params.

        **Returns:** int32, of shape batch. Params that are not finite, or beyond the radius, give
        -1; a tie goes to the lower index.
        """
        if not (np.ndim(radius) == 0 and radius > 0 and np.isfinite(radius)):
            raise ValueError(f"radius: must be a positive finite number, got {radius!r}.")
        if not self.critical_points:
            leaves = jax.tree.leaves(params)
            return np.full(np.shape(leaves[0]) if leaves else (), -1, np.int32)
        coords, batch = self._coordinates(params)
        nearest = np.full(coords[0].shape, -1, np.int32)
        best = np.full(coords[0].shape, float(radius) ** 2)
        # One point at a time: memory stays that of a few vectors however many points there are.
        with np.errstate(over="ignore", invalid="ignore"):
            for index, point in enumerate(self.critical_points):
                centre = _flat(point.params)
                squared = sum((c - x) ** 2 for c, x in zip(coords, centre, strict=True))
                # NaN compares false, so it is never near anything. A point at exactly `radius`
                # counts.
                near = (squared < best) | ((squared == best) & (nearest < 0))
                nearest[near] = index
                best[near] = squared[near]  # pyright: ignore[reportIndexIssue]
        return nearest.reshape(batch)

    def _coordinates(self, params: PyTree) -> tuple[list[np.ndarray], tuple[int, ...]]:
        """The params as one vector per coordinate, each of length prod(batch), and batch."""
        template, structure = jax.tree.flatten(self.critical_points[0].params)
        leaves, given = jax.tree.flatten(params)
        if structure != given:
            raise ValueError(
                f"params: must have the structure of the critical points of {self.name}, "
                f"{structure}; got {given}."
            )
        coords, batch = [], None
        for leaf, one in zip(leaves, template, strict=True):
            leaf, shape = np.asarray(leaf, dtype=np.float64), np.shape(one)
            here = leaf.shape[: leaf.ndim - len(shape)]
            if leaf.shape[len(here) :] != shape or (batch is not None and here != batch):
                raise ValueError(
                    f"params: each leaf must have shape batch + {shape} with one batch shape "
                    f"for all; got {[np.shape(x) for x in leaves]}."
                )
            batch = here
            coords.extend(np.moveaxis(leaf.reshape(-1, max(1, int(np.prod(shape)))), -1, 0))
        return coords, batch or ()


def _flat(params: PyTree) -> np.ndarray:
    leaves = [np.ravel(np.asarray(x, dtype=np.float64)) for x in jax.tree.leaves(params)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def _sort_key(point: CriticalPoint):
    return (np.isnan(point.value), point.value, tuple(_flat(point.params)))


def _check_same_structure(points: Sequence[CriticalPoint]) -> None:
    shapes = [
        (jax.tree.structure(p.params), [np.shape(x) for x in jax.tree.leaves(p.params)])
        for p in points
    ]
    for n, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"critical_points: all must have one structure; number 0 has {shapes[0]}, "
                f"number {n} has {shape}."
            )


def _as_critical_point(loss: Callable[..., Any], point: Any) -> CriticalPoint:
    """Plain params become a `CriticalPoint` whose nature is read off the Hessian's eigenvalues."""
    if isinstance(point, CriticalPoint):
        return point
    if not np.all(np.isfinite(_flat(point))):
        raise ValueError(f"critical_points: must be finite, got {point}.")
    # Lists and integers are welcome; JAX needs floats to differentiate.
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype=jnp.result_type(float)), point)
    flat, unravel = ravel_pytree(params)
    hessian = np.asarray(jax.hessian(lambda x: loss(unravel(x), None))(flat))
    return CriticalPoint(
        params=point,
        value=float(loss(params, None)),
        nature=nature_of_hessian(hessian),
        hessian=hessian,
    )
