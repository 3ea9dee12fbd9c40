"""Pairs with a known deformation, made of a brain's own MRI planes: how they are bent and damaged.

A simulated section is the look of an MRI plane, carried by a deformation that is known exactly::

    section mm --(section_mm_from_flat_mm)⁻¹--> flat mm --swirls--> plane mm

with the swirls of `simulation`, whose inverse is exact and which fold nowhere. Large ones bend the
whole section, small ones parts of it. The affine takes back what the swirls do on the whole, as
`align-sections` does, and leaves a little. Pixels of section and plane are one grid, as those of a
prealigned brain are, so Linear is the identity and its error the true displacement.

All lengths follow the brain's size, so the sections of a mouse are bent as much to the eye as those
of a human.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.sections import grid_px, resample_section
from sbr_core.algorithms.simulation import (
    Waves,
    apply_swirls,
    best_affine,
    swirl_determinant,
    undo_swirls,
)
from sbr_core.errors import ConfigError

if TYPE_CHECKING:
    from sbr_core.config import SimulateOptions

DEFAULT_SHARE = 0.012
"""Mean displacement where none is asked for, as a share of the tissue's extent."""
_STRONGEST = 0.7
_N_LARGE, _N_SMALL = 8, 14
_LARGE_RADII, _SMALL_RADII = (0.32, 0.58), (0.08, 0.2)


