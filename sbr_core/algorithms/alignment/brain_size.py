"""Brains of any size, aligned as if they were of human size.

The other modules of this package know anatomy in millimetres of a human brain: how far apart two
places are, how much smoothing leaves a gyrus, how wide a margin is. A smaller brain is therefore
enlarged before it is aligned, its sections with it, and the result is made smaller again. The
factor is a power of two: a human brain stays exactly what it is, and no digit is lost on the way
there and back.

The size of the brain is that of the MRI's mask or of the sections, whichever is larger: either may
hold a part of the brain only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sbr_core.algorithms.alignment.stack import Mri, Stack, StackAlignment
from sbr_core.algorithms.plausibility import lengths
from sbr_core.errors import ConfigError, ImageError
from sbr_core.geometry import PlaneGrid, extent_px

_HUMAN_MM = 107.0
"""Edge of the cube that holds what a human brain does, 1.2 l."""
_EDGE_PER_WIDTH = 0.75
"""Of this edge and the width of a section across the brain: 107 mm and 140, a mouse's 8 and 11."""
_LEAST_PX = 25
"""Pixels across a section, below which nothing is left to align."""
_USUAL_PX = 300
"""Pixels across a section that are proposed: a human one's 140 mm at about 0.5 mm, between the
demo's 0.625 and Allen's 0.25."""


def width_mm(stack: Stack) -> float:
    """Longer side of the box around a section's tissue, mm, the median of all sections."""
    return float(np.median([extent_px(s.mask).max() for s in stack.sections])) * stack.pixel_mm


def check_sizes(stack: Stack, mri: Mri, *, in_order: bool = False) -> None:
    """Refuse lengths that cannot belong together, and pixels far too coarse for the sections.

    Parameters
    ----------
    in_order : positions are no millimetres, and not looked at.

    Raises
    ------
    ImageError
        An empty mask of the MRI; sections, stack and MRI of which one is many times too long.
    ConfigError
        Sections of too few pixels.
    """
    if not mri.mask.any():
        raise ImageError("align: the mask of the MRI is empty")
    across_mm = width_mm(stack)
    fault = lengths.width_contradiction(across_mm, mri.longest_mm)
    if not fault and not in_order:
        fault = lengths.stack_contradiction(stack.length_mm, mri.longest_mm)
    if fault:
        raise ImageError(f"align: {fault}")
    if across_mm < _LEAST_PX * stack.pixel_mm:
        raise ConfigError(
            f"align: prepare.working_pixel_mm {stack.pixel_mm:g} is too coarse for sections"
            f" {across_mm:.3g} mm wide; {across_mm / _USUAL_PX:.1g} is usual for them"
        )


def size_mm(stack: Stack, mri: Mri) -> float:
    """Edge of the cube of as much volume as the brain, mm: human 107, macaque 45, mouse 8."""
    voxel_mm3 = abs(float(np.linalg.det(mri.world_from_voxel[:3, :3])))
    of_mri_mm = float(np.cbrt(np.count_nonzero(mri.mask) * voxel_mm3))
    return max(of_mri_mm, _EDGE_PER_WIDTH * width_mm(stack))


def enlargement_of(size_mm: float) -> float:
    """The largest power of two, at least 1, that leaves a size no more than a human brain's.

    Human 1, macaque 2, marmoset 4, rat and mouse 8.
    """
    return max(1.0, float(2.0 ** np.floor(np.log2(_HUMAN_MM / size_mm))))


def enlarged(stack: Stack, mri: Mri, enlargement: float) -> tuple[Stack, Mri]:
    """Stack and MRI with all lengths multiplied by `enlargement`."""
    return (
        replace(stack.with_spacing(enlargement), pixel_mm=stack.pixel_mm * enlargement),
        replace(mri, world_from_voxel=np.diag([*[enlargement] * 3, 1.0]) @ mri.world_from_voxel),
    )


def in_own_size(alignment: StackAlignment, enlargement: float) -> StackAlignment:
    """An alignment of what `enlarged` returned, for what it was given."""
    return StackAlignment(
        resized(alignment.stack_from_world, 1 / enlargement),
        PlaneGrid(alignment.grid.shape, alignment.grid.spacing_mm / enlargement),
        [resized(affine, 1 / enlargement) for affine in alignment.working_from_plane_mm],
        [r | {"moved_mm": r["moved_mm"] / enlargement} for r in alignment.rounds],
        alignment.costs,
    )


def resized(matrix: np.ndarray, factor: float) -> np.ndarray:
    """An affine between two spaces, lengths of both multiplied by `factor`."""
    out = np.array(matrix, float)
    out[:-1, -1] *= factor
    return out
