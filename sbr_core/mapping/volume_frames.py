"""Where the voxels of a brain's volume lie, and of which sections it is made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbr_core.algorithms.reassembly import Stack
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Inferred, Prepared, read_rows, sections_lost
from sbr_core.config import ReassembleOptions
from sbr_core.errors import ConfigError, ReceiptError, some_of
from sbr_core.geometry import LPS_FROM_RAS, stack_grid
from sbr_core.io.transforms import read_stack_from_world
from sbr_core.io.volumes import mri_grid, read_volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VolumeFrame:
    """The grid of a volume, in the space of the MRI or, without one, of the stack.

    Attributes
    ----------
    space : ``mri``, or ``stack`` of a prealigned brain.
    shape : voxels along i, j, k.
    world_from_voxel, stack_from_voxel : (4, 4), to mm.
    spacing_mm : the finest of a voxel's sides that sections are sampled at, stack mm, so that
        nothing the grid can show is blurred away.
    only_gap_mm : what a section by itself fills of the stack, mm: the median gap of all sections
        of the brain, or the plane's pixel where it has one section alone.
    inputs : name -> file that it follows from.
    """

    space: str
    shape: tuple[int, int, int]
    world_from_voxel: np.ndarray
    stack_from_voxel: np.ndarray
    spacing_mm: float
    only_gap_mm: float
    inputs: dict[str, Path]

    @classmethod
    def of(
        cls,
        rows: Sequence[Inferred],
        spacing_mm: float | None,
        align_dir: Path | None,
        mri: Path | None,
    ) -> VolumeFrame:
        """That of the MRI's grid, or of another spacing.

        Parameters
        ----------
        rows : sorted by position.
        align_dir : folder written by align; None of a prealigned brain.
        mri : MRI written by prepare-mri; None of a prealigned brain.
        """
        if mri is None:
            grids, positions_mm = [row.grid for row in rows], [row.position_mm for row in rows]
            shape, stack_from_voxel = stack_grid(grids, positions_mm, spacing_mm)
            world_from_voxel = LPS_FROM_RAS @ stack_from_voxel
            stack_from_world, inputs = LPS_FROM_RAS, {}  # ITK reads stack mm from the file
        else:
            inputs = {"mri": mri, "stack_from_mri": align_dir / names.STACK_TRANSFORM}
            stack_from_world = read_stack_from_world(inputs["stack_from_mri"])
            shape, world_from_voxel = mri_grid(read_volume(mri), spacing_mm)
        stack_from_voxel = stack_from_world @ world_from_voxel
        axes = slice(0, 2) if mri is None else slice(0, 3)
        return cls(
            space="stack" if mri is None else "mri",
            shape=shape,
            world_from_voxel=world_from_voxel,
            stack_from_voxel=stack_from_voxel,
            spacing_mm=float(np.linalg.norm(stack_from_voxel[:3, axes], axis=0).min()),
            only_gap_mm=median_gap_mm(rows),
            inputs=inputs,
        )


@dataclass(frozen=True)
class VolumeSections:
    """What a volume is made of.

    Attributes
    ----------
    rows, sources : rows of `infer` and of `prepare` of its sections, sorted by position.
    of_brain : rows of `prepare` of all sections of the brain.
    rejected : sections that it would be made of too, and that the user rejected.
    inputs : name -> file that it follows from.
    """

    frame: VolumeFrame
    stack: Stack
    rows: list[Inferred]
    sources: list[Prepared]
    of_brain: list[Prepared]
    rejected: list[str]
    inputs: dict[str, Path]

    @classmethod
    def of(
        cls,
        options: ReassembleOptions,
        stage: str,
        sections: Path,
        prepared: Path,
        align_dir: Path | None,
        mri: Path | None,
        group: str,
        rejected: Collection[str],
    ) -> VolumeSections:
        """Those of a stain group of a brain; parameters and errors as of what it calls.

        The grid is that of all sections, rejected or not; ReceiptError where all are.
        """
        rows, of_brain = _sections_of_volume(sections, prepared, align_dir, mri, stage)
        frame = VolumeFrame.of(rows, options.spacing_mm, align_dir, mri)
        every_mm = [row.position_mm for row in rows if row.section not in rejected]
        rows, sources = _of_stain_group(group, rows, of_brain, prepared, stage)
        left_out = [row.section for row in rows if row.section in rejected]
        if left_out:
            logger.info(f"{stage}: without {len(left_out)} rejected sections: {some_of(left_out)}")
            sources = [
                s for s, row in zip(sources, rows, strict=True) if row.section not in rejected
            ]
            rows = [row for row in rows if row.section not in rejected]
        if not every_mm:
            raise ReceiptError(f"{sections}: all sections are rejected: there is none for a volume")
        stack = Stack.of(
            [row.position_mm for row in rows],
            options.max_gap_mm,
            frame.only_gap_mm,
            every_mm,
            bridge=options.fill == "interpolate",
        )
        inputs = {"sections": sections, "prepared": prepared} | frame.inputs
        return cls(frame, stack, rows, sources, of_brain, left_out, inputs)


def median_gap_mm(rows: Sequence[Inferred]) -> float:
    """Median gap of sections sorted by position; of a single one its plane's pixel."""
    if len(rows) < 2:
        return rows[0].grid.spacing_mm
    return float(np.median(np.diff([row.position_mm for row in rows])))


