"""Where the tissue is: masks of sections and of an MRI."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.transform import hough_line, hough_line_peaks

from sbr_core.algorithms.background import frame_mask, rectangularity
from sbr_core.algorithms.levels import border_values, standing_out, stripped_value

_EIGHT = np.ones((3, 3), bool)
"""Pixels that touch at a corner belong together, so that a thin gyrus stays one piece."""
_AIR = 0.2
"""Share of the strongest signal that air has at the most."""
_NOISE_SIGMAS = 4.0
"""Standard deviations of the background below which nothing counts: by chance, some thirty pixels
of a million are beyond, and single pixels go with what is thin."""
_TISSUE, _CUT_OUT_TISSUE = 0.25, 0.05
"""Share of typical tissue's signal from which on a pixel is tissue: embedding medium is mostly
paler, and so are smears; and where tissue was cut out, so that nothing pale is glass."""

# What is no tissue was looked at in BigBrain's and Allen's raw sections, and the limits set between
# it and their pale, dark and small tissue (benchmarks/2026-11-25_masks_and_intensity.md).
_SURELY_TISSUE, _DIRT = 0.1, 0.003
"""Shares of the largest piece's area: from the one on a piece is tissue; below the other it may be
dirt."""
_INK_SHARE = 0.3
"""Less of what stands out from the background, well apart from the rest, is ink or dark nuclei, and
not what is usual of tissue."""
_INK, _SMEAR = 1.3, 0.3
"""Ink is darker than the darkest tissue by this factor, a smear has less than this of its level."""
_AT_BORDER = 0.03
"""Share of the picture's shorter side: as near to its border lie edges of slides, and labels."""
_LABEL = 0.93
"""Share of the smallest rectangle around it that a label fills; a disc fills 0.79."""
_LONG = 0.15
"""Share of the picture's shorter side that a line is longer than; cover glass and scan lines are,
tissue as straight and thin is not."""


