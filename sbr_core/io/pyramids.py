"""Images of any size written as tiled TIFF with a pyramid, or whole as PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.errors import ConfigError
from sbr_core.io.blocks import halved
from sbr_core.io.files import atomic_path
from sbr_core.io.images import write_png
from sbr_core.io.scratch import let_go, scratch_array
from sbr_core.io.windows import is_colour

_TILE = 512
_SMALLEST = 1024
"""Longest side of the coarsest level, at most."""
_ROWS_AT_ONCE = 1024
_BUFFER_BYTES = 1 << 26
"""Of tiles that are compressed at once: 64 MiB."""
ENDINGS = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".png")
"""Of names of images."""


def is_picture(path: Path) -> bool:
    """Whether `write_picture` writes files of such a name."""
    return path.name.lower().endswith(ENDINGS)


def scratch_picture(
    folder: Path, shape: tuple[int, int, int], dtype: np.dtype, is_colour: bool
) -> np.ndarray:
    """(rows, columns, channels) on disk in the order in which `write_picture` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
    if is_colour or shape[2] == 1:
        return scratch_array(folder, dtype, shape, "C")
    rows, columns, channels = shape
    return np.moveaxis(scratch_array(folder, dtype, (channels, rows, columns), "C"), 0, -1)


def write_picture(
    path: Path,
    array: np.ndarray,
    *,
    photometric: str,
    pixel_mm: float,
    names: Sequence[str] = (),
    labels: bool = False,
) -> None:
    """Write an image, whole or not at all.

    Parameters
    ----------
    path : ``.tif``, tiled and with a pyramid; ``.ome.tif``, with OME-XML too; ``.png``.
    array : (rows, columns, channels); it may lie on disk.
    photometric : of its samples, in the words of TIFF.
    pixel_mm : side of a pixel, which the file states.
    names : of the channels.
    labels : of a coarser level every second pixel is taken, not the mean.

    Raises
    ------
    ConfigError
        A PNG of what a PNG cannot hold.
    """
    channels, dtype = array.shape[2], array.dtype
    colours = is_colour(photometric, channels)
    if path.name.lower().endswith(".png"):
        if not (channels == 1 and dtype in (np.uint8, np.uint16)) and not (
            colours and photometric == "rgb" and dtype == np.uint8
        ):
            raise ConfigError(
                f"{path}: a PNG holds 8 or 16 bits of grey or 8 of colour, not {channels} channels"
                f" of {dtype}: write a .tif"
            )
        write_png(path, array[..., 0] if channels == 1 else array)
        return
    import tifffile

    levels = [_as_stored(array, colours)]
    while max(_size(levels[-1], colours)) > _SMALLEST:
        levels.append(_halved(path.parent, levels[-1], colours, labels))
    options = {"photometric": photometric, "tile": (_TILE, _TILE), "compression": "zlib"}
    options["predictor"] = dtype.kind in "ui" and dtype.itemsize <= 4
    if photometric == "rgb" and channels == 4:
        options["extrasamples"] = ["unassalpha"]
    is_ome = path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    if not is_ome and not colours and channels > 1:
        options["planarconfig"] = "separate"  # without OME-XML pages would be no channels
    metadata: dict[str, Any] | None = None
    if is_ome:
        metadata = {"axes": "YXS" if colours else "CYX" if channels > 1 else "YX"}
        for axis in "XY":
            metadata |= {f"PhysicalSize{axis}": pixel_mm * 1000, f"PhysicalSize{axis}Unit": "µm"}
        if len(names) == channels and not colours:
            metadata["Channel"] = {"Name": list(names)}
    with (
        atomic_path(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=array.nbytes > 1 << 31, ome=is_ome) as tiff,
    ):
        for number, level in enumerate(levels):
            per_cm = 10 / (pixel_mm * 2**number)
            tiff.write(
                _tiles(level, colours),
                shape=level.shape,
                dtype=level.dtype,
                buffersize=_BUFFER_BYTES,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subifds=0 if number else len(levels) - 1,
                subfiletype=bool(number),
                metadata=None if number else metadata,
                **options,
            )


def _as_stored(array: np.ndarray, colours: bool) -> np.ndarray:
    """(rows, columns, colours), (channels, rows, columns) or (rows, columns)."""
    if colours:
        return array
    return array[..., 0] if array.shape[2] == 1 else np.moveaxis(array, -1, 0)


def _size(stored: np.ndarray, colours: bool) -> tuple[int, int]:
    return stored.shape[:2] if colours else stored.shape[-2:]


def _tiles(stored: np.ndarray, colours: bool) -> Iterator[np.ndarray]:
    """The tiles of an image in the order of a file, those at its far edges filled up with 0."""
    for plane in [stored] if colours or stored.ndim == 2 else stored:
        for row in range(0, plane.shape[0], _TILE):
            for column in range(0, plane.shape[1], _TILE):
                part = plane[row : row + _TILE, column : column + _TILE]
                missing = [(0, _TILE - n) for n in part.shape[:2]] + [(0, 0)] * (part.ndim - 2)
                yield np.pad(part, missing)
            let_go(stored)


def _halved(folder: Path, stored: np.ndarray, colours: bool, labels: bool) -> np.ndarray:
    """Every second pixel, or the means of 2 x 2; what is left over at the far edge is kept."""
    rows, columns = _size(stored, colours)
    half = -(-rows // 2), -(-columns // 2)
    shape = (*half, stored.shape[2]) if colours else (*stored.shape[:-2], *half)
    out = scratch_array(folder, stored.dtype, shape, "C")
    planes = [(stored, out)] if colours or stored.ndim == 2 else zip(stored, out, strict=True)
    for source, target in planes:
        for row in range(0, rows, _ROWS_AT_ONCE):
            part = source[row : row + _ROWS_AT_ONCE]
            here = target[row // 2 : (row + len(part) + 1) // 2]
            here[:] = halved(part, (0, 1), labels=labels)
            let_go(stored)
            let_go(out)
    return out