def _of_stain_group(
    group: str, rows: list[Inferred], used: list[Prepared], prepared: Path, stage: str
) -> tuple[list[Inferred], list[Prepared]]:
    """Those of the sections of `_sections_of_volume` that are of a stain group.

    There may be none, where all of the group failed; then its volume is empty, which is warned of.

    Parameters
    ----------
    group : '' for sections of none.
    prepared : table written by prepare.
    stage : whose messages these are.

    Raises
    ------
    ConfigError
        No section of the brain is of this group.
    """
    kept = [index for index, source in enumerate(used) if source.stain_group == group]
    if not kept:
        known, unknown = _stain_groups(prepared)
        name = f"stain group {group!r}" if group else "no stain group"
        if group not in known and not unknown:
            there = ", ".join(sorted(known - {""}) + ["none"] * ("" in known))
            raise ConfigError(f"{stage}: --stain-group: no section is of {name}; found {there}")
        logger.warning(f"{stage}: WARNING: sections of {name} all failed: its volume is empty")
    return [rows[index] for index in kept], [used[index] for index in kept]


def remove_former(remove: Callable[[str], None], found: Iterable[str], prepared: Path) -> None:
    """Remove volumes of stain groups that no section is of any more.

    Parameters
    ----------
    remove : removes the files of a group.
    found : groups that have some.
    prepared : table written by prepare; while a section of it failed, nothing is removed, for it
        may be of any group.
    """
    known, unknown = _stain_groups(prepared)
    for group in () if unknown else set(found) - known:
        remove(group)


def _stain_groups(prepared: Path) -> tuple[set[str], bool]:
    """Stain groups of sections, and whether there are sections, which failed, of unknown ones."""
    rows = read_rows(prepared, Prepared, only_ok=False, verify=False)
    return {r.stain_group for r in rows if isinstance(r, Prepared)}, not all(r.ok for r in rows)


def _sections_of_volume(
    sections: Path, prepared: Path, align_dir: Path | None, mri: Path | None, stage: str
) -> tuple[list[Inferred], list[Prepared]]:
    """The sections' rows of `infer` and of `prepare`, sorted by position.

    Parameters
    ----------
    sections : table of infer; sections that failed leave a gap.
    prepared : table written by prepare.
    align_dir, mri : as of `VolumeFrame.of`.
    stage : whose messages these are.

    Raises
    ------
    ConfigError
        One of `align_dir` and `mri` without the other.
    ReceiptError
        No section could be used.
    """
    if (align_dir is None) != (mri is None):
        raise ConfigError(f"{stage}: --align-dir and --mri are given together or not at all")
    rows = read_rows(sections, Inferred, verify=(names.SECTION_TO_STACK,))
    sources = {row.section: row for row in read_rows(prepared, Prepared, verify=False)}
    if lost := sections_lost(sections, prepared):
        logger.warning(f"{stage}: WARNING: {lost}")
    if not rows:
        raise ReceiptError(f"{sections}: no section to make a volume of")
    for row in rows:
        if row.section not in sources:
            raise ReceiptError(f"{prepared}: section {row.section!r} is not in it")
    rows = sorted(rows, key=lambda row: row.position_mm)
    return rows, [sources[row.section] for row in rows]
