"""`sbr reassemble-colour`: the sections as one 3D volume, in their own colours and channels.

The grid is that of `reassemble`, and so is what is filled of it. Samples are those of the files,
each voxel interpolated once in the two sections around it; where there is no section they are 0.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from sbr_core.algorithms import reassembly
from sbr_core.artifacts import names
from sbr_core.config import ReassembleOptions
from sbr_core.io.colour_volumes import write_colour_volume
from sbr_core.io.files import remove_tree
from sbr_core.io.provenance import write_provenance
from sbr_core.io.scratch import let_go, scratch_array
from sbr_core.io.sums import remove_summed
from sbr_core.mapping.colours import OpenSections, fill_part, kind_of
from sbr_core.mapping.volume_frames import VolumeFrame, sections_of_volume

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
) -> None:
    """Build the 3D volume of the sections in their own colours and channels.

    Parameters
    ----------
    brain : name of the brain.
    method : name of the method.
    sections : table of infer; sections that failed leave a gap.
    prepared : table written by prepare.
    out_dir : folder the results go to.
    align_dir : folder written by align; not of a prealigned brain.
    mri : MRI written by prepare-mri; not of a prealigned brain.

    Raises
    ------
    ConfigError
        One of `align_dir` and `mri` without the other.
    ReceiptError
        No section could be used.
    ImageError
        A section's file is no longer what `prepare` saw, or has other channels than others.
    """
    rows, used = sections_of_volume(sections, prepared, align_dir, mri, "reassemble-colour")
    frame = VolumeFrame.of(rows, options.spacing_mm, align_dir, mri)
    kind = kind_of(used)
    stack = reassembly.Stack.of(
        [row.position_mm for row in rows], options.max_gap_mm, rows[0].grid.spacing_mm
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    # as it is written: position or k slowest, channels fastest
    out = scratch_array(out_dir, kind.dtype, (*frame.shape[::-1], kind.channels), "C")
    parts = list(reassembly.slabs(frame.shape, frame.stack_from_voxel, options.slab_voxels))
    began = time.monotonic()
    with OpenSections(rows, used, options.cache_mib * 2**20) as open_sections:
        for number, part in enumerate(parts, 1):
            filled = fill_part(
                part, frame, stack, open_sections.__getitem__, kind, options.interpolation
            )
            out[part[::-1]] = np.swapaxes(filled, 0, 2)
            let_go(out)
            left_s = (time.monotonic() - began) / number * (len(parts) - number)
            logger.info(f"reassemble-colour: slab {number}/{len(parts)}, {left_s:.0f} s left")
    path = names.colour_file(out_dir, brain, frame.space, options.format)
    for other in names.COLOUR_ENDINGS:  # of another format, asked for before
        old = names.colour_file(out_dir, brain, frame.space, other)
        if old != path:
            remove_tree(old.parent) if old.parent != out_dir else remove_summed(old)
    write_colour_volume(
        path if path.parent == out_dir else path.parent,
        out,
        frame.world_from_voxel,
        photometric=kind.photometric,
        names=kind.names,
        space=frame.space,
    )
    write_provenance(
        names.colour_facts(out_dir, brain, frame.space),
        stage="reassemble_colour",
        options=options.model_dump(mode="json", exclude={"colour", "even_sections"}),
        inputs={"sections": sections, "prepared": prepared} | frame.inputs,
        brain=brain,
        method=method,
        space=frame.space,
        sections=[row.section for row in rows],
        channels=kind.channels,
        intensity="as in the files of the sections; 0 where there is none",
    )
