"""What has been proven of the critical points of a loss in a box."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from .critical_point import CriticalPoint


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What has been proven of the critical points of a loss in a box of n params.

    - `points`: the certified critical points. Each `enclosure` provably holds exactly one critical
      point, and no other critical point lies in its `regions` entry.
    - `regions`: shape (number of points, n, 2); in each, its point provably is the only critical
      point.
    - `undecided`: shape (U, n, 2), boxes that may hold further critical points: around degenerate
      points and curves of them, or not looked at when the work limit came. Images under the
      symmetries are included.
    - `clusters`: shape (U,), which connected piece of the undecided set each box belongs to.
    - `volume_undecided`: their summed volume, in units of the params to the n.
    - `symmetries`: those found and used, as text.
    - `boxes_examined`, `limit_reached`: the work done, and whether it was cut short.
    - `statement`: all this in words.
    """

    points: tuple[CriticalPoint, ...]
    regions: Float[np.ndarray, "points n 2"]
    box: Float[np.ndarray, "n 2"]
    undecided: Float[np.ndarray, "undecided n 2"]
    clusters: np.ndarray
    volume_undecided: float
    symmetries: tuple[str, ...]
    boxes_examined: int
    limit_reached: bool
    resolution: float

    @property
    def complete(self) -> bool:
        """Whether the points are provably all there are in the box."""
        return len(self.undecided) == 0

    @property
    def statement(self) -> str:
        names = ", ".join(self.symmetries) if self.symmetries else "none"
        found = f"{len(self.points)} critical points are certified, each alone in its enclosure"
        volume = float(np.prod(self.box[:, 1] - self.box[:, 0]))
        if self.complete:
            rest = "The box provably holds no other."
        else:
            pieces = int(self.clusters.max()) + 1
            rest = (
                f"Outside {len(self.undecided)} undecided boxes in {pieces} connected pieces, which are "
                f"{self.volume_undecided:.3g} of the volume {volume:.6g}, the box provably holds no other."
            )
        limit = (
            " The work limit was reached: larger boxes are undecided." if self.limit_reached else ""
        )
        return (
            f"In {self.box.tolist()}: {found}. {rest}{limit} Symmetries used: {names}. "
            f"{self.boxes_examined} boxes were examined, down to a side of {self.resolution:.3g}. The points "
            "are proven in ball arithmetic; the exclusion of the rest is in float64 rounded outwards, with the "
            "platform's elementary functions taken to be right to 2^-44 (the normal distribution function to 2^-36)."
        )


def connected(boxes: np.ndarray) -> np.ndarray:
    """For boxes of shape (U, n, 2), a number for each: boxes that touch share it.

    Space is cut into cells as large as the largest box, and boxes in the same or in adjacent cells
    are taken to touch: pieces are never cut wrongly, and two that are closer than two such cells
    are told apart only by a finer resolution.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    if not len(boxes):
        return np.zeros(0, np.int32)
    side = float((boxes[..., 1] - boxes[..., 0]).max())
    cells, which = np.unique(np.floor(boxes.mean(axis=2) / side), axis=0, return_inverse=True)
    pairs = KDTree(cells).query_pairs(1.5, p=np.inf, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(cells),) * 2)
    return connected_components(graph, directed=False)[1][which.ravel()].astype(np.int32)
