"""What lies around the tissue: polarity, level and noise of the background, and padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sbr_core.algorithms.robust import MAD_TO_SIGMA

_PADDING_TOLERANCE = 0.03
"""Padding is one value up to this share of the image's range: room for lossy compression."""
_PADDED_BORDER = 0.25
"""Share of the image's border that padding fills at least: one side of a square image."""
_SLIDE = 0.95
"""Share of the smallest rectangle around it that a slide fills; a disc would fill 0.79."""
_FRAMED, _FRAME_WIDTH = 0.9, 0.2
"""A dark edge of a slide runs along this share of a side of the picture at least, and is no wider
than this share of the picture across it: tissue that the picture cuts off does not, or is."""
_FRAME_UNEVEN = 0.03
"""How far the inner rim of a dark edge may leave a straight line, share of the picture's shorter
side; what sticks out farther is tissue that touches it."""
_OUTSIDE_PX = 3
"""So many rows at most are no picture yet, where a dark edge is looked for."""
_GLASS_BEYOND = 0.6
"""Share of a dark edge beyond which there is glass; beyond the dark around tissue there is none."""
_RIM_PX = 5
"""Beyond padding and dark edges, so many pixels on, their blur has ended."""

_SIGNED = 0.5
"""Black of signed numbers that were stored as unsigned ones, as a share of their range."""
_CONTRAST = 0.05
"""Share of the brightest that the contrast of a section has at least. Of a picture in [0, 1] with
less nothing is tissue; beyond, or where it may be signed, it is the offset that makes it little."""


@dataclass(frozen=True)
class Background:
    """The empty part of a section image.

    Attributes
    ----------
    polarity : ``bright_background`` (glass) or ``dark_background`` (black).
    level : its intensity, in the image's intensity.
    noise : robust standard deviation of the intensity there, at least 0.5 % of the brightest.
    padding : value of what a scanner put around the slide, or None; see `padding_value`.
    """

    polarity: str
    level: float
    noise: float
    padding: float | None = None


def find_background(image: np.ndarray, polarity: str = "auto") -> Background:
    """Polarity and level of the background, from the border of the image.

    Where the slide is surrounded by padding, or has dark edges, the border is that of the slide.

    Parameters
    ----------
    image : (rows, columns), any intensity scale.
    polarity : ``auto``, ``bright_background`` or ``dark_background``. ``auto``: the background
        is bright when the border's median is nearer the image's 99 % quantile than its 1 %.
    """
    padding = padding_value(image)
    if padding is None:
        width = max(1, round(0.02 * min(image.shape)))
        inner = np.zeros(image.shape, bool)
        inner[width:-width, width:-width] = True
        border, seen = image[~inner], image
    else:
        around = padding_mask(image, padding)
        border, seen = image[_rim(around)], image[~around]
    if padding is None and polarity != "dark_background":
        frame = frame_mask(float(np.quantile(image, 0.99)) - image)
        on_slide = image[(~inner | _rim(frame)) & ~frame]
        # a cut-out section beside a band of black is no slide with a dark edge
        if frame.any() and _is_bright(on_slide, image[~frame]):
            border, seen = on_slide, image[~frame]
    if polarity == "auto":
        polarity = "bright_background" if _is_bright(border, seen) else "dark_background"
    low, high = np.quantile(seen, [0.01, 0.99])
    # tissue and ink that reach the border lie on the other side of the middle
    half = (low + high) / 2
    empty = border[border >= half] if polarity == "bright_background" else border[border <= half]
    if empty.size == 0:
        empty = np.array([seen.max() if polarity == "bright_background" else seen.min()])
    level = float(np.median(empty))
    apart = np.abs(empty - level)
    if np.mean(apart > 0) > 0.25:  # noise clipped at black or white: half of it is exactly there
        apart = apart[apart > 0]
    noise = float(MAD_TO_SIGMA * np.median(apart))
    # what differs by less than half a percent of the brightest is no tissue, noise or not
    return Background(polarity, level, max(noise, 0.005 * _brightest(seen)), padding)


def _brightest(seen: np.ndarray) -> float:
    """How bright an image is, above black.

    Black is 0, as cameras have it, unless an offset was added: then it is unknown, and the
    image's contrast counts.
    """
    low, high = (float(v) for v in np.quantile(seen, [0.001, 0.999]))
    brightest = float(np.quantile(np.abs(seen), 0.999))
    may_be = low < 0 or high > 1 or (low >= _SIGNED and high < _SIGNED + _CONTRAST)
    return high - low if may_be and high - low < _CONTRAST * brightest else brightest


def _is_bright(border: np.ndarray, seen: np.ndarray) -> bool:
    """Whether the median of the border is nearer the brightest of what is seen than the darkest."""
    low, high = np.quantile(seen, [0.01, 0.99])
    middle = float(np.median(border))
    # flat: bright or dark makes no difference
    return bool(high == low or middle - low > high - middle)


