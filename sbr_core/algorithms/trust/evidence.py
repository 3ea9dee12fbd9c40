"""What tells, without any truth, how far a registered section lies from where it belongs.

The plane's tissue is looked at in square cells, about 32 along its longer side, and each is asked

- how unlike section and MRI are there, by self-similarity (`functional.self_similarity`), and where
  around, up to 4 % of the tissue's extent away, they are least unlike: a block matching;
- how far other methods that deform disagree about where in the section its centre lies;
- how strongly the deformation strains it.

Lengths are shares of the extent, so that one law serves brains of all sizes. What a cell is told is
the same for the section as a whole: its root mean square over the tissue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sbr_core.functional.intensity import normalise
from sbr_core.functional.self_similarity import mind_ssc

_FINE_PX = 100
"""Least extent of the tissue, px, in which cells are matched; finer images are reduced to it."""
_CELLS = 32
"""Along the tissue's extent."""
_REACH = 0.04
"""How far a match is looked for, as a share of the extent: over twice what affines leave."""
_QUANTILES = (0.01, 0.99)
_TEMPERATURE = 0.05
"""How much unlike a shift may be than the best one and still be as likely as not."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A registered section and its MRI plane, on the plane's grid.

    Attributes
    ----------
    registered, section_mask, plane, plane_mask : (rows, columns).
    spacing_mm : of the grid.
    """

    registered: np.ndarray
    section_mask: np.ndarray
    plane: np.ndarray
    plane_mask: np.ndarray
    spacing_mm: float

    @cached_property
    def cells(self) -> Cells:
        return cells_of(self.plane_mask, self.spacing_mm)

    @property
    def overlap(self) -> float:
        """Dice of both masks; 0 of empty ones."""
        both = np.logical_and(self.section_mask, self.plane_mask).sum()
        each = np.count_nonzero(self.section_mask) + np.count_nonzero(self.plane_mask)
        return 2.0 * float(both) / max(each, 1)


@dataclass(frozen=True, eq=False)
class Cells:
    """Where the cells are.

    Attributes
    ----------
    tissue : (rows, columns) share of each that is tissue of the plane.
    size_px : side of a cell, px of the plane's grid.
    reduced : how many of these are one px where cells are matched.
    spacing_mm : of that grid.
    extent_mm : longer side of the tissue.
    """

    tissue: np.ndarray
    size_px: int
    reduced: int
    spacing_mm: float
    extent_mm: float

    @property
    def size_mm(self) -> float:
        return self.size_px * self.spacing_mm

    @property
    def origin_mm(self) -> float:
        """Centre of the first cell, along each axis, plane mm."""
        return (self.size_px - 1) / 2 * self.spacing_mm

    def centres_mm(self) -> np.ndarray:
        """(rows, columns, 2): (x, y) of the cells' centres, plane mm."""
        rows, columns = np.indices(self.tissue.shape)
        return np.stack([columns, rows], -1) * self.size_mm + self.origin_mm

    def mean(self, values: np.ndarray) -> float:
        """Mean of (rows, columns) over the tissue."""
        return float((values * self.tissue).sum() / max(float(self.tissue.sum()), 1e-6))

    def rms(self, values: np.ndarray) -> float:
        """Root mean square of (rows, columns) over the tissue."""
        return math.sqrt(self.mean(np.square(values)))


