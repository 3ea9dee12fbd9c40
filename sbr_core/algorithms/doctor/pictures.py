"""Sections on a coarse square grid, in every pose, and how well two of them correlate.

A pose (m, a) is written as *mirror, then turn*: the map that reverses the columns if m, and then
turns by a, counter-clockwise as displayed, which is how a manifest's ``flip`` and ``rotate_deg``
are applied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

SIZE_PX = 64
"""Side of the grid: gyri and the outline show, which is what a pose is recognised by. The cost
grows with its square."""
N_ANGLES = 72
STEP_DEG = 360 / N_ANGLES
"""5°, a small part of what sections are turned by anyway; a parabola finds the angle between."""
_FILLED = 0.4
"""Radius of the tissue in sides of the grid: what is left is room for shifts."""
_SCALE_STEP = 1.2
"""Ratio of one scale to the next: few different scales, so that few pictures are made; a section
fills at least 1 / 1.2 of what it could."""
_RADIUS_QUANTILE = 0.995
"""Pixels further out are specks, not tissue."""
_BRIGHTEST = 2.0
"""Signal is clipped at this many medians of the tissue: ink must not outweigh it."""
_FINEST_PX, _COARSEST_PX = 0.7, 3.0
"""Sigmas of the band, grid pixels. What is finer is noise here; what is coarser is staining and
bulk shape, which every pose shares."""
_TINY = 1e-6
"""In place of a median or norm of 0, as of an image with nothing in it."""


@dataclass(frozen=True)
class CoarsePicture:
    """A section on a coarse square grid, centred on its tissue.

    Attributes
    ----------
    detail : (size, size) float32, band-passed tissue signal of unit norm.
    tissue : (size, size) float32 in [0, 1], share of tissue.
    """

    detail: np.ndarray
    tissue: np.ndarray


def coarse_picture(
    image: np.ndarray, mask: np.ndarray, step_px: float, centre: np.ndarray, size: int = SIZE_PX
) -> CoarsePicture:
    """Bring a prepared section to a square grid, and take the band of it in which poses differ.

    Parameters
    ----------
    image : (rows, columns), tissue above a background of 0.
    mask : (rows, columns) bool, some of it True.
    step_px : grid pixel in pixels of the image.
    centre : (row, column) that comes to the middle.
    """
    axis = (np.arange(size) - (size - 1) / 2) * step_px
    at = np.stack(np.meshgrid(axis + centre[0], axis + centre[1], indexing="ij"))
    level = max(float(np.median(image[mask])), _TINY)
    signal = np.clip(image / level, 0, _BRIGHTEST).astype(np.float32) * mask
    signal = ndimage.gaussian_filter(signal, 0.5 * step_px)
    signal = ndimage.map_coordinates(signal, at, order=1)
    band = ndimage.gaussian_filter(signal, _FINEST_PX)
    band = band - ndimage.gaussian_filter(signal, _COARSEST_PX)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.5 * step_px)
    tissue = ndimage.map_coordinates(soft, at, order=1)
    return CoarsePicture(band / max(float(np.linalg.norm(band)), _TINY), tissue)


class StackPictures:
    """Coarse pictures of a stack, at the scale of the sections about each.

    A section is compared with its neighbours on a grid as fine as the largest of them allows, so
    that the small sections at the end of a brain show as much as those of its middle.

    Attributes
    ----------
    step_px : (n,) grid pixel of the comparisons of each section, in pixels of the images.
    """

    def __init__(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], reach: int
    ) -> None:
        """Images and masks as of `coarse_picture`; `reach` neighbours on either side."""
        self._images, self._masks = images, masks
        self._centres, radii = [], []
        for mask in masks:
            tissue = np.argwhere(mask)
            self._centres.append(tissue.mean(axis=0))
            radius = np.quantile(np.hypot(*(tissue - self._centres[-1]).T), _RADIUS_QUANTILE)
            radii.append(max(float(radius), 1.0))
        # an odd huge section is cut rather than all others shrunk
        usual = ndimage.median_filter(np.array(radii), 3, mode="nearest")
        largest = ndimage.maximum_filter1d(usual, 2 * reach + 1, mode="nearest")
        level = np.ceil(np.log(largest) / math.log(_SCALE_STEP))
        self.step_px = _SCALE_STEP**level / (_FILLED * SIZE_PX)
        self._made: dict[tuple[int, float, int], CoarsePicture] = {}

    def __len__(self) -> int:
        return len(self._images)

    def of(self, section: int, step_px: float, fineness: int = 1) -> CoarsePicture:
        """Picture of one section at the scale of another, `fineness` times as fine; kept."""
        key = section, float(step_px), fineness
        if key not in self._made:
            self._made[key] = coarse_picture(
                self._images[section],
                self._masks[section],
                step_px / fineness,
                self._centres[section],
                SIZE_PX * fineness,
            )
        return self._made[key]

    def correlations(self, section: int, others: Sequence[int]) -> np.ndarray:
        """(n, 2, N_ANGLES): `best_correlations` of a section with others, at its own scale."""
        step_px = self.step_px[section]
        spectra = spectra_of_poses(self.of(section, step_px).detail)
        return np.array([best_correlations(spectra, self.of(j, step_px).detail) for j in others])


def in_pose(
    picture: np.ndarray,
    mirrored: bool,
    angle_deg: float,
    shift_px: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """A square picture mirrored, then turned about its centre, then moved.

    Parameters
    ----------
    picture : (size, size).
    angle_deg : counter-clockwise as displayed.
    shift_px : (rows, columns) that the result is moved by.

    Returns
    -------
    (size, size) float32, linearly interpolated, 0 beyond the picture.
    """
    if mirrored:
        picture = picture[:, ::-1]
    middle = (picture.shape[0] - 1) / 2
    axis = np.arange(picture.shape[0]) - middle
    y, x = np.meshgrid(axis - shift_px[0], axis - shift_px[1], indexing="ij")
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    # the point that comes to (x, y), y growing downwards
    at = np.stack([s * x + c * y + middle, c * x - s * y + middle])
    return ndimage.map_coordinates(np.asarray(picture, np.float32), at, order=1)


def spectra_of_poses(detail: np.ndarray) -> np.ndarray:
    """Spectra of a picture in every pose, (2 N_ANGLES, size, size // 2 + 1) complex.

    The poses as they are first, by angle, then the mirrored ones.
    """
    turned = [in_pose(detail, m, k * STEP_DEG) for m in (False, True) for k in range(N_ANGLES)]
    return fft.rfft2(np.array(turned, np.float32))


def allowed_shifts(size: int) -> np.ndarray:
    """Shifts along one axis that are searched, px: up to a quarter of the grid either way."""
    return np.r_[-(size // 4) : size // 4 + 1]


def best_correlations(spectra: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(2, N_ANGLES): best correlation of each pose with another picture, over the allowed shifts.

    Parameters
    ----------
    spectra : of `spectra_of_poses`.
    other : (SIZE_PX, SIZE_PX) detail.
    """
    correlation = fft.irfft2(spectra * np.conj(fft.rfft2(other)), s=(SIZE_PX, SIZE_PX))
    shifts = allowed_shifts(SIZE_PX)
    near = correlation[:, shifts][:, :, shifts]
    return near.reshape(2, N_ANGLES, -1).max(axis=-1)
