"""Where the tissue is: background and polarity of a section, masks of sections and of an MRI."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

_EIGHT = np.ones((3, 3), bool)
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Background:
    """The empty part of a section image.

    Attributes
    ----------
    polarity : ``bright_background`` (glass) or ``dark_background`` (black).
    level : its intensity, in the file's intensity.
    noise : robust standard deviation of the intensity there, at least 0.5 % of the brightest.
    """

    polarity: str
    level: float
    noise: float


def find_background(image: np.ndarray, polarity: str = "auto") -> Background:
    """Polarity and level of the background, from the border of the image.

    Parameters
    ----------
    image : (rows, columns), any intensity scale.
    polarity : ``auto``, ``bright_background`` or ``dark_background``. ``auto``: the background
        is bright when the border's median is nearer the image's 99 % quantile than its 1 %.
    """
    width = max(1, round(0.02 * min(image.shape)))
    inner = np.zeros(image.shape, bool)
    inner[width:-width, width:-width] = True
    border = image[~inner]
    low, high = np.quantile(image, [0.01, 0.99])
    if polarity == "auto":
        middle = float(np.median(border))
        bright = middle - low > high - middle
        if high == low:  # a flat image says nothing; bright or dark makes no difference
            bright = True
        polarity = "bright_background" if bright else "dark_background"
    # tissue and ink that reach the border lie on the other side of the middle
    half = (low + high) / 2
    empty = border[border >= half] if polarity == "bright_background" else border[border <= half]
    if empty.size == 0:
        empty = np.array([image.max() if polarity == "bright_background" else image.min()])
    level = float(np.median(empty))
    apart = np.abs(empty - level)
    if np.mean(apart > 0) > 0.25:  # noise clipped at black or white: half of it is exactly there
        apart = apart[apart > 0]
    noise = float(_MAD_TO_SIGMA * np.median(apart))
    # what differs by less than half a percent of the brightest is no tissue, noise or not
    floor = 0.005 * float(np.quantile(np.abs(image), 0.999))
    return Background(polarity, level, max(noise, floor))


def tissue_mask(
    signal: np.ndarray, pixel_mm: float, feature_mm: float, noise: float = 0.0
) -> np.ndarray:
    """Tissue of one section, without ink, lines, labels and dust.

    1. Tissue is what stands out from the background by 25 % of typical tissue and 4 sigma.
    2. What is thinner than `feature_mm` (lines, hairs, edges of the slide) is cut off.
    3. Separate pieces are kept unless they are tiny, much darker than tissue (ink), much paler
       (smears), or hug the border of the image (labels, edges of the slide).
    4. Holes smaller than two features across are filled; ventricles stay open.

    Parameters
    ----------
    signal : (rows, columns), background at 0 and tissue above it, any scale.
    pixel_mm : its pixel size.
    feature_mm : the size below which detail does not matter, e.g. the working pixel.
    noise : standard deviation of the background.

    Returns
    -------
    (rows, columns) bool; all False where there is no tissue.
    """
    standing_out = signal[signal > 4 * noise]
    if standing_out.size == 0:
        return np.zeros(signal.shape, bool)
    # ink is far darker than tissue and would draw Otsu's threshold and the level to itself
    top = np.quantile(standing_out, 0.98)
    otsu = threshold_otsu(np.clip(signal, 0, top))
    level = float(np.median(signal[signal >= otsu]))
    mask = signal > max(0.25 * level, 4 * noise)

    radius_px = 0.5 * feature_mm / pixel_mm
    mask = _without_thin_parts(mask, max(radius_px, 1.0))

    labels, count = ndimage.label(mask, _EIGHT)
    if count == 0:
        return mask
    index = np.arange(1, count + 1)
    area_px = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    largest = area_px.max()
    tissue = np.median(signal[labels == 1 + np.argmax(area_px)])
    middle = ndimage.median(signal, labels, index)
    # letters are strokes with a pale rim: their darker part tells
    darkest = ndimage.labeled_comprehension(
        signal, labels, index, lambda v: np.quantile(v, 0.75), float, 0.0
    )
    to_border_px = ndimage.median(_px_to_border(mask.shape), labels, index)
    tiny = area_px < max(0.003 * largest, math.pi * (feature_mm / pixel_mm) ** 2)
    ink = darkest > 1.6 * tissue
    smear = middle < 0.35 * tissue
    edge = to_border_px < 0.03 * min(mask.shape)
    keep = ~(tiny | ((ink | smear | edge) & (area_px < 0.1 * largest)))
    mask = np.concatenate([[False], keep])[labels]
    return _holes_filled(mask, math.pi * (feature_mm / pixel_mm) ** 2)


def _px_to_border(shape: tuple[int, int]) -> np.ndarray:
    """Pixels between each pixel and the nearest border of the image."""
    rows, columns = (np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in shape)
    return np.minimum(rows[:, None], columns[None, :])


def _without_thin_parts(mask: np.ndarray, radius_px: float) -> np.ndarray:
    """Opening by a disc, then one geodesic growth so that what remains keeps its outline."""
    # beyond the image counts as tissue for the erosion: tissue cut by the border is not thin
    padded = np.pad(mask, 1, mode="edge")
    core = ndimage.distance_transform_edt(padded) > radius_px
    near = ndimage.distance_transform_edt(~core) <= 2 * radius_px
    return (padded & near)[1:-1, 1:-1]


def _holes_filled(mask: np.ndarray, area_px: float) -> np.ndarray:
    """Fill background enclosed by tissue where it is smaller than `area_px`."""
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    if count == 0:
        return mask
    small = np.bincount(holes.ravel(), minlength=count + 1) < area_px
    small[0] = False
    return mask | small[holes]


def brain_mask(volume: np.ndarray) -> np.ndarray:
    """Mask of an MRI: what is brighter than Otsu's threshold or, when skull-stripped, not zero.

    Parameters
    ----------
    volume : (i, j, k), finite, not all zero.

    Returns
    -------
    (i, j, k) bool: pieces of at least 5 % of the largest, holes filled.
    """
    volume = np.asarray(volume)
    if np.mean(volume == 0) > 0.2:
        # stripped: 2 % leaves out the faint rim that interpolation once made
        mask = np.abs(volume) > 0.02 * np.median(np.abs(volume[volume != 0]))
    else:
        top = np.quantile(volume, 0.995)
        mask = volume > threshold_otsu(np.minimum(volume, top))
    opened = ndimage.binary_opening(mask)
    labels, count = ndimage.label(opened)
    if count == 0:
        return ndimage.binary_fill_holes(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= 0.05 * sizes[1:].max()
    keep[0] = False
    core = keep[labels]
    return ndimage.binary_fill_holes(ndimage.binary_dilation(core) & mask | core)
