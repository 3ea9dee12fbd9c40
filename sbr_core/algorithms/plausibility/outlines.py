"""The shape of a section's tissue, in a few numbers that fit into a table."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_CELLS = 32
"""Along either side of a section: 4 mm of a human one, finer than a landmark's place is judged."""
_MIDDLE = 0.7
"""Share of a side that its flatness is measured on: corners of cut tissue are rounded too."""


def box_mm(mask: np.ndarray, pixel_mm: float) -> tuple[float, float]:
    """(width, height) of the box around a mask's tissue; (0, 0) without any."""
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return 0.0, 0.0
    return float(np.ptp(columns) + 1) * pixel_mm, float(np.ptp(rows) + 1) * pixel_mm


def cells_of(mask: np.ndarray) -> str:
    """Where an image has tissue, coarsely: 32 x 32 cells of its whole extent, row by row, as hex.

    A cell counts as tissue where any pixel of it does, or the nearest one where it has none.
    """
    points = (np.arange(_CELLS) + 0.5) / _CELLS
    rows, columns = (np.minimum((points * n).astype(int), n - 1) for n in mask.shape)
    # the largest of a cell's size around its centre: any pixel of the cell
    size = tuple(max(1, round(n / _CELLS)) for n in mask.shape)
    cells = ndimage.maximum_filter(mask.astype(np.uint8), size)[np.ix_(rows, columns)]
    return np.packbits(cells.astype(bool)).tobytes().hex()


def in_tissue(cells: str, share: np.ndarray) -> np.ndarray:
    """Whether points lie in or beside a cell of tissue.

    Parameters
    ----------
    cells : of `cells_of`.
    share : (n, 2), (x, y) as shares of the image's width and height: 0 and 1 are its edges.

    Returns
    -------
    (n,) bool; False outside the image.
    """
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(cells), np.uint8)).reshape(_CELLS, _CELLS)
    near = ndimage.binary_dilation(bits, np.ones((3, 3)))
    share = np.asarray(share, float)
    inside = np.all((share >= 0) & (share <= 1), axis=1)
    index = np.clip((np.nan_to_num(share) * _CELLS).astype(int), 0, _CELLS - 1)
    return inside & near[index[:, 1], index[:, 0]]


def unevenness_of_sides(mask: np.ndarray) -> tuple[float, float, float, float]:
    """How far the left, right, upper and lower outline of tissue lie off a straight line.

    Returns
    -------
    Mean distance from the line, over the extent of the tissue across it: 0 where it was cut
    straight, about 0.03 of an ellipse; 1 without tissue.
    """
    if np.count_nonzero(mask) < 16:
        return (1.0,) * 4
    turned = mask.T
    return (
        _unevenness(mask),
        _unevenness(mask[:, ::-1]),
        _unevenness(turned),
        _unevenness(turned[:, ::-1]),
    )


def _unevenness(mask: np.ndarray) -> float:
    """That of the side of low columns."""
    rows = np.flatnonzero(mask.any(axis=1))
    margin = (1 - _MIDDLE) / 2
    low, high = np.quantile(rows, [margin, 1 - margin])
    rows = rows[(rows >= low) & (rows <= high)]
    first = np.argmax(mask[rows], axis=1)
    if rows.size < 4:
        return 1.0
    line = np.polyval(np.polyfit(rows, first, 1), rows)
    columns = np.flatnonzero(mask.any(axis=0))
    return float(np.mean(np.abs(first - line)) / (np.ptp(columns) + 1))