def tissue_mask(
    signal: np.ndarray, pixel_mm: float, feature_mm: float, noise: float = 0.0
) -> np.ndarray:
    """Tissue of one section, without ink, lines, labels, bubbles and dust.

    1. Tissue is what differs from the background by 25 % of typical tissue and 4 sigma. Where
       the background is one flat value and ends where tissue begins, as where tissue was cut out,
       5 % is enough off its edges: then nothing pale is glass.
    2. What is thinner than `feature_mm` (hairs, edges of the slide) is cut off, and so are
       straight lines somewhat thicker, and labels: rectangles at the border of the picture.
    3. Pieces are kept, separate ones too, unless they are tiny or look like something else: see
       `_is_foreign`.
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
    signal = np.where(frame_mask(signal, noise), 0, signal)
    stained = signal[signal > _NOISE_SIGMAS * noise]
    if stained.size == 0:
        return np.zeros(signal.shape, bool)
    level = _tissue_level(signal, stained)
    mask = signal > max(_TISSUE * level, _NOISE_SIGMAS * noise)
    generous = signal > max(_CUT_OUT_TISSUE * level, _NOISE_SIGMAS * noise)
    if _is_cut_out(signal, mask, generous):  # its edges are blurred nevertheless
        mask |= ndimage.distance_transform_edt(generous) > 2

    # edges of glass grow with the picture, whatever its resolution
    extent_px = math.sqrt(np.count_nonzero(mask))
    radius_px = max(0.5 * feature_mm / pixel_mm, 0.004 * extent_px, 1.0)
    mask = _without_thin_parts(mask & ~_labels(generous, np.count_nonzero(mask)), radius_px)
    mask = _without_lines(mask, radius_px)

    pieces, count = ndimage.label(mask, _EIGHT)
    if count == 0:
        return mask
    area_px = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    largest = 1 + int(np.argmax(area_px))
    inside = signal[pieces == largest]
    levels = float(np.median(inside)), float(np.quantile(inside, 0.97))
    typical = _Typical(int(area_px.max()), *levels, mask.shape)
    feature_px2 = math.pi * (feature_mm / pixel_mm) ** 2
    least_px = max(0.0005 * typical.area_px, feature_px2)
    keep = np.zeros(count + 1, bool)
    keep[largest] = typical.area_px >= feature_px2
    for piece, box in enumerate(ndimage.find_objects(pieces), 1):
        if piece != largest and area_px[piece - 1] >= least_px:
            keep[piece] = not _is_foreign(pieces[box] == piece, signal[box], box, typical)
    return _holes_filled(keep[pieces], feature_px2)


def _tissue_level(signal: np.ndarray, stained: np.ndarray) -> float:
    """Median signal of tissue, by Otsu's threshold.

    Ink is far darker than tissue and would draw the threshold and the level to itself: the darkest
    are clipped, and where the threshold still parts a small share from the rest, clipped there.

    Parameters
    ----------
    stained : (n,) what of the signal is no background, not empty.
    """
    top = float(np.quantile(stained, 0.98))
    while True:
        otsu = float(threshold_otsu(np.clip(signal, 0, top)))
        above = stained >= otsu
        if above.mean() >= _INK_SHARE or otsu >= top or not above.any():
            return float(np.median(signal[signal >= otsu]))
        top = otsu


@dataclass(frozen=True)
class _Typical:
    """What the largest piece of tissue is like, and the picture it lies in.

    Attributes
    ----------
    area_px : its area.
    level, dark : its median signal, and its 97 % quantile: the darkest tissue.
    shape : (rows, columns) of the picture.
    """

    area_px: int
    level: float
    dark: float
    shape: tuple[int, int]


def _is_foreign(
    piece: np.ndarray, signal: np.ndarray, box: tuple[slice, slice], typical: _Typical
) -> bool:
    """Whether a piece apart from the largest is ink, a smear, an edge, dirt or a bubble.

    What is a tenth of the largest piece or more is taken for tissue.

    Parameters
    ----------
    piece, signal : (rows, columns) of its bounding box.
    box : where that lies in the picture.
    """
    values = signal[piece]
    area_px = values.size
    to_border = _px_to_border(typical.shape)[box][piece]
    if area_px >= _SURELY_TISSUE * typical.area_px:
        return False
    like_tissue = np.mean((values > 0.5 * typical.level) & (values < 1.1 * typical.dark))
    # folded tissue is as dark as ink in places; letters are strokes with a pale rim
    ink = np.quantile(values, 0.75) > _INK * typical.dark and like_tissue < 0.5
    smear = np.median(values) < _SMEAR * typical.level
    edge = np.median(to_border) < _AT_BORDER * min(typical.shape)
    written_on = to_border.min() == 0 and like_tissue < 0.6  # ink on pale tape or paper
    # what is small enough to be dirt has to look like tissue
    dirt = area_px < _DIRT * typical.area_px and like_tissue < 0.5
    return bool(ink or smear or edge or written_on or dirt or _is_bubble(piece))


def _is_bubble(piece: np.ndarray) -> bool:
    """Whether a piece is a round rim, thin for its size, around nothing."""
    filled = ndimage.binary_fill_holes(piece)
    whole = np.count_nonzero(filled)
    hollow = np.count_nonzero(piece) < 0.5 * whole
    extent_px = max(piece.shape)
    return hollow and whole > 0.65 * math.pi / 4 * extent_px**2


def _labels(generous: np.ndarray, tissue_px: int) -> np.ndarray:
    """Labels with whatever is printed on them: rectangles at the border of the picture.

    Parameters
    ----------
    generous : (rows, columns) bool, what differs from the background at all.
    tissue_px : area of everything that may be tissue; a rectangle of half of it or more is one.
    """
    regions, count = ndimage.label(ndimage.binary_opening(generous, _EIGHT))
    is_label = np.zeros(count + 1, bool)
    to_border = _px_to_border(generous.shape)
    least_px = 0.002 * generous.size
    for region, box in enumerate(ndimage.find_objects(regions), 1):
        inside = regions[box] == region
        area_px = np.count_nonzero(inside)
        near = to_border[box][inside].min() < _AT_BORDER * min(generous.shape)
        if near and least_px < area_px < 0.5 * tissue_px:
            is_label[region] = rectangularity(np.pad(inside, 1)) > _LABEL
    return is_label[regions]


def _without_lines(mask: np.ndarray, radius_px: float) -> np.ndarray:
    """Cut off what is straight, long, and up to three times as thick as `radius_px` allows.

    Lines may cross or touch each other and tissue; each is at least 15 % of the picture's shorter
    side long and ten times as long as thick, which bent or tapering tissue is not.
    """
    thin = np.pad(mask & ~_without_thin_parts(mask, 3 * radius_px), 1)
    least_px = _LONG * min(mask.shape)
    half_px = ndimage.distance_transform_edt(thin)
    ridge = thin & (half_px >= ndimage.maximum_filter(half_px, 3) - 0.5)
    on_line = np.zeros(thin.shape, bool)
    rows, columns = np.nonzero(ridge)
    space = hough_line(ridge, np.deg2rad(np.arange(-90.0, 90.0, 0.5)))
    for _, angle, offset in zip(
        *hough_line_peaks(*space, min_distance=3, min_angle=3, threshold=least_px / 2), strict=True
    ):
        across = columns * np.cos(angle) + rows * np.sin(angle) - offset
        along = columns * np.sin(angle) - rows * np.cos(angle)
        picked = np.flatnonzero(np.abs(across) <= 1.5)
        picked = picked[np.argsort(along[picked])]
        for run in np.split(picked, np.flatnonzero(np.diff(along[picked]) > 4) + 1):
            length = along[run[-1]] - along[run[0]]
            if length > max(least_px, 20 * np.median(half_px[rows[run], columns[run]])):
                on_line[rows[run], columns[run]] = True
    near = ndimage.distance_transform_edt(~on_line) <= 3 * radius_px
    return mask & ~(thin & near)[1:-1, 1:-1] if on_line.any() else mask


def _is_cut_out(signal: np.ndarray, mask: np.ndarray, generous: np.ndarray) -> bool:
    """Whether the background was made: one value at the border, and no pale rim around tissue."""
    border = np.concatenate([signal[0], signal[-1], signal[:, 0], signal[:, -1]])
    values, counts = np.unique(border, return_counts=True)
    if counts.max() < 0.9 * border.size or abs(values[np.argmax(counts)]) > 1e-6:
        return False
    filled = ndimage.binary_fill_holes(ndimage.binary_dilation(mask, _EIGHT))
    return np.count_nonzero(generous & ~filled) < 0.002 * np.count_nonzero(mask)


def _px_to_border(shape: tuple[int, int]) -> np.ndarray:
    """Pixels between each pixel and the nearest border of the image."""
    rows, columns = (np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in shape)
    return np.minimum(rows[:, None], columns[None, :])


def _without_thin_parts(mask: np.ndarray, radius_px: float) -> np.ndarray:
    """Opening by a disc, then one geodesic growth so that what remains keeps its outline."""
    # beyond the image is none: tissue cut by the border is thick, an edge of the slide is not
    padded = np.pad(mask, 1)
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
    """Mask of an MRI: what is brighter than Otsu's threshold or, when skull-stripped, stands out.

    Nothing depends on an offset of the values, or on their sign.

    Parameters
    ----------
    volume : (i, j, k), finite, not all zero.

    Returns
    -------
    (i, j, k) bool: pieces of at least 5 % of the largest, holes filled.
    """
    volume = np.asarray(volume)
    outside = stripped_value(volume)
    if outside is not None:
        mask = standing_out(volume, outside)
    else:
        volume = -volume if _is_negative(volume) else volume
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


def _is_negative(volume: np.ndarray) -> bool:
    """Whether an MRI that is not stripped has a signal below 0: air about 0, and nothing above."""
    bottom, top = (float(v) for v in np.quantile(volume, [0.005, 0.995]))
    air = float(np.median(border_values(volume)))
    return bottom < 0 and max(top, abs(air)) < _AIR * -bottom
