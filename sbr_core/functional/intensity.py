"""From an image to a network's input."""

from __future__ import annotations

import numpy as np


def normalise(
    image: np.ndarray, mask: np.ndarray, low_quantile: float, high_quantile: float
) -> np.ndarray:
    """Quantiles inside the mask to 0 and 1, clipped, 0 outside the mask.

    Parameters
    ----------
    image : (H, W), any unit; tissue brighter than nothing.
    mask : (H, W), tissue where nonzero.
    low_quantile, high_quantile : in [0, 1], low < high; recomputed for every image.

    Returns
    -------
    (H, W) float32 in [0, 1]. An image that is flat inside its mask gives zeros everywhere:
    it has nothing a network could use.

    Raises
    ------
    ValueError
        The mask is empty or of another shape, or the quantiles are not in order.
    """
    image, inside = np.asarray(image, np.float32), np.asarray(mask) > 0
    if image.shape != inside.shape:
        raise ValueError(f"image {image.shape} and mask {inside.shape} differ in shape")
    if not inside.any():
        raise ValueError("empty mask: no pixel to take intensity quantiles from")
    if not 0 <= low_quantile < high_quantile <= 1:
        raise ValueError(f"quantiles not in order: {low_quantile}, {high_quantile}")
    low, high = np.quantile(image[inside].astype(np.float64), (low_quantile, high_quantile))
    if high - low <= 1e-6 * max(abs(high), abs(low)):  # flat up to rounding
        return np.zeros(image.shape, np.float32)
    scaled = np.clip((image - low) / (high - low), 0.0, 1.0)
    return np.where(inside, scaled, 0.0).astype(np.float32)
