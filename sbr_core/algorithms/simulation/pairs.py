"""Pairs with a known deformation, made of a brain's own MRI planes: how they are bent and damaged.

A simulated section is the look of an MRI plane, carried by a deformation that is known exactly::

    section mm --(section_mm_from_flat_mm)⁻¹--> flat mm --swirls--> plane mm

with `swirls`, whose inverse is exact and which fold nowhere, as rough as real deformations are
(`roughness`). The affine takes back what the swirls do on the whole, as
`align-sections` does, and leaves a little. Pixels of section and plane are one grid, as those of a
prealigned brain are, so Linear is the identity and its error the true displacement.

All lengths follow the brain's size, so the sections of a mouse are bent as much to the eye as those
of a human.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from sbr_core import geometry
from sbr_core.algorithms.sections import grid_px, resample_section
from sbr_core.algorithms.simulation.damage import extent_of
from sbr_core.algorithms.simulation.roughness import (
    REAL_EXTENT_MM,
    REAL_MEAN_MM,
    STRONGEST,
    draw_swirls,
    strengthened,
)
from sbr_core.algorithms.simulation.swirls import (
    apply_swirls,
    best_affine,
    swirl_determinant,
    undo_swirls,
)
from sbr_core.errors import ConfigError

if TYPE_CHECKING:
    from sbr_core.config import SimulateOptions

DEFAULT_SHARE = REAL_MEAN_MM / REAL_EXTENT_MM
"""Mean displacement where none is asked for, as a share of the brain's extent: as in reality."""
_FIRST_STRENGTH, _TRIALS = 1.0, 6
"""Where the search for the strength begins, and how often it is corrected; the displacement grows
nearly in proportion, so that it ends within a hundredth (a test)."""


@dataclass(frozen=True)
class KnownDeformation:
    """Where every point of a simulated section belongs.

    Attributes
    ----------
    section_mm_from_flat_mm : (3, 3).
    swirls : (n, 5) as `swirls.apply_swirls`; plane mm = swirls(flat mm).
    """

    section_mm_from_flat_mm: np.ndarray
    swirls: np.ndarray

    def plane_from_section(self, section_mm: np.ndarray) -> np.ndarray:
        """Plane mm of points (..., 2) in section mm; exact."""
        flat = geometry.apply(np.linalg.inv(self.section_mm_from_flat_mm), section_mm)
        return apply_swirls(flat, self.swirls)

    def section_from_plane(self, plane_mm: np.ndarray) -> np.ndarray:
        """The inverse of `plane_from_section`, to about 1e-9 mm."""
        return geometry.apply(self.section_mm_from_flat_mm, undo_swirls(plane_mm, self.swirls))

    def determinant(self, section_mm: np.ndarray) -> np.ndarray:
        """det of the Jacobian of `plane_from_section` at points (..., 2); above 0 everywhere."""
        inverse = np.linalg.inv(self.section_mm_from_flat_mm)
        flat = geometry.apply(inverse, section_mm)
        return swirl_determinant(flat, self.swirls) * np.linalg.det(inverse[:2, :2])


def brain_extent(extents_mm: Mapping[str, float]) -> float:
    """The brain's size: the 0.9 quantile of its sections', so that the largest ones decide.

    Parameters
    ----------
    extents_mm : section -> `extent_of` its tissue.
    """
    return float(np.quantile(list(extents_mm.values()), 0.9))


def displacements_mm(
    extents_mm: Mapping[str, float], deformation_mm: float | None, seed: int
) -> dict[str, float]:
    """How far the tissue of each section is to be moved in the mean, so that the mean over the
    sections is `deformation_mm` (None: a share of the largest sections' extent).

    Small sections move less, and by chance some move up to twice as far as others.

    Parameters
    ----------
    extents_mm : section -> `extent_of` its tissue.

    """
    typical = brain_extent(extents_mm)
    mean_mm = deformation_mm or DEFAULT_SHARE * typical
    rng = np.random.default_rng([seed, 1])
    drawn = {
        section: rng.uniform(2 / 3, 4 / 3) * min(1.0, extent / typical)
        for section, extent in extents_mm.items()
    }
    average = float(np.mean(list(drawn.values())))
    return {section: mean_mm * share / average for section, share in drawn.items()}


