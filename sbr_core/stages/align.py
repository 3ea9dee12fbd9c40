"""`sbr align`: the 3D similarity between a stack and its MRI, and first affines of the sections."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sbr_core.algorithms.alignment import (
    Brain,
    StackAlignment,
    StackSection,
    align_stack,
    centred_affines,
    coarse_scenes,
    nearest_orientation,
    overview_cuts,
    spacing_of_order,
)
from sbr_core.algorithms.brain_size import (
    enlarged,
    enlargement_of,
    extent_px,
    in_own_size,
    size_mm,
    width_mm,
)
from sbr_core.algorithms.pose_search import Pose, Verdict, judge, search
from sbr_core.algorithms.section_affine import AffineLimits
from sbr_core.artifacts.receipts import file_of, matrix_columns, pixels_digest, read_table
from sbr_core.errors import AlignmentError, ConfigError, ImageError
from sbr_core.geometry import PlaneGrid, orientation_letters, orientation_matrix, similarity_scale
from sbr_core.io.files import atomic_path, write_json
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import write_tsv
from sbr_core.io.transforms import STACK_TRANSFORM, write_stack_from_world
from sbr_core.io.volumes import read_plane, read_volume
from sbr_core.revisions import REVISION

if TYPE_CHECKING:
    from sbr_core.config import AlignOptions

_MIN_SECTIONS = 3
_SPACING_MM = 1.5
"""Of the volumes that ANTs compares, in a human brain."""
_LEAST_PX = 25
"""Pixels across a section, below which nothing is left to align."""
_USUAL_PX = 150
_MOST_TIMES = 10.0
"""How many times as long as the MRI's brain, which may be a piece, sections and stack may be."""
AUTO = "auto"
"""`orientation` of a stack that is to be found in any."""
POSITIONS = "positions.tsv"
"""What `align` proposes where positions are an order."""
CANDIDATES = "candidates.png"
"""What `align` draws where it is not sure."""


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
    out_dir = Path(out_dir)
    near = None
    if orientation != AUTO:
        try:
            near = orientation_matrix(orientation)
        except ValueError as error:
            raise ConfigError(f"align: {error}, or {AUTO!r}") from None
    rows, stack = read_stack(Path(sections), working_pixel_mm)
    brain = read_brain(Path(mri), Path(mri_mask))

    check_sizes(stack, working_pixel_mm, brain, in_order=options.positions == "order")
    # from here to the results all lengths are those of a brain of human size
    enlargement = enlargement_of(size_mm(stack, working_pixel_mm, brain))
    stack, pixel_mm, brain = enlarged(stack, working_pixel_mm, brain, enlargement)
    spacing_mm = _SPACING_MM if options.spacing_mm is None else options.spacing_mm * enlargement
    begin = time.monotonic()

    def progress(line: str) -> None:
        print(f"align: {time.monotonic() - begin:5.0f} s  {line}", file=sys.stderr, flush=True)

    if enlargement != 1:
        progress(f"all lengths {enlargement:g} times as large, to align the brain as a human one")
    if options.positions == "order":
        _propose_positions(
            options, rows, stack, pixel_mm, brain, near, out_dir, orientation, progress
        )
    progress("looking for the stack in the MRI at low resolution")
    scenes = coarse_scenes(stack, pixel_mm, brain)
    poses = search(*scenes, near=near, max_rotation_deg=options.max_rotation_deg, progress=progress)
    if not poses:
        raise AlignmentError(
            f"align: no pose within {options.max_rotation_deg:g} degrees (max_rotation_deg) of"
            f" orientation {orientation}; check it, or write orientation {AUTO}"
        )
    verdict = judge(poses)
    progress(
        f"the stack lies {_letters(verdict.best)}, explains {verdict.explained:.0%}; margin"
        f" {verdict.place_margin:.1f} over other places, {verdict.handedness_margin:.1f} over the"
        " other handedness"
    )
    doubt = _doubt(verdict, options, orientation)
    if doubt:
        out_dir.mkdir(parents=True, exist_ok=True)
        _draw_candidates(out_dir / CANDIDATES, stack, pixel_mm, brain, verdict, enlargement)
        raise AlignmentError(f"align: {doubt}; see {out_dir / CANDIDATES}")
    found = align_stack(
        stack,
        pixel_mm,
        brain,
        verdict.best.world_from_stack,
        spacing_mm=spacing_mm,
        rounds=options.rounds,
        limits=AffineLimits(),
        seed=options.seed,
        progress=progress,
    )
    (out_dir / CANDIDATES).unlink(missing_ok=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    _draw_overview(out_dir / "overview.png", stack, pixel_mm, brain, found, enlargement)
    found = in_own_size(found, enlargement)
    write_json(
        out_dir / "plane_grid.json",
        {
            "rows": found.grid.shape[0],
            "columns": found.grid.shape[1],
            "spacing_mm": found.grid.spacing_mm,
            "enlargement": enlargement,
        },
    )
    write_tsv(
        out_dir / "sections_initial.tsv",
        [
            {
                "section": row["section"],
                "position_mm": row["position_mm"],
                # a section prepared otherwise since is one that this fit never saw
                "prepared": pixels_digest(row),
                **matrix_columns(affine, "a"),
            }
            for row, affine in zip(rows, found.working_from_plane_mm, strict=True)
        ],
    )
    write_stack_from_world(out_dir / STACK_TRANSFORM, found.stack_from_world)
    kept = [r for r in found.rounds if r["kept"]][-1]
    write_provenance(
        out_dir / "quality.json",
        stage="align",
        options=options.model_dump(mode="json"),
        inputs={"sections": Path(sections), "mri": Path(mri), "mri_mask": Path(mri_mask)},
        revision=REVISION["align"],
        orientation=orientation,
        orientation_found=_letters(verdict.best),
        start_explained=verdict.explained,
        place_margin=_finite(verdict.place_margin),
        handedness_margin=_finite(verdict.handedness_margin),
        n_sections=len(rows),
        world_mm_per_stack_mm=1 / similarity_scale(found.stack_from_world),
        rounds=found.rounds,
        mask_dice=kept["mask_dice"],
        mutual_information=kept["mutual_information"],
        seconds=round(time.monotonic() - begin, 1),
    )


def check_sizes(
    stack: list[StackSection], working_pixel_mm: float, brain: Brain, *, in_order: bool = False
) -> None:
    """Refuse lengths that cannot belong together, and pixels far too coarse for the sections.

    Parameters
    ----------
    in_order : positions are no millimetres, and not looked at.

    Raises
    ------
    ImageError
        An empty mask of the MRI; sections or a stack many times as long as its brain.
    ConfigError
        Sections of too few pixels.
    """
    if not brain.mask.any():
        raise ImageError("align: the mask of the MRI is empty")
    longest_mm = float(np.linalg.norm(extent_px(brain.mask) * brain.voxel_mm))
    across_mm = width_mm(stack, working_pixel_mm)
    if across_mm > _MOST_TIMES * longest_mm:
        raise ImageError(
            f"align: sections are {across_mm:.4g} mm wide and the brain in the MRI is"
            f" {longest_mm:.4g} mm long; check pixel_size_mm and the MRI's voxel size"
        )
    length_mm = stack[-1].position_mm - stack[0].position_mm
    if length_mm > _MOST_TIMES * longest_mm and not in_order:
        raise ImageError(
            f"align: the stack is {length_mm:.4g} mm long and the brain in the MRI"
            f" {longest_mm:.4g} mm; check position_mm (millimetres?) and the MRI's voxel size"
        )
    if across_mm < _LEAST_PX * working_pixel_mm:
        raise ConfigError(
            f"align: prepare.working_pixel_mm {working_pixel_mm:g} is too coarse for sections"
            f" {across_mm:.3g} mm wide; {across_mm / _USUAL_PX:.1g} is usual for them"
        )


def read_stack(
    sections: Path, working_pixel_mm: float
) -> tuple[list[dict[str, Any]], list[StackSection]]:
    """Rows of `prepare`'s table, sorted by position, and their images.

    Raises
    ------
    ImageError
        Fewer than three usable sections.
    ConfigError
        A section that was prepared at another pixel size.
    """
    rows = sorted(read_table(sections), key=lambda r: r["position_mm"])
    if len(rows) < _MIN_SECTIONS:
        raise ImageError(
            f"{sections}: {len(rows)} usable sections, expected at least {_MIN_SECTIONS}"
        )
    other = [r for r in rows if abs(r["working_pixel_mm"] - working_pixel_mm) > 1e-9]
    if other:
        raise ConfigError(
            f"align: --working-pixel-mm {working_pixel_mm:g}, but section {other[0]['section']!r}"
            f" was prepared at {other[0]['working_pixel_mm']:g} mm"
        )
    return rows, [
        StackSection(
            row["section"],
            read_plane(file_of(sections, row, "_image.nii.gz"))[0],
            read_plane(file_of(sections, row, "_mask.nii.gz"))[0] > 0,
            row["position_mm"],
        )
        for row in rows
    ]


def read_brain(mri: Path, mri_mask: Path) -> Brain:
    """The MRI and its mask; ImageError where their shapes differ."""
    volume, mask = read_volume(mri), read_volume(mri_mask)
    if mask.data.shape != volume.data.shape:
        raise ImageError(
            f"{mri_mask}: shape {mask.data.shape} differs from the MRI's {volume.data.shape}"
        )
    return Brain(volume.data.astype(np.float32), mask.data > 0, volume.world_from_voxel)


def _propose_positions(
    options: AlignOptions,
    rows: list[dict[str, Any]],
    stack: list[StackSection],
    working_pixel_mm: float,
    brain: Brain,
    near: np.ndarray | None,
    out_dir: Path,
    orientation: str,
    progress: Callable[[str], None],
) -> NoReturn:
    """Estimate the scale along z, write it down, and end: the manifest decides."""
    progress("looking for the length of the stack")
    unit_mm, poses = spacing_of_order(
        stack,
        working_pixel_mm,
        brain,
        near=near,
        max_rotation_deg=options.max_rotation_deg,
        progress=progress,
    )
    # handedness is for the run with millimetres to ask
    verdict = replace(judge(poses), handedness_margin=np.inf)
    doubt = _doubt(verdict, options, orientation)
    if doubt:
        raise AlignmentError(f"align: positions: order: {doubt}")
    first = rows[0]["position_mm"]
    out_dir.mkdir(parents=True, exist_ok=True)
    write_tsv(
        out_dir / POSITIONS,
        [
            {"section": r["section"], "position_mm": round(unit_mm * (r["position_mm"] - first), 4)}
            for r in rows
        ],
    )
    raise AlignmentError(
        f"align: positions: order: one step is about {unit_mm:.3g} mm (of the MRI); take over"
        f" position_mm of {out_dir / POSITIONS} into the manifest and set positions: mm"
    )


def _letters(pose: Pose) -> str:
    return orientation_letters(nearest_orientation(pose.world_from_stack))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _doubt(verdict: Verdict, options: AlignOptions, orientation: str) -> str:
    """Why this start is not to be built on; empty where it is."""
    if verdict.explained < options.min_explained:
        return (
            f"the stack and the MRI do not come together: the best place explains"
            f" {verdict.explained:.0%} of the sections, expected at least"
            f" {options.min_explained:.0%} (min_explained); check orientation, position_mm,"
            " pixel_size_mm and the MRI"
        )
    if verdict.place_margin < options.min_margin:
        return (
            f"not sure where the stack lies: it fits as well elsewhere (margin"
            f" {verdict.place_margin:.1f}, expected {options.min_margin:g}, min_margin);"
            " give orientation, or a lower max_rotation_deg"
        )
    if verdict.handedness_margin < options.min_margin:
        assert verdict.mirror is not None
        one, other = _letters(verdict.best), _letters(verdict.mirror)
        return (
            f"handedness undetermined: {one} and its mirror image, {other}, fit alike (margin"
            f" {verdict.handedness_margin:.1f}, expected {options.min_margin:g}, min_margin);"
            f" give orientation instead of {orientation}"
        )
    return ""


def _draw_candidates(
    path: Path,
    stack: list[StackSection],
    working_pixel_mm: float,
    brain: Brain,
    verdict: Verdict,
    enlargement: float,
) -> None:
    """The best pose and its rivals below each other: the MRI as each has it, and the stack."""
    from matplotlib.figure import Figure

    affines = centred_affines(stack, working_pixel_mm)
    shown = [("best", verdict.best)]
    shown += [("elsewhere", verdict.rival)] if verdict.rival else []
    shown += [("mirrored", verdict.mirror)] if verdict.mirror else []
    figure = Figure(figsize=(13.5, 4 * (len(shown) + 1)), layout="constrained")
    for line, (name, pose) in enumerate(shown):
        as_found = StackAlignment(
            np.linalg.inv(pose.world_from_stack), PlaneGrid((1, 1), working_pixel_mm), affines
        )
        cuts = overview_cuts(stack, working_pixel_mm, brain, as_found, enlargement)
        what = f"{name}: {_letters(pose)}, explains {1 - pose.cost:.1%}"
        for column, cut in enumerate(cuts):
            axes = figure.add_subplot(len(shown) + 1, 3, line * 3 + column + 1)
            _draw_cut(axes, cut, "mri")
            axes.set_title(f"{what}; {cut['title']}")
            if line == 0:
                axes = figure.add_subplot(len(shown) + 1, 3, len(shown) * 3 + column + 1)
                _draw_cut(axes, cut, "stack")
                axes.set_title(f"stack; {cut['title']}")
    figure.suptitle("outline of the MRI's brain: cyan; of the sections' tissue: orange")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80)


