"""NIfTI volumes, and planes as 2D NIfTI that ITK reads in plane millimetres."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from sbr_core.errors import ImageError
from sbr_core.geometry import nifti_affine_of_plane, shear_voxels
from sbr_core.io.files import atomic_path
from sbr_core.io.frames import frame_of, has_volume
from sbr_core.io.mri_formats import load_mri
from sbr_core.io.nifti import open_nifti
from sbr_core.io.sums import check_sum, summed_path

MOST_SHEAR_VOXELS = 0.01
"""Shear that passes for rounding: it moves no voxel by more of its smallest side."""


@dataclass(frozen=True)
class Volume:
    """A 3D array and where it lies.

    Attributes
    ----------
    data : [i, j, k].
    world_from_voxel : (4, 4) float64, voxel index to RAS+ world mm.
    doubts : what is doubtful about where it lies, as of `frames.Frame`.
    unit_mm : that of the file's header, as of `frames.Frame`.
    """

    data: np.ndarray
    world_from_voxel: np.ndarray
    doubts: tuple[str, ...] = ()
    unit_mm: float | None = 1.0

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel side along i, j, k."""
        return np.linalg.norm(self.world_from_voxel[:3, :3], axis=0)


def read_volume(path: Path) -> Volume:
    """A 3D volume of finite values that are not all zero, in the millimetres of its header's unit.

    Of a NIfTI, or of another format that `load_mri` reads.

    Raises
    ------
    ImageError
        Missing, unreadable, 2D, 4D, all zero, not finite, or with a singular affine.
    """
    image, data = load_mri(path)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or min(data.shape) < 2:
        raise ImageError(f"{path}: expected a 3D volume, found shape {image.shape}")
    if data.dtype.kind not in "buif":
        raise ImageError(f"{path}: expected one number per voxel, found {data.dtype} values")
    if not np.isfinite(data).all():
        raise ImageError(f"{path}: has values that are not finite (NaN or infinity)")
    if not data.any():
        raise ImageError(f"{path}: is all zero")
    frame = frame_of(image)
    if not has_volume(frame.world_from_voxel):
        raise ImageError(f"{path}: its affine is singular, so voxels have no place in the world")
    return Volume(data, frame.world_from_voxel, frame.doubts, frame.unit_mm)


def read_mask(path: Path, volume: Volume) -> Volume:
    """A mask of a volume: true above 0.

    Raises
    ------
    ImageError
        As `read_volume`, or of another shape than the volume.
    """
    return as_mask(path, read_volume(path), volume)


def as_mask(path: Path, mask: Volume, volume: Volume) -> Volume:
    """What was read from `path` as `read_mask` gives it; ImageError where its shape is another."""
    if mask.data.shape != volume.data.shape:
        raise ImageError(
            f"{path}: shape {mask.data.shape} differs from the MRI's {volume.data.shape}"
        )
    return replace(mask, data=mask.data > 0)


def write_volume(path: Path, volume: Volume, *, summed: bool = False) -> None:
    """Write a volume with its affine as both sform and qform code 1, units mm.

    A qform cannot hold shear: of an affine that has some it is written with code 0, which says
    that it is none, so that ITK refuses the file instead of showing it in another place.

    Parameters
    ----------
    summed : record its sum, of a volume that is not the user's to change.
    """
    affine = volume.world_from_voxel
    # named, for nibabel takes 64-bit integers for a slip
    image = nib.Nifti1Image(volume.data, affine, dtype=volume.data.dtype)
    image.set_sform(affine, 1)
    has_shear = shear_voxels(affine, volume.data.shape) > MOST_SHEAR_VOXELS
    image.set_qform(affine, 0 if has_shear else 1)
    image.header.set_xyzt_units("mm")
    with (summed_path if summed else atomic_path)(path) as temporary:
        nib.save(image, temporary)


