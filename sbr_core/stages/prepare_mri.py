"""`prepare_mri`: a checked MRI and its brain mask, as everything later takes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from sbr_core.algorithms.levels import Level, level_of
from sbr_core.algorithms.masks import brain_mask
from sbr_core.algorithms.plausibility.sizes import length_of_brain
from sbr_core.algorithms.right_angles import on_right_angles
from sbr_core.artifacts.names import MRI_FACTS, MRI_MASK_VOLUME, MRI_VOLUME
from sbr_core.config import PrepareOptions
from sbr_core.errors import ImageError
from sbr_core.geometry import apply, shear_voxels
from sbr_core.io.provenance import write_provenance
from sbr_core.io.volumes import (
    MOST_SHEAR_VOXELS,
    Volume,
    read_mask,
    read_volume,
    write_volume,
)
from sbr_core.revisions import REVISION

logger = logging.getLogger(__name__)

_QUANTILES = (0.0, 0.01, 0.5, 0.99, 0.999, 1.0)
"""Recorded for a reader to see what range the brain has; nothing is computed from them."""


def run(options: PrepareOptions, *, mri: Path, out_dir: Path, mri_mask: Path | None = None) -> None:
    """Check the MRI and its mask, and write both as everything later takes them.

    Writes ``mri.nii.gz`` (float32), ``mri_mask.nii.gz`` (uint8) and the facts in ``mri.json``. The
    background is 0 and the tissue above it (`algorithms.levels`), lengths are millimetres, and the
    grid has right angles; an MRI that is so already keeps its values and its grid.

    Parameters
    ----------
    mri : the MRI, 3D NIfTI.
    out_dir : folder the results go to.
    mri_mask : its brain mask, on the same grid.

    Raises
    ------
    ImageError
        An MRI that is no finite 3D volume, a mask on another grid or without a voxel, or a brain
        longer than any.
    """
    volume = read_volume(mri)
    doubts = list(volume.doubts)
    inputs = {"mri": mri}
    if mri_mask is None:
        mask = brain_mask(volume.data)
    else:
        inputs["mri_mask"] = mri_mask
        mask = _given_mask(mri_mask, volume)
    if not mask.any():
        raise ImageError(f"{mri}: no brain found; give a mask (mri_mask)")
    doubts += _doubtful_size(mri, mask, volume)

    level = level_of(volume.data, mask)
    data, affine = level.applied(volume.data, mask), volume.world_from_voxel
    if not np.any(data[mask] > 0):
        raise ImageError(f"{mri}: has no signal in the brain's mask: one single value there")
    sheared = shear_voxels(affine, data.shape)
    if sheared > MOST_SHEAR_VOXELS:
        data, mask, affine = on_right_angles(data, mask, affine)
        doubts.append(
            f"its affine is sheared (by up to {sheared:.3g} voxels), which ITK cannot hold:"
            f" {MRI_VOLUME} is resampled to right angles, in the same place"
        )
    for doubt in doubts:
        logger.warning(f"prepare-mri: WARNING: {mri}: {doubt}")
    write_volume(out_dir / MRI_VOLUME, Volume(data, affine), summed=True)
    write_volume(out_dir / MRI_MASK_VOLUME, Volume(mask.astype(np.uint8), affine), summed=True)
    _write_facts(out_dir, options, inputs, Volume(data, affine), mask, level, doubts)


def _write_facts(
    out_dir: Path,
    options: PrepareOptions,
    inputs: Mapping[str, Path],
    written: Volume,
    mask: np.ndarray,
    level: Level,
    doubts: Sequence[str],
) -> None:
    """Write ``mri.json``.

    Parameters
    ----------
    inputs : the files that were read, by their names in it.
    written : the MRI as it is now, of which `mask` is the mask.
    level : what was taken off its values.
    doubts : what is doubtful about it, one sentence each; the page of the brain shows them.
    """
    affine = written.world_from_voxel
    quantiles = np.quantile(written.data[mask], _QUANTILES)
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    write_provenance(
        out_dir / MRI_FACTS,
        stage="prepare",
        options=options.model_dump(mode="json"),
        inputs=dict(inputs),
        revision=REVISION["prepare_mri"],
        shape=list(written.data.shape),
        spacing_mm=[float(s) for s in written.spacing_mm],
        orientation="".join(nib.aff2axcodes(affine)),
        mask="given" if "mri_mask" in inputs else "found",
        mask_mm3=float(np.count_nonzero(mask) * voxel_mm3),
        quantiles_in_mask={str(q): float(v) for q, v in zip(_QUANTILES, quantiles, strict=True)},
        value_taken_off=level.offset,
        sign_changed=level.sign < 0,
        times=level.scale,
        doubts=list(doubts),
    )


def _doubtful_size(mri: Path, mask: np.ndarray, volume: Volume) -> list[str]:
    """What is to be said of a brain's size, one sentence each.

    Raises
    ------
    ImageError
        It is longer than any.
    """
    fault, doubt = length_of_brain(mask, volume.spacing_mm, volume.unit_mm)
    if fault:
        raise ImageError(f"{mri}: {fault}")
    return [doubt] if doubt else []


def _given_mask(path: Path, volume: Volume) -> np.ndarray:
    """The user's mask as bool, on the grid of `volume`."""
    mask = read_mask(path, volume)
    corners = np.array([np.zeros(3), np.array(volume.data.shape) - 1])
    there = apply(volume.world_from_voxel, corners)
    # many tools keep the numbers of the MRI's header, and not its unit
    own = [apply(mask.world_from_voxel, corners) * mm for mm in (1.0, volume.unit_mm or 1.0)]
    # tools round differently: grids whose corners agree to 1 % of a voxel are the same
    if min(np.abs(mine - there).max() for mine in own) > 0.01 * volume.spacing_mm.min():
        raise ImageError(f"{path}: has the MRI's shape but another affine")
    return mask.data
