"""`sbr reassemble`: the histology as a 3D volume, on the MRI's grid or at a spacing asked for.

Every voxel goes through the whole chain to the image file, MRI world -> stack -> deformation ->
section affine -> file pixel, in each of the two sections around it, and is interpolated once,
from a level of the file prefiltered to the output spacing. Tissue is bright and the background 0,
linear in the channel that `prepare` found, whatever the stain; where staining jumps from section to
section, each is given a factor that brings it to its neighbours.

A prealigned brain has no 3D MRI. Its volume lies in stack space: the plane's grid, times positions
a median gap apart from the first section on, as far as the last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.algorithms import reassembly
from sbr_core.algorithms.evenness import evening_gains, has_jumps, log_ratio, section_levels
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Inferred, Prepared
from sbr_core.artifacts.section_signal import read_signal
from sbr_core.config import ReassembleOptions
from sbr_core.errors import ImageError
from sbr_core.geometry import Box, in_box
from sbr_core.io.images import read_labels
from sbr_core.io.provenance import write_provenance
from sbr_core.io.scratch import scratch_array
from sbr_core.io.sums import remove_summed
from sbr_core.io.transforms import read_section_transform
from sbr_core.io.volumes import Volume, read_plane, write_volume
from sbr_core.mapping.volume_frames import VolumeSections, remove_former

logger = logging.getLogger(__name__)


def run(
    options: ReassembleOptions,
    *,
    brain: str,
    method: str,
    sections: Path,
    prepared: Path,
    out_dir: Path,
    align_dir: Path | None = None,
    mri: Path | None = None,
    stain_group: str | None = None,
    rejected: Sequence[str] | None = None,
) -> None:
    """Build the 3D histology volume in the space of the MRI.

    Writes the volume, its coverage, its labels if the sections have any, and provenance.

    Parameters
    ----------
    brain : name of the brain.
    method : name of the method.
    sections : table of infer; sections that failed leave a gap.
    prepared : table written by prepare.
    out_dir : folder the results go to.
    align_dir : folder written by align; not of a prealigned brain.
    mri : MRI written by prepare-mri; not of a prealigned brain.
    stain_group : sections of the manifest's stain_group that it is made of (default: of those
        of none).
    rejected : sections that leave a gap too, since the user rejected them.

    Raises
    ------
    ConfigError
        One of `align_dir` and `mri` without the other, or a stain group of no section.
    ReceiptError
        No section could be used.
    ImageError
        A section's file is no longer what `prepare` saw.
    """
    group = stain_group or ""
    made_of = VolumeSections.of(
        options, "reassemble", sections, prepared, align_dir, mri, group, rejected or ()
    )
    frame, rows, used = made_of.frame, made_of.rows, made_of.sources
    space, shape, stack_from_voxel = frame.space, frame.shape, frame.stack_from_voxel
    gains = _gains(options, rows)
    with_labels = any(source.labels for source in used)
    levels = reassembly.LevelCache(
        lambda i: load_level(rows[i], used[i], frame.spacing_mm, with_labels, gains[i]),
        options.cache_mib * 2**20,
    )

    arrays = scratch_arrays(out_dir, shape, with_labels)
    _fill(out_dir, arrays, shape, stack_from_voxel, made_of.stack, levels, options)
    # of a time when the sections had labels
    remove_summed(names.volume_file(out_dir, brain, space, "labels", group))
    for kind, array in arrays.items():
        path = names.volume_file(out_dir, brain, space, kind, group)
        write_volume(path, Volume(array, frame.world_from_voxel), summed=True)
    found = names.volume_groups(out_dir, brain, space)
    remove_former(partial(_remove, out_dir, brain, space), found, prepared)
    covered = float(np.mean([np.mean(layer >= 0) for layer in arrays["coverage"]]))
    write_provenance(
        names.volume_facts(out_dir, brain, space, group),
        stage="reassemble",
        options=options.model_dump(mode="json"),
        inputs=made_of.inputs,
        covered_percent=round(100 * covered, 3),
        **({"bridged_coverage": reassembly.BRIDGED_COVERAGE} if any(made_of.stack.bridged) else {}),
        brain=brain,
        method=method,
        space=space,
        **({"stain_group": group} if group else {}),
        **({"rejected": made_of.rejected} if made_of.rejected else {}),
        sections=[row.section for row in rows],
        empty_coverage=reassembly.EMPTY_COVERAGE,
        intensity="tissue bright, background 0, linear in the channel of each section",
        channels=sorted({source.channel for source in used}),
        gains=[round(float(gain), 4) for gain in gains],
    )


def _remove(out_dir: Path, brain: str, space: str, group: str) -> None:
    """Remove the volumes of a stain group."""
    for kind in ("histology", "coverage", "labels"):
        remove_summed(names.volume_file(out_dir, brain, space, kind, group))
    names.volume_facts(out_dir, brain, space, group).unlink(missing_ok=True)


def _gains(options: ReassembleOptions, rows: Sequence[Inferred]) -> np.ndarray:
    """(n,) factor of each section's intensity."""
    if options.even_sections != "never":
        levels = staining_levels(rows)
        if options.even_sections == "always" or has_jumps(levels):
            return evening_gains(levels, np.array([row.position_mm for row in rows]))
    return np.ones(len(rows))