def _draw_cut(axes: Any, cut: dict[str, Any], name: str) -> None:
    axes.imshow(cut[name], cmap="gray", extent=cut["extent_mm"], vmin=0)
    for mask, colour in (("mri_mask", "tab:cyan"), ("stack_mask", "tab:orange")):
        if cut[mask].any() and not cut[mask].all():
            axes.contour(
                cut[mask].astype(float), [0.5], colors=colour, linewidths=0.7,
                extent=cut["extent_mm"], origin="upper",
            )  # fmt: skip
    axes.set(xlabel=cut["x"], ylabel=cut["y"])


def _draw_overview(
    path: Path,
    stack: list[StackSection],
    working_pixel_mm: float,
    brain: Brain,
    found: StackAlignment,
    enlargement: float,
) -> None:
    """Three orthogonal cuts in stack space: MRI above, stack below, each with both outlines."""
    from matplotlib.figure import Figure

    cuts: list[dict[str, Any]] = overview_cuts(stack, working_pixel_mm, brain, found, enlargement)
    figure = Figure(figsize=(4.5 * len(cuts), 7.5), layout="constrained")
    for column, cut in enumerate(cuts):
        for line, name in enumerate(("mri", "stack")):
            axes = figure.add_subplot(2, len(cuts), line * len(cuts) + column + 1)
            _draw_cut(axes, cut, name)
            axes.set_title(f"{name}: {cut['title']}")
    figure.suptitle("outline of the MRI's brain: cyan; of the sections' tissue: orange")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90)
