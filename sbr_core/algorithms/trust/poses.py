"""Would a section that fits badly fit better mirrored, or turned?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy import ndimage

from sbr_core.algorithms.trust.evidence import Seen, least_unlike_as_a_whole

_TURNS_DEG = (-20, -10, 10, 20, 180)
_ONCE_MIRRORED_DEG = (-10, -5, 0, 5, 10)
"""A section that was laid mirrored lies askew once it is mirrored back."""
_CLEARLY_BETTER = 0.9
"""Unlikeness of another pose, as a share of the present one's, that is worth a word."""
_MIRRORED = {"lr": np.diag([1.0, -1.0]), "ud": np.diag([-1.0, 1.0])}
"""Flip -> matrix of (row, column)."""


def better_pose(seen: Seen) -> str:
    """``lr``, ``ud``, or degrees counter-clockwise as displayed; empty where none is better.

    Parameters
    ----------
    seen : the section before it was deformed: what a deformation fitted to a wrong pose looks like
        the plane as it is, and like nothing once it is mirrored.
    """
    if not (np.any(seen.section_mask) and np.any(seen.plane_mask)):
        return ""
    others = [(f"{deg}", _turn(deg)) for deg in _TURNS_DEG]
    for name, mirror in _MIRRORED.items():
        others += [(name, _turn(deg) @ mirror) for deg in _ONCE_MIRRORED_DEG]
    best = _CLEARLY_BETTER * least_unlike_as_a_whole(seen)
    found = ""
    for name, matrix in others:
        unlike = least_unlike_as_a_whole(_posed(seen, matrix))
        if unlike < best:
            best, found = unlike, name
    return found


def _turn(deg: float) -> np.ndarray:
    """(2, 2) of (row, column): where a turned picture's pixels are found in the present one."""
    c, s = math.cos(math.radians(deg)), math.sin(math.radians(deg))
    return np.array([[c, s], [-s, c]])


def _posed(seen: Seen, matrix: np.ndarray) -> Seen:
    """Mirrored or turned, its centre laid onto that of the plane's tissue."""
    centre, target = (np.argwhere(m).mean(0) for m in (seen.section_mask, seen.plane_mask))
    offset = centre - matrix @ target
    moved = [
        ndimage.affine_transform(np.asarray(a, np.float32), matrix, offset, order=1)
        for a in (seen.registered, seen.section_mask)
    ]
    return replace(seen, registered=moved[0], section_mask=moved[1] > 0.5)
