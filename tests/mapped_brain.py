"""A finished brain whose spaces are known exactly, in the files that `Brain` reads.

Its stack is left-handed, oblique and 1.1 times as large as the MRI; each section has swirls of its
own. Sections are plain, flipped, turned, flipped and turned, in a box, and 3 times finer than the
working pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.simulation.swirls import apply_swirls, undo_swirls
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Inferred, Prepared, write_rows
from sbr_core.geometry import PlaneGrid, apply
from sbr_core.io.files import sha256_file
from sbr_core.io.transforms import (
    PlaneField,
    SectionTransform,
    write_section_transform,
    write_stack_from_world,
)
from sbr_core.io.volumes import Volume, write_plane, write_volume

GRID = PlaneGrid((100, 120), 0.5)
"""Of every plane: 60 by 50 mm."""
TISSUE_MM = 18.0
"""Radius of the tissue, a disc about the middle of the plane."""
MIDDLE_MM = np.array([29.75, 24.75])
_KINDS = {
    "plain": {"shape": (104, 124), "pixel_size_mm": 0.5},
    "flipped": {"shape": (110, 126), "pixel_size_mm": 0.5, "flip": "lr"},
    "turned": {"shape": (130, 108), "pixel_size_mm": 0.5, "rotate_deg": 90.0},
    "both": {"shape": (400, 420), "pixel_size_mm": 1 / 6, "flip": "ud", "rotate_deg": 25.0},
    "boxed": {
        "shape": (150, 190),
        "pixel_size_mm": 0.4,
        "box_px": "20 10 160 135",
        "flip": "lr",
        "rotate_deg": 270.0,
    },
}
SECTIONS = tuple(_KINDS)
SPACING_MM = 2.0


@dataclass(frozen=True)
class MappedBrain:
    """Where it lies, and what is true of it.

    Attributes
    ----------
    stack_from_world : (4, 4).
    section_from_plane : section -> affine (3, 3), mm.
    swirls : section -> the deformation: section mm = affine of undone swirls of plane mm.
    """

    results: Path
    stack_from_world: np.ndarray
    section_from_plane: dict[str, np.ndarray]
    swirls: dict[str, np.ndarray]
    pixel_size_mm: dict[str, float]

    def px(self, section: str, plane_mm: np.ndarray) -> np.ndarray:
        """The truth: plane mm (n, 2) to px of the section's file."""
        flat_mm = undo_swirls(plane_mm, self.swirls[section])
        return apply(self.section_from_plane[section], flat_mm) / self.pixel_size_mm[section]

    def world(self, section: str, plane_mm: np.ndarray) -> np.ndarray:
        """The truth: plane mm (n, 2) to RAS mm of the MRI."""
        z_mm = np.full((len(plane_mm), 1), SECTIONS.index(section) * SPACING_MM)
        return apply(np.linalg.inv(self.stack_from_world), np.hstack([plane_mm, z_mm]))


def signal(flat_mm: np.ndarray) -> np.ndarray:
    """What sections show at points (..., 2), mm of the plane without its swirls: no symmetry."""
    x, y = np.moveaxis((flat_mm - MIDDLE_MM) / TISSUE_MM, -1, 0)
    return 0.5 + 0.3 * x + 0.15 * y


