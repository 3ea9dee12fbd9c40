"""Volumes of several channels or colours, as NIfTI, OME-TIFF with a pyramid, or OME-Zarr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.io.blocks import halved
from sbr_core.io.ome_zarr import Region, Streamed, is_ome_zarr, write_ome_zarr
from sbr_core.io.scratch import let_go, scratch_array
from sbr_core.io.sums import summed_path
from sbr_core.io.volumes import Volume, write_volume

RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
"""NIfTI's colours."""
_TILE = 256
_SMALLEST = 512
"""Longest side of the coarsest level of a TIFF, at most."""
_LAYERS_AT_ONCE = 16


def write_colour_volume(
    path: Path,
    array: np.ndarray,
    world_from_voxel: np.ndarray,
    *,
    photometric: str,
    names: Sequence[str] = (),
    space: str = "mri",
) -> None:
    """Write a volume, whole or not at all.

    Parameters
    ----------
    path : ``.nii.gz``, ``.ome.tif`` or, a folder, ``.ome.zarr``.
    array : (k, j, i, channels); it may lie on disk.
    world_from_voxel : (4, 4), voxel (i, j, k) to RAS+ mm of the space. NIfTI has it; OME-Zarr and
        OME-TIFF know no turned axes, so they have lengths along i, j, k, and it is among what an
        OME-Zarr says of itself.
    photometric : ``rgb``, or ``minisblack`` of channels.
    space : what it is the world of.

    Raises
    ------
    StorageError
        The disk is full, or may not be written to.
    """
    spacing_mm = np.linalg.norm(world_from_voxel[:3, :3], axis=0)[::-1]
    name = path.name.lower()
    if is_ome_zarr(path):
        facts = {"space": space, "ras_mm_from_ijk": np.asarray(world_from_voxel).tolist()}
        shape = (array.shape[3], *array.shape[:3])
        image = Streamed(
            shape, array.dtype, tuple(spacing_mm.tolist()), photometric, names, facts=facts
        )

        def read(region: Region) -> np.ndarray:
            block = np.moveaxis(array[region[1:]], -1, 0).copy()
            let_go(array)
            return block

        write_ome_zarr(path, image, read)
    elif name.endswith((".tif", ".tiff")):
        _write_tiff(path, array, spacing_mm, photometric, names)
    else:
        write_volume(path, Volume(as_nifti(array, photometric), world_from_voxel), summed=True)


def as_nifti(array: np.ndarray, photometric: str) -> np.ndarray:
    """(i, j, k), of 8 bits of colour as NIfTI has them, or (i, j, k, channels); a view.

    Parameters
    ----------
    array : (k, j, i, channels), where RGB has no opacity.
    """
    if photometric == "rgb" and array.dtype == np.uint8:
        return array.view(RGB24)[..., 0].T
    return array[..., 0].T if array.shape[3] == 1 else np.moveaxis(array, (2, 1, 0), (0, 1, 2))


def _write_tiff(
    path: Path,
    array: np.ndarray,
    spacing_mm: np.ndarray,
    photometric: str,
    names: Sequence[str],
) -> None:
    """OME-TIFF, each layer with a pyramid of its own: layers are as many in every level."""
    import tifffile

    is_rgb = photometric == "rgb"
    levels = [array]
    while max(levels[-1].shape[1:3]) > _SMALLEST:
        levels.append(_halved(path.parent, levels[-1]))
    metadata: dict[str, Any] = {"axes": "ZYXS" if is_rgb else "CZYX"}
    for axis, mm in zip("ZYX", spacing_mm, strict=True):
        metadata |= {f"PhysicalSize{axis}": float(mm) * 1000, f"PhysicalSize{axis}Unit": "µm"}
    if len(names) == array.shape[3] and not is_rgb:
        metadata["Channel"] = {"Name": list(names)}
    how = {"photometric": photometric, "tile": (_TILE, _TILE), "compression": "zlib"}
    how["predictor"] = array.dtype.kind in "ui" and array.dtype.itemsize <= 4
    with (
        summed_path(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=array.nbytes > 1 << 31, ome=True) as tiff,
    ):
        for number, level in enumerate(levels):
            shape = level.shape if is_rgb else (level.shape[3], *level.shape[:3])
            tiff.write(
                _tiles(level, is_rgb),
                shape=shape,
                dtype=level.dtype,
                subifds=0 if number else len(levels) - 1,
                subfiletype=bool(number),
                metadata=None if number else metadata,
                **how,
            )


def _tiles(level: np.ndarray, is_rgb: bool) -> Iterator[np.ndarray]:
    """The tiles of (k, j, i, channels) in the order of a file, filled up with 0 at far edges."""
    for channels in [slice(None)] if is_rgb else range(level.shape[3]):
        for layer in level:
            for row in range(0, layer.shape[0], _TILE):
                for column in range(0, layer.shape[1], _TILE):
                    part = layer[row : row + _TILE, column : column + _TILE, channels]
                    missing = [(0, _TILE - n) for n in part.shape[:2]]
                    yield np.pad(part, missing + [(0, 0)] * (part.ndim - 2))
            let_go(level)


def _halved(folder: Path, level: np.ndarray) -> np.ndarray:
    """Half as many pixels along the sides of every layer."""
    layers, rows, columns, channels = level.shape
    shape = (layers, -(-rows // 2), -(-columns // 2), channels)
    out = scratch_array(folder, level.dtype, shape, "C")
    for first in range(0, layers, _LAYERS_AT_ONCE):
        some = slice(first, first + _LAYERS_AT_ONCE)
        out[some] = halved(level[some], (1, 2))
        let_go(level)
        let_go(out)
    return out
