"""Sampling images and labels of sections and planes on another grid, from a prefiltered copy."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from sbr_core.geometry import PlaneGrid, apply, scaling

FWHM_PER_SIGMA = 2.355
"""Full width at half maximum of a Gaussian over its sigma, 2 sqrt(2 ln 2)."""
_SAMPLES_AT_ONCE = 20_000_000
"""Points whose coordinates (16 bytes each) and labels are in memory together: some 0.5 GB."""


def grid_px(shape: tuple[int, int]) -> np.ndarray:
    """Pixel centres of a grid.

    Returns
    -------
    (rows, columns, 2) float64: (column, row) of every pixel.
    """
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    return np.stack([columns, rows], axis=-1)


def prefilter(image: np.ndarray, scale: float, background: float = 0.0) -> np.ndarray:
    """Blur an image so that it can be sampled every `scale` pixels without aliasing.

    A pixel of the file has a point spread about 1 pixel wide, a pixel of the output should have
    one `scale` pixels wide (full width at half maximum), and widths add in squares: sigma =
    sqrt(scale² − 1) / 2.355 pixels.

    Parameters
    ----------
    image : (rows, columns), any intensity.
    scale : output pixel / image pixel; nothing is blurred at 1 or below.
    background : intensity outside the image.

    Returns
    -------
    (rows, columns) float32, a copy.
    """
    image = np.asarray(image, np.float32)
    if scale <= 1:
        return image.copy()
    sigma = math.sqrt(scale**2 - 1) / FWHM_PER_SIGMA
    return ndimage.gaussian_filter(image, sigma, mode="constant", cval=background)


def resample_section(
    image: np.ndarray, file_px: np.ndarray, *, background: float = 0.0, order: int = 1
) -> np.ndarray:
    """Look an image up at given file pixels.

    Parameters
    ----------
    image : (rows, columns); for intensities the result of `prefilter`.
    file_px : (..., 2) float, (column, row) in the image.
    background : value beyond the outer edges of the image, which lie half a pixel outside its
        outermost pixel centres.
    order : 1 linear, 0 nearest neighbour (labels).

    Returns
    -------
    (...) array: float32 for order 1, the type of `image` for order 0.
    """
    image = np.asarray(image)
    points = np.moveaxis(np.asarray(file_px, float)[..., ::-1], -1, 0)
    last = np.reshape(image.shape, (2, *[1] * (points.ndim - 1))) - 1
    # the margin lets exact turns, which hit the edge up to rounding, count as inside
    inside = np.all((points >= -0.5 - 1e-6) & (points <= last + 0.5 + 1e-6), axis=0)
    if order == 0:
        index = np.clip(np.floor(points + 0.5), 0, last).astype(np.intp)
        return np.where(inside, image[index[0], index[1]], image.dtype.type(background))
    source = image.astype(np.float32, copy=False)
    values = ndimage.map_coordinates(source, np.clip(points, 0, last), order=1, mode="nearest")
    return np.where(inside, values, np.float32(background))


def area_vote(
    labels: np.ndarray, file_px_from_output_px: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Labels on another grid: each output pixel takes the label that fills most of its area.

    The area is counted at points at most half a file pixel apart. Outside the image is label 0;
    of two labels with the same area the lower one wins.

    Parameters
    ----------
    labels : (rows, columns) of integers or bool.
    file_px_from_output_px : (3, 3).
    shape : (rows, columns) of the output.

    Returns
    -------
    `shape` array of the type of `labels`.
    """
    labels = np.asarray(labels)
    scale = math.sqrt(abs(np.linalg.det(file_px_from_output_px[:2, :2])))
    n = min(max(math.ceil(2 * scale - 1e-6), 1), 32)
    along = (np.arange(n) + 0.5) / n - 0.5
    grid_offsets = [np.array([dx, dy]) for dy in along for dx in along]
    out = np.zeros(shape, labels.dtype)
    block = max(1, _SAMPLES_AT_ONCE // (shape[1] * n * n))
    centres = grid_px(shape)
    for start in range(0, shape[0], block):
        some = centres[start : start + block]
        samples = np.stack(
            [
                resample_section(labels, apply(file_px_from_output_px, some + offset), order=0)
                for offset in grid_offsets
            ]
        )
        most = np.zeros(some.shape[:2], int)
        for label in np.unique(samples):
            area = np.count_nonzero(samples == label, axis=0)
            out[start : start + block][area > most] = label
            most = np.maximum(most, area)
    return out


def image_on_grid(image: np.ndarray, source: PlaneGrid, target: PlaneGrid) -> np.ndarray:
    """A plane's image on another grid of the same origin; float32, 0 outside."""
    if source == target:
        return np.asarray(image, np.float32)
    ratio = target.spacing_mm / source.spacing_mm
    return resample_section(prefilter(image, ratio), grid_px(target.shape) * ratio)


def mask_on_grid(mask: np.ndarray, source: PlaneGrid, target: PlaneGrid) -> np.ndarray:
    """A plane's mask on another grid of the same origin, by area; bool."""
    mask = np.asarray(mask) > 0
    return mask if source == target else labels_on_grid(mask, source, target)


def labels_on_grid(labels: np.ndarray, source: PlaneGrid, target: PlaneGrid) -> np.ndarray:
    """A plane's labels on another grid of the same origin, by area."""
    return area_vote(labels, scaling(target.spacing_mm / source.spacing_mm), target.shape)


def tissue_signal(image: np.ndarray, polarity: str, background: float) -> np.ndarray:
    """Intensity with the background at 0 and tissue above it, linear in the file's intensity.

    Parameters
    ----------
    image : (rows, columns), file intensity.
    polarity : ``bright_background`` (inverted) or ``dark_background``.
    background : intensity of the background, in the file's intensity.
    """
    image = np.asarray(image, np.float32)
    if polarity == "bright_background":
        return np.float32(background) - image
    if polarity == "dark_background":
        return image - np.float32(background)
    raise ValueError(f"polarity {polarity!r}: expected bright_background or dark_background")