# --------------------------------------------------------------------------------------------
# The known deformation
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KnownDeformation:
    """Where every point of a simulated section belongs.

    Attributes
    ----------
    section_mm_from_flat_mm : (3, 3).
    swirls : (n, 5) as `simulation.apply_swirls`; plane mm = swirls(flat mm).
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


def extent_of(tissue_mm: np.ndarray) -> float:
    """Side of the square as large as the box around points (n, 2), mm."""
    return float(np.sqrt(np.prod(np.maximum(np.ptp(tissue_mm, axis=0), 1e-6))))


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
    typical = float(np.quantile(list(extents_mm.values()), 0.9))
    mean_mm = deformation_mm or DEFAULT_SHARE * typical
    rng = np.random.default_rng([seed, 1])
    drawn = {
        section: rng.uniform(2 / 3, 4 / 3) * min(1.0, extent / typical)
        for section, extent in extents_mm.items()
    }
    average = float(np.mean(list(drawn.values())))
    return {section: mean_mm * share / average for section, share in drawn.items()}


def draw_deformation(
    tissue_mm: np.ndarray, displacement_mm: float, affine_share: float, rng: np.random.Generator
) -> KnownDeformation:
    """A random deformation that moves the tissue by `displacement_mm` in the mean.

    Parameters
    ----------
    tissue_mm : (n, 2) plane mm of points all over the tissue.
    affine_share : how much of it is a small turn, shift and stretch that the best affine left.

    Raises
    ------
    ConfigError
        More is asked for than tissue of this size can be bent by.
    """
    extent = extent_of(tissue_mm)
    n = _N_LARGE + _N_SMALL
    centres = tissue_mm[rng.integers(0, len(tissue_mm), n)] + rng.normal(0, 0.03 * extent, (n, 2))
    radii = extent * np.concatenate(
        [rng.uniform(*_LARGE_RADII, _N_LARGE), rng.uniform(*_SMALL_RADII, _N_SMALL)]
    )
    twists = rng.choice([-1, 1], n) * rng.uniform(0.5, 1.0, n)
    stretches = rng.choice([-1, 1], n) * rng.uniform(0.2, 0.6, n)
    angle, *affine = rng.uniform(-1, 1, 6)
    offset = tissue_mm.mean(axis=0)

    def of_strength(strength: float) -> tuple[KnownDeformation, float]:
        swirls = np.column_stack([centres, radii, strength * twists, strength * stretches])
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
        found = KnownDeformation(about @ linear, swirls)
        moved = geometry.apply(found.section_mm_from_flat_mm, flat_mm) - tissue_mm
        return found, float(np.linalg.norm(moved, axis=1).mean())

    strength = 0.2
    for _ in range(6):  # the mean grows nearly in proportion to the strength
        found, mean_mm = of_strength(strength)
        strength *= displacement_mm / mean_mm
        if strength > _STRONGEST:
            most_mm = mean_mm * _STRONGEST / (strength * mean_mm / displacement_mm)
            raise ConfigError(
                f"config: simulate.deformation_mm: {displacement_mm:.3g} mm is too much for a"
                f" section {extent:.3g} mm wide, expected at most about {most_mm:.2g} mm there"
            )
    return found


# --------------------------------------------------------------------------------------------
# Damage and staining
# --------------------------------------------------------------------------------------------


def draw_damage(
    sections: Sequence[str], tears: float, missing_pieces: float, seed: int
) -> dict[str, str]:
    """Which sections are damaged, and how: ``tear``, ``missing piece`` or an empty text.

    Parameters
    ----------
    tears, missing_pieces : shares of the sections; no section gets both.
    """
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(len(sections))
    n_torn = round(tears * len(sections))
    n_missing = min(round(missing_pieces * len(sections)), len(sections) - n_torn)
    kinds = dict.fromkeys(sections, "")
    for place, index in enumerate(order[: n_torn + n_missing]):
        kinds[sections[index]] = "tear" if place < n_torn else "missing piece"
    return kinds


def lost_tissue(
    plane_mm: np.ndarray, tissue_mm: np.ndarray, kind: str, rng: np.random.Generator
) -> np.ndarray:
    """Where tissue is torn or missing, bool (...), at points of the plane (..., 2).

    A tear winds inwards from the rim and narrows; a missing piece has a ragged outline.

    Parameters
    ----------
    tissue_mm : (n, 2) points all over the tissue.
    kind : of `draw_damage`.
    """
    extent = extent_of(tissue_mm)
    angle = rng.uniform(-math.pi, math.pi)
    inward = np.array([math.cos(angle), math.sin(angle)])
    sideways = np.array([-inward[1], inward[0]])
    spokes = tissue_mm - tissue_mm.mean(axis=0)
    near = spokes[np.abs(spokes @ sideways) < 0.05 * extent]
    rim = tissue_mm.mean(axis=0) + inward * (near @ inward).min(initial=0.0)
    along, across = (plane_mm - rim) @ inward, (plane_mm - rim) @ sideways
    ragged = Waves(rng, 2, (0.04 * extent, 0.2 * extent))(plane_mm)
    if kind == "tear":
        length = rng.uniform(0.25, 0.45) * extent
        middle = 0.02 * extent * np.sin(along / (0.05 * extent)) + 0.004 * extent * ragged
        half_width = rng.uniform(0.008, 0.018) * extent * np.clip(1 - along / length, 0, None)
        return np.abs(across - middle) < half_width
    if kind == "missing piece":
        radius = rng.uniform(0.1, 0.17) * extent
        return np.hypot(along, across) < radius + 0.012 * extent * ragged
    return np.zeros(plane_mm.shape[:-1], bool)


def staining_field(
    plane_mm: np.ndarray, tissue_mm: np.ndarray, unevenness: float, rng: np.random.Generator
) -> np.ndarray:
    """A smooth positive factor (...), at points of the plane (..., 2): uneven staining.

    A slope across the section and blotches, whose logarithm has a standard deviation of about
    `unevenness`.
    """
    extent = extent_of(tissue_mm)
    slope = rng.normal(0, 1, 2)
    centred = (plane_mm - tissue_mm.mean(axis=0)) / (0.5 * extent)
    blotches = Waves(rng, 2, (0.35 * extent, 1.1 * extent), 6)(plane_mm)
    return np.exp(unevenness * (0.7 * centred @ slope + 0.6 * blotches))


def stained_and_damaged(
    signal: np.ndarray,
    cover: np.ndarray,
    spacing_mm: float,
    tissue_mm: np.ndarray,
    damage: str,
    unevenness: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A look on its plane, stained stronger here and weaker there, torn or with a piece missing.

    Strength and contrast of the stain (a factor and an exponent) differ from section to section.

    Parameters
    ----------
    signal, cover : (rows, columns), the look and where it is tissue.
    damage : of `draw_damage`.

    Returns
    -------
    signal and cover, new arrays.
    """
    from scipy.ndimage import gaussian_filter

    y, x = np.indices(signal.shape)
    plane_mm = np.stack([x, y], axis=-1) * spacing_mm
    gain, exponent = np.exp(0.6 * unevenness * rng.normal(size=2))
    field = staining_field(plane_mm, tissue_mm, unevenness, rng)
    lost = lost_tissue(plane_mm, tissue_mm, damage, rng)
    present = gaussian_filter((~lost).astype(np.float32), 0.6)
    return (gain * field * signal**exponent).astype(np.float32), cover * present


# --------------------------------------------------------------------------------------------
# Rendering
# --------------------------------------------------------------------------------------------


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
    spacing_mm : pixel of plane and section.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

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
    points = scattered_points(tissue, options.n_landmarks, rng) * spacing_mm
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
