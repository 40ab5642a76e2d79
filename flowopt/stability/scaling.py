"""How the boundary between basins scales with the resolution: its uncertainty exponent and its dimension."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Exponent(NamedTuple):
    """The slope of a straight line through (log scale, log measure)."""

    value: float
    error: float
    """One standard error, from the residuals of the line."""
    scales: Float[np.ndarray, " s"]
    """The scales, in cells."""
    measures: Float[np.ndarray, " s"]
    """What was measured at each scale."""


NONE = Exponent(np.nan, np.nan, np.zeros(0), np.zeros(0))
"""Where there is no boundary, or not enough of it to fit a line."""


def uncertainty_exponent(labels: Int[np.ndarray, "n m"]) -> Exponent:
    """alpha in f(eps) ~ eps^alpha, f the share of starts that are uncertain to within eps.

    A start is uncertain if the one at distance eps before or behind it, along an axis, ends elsewhere. 1 for a
    smooth boundary; alpha = D - d for one of box-counting dimension d in D dimensions. To predict the end
    of ten times more starts takes initial conditions 10^(1/alpha) times more precise. f is averaged
    over both axes, for eps of 1, 2, 4, ... cells up to a sixteenth of the map; one cell is the
    unit of eps. NaN for maps below 64 cells.   [Grebogi, McDonald, Ott and Yorke 1983, Physics Letters A 99, 415]
    """
    labels = np.asarray(labels)
    scales = _powers(1, min(labels.shape) // 16)
    measures = np.array([np.mean([_uncertain(x, k) for x in (labels, labels.T)]) for k in scales])
    return _fit(scales, measures, +1)


def boundary_dimension(labels: Int[np.ndarray, "n m"]) -> Exponent:
    """d in N(eps) ~ eps^-d, N the number of boxes of side eps that the boundary enters: its box-counting dimension.

    The boundary passes wherever four cells around a corner have not one label. Boxes of side 4, 8, 16, ... cells, up
    to a sixteenth of the map: at the finest scales a grid misses what lies between its cells. NaN for maps below
    256 cells, too small for three scales.
    [definition: McDonald, Grebogi, Ott and Yorke 1985, Physica D 17, 125]
    """
    labels = np.asarray(labels)
    quads = [labels[:-1, :-1], labels[1:, :-1], labels[:-1, 1:], labels[1:, 1:]]
    boundary = np.minimum.reduce(quads) != np.maximum.reduce(quads)
    scales = _powers(4, min(labels.shape) // 16)
    counts = np.array([blocks(boundary, k).any(axis=-1).sum() for k in scales], float)
    return _fit(scales, counts, -1)


def blocks(cells: np.ndarray, side: int) -> np.ndarray:
    """The square boxes of `side` cells that fit into a map, one a row, of side^2 cells each."""
    n, m = (size // side for size in cells.shape)
    boxes = cells[: n * side, : m * side].reshape(n, side, m, side)
    return boxes.transpose(0, 2, 1, 3).reshape(n * m, side * side)


def _powers(first: int, last: int) -> np.ndarray:
    return np.array([k for k in 2 ** np.arange(20) if first <= k <= last], int)


def _uncertain(labels: np.ndarray, k: int) -> float:
    """Of the starts with both neighbours at k cells on the map, the share of which one or both end elsewhere."""
    here = labels[k:-k]
    return float(np.mean((labels[2 * k :] != here) | (labels[: -2 * k] != here)))


def _fit(scales: np.ndarray, measures: np.ndarray, sign: int) -> Exponent:
    """sign x the slope of log measure over log scale, by least squares."""
    there = measures > 0
    if there.sum() < 3:
        return NONE
    x, y = np.log(scales[there]), np.log(measures[there])
    apart = x - x.mean()
    slope = float(apart @ y / (apart @ apart))
    residuals = y - y.mean() - slope * apart
    error = float(np.sqrt(residuals @ residuals / (len(x) - 2) / (apart @ apart)))
    return Exponent(sign * slope, error, scales[there].astype(float), measures[there])
