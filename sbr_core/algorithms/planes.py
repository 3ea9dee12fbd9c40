"""Looking a volume up where the planes of a stack cut it."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from sbr_core.algorithms.sections import FWHM_PER_SIGMA, grid_px
from sbr_core.geometry import PlaneGrid, apply


def prefiltered_volume(
    data: np.ndarray, voxel_mm: np.ndarray, spacing_mm: float | np.ndarray
) -> np.ndarray:
    """Blur a volume so that it can be sampled every `spacing_mm` without aliasing.

    Along each of its axes, sigma = sqrt((spacing / voxel)² − 1) / 2.355 voxels, as `prefilter`
    does for sections; an axis whose voxels are no smaller than the spacing is left as it is.

    Parameters
    ----------
    data : [i, j, k], any intensity.
    voxel_mm : (3,) side of a voxel along i, j, k, in the millimetres of `spacing_mm`.
    spacing_mm : spacing of the samples; one number, or one per axis of `data`.

    Returns
    -------
    float32, a copy.
    """
    ratio = np.broadcast_to(spacing_mm, 3) / np.asarray(voxel_mm, float)
    sigma = np.sqrt(np.maximum(ratio**2 - 1.0, 0.0)) / FWHM_PER_SIGMA
    return gaussian_filter(np.asarray(data, np.float32), sigma, mode="nearest")


def sample_volume(data: np.ndarray, voxels: np.ndarray, order: int = 1) -> np.ndarray:
    """Look a volume up at voxel coordinates.

    Parameters
    ----------
    data : [i, j, k].
    voxels : (..., 3), (i, j, k). The volume reaches half a voxel beyond its outermost voxel
        centres, as for ITK; beyond that it is 0.
    order : 0 nearest, 1 linear, 3 cubic spline.

    Returns
    -------
    (...) float32, or the type of `data` for order 0.
    """
    points = np.moveaxis(np.asarray(voxels, float), -1, 0)
    last = np.reshape(data.shape, (3, *[1] * (points.ndim - 1))) - 1
    inside = np.all((points >= -0.5) & (points <= last + 0.5), axis=0)
    points = np.clip(points, 0, last)
    if order == 0:  # looked up, for an interpolator takes ids of 64 bits for floats
        values = data[tuple(np.floor(points + 0.5).astype(np.intp))]
        return np.where(inside, values, data.dtype.type(0))
    values = map_coordinates(data, points, order=order, mode="nearest", output=np.float32)
    return np.where(inside, values, np.float32(0))


def plane_points_mm(grid: PlaneGrid, position_mm: float) -> np.ndarray:
    """(rows, columns, 3): stack mm (x, y, position) of every pixel of a plane."""
    xy = grid_px(grid.shape) * grid.spacing_mm
    return np.concatenate([xy, np.full((*grid.shape, 1), float(position_mm))], axis=-1)


def resample_plane(
    data: np.ndarray,
    world_from_voxel: np.ndarray,
    stack_from_world: np.ndarray,
    grid: PlaneGrid,
    position_mm: float,
    order: int = 1,
) -> np.ndarray:
    """A volume on one plane of the stack.

    Parameters
    ----------
    data : [i, j, k]; for intensities the result of `prefiltered_volume`.
    world_from_voxel, stack_from_world : (4, 4), RAS mm.
    grid, position_mm : the plane.

    Returns
    -------
    (rows, columns), as `sample_volume` returns them; 0 where the plane leaves the volume.
    """
    voxel_from_stack = np.linalg.inv(stack_from_world @ world_from_voxel)
    return sample_volume(data, apply(voxel_from_stack, plane_points_mm(grid, position_mm)), order)
