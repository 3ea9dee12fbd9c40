"""A sheared volume on a grid of right angles.

An affine registration that was written into a header shears the voxels. NIfTI's sform holds that;
its qform, and all that reads images with ITK, does not.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter

from sbr_core.geometry import apply, with_right_angles


def on_right_angles(
    data: np.ndarray, mask: np.ndarray, world_from_voxel: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A volume and its mask where they are, on the nearest grid of right angles and equal spacing.

    The grid holds the whole field of view. Intensities are cubic splines of those of `data`,
    within their range; the mask is the half of a linear one.

    Parameters
    ----------
    data : [i, j, k], float32, 0 beyond its field of view.
    mask : bool, the same shape.
    world_from_voxel : (4, 4), RAS mm.

    Returns
    -------
    data, mask, world_from_voxel of the new grid.
    """
    straight = with_right_angles(world_from_voxel, data.shape)
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in data.shape], indexing="ij"), -1)
    reach = apply(np.linalg.inv(straight) @ world_from_voxel, ends).reshape(-1, 3)
    low, high = np.floor(reach.min(axis=0) + 1e-6), np.ceil(reach.max(axis=0) - 1e-6)
    straight[:3, 3] = apply(straight, low)
    shape = tuple((high - low).astype(int) + 1)
    old_from_new = np.linalg.inv(world_from_voxel) @ straight
    out, inside = np.zeros(shape, np.float32), np.zeros(shape, bool)
    splines = spline_filter(data, order=3, output=np.float32)
    share = mask.astype(np.float32)
    layer = np.stack(np.indices((1, *shape[1:])), axis=-1).astype(float)
    for i in range(shape[0]):  # layer by layer, for coordinates take 24 bytes a voxel
        layer[..., 0] = i
        old = np.moveaxis(apply(old_from_new, layer), -1, 0)
        out[i] = map_coordinates(splines, old, order=3, prefilter=False, mode="constant")[0]
        inside[i] = map_coordinates(share, old, order=1, mode="constant")[0] > 0.5
    return np.clip(out, min(data.min(), 0), data.max()), inside, straight