def write_field(path: Path, disp_lps_mm: np.ndarray, world_from_voxel: np.ndarray) -> None:
    """Write a field of displacements as ANTs and ITK read it.

    That is NIfTI of five dimensions with intent 1007 (vector), whose vectors are LPS though its
    affine is RAS, as everywhere in NIfTI.

    Parameters
    ----------
    disp_lps_mm : [i, j, k, component], mm.
    world_from_voxel : (4, 4), voxel index to RAS+ mm, without shear.
    """
    image = nib.Nifti1Image(disp_lps_mm[..., None, :].astype(np.float32), world_from_voxel)
    image.set_sform(world_from_voxel, 1)
    image.set_qform(world_from_voxel, 1)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def mri_grid(mri: Volume, spacing_mm: float | None) -> tuple[tuple[int, int, int], np.ndarray]:
    """(shape, world_from_voxel) of the MRI, or of its field of view at another spacing.

    The outer edges are kept at the low ends and reached at least at the high ends; so are the
    axes, in the MRI's own order.
    """
    if spacing_mm is None:
        return mri.data.shape, mri.world_from_voxel
    ratio = spacing_mm / mri.spacing_mm
    shape = tuple(
        max(1, math.ceil(n / r - 1e-6)) for n, r in zip(mri.data.shape, ratio, strict=True)
    )
    mri_from_voxel = np.diag([*ratio, 1.0])
    mri_from_voxel[:3, 3] = (ratio - 1) / 2
    return shape, mri.world_from_voxel @ mri_from_voxel


@dataclass(frozen=True)
class Cut:
    """One layer of voxels as a picture: superior or anterior up, right on the right.

    Attributes
    ----------
    image : (rows, columns).
    pixel_mm : (height, width).
    """

    image: np.ndarray
    pixel_mm: tuple[float, float]


def read_cuts(path: Path, world_mm: np.ndarray | None = None) -> tuple[Cut, Cut, Cut]:
    """Three layers of a volume, of which only these are read into memory.

    Parameters
    ----------
    world_mm : (3,) point they go through, RAS mm; None for the middle of the grid.

    Returns
    -------
    the layers closest to sagittal, coronal and axial.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    check_sum(path)
    try:
        image = open_nifti(path)
        affine = np.asarray(image.affine, float)
        voxel = (np.array(image.shape) - 1) / 2
        if world_mm is not None:
            voxel = (np.linalg.inv(affine) @ [*world_mm, 1.0])[:3]
        voxel = np.clip(np.round(voxel), 0, np.array(image.shape) - 1).astype(int)
        spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
        world_axis, sign = nib.io_orientation(affine).T.astype(int)
        cuts = []
        for normal in range(3):
            across, up = (int(np.flatnonzero(world_axis == a)[0]) for a in range(3) if a != normal)
            (layer_axis,) = {0, 1, 2} - {across, up}
            index = tuple(int(voxel[a]) if a == layer_axis else slice(None) for a in range(3))
            layer = np.asarray(image.dataobj[index])
            if across < up:  # what is left has its axes in the file's order
                layer = layer.T
            layer = layer[:: -sign[up], :: sign[across]]
            cuts.append(
                Cut(np.ascontiguousarray(layer), (float(spacing_mm[up]), float(spacing_mm[across])))
            )
    except ImageError:
        raise
    except Exception as error:  # nibabel and zlib raise whatever they like
        raise ImageError(f"{path}: not readable as a 3D NIfTI: {error}") from error
    return tuple(cuts)


def write_plane(
    path: Path, array: np.ndarray, spacing_mm: float, origin_mm: tuple[float, float] = (0.0, 0.0)
) -> None:
    """Write [row, column] or [row, column, component] as 2D NIfTI with affine diag(-s, -s, 1).

    ITK reads pixel (column, row) at (x, y) = origin_mm + (column, row) * spacing_mm, plane mm.
    Components go to NIfTI's fifth axis, as vector images do.
    """
    data = np.swapaxes(array, 0, 1)
    if data.ndim == 3:
        data = data[:, :, None, None, :]
    affine = nifti_affine_of_plane(spacing_mm)
    affine[:2, 3] = -np.asarray(origin_mm)
    image = nib.Nifti1Image(np.ascontiguousarray(data), affine, dtype=data.dtype)
    if data.ndim == 5:
        image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def read_plane(path: Path) -> tuple[np.ndarray, float]:
    """([row, column] or [row, column, component] array, spacing in mm) of `write_plane`."""
    image, data = load_mri(path)
    if data.ndim == 5:
        data = data[:, :, 0, 0, :]
    if data.ndim == 3 and data.shape[2] == 1:
        data = data[..., 0]
    if data.ndim not in (2, 3):
        raise ImageError(f"{path}: expected a plane, found shape {image.shape}")
    return np.ascontiguousarray(np.swapaxes(data, 0, 1)), float(abs(image.affine[0, 0]))
