"""The search: boxes are discarded, shrunk, proven to hold one point, or cut in two."""

from __future__ import annotations

import dataclasses

import numpy as np

from .derivatives import Derivatives
from .exclusion import Survivors, examine
from .krawczyk import Root, prove
from .symmetry import Symmetry
from .unfold import unfold_boxes, unfold_roots, within

CHUNK = 4096  # boxes at a time: about what stays in cache


@dataclasses.dataclass
class Search:
    """State of the search; `roots` and `undecided` are its result."""

    box: np.ndarray
    roots: list[Root] = dataclasses.field(default_factory=list)
    undecided: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 2)))
    examined: int = 0
    limit_reached: bool = False
    tries: int = 500


def subdivide(
    derivatives: Derivatives,
    box: np.ndarray,
    group: list[Symmetry],
    resolution: float,
    max_boxes: int,
    progress: bool,
) -> Search:
    """All zeros of the gradient in the box. Boxes are worked off level by level, so the largest come first."""
    from tqdm import tqdm

    search = Search(box)
    frontier, small = box[None], [np.zeros((0, *box.shape))]
    total = _volume(box[None])
    with tqdm(total=1.0, disable=not progress, desc="certify", bar_format=_BAR) as bar:
        while len(frontier):
            following = []
            for start in range(0, len(frontier), CHUNK):
                chunk = frontier[start : start + CHUNK]
                if search.examined + len(chunk) > max_boxes:
                    search.limit_reached = True
                    following.append(frontier[start:])
                    break
                search.examined += len(chunk)
                cut, rest = _work_off(search, derivatives, chunk, group, resolution)
                following.append(cut)
                small.append(rest)
                bar.n = (
                    1.0
                    - (_volume(frontier[start + CHUNK :]) + sum(map(_volume, following))) / total
                )
                bar.set_postfix(boxes=search.examined, points=len(search.roots), refresh=False)
                bar.update(0)
            frontier = np.concatenate(following)
            if search.limit_reached:
                small.append(frontier)
                break
    search.undecided = unfold_boxes(_outside(np.concatenate(small), search.roots), group)
    search.roots = unfold_roots(search.roots, group, box)
    return search


FLOOR = 1e-13  # relative side below which a float64 box cannot usefully be cut
_BAR = "{desc}: {percentage:6.2f}% of the volume decided [{elapsed}{postfix}]"


def _work_off(search, derivatives, chunk, group, resolution) -> tuple[np.ndarray, np.ndarray]:
    """One chunk: the boxes to go on with, and those that are too small to go on with."""
    for symmetry in group:
        chunk = chunk[~symmetry.redundant(chunk)]
    chunk = _outside(chunk, search.roots)
    if not len(chunk):
        return chunk, chunk
    left = examine(derivatives, chunk)
    _prove_points(search, derivatives, left, chunk[left.index], resolution)
    outside = _is_outside(left.boxes, search.roots)
    before = chunk[left.index][outside]
    boxes, smear, regular = left.boxes[outside], left.smear[outside], left.regular[outside]
    widths = boxes[..., 1] - boxes[..., 0]
    # A box on which the Hessian is regular will be decided in a few more steps, however small it
    # is.
    small = (widths.max(axis=1) <= resolution) & ~regular
    small |= widths.max(axis=1) <= FLOOR * (1 + np.abs(boxes).max(axis=(1, 2)))
    shrank = np.prod(widths / np.maximum(before[..., 1] - before[..., 0], 1e-300), axis=1) < 0.5
    again = boxes[~small & shrank]
    cut = ~small & ~shrank
    return np.concatenate([again, _bisect(boxes[cut], smear[cut])]), boxes[small]


def _prove_points(
    search: Search, derivatives: Derivatives, left: Survivors, before, resolution
) -> None:
    """Where the Hessian is regular on a whole box, see whether Newton's method finds a point near.

    A point just outside counts too: if the box lies in its region, then the box holds no other.
    """
    side, was = (np.max(b[..., 1] - b[..., 0], axis=1) for b in (left.boxes, before))
    worthwhile = left.regular | (side < 0.1 * was)  # Krawczyk's operator has pulled it together
    # A Hessian too badly scaled for float64 may still be regular: have a look at what else would be
    # left undecided, but not at every box along a curve of critical points.
    last = ~worthwhile & (side <= resolution)
    last[np.flatnonzero(last)[search.tries :]] = False
    worthwhile |= last
    search.tries -= int(last.sum())
    for shrunk, box in zip(left.boxes[worthwhile], before[worthwhile], strict=True):
        if not _is_outside(shrunk[None], search.roots)[0]:
            continue
        width = box[:, 1] - box[:, 0]
        root = prove(derivatives, shrunk.mean(axis=1), width)
        if root is None or np.any(np.abs(root.centre - box.mean(axis=1)) > 2 * width):
            continue  # none near; the box will be discarded or cut
        known = [r for r in search.roots if within(root.enclosure, r.region)]
        if not known:
            search.roots.append(root)
        elif _volume(root.region[None]) > _volume(known[0].region[None]):
            search.roots[search.roots.index(known[0])] = root


def _is_outside(boxes: np.ndarray, roots: list[Root]) -> np.ndarray:
    """Which boxes do not lie wholly in a region whose one critical point is known."""
    keep = np.ones(len(boxes), bool)
    for root in roots:
        low, high = root.region[:, 0], root.region[:, 1]
        keep &= ~np.all((boxes[..., 0] >= low) & (boxes[..., 1] <= high), axis=1)
    return keep


def _outside(boxes: np.ndarray, roots: list[Root]) -> np.ndarray:
    return boxes[_is_outside(boxes, roots)]


def _bisect(boxes: np.ndarray, smear: np.ndarray) -> np.ndarray:
    """Each box in two halves, across the side over which the gradient varies most.

    Sides below a quarter of the longest are left alone: a side on which nothing depends has no
    smear, and must be cut too before a box is small.
    """
    if not len(boxes):
        return boxes
    widths = boxes[..., 1] - boxes[..., 0]
    long = widths >= 0.25 * widths.max(axis=1, keepdims=True)
    side = np.argmax(
        np.where(long, np.nan_to_num(smear, nan=0.0, posinf=1e300) + 1e-3 * widths, -1.0), axis=1
    )
    lanes = np.arange(len(boxes))
    middle = 0.5 * boxes[lanes, side, 0] + 0.5 * boxes[lanes, side, 1]
    left, right = boxes.copy(), boxes.copy()
    left[lanes, side, 1] = middle
    right[lanes, side, 0] = middle
    return np.concatenate([left, right])


def _volume(boxes: np.ndarray) -> float:
    return float(np.sum(np.prod(boxes[..., 1] - boxes[..., 0], axis=-1)))
