"""Images, masks and labels of a plane on another grid of it with the same origin."""

from __future__ import annotations

import numpy as np

from sbr_core.algorithms.sections import area_vote, grid_px, prefilter, resample_section
from sbr_core.geometry import PlaneGrid, scaling


def image_on_grid(image: np.ndarray, source: PlaneGrid, target: PlaneGrid) -> np.ndarray:
    """An image on another grid; float32, 0 outside."""
    if source == target:
        return np.asarray(image, np.float32)
    ratio = target.spacing_mm / source.spacing_mm
    return resample_section(prefilter(image, ratio), grid_px(target.shape) * ratio)


def mask_on_grid(mask: np.ndarray, source: PlaneGrid, target: PlaneGrid) -> np.ndarray:
    """A mask on another grid, by area; bool."""
    mask = np.asarray(mask) > 0
    return mask if source == target else labels_on_grid(mask, source, target)


def labels_on_grid(labels: np.ndarray, source: PlaneGrid, target: PlaneGrid) -> np.ndarray:
    """Labels on another grid, by area."""
    return area_vote(labels, scaling(target.spacing_mm / source.spacing_mm), target.shape)