def tissue_points(n: int, seed: int = 0) -> np.ndarray:
    """Points (n, 2) of the tissue, plane mm, well inside."""
    rng = np.random.default_rng(seed)
    radius, angle = 0.85 * TISSUE_MM * np.sqrt(rng.random(n)), 2 * np.pi * rng.random(n)
    return MIDDLE_MM + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _stack_from_world() -> np.ndarray:
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])
    turn = turn @ np.array([[1.0, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3] = 1.1 * geometry.orientation_matrix("LIA").T @ turn
    matrix[:3, 3] = *MIDDLE_MM, 4.0
    return matrix


def make_mapped_brain(results: Path) -> MappedBrain:
    """Write the tables, masks, transforms and MRI mask of such a brain."""
    rng = np.random.default_rng(5)
    brain = MappedBrain(results, _stack_from_world(), {}, {}, {})
    prepared, inferred = [], []
    for number, (section, kind) in enumerate(_KINDS.items()):
        row = _write_section(brain, rng, section, kind)
        position_mm = number * SPACING_MM
        prepared.append(replace(row[0], position_mm=position_mm))
        inferred.append(replace(row[1], position_mm=position_mm))
    write_rows(results / "prepare" / names.TABLE, prepared)
    write_rows(results / "sbr" / names.TABLE, inferred)
    write_stack_from_world(results / "align" / names.STACK_TRANSFORM, brain.stack_from_world)
    affine = np.array([[0, 1.2, 0, -26], [-1.2, 0, 0, 26], [0, 0, 1.5, -24], [0, 0, 0, 1.0]])
    voxels = np.stack(np.indices((44, 44, 33)), axis=-1)
    stack_mm = apply(brain.stack_from_world @ affine, voxels)
    radius_mm = np.linalg.norm(stack_mm[..., :2] - MIDDLE_MM, axis=-1)
    value = (np.clip(TISSUE_MM - radius_mm, 0, None) * 10).astype(np.float32)
    write_volume(results / "prepare" / names.MRI_VOLUME, Volume(value, affine))
    mask = (value > 0).astype(np.uint8)
    write_volume(results / "prepare" / names.MRI_MASK_VOLUME, Volume(mask, affine))
    return brain


def _write_section(
    brain: MappedBrain, rng: np.random.Generator, section: str, kind: dict
) -> tuple[Prepared, Inferred]:
    shape, pixel_size_mm = kind["shape"], kind["pixel_size_mm"]
    turned = kind.get("flip", "none"), kind.get("rotate_deg", 0.0)
    file_from_working, working_shape = geometry.file_px_from_working_px(
        shape, pixel_size_mm, GRID.spacing_mm, *turned
    )
    section_from_working = geometry.section_mm_from_working_mm(
        file_from_working, pixel_size_mm, GRID.spacing_mm
    )
    jitter = np.eye(3)
    jitter[:2, :2] += rng.normal(scale=0.03, size=(2, 2))
    middle = (np.array(working_shape[::-1]) - 1) / 2 * GRID.spacing_mm
    jitter[:2, 2] = middle - jitter[:2, :2] @ MIDDLE_MM + rng.normal(scale=0.5, size=2)
    affine = section_from_working @ jitter
    centres = MIDDLE_MM + rng.uniform(-9, 9, (6, 2))
    swirls = np.column_stack([centres, rng.uniform(6, 10, 6), rng.normal(0, 0.15, (6, 2))])
    brain.section_from_plane[section], brain.swirls[section] = affine, swirls
    brain.pixel_size_mm[section] = pixel_size_mm

    plane_mm = np.stack(np.indices(GRID.shape)[::-1], axis=-1) * GRID.spacing_mm
    registered = names.section_file(brain.results / "sbr", section, names.REGISTERED)
    write_plane(
        registered, signal(undo_swirls(plane_mm, swirls)).astype(np.float32), GRID.spacing_mm
    )
    margin, spacing_mm = 10, GRID.spacing_mm / 2
    size = tuple(2 * n + 2 * margin for n in GRID.shape)
    rows, columns = np.indices(size) - margin
    points = np.stack([columns, rows], axis=-1) * spacing_mm
    origin = (-margin * spacing_mm,) * 2
    forward = PlaneField(undo_swirls(points, swirls) - points, spacing_mm, origin)
    backward = PlaneField(apply_swirls(points, swirls) - points, spacing_mm, origin)
    files = [registered]
    for ending, steps in (
        (names.SECTION_TO_STACK, (forward, affine)),
        (names.STACK_TO_SECTION, (np.linalg.inv(affine), backward)),
    ):
        path = names.section_file(brain.results / "sbr", section, ending)
        write_section_transform(path, SectionTransform(steps))
        files.append(path)
    working_px = np.stack(np.indices(working_shape)[::-1], axis=-1)
    flat_mm = apply(np.linalg.inv(jitter), working_px * GRID.spacing_mm)
    tissue = np.linalg.norm(flat_mm - MIDDLE_MM, axis=-1) < TISSUE_MM
    mask = names.section_file(brain.results / "prepare", section, names.MASK)
    write_plane(mask, tissue.astype(np.uint8), GRID.spacing_mm)
    image = names.section_file(brain.results / "prepare", section, names.IMAGE)
    write_plane(image, (tissue * signal(flat_mm)).astype(np.float32), GRID.spacing_mm)
    common = {"section": section, "position_mm": 0.0}
    prepared = Prepared(
        **common,
        pixel_size_mm=pixel_size_mm,
        working_pixel_mm=GRID.spacing_mm,
        file_rows=shape[0],
        file_columns=shape[1],
        polarity="bright_background",
        background=1.0,
        section_mm_from_working_mm=section_from_working,
        tissue_mm2=1.0,
        image=f"{section}.png",
        box_px=kind.get("box_px", ""),
        files={f"sections/{file.name}": sha256_file(file) for file in (mask, image)},
    )
    inferred = Inferred(
        **common,
        grid=GRID,
        folding_percent=0.0,
        disp_mean_mm=0.0,
        disp_max_mm=0.0,
        inverse_mean_px=0.0,
        inverse_p99_px=0.0,
        files={f"{file.parent.name}/{file.name}": sha256_file(file) for file in files},
    )
    return prepared, inferred
