"""Orthogonal cuts through a stack and its MRI on one grid, for pictures of an alignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sbr_core.algorithms.alignment.placement import tissue_centre
from sbr_core.algorithms.alignment.stack import Mri, Stack, StackAlignment
from sbr_core.algorithms.alignment.volumes import stack_volume
from sbr_core.algorithms.planes import sample_volume
from sbr_core.geometry import apply

_FINEST_MM = 0.5
"""Spacing of the cuts, unless pixels are larger: finer than a figure of 13 inches can show of a
brain 150 mm long, and memory grows with its third power."""


@dataclass(frozen=True)
class Cut:
    """One cut; images are (rows, columns).

    Attributes
    ----------
    mri, stack : intensities.
    mri_mask, stack_mask : bool, brain and tissue.
    title : which axis is cut, and where.
    x, y : names of the axes of the picture.
    extent_mm : left, right, bottom, top.
    """

    mri: np.ndarray
    stack: np.ndarray
    mri_mask: np.ndarray
    stack_mask: np.ndarray
    title: str
    x: str
    y: str
    extent_mm: tuple[float, float, float, float]


def orthogonal_cuts(
    stack: Stack, mri: Mri, alignment: StackAlignment, enlargement: float = 1.0
) -> list[Cut]:
    """Three orthogonal cuts through the middle of the tissue, across z, y and x of the stack.

    Parameters
    ----------
    enlargement : how many times too large all lengths are; those returned are not.
    """
    spacing_mm = max(stack.pixel_mm, _FINEST_MM)
    volume = stack_volume(stack, alignment.working_from_plane_mm, spacing_mm)
    grid = volume.grid
    points = grid.points()
    voxel_from_stack = np.linalg.inv(alignment.stack_from_world @ mri.world_from_voxel)
    centre = tissue_centre(stack, alignment.working_from_plane_mm)
    middle = np.round((centre - grid.origin_mm) / spacing_mm).astype(int)
    names = "x", "y", "position"
    lows = (grid.origin_mm - grid.spacing_mm / 2) / enlargement
    highs = lows + np.array(grid.shape) * grid.spacing_mm / enlargement
    cuts = []
    for across in (2, 1, 0):
        index: list[Any] = [slice(None)] * 3
        index[across] = int(np.clip(middle[across], 0, grid.shape[across] - 1))
        key = tuple(index)
        voxels = apply(voxel_from_stack, points[key])
        # the first remaining axis runs along the picture's columns, the second along its rows
        x, y = (a for a in range(3) if a != across)
        cuts.append(
            Cut(
                mri=sample_volume(mri.data, voxels).T,
                stack=volume.data[key].T,
                mri_mask=sample_volume(mri.mask.astype(np.uint8), voxels, 0).T > 0,
                stack_mask=(volume.tissue & volume.known)[key].T,
                title=f"{names[across]} = {points[key][0, 0, across] / enlargement:.3g} mm",
                x=f"{names[x]}, mm",
                y=f"{names[y]}, mm",
                extent_mm=(lows[x], highs[x], highs[y], lows[y]),
            )
        )
    return cuts