def load_level(
    row: Inferred, source: Prepared, spacing_mm: float, with_labels: bool, gain: float = 1.0
) -> reassembly.Level:
    """A section's file at the output spacing.

    Parameters
    ----------
    spacing_mm : of the output, stack mm.
    gain : factor of the intensity.

    Raises
    ------
    ImageError
        The file's shape is not the one `prepare` saw.
    """
    signal = read_signal(source, spacing_mm)
    if signal.file_shape != source.file_shape:
        raise ImageError(
            f"{source.image}: shape {signal.file_shape}, but prepare saw {source.file_shape}"
        )
    labels = None
    if with_labels and source.labels:
        labels = in_box(read_labels(Path(source.labels), signal.file_shape), source.box)
    return reassembly.Level(
        signal.pixels if gain == 1 else signal.pixels * np.float32(gain),
        source.pixel_size_mm,
        spacing_mm,
        read_section_transform(row.file(names.SECTION_TO_STACK)).map,
        labels,
        source.box or Box.whole(signal.file_shape),
        signal.step,
    )


def staining_levels(rows: Sequence[Inferred]) -> np.ndarray:
    """(n,) logarithm of how strongly each section is stained; see `section_levels`.

    Parameters
    ----------
    rows : sorted by position.
    """
    links, before = [], []
    for index, row in enumerate(rows):
        image = read_plane(row.intact(names.REGISTERED))[0]
        # the next but one as well, so that one torn section does not cut the stack in two
        for back, earlier in enumerate(reversed(before), 1):
            if earlier.shape == image.shape:
                links.append((index - back, index, *log_ratio(earlier, image)))
        before = [*before, image][-2:]
    return section_levels(len(rows), links)


def scratch_arrays(
    folder: Path, shape: tuple[int, int, int], with_labels: bool
) -> dict[str, np.ndarray]:
    """The volumes being filled, on disk, so that memory holds a slab and not the volume."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, Any] = {"histology": np.float32, "coverage": np.float32}
    if with_labels:
        kinds["labels"] = np.uint16
    return {name: scratch_array(folder, dtype, shape) for name, dtype in kinds.items()}


def _fill(
    folder: Path,
    arrays: dict[str, np.ndarray],
    shape: tuple[int, int, int],
    stack_from_voxel: np.ndarray,
    stack: reassembly.Stack,
    levels: reassembly.LevelCache,
    options: ReassembleOptions,
) -> None:
    """Fill the arrays slab by slab; labels become the narrowest of uint8 to int64 that fits."""
    parts = list(reassembly.slabs(shape, stack_from_voxel, options.slab_voxels))
    began = time.monotonic()
    largest = 0
    for number, part in enumerate(parts, 1):
        histology, coverage, labels = reassembly.fill_slab(
            part,
            shape,
            stack_from_voxel,
            stack,
            levels,
            interpolation=options.interpolation,
            with_labels="labels" in arrays,
        )
        arrays["histology"][part], arrays["coverage"][part] = histology, coverage
        if labels is not None:
            largest = max(largest, int(labels.max()))
            if largest > np.iinfo(arrays["labels"].dtype).max:
                arrays["labels"] = _as_type(
                    folder, arrays["labels"], parts[: number - 1], _type_of(largest)
                )
            arrays["labels"][part] = labels
        left_s = (time.monotonic() - began) / number * (len(parts) - number)
        logger.info(f"reassemble: slab {number}/{len(parts)}, {left_s:.0f} s left")
    if "labels" in arrays and largest < 256:
        arrays["labels"] = _as_type(folder, arrays["labels"], parts, np.uint8)


def _type_of(largest: int) -> type[np.integer]:
    """The narrowest type of a label volume that holds an id, of those that all programs read."""
    types = np.uint8, np.uint16, np.int32, np.int64
    return next(t for t in types if largest <= np.iinfo(t).max)


def _as_type(
    folder: Path, array: np.ndarray, parts: Sequence[tuple[slice, ...]], dtype: type[np.integer]
) -> np.ndarray:
    """A copy on disk of those parts of an array that are filled."""
    copy = scratch_array(folder, dtype, array.shape)
    for part in parts:
        copy[part] = array[part]
    return copy
