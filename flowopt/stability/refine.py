"""Labels on a grid, with runs only where they differ from their neighbours'."""

from collections.abc import Callable

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Int

from flowopt.stability.systems import Ends


def refined(
    run: Callable[[Int[np.ndarray, " k"], Int[np.ndarray, " k"]], Ends],
    sizes: tuple[int, int],
    levels: int,
) -> tuple[Ends, Bool[np.ndarray, "n m"]]:
    """How the runs from each cell of a grid end, and which cells were run; the others are as their nearest run cell.

    `run(i, j)` runs from cells. It gets every 2^levels-th cell along each axis first; then, the spacing halved at each
    level, those next to a cell (edge or corner) of another label, and again, until no cell next
    to one of another label is left that was not run. So a boundary that is met is followed
    in full, and what differs from running every cell are islands, and dents narrower than the spacing, that
    no cell of a coarser grid has met.
    """
    ends = Ends(*(np.zeros(sizes, np.int32) for _ in Ends._fields))
    done = np.zeros(sizes, bool)
    known = np.zeros(sizes, bool)
    for stride in (2**level for level in range(levels, -1, -1)):
        here = np.zeros(sizes, bool)
        here[::stride, ::stride] = True
        wanted = here if not known.any() else np.zeros(sizes, bool)
        if known.any():
            _copy_nearest(ends, known, here & ~known)
        while True:
            rows, columns = np.nonzero(wanted & ~done)
            if len(rows):
                for field, values in zip(ends, run(rows, columns), strict=True):
                    field[rows, columns] = values
                done[rows, columns] = True
            coarse = np.s_[::stride, ::stride]
            wanted = np.zeros(sizes, bool)
            wanted[coarse] = _on_boundary(ends.label[coarse]) & ~done[coarse]
            if not wanted.any():
                break
        known = here
    return ends, done


def _copy_nearest(ends: Ends, known: Bool[np.ndarray, "n m"], to: Bool[np.ndarray, "n m"]) -> None:
    nearest = scipy.ndimage.distance_transform_edt(
        ~known, return_distances=False, return_indices=True
    )
    assert isinstance(nearest, np.ndarray)
    rows, columns = nearest[:, to]
    for field in ends:
        field[to] = field[rows, columns]


def _on_boundary(labels: Int[np.ndarray, "n m"]) -> Bool[np.ndarray, "n m"]:
    """Cells with a neighbour, by edge or corner, of another label."""
    around = np.ones((3, 3))
    low = scipy.ndimage.minimum_filter(labels, footprint=around, mode="nearest")
    high = scipy.ndimage.maximum_filter(labels, footprint=around, mode="nearest")
    return low != high
