"""`sbr half-mask`: the mask of one hemisphere, for sections that show no more."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import numpy as np

from sbr_core.algorithms.masks import brain_mask
from sbr_core.algorithms.plausibility.halves import half_mask
from sbr_core.errors import ConfigError, ImageError
from sbr_core.io.volumes import Volume, read_mask, read_volume, write_volume

logger = logging.getLogger(__name__)

SIDES = ("left", "right")


def run(
    options: None,
    mri: Path,
    *,
    side: str,
    out: Annotated[Path, "-o"],
    mri_mask: Path | None = None,
) -> None:
    """Write the mask of one hemisphere of an MRI, to give as mri_mask.

    The midline is the plane that the brain is most symmetric about.

    Parameters
    ----------
    mri : the MRI, 3D NIfTI.
    side : left or right, of the brain.
    out : mask to write, NIfTI.
    mri_mask : mask of the whole brain (default: found by its brightness).

    Raises
    ------
    ConfigError
        Another side.
    ImageError
        No brain in the MRI, or a mask of another shape.
    """
    if side not in SIDES:
        raise ConfigError(f"--side: expected {' or '.join(SIDES)}, found {side!r}")
    volume = read_volume(mri)
    mask = brain_mask(volume.data) if mri_mask is None else read_mask(mri_mask, volume).data
    if not mask.any():
        raise ImageError(f"{mri}: no brain found; give a mask (--mri-mask)")
    half = half_mask(mask, volume.data, volume.world_from_voxel, side)
    write_volume(out, Volume(half.astype(np.uint8), volume.world_from_voxel))
    share = np.count_nonzero(half) / np.count_nonzero(mask)
    logger.info(f"half-mask: {out}: {share:.0%} of the brain, on its {side}")
