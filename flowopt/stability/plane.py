"""A two-dimensional plane of the parameter space, and the grids on it."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PyTree

from flowopt.objective import check_params


@dataclasses.dataclass(frozen=True)
class Plane:
    """origin + u e1 + v e2, for orthonormal e1 and e2: distances and shares of area in it are those of the params."""

    origin: np.ndarray
    """The params at (0, 0), in one vector of n numbers."""
    axes: np.ndarray
    """e1 and e2, as the rows of a (2, n) array."""
    like: PyTree
    """Params of the structure, shapes and dtypes that a start must have."""

    def starts(self, u: Float[np.ndarray, " k"], v: Float[np.ndarray, " k"]) -> PyTree:
        """The params at k places (u, v): a pytree with leading axis k."""
        flat = self.origin + np.outer(u, self.axes[0]) + np.outer(v, self.axes[1])
        leaves, structure = jtu.tree_flatten(self.like)
        ends = np.cumsum([x.size for x in leaves])
        parts = np.split(flat, ends[:-1], axis=1)
        return jtu.tree_unflatten(
            structure,
            [
                jnp.asarray(p.reshape(-1, *x.shape), x.dtype)
                for p, x in zip(parts, leaves, strict=True)
            ],
        )

    def place(self, vectors: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k 3"]:
        """For each of k params as vectors: (u, v) of its projection, and its distance from the plane [params]."""
        apart = vectors - self.origin
        uv = apart @ self.axes.T
        return np.column_stack([uv, np.linalg.norm(apart - uv @ self.axes, axis=1)])

    def __repr__(self) -> str:
        text = lambda x: np.array2string(x, threshold=6, precision=6, separator=", ")
        e1, e2 = self.axes
        return f"plane(origin={text(self.origin)}, e1={text(e1)}, e2={text(e2)})"


def plane(through: Sequence[PyTree], key: Array | int | None = None) -> Plane:
    """The plane through three params; through two, with a random direction; or through one, with two of them.

    - `through`: one to three pytrees of floating arrays, of one structure. The first is (0, 0); the second
      lies on the u axis, at its distance from the first; the third has v > 0.
    - `key`: a JAX key, or a seed, for the directions that the points leave open: of uniform
      distribution on the sphere. Needed with one or two points.

    Raises ValueError where the points lie on one line, or two of them coincide; TypeError or ValueError, naming
    the argument, where they are no params.
    """
    if not isinstance(through, list | tuple) or not 1 <= len(through) <= 3:
        raise TypeError(f"`through` must be a list of one, two or three params; got {through!r}")
    points = [check_params(p, "through") for p in through]
    shapes = [(jtu.tree_structure(p), [x.shape for x in jtu.tree_leaves(p)]) for p in points]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "`through`: all params must have one structure and the same shapes; got "
            f"{[str(structure) for structure, _ in shapes]}, {[sizes for _, sizes in shapes]}"
        )
    vectors = np.array(
        [
            np.concatenate([np.ravel(np.asarray(x, float)) for x in jtu.tree_leaves(p)])
            for p in points
        ]
    )
    if not np.all(np.isfinite(vectors)):
        raise ValueError("`through`: params must be finite")
    if vectors.shape[1] < 2:
        raise ValueError("`through`: a plane needs params of two numbers or more; got 1")
    if (key is None) != (len(points) == 3):
        raise TypeError(
            "`key` is needed for the directions that fewer than three points leave open"
            if key is None
            else "`key` goes with one or two points; three leave nothing open"
        )
    directions = list(vectors[1:] - vectors[0])
    if key is not None:
        key = jax.random.key(key) if isinstance(key, int) else key
        draw = jax.random.normal(key, (2 - len(directions), vectors.shape[1]), jnp.float32)
        directions += list(np.asarray(draw, float))
    return Plane(vectors[0], _orthonormal(directions, np.abs(vectors).max()), points[0])


def _orthonormal(directions: list[np.ndarray], scale: float) -> np.ndarray:
    """Gram and Schmidt's e1, e2; ValueError where the directions span no plane."""
    first, second = directions
    smallest = 1e-12 * scale
    length = np.linalg.norm(first)
    if not length > smallest:
        raise ValueError("`through`: the first two points are the same; a plane needs others")
    e1 = first / length
    rest = second - (second @ e1) * e1
    rest = rest - (rest @ e1) * e1  # once more: the first leaves rounding errors of |second|
    if not np.linalg.norm(rest) > max(smallest, 1e-10 * np.linalg.norm(second)):
        raise ValueError("`through`: the three points lie on one line; a plane needs another")
    return np.array([e1, rest / np.linalg.norm(rest)])


def coordinate_plane() -> Plane:
    """The plane of params that are a tuple of two numbers, in JAX's default float dtype: (u, v) are the params."""
    zero = jnp.zeros((), jnp.result_type(float))
    return Plane(np.zeros(2), np.eye(2), (zero, zero))
