"""`sbr reassemble-colour`: the sections as one 3D volume, in their own colours and channels.

The grid is that of `reassemble`, and so is what is filled of it. Samples are those of the files,
each voxel interpolated once in the two sections around it; where there is no section they are 0.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
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
        A section's file is no longer what `prepare` saw, or has other channels than others.
    """
    group = stain_group or ""
    made_of = VolumeSections.of(
        options, "reassemble-colour", sections, prepared, align_dir, mri, group, rejected or ()
    )
    frame = made_of.frame
    kind = kind_of(made_of.sources or made_of.of_brain)
    out_dir.mkdir(parents=True, exist_ok=True)
    # as it is written: position or k slowest, channels fastest
    out = scratch_array(out_dir, kind.dtype, (*frame.shape[::-1], kind.channels), "C")
    parts = list(reassembly.slabs(frame.shape, frame.stack_from_voxel, options.slab_voxels))
    began = time.monotonic()
    with OpenSections(made_of.rows, made_of.sources, options.cache_mib * 2**20) as open_sections:
        for number, part in enumerate(parts, 1):
            filled = fill_part(
                part, frame, made_of.stack, open_sections.__getitem__, kind, options.interpolation
            )
            out[part[::-1]] = np.swapaxes(filled, 0, 2)
            let_go(out)
            left_s = (time.monotonic() - began) / number * (len(parts) - number)
            logger.info(f"reassemble-colour: slab {number}/{len(parts)}, {left_s:.0f} s left")
    path = names.colour_file(out_dir, brain, frame.space, options.format, group)
    remove = partial(_remove, out_dir, brain, frame.space)
    remove(group, but=path)  # of another format, asked for before
    found = names.volume_groups(out_dir, brain, frame.space, "_colour.json")
    remove_former(remove, found, prepared)
    write_colour_volume(
        path if path.parent == out_dir else path.parent,
        out,
        frame.world_from_voxel,
        photometric=kind.photometric,
        names=kind.names,
        space=frame.space,
    )
    write_provenance(
        names.colour_facts(out_dir, brain, frame.space, group),
        stage="reassemble_colour",
        options=options.model_dump(mode="json", exclude={"colour", "even_sections"}),
        inputs=made_of.inputs,
        brain=brain,
        method=method,
        space=frame.space,
        **({"stain_group": group} if group else {}),
        **({"rejected": made_of.rejected} if made_of.rejected else {}),
        sections=[row.section for row in made_of.rows],
        channels=kind.channels,
        intensity="as in the files of the sections; 0 where there is none",
    )


def _remove(out_dir: Path, brain: str, space: str, group: str, but: Path | None = None) -> None:
    """Remove the volumes of a stain group, in every format but that of the file `but`."""
    for kind in names.COLOUR_ENDINGS:
        old = names.colour_file(out_dir, brain, space, kind, group)
        if old != but:
            remove_tree(old.parent) if old.parent != out_dir else remove_summed(old)
    if but is None:
        names.colour_facts(out_dir, brain, space, group).unlink(missing_ok=True)
