"""Starts that are given, or drawn where and when they are needed."""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from flowopt.objective import check_params

BLOCK = 4096
"""Starts drawn with one key."""

Distribution = Callable[[jax.Array, int], PyTree]
"""(key, n) -> n starts, each leaf with leading axis n."""


@dataclasses.dataclass(frozen=True)
class Given:
    """Starts held in memory."""

    arrays: PyTree
    n: int

    def part(self, first: int, last: int) -> PyTree:
        """The starts from `first` up to `last`, NumPy arrays."""
        return jtu.tree_map(lambda x: np.asarray(x[first:last]), self.arrays)

    def __str__(self) -> str:
        return "given"

    def digest(self) -> str:
        return digest(self.arrays)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """n starts from a distribution: the b-th block of `BLOCK` is distribution(fold_in(key, b), its size).

    So a start depends on the key, n and its own index, not on how the starts are dealt out, and no more than
    a block need be held.
    """

    distribution: Distribution
    n: int
    key: jax.Array

    def part(self, first: int, last: int) -> PyTree:
        """The starts from `first` up to `last`, NumPy arrays."""
        blocks = [self._block(b) for b in range(first // BLOCK, -(-last // BLOCK))]
        skip = first % BLOCK
        return jtu.tree_map(lambda *xs: np.concatenate(xs)[skip : skip + last - first], *blocks)

    def _block(self, b: int) -> PyTree:
        size = min(BLOCK, self.n - b * BLOCK)
        starts = check_params(self.distribution(jax.random.fold_in(self.key, b), size), "starts")
        if leading_size(starts) != size:
            raise ValueError(
                f"`starts`: a distribution must return as many starts as asked for, {size}; got "
                f"{leading_size(starts)}"
            )
        return jtu.tree_map(np.asarray, starts)

    def __str__(self) -> str:
        typed = jnp.issubdtype(self.key.dtype, jax.dtypes.prng_key)
        key = np.asarray(jax.random.key_data(self.key) if typed else self.key).tolist()
        # The address of a function says nothing about it, and is another in every process.
        name = re.sub(r" at 0x[0-9a-f]+", "", repr(self.distribution))
        return f"{self.n} from {name}, key {key}"

    def digest(self) -> str:
        return digest((self._block(0), self._block((self.n - 1) // BLOCK)))


def given_or_drawn(starts: PyTree | Distribution, n: int | None, key: Any) -> Given | Drawn:
    """The starts of an ensemble; raises TypeError or ValueError, naming the argument."""
    if not callable(starts):
        if n is not None or key is not None:
            raise TypeError("`n` and `key` go with a distribution; here `starts` are given")
        starts = check_params(starts, "starts")
        return Given(jtu.tree_map(np.asarray, starts), leading_size(starts))
    if n is None or isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"`n`, the number of starts to draw, must be an int; got {n!r}")
    if n < 1:
        raise ValueError(f"`n` must be at least 1; got {n}")
    if key is None:
        raise TypeError("`key` is needed to draw starts: a JAX random key, or an int to seed one")
    return Drawn(starts, n, jax.random.key(key) if isinstance(key, int) else key)


def leading_size(starts: PyTree) -> int:
    """The length of the leading axis; ValueError unless all leaves have the same."""
    sizes = {x.shape[0] if x.ndim else -1 for x in jtu.tree_leaves(starts)}
    if -1 in sizes or len(sizes) != 1:
        raise ValueError(
            "`starts`: every leaf needs a leading axis, of one length for all; got shapes "
            f"{[x.shape for x in jtu.tree_leaves(starts)]}"
        )
    return sizes.pop()


def digest(tree: PyTree, text: str = "") -> str:
    """16 digits of the SHA-256 of `text` and of a pytree of arrays: its structure, shapes, dtypes and bits."""
    leaves, structure = jtu.tree_flatten(tree)
    total = hashlib.sha256(f"{text}{structure}".encode())
    for leaf in map(np.asarray, leaves):
        total.update(f"{leaf.shape}{leaf.dtype}".encode())
        total.update(leaf.tobytes())
    return total.hexdigest()[:16]