def cells_of(plane_mask: np.ndarray, spacing_mm: float) -> Cells:
    """The cells of a plane, from its first pixel on; the last ones reach beyond its edges."""
    rows_columns = np.argwhere(plane_mask > 0)
    extent = int(np.ptp(rows_columns, axis=0).max()) + 1 if len(rows_columns) else _FINE_PX
    reduced = max(1, extent // _FINE_PX)
    size = reduced * max(1, round(extent / reduced / _CELLS))
    rows, columns = (-(-n // size) for n in plane_mask.shape)
    inside = _padded(plane_mask > 0, (rows * size, columns * size))
    tissue = inside.reshape(rows, size, columns, size).mean((1, 3))
    return Cells(tissue, size, reduced, spacing_mm, extent * spacing_mm)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a registered section without truth.

    Attributes
    ----------
    cells : that it was looked at in.
    match, strain : (rows, columns) of the cells: how far off the best match is, as a share of the
        extent; how strongly tissue is strained, 1.
    disagreement : (rows, columns) of other methods, as a share of the extent; None without any.
    unlike, least_unlike : of section and MRI, by self-similarity, mean over the tissue: as it lies,
        and where each cell matches best.
    overlap : Dice of the masks.
    moved : how far methods move the tissue from where its affine lays it, as a share of the extent:
        this one or the others, whichever is more.
    """

    cells: Cells
    match: np.ndarray
    strain: np.ndarray
    disagreement: np.ndarray | None
    unlike: float
    least_unlike: float
    overlap: float
    moved: float

    def numbers(self) -> dict[str, float]:
        """Of the section as a whole, by name."""
        of_cells = {"match": self.match, "strain": self.strain}
        if self.disagreement is not None:
            of_cells["disagreement"] = self.disagreement
        numbers = {name: self.cells.rms(values) for name, values in of_cells.items()}
        return numbers | {
            "extent_mm": self.cells.extent_mm,
            "unlike": self.unlike,
            "least_unlike": self.least_unlike,
            "overlap": self.overlap,
            "moved": self.moved,
        }


def find_evidence(
    seen: Seen, moved_mm: np.ndarray, others_mm: Sequence[np.ndarray] = ()
) -> Evidence:
    """Look at a registered section.

    Parameters
    ----------
    moved_mm : (rows, columns, 2) displacement (x, y) of the cells' centres by the method, beside
        the section's affine; plane mm.
    others_mm : those of other methods that deform.
    """
    cells = seen.cells
    unlike, shifts_mm = _unlikeness(seen)
    lengths_mm = np.linalg.norm(shifts_mm, axis=1)
    least = unlike.min(0)
    likely = np.exp(-(unlike - least) / np.maximum(_TEMPERATURE * least, 1e-6))
    likely /= likely.sum(0)
    match_mm = np.linalg.norm(np.einsum("srk,sd->rkd", likely, shifts_mm), axis=-1)
    disagreement = None
    if others_mm:
        apart = [np.square(moved_mm - other_mm).sum(-1) for other_mm in others_mm]
        disagreement = np.sqrt(np.mean(apart, axis=0)) / cells.extent_mm
    return Evidence(
        cells=cells,
        match=match_mm / cells.extent_mm,
        strain=_strain(moved_mm, cells.size_mm),
        disagreement=disagreement,
        unlike=cells.mean(unlike[lengths_mm.argmin()]),
        least_unlike=cells.mean(least),
        overlap=seen.overlap,
        moved=max(
            cells.rms(np.linalg.norm(each_mm, axis=-1)) / cells.extent_mm
            for each_mm in (moved_mm, *others_mm)
        ),
    )


def least_unlike_as_a_whole(seen: Seen) -> float:
    """How unlike section and MRI are with the section shifted as a whole so that they least are."""
    unlike, _ = _unlikeness(seen)
    return min(seen.cells.mean(of_shift) for of_shift in unlike)


def _strain(moved_mm: np.ndarray, size_mm: float) -> np.ndarray:
    """(rows, columns): norm of the displacement's derivative."""
    if min(moved_mm.shape[:2]) < 2:
        return np.zeros(moved_mm.shape[:2])
    derivative = np.stack(np.gradient(moved_mm, size_mm, axis=(0, 1)), -1)
    return np.sqrt(np.square(derivative).sum((-2, -1)))


def _unlikeness(seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """How unlike each cell and its neighbours are for each shift of the section.

    Returns
    -------
    unlike : (n, rows, columns).
    shifts_mm : (n, 2), (x, y) from where a cell is to where it is looked for.
    """
    cells = seen.cells
    fixed, inside = _described(seen.plane, seen.plane_mask, cells)
    moving, _ = _described(seen.registered, seen.section_mask, cells)
    step_mm = cells.reduced * cells.spacing_mm
    reach = max(2, math.ceil(_REACH * cells.extent_mm / step_mm))
    side = cells.size_px // cells.reduced
    rows, columns = fixed.shape[-2:]
    around = F.pad(moving, (reach,) * 4, mode="replicate")
    tissue = _around(F.avg_pool2d(inside, side)).clamp_min(1e-3)
    unlike, shifts = [], []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy > reach * reach:
                continue
            y, x = reach + dy, reach + dx
            apart = (around[..., y : y + rows, x : x + columns] - fixed).square()
            apart = apart.mean(1, keepdim=True) * inside
            unlike.append((_around(F.avg_pool2d(apart, side)) / tissue)[0, 0])
            shifts.append((dx, dy))
    return torch.stack(unlike).numpy().astype(float), np.array(shifts, float) * step_mm


def _described(image: np.ndarray, mask: np.ndarray, cells: Cells) -> tuple[Tensor, Tensor]:
    """Descriptors of a reduced image, and its mask, of whole cells."""
    inside = np.asarray(mask) > 0
    if inside.any():
        image = normalise(image, inside, *_QUANTILES)
    by, shape = cells.reduced, tuple(n * cells.size_px for n in cells.tissue.shape)
    small = [
        torch.from_numpy(
            _padded(array, shape).reshape(shape[0] // by, by, shape[1] // by, by).mean((1, 3))
        )[None, None]
        for array in (image, inside)
    ]
    tissue = (small[1] > 0.5).float()
    return mind_ssc(small[0], tissue), tissue


def _padded(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A copy in float32 with zeros below and to the right."""
    padded = np.zeros(shape, np.float32)
    padded[: array.shape[0], : array.shape[1]] = array
    return padded


def _around(values: Tensor) -> Tensor:
    """Means of each cell and the eight around it; beyond the edge there is nothing."""
    return F.avg_pool2d(values, 3, 1, 1)
