"""Measures of the geometry of basins, on a map of labels: an array of integers, one per cell."""

from typing import Any

import numpy as np
import scipy.ndimage
import scipy.spatial
import xarray as xr
from jaxtyping import Bool, Int

from flowopt.stability.scaling import blocks, boundary_dimension, uncertainty_exponent

_TOUCH = np.ones((3, 3))  # cells that share an edge or a corner


def basin_entropy(labels: Int[np.ndarray, "n m"], box: int = 5) -> tuple[float, float]:
    """(S_b, S_bb), the basin entropy and the boundary basin entropy [nats].

    The map is cut into boxes of `box` x `box` cells, and S_i = -sum_j p_ij log p_ij for the shares p_ij of the labels j
    in box i. S_b is the mean of S_i over all boxes, S_bb over those with more than one label. S_bb > log 2
    shows that a boundary is fractal: at a smooth one all but a vanishing share of boxes hold two
    labels. 0 where there is no boundary.   [Daza et al. 2016, Scientific Reports 6, 31416]
    """
    if isinstance(box, bool) or not isinstance(box, int) or not 2 <= box <= min(labels.shape):
        raise ValueError(f"`box` must be an int from 2 to the map's size; got {box!r}")
    boxes = blocks(np.asarray(labels), box)
    shares = np.stack([(boxes == k).mean(axis=1) for k in np.unique(boxes)])
    terms = np.where(shares > 0, -shares * np.log(np.where(shares > 0, shares, 1)), 0)
    entropy = terms.sum(axis=0)
    mixed = entropy > 0
    return float(entropy.mean()), float(entropy[mixed].mean()) if mixed.any() else 0.0


def parts(basin: Bool[np.ndarray, "n m"], least: int = 1) -> int:
    """The number of connected parts of a basin, cells that touch by an edge or a corner, of at least `least` cells."""
    numbered, n = _numbered(basin)
    return int(np.sum(np.bincount(numbered.ravel(), minlength=n + 1)[1:] >= least))


def solidity(basin: Bool[np.ndarray, "n m"]) -> float:
    """A basin's area over that of its convex hull: 1 for a convex basin, within the map.

    Areas are counted in cells: of the cells whose centre lies in the convex hull of the centres of the basin's
    cells, the share that is the basin's. So a convex region has solidity 1 on any grid, and the edges of the
    map do not lower it. NaN for a basin of no cells.   [the usual measure of shape: Zdilla et al. 2016]
    """
    cells = np.argwhere(basin)
    if len(cells) == 0:
        return float("nan")
    try:
        hull = scipy.spatial.ConvexHull(cells)
    except scipy.spatial.QhullError:  # all on one line, or fewer than three
        apart = cells.max(axis=0) - cells.min(axis=0)
        return len(cells) / (int(np.gcd(*apart)) + 1)
    (top, left), (bottom, right) = cells.min(axis=0), cells.max(axis=0)
    columns = np.arange(left, right + 1)
    inside = 0
    for row in range(top, bottom + 1):
        a, b, c = hull.equations.T[:, :, None]  # a facet is a half-plane: a row + b column + c <= 0
        inside += int(np.all(a * row + b * columns + c <= 1e-9, axis=0).sum())
    return len(cells) / inside


def mean_solidity(basin: Bool[np.ndarray, "n m"]) -> float:
    """The solidity of the basin's connected parts, averaged by area: 1 where each part is convex."""
    numbered, n = _numbered(basin)
    areas = np.bincount(numbered.ravel(), minlength=n + 1)[1:]
    if n == 0:
        return float("nan")
    each = [
        solidity(numbered[window] == k + 1)
        for k, window in enumerate(scipy.ndimage.find_objects(numbered))
    ]
    return float(np.average(each, weights=areas))


def wada(labels: Int[np.ndarray, "n m"], radius: float = 2.0) -> float:
    """The share of the boundary that is, within `radius` cells, the boundary of every basin: 1 for a Wada map.

    All labels but one are merged, for each one in turn; that leaves the boundaries of one basin each. In a Wada map
    they are all one and the same. A boundary cell has a neighbour, by edge, of another label; it counts if for each
    basin there is a cell of its boundary within `radius` [cells].   [merging method: Daza, Wagemakers and
    Sanjuan 2018, Scientific Reports 8, 9954]

    Raises ValueError for fewer than three labels, where the word has no meaning.
    """
    found = np.unique(labels)
    if len(found) < 3:
        raise ValueError(f"`labels` must hold three basins or more; got {len(found)}")
    if not radius >= 0:
        raise ValueError(f"`radius` must be at least 0; got {radius}")
    boundaries = [_boundary(np.asarray(labels == k)) for k in found]
    every = np.logical_or.reduce(boundaries)
    distances = [np.asarray(scipy.ndimage.distance_transform_edt(~b)) for b in boundaries]
    return float(np.mean((np.maximum.reduce(distances) <= radius)[every]))


def _boundary(basin: np.ndarray) -> np.ndarray:
    cross = scipy.ndimage.generate_binary_structure(2, 1)
    outer = scipy.ndimage.binary_dilation(basin, cross) & ~basin
    inner = scipy.ndimage.binary_dilation(~basin, cross) & basin
    return outer | inner


def _numbered(basin: np.ndarray) -> tuple[np.ndarray, int]:
    labelled: Any = scipy.ndimage.label(basin, structure=_TOUCH)
    return labelled


def geometry(ds: xr.Dataset, *, box: int = 5, least: int = 1, radius: float = 2.0) -> xr.Dataset:
    """All measures of a map that `flowopt.basins` returned.

    Over `end`, the labels on the map: `share`, `parts`, `solidity`, `mean_solidity` (of the parts). For the whole map:
    `basin_entropy` and `boundary_basin_entropy` [nats]; `uncertainty_exponent` and `boundary_dimension`,
    each with `..._error`, one standard error; `wada` (NaN for fewer than three labels). `box`, `least` and
    `radius` as in `basin_entropy`, `parts` and `wada`.

    Every label is a basin, those of the runs that reached no point included. What the measures are, and whose, is
    in the functions of this module and `flowopt.stability.scaling`. Raises ValueError, naming the argument.
    """
    if "label" not in ds or ds.label.ndim != 2:
        raise ValueError("`ds` must be a dataset as flowopt.basins returns it, with a 2-D `label`")
    labels = ds.label.values
    found = np.unique(labels)
    basins = [labels == k for k in found]
    entropy, on_boundary = basin_entropy(labels, box)
    alpha, dimension = uncertainty_exponent(labels), boundary_dimension(labels)
    whole = {
        "basin_entropy": (entropy, "nat"),
        "boundary_basin_entropy": (on_boundary, "nat"),
        "uncertainty_exponent": (alpha.value, "1"),
        "uncertainty_exponent_error": (alpha.error, "1"),
        "boundary_dimension": (dimension.value, "1"),
        "boundary_dimension_error": (dimension.error, "1"),
        "wada": (wada(labels, radius) if len(found) > 2 else np.nan, "1"),
    }
    each = {
        "share": ([b.mean() for b in basins], "1"),
        "parts": ([parts(b, least) for b in basins], "parts"),
        "solidity": ([solidity(b) for b in basins], "1"),
        "mean_solidity": ([mean_solidity(b) for b in basins], "1"),
    }
    return xr.Dataset(
        {name: ("end", np.array(values), {"units": unit}) for name, (values, unit) in each.items()}
        | {name: ((), value, {"units": unit}) for name, (value, unit) in whole.items()},
        coords={"end": found},
        attrs={**ds.attrs, "box": box, "least": least, "wada radius": float(radius)},
    )
