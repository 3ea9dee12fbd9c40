"""How far simulated deformations move tissue at which scale, against real ones.

    python benchmarks/deformation_spectrum.py [--seeds 1 2 3] [--allen DATA] [--every N]
        [--fields FILE …]

Displacement (rms, mm over tissue) in six bands of scale, as `simulation.roughness` has it, of the
demo (what the best affine of each section leaves) and of `simulate` (all of it), each seed a row;
below them what real sections show, in proportion to the brain's size and to the mean displacement,
and the ratio. It must lie within 0.8 and 1.2, and the least determinant above 0.

`simulate` needs MRI planes: those of the demo at its sections, or with `--allen` those of a
prealigned brain's manifest. `--fields` are displacements from elsewhere, such as what brings labels
together: .npz with `displacement_mm` (rows, columns, 2), `tissue` (rows, columns), `spacing_mm` and
`brain_extent_mm`. Exit code 1 if a band of the demo or of `simulate` is out of bounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from machine import heading
from scipy.ndimage import binary_fill_holes

from sbr_core import geometry
from sbr_core.algorithms.simulation import pairs
from sbr_core.algorithms.simulation.anatomy import Anatomy, labels_at, load_anatomy
from sbr_core.algorithms.simulation.damage import extent_of
from sbr_core.algorithms.simulation.demo_rows import demo_rows
from sbr_core.algorithms.simulation.frames import frames
from sbr_core.algorithms.simulation.roughness import (
    EDGES_MM,
    REAL_EXTENT_MM,
    expected_by_scale_mm,
    power_by_scale,
)
from sbr_core.algorithms.simulation.slides import BRAIN_EXTENT_MM, lay_out_section, tissue_points
from sbr_core.algorithms.simulation.swirls import best_affine, swirl_determinant, undo_swirls
from sbr_core.config import DemoOptions, SimulateOptions
from sbr_core.io.images import read_section
from sbr_core.io.manifests import read_manifest

PIXEL_MM = 0.5
SEEDS = (1, 2, 3)
TOLERANCE = 0.2


@dataclass
class Spectrum:
    """Displacement by scale, over sections."""

    extent_mm: float
    powers: list[np.ndarray] = field(default_factory=list)
    means_mm: list[float] = field(default_factory=list)
    least_determinant: float = np.inf

    def add(
        self, moved_mm: np.ndarray, tissue: np.ndarray, spacing_mm: float, determinant: float
    ) -> None:
        """A section's displacement (rows, columns, 2)."""
        self.powers.append(power_by_scale(moved_mm, tissue, spacing_mm, self.extent_mm))
        self.means_mm.append(float(np.linalg.norm(moved_mm[tissue], axis=-1).mean()))
        self.least_determinant = min(self.least_determinant, determinant)

    def print(self, name: str) -> bool:
        """Rows of the table; whether all ratios are within bounds."""
        by_scale = np.sqrt(np.mean(self.powers, axis=0))
        mean_mm = float(np.mean(self.means_mm))
        real = expected_by_scale_mm(mean_mm)
        for row, values in ((name, by_scale), ("real", real), ("ratio", by_scale / real)):
            cells = " | ".join(f"{value:.2f}" for value in values)
            about = f"{mean_mm:.2f} | {self.least_determinant:.2f}" if row == name else " | "
            print(f"| {row} | {cells} | {about} |")
        return bool(np.abs(by_scale / real - 1).max() <= TOLERANCE and self.least_determinant > 0)


def demo_planes(
    anatomy: Anatomy, options: DemoOptions, every: int
) -> Iterator[tuple[dict, np.ndarray, np.ndarray, np.ndarray]]:
    """Rows of the demo, points all over their tissue, and their planes: mm and tissue."""
    rows = demo_rows(options)
    world_from_stack, world_from_template = frames(rows)
    template_from_stack = np.linalg.inv(world_from_template) @ world_from_stack
    for number, row in enumerate(rows, 1):
        if number % every:
            continue
        points = tissue_points(anatomy, template_from_stack, row["position_mm"])
        low, high = points.min(axis=0) - 3, points.max(axis=0) + 3
        axes = [np.arange(a, b, PIXEL_MM) for a, b in zip(low, high, strict=True)]
        plane = np.stack(np.meshgrid(*axes), axis=-1)
        stack = np.concatenate([plane, np.full((*plane.shape[:2], 1), row["position_mm"])], -1)
        tissue = labels_at(anatomy, geometry.apply(template_from_stack, stack)) > 0
        yield row | {"number": number}, points, plane, tissue


