"""Intensities of an MRI, whatever its values are: background at 0 and tissue above it.

What comes later takes the background for 0 and tissue for more. So do most MRIs; those that were
normalised, inverted, shifted or are no magnitudes (z-scores, susceptibility, Hounsfield units,
[-1, 1], unsigned integers for signed ones) do not, and are brought to it here, in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

_QUANTILES = 0.001, 0.05, 0.5, 0.95, 0.999
"""Of the values in the mask: the darkest and the brightest tissue without single voxels, what is
darker or brighter than nearly all tissue, and the middle."""
_ABOUT_ZERO = 0.1
"""A background that is no more than this share of the middle of the tissue is the noise of air
about 0, and 0 is the background."""
_BELOW_ZERO = 0.02
"""Share of the tissue that may be below 0 by ringing of an interpolation."""
_DEEPEST = 2.0
"""How far below the darkest tissue the background may lie, in ranges of the tissue: any deeper,
tissue would have no contrast in itself."""
_NEAREST = 0.1
"""How far below the darkest tissue it is put where the tissue has values on both sides of it."""
_NOTHING = 1e-3
"""Brightest tissue, above the background, that later steps would take for nothing."""
_SINGLE_SHARE = 0.2
"""Share of one single value from which on it is the background of a stripped image."""
_SINGLE_BORDER = 0.95
"""Share of the border that has it, where it is not 0: air of few grey levels is not so even."""
_PLANE_BORDER = 0.5
"""The same of a plane of which tissue reaches the border, where values may be negative."""
_FAINT = 0.02
"""Share of the typical distance from the background that is a rim made by interpolation."""
_BOTH_SIDES = 0.05
"""Share of the tissue that lies on the other side of the background; by ringing, less does."""


@dataclass(frozen=True)
class Level:
    """How the values of an MRI become those that are worked with: (sign * value - offset) * scale.

    Attributes
    ----------
    offset : 0.0 where nothing is to be taken off.
    sign : -1 where tissue lies below its background, which is about to be above it.
    scale : 1.0 unless values are so small that later steps would take them for nothing.
    only_inside : whether what is outside the mask compares with nothing inside, and becomes 0.
    """

    offset: float = 0.0
    sign: int = 1
    scale: float = 1.0
    only_inside: bool = False

    def applied(self, data: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """float32, not below 0 where anything was taken off; the values themselves otherwise."""
        if self == Level():
            return np.asarray(data, np.float32)
        # before the type is made smaller: a large offset would leave no digits to the rest
        above = np.maximum(self.sign * np.asarray(data, np.float64) - self.offset, 0) * self.scale
        return np.where(mask, above, 0 if self.only_inside else above).astype(np.float32)


def level_of(data: np.ndarray, mask: np.ndarray) -> Level:
    """What is to be taken off an MRI, so that its background is 0 and its tissue above.

    That is its background where this is darker than the tissue; or brighter, and the tissue below
    0: then all values change sign. Where tissue lies on both sides of it, that is something just
    below the tissue. Nothing is taken off where the background is about 0 already; then the
    values stay as they are, bit by bit.

    Parameters
    ----------
    data : (i, j[, k]), any intensity.
    mask : bool, the same shape, tissue; not empty.
    """
    inside = data[mask].astype(float)
    darkest, dark, middle, bright, brightest = np.quantile(inside, _QUANTILES)
    contrast = brightest - darkest
    deepest = darkest - (_DEEPEST * contrast or abs(darkest) or 1.0)
    background = _around(data, mask)
    if background is None or background > dark:
        if np.mean(inside < 0) > _BELOW_ZERO:
            if background is not None and background >= bright:
                return replace(level_of(-data.astype(float), mask), sign=-1)
            offset = darkest - (_NEAREST * contrast or 1.0)
            return Level(offset, scale=_scale_of(brightest - offset), only_inside=True)
        background = 0.0
    elif abs(background) <= _ABOUT_ZERO * middle:
        background = 0.0
    offset = float(max(background, deepest))
    return Level(offset, scale=_scale_of(brightest - offset))


def _scale_of(brightest: float) -> float:
    """A power of ten that brings the brightest tissue to some hundreds, if it is near nothing."""
    return 10.0 ** round(2.5 - np.log10(brightest)) if 0 < brightest < _NOTHING else 1.0


def _around(data: np.ndarray, mask: np.ndarray) -> float | None:
    """The level at the border of an image where it is not tissue; None where there is none."""
    values = border_values(data)[~border_values(mask)]
    if values.size == 0:
        values = data[~mask]
    return float(np.median(values)) if values.size else None


def border_values(array: np.ndarray) -> np.ndarray:
    """The outermost values along every axis, as a list."""
    ends = [np.take(array, [0, -1], axis=axis).ravel() for axis in range(array.ndim)]
    return np.concatenate(ends)


def stripped_value(data: np.ndarray) -> float | None:
    """The one value that a stripped image has outside the tissue; None where there is none.

    0 where a fifth of the image is 0, or another value that as much of the image has, and with it
    nearly all of the border.

    Parameters
    ----------
    data : (i, j[, k]), any intensity.
    """
    if np.mean(data == 0) > _SINGLE_SHARE:
        return 0.0
    value, share = _commonest(border_values(data))
    is_even = share >= _SINGLE_BORDER and np.mean(data == value) > _SINGLE_SHARE
    return value if is_even else None


def _commonest(values: np.ndarray) -> tuple[float, float]:
    """The most frequent of some values, and its share of them."""
    found, counts = np.unique(values, return_counts=True)
    most = np.argmax(counts)
    return float(found[most]), float(counts[most] / counts.sum())


def standing_out(data: np.ndarray, value: float) -> np.ndarray:
    """The tissue of a stripped image: bool, what is not `value`.

    A faint rim, which interpolation makes, is left out, unless the tissue has values on both sides
    of the background: then a faint value may as well be tissue.

    Parameters
    ----------
    data : (i, j[, k]), any intensity.
    value : as of `stripped_value`.
    """
    apart = data if value == 0 else data - np.float64(value)
    other = apart[apart != 0]
    if other.size == 0:
        return np.zeros(data.shape, bool)
    faint = _FAINT * np.median(np.abs(other))
    above, below = np.mean(other > faint), np.mean(other < -faint)
    return apart != 0 if min(above, below) > _BOTH_SIDES else np.abs(apart) > faint


def plane_mask(image: np.ndarray) -> np.ndarray | None:
    """The tissue of a stripped plane of an MRI: what is above 0, or not the background's value.

    Parameters
    ----------
    image : (rows, columns), any intensity.

    Returns
    -------
    bool; None where values of both signs leave it open what is background.
    """
    negative = np.mean(image < -_FAINT * np.quantile(np.abs(image), 0.99))
    if negative <= _BOTH_SIDES * np.mean(image != 0) and np.any(image <= 0):
        return image > 0
    value = stripped_value(image)
    if value is None:
        common, share = _commonest(border_values(image))
        value = common if share > _PLANE_BORDER else None
    if value is not None:
        return standing_out(image, value)
    return None if negative > 0 else image > 0
