"""Where a section lies by its edges, which a missing or moved piece leaves alone."""

from __future__ import annotations

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.alignment.section_affine import MaskedImage
from sbr_core.algorithms.alignment.stack import StackSection, tissue_centre_mm
from sbr_core.algorithms.alignment.stretch import with_stretch
from sbr_core.algorithms.sections import grid_px, prefilter, resample_section
from sbr_core.geometry import PlaneGrid, apply

_TURNS_DEG = np.arange(-15.0, 15.1, 5.0)
"""Turns tried about a given angle; the fit that follows takes up what lies between."""
_BLUR_PX = 2.0
"""Pixels of the plane's grid to which images are smoothed first."""


def section_edges(
    section: StackSection, pixel_mm: float, working_from_plane_mm: np.ndarray, grid: PlaneGrid
) -> np.ndarray:
    """(rows, columns) magnitude of a section's gradient on the plane grid.

    Parameters
    ----------
    pixel_mm : of the section.
    """
    points = grid_px(grid.shape) * grid.spacing_mm
    px = apply(geometry.scaling(1 / pixel_mm) @ working_from_plane_mm, points)
    image = prefilter(section.normalised(), _BLUR_PX * grid.spacing_mm / pixel_mm)
    return np.hypot(*np.gradient(resample_section(image, px)))


def plane_edges(plane: MaskedImage) -> np.ndarray:
    """(rows, columns) magnitude of the gradient of an MRI plane, as `section_edges` has it."""
    image = StackSection("", plane.data, plane.tissue, 0.0).normalised()
    return np.hypot(*np.gradient(prefilter(image.astype(np.float32), _BLUR_PX)))


def laid_on(
    section: StackSection,
    pixel_mm: float,
    edges: np.ndarray,
    angle: float,
    log_stretch: np.ndarray,
    grid: PlaneGrid,
) -> np.ndarray:
    """(3, 3) working_from_plane_mm at which a section's edges correlate best with given ones.

    Turns around `angle` are tried, and for each all shifts at once by Fourier transforms.

    Parameters
    ----------
    pixel_mm : of the section.
    edges : (rows, columns) on the plane grid, of other sections or of the MRI.
    angle, log_stretch : radians, (2, 2): how the neighbours lie.
    """
    wanted = np.fft.rfft2(edges)
    at_working = tissue_centre_mm(section.mask, pixel_mm)
    at_plane = (np.array(grid.shape[::-1]) - 1) / 2 * grid.spacing_mm
    best, highest = np.eye(3), -np.inf
    for turn in np.deg2rad(_TURNS_DEG):
        c, s = np.cos(angle + turn), np.sin(angle + turn)
        start = np.eye(3)
        start[:2, :2] = with_stretch(np.array([[c, -s], [s, c]]), log_stretch)
        start[:2, 2] = at_working - start[:2, :2] @ at_plane
        own = np.fft.rfft2(section_edges(section, pixel_mm, start, grid))
        correlation = np.fft.irfft2(wanted * np.conj(own), s=grid.shape)
        if correlation.max() > highest:
            highest = float(correlation.max())
            shift = np.array(np.unravel_index(np.argmax(correlation), grid.shape))
            shift = np.where(shift > np.array(grid.shape) / 2, shift - grid.shape, shift)
            # drawn `shift` further on, the section's edges lie on the others
            best = start @ geometry.translation(*(-shift[::-1] * grid.spacing_mm))
    return best
