"""A large plane that comes piece by piece, made smaller as it comes: memory holds what is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sbr_core.errors import ImageError
from sbr_core.geometry import Box, translation

_BLACK = 0.1
"""Share of the range below which the edge of the opaque part of a picture is black. It lies between
the background of fluorescence and the glass of a bright field, and matters only for pictures with
transparent parts."""


@dataclass(frozen=True)
class Picture:
    """A section as it was photographed, at the resolution it was read at.

    Attributes
    ----------
    pixels : (rows, columns) grey levels or (rows, columns, 3) red, green, blue; float32.
    file_shape : (rows, columns) of the stored file at full resolution.
    step : (x, y) file pixels per pixel; the outer edges of the first pixels are the same.
    """

    pixels: np.ndarray
    file_shape: tuple[int, int]
    step: tuple[float, float] = (1.0, 1.0)

    @property
    def px_from_file_px(self) -> np.ndarray:
        """(3, 3), from (column, row) of the file to (column, row) of `pixels`."""
        if self.step == (1.0, 1.0):
            return np.eye(3)
        shrink = np.diag([1 / self.step[0], 1 / self.step[1], 1.0])
        return translation(-0.5, -0.5) @ shrink @ translation(0.5, 0.5)

    def within(self, box: Box | None) -> Picture:
        """With 0 wherever the middle of a pixel lies outside a box of the file; None changes
        nothing."""
        if box is None:
            return self
        pixels = np.zeros_like(self.pixels)
        keep = []
        for first, extent, step in (
            (box.top, box.rows, self.step[1]),
            (box.left, box.columns, self.step[0]),
        ):
            # pixel i covers file pixels from i * step to (i + 1) * step, counted from their edges
            keep.append(
                slice(math.ceil(first / step - 0.5), math.ceil((first + extent) / step - 0.5))
            )
        pixels[*keep] = self.pixels[*keep]
        return replace(self, pixels=pixels)

    @property
    def mean_step(self) -> float:
        """File pixels per pixel, the mean of x and y."""
        return math.sqrt(self.step[0] * self.step[1])


class BlockMeans:
    """Means over blocks of `step` x `step` pixels of a plane that is added piece by piece.

    Parameters
    ----------
    shape : (rows, columns) of the plane; blocks at its far edges hold what there is.
    channels : of the pieces.
    step : 1 keeps the pixels.
    """

    def __init__(self, shape: tuple[int, int], channels: int, step: int) -> None:
        self._shape, self._step = shape, step
        self._sums = np.zeros((*(math.ceil(n / step) for n in shape), channels), np.float32)

    def add(self, piece: np.ndarray, row: int, column: int) -> None:
        """Add (rows, columns, channels) whose first pixel lies at (row, column) of the plane."""
        rows, columns = piece.shape[:2]
        k = self._step
        if k == 1:
            self._sums[row : row + rows, column : column + columns] = piece
            return
        for axis, first in ((0, row), (1, column)):
            block = (first + np.arange(piece.shape[axis])) // k
            starts = np.flatnonzero(np.diff(block, prepend=-1))
            piece = np.add.reduceat(piece, starts, axis=axis, dtype=np.float32)
        r, c = row // k, column // k
        self._sums[r : r + piece.shape[0], c : c + piece.shape[1]] += piece

    def means(self) -> np.ndarray:
        """(rows, columns, channels) float32, once everything was added."""
        if self._step == 1:
            return self._sums
        rows, columns = (
            np.diff(np.append(np.arange(0, n, self._step), n)).astype(np.float32)
            for n in self._shape
        )
        self._sums /= (rows[:, None] * columns)[..., None]
        return self._sums


def halved(array: np.ndarray, axes: Sequence[int], *, labels: bool = False) -> np.ndarray:
    """An array with half as many samples along some axes; what is left over at their ends is kept.

    Parameters
    ----------
    labels : take every second sample, not the mean; which is rounded, to even where it is half way.
    """
    if labels or not axes:
        steps = (2 if axis in axes else 1 for axis in range(array.ndim))
        return array[tuple(slice(None, None, step) for step in steps)]
    odd = [(0, n % 2 if axis in axes else 0) for axis, n in enumerate(array.shape)]
    if any(more for _, more in odd):
        array = np.pad(array, odd, mode="edge")
    is_whole = array.dtype.kind in "ui" and array.dtype.itemsize < 8
    wide = np.dtype(f"{array.dtype.kind}{2 * array.dtype.itemsize}" if is_whole else np.float64)
    total: np.ndarray | None = None
    for corner in np.ndindex(*(2,) * len(axes)):
        index = [slice(None)] * array.ndim
        for axis, first in zip(axes, corner, strict=True):
            index[axis] = slice(first, None, 2)
        part = array[tuple(index)]
        if total is None:
            total = part.astype(wide)
        else:
            total += part
    if not is_whole:
        mean = total / 2 ** len(axes)
        return (mean if array.dtype.kind == "f" else np.rint(mean)).astype(array.dtype)
    bits = len(axes)
    total += ((total >> bits) & 1) + 2**bits // 2 - 1
    total >>= bits
    return total.astype(array.dtype)


def over_background(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay a picture over the background that it has.

    That is white, unless what lies along the edge of the opaque part is black, as in fluorescence:
    there white would look like a slide's frame.

    Parameters
    ----------
    colours : (rows, columns, channels), in [0, 1], times alpha.
    alpha : (rows, columns), in [0, 1].

    Returns
    -------
    (rows, columns, channels) float32.
    """
    from scipy import ndimage

    opaque = alpha > 0.99
    if opaque.all():
        return colours
    rim = opaque & ndimage.binary_dilation(~opaque, iterations=3)
    black = rim.any() and float(np.median(colours[rim].mean(axis=-1))) < _BLACK
    return colours if black else colours + (1 - alpha)[..., None]


def grid_step(file_pixels: int, pixels: int) -> float:
    """File pixels per pixel of a level of a pyramid.

    Levels are made of blocks, and what is left at the far edge is kept or dropped; then the step is
    the block's side and not the ratio of the sizes.
    """
    block = max(1, round(file_pixels / pixels))
    whole = pixels in (file_pixels // block, -(-file_pixels // block))
    return float(block) if whole else file_pixels / pixels


def check_memory(path: Path, n_bytes: int, what: str = "") -> None:
    """Refuse what would not fit into the memory that is free, before the system ends the job.

    Raises
    ------
    ImageError
    """
    import psutil

    free = psutil.virtual_memory().available
    if n_bytes > free:
        raise ImageError(
            f"{path}: reading it takes {n_bytes / 2**30:.1f} GiB of memory, but"
            f" {free / 2**30:.1f} GiB are free{what}"
        )
