"""`prepare_mri`: a checked MRI and its brain mask, both on the MRI's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from sbr_core.algorithms.masks import brain_mask
from sbr_core.artifacts.names import MRI_FACTS, MRI_MASK_VOLUME, MRI_VOLUME
from sbr_core.config import PrepareOptions
from sbr_core.errors import ImageError
from sbr_core.geometry import apply
from sbr_core.io.provenance import write_provenance
from sbr_core.io.volumes import Volume, read_mask, read_volume, write_volume
from sbr_core.revisions import REVISION

_QUANTILES = (0.0, 0.01, 0.5, 0.99, 0.999, 1.0)
"""Recorded for a reader to see what range the brain has; nothing is computed from them."""


def run(options: PrepareOptions, *, mri: Path, out_dir: Path, mri_mask: Path | None = None) -> None:
    """Check the MRI and its mask.

    Writes ``mri.nii.gz`` (float32), ``mri_mask.nii.gz`` (uint8) and the facts in ``mri.json``.

    Parameters
    ----------
    mri : the MRI, 3D NIfTI.
    out_dir : folder the results go to.
    mri_mask : its brain mask, on the same grid.

    Raises
    ------
    ImageError
        An MRI that is no finite 3D volume, or a mask on another grid or without a voxel.
    """
    volume = read_volume(mri)
    inputs = {"mri": mri}
    if mri_mask is None:
        mask = brain_mask(volume.data)
    else:
        inputs["mri_mask"] = mri_mask
        mask = _given_mask(mri_mask, volume)
    if not mask.any():
        raise ImageError(f"{mri}: no brain found; give a mask (mri_mask)")

    affine = volume.world_from_voxel
    data = volume.data.astype(np.float32)
    write_volume(out_dir / MRI_VOLUME, Volume(data, affine))
    write_volume(out_dir / MRI_MASK_VOLUME, Volume(mask.astype(np.uint8), affine))
    quantiles = np.quantile(data[mask], _QUANTILES)
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    write_provenance(
        out_dir / MRI_FACTS,
        stage="prepare",
        options=options.model_dump(mode="json"),
        inputs=inputs,
        revision=REVISION["prepare_mri"],
        shape=list(data.shape),
        spacing_mm=[float(s) for s in volume.spacing_mm],
        orientation="".join(nib.aff2axcodes(affine)),
        mask="given" if mri_mask else "found",
        mask_mm3=float(np.count_nonzero(mask) * voxel_mm3),
        quantiles_in_mask={str(q): float(v) for q, v in zip(_QUANTILES, quantiles, strict=True)},
    )


def _given_mask(path: Path, volume: Volume) -> np.ndarray:
    """The user's mask as bool, on the grid of `volume`."""
    mask = read_mask(path, volume)
    # tools round differently: grids whose corners agree to 1 % of a voxel are the same
    last = np.array(volume.data.shape) - 1
    corners = np.array([np.zeros(3), last])
    apart = apply(mask.world_from_voxel, corners) - apply(volume.world_from_voxel, corners)
    if np.abs(apart).max() > 0.01 * volume.spacing_mm.min():
        raise ImageError(f"{path}: has the MRI's shape but another affine")
    return mask.data
