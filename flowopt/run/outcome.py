"""How a run ended: as data, for one run or for a million."""

from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Int


class Outcome(eqx.Module):
    """How a run, or each run of an ensemble, ended. Compare it with a name: `sol.outcome == "converged"`.

    - `converged`: the gradient's 2-norm fell below `tol`, or `stop` or `callback` said so.
    - `max_steps`: as many steps were attempted as allowed.
    - `stalled`: the step became so small that it changes nothing.
    - `diverged`: the last step led to where the params, the loss or the gradient are not finite, or so large that their
      squares are not. It is not kept: what is returned is from before it, or the start, where no step was made.
    """

    code: Int[Array, "..."]
    """Index into `names`; -1 while running."""

    names: ClassVar[tuple[str, ...]] = ("converged", "max_steps", "stalled", "diverged")

    def __eq__(self, other):
        if isinstance(other, Outcome):
            return self.code == other.code
        if isinstance(other, str):
            return self.code == code_of(other)
        return NotImplemented

    def __ne__(self, other):
        # Python's own is `not (self == other)`, which an array of answers does not have.
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else ~equal

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __str__(self) -> str:
        if np.ndim(self.code) == 0:
            return (*self.names, "running")[int(self.code)]
        counts = {name: int(np.sum(np.asarray(self == name))) for name in self.names}
        return ", ".join(f"{name}: {n}" for name, n in counts.items() if n)

    def __repr__(self) -> str:
        try:
            return f"Outcome({self})"
        except Exception:  # while being traced there is nothing to name yet
            return f"Outcome({self.code})"

    def __array__(self, dtype=None, copy=None):
        return np.array(self.code, dtype=dtype)


RUNNING = -1


def code_of(name: str) -> int:
    """The code of an outcome; ValueError for a name that is none."""
    if name not in Outcome.names:
        raise ValueError(f"`outcome` must be one of {Outcome.names}; got {name!r}")
    return Outcome.names.index(name)
