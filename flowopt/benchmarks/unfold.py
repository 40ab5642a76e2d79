"""From what was found in one part of a symmetric box to the whole of it."""

from __future__ import annotations

import numpy as np

from .krawczyk import Root
from .symmetry import Symmetry


def within(inner: np.ndarray, outer: np.ndarray) -> bool:
    return bool(np.all((inner[:, 0] >= outer[:, 0]) & (inner[:, 1] <= outer[:, 1])))


def unfold_boxes(boxes: np.ndarray, group: list[Symmetry]) -> np.ndarray:
    """The boxes and their images."""
    return np.unique(np.concatenate([boxes, *(s.box(boxes) for s in group)]), axis=0)


def unfold_roots(roots: list[Root], group: list[Symmetry], box: np.ndarray) -> list[Root]:
    """The roots in the box and their images, each once."""
    found: list[Root] = []
    for root in roots:
        for symmetry in (None, *group):
            image = root if symmetry is None else _image(root, symmetry)
            meets = np.all(
                (image.enclosure[:, 1] >= box[:, 0]) & (image.enclosure[:, 0] <= box[:, 1])
            )
            if meets and not any(within(image.enclosure, r.region) for r in found):
                found.append(image)
    return found


def _image(root: Root, symmetry: Symmetry) -> Root:
    return Root(
        centre=symmetry.point(root.centre),
        enclosure=symmetry.box(root.enclosure),
        region=symmetry.box(root.region),
        nature=root.nature,
        hessian=symmetry.hessian(root.hessian),
    )
