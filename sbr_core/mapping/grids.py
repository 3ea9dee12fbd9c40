"""Images filled block by block: where each of their pixels lies in what is looked up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sbr_core.io.scratch import let_go
from sbr_core.io.transforms import PlaneField, SectionTransform
from sbr_core.mapping.lookup import MOST_READ, Places, length

_BLOCK = 512
"""Side of a block of the result, in pixels."""


class Samples(Protocol):
    """What is looked up.

    Attributes
    ----------
    channels, dtype : of its samples.
    """

    channels: int
    dtype: np.dtype

    def holds(self, places: Places, sides: np.ndarray) -> np.ndarray:
        """(n,) bool: which pixels of the result, as of `sample`, it may have something of."""

    def sample(self, places: Places, sides: np.ndarray) -> np.ndarray:
        """(n, channels) at places, of pixels of the result with sides (2, d) there."""


@dataclass(frozen=True)
class PixelGrid:
    """The pixels of a result, and where they lie in what is looked up.

    They are mapped at nodes and linear between.

    Attributes
    ----------
    shape : (rows, columns).
    place : maps rows (r,) and columns (c,), perhaps with fractions, to places (r, c, d).
    apart : pixels between nodes; up to 1 every pixel is one.
    start : (x, y) of a node.
    exact : as of `Places.of`.
    """

    shape: tuple[int, int]
    place: Callable[[np.ndarray, np.ndarray], np.ndarray]
    apart: float = 1.0
    start: tuple[float, float] = (0.0, 0.0)
    exact: bool = False

    def places(self, first: tuple[int, int], block: tuple[int, int]) -> tuple[Places, np.ndarray]:
        """Places of the pixels of a block, row by row, and the sides (2, d) of one about there.

        Parameters
        ----------
        first : row and column.
        block : rows and columns.
        """
        lines = [
            _nodes(a, n, start, self.apart)
            for a, n, start in zip(first, block, self.start[::-1], strict=True)
        ]
        nodes = self.place(*lines)
        at_nodes = Places.of(nodes.reshape(-1, nodes.shape[2]), exact=self.exact)
        px = at_nodes.px.reshape(nodes.shape)
        sides = np.zeros((2, px.shape[2]))
        if np.isfinite(at_nodes.low).all():
            across, down = px[:, -1] - px[:, 0], px[-1] - px[0]
            sides = np.stack([across.mean(axis=0) / block[1], down.mean(axis=0) / block[0]])
        for axis, (line, a, n) in enumerate(zip(lines, first, block, strict=True)):
            pixels = a + np.arange(n)
            low = np.searchsorted(line, pixels, side="right") - 1
            share = ((pixels - line[low]) / (line[low + 1] - line[low])).astype(px.dtype)
            before, behind = (np.take(px, low + i, axis=axis) for i in (0, 1))
            behind -= before
            if axis == 0:
                behind *= share[:, None, None]
            else:  # long rows, which NumPy is fast with
                behind.reshape(block[0], -1)[:] *= np.repeat(share, px.shape[2])
            before += behind
            px = before
        return replace(at_nodes, px=px.reshape(-1, px.shape[2])), sides

    @property
    def side(self) -> int:
        """Of a block of which no more is read at once than `MOST_READ`."""
        rows, columns = self.shape
        sides = self.places((rows // 2, columns // 2), (1, 1))[1]
        return int(np.clip(MOST_READ / max(length(sides), 1.0), 32, _BLOCK))


def _nodes(first: int, n: int, start: float, apart: float) -> np.ndarray:
    """Pixels, perhaps with fractions, at which a row or column is mapped: of n from `first` on.

    They are those of a lattice, the first and the last pixel, and the one behind that; or, of a
    lattice as fine as pixels, these.
    """
    last = first + n - 1
    if apart <= 1:
        return np.arange(first, last + 2)
    if math.isinf(apart):
        return np.unique([first, last, last + 1])
    lattice = np.arange(math.ceil((first - start) / apart), (last - start) / apart)
    return np.unique([first, *(start + lattice * apart), last, last + 1])


def nodes_of(
    section_from_plane: SectionTransform, pixel_mm: float
) -> tuple[float, tuple[float, float]]:
    """`PixelGrid.apart` and `PixelGrid.start` of pixels of a plane, of so many mm."""
    field = section_from_plane.steps[0]
    if isinstance(field, PlaneField):
        x, y = (origin_mm / pixel_mm for origin_mm in field.origin_mm)
        return field.spacing_mm / pixel_mm, (x, y)
    return float("inf"), (0.0, 0.0)  # an affine alone


def fill_image(grid: PixelGrid, source: Samples, out: np.ndarray) -> Iterator[tuple[float, int]]:
    """Fill an image (rows, columns, channels) block by block.

    Yields the share that is done, and how many pixels of the block the source has something of.
    """
    rows, columns = grid.shape
    side = grid.side
    for row in range(0, rows, side):
        n = min(side, rows - row)
        n_held = fill_block(grid, source, (row, 0), out[row : row + n, :columns], side)
        let_go(out)
        yield min(1.0, (row + side) / rows), n_held


def fill_block(
    grid: PixelGrid, source: Samples, first: tuple[int, int], out: np.ndarray, side: int
) -> int:
    """Fill a part (rows, columns, channels) of an image, from row and column `first` on.

    Parameters
    ----------
    side : as of `PixelGrid.side`.

    Returns
    -------
    how many pixels the source has something of.
    """
    n_held = 0
    for row in range(0, out.shape[0], side):
        for column in range(0, out.shape[1], side):
            part = out[row : row + side, column : column + side]
            places, sides = grid.places((first[0] + row, first[1] + column), part.shape[:2])
            n_held += int(source.holds(places, sides).sum())
            part[:] = source.sample(places, sides).reshape(part.shape)
    return n_held
