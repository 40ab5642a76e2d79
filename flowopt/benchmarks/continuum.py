"""Curves and surfaces of critical points: what a dead or a duplicated neuron leaves.

If two neurons share their input weights then only the sum of their output weights matters, and a
critical point of the smaller network becomes a line of them [Fukumizu and Amari 2000]. On a set of
dimension d the Hessian has corank d at least, so no interval test can succeed and subdivision
leaves the set covered by undecided boxes. Here those are looked into. What is said of them is
numerical, not proven: the points of a sample are critical to rounding, the rank is that of singular
values above a tolerance, and a direction belongs to the set if one can walk along it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .certificate import Certificate
from .certify import read_expression
from .critical_point import nature_of_hessian

if TYPE_CHECKING:
    from .derivatives import Derivatives

RANK_TOLERANCE = 1e-6  # singular values below this times the largest count as zero
GRADIENT_TOLERANCE = 1e-10  # in units of 1 + |H|


@dataclasses.dataclass(frozen=True, eq=False)
class Continuum:
    """A connected piece of a curve or surface of critical points.

    - `dimension`: of the set. `hessian_rank`: of the Hessian on it; their sum is the number of
      params where the loss is Morse-Bott there.
    - `value`: of the loss, constant on a connected set of critical points.
    - `nature`: that of the Hessian on the complement of its kernel: `"minimum"`, `"maximum"`,
      `"saddle"`.
    - `sample`: shape (S, n), points of it. `gradient_norm`: the largest on the sample.
    """

    dimension: int
    hessian_rank: int
    value: float
    nature: str
    sample: Float[np.ndarray, "sample n"]
    gradient_norm: float


def critical_continua(
    loss: Any, certificate: Certificate, *, symbols: Any = None, samples: int = 64, seed: int = 0
) -> tuple[Continuum, ...]:
    """The continua of critical points in the undecided boxes of a certificate, in increasing order of value.

    **Arguments:**

    - `loss`, `symbols`: as given to `certify_critical_points`.
    - `samples`: how many boxes of each connected undecided piece to look into.
    - `seed`: for the choice of the boxes.

    **Raises:** ValueError or TypeError, naming the argument.
    """
    import sympy as sp

    from .derivatives import Derivatives

    if not isinstance(certificate, Certificate):
        raise TypeError(f"certificate: must be a Certificate, got {type(certificate).__name__}.")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples: must be a positive integer, got {samples!r}.")
    expression, symbols = read_expression(loss, symbols)
    derivatives = Derivatives(expression, symbols)
    value = sp.lambdify(list(symbols), expression, modules=["scipy", "numpy"])
    rng = np.random.default_rng(seed)
    found: list[Continuum] = []
    for piece in range(int(certificate.clusters.max(initial=-1)) + 1):
        boxes = certificate.undecided[certificate.clusters == piece]
        chosen = rng.permutation(len(boxes))[:samples]
        found.extend(_in_piece(derivatives, value, boxes, chosen, certificate.resolution))
    return tuple(sorted(found, key=lambda c: (c.value, tuple(c.sample[0]))))


def _in_piece(derivatives, value, boxes: np.ndarray, chosen, resolution: float) -> list[Continuum]:
    """One continuum for each kind of point (rank, dimension, value, nature) in a piece."""
    kinds: dict[tuple[int, int, float, str], list[np.ndarray]] = {}
    for start in boxes[chosen].mean(axis=2):
        x = _onto(derivatives, start, rank=None)
        if x is None or not _covered(boxes, x):
            continue  # nothing here: the box was only too close to something to be discarded
        rank = _rank(_hessian(derivatives, x))
        dimension = _dimension(derivatives, x, rank, step=resolution)
        if dimension > 0:
            kind = (rank, dimension, round(float(value(*x)), 9), _nature(derivatives, x, rank))
            kinds.setdefault(kind, []).append(x)
    return [_describe(derivatives, kind, np.array(points)) for kind, points in kinds.items()]


def _describe(derivatives, kind: tuple[int, int, float, str], sample: np.ndarray) -> Continuum:
    rank, dimension, value, nature = kind
    return Continuum(
        dimension=dimension,
        hessian_rank=rank,
        value=value,
        nature=nature,
        sample=sample,
        gradient_norm=float(max(np.linalg.norm(_gradient(derivatives, x)) for x in sample)),
    )


def _nature(derivatives: Derivatives, x: np.ndarray, rank: int) -> str:
    eigenvalues = np.linalg.eigvalsh(_hessian(derivatives, x))
    return nature_of_hessian(np.diag(eigenvalues[np.argsort(-np.abs(eigenvalues))[:rank]]))


def _covered(boxes: np.ndarray, x: np.ndarray) -> bool:
    return bool(np.any(np.all((boxes[..., 0] - 1e-9 <= x) & (x <= boxes[..., 1] + 1e-9), axis=1)))


def _gradient(derivatives: Derivatives, x: np.ndarray) -> np.ndarray:
    return np.array([float(g) for g in derivatives.gradient(list(x))])


def _hessian(derivatives: Derivatives, x: np.ndarray) -> np.ndarray:
    return np.array([[float(h) for h in row] for row in derivatives.hessian(list(x))])


def _rank(hessian: np.ndarray) -> int:
    singular = np.linalg.svd(hessian, compute_uv=False)
    return int(np.sum(singular > RANK_TOLERANCE * singular[0]))


def _onto(derivatives: Derivatives, x: np.ndarray, rank: int | None) -> np.ndarray | None:
    """The critical point next to x: Gauss-Newton on the gradient, in the directions in which H is regular.

    With a given rank only that many directions are used, so that what is found is straight across
    from x and no step runs along the set. None if it does not get there.
    """
    s = np.zeros(1)
    for _ in range(60):
        g, h = _gradient(derivatives, x), _hessian(derivatives, x)
        if not (np.all(np.isfinite(g)) and np.all(np.isfinite(h))):
            return None
        u, s, vt = np.linalg.svd(h)
        if np.linalg.norm(g) <= GRADIENT_TOLERANCE * (1 + s[0]) * 1e-3:
            return x
        r = int(np.sum(s > RANK_TOLERANCE * s[0])) if rank is None else rank
        step = vt[:r].T @ ((u[:, :r].T @ g) / s[:r])
        x = x - step
        if np.linalg.norm(step) < 1e-15 * (1 + np.linalg.norm(x)):
            break
    close = np.linalg.norm(_gradient(derivatives, x)) <= GRADIENT_TOLERANCE * (1 + s[0])
    return x if close else None


def _dimension(derivatives: Derivatives, x: np.ndarray, rank: int, step: float) -> int:
    """In how many independent directions of the kernel one can walk and still be at a critical point."""
    kernel = np.linalg.svd(_hessian(derivatives, x))[2][rank:]
    moves = []
    for direction in kernel:
        y = _onto(derivatives, x + step * direction, rank)
        # back at x would mean that the kernel is only a flat direction of an isolated point
        if y is not None and np.linalg.norm(y - x) > 0.5 * step:
            moves.append((y - x) / step)
    if not moves:
        return 0
    return int(np.linalg.matrix_rank(np.array(moves), tol=0.3))
