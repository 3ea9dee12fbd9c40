"""Which sections are stained otherwise than those about them, or less sharp."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sbr_core.algorithms.doctor.evidence import MIN_SECTIONS, excess_confidence, median_around
from sbr_core.algorithms.robust import median_and_spread

_SPREADS = 5.0
"""Robust spreads of the stack that a difference must reach: chance alone hardly does."""
_FINE_PX, _COARSE_PX = 1.0, 3.0
"""Sigmas in working pixels that part the finest structure from the next coarser one."""
_EDGE_PX = 2
"""Left out along the mask, whose edge is sharp however blurred the section is."""
_TINY, _TINY_ENERGY = 1e-6, 1e-9
"""In place of a level or an energy of 0, so that logarithms are finite."""


@dataclass(frozen=True)
class Look:
    """How a section was stained and how sharp it is, as logarithms that differences are taken of.

    Attributes
    ----------
    level : of the tissue's median.
    sharpness : of the energy of the finest structure over that of the next coarser one.
    """

    level: float
    sharpness: float


def look_of(image: np.ndarray, mask: np.ndarray) -> Look:
    """Measure one prepared section.

    Parameters
    ----------
    image : (rows, columns), tissue above a background of 0.
    mask : (rows, columns) bool, some of it True.
    """
    inside = ndimage.binary_erosion(mask, iterations=_EDGE_PX)
    inside = inside if inside.any() else mask
    fine, coarse = (ndimage.gaussian_filter(image, sigma) for sigma in (_FINE_PX, _COARSE_PX))
    finest, next_coarser = np.std((image - fine)[inside]), np.std((fine - coarse)[inside])
    return Look(
        level=math.log(max(float(np.quantile(image[mask], 0.5)), _TINY)),
        sharpness=math.log(
            max(float(finest), _TINY_ENERGY) / max(float(next_coarser), _TINY_ENERGY)
        ),
    )


def outliers(values: np.ndarray, least: float, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """How far each value is from those about it, and how sure it is that this is no chance.

    Parameters
    ----------
    values : (n,) along the stack.
    least : a difference that is of no interest, whatever the spread.

    Returns
    -------
    difference : (n,) from the median of up to `reach` neighbours on either side.
    confidence : (n,) one half where the difference is five spreads of the stack, and `least`.
    """
    n = len(values)
    if n < MIN_SECTIONS:
        return np.zeros(n), np.zeros(n)
    difference = values - median_around(values, reach)
    limit = max(least, _SPREADS * median_and_spread(difference, 1e-6)[1])
    return difference, excess_confidence(np.abs(difference), limit)