def draw_deformation(
    tissue_mm: np.ndarray,
    brain_extent_mm: float,
    displacement_mm: float,
    affine_share: float,
    rng: np.random.Generator,
) -> KnownDeformation:
    """A random deformation that moves the tissue by `displacement_mm` in the mean.

    Parameters
    ----------
    tissue_mm : (n, 2) plane mm of points all over the tissue.
    brain_extent_mm : `brain_extent`.
    affine_share : how much of it is a small turn, shift and stretch that the best affine left.

    Raises
    ------
    ConfigError
        More is asked for than tissue of this size can be bent by.
    """
    extent = extent_of(tissue_mm)
    drawn_swirls = draw_swirls(tissue_mm, brain_extent_mm, rng)
    angle, *affine = rng.uniform(-1, 1, 6)
    offset = tissue_mm.mean(axis=0)

    def of_strength(strength: float) -> tuple[KnownDeformation, float]:
        swirls = strengthened(drawn_swirls, strength)
        flat_mm = undo_swirls(tissue_mm, swirls)
        linear = best_affine(flat_mm, tissue_mm)
        bent = np.linalg.norm(geometry.apply(linear, flat_mm) - tissue_mm, axis=1).mean()
        # as far as the rest of the share asks, a turn and shift being about half of the extent
        small = 2 * affine_share * bent / extent
        residual = np.eye(3)
        residual[:2, :2] += small * np.array(
            [[affine[0], -angle + affine[1]], [angle + affine[1], affine[2]]]
        )
        residual[:2, 2] = small * extent / 4 * np.array(affine[3:])
        about = geometry.translation(*offset) @ residual @ geometry.translation(*-offset)
        drawn = KnownDeformation(about @ linear, swirls)
        moved = geometry.apply(drawn.section_mm_from_flat_mm, flat_mm) - tissue_mm
        return drawn, float(np.linalg.norm(moved, axis=1).mean())

    strength = _FIRST_STRENGTH
    for _ in range(_TRIALS):  # the mean grows nearly in proportion to the strength
        drawn, mean_mm = of_strength(strength)
        strength *= displacement_mm / mean_mm
        if strength > STRONGEST:
            most_mm = mean_mm * STRONGEST / (strength * mean_mm / displacement_mm)
            raise ConfigError(
                f"config: simulate.deformation_mm: {displacement_mm:.3g} mm is too much for a"
                f" section {extent:.3g} mm wide, expected at most about {most_mm:.2g} mm there"
            )
    return drawn


@dataclass(frozen=True)
class Rendered:
    """A simulated section on the grid of its plane.

    Attributes
    ----------
    signal : (rows, columns) float32, 0 on glass but for noise, tissue above, in the look's units.
    tissue : (rows, columns) bool.
    landmarks_mm : (n, 2) section mm of points in tissue.
    """

    signal: np.ndarray
    tissue: np.ndarray
    landmarks_mm: np.ndarray


def render(
    flat_signal: np.ndarray,
    cover: np.ndarray,
    cover_of_plane: np.ndarray,
    spacing_mm: float,
    deformation: KnownDeformation,
    options: SimulateOptions,
    rng: np.random.Generator,
) -> Rendered:
    """Carry a look on its plane into the section, photograph it, and pick its landmarks.

    Parameters
    ----------
    flat_signal : (rows, columns), signal of the plane's look where there is tissue.
    cover : (rows, columns), 1 in tissue, 0 on glass.
    cover_of_plane : the same before its anatomy was varied, all over which landmarks are picked.
    spacing_mm : pixel of plane and section.
    """
    shape = flat_signal.shape
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    plane_px = deformation.plane_from_section(np.stack([x, y], axis=-1) * spacing_mm) / spacing_mm
    at = np.moveaxis(plane_px[..., ::-1], -1, 0)

    def carried(image: np.ndarray) -> np.ndarray:
        return map_coordinates(image.astype(np.float32), at, order=3, mode="constant", cval=0.0)

    signal = carried(flat_signal * cover)
    share = carried(cover)
    signal = gaussian_filter(signal, options.blur_px)
    grain = options.noise * rng.normal(size=shape)
    signal = signal + grain * np.where(share > 0.5, 1.0, 0.25)
    tissue = share > 0.5
    in_plane = carried(cover_of_plane) > 0.5
    points = scattered_points(in_plane, options.n_landmarks, rng)
    column, row = np.rint(points).astype(int).T
    points = points[tissue[row, column]] * spacing_mm
    return Rendered(signal.astype(np.float32), tissue, points)


def carried_labels(
    flat_labels: np.ndarray, tissue: np.ndarray, spacing_mm: float, deformation: KnownDeformation
) -> np.ndarray:
    """The true labels of a section: its plane's at the nearest pixel, 0 where tissue is lost.

    Parameters
    ----------
    flat_labels : (rows, columns) integers, of the plane.
    tissue : (rows, columns) bool, of the section.
    spacing_mm : pixel of plane and section.
    """
    plane_mm = deformation.plane_from_section(grid_px(tissue.shape) * spacing_mm)
    return np.where(tissue, resample_section(flat_labels, plane_mm / spacing_mm, order=0), 0)


def scattered_points(tissue: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """About `count` points all over the tissue: one at random in each cell of a square grid.

    Parameters
    ----------
    tissue : (rows, columns) bool.

    Returns
    -------
    (n, 2) px (column, row), n about `count`, fewer where there are fewer pixels; between pixel
    centres too.
    """
    rows, columns = np.nonzero(tissue)
    if rows.size == 0:
        return np.zeros((0, 2))
    side = max(1, round(math.sqrt(rows.size / count)))
    order = rng.permutation(rows.size)
    cell = rows // side * (tissue.shape[1] // side + 1) + columns // side
    _, first = np.unique(cell[order], return_index=True)
    # cells that the outline cuts have points too, so there are more than asked for
    kept = np.sort(rng.choice(first, min(count, first.size), replace=False))
    chosen = order[kept]
    jitter = rng.uniform(-0.5, 0.5, (len(chosen), 2))
    return np.column_stack([columns[chosen], rows[chosen]]) + jitter