def padding_value(image: np.ndarray) -> float | None:
    """The value of the padding around a slide that does not fill its image, if there is any.

    Scanners and stitching pad with black or white; a slide on a dark table looks alike. Padding
    fills at least a quarter of the image's border evenly, and what it leaves is a rectangle, turned
    or not, with another even level along its edges: the slide's own background, far from the
    padding and an extreme of what is there.

    Parameters
    ----------
    image : (rows, columns), any intensity scale.
    """
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    lowest, highest = float(image.min()), float(image.max())
    tolerance = _PADDING_TOLERANCE * (highest - lowest)
    for value in (lowest, highest):
        if tolerance == 0 or np.mean(np.abs(edge - value) <= tolerance) < _PADDED_BORDER:
            continue
        around = padding_mask(image, value)
        if around.mean() > 0.95 or rectangularity(~around) < _SLIDE:
            continue
        rim, inside = image[_rim(around)], image[~around]
        if rim.size == 0:
            continue
        level = float(np.median(rim))
        even = np.quantile(np.abs(rim - level), 0.8) <= 2 * tolerance
        far = abs(level - value) > 0.5 * (highest - lowest)
        # tissue stands out from the slide's background towards the padding's intensity
        standing_out = (inside - level) * (1 if value > level else -1)
        some_tissue = np.mean(standing_out > 2 * tolerance) > 0.01
        if even and far and some_tissue and np.mean(standing_out < -2 * tolerance) < 0.02:
            return value
    return None


def padding_mask(image: np.ndarray, value: float) -> np.ndarray:
    """(rows, columns) bool: pixels of about `value` that hang together with the border."""
    tolerance = _PADDING_TOLERANCE * float(image.max() - image.min())
    regions, _ = ndimage.label(np.abs(image - value) <= tolerance)
    edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    at_border = np.zeros(regions.max() + 1, bool)
    at_border[edge] = True
    at_border[0] = False
    return at_border[regions]


def frame_mask(signal: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Dark edges of a slide: what is dark all along a side of the picture, with glass beyond.

    Tissue that touches such an edge is left out of it; evenness and a common level are not asked
    for, which `padding_value` goes by.

    Parameters
    ----------
    signal : (rows, columns), glass at 0 and what is darker above it, any scale.
    noise : standard deviation of the glass.

    Returns
    -------
    (rows, columns) bool; all False where there is none.
    """
    frame = np.zeros(signal.shape, bool)
    if min(signal.shape) < 4 * _RIM_PX:
        return frame
    least = max(4 * noise, 0.1 * float(np.quantile(signal, 0.99)))
    for turn in range(4):
        # views: the side of interest becomes the first row
        _mark_side(np.rot90(signal, turn), np.rot90(frame, turn), least)
    return frame


def _mark_side(signal: np.ndarray, frame: np.ndarray, least: float) -> None:
    """Mark in `frame` the dark edge along the first row, if there is one.

    Parameters
    ----------
    least : signal below which all is glass.
    """
    # a row of nothing may lie around a resampled picture
    first = int(np.argmax((signal[:_OUTSIDE_PX] > least).mean(axis=1) >= _FRAMED))
    signal, frame = signal[first:], frame[first:]
    depth_px, length_px = signal.shape
    level = float(np.median(signal[0]))
    dark = signal > 0.5 * level
    if 0.5 * level < least or dark[0].mean() < _FRAMED:
        return
    width = np.where(dark.all(axis=0), depth_px, np.argmin(dark, axis=0))
    at = np.arange(length_px)
    narrow = width < _FRAME_WIDTH * depth_px
    if narrow.sum() < _GLASS_BEYOND * length_px:
        return
    # a line through the rim; corners and tissue that touches it are far from the line
    near = narrow
    for _ in range(3):
        line = np.polyval(np.polyfit(at[near], width[near], 1), at)
        apart = np.abs(width - line)
        near = narrow & (apart <= max(2.0, 2.0 * float(np.median(apart[near]))))
    beyond = np.clip(np.ceil(line).astype(int) + _RIM_PX, 0, depth_px - 1)
    tolerance_px = max(2.0, _FRAME_UNEVEN * min(signal.shape))
    glass = (signal[beyond, at] < max(least, 0.25 * level)) & (apart <= tolerance_px)
    if glass.mean() < _GLASS_BEYOND:
        return
    # its blurred rim goes as well
    reach = np.minimum(width, line + tolerance_px) + 2
    frame |= np.arange(depth_px)[:, None] < reach


def rectangularity(mask: np.ndarray) -> float:
    """Share of the smallest rectangle around a mask, at any angle, that the mask fills; 0 to 1.

    Holes count as filled.

    Parameters
    ----------
    mask : (rows, columns) bool, not empty.
    """
    filled = ndimage.binary_fill_holes(mask)
    rows = np.flatnonzero(filled.any(axis=1))
    first = filled[rows].argmax(axis=1)
    last = filled.shape[1] - 1 - filled[rows, ::-1].argmax(axis=1)
    # the ends of each row hold every corner of the outline
    outline = np.stack([np.tile(rows, 2), np.concatenate([first, last])], axis=-1).astype(float)
    angles = np.deg2rad(np.arange(0.0, 90.0, 1.0))
    along = outline @ np.stack([np.cos(angles), np.sin(angles)])
    across = outline @ np.stack([-np.sin(angles), np.cos(angles)])
    # a pixel has a width, which adds to that of the outermost centres
    areas = (np.ptp(along, axis=0) + 1) * (np.ptp(across, axis=0) + 1)
    return min(1.0, float(filled.sum() / areas.min()))


def _rim(around: np.ndarray) -> np.ndarray:
    """The pixels 3 to 5 away from padding; nearer ones may be mixed with it."""
    px = ndimage.distance_transform_cdt(~around, "chessboard")
    return (px >= _RIM_PX - 2) & (px <= _RIM_PX)
