"""Whether an MRI shows a brain alone, or a head around it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_LAYER_MM = 2.0
"""Thickness of the layers that are compared, in a brain of human size; no thinner than a voxel."""
_MOST = 100
"""Voxels along an axis that are looked at: 2 mm of a human head."""
_SCALP_MM, _SKULL_MM, _INNER_MM = 8.0, 26.0, 45.0
"""How deep below the skin, at most, the brightest layer of the scalp and the darkest one of the
skull and the fluid below it lie, and how deep what is compared with them reaches."""
_DARKER = 0.45
"""Of the scalp's and the brain's brightness the layer between has less than this: heads made of
four brains and skulls of several kinds have 0.15 to 0.37, brains 0.74 to 1
(benchmarks/2026-11-30_check.md)."""
_HUMAN_MM = 107.0
"""Edge of the cube that holds what a human brain does; depths go by a brain's own size."""


def skull_darkness(data: np.ndarray, voxel_mm: np.ndarray) -> float:
    """How dark the darkest layer below the surface is, of the layers above and below it.

    Layers are the depths below the outline of all that is bright, filled: under the skin of a
    head comes bone, with fluid below, under the surface of a brain comes brain.

    Parameters
    ----------
    data : (i, j, k), finite.
    voxel_mm : (3,).

    Returns
    -------
    Brightness of that layer over that of the less bright of its neighbours, 0 to 1 where there is
    such a layer; 1 where there is none.
    """
    step = [max(1, round(n / _MOST)) for n in data.shape]
    data = np.asarray(data[:: step[0], :: step[1], :: step[2]], np.float32)
    spacing_mm = np.asarray(voxel_mm) * step
    low, high = np.quantile(data, [0.02, 0.995])
    data = np.clip((data - low) / max(high - low, 1e-12), 0, 1)
    bright = ndimage.binary_opening(data > 0.12)
    outline = _filled(bright)
    if np.count_nonzero(outline) < 1000:
        return 1.0
    size_mm = float(np.cbrt(np.count_nonzero(outline) * np.prod(spacing_mm)))
    # what the end of the volume cuts has no skin there
    depth_mm = ndimage.distance_transform_edt(np.pad(outline, 1, "edge"), sampling=spacing_mm)
    depth_mm = depth_mm[1:-1, 1:-1, 1:-1] * _HUMAN_MM / size_mm
    thickness_mm = max(_LAYER_MM, float(spacing_mm.max()) * _HUMAN_MM / size_mm)
    layers = np.arange(1.0, _INNER_MM, thickness_mm)
    inside = [data[(depth_mm > d) & (depth_mm <= d + thickness_mm)] for d in layers]
    brightness = np.array([np.median(values) for values in inside if values.size])
    layers = layers[[values.size > 0 for values in inside]]
    if brightness.size < 4:
        return 1.0
    outer = np.flatnonzero(layers <= max(_SCALP_MM, layers[0]))
    skin = int(outer[np.argmax(brightness[outer])])
    below = np.arange(skin + 1, np.searchsorted(layers, _SKULL_MM))
    bone = int(below[np.argmin(brightness[below])])
    inner = brightness[bone + 1 :]
    beside = min(brightness[skin], inner.max(initial=0.0))
    return float(min(1.0, brightness[bone] / beside)) if beside > 0 else 1.0


def is_head(darkness: float) -> bool:
    """Whether `skull_darkness` is that of a head."""
    return darkness < _DARKER


def _filled(mask: np.ndarray) -> np.ndarray:
    """Holes filled in the layers of every axis: a skull is open at the neck, not in each layer."""
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(mask))
    votes = np.zeros(mask.shape, np.uint8)
    for axis in range(3):
        for index in range(mask.shape[axis]):
            layer = (slice(None),) * axis + (index,)
            votes[layer] += ndimage.binary_fill_holes(filled[layer])
    filled = votes >= 2
    pieces, count = ndimage.label(filled)
    if count == 0:
        return filled
    return pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
