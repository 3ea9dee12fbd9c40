"""Brains of any size, aligned as if they were of human size.

`pose_search`, `alignment` and `section_affine` know anatomy in millimetres of a human brain: how
far apart two places are, how much smoothing leaves a gyrus, how wide a margin is. A smaller brain
is therefore enlarged before it is aligned, its sections with it, and what was found is made
smaller again. The factor is a power of two: a human brain stays exactly what it is, and no digit is
lost on the way there and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sbr_core.algorithms.alignment import Brain, StackAlignment, StackSection
from sbr_core.geometry import PlaneGrid

_HUMAN_MM = 107.0
"""Edge of the cube that holds what a human brain does, 1.2 l."""


def edge_mm(brain: Brain) -> float:
    """Edge of the cube of as much volume as the brain mask, mm: human 107, macaque 45, mouse 8."""
    voxel_mm3 = abs(float(np.linalg.det(brain.world_from_voxel[:3, :3])))
    return float(np.cbrt(np.count_nonzero(brain.mask) * voxel_mm3))


def enlargement_of(brain: Brain) -> float:
    """The power of two that brings a brain nearest to human size: human 1, macaque 2, mouse 16."""
    return float(2.0 ** np.round(np.log2(_HUMAN_MM / edge_mm(brain))))


def enlarged(
    sections: Sequence[StackSection], pixel_mm: float, brain: Brain, factor: float
) -> tuple[list[StackSection], float, Brain]:
    """Sections, working pixel and MRI with all lengths multiplied by `factor`."""
    return (
        [replace(s, position_mm=s.position_mm * factor) for s in sections],
        pixel_mm * factor,
        replace(brain, world_from_voxel=np.diag([*[factor] * 3, 1.0]) @ brain.world_from_voxel),
    )


def in_own_size(found: StackAlignment, factor: float) -> StackAlignment:
    """An alignment of what `enlarged` returned, for what it was given."""
    return StackAlignment(
        resized(found.stack_from_world, 1 / factor),
        PlaneGrid(found.grid.shape, found.grid.spacing_mm / factor),
        [resized(affine, 1 / factor) for affine in found.working_from_plane_mm],
        [r | {"moved_mm": r["moved_mm"] / factor} for r in found.rounds],
    )


def resized(matrix: np.ndarray, factor: float) -> np.ndarray:
    """An affine between two spaces, lengths of both multiplied by `factor`."""
    out = np.array(matrix, float)
    out[:-1, -1] *= factor
    return out