def of_demo(anatomy: Anatomy, seed: int, every: int) -> Spectrum:
    """What the best affine of each of the demo's sections leaves."""
    options, found = DemoOptions(seed=seed), Spectrum(BRAIN_EXTENT_MM)
    for row, points, plane, tissue in demo_planes(anatomy, options, every):
        rng = np.random.default_rng([seed, 4, row["number"]])
        swirls = lay_out_section(points, row, rng, options).swirls
        flat = undo_swirls(plane, swirls)
        affine = best_affine(flat[tissue], plane[tissue])
        determinant = float(swirl_determinant(flat[tissue], swirls).min())
        found.add(geometry.apply(affine, flat) - plane, tissue, PIXEL_MM, determinant)
    return found


def of_simulate(masks: list[np.ndarray], spacing_mm: float, seed: int) -> Spectrum:
    """What `simulate` does to the sections of planes with these masks (rows, columns)."""
    options = SimulateOptions(seed=seed)
    tissue_mm = {}
    for number, mask in enumerate(masks):
        tissue_mm[str(number)] = np.column_stack(np.nonzero(mask[::3, ::3])[::-1]) * 3 * spacing_mm
    extents_mm = {name: extent_of(points) for name, points in tissue_mm.items()}
    extent_mm = pairs.brain_extent(extents_mm)
    wanted_mm = pairs.displacements_mm(extents_mm, options.deformation_mm, seed)
    found = Spectrum(extent_mm)
    for order, (name, points) in enumerate(tissue_mm.items()):
        rng = np.random.default_rng([seed, 3, order])
        drawn = pairs.draw_deformation(
            points, extent_mm, wanted_mm[name], options.affine_share, rng
        )
        at = np.stack(np.indices(masks[order].shape)[::-1], axis=-1) * spacing_mm
        determinant = float(drawn.determinant(at).min())
        found.add(drawn.plane_from_section(at) - at, masks[order], spacing_mm, determinant)
    return found


def plane_masks(manifest: Path, every: int) -> tuple[list[np.ndarray], float]:
    """Tissue of a prealigned brain's MRI planes, at about `PIXEL_MM`, and their pixel, mm."""
    rows = read_manifest(manifest, prealigned=True)[::every]
    step = max(1, round(PIXEL_MM / rows[0].pixel_size_mm))
    masks = [binary_fill_holes(read_section(r.mri_image)[::step, ::step] > 0.05) for r in rows]
    return masks, step * rows[0].pixel_size_mm


def main() -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--allen", type=Path, help="folder of a prealigned brain")
    parser.add_argument("--every", type=int, default=1, help="of the sections, every so many-th")
    parser.add_argument("--fields", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    anatomy = load_anatomy()
    if arguments.allen:
        masks, spacing_mm = plane_masks(arguments.allen / "sections.tsv", arguments.every)
    else:
        masks = [m for *_, m in demo_planes(anatomy, DemoOptions(), arguments.every)]
        spacing_mm = PIXEL_MM
    print(heading("Displacement by scale, mm rms"))
    edges = [f"{edge:g}" for edge in EDGES_MM]
    between = [f"{a}–{b}" for a, b in pairwise(edges)]
    print(f"Bands: standard deviations, mm, in a brain of {REAL_EXTENT_MM:g} mm.\n")
    print("| | " + " | ".join([f"< {edges[0]}", *between, f"> {edges[-1]}"]), end="")
    print(" | mean | least det |\n|" + "---|" * 9)
    good = True
    for seed in arguments.seeds:
        good &= of_demo(anatomy, seed, arguments.every).print(f"demo, seed {seed}")
    for seed in arguments.seeds:
        good &= of_simulate(masks, spacing_mm, seed).print(f"simulate, seed {seed}")
    for path in arguments.fields:
        with np.load(path) as file:
            given = Spectrum(float(file["brain_extent_mm"]))
            spacing = float(file["spacing_mm"])
            given.add(file["displacement_mm"], file["tissue"].astype(bool), spacing, np.nan)
        given.print(path.stem)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
