"""`sbr align`: the 3D similarity between a stack and its MRI, and first affines of the sections."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from sbr_core.algorithms.alignment import brain_size, start
from sbr_core.algorithms.alignment.poses import letters_of
from sbr_core.algorithms.alignment.section_affine import AffineLimits
from sbr_core.algorithms.alignment.stack import Mri, Stack, StackAlignment, StackSection
from sbr_core.algorithms.alignment.stack_fit import align_stack
from sbr_core.algorithms.pieces import doubt_of_pictures
from sbr_core.algorithms.plausibility import halves
from sbr_core.algorithms.plausibility.outlines import box_mm
from sbr_core.artifacts import names
from sbr_core.artifacts.global_fit import InitialAffine, write_initial, write_plane_grid
from sbr_core.artifacts.rows import Prepared, read_rows
from sbr_core.config import AlignOptions
from sbr_core.errors import AlignmentError, ConfigError, ImageError
from sbr_core.geometry import similarity_scale
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import write_tsv
from sbr_core.io.transforms import write_stack_from_world
from sbr_core.io.volumes import read_mask, read_plane, read_volume
from sbr_core.report.alignment_figures import draw_candidates, draw_overview
from sbr_core.revisions import REVISION

logger = logging.getLogger(__name__)

_MIN_SECTIONS = 3
"""A scale along z, two tilts and an offset cannot be told apart by fewer."""
_SPACING_MM = 1.5
"""Of the volumes that ANTs compares, in a human brain. ANTs takes time by its inverse third power;
the joint steps that follow look at the working pixel."""


def run(
    options: AlignOptions,
    *,
    sections: Path,
    mri: Path,
    mri_mask: Path,
    orientation: str,
    working_pixel_mm: float,
    out_dir: Path,
) -> None:
    """Fit the 3D similarity between stack and MRI.

    Writes it, the plane grid, the sections' affines, quality and overview.

    Parameters
    ----------
    sections : table written by prepare.
    mri : MRI written by prepare-mri.
    mri_mask : mask written by prepare-mri.
    orientation : direction of column, row and position, e.g. LIA, or auto.
    working_pixel_mm : pixel size of the prepared sections, mm.
    out_dir : folder the results go to.

    Raises
    ------
    ConfigError
        Orientation letters that are none, or sections prepared at another pixel size.
    ImageError
        Fewer than three usable sections, or an MRI that cannot be read.
    AlignmentError
        No pose, or none that is clearly better than all others; the picture ``candidates.png``
        shows what they are, and nothing else is written. Or positions that are an order: the
        table ``positions.tsv`` proposes millimetres.
    """
    start.orientation_asked(orientation)  # a wrong one is named before anything is read
    rows, stack = read_stack(sections, working_pixel_mm)
    volume = read_mri(mri, mri_mask)
    several = doubt_of_pictures([section.mask for section in stack.sections])
    if several:
        logger.warning(f"align: WARNING: {several}")
    brain_size.check_sizes(stack, volume, in_order=options.positions == "order")
    # from here to the results all lengths are those of a brain of human size
    enlargement = brain_size.enlargement_of(brain_size.size_mm(stack, volume))
    stack, volume = brain_size.enlarged(stack, volume, enlargement)
    begin = time.monotonic()
    progress = _progress_since(begin)
    if enlargement > 1:
        progress(f"all lengths {enlargement:g} times as large, to align the brain as a human one")
    if options.positions == "order":
        unit_mm = start.mm_per_position(stack, volume, options, orientation, progress)
        _propose_positions(out_dir / names.POSITIONS, rows, unit_mm)
    verdict = start.find_start(stack, volume, options, orientation, progress)
    why = start.doubt(verdict, options, orientation)
    if why:
        draw_candidates(out_dir / names.CANDIDATES, stack, volume, verdict, enlargement)
        why = "; ".join(filter(None, (why, several)))
        raise AlignmentError(f"align: {why}; see {out_dir / names.CANDIDATES}")
    share, doubt = _compare_planes(stack, volume, verdict.best.world_from_stack)
    spacing_mm = _SPACING_MM if options.spacing_mm is None else options.spacing_mm * enlargement
    alignment = align_stack(
        stack,
        volume,
        verdict.best.world_from_stack,
        spacing_mm=spacing_mm,
        rounds=options.rounds,
        limits=AffineLimits(),
        seed=options.seed,
        progress=progress,
    )
    (out_dir / names.CANDIDATES).unlink(missing_ok=True)
    draw_overview(out_dir / names.OVERVIEW, stack, volume, alignment, enlargement)
    alignment = brain_size.in_own_size(alignment, enlargement)
    _write_alignment(out_dir, rows, alignment, enlargement)
    write_provenance(
        out_dir / names.QUALITY,
        stage="align",
        options=options.model_dump(mode="json"),
        inputs={"sections": sections, "mri": mri, "mri_mask": mri_mask},
        revision=REVISION["align"],
        orientation=orientation,
        **_figures(verdict, alignment),
        **({"doubts": [doubt]} if doubt else {}),
        area_of_sections_over_planes=_finite(share),
        seconds=round(time.monotonic() - begin, 1),
    )


def _compare_planes(stack: Stack, mri: Mri, world_from_stack: np.ndarray) -> tuple[float, str]:
    """`halves.doubt_of_planes` of the sections in a pose; what it doubts is logged."""
    planes = halves.planes_of_brain(
        mri.mask, mri.world_from_voxel, np.linalg.inv(world_from_stack), stack.positions_mm
    )
    tissue_mm2 = [np.count_nonzero(s.mask) * stack.pixel_mm**2 for s in stack.sections]
    extent_mm = [box_mm(s.mask, stack.pixel_mm) for s in stack.sections]
    share, doubt = halves.doubt_of_planes(np.array(tissue_mm2), planes, np.array(extent_mm))
    if doubt:
        logger.warning(f"align: WARNING: {doubt}")
    return share, doubt


def _progress_since(begin: float) -> Callable[[str], None]:
    """Logs a line with the seconds since `begin` before it."""

    def progress(line: str) -> None:
        logger.info("align: %5.0f s  %s", time.monotonic() - begin, line)

    return progress


def read_stack(sections: Path, working_pixel_mm: float) -> tuple[list[Prepared], Stack]:
    """Rows of `prepare`'s table, sorted by position, and their images.

    Without sections that are placed by their neighbours.

    Raises
    ------
    ImageError
        Fewer than three usable sections.
    ConfigError
        A section that was prepared at another pixel size.
    """
    every = sorted(read_rows(sections, Prepared), key=lambda row: row.position_mm)
    rows = [row for row in every if not row.affine_from]
    if len(rows) < _MIN_SECTIONS:
        raise ImageError(
            f"{sections}: {len(rows)} usable sections, expected at least {_MIN_SECTIONS}"
            + (", without those placed by neighbours" if len(rows) < len(every) else "")
        )
    other = [row for row in rows if abs(row.working_pixel_mm - working_pixel_mm) > 1e-9]
    if other:
        raise ConfigError(
            f"align: --working-pixel-mm {working_pixel_mm:g}, but section {other[0].section!r}"
            f" was prepared at {other[0].working_pixel_mm:g} mm"
        )
    stack = [
        StackSection(
            row.section,
            read_plane(row.file(names.IMAGE))[0],
            read_plane(row.file(names.MASK))[0] > 0,
            row.position_mm,
        )
        for row in rows
    ]
    return rows, Stack(stack, working_pixel_mm)


def read_mri(mri: Path, mri_mask: Path) -> Mri:
    """The MRI and its mask; ImageError where their shapes differ."""
    volume = read_volume(mri)
    mask = read_mask(mri_mask, volume)
    return Mri(volume.data.astype(np.float32), mask.data, volume.world_from_voxel)


def _propose_positions(path: Path, rows: Sequence[Prepared], unit_mm: float) -> NoReturn:
    """Write positions in millimetres down, and end: the manifest decides."""
    first = rows[0].position_mm
    proposed = [(row.section, round(unit_mm * (row.position_mm - first), 4)) for row in rows]
    write_tsv(path, [{"section": s, "position_mm": position_mm} for s, position_mm in proposed])
    raise AlignmentError(
        f"align: positions: order: one step is about {unit_mm:.3g} mm (of the MRI); take over"
        f" position_mm of {path} into the manifest and set positions: mm"
    )


def _write_alignment(
    out_dir: Path, rows: Sequence[Prepared], alignment: StackAlignment, enlargement: float
) -> None:
    write_plane_grid(out_dir / names.PLANE_GRID, alignment.grid, enlargement)
    write_initial(
        out_dir / names.INITIAL_AFFINES,
        [
            # a section prepared otherwise since is one that this fit never saw
            InitialAffine(
                row.section, row.position_mm, row.pixels_digest, affine, cost, row.stain_group
            )
            for row, affine, cost in zip(
                rows, alignment.working_from_plane_mm, alignment.costs, strict=True
            )
        ],
    )
    write_stack_from_world(out_dir / names.STACK_TRANSFORM, alignment.stack_from_world)


def _finite(value: float) -> float | None:
    """As JSON can write it."""
    return value if np.isfinite(value) else None


def _figures(verdict: start.Verdict, alignment: StackAlignment) -> dict[str, object]:
    """What ``quality.json`` contains of the search and the fit."""
    kept = [r for r in alignment.rounds if r["kept"]][-1]
    return {
        "orientation_found": letters_of(verdict.best),
        "start_explained": verdict.explained,
        "place_margin": _finite(verdict.place_margin),
        "handedness_margin": _finite(verdict.handedness_margin),
        "n_sections": len(alignment.working_from_plane_mm),
        "world_mm_per_stack_mm": 1 / similarity_scale(alignment.stack_from_world),
        "rounds": alignment.rounds,
        "mask_dice": kept["mask_dice"],
        "mutual_information": kept["mutual_information"],
    }
