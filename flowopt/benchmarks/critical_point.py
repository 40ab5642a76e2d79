"""A critical point, and its nature where the Hessian is regular."""

import dataclasses
from typing import Any

import numpy as np

NATURES = ("minimum", "maximum", "saddle", "flat", "undecided")


@dataclasses.dataclass(frozen=True, eq=False)
class CriticalPoint:
    """A point where the gradient of a loss is zero, and what is known of it.

    **Fields:**

    - `params`: where it is, a pytree of Python floats (each the float64 nearest to the exact value,
      or the middle of the certified enclosure).
    - `exact`: the same place as a tuple of exact SymPy numbers, or None where no closed form is
      known.
    - `multiplicity`: for a separable loss phi_0(u) + phi_1(s), how often phi_0' and phi_1' vanish
      there; (1, 1) is a nondegenerate point. None where that is not known.
    - `value`: the loss there. `exact_value`: as a SymPy number, or None.
    - `nature`: `"minimum"`, `"maximum"`, `"saddle"`, `"flat"` (degenerate and not an extremum: the
      derivative vanishes without changing sign along some line) or `"undecided"`.
    - `hessian`: the matrix of second derivatives, shape (n, n), in the order of the leaves; or
      None.
    - `enclosure`: for certified points the interval (low, high) of each parameter that provably
      holds this point and no other critical point; None for exact ones.
    """

    params: Any
    exact: tuple | None = None
    multiplicity: tuple[int, ...] | None = None
    value: float = float("nan")
    exact_value: Any = None
    nature: str = "undecided"
    hessian: np.ndarray | None = dataclasses.field(default=None, repr=False)
    enclosure: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self):
        if self.nature not in NATURES:
            raise ValueError(f"nature: must be one of {NATURES}, got {self.nature!r}.")


def nature_of_hessian(hessian: np.ndarray) -> str:
    """The nature of a critical point whose Hessian is clearly regular; `"undecided"` if it may be
    singular.

    An eigenvalue counts as zero below sqrt(machine epsilon) times the largest: rounding in a
    Hessian at a rounded point is of that order, so a smaller one proves nothing about its sign.
    """
    if hessian.size == 0 or not np.all(np.isfinite(hessian)):
        return "undecided"
    eigenvalues = np.linalg.eigvalsh(hessian)
    scale = np.max(np.abs(eigenvalues))
    if scale == 0 or np.min(np.abs(eigenvalues)) < np.sqrt(np.finfo(hessian.dtype).eps) * scale:
        return "undecided"
    negative = int(np.sum(eigenvalues < 0))
    return {0: "minimum", len(eigenvalues): "maximum"}.get(negative, "saddle")
