"""What the demo's sections look like: stained tissue on glass, in transmitted light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from sbr_core import geometry
from sbr_core.algorithms.simulation.anatomy import GREY, WHITE, Anatomy, Shifts, labels_at
from sbr_core.algorithms.simulation.damage import gyral_tears, lost_on_slide
from sbr_core.algorithms.simulation.slides import BRAIN_EXTENT_MM, Slide
from sbr_core.algorithms.simulation.swirls import apply_swirls, undo_swirls
from sbr_core.algorithms.simulation.variation import boundary_shifts
from sbr_core.algorithms.simulation.waves import Waves

if TYPE_CHECKING:
    from sbr_core.config import DemoOptions

_LAYERS = (
    (0.00, 0.34),
    (0.12, 0.38),
    (0.22, 1.00),
    (0.34, 0.80),
    (0.46, 0.78),
    (0.55, 1.08),
    (0.67, 0.44),
    (0.76, 0.50),
    (0.88, 0.94),
    (1.00, 0.86),
)
"""(depth from the pial surface 0 to the white matter 1, density of cell bodies), drawn after the
look of a Nissl stain: pale layer 1, dark 2 and 4, pale 5, dark 6."""
_WHITE_DENSITY = 0.42
"""Of white matter: paler than grey on average, darker than layer 1."""
_LANDMARKS_APART_MM = 3.0
"""Landmarks end where the next would lie nearer to another than that."""


@dataclass(frozen=True)
class Photograph:
    """One section, as it lies on its slide.

    Attributes
    ----------
    image : (rows, columns) uint8, glass near white, more cell bodies darker (Beer-Lambert).
    labels : (rows, columns) uint8, 2 white and 3 grey matter; 0 where tissue is lost.
    labels_of_plane : the same of the anatomy of the section's plane, from which its own differs.
    """

    image: np.ndarray
    labels: np.ndarray
    labels_of_plane: np.ndarray


def cell_density(
    anatomy: Anatomy, template_mm: np.ndarray, seed: int, shifts: Shifts
) -> np.ndarray:
    """Staining of the tissue itself, about 0.3 to 1.2, 0 in fluid, at points (..., 3).

    Layers by relative depth between the pial surface and the white matter, whose strength
    differs from area to area; nuclei where grey matter is deep; pale, mottled white matter.
    """
    rng = np.random.default_rng([seed, 3])
    areas, nuclei, tracts = (Waves(rng, 3, w) for w in ((30, 80), (12, 40), (10, 60)))
    depth_pial_mm = anatomy.sample("depth_pial_mm", template_mm)
    tissue = shifts.tissue(anatomy.sample("tissue", template_mm, order=3), depth_pial_mm)
    white = shifts.white(anatomy.sample("white", template_mm, order=3))
    from_pial = np.clip(depth_pial_mm + shifts.pial_mm, 0, None)
    from_white = np.clip(anatomy.sample("depth_white_mm", template_mm) - shifts.white_mm, 0, None)

    thickness = from_pial + from_white
    depth = from_pial / np.maximum(thickness, 0.5)
    at, value = np.array(_LAYERS).T
    layers = np.interp(depth, at, value)
    mean = float(np.trapezoid(value, at))
    layers = mean + (layers - mean) * (1 + 0.25 * areas(template_mm)) + 0.05 * areas(template_mm)
    deep = np.clip((thickness - 7.0) / 3.0, 0, 1)
    grey = (1 - deep) * layers + deep * (0.74 + 0.13 * nuclei(template_mm))
    pale = _WHITE_DENSITY + 0.05 * tracts(template_mm)
    share_white = 1 / (1 + np.exp(-np.clip(white / 0.06, -20, 20)))
    share_tissue = 1 / (1 + np.exp(-np.clip(tissue / 0.04, -20, 20)))
    return (share_tissue * ((1 - share_white) * grey + share_white * pale)).astype(np.float32)


def render_section(
    anatomy: Anatomy,
    template_from_stack: np.ndarray,
    slide: Slide,
    row: dict[str, Any],
    tissue_mm: np.ndarray,
    rng: np.random.Generator,
    options: DemoOptions,
) -> Photograph:
    """Photograph one section: transmitted light through stained tissue on glass."""
    rows, columns = slide.shape
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    section_mm = np.stack([x, y], axis=-1) * row["pixel_size_mm"]
    flat_mm = geometry.apply(np.linalg.inv(slide.section_mm_from_flat_mm), section_mm)
    plane_mm = apply_swirls(flat_mm, slide.swirls)
    stack = np.concatenate([plane_mm, np.full((rows, columns, 1), row["position_mm"])], axis=-1)
    template = geometry.apply(template_from_stack, stack)

    number = int(row["section"].lstrip("s"))
    pial_mm, white_mm = boundary_shifts(
        template, options.anatomy_mm, BRAIN_EXTENT_MM, options.seed, number
    )
    shifts = Shifts(pial_mm, white_mm)
    density = cell_density(anatomy, template, options.seed, shifts)
    labels, labels_of_plane = labels_at(anatomy, template, shifts), labels_at(anatomy, template)
    lost = lost_on_slide(flat_mm, row["notes"], undo_swirls(tissue_mm, slide.swirls), rng)
    labels_of_plane[lost] = 0
    lost |= gyral_tears(
        plane_mm, tissue_mm, BRAIN_EXTENT_MM, options.gyral_tears,
        np.random.default_rng([options.seed, 7, number]),
    )  # fmt: skip
    labels[lost] = 0
    present = gaussian_filter((~lost).astype(np.float32), 0.6)

    # staining: a gradient on every section, blotches on some
    centred = (flat_mm - flat_mm.mean(axis=(0, 1))) / 70.0
    slope = rng.uniform(-0.12, 0.12, 2)
    stain = rng.uniform(0.40, 0.52) * (1 + centred @ slope)
    if row["notes"] == "uneven staining":
        stain = stain * np.exp(0.22 * Waves(rng, 2, (40.0, 110.0), 5)(flat_mm))
    speckle = gaussian_filter(rng.gamma(1.2, 1 / 1.2, (rows, columns)), 0.45) - 1.0
    grain = gaussian_filter(rng.normal(size=(rows, columns)), 1.5) * 5.0
    cells = density * present * (1 + 0.18 * speckle + 0.05 * grain)
    glass = 248.0 - 4.0 * np.hypot(*np.moveaxis(centred - rng.uniform(-0.3, 0.3, 2), -1, 0))
    image = glass * np.exp(-np.clip(stain * cells, 0, None)) + rng.normal(0, 0.8, (rows, columns))
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return Photograph(image, labels, labels_of_plane)


def pick_landmarks(
    photograph: Photograph, pixel_size_mm: float, rng: np.random.Generator, count: int = 16
) -> np.ndarray:
    """Well-spread points of tissue on the boundary of its plane's grey and white matter.

    Returns
    -------
    (n <= count, 2) section mm, at pixel centres, each far from the ones before it.
    """
    labels = photograph.labels_of_plane
    inside = binary_erosion(labels > 0, iterations=max(1, round(1.0 / pixel_size_mm)))
    boundary = binary_dilation(labels == WHITE) & (labels == GREY) & inside
    rows, columns = np.nonzero(boundary)
    if rows.size == 0:
        return np.zeros((0, 2))
    points = np.column_stack([columns, rows]) * pixel_size_mm
    chosen = [points[rng.integers(len(points))]]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(points - chosen[-1], axis=1))
        if distance.max() < _LANDMARKS_APART_MM:
            break
        chosen.append(points[int(distance.argmax())])
    column, row = np.rint(np.transpose(chosen) / pixel_size_mm).astype(int)
    return np.array(chosen)[photograph.labels[row, column] > 0]
