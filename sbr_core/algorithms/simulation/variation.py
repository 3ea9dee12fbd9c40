"""How a section's anatomy differs from its plane's: thickness of the cortex, sulci, torn gyri.

No deformation of the truth is meant here: a point belongs where it would without. Boundaries are
shifted by smooth random fields, the pial surface and that of white matter each by its own. Half of
a field's variance is shared along the stack, as a brain differs from its own MRI; the other half is
the section's own, as thickness of cutting and staining are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import (
    distance_transform_edt,
    gaussian_filter,
    grey_closing,
    map_coordinates,
)

from sbr_core.algorithms.sections import grid_px
from sbr_core.algorithms.simulation.waves import Waves

WAVELENGTHS = (0.08, 0.3)
"""Of the fields, as shares of the brain's extent: about those of gyri and of lobes."""
ANATOMY_SHARE = 0.0025
"""Shift of boundaries as a share of the brain's extent. The best deformation by the labels
themselves leaves a Dice of .94 of Allen's cortex, 2.5 mm thick: boundaries (1 - .94) * 2.5 = 0.15
mm apart in the mean, which are 0.2 mm rms in a brain 79 mm large."""
_EDGE = 0.0075
"""Standard deviation of the Gaussian that smooths an image before its edges are looked for, as a
share of the brain's extent: a quarter of the thickness of the cortex."""
_STRONG = 0.5
"""Quantile of the gradient near the outline, or further inside, from which an edge is shifted by
all of the field."""
_CLOSED_RADII, _CLOSED_ABOVE = 3.0, 0.5
"""Half the width of sulci, in rms shifts, that are closed where the cortex is thickest: where the
shift of the pial surface is above this many, and all of them where it is one more."""


@dataclass(frozen=True)
class Varied:
    """A look whose anatomy differs from its plane's.

    Attributes
    ----------
    signal, cover : (rows, columns), the look and where it is tissue, 0 to 1.
    from_px : (rows, columns, 2) column and row, less a pixel's own, from where it was taken.
    """

    signal: np.ndarray
    cover: np.ndarray
    from_px: np.ndarray


def varied(
    signal: np.ndarray,
    cover: np.ndarray,
    spacing_mm: float,
    shifts_mm: tuple[np.ndarray, np.ndarray],
    rms_mm: float,
    brain_extent_mm: float,
) -> Varied:
    """Shift the edges of a look, and close some of its sulci.

    Parameters
    ----------
    signal, cover : (rows, columns), a look and where it is tissue, 0 to 1.
    shifts_mm : of `boundary_shifts`, whose root mean square is `rms_mm`.
    """
    if rms_mm == 0:
        return Varied(signal, cover, np.zeros((*signal.shape, 2)))
    outer, inner = (shift / spacing_mm for shift in shifts_mm)
    from_px = edge_shifts_px(signal, cover, (outer, inner), brain_extent_mm / spacing_mm)
    where = np.clip(shifts_mm[0] / rms_mm - _CLOSED_ABOVE, 0, 1)
    radius_px = _CLOSED_RADII * rms_mm / spacing_mm
    closed = close_sulci(signal, cover, radius_px, gaussian_filter(where, 1.0))
    return Varied(shifted(closed[0], from_px), shifted(closed[1], from_px), from_px)


def boundary_shifts(
    points_mm: np.ndarray, rms_mm: float, brain_extent_mm: float, seed: int, section: int
) -> tuple[np.ndarray, np.ndarray]:
    """How far the pial surface and that of white matter lie further out, mm, at points (..., 3).

    Parameters
    ----------
    points_mm : the last axis, or another, along the stack.
    section : number of the section; the shared fields do not depend on it.
    """
    wavelengths = tuple(share * brain_extent_mm for share in WAVELENGTHS)
    shared, own = np.random.default_rng([seed, 5]), np.random.default_rng([seed, 6, section])
    pial, white = (
        rms_mm
        * math.sqrt(0.5)
        * (Waves(shared, 3, wavelengths)(points_mm) + Waves(own, 3, wavelengths)(points_mm))
        for _ in range(2)
    )
    return pial, white


def edge_shifts_px(
    signal: np.ndarray,
    cover: np.ndarray,
    shifts_px: tuple[np.ndarray, np.ndarray],
    brain_extent_px: float,
) -> np.ndarray:
    """From where an image is to be taken, so that its edges are shifted; px (rows, columns, 2).

    Each edge moves along its normal: by the first of the shifts near the outline, by the second
    further inside.

    Parameters
    ----------
    signal, cover : (rows, columns), a look and where it is tissue, 0 to 1.
    shifts_px : two of (rows, columns).

    Returns
    -------
    (rows, columns, 2) along x and y.
    """
    tissue = cover > 0.5
    sigma = _EDGE * brain_extent_px
    seen = gaussian_filter(cover.astype(float), sigma)
    smooth = gaussian_filter((signal * cover).astype(float), sigma) / np.maximum(seen, 1e-3)
    depth = distance_transform_edt(tissue) + distance_transform_edt(~tissue) - 1
    outer = np.exp(-((depth / (3 * sigma)) ** 2))
    total = np.zeros((*signal.shape, 2))
    for image, share, shift in ((seen, outer, shifts_px[0]), (smooth, 1 - outer, shifts_px[1])):
        normal = np.stack(np.gradient(image)[::-1], axis=-1)
        steep = np.linalg.norm(normal, axis=-1)
        region = tissue & (share > 0.5)
        strong = np.quantile(steep[region], _STRONG) if region.any() else 1.0
        normal /= np.maximum(steep, max(strong, 1e-6))[..., None]
        total += (share * shift)[..., None] * normal
    return np.where(seen[..., None] > 1e-3, total, 0.0)


def shifted(image: np.ndarray, from_px: np.ndarray, order: int = 1) -> np.ndarray:
    """An image (rows, columns) with its edges shifted.

    Parameters
    ----------
    from_px : of `edge_shifts_px`.
    order : 0 for labels.
    """
    at = np.moveaxis((grid_px(image.shape) + from_px)[..., ::-1], -1, 0)
    return map_coordinates(image, at, order=order, mode="constant", cval=0)


def close_sulci(
    signal: np.ndarray, cover: np.ndarray, radius_px: float, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A look whose sulci narrower than two radii are filled with their banks' signal.

    Parameters
    ----------
    signal, cover : (rows, columns), a look and where it is tissue, 0 to 1.
    where : (rows, columns) 0 to 1, in which places.
    """
    reach = math.ceil(radius_px + 0.5)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.hypot(x, y) <= radius_px + 0.5
    added = where * (grey_closing(cover, footprint=disc) - cover)
    seen = gaussian_filter(cover, 2 * reach)
    banks = gaussian_filter(signal * cover, 2 * reach) / np.maximum(seen, 1e-3)
    filled = cover + added
    inside = filled > 1e-3
    mixed = (signal * cover + banks * added) / np.maximum(filled, 1e-3)
    return np.where(inside, mixed, signal).astype(np.float32), filled.astype(np.float32)
