"""How the demo's sections come to lie on their slides: bent, turned, stretched and cropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.simulation.anatomy import Anatomy
from sbr_core.algorithms.simulation.roughness import STRONGEST, draw_swirls, strengthened
from sbr_core.algorithms.simulation.swirls import affine_residual_mm, best_affine, undo_swirls

if TYPE_CHECKING:
    from sbr_core.config import DemoOptions

_LATTICE_MM = -20, 171
"""Plane mm that hold every section of the demo, along x and y."""
BRAIN_EXTENT_MM = 127.0
"""Size of the demo's brain, for `roughness`: the 0.9 quantile of its sections' extents."""
_USUAL_EXTENT_MM = 110.0
"""Sections smaller than this are bent less, as the root of their extent."""
_TURN_DEG, _STRETCH, _SHEAR = 5, 0.04, 0.03
"""Largest turn, stretch and shear of a section on its slide, where `affine_jitter` is 1."""
_EDGE_MM = 5, 14
"""Least and largest width of glass around the tissue."""


@dataclass(frozen=True)
class Slide:
    """How one section lies on its slide: everything but its staining.

    Attributes
    ----------
    section_mm_from_flat_mm : (3, 3); flat mm is the slide before the section's own affine.
    swirls : (n, 5) as `apply_swirls`; plane mm = swirls(flat mm).
    shape : (rows, columns) of the file.
    """

    section_mm_from_flat_mm: np.ndarray
    swirls: np.ndarray
    shape: tuple[int, int]


def tissue_points(
    anatomy: Anatomy, template_from_stack: np.ndarray, position_mm: float, step_mm: float = 2.0
) -> np.ndarray:
    """Plane mm (n, 2) of a coarse lattice's points in tissue."""
    x, y = np.meshgrid(*2 * [np.arange(*_LATTICE_MM, step_mm)])
    plane = np.stack([x, y], axis=-1).reshape(-1, 2)
    stack = np.column_stack([plane, np.full(len(plane), position_mm)])
    return plane[anatomy.sample("tissue", geometry.apply(template_from_stack, stack)) > 0]


def lay_out_section(
    tissue_mm: np.ndarray, row: dict[str, Any], rng: np.random.Generator, options: DemoOptions
) -> Slide:
    """Draw how one section is bent, turned, stretched and cropped.

    The swirls are scaled until the best affine leaves the tissue about ``deformation_mm`` off (a
    little less where the section is small, more or less by chance).

    Parameters
    ----------
    tissue_mm : (n, 2) plane mm of points in tissue.
    row : the section's row of the manifest, for its flip and turn.
    """
    extent_mm = math.sqrt(np.ptp(tissue_mm[:, 0]) * np.ptp(tissue_mm[:, 1]))
    target_mm = (
        options.deformation_mm
        * rng.uniform(0.75, 1.25)
        * min(1.0, extent_mm / _USUAL_EXTENT_MM) ** 0.5
    )

    drawn = draw_swirls(tissue_mm, BRAIN_EXTENT_MM, rng)
    strength = 1.0
    for _ in range(4):  # what is left over grows nearly in proportion to the strength
        bent_mm = undo_swirls(tissue_mm, strengthened(drawn, strength))
        left_mm = affine_residual_mm(tissue_mm, bent_mm).mean()
        strength = min(strength * target_mm / left_mm, STRONGEST)
    swirls = strengthened(drawn, strength)

    jitter = options.affine_jitter
    angle = math.radians(rng.uniform(-_TURN_DEG, _TURN_DEG) * jitter)
    c, s = math.cos(angle), math.sin(angle)
    stretch = np.diag(1 + rng.uniform(-_STRETCH, _STRETCH, 2) * jitter)
    shear = np.array([[1.0, rng.uniform(-_SHEAR, _SHEAR) * jitter], [0.0, 1.0]])
    upright_from_file, _ = geometry.upright_from_file((1, 1), row["flip"], row["rotate_deg"])
    linear = np.eye(3)
    linear[:2, :2] = upright_from_file[:2, :2].T @ np.array([[c, -s], [s, c]]) @ stretch @ shear

    # what swirls do on the whole is taken back: turns and stretches are those drawn here
    bent_mm = undo_swirls(tissue_mm, swirls)
    linear = linear @ best_affine(bent_mm, tissue_mm)
    on_slide = geometry.apply(linear, bent_mm)
    before_mm, after_mm = rng.uniform(*_EDGE_MM, 2), rng.uniform(*_EDGE_MM, 2)
    size_mm = np.ptp(on_slide, axis=0) + before_mm + after_mm
    columns, rows = np.ceil(size_mm / row["pixel_size_mm"]).astype(int)
    offset = before_mm - on_slide.min(axis=0)
    return Slide(geometry.translation(*offset) @ linear, swirls, (int(rows), int(columns)))
