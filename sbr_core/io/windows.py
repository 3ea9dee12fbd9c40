"""Rectangles of an image as its samples are stored: every channel, of the type they have.

Of a TIFF only the tiles or strips that a rectangle touches are decoded, and the last ones used are
kept, so that an image of any size is read in little memory. Other files are decoded whole.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sbr_core.errors import ImageError
from sbr_core.io.blocks import check_memory, grid_step
from sbr_core.io.files import check_is_file
from sbr_core.io.images import decoding, read_samples
from sbr_core.io.tiff import channel_names, check_samples, find_plane, is_raw, is_tiff

_KEPT_BYTES = 1 << 27
"""Of decoded parts of a TIFF: 128 MiB, a few rows of tiles of a gigapixel."""


class Level(Protocol):
    """One resolution of an image.

    Attributes
    ----------
    step : (x, y) pixels of the full resolution per pixel.
    shape : (rows, columns).
    """

    step: tuple[float, float]
    shape: tuple[int, int]

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """(rows, columns, channels) of a rectangle within the image; the ends are not in it."""


@dataclass(frozen=True)
class Windows:
    """An image that is read by rectangles.

    Attributes
    ----------
    levels : finest first, that of the file's full resolution.
    channels : of every level.
    dtype : of the samples.
    photometric : what the samples mean, in the words of TIFF: ``rgb``, ``minisblack``, …
    names : of the channels; empty where the file names none.
    """

    levels: tuple[Level, ...]
    channels: int
    dtype: np.dtype
    photometric: str
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) at full resolution."""
        return self.levels[0].shape

    @property
    def most_held_bytes(self) -> int:
        """That it may hold of its pixels, of one level, about."""
        rows, columns = self.shape
        whole = rows * columns * self.channels * self.dtype.itemsize
        is_whole = isinstance(self.levels[0], _Array)
        return whole if is_whole else min(whole, 2 * _KEPT_BYTES)

    @property
    def is_colour(self) -> bool:
        """Whether its channels are red, green and blue, perhaps with opacity after, or inks."""
        return is_colour(self.photometric, self.channels)


def is_colour(photometric: str, channels: int) -> bool:
    """Whether samples are the colours of a pixel, and not those of channels."""
    return (photometric, channels) in (("rgb", 3), ("rgb", 4), ("separated", 4))


@contextmanager
def open_windows(path: Path, *, palette_is_labels: bool = False) -> Iterator[Windows]:
    """Open an image that `images.read_reduced` reads too, with all its channels.

    Parameters
    ----------
    palette_is_labels : keep the indices of a palette instead of its colours.

    Raises
    ------
    ImageError
        No file, not an image, more than one plane; also while it is read.
    """
    path = Path(path)
    check_is_file(path)
    with decoding(path):
        whole = not is_tiff(path)
    if whole:
        array = read_samples(path, palette_is_labels)
        yield _of_array(array[..., None] if array.ndim == 2 else array)
        return
    import tifffile

    with ExitStack() as stack:
        with decoding(path):
            tiff = stack.enter_context(tifffile.TiffFile(path, _multifile=False))
            windows = _of_tiff(path, tiff, palette_is_labels)
        yield windows


@dataclass(frozen=True)
class _Array:
    array: np.ndarray
    step: tuple[float, float] = (1.0, 1.0)

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape[:2]

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        return self.array[top:bottom, left:right]


def _of_array(array: np.ndarray) -> Windows:
    photometric = "rgb" if array.shape[2] in (3, 4) else "minisblack"
    return Windows((_Array(array),), array.shape[2], array.dtype, photometric)


def _of_tiff(path: Path, tiff: Any, palette_is_labels: bool) -> Windows:
    # any channel: those of several are read all
    series = find_plane(path, tiff, "1").series
    key = series.keyframe
    check_samples(path, key)
    photometric = getattr(key.photometric, "name", "").lower()
    table = None
    if photometric == "palette" and not palette_is_labels:
        table = (np.asarray(key.colormap).T >> (8 if np.max(key.colormap) > 255 else 0)).astype(
            "u1"
        )
    levels = []
    for level in series.levels:
        of_level = level.keyframe
        shape = of_level.imagelength, of_level.imagewidth
        step = grid_step(key.imagewidth, shape[1]), grid_step(key.imagelength, shape[0])
        levels.append(_Pages(path, level.pages, shape, step, table))
    n_pages = len(series.pages)
    if n_pages == 1 and key.samplesperpixel == 1 and "C" in series.axes and is_raw(series.pages[0]):
        n_channels = dict(zip(series.axes, series.shape, strict=True))["C"]
        if n_channels > 1:  # ImageJ writes one page for more than 4 GB
            offset = series.pages[0].dataoffsets[0]
            dtype = np.dtype(key.dtype).newbyteorder(tiff.byteorder)
            shape = (n_channels, key.imagelength, key.imagewidth)
            mapped = np.memmap(path, dtype, "r", offset, shape)
            levels, n_pages = [_Array(np.moveaxis(mapped, 0, -1))], n_channels
    channels = 3 if table is not None else n_pages * key.samplesperpixel
    names = tuple(channel_names(path, tiff, key))
    if table is not None or photometric == "ycbcr":
        photometric = "rgb"
    elif photometric == "palette":
        photometric = "minisblack"  # the indices themselves
    dtype = np.dtype("u1") if table is not None else np.dtype(key.dtype)
    return Windows(
        tuple(levels), channels, dtype, photometric, names if len(names) == channels else ()
    )


