"""Stack and MRI as volumes: intensity, tissue, and where there is data at all, on a 3D grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from sbr_core import geometry
from sbr_core.algorithms.alignment.stack import Mri, Stack
from sbr_core.algorithms.planes import prefiltered_volume, sample_volume
from sbr_core.algorithms.sections import grid_px, prefilter, resample_section
from sbr_core.geometry import apply

MARGIN_MM = 5.0
"""Kept around tissue on every side: room for the next round's shifts, which are smaller than that
once the search is done; a wider margin costs memory and time and changes nothing."""
POINTS_STEP = 5
"""Of a section's tissue pixels, every this many decide how large a grid must be. The margin is
wider than what lies between them."""
_REACH = 1.5
"""Width of the hat that interpolates along z, in usual distances of sections: more than 1, so that
one missing section of a series leaves no gap; more still would blur along z."""
_KNOWN_WEIGHT = 1e-3
"""Sum of a slice's weights above which it is known; only keeps rounding from counting as data."""


@dataclass(frozen=True)
class Grid:
    """A regular 3D grid, [x, y, z]: point = origin + index * spacing, mm."""

    shape: tuple[int, int, int]
    spacing_mm: float
    origin_mm: np.ndarray

    def mm_from_index(self) -> np.ndarray:
        """(4, 4)."""
        matrix = np.diag([*[self.spacing_mm] * 3, 1.0])
        matrix[:3, 3] = self.origin_mm
        return matrix

    def points(self) -> np.ndarray:
        """(nx, ny, nz, 3), mm."""
        return self.origin_mm + np.stack(np.indices(self.shape), axis=-1) * self.spacing_mm


@dataclass(frozen=True)
class GridVolume:
    """Intensity (float32), tissue (bool) and the voxels where there is data at all (bool)."""

    grid: Grid
    data: np.ndarray
    tissue: np.ndarray
    known: np.ndarray


def stack_volume(stack: Stack, affines: Sequence[np.ndarray], spacing_mm: float) -> GridVolume:
    """The stack as a volume at isotropic spacing: sections averaged, or interpolated along z.

    Each slice is the mean of the sections around it, weighted by a hat that is as wide as the
    spacing, or as 1.5 times the usual distance of sections where that is more; a slice out of
    reach of any section is not `known`.

    Parameters
    ----------
    affines : (3, 3) working_from_plane_mm of each section.
    """
    corners = np.concatenate(
        [
            apply(np.linalg.inv(a), s.tissue_mm(stack.pixel_mm, POINTS_STEP))
            for s, a in zip(stack.sections, affines, strict=True)
        ]
    )
    low, high = corners.min(axis=0) - 2 * MARGIN_MM, corners.max(axis=0) + 2 * MARGIN_MM
    positions = stack.positions_mm
    columns, rows = np.ceil((high - low) / spacing_mm).astype(int) + 1
    n_slices = int(np.ceil((positions[-1] - positions[0]) / spacing_mm)) + 1
    grid = Grid((int(columns), int(rows), n_slices), spacing_mm, np.array([*low, positions[0]]))
    reach = max(spacing_mm, _REACH * float(np.median(np.diff(positions))))
    slices = positions[0] + np.arange(n_slices) * spacing_mm
    total = np.zeros((n_slices, rows, columns, 2), np.float32)
    weight_sum = np.zeros(n_slices)
    points = low + grid_px((rows, columns)) * spacing_mm
    ratio = spacing_mm / stack.pixel_mm
    for section, affine in zip(stack.sections, affines, strict=True):
        px = apply(geometry.scaling(1 / stack.pixel_mm) @ affine, points)
        plane = np.stack(
            [
                resample_section(prefilter(image, ratio), px)
                for image in (section.normalised(), section.mask.astype(np.float32))
            ],
            axis=-1,
        )
        weights = np.maximum(1 - np.abs(slices - section.position_mm) / reach, 0)
        for k in np.flatnonzero(weights):
            total[k] += np.float32(weights[k]) * plane
        weight_sum += weights
    total /= np.maximum(weight_sum, 1e-6)[:, None, None, None].astype(np.float32)
    volume = total.transpose(2, 1, 0, 3)  # [z, y, x] to [x, y, z]
    known = np.broadcast_to(weight_sum > _KNOWN_WEIGHT, volume.shape[:3])
    return GridVolume(grid, volume[..., 0], volume[..., 1] > 0.5, known)


def oriented_volume(mri: Mri, world_from_oriented: np.ndarray, spacing_mm: float) -> GridVolume:
    """The masked MRI on a grid along the oriented axes; known on the brain and just around it.

    Its intensity is 1 at the brain's 99 % quantile and 1.5 the most.

    Parameters
    ----------
    world_from_oriented : (4, 4), a signed permutation of the axes.
    """
    oriented_from_voxel = np.linalg.inv(world_from_oriented) @ mri.world_from_voxel
    extent = apply(oriented_from_voxel, np.argwhere(mri.mask))
    low, high = extent.min(axis=0) - 2 * MARGIN_MM, extent.max(axis=0) + 2 * MARGIN_MM
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing_mm) + 1)
    grid = Grid(shape, spacing_mm, low)
    voxels = apply(np.linalg.inv(oriented_from_voxel), grid.points())
    data = np.where(mri.mask, mri.data, 0) / np.quantile(mri.data[mri.mask], 0.99)
    data, mask = (
        sample_volume(prefiltered_volume(image, mri.voxel_mm, spacing_mm), voxels)
        for image in (data, mri.mask.astype(np.float32))
    )
    tissue = mask > 0.5
    known = binary_dilation(tissue, iterations=max(1, round(MARGIN_MM / spacing_mm)))
    return GridVolume(grid, np.clip(data, 0, 1.5), tissue, known)
