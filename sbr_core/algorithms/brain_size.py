"""Brains of any size, aligned as if they were of human size.

`pose_search`, `alignment` and `section_affine` know anatomy in millimetres of a human brain: how
far apart two places are, how much smoothing leaves a gyrus, how wide a margin is. A smaller brain
is therefore enlarged before it is aligned, its sections with it, and what was found is made
smaller again. The factor is a power of two: a human brain stays exactly what it is, and no digit is
lost on the way there and back.

How large the brain is, the MRI's mask says or the sections do, whichever makes it larger: either
may hold a part of the brain only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sbr_core.algorithms.alignment import Brain, StackAlignment, StackSection
from sbr_core.geometry import PlaneGrid

_HUMAN_MM = 107.0
"""Edge of the cube that holds what a human brain does, 1.2 l."""
_EDGE_PER_WIDTH = 0.75
"""Of this edge and the width of a section across the brain: 107 mm and 140, a mouse's 8 and 11."""


def extent_px(mask: np.ndarray) -> np.ndarray:
    """Sides of the box around what is set in a mask, one per axis; the mask must not be empty."""
    axes = range(mask.ndim)
    shadows = (mask.any(axis=tuple(a for a in axes if a != axis)) for axis in axes)
    return np.array([np.ptp(np.flatnonzero(shadow)) + 1 for shadow in shadows])


def width_mm(sections: Sequence[StackSection], pixel_mm: float) -> float:
    """Longer side of the box around a section's tissue, mm, the median of all sections."""
    return float(np.median([extent_px(s.mask).max() for s in sections])) * pixel_mm


def size_mm(sections: Sequence[StackSection], pixel_mm: float, brain: Brain) -> float:
    """Edge of the cube of as much volume as the brain, mm: human 107, macaque 45, mouse 8."""
    voxel_mm3 = abs(float(np.linalg.det(brain.world_from_voxel[:3, :3])))
    of_mri_mm = float(np.cbrt(np.count_nonzero(brain.mask) * voxel_mm3))
    return max(of_mri_mm, _EDGE_PER_WIDTH * width_mm(sections, pixel_mm))


def enlargement_of(size_mm: float) -> float:
    """The largest power of two, at least 1, that leaves a size no more than a human brain's.

    Human 1, macaque 2, marmoset 4, rat and mouse 8.
    """
    return max(1.0, float(2.0 ** np.floor(np.log2(_HUMAN_MM / size_mm))))


def enlarged(
    sections: Sequence[StackSection], pixel_mm: float, brain: Brain, enlargement: float
) -> tuple[list[StackSection], float, Brain]:
    """Sections, working pixel and MRI with all lengths multiplied by `enlargement`."""
    return (
        [replace(s, position_mm=s.position_mm * enlargement) for s in sections],
        pixel_mm * enlargement,
        replace(
            brain, world_from_voxel=np.diag([*[enlargement] * 3, 1.0]) @ brain.world_from_voxel
        ),
    )


def in_own_size(found: StackAlignment, enlargement: float) -> StackAlignment:
    """An alignment of what `enlarged` returned, for what it was given."""
    return StackAlignment(
        resized(found.stack_from_world, 1 / enlargement),
        PlaneGrid(found.grid.shape, found.grid.spacing_mm / enlargement),
        [resized(affine, 1 / enlargement) for affine in found.working_from_plane_mm],
        [r | {"moved_mm": r["moved_mm"] / enlargement} for r in found.rounds],
    )


def resized(matrix: np.ndarray, factor: float) -> np.ndarray:
    """An affine between two spaces, lengths of both multiplied by `factor`."""
    out = np.array(matrix, float)
    out[:-1, -1] *= factor
    return out
