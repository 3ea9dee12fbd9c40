"""What the search compares: stack and MRI at low resolution, prepared once for all poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sbr_core.algorithms.alignment.stack import Mri, Stack, centred_affines
from sbr_core.algorithms.alignment.volumes import stack_volume
from sbr_core.algorithms.planes import prefiltered_volume, sample_volume
from sbr_core.geometry import apply

SEARCH_MM = 3.0
"""Spacing of both scenes: a little finer than the search's finest level (3.5 mm)."""
MARGIN_MM = 20.0
"""Background kept around the brain and compared around the stack's tissue: without background of
both, a pose could not lose by tissue on nothing."""
_CUT_SHARE = 0.6
_CUT_DEPTH_MM = 8.0
"""A face is a cut where its cross section is at least `_CUT_SHARE` of that `_CUT_DEPTH_MM` further
in. A brain is round: 8 mm from its pole its section is already several times larger than at it."""
_CUT_LEAST = 0.05
"""And at least this share of the largest cross section, so that ragged poles are no cuts."""


@dataclass(frozen=True)
class Scene:
    """A volume, prepared once for all poses.

    Attributes
    ----------
    data : [i, j, k] float32, 0 outside tissue, its median there 1.
    tissue : the same shape, share of tissue.
    known : the same shape, bool: whether there is data at all. Of an MRI all of it.
    mm_from_index : (4, 4), stack mm, or the MRI's world.
    cuts : of an MRI, half spaces (4,) of index coordinates (a·x + d > 0) beyond which it was cut.
    """

    data: np.ndarray
    tissue: np.ndarray
    known: np.ndarray
    mm_from_index: np.ndarray
    cuts: tuple[np.ndarray, ...] = ()

    @property
    def spacing_mm(self) -> float:
        return float(np.abs(np.linalg.det(self.mm_from_index[:3, :3])) ** (1 / 3))


def coarse_scenes(stack: Stack, mri: Mri) -> tuple[Scene, Scene]:
    """(stack, MRI) for `pose_search.search`, the stack as `centred_affines` lay it out."""
    volume = stack_volume(stack, centred_affines(stack), SEARCH_MM)
    return (
        Scene(
            volume.data,
            volume.tissue.astype(np.float32),
            np.array(volume.known),
            volume.grid.mm_from_index(),
        ),
        mri_scene(mri, SEARCH_MM),
    )


def mri_scene(mri: Mri, spacing_mm: float) -> Scene:
    """An MRI at `spacing_mm`, along its own axes."""
    unit = max(float(np.median(mri.data[mri.mask])), 1e-6)
    step = spacing_mm / mri.voxel_mm
    where = np.argwhere(mri.mask)
    low, high = where.min(axis=0), where.max(axis=0)
    start = low - np.ceil(MARGIN_MM / mri.voxel_mm)
    stop = high + np.ceil(MARGIN_MM / mri.voxel_mm)
    axes = [np.arange(a, b + s, s) for a, b, s in zip(start, stop, step, strict=True)]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    data, tissue = (
        sample_volume(prefiltered_volume(image, mri.voxel_mm, spacing_mm), voxels)
        for image in (np.where(mri.mask, mri.data, 0) / unit, mri.mask.astype(np.float32))
    )
    voxel_from_index = np.diag([*step, 1.0])
    voxel_from_index[:3, 3] = start
    return Scene(
        np.clip(data, 0, 3),
        tissue,
        np.ones(tissue.shape, bool),
        mri.world_from_voxel @ voxel_from_index,
        _cuts(mri, start, step),
    )


def _cuts(mri: Mri, start: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, ...]:
    """Half spaces beyond the faces at which the MRI was cut off.

    A face of the brain's bounding box towards which the brain hardly tapers is taken for one:
    near it the cross section is at least 0.6 times that 8 mm further in.

    Parameters
    ----------
    start, step : (3,) voxel of the scene's index 0, and voxels per index.
    """
    where = np.argwhere(mri.mask)
    low, high = where.min(axis=0), where.max(axis=0)
    cuts = []
    for axis in range(3):
        area = mri.mask.sum(axis=tuple(a for a in range(3) if a != axis))
        for side, face in ((-1, low[axis]), (1, high[axis])):
            # one slice in, for edges are ragged
            outer, deeper = (
                area[int(np.clip(face - side * n, low[axis], high[axis]))]
                for n in (1, 1 + round(_CUT_DEPTH_MM / mri.voxel_mm[axis]))
            )
            if outer > max(_CUT_SHARE * deeper, _CUT_LEAST * area.max()):
                plane = np.zeros(4)
                plane[axis] = side * step[axis]
                plane[3] = side * (start[axis] - face) - 0.5
                cuts.append(plane)
    return tuple(cuts)


def tissue_points_mm(stack: Scene) -> np.ndarray:
    """(n, 3) stack mm of some 300 voxels of tissue, by which poses are compared."""
    where = np.argwhere((stack.tissue > 0.5) & stack.known)
    return apply(stack.mm_from_index, where[:: max(1, len(where) // 300)])
