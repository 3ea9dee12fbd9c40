"""`sbr demo`: a brain to try everything on, with the truth it was made from.

Writes, below its folder: the manifest ``sections.tsv`` with ``images/`` and ``labels/``, the MRI
with its mask and labels, ``landmarks.tsv`` and ``truth.json``. Equal options give equal files.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.simulation.anatomy import Anatomy, load_anatomy
from sbr_core.algorithms.simulation.demo_rows import demo_rows
from sbr_core.algorithms.simulation.demo_sections import pick_landmarks, render_section
from sbr_core.algorithms.simulation.frames import ORIENTATION, frames
from sbr_core.algorithms.simulation.mri import simulate_mri
from sbr_core.algorithms.simulation.slides import lay_out_section, tissue_points
from sbr_core.algorithms.simulation.swirls import (
    FAMILY,
    affine_residual_mm,
    swirl_determinant,
    undo_swirls,
)
from sbr_core.algorithms.simulation.truth import (
    true_plane_mm_from_section_mm,
    true_world_from_section_mm,
)
from sbr_core.artifacts import names
from sbr_core.config import DemoOptions
from sbr_core.io.files import write_json
from sbr_core.io.images import write_png
from sbr_core.io.provenance import versions
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import Volume, write_volume

logger = logging.getLogger(__name__)


def run(options: DemoOptions, *, out_dir: Path) -> None:
    """Make the demo brain and the truth behind it.

    Parameters
    ----------
    options : how many sections, how coarse, how deformed.
    out_dir : folder the results go to; made if needed, files of the same names are replaced.

    Raises
    ------
    ConfigError
        If the sections reach beyond the brain.
    """
    rows = demo_rows(options)
    logger.info("demo: reading the MNI152 maps that ship inside nilearn")
    anatomy = load_anatomy()
    world_from_stack, world_from_template = frames(rows)
    template_from_stack = np.linalg.inv(world_from_template) @ world_from_stack

    mri, mask, labels, world_from_voxel = simulate_mri(anatomy, world_from_template, options)
    volumes = {names.MRI_VOLUME: mri, names.MRI_MASK_VOLUME: mask, names.MRI_LABELS_VOLUME: labels}
    for name, data in volumes.items():
        write_volume(out_dir / name, Volume(data, world_from_voxel))
    logger.info(f"demo: MRI of {' x '.join(map(str, mri.shape))} voxels")

    truth: dict[str, Any] = {
        "about": "Simulated from the MNI152 average. section mm -> (inverse of"
        " section_mm_from_flat_mm) -> flat mm -> swirls -> plane mm; with position_mm that is"
        " stack mm; world_from_stack maps it to RAS mm of the MRI. The origin of plane mm is"
        " arbitrary: any similarity of the stack that keeps world positions is as good.",
        "family": FAMILY,
        "orientation": ORIENTATION,
        "seed": options.seed,
        "options": options.model_dump(mode="json"),
        "versions": versions(),
        "world_from_stack": world_from_stack.tolist(),
        "sections": {},
    }
    landmarks: list[dict[str, Any]] = []
    for number, row in enumerate(rows, 1):
        # a generator per section: another number of sections leaves the anatomy's fields alone
        rng = np.random.default_rng([options.seed, 4, number])
        landmarks += _make_section(out_dir, anatomy, template_from_stack, row, truth, rng, options)
        section = row["section"]
        logger.info(f"demo: {number}/{len(rows)} section {section} {row['notes']}")

    for key in (
        "tissue_left_by_best_affine_mm",
        "in_plane_mm_of_best_affine",
        "in_plane_mm_of_true_affine",
    ):
        truth[key] = float(np.mean([entry[key] for entry in truth["sections"].values()]))
    write_tsv(out_dir / names.LANDMARKS, landmarks)
    write_json(out_dir / names.TRUTH, truth)
    write_tsv(out_dir / names.TABLE, rows)  # last: a manifest without its images is no demo
    logger.info(
        f"demo: the best affine of each section leaves landmarks"
        f" {truth['in_plane_mm_of_best_affine']:.2f} mm off"
    )


def _make_section(
    out_dir: Path,
    anatomy: Anatomy,
    template_from_stack: np.ndarray,
    row: dict[str, Any],
    truth: dict[str, Any],
    rng: np.random.Generator,
    options: DemoOptions,
) -> list[dict[str, Any]]:
    """Write the images of one section, add its truth to `truth`, and return its landmarks."""
    section = row["section"]
    tissue_mm = tissue_points(anatomy, template_from_stack, row["position_mm"])
    slide = lay_out_section(tissue_mm, row, rng, options)
    photograph = render_section(anatomy, template_from_stack, slide, row, tissue_mm, rng, options)
    write_png(out_dir / row["image"], photograph.image)
    write_png(out_dir / row["labels"], photograph.labels)

    tissue_flat_mm = undo_swirls(tissue_mm, slide.swirls)
    determinant = swirl_determinant(tissue_flat_mm, slide.swirls)
    truth["sections"][section] = {
        "position_mm": row["position_mm"],
        "section_mm_from_flat_mm": slide.section_mm_from_flat_mm.tolist(),
        "swirls": slide.swirls.tolist(),
        "least_determinant": float(determinant.min()),
        "tissue_left_by_best_affine_mm": float(
            affine_residual_mm(tissue_flat_mm, tissue_mm).mean()
        ),
    }
    points = pick_landmarks(photograph, row["pixel_size_mm"], rng)
    plane_mm = true_plane_mm_from_section_mm(truth, section, points)
    world_mm = true_world_from_section_mm(truth, section, points)
    truth["sections"][section] |= {
        "landmarks": len(points),
        "in_plane_mm_of_best_affine": float(affine_residual_mm(points, plane_mm).mean()),
        "in_plane_mm_of_true_affine": float(
            np.linalg.norm(
                geometry.apply(np.linalg.inv(slide.section_mm_from_flat_mm), points) - plane_mm,
                axis=1,
            ).mean()
        ),
    }
    return [
        {
            "section": section,
            "x_section_mm": float(x),
            "y_section_mm": float(y),
            **dict(zip(("mri_x_mm", "mri_y_mm", "mri_z_mm"), world.tolist(), strict=True)),
        }
        for (x, y), world in zip(points, world_mm, strict=True)
    ]