class _Pages:
    """A level of a TIFF: one page with all samples, or one for each channel."""

    def __init__(
        self,
        path: Path,
        pages: Sequence[Any],
        shape: tuple[int, int],
        step: tuple[float, float],
        table: np.ndarray | None,
    ) -> None:
        self.step, self.shape = step, shape
        self._path, self._table = path, table
        if any(page is None for page in pages):
            raise ImageError(f"{path}: a level of its pyramid is missing")
        self._pages = [_Page(path, page) for page in pages]

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        read = [page.read(top, left, bottom, right) for page in self._pages]
        array = read[0] if len(read) == 1 else np.concatenate(read, axis=-1)
        if self._table is None:
            return array
        return self._table[np.clip(array[..., 0], 0, len(self._table) - 1)]


class _Page:
    """A page of a TIFF, its parts decoded when they are needed."""

    def __init__(self, path: Path, page: Any) -> None:
        self._path, self._page, self._key = path, page, page.keyframe
        key = self._key
        self._rows = key.tilelength if key.is_tiled else min(key.rowsperstrip, key.imagelength)
        self._columns = key.tilewidth if key.is_tiled else key.imagewidth
        self._planes = key.samplesperpixel if int(key.planarconfig) == 2 else 1
        self._across = math.ceil(key.imagewidth / self._columns)
        self._down = math.ceil(key.imagelength / self._rows)
        self._kept: OrderedDict[int, np.ndarray | None] = OrderedDict()
        n_parts = self._planes * self._across * self._down
        if len(page.dataoffsets) != n_parts or len(page.databytecounts) != n_parts:
            raise ImageError(
                f"{path}: not readable as an image: {key.imagewidth} x {key.imagelength} pixels in"
                f" {n_parts} parts, of which it lists {len(page.dataoffsets)}"
            )
        per_part = self._rows * self._columns * key.samplesperpixel * key.dtype.itemsize
        check_memory(path, 3 * per_part, ": store it in tiles, as a pyramid (OME-TIFF)")

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        key = self._key
        shape = bottom - top, right - left, key.samplesperpixel
        out = np.zeros(shape, key.dtype)
        for down in range(top // self._rows, (bottom - 1) // self._rows + 1):
            for across in range(left // self._columns, (right - 1) // self._columns + 1):
                row, column = down * self._rows, across * self._columns
                for plane in range(self._planes):
                    part = self._part((plane * self._down + down) * self._across + across)
                    if part is None:  # it was not scanned
                        continue
                    samples = slice(None) if self._planes == 1 else slice(plane, plane + 1)
                    low = max(top, row), max(left, column)
                    high = min(bottom, row + part.shape[0]), min(right, column + part.shape[1])
                    out[low[0] - top : high[0] - top, low[1] - left : high[1] - left, samples] = (
                        part[low[0] - row : high[0] - row, low[1] - column : high[1] - column]
                    )
        return out

    def _part(self, index: int) -> np.ndarray | None:
        """(rows, columns, samples) of a tile or strip."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        page, key = self._page, self._key
        count = page.databytecounts[index]
        data = None
        if count:
            file = page.parent.filehandle
            with decoding(self._path):
                # these read from the file too, so they come before the place is looked for
                decode, how = key.decode, {"_fullsize": key.is_tiled}
                if int(key.compression) in (6, 7, 34892, 33007):  # JPEG
                    how |= {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
                file.seek(page.dataoffsets[index])
                data = decode(file.read(count), index, **how)[0]
            if data is not None:
                data = data[0]
        self._kept[index] = data
        kept = sum(part.nbytes for part in self._kept.values() if part is not None)
        while len(self._kept) > 1 and kept > _KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            kept -= 0 if dropped is None else dropped.nbytes
        return data
