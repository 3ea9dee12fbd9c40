"""A stack of sections on a 3D grid: every voxel looked up in the two sections around it.

Each section is sampled through its own full chain and once only; the two values are then
interpolated along the stack. The rule for what stays empty:

- The *local gap* of a section is the lower median of the up to four gaps nearest to it, two on
  each side: what the spacing is around it, whatever single section is missing.
- A voxel is filled if it lies within half the local gap plus `max_gap_mm` of the nearest section.
- Between two sections no further apart than 1.5 local gaps of either, everything is filled, so
  that slightly irregular positions leave no slits. A missing section doubles the gap, and so
  leaves an empty slab as wide as itself (unless `max_gap_mm` bridges it).
- Where a volume is of some sections of a stack, since the others are of another stain, a gap that
  such others fill has nothing missing: everything in it is filled, up to three local gaps.

- Where it is asked for, a gap of missing sections up to three local gaps is *bridged*: filled from
  the sections on either side, with a coverage which says that no section was there.

All lengths here are stack millimetres, the sections' own.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sbr_core.algorithms.sections import prefilter, resample_section
from sbr_core.geometry import Box

REGULAR_GAP = 1.5
"""A gap up to this many local gaps counts as jitter of the positions, not as missing sections."""
FILLED_GAP = 3.0
"""A gap up to this many local gaps is bridged where other sections of the stack fill it, or where
missing sections are to be filled."""
EMPTY_COVERAGE = -1.0
"""Coverage where there is no section: a number that no distance can be, and no NaN, which
some viewers cannot draw."""
BRIDGED_COVERAGE = -2.0
"""Coverage where no section is, and what stands there comes from the sections around the gap."""

Mapping2D = Callable[[np.ndarray], np.ndarray]
"""Points (..., 2) of the plane, mm, to section mm, as a published transform maps them."""


class Level:
    """A section prefiltered to some spacing, and thinned out where that loses nothing.

    Attributes
    ----------
    image : (rows, columns) float32; pixel (i, j) is pixel (thinned i, thinned j) of what was read.
    thinned : pixels read per pixel.
    """

    def __init__(
        self,
        image: np.ndarray,
        pixel_size_mm: float,
        spacing_mm: float,
        section_mm_from_plane_mm: Mapping2D,
        labels: np.ndarray | None = None,
        box: Box | None = None,
        read_step: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """Prefilter a file's image (background 0) to `spacing_mm`.

        Every second or later pixel is kept only while there are at least two to an output pixel.

        Parameters
        ----------
        pixel_size_mm : of the file.
        section_mm_from_plane_mm : maps points (n, 2); the section's published transform.
        labels : (rows, columns) of the file, or None.
        box : the part of the file that is the section; None for all of `image`, if that has the
            file's full resolution.
        read_step : (x, y) file pixels per pixel read; the outer edges of the first ones are the
            same.
        """
        scale = spacing_mm / pixel_size_mm / math.sqrt(read_step[0] * read_step[1])
        self.thinned = max(1, int(scale / 2))
        self.image = prefilter(image, scale)[:: self.thinned, :: self.thinned].copy()
        self.box = box or Box.whole(image.shape)
        self.pixel_size_mm = pixel_size_mm
        self.section_mm_from_plane_mm = section_mm_from_plane_mm
        self.labels, self.read_step = labels, np.array(read_step)

    def inside(self, section_mm: np.ndarray) -> np.ndarray:
        """Which of the points (n, 2) lie within the file's box, up to its pixels' outer edges."""
        return self.box.has(section_mm / self.pixel_size_mm)

    def sample(self, section_mm: np.ndarray) -> np.ndarray:
        """Intensity, linear, at points (n, 2) that are inside; float32."""
        # the outer edges of the first pixels are the same; exact where the file was read whole
        px = (section_mm / self.pixel_size_mm - (self.read_step - 1) / 2) / self.read_step
        # the last pixels of the file may have been thinned out: the nearest kept one is taken
        px = np.minimum(px / self.thinned, np.array(self.image.shape[::-1]) - 1)
        return resample_section(self.image, px)

    def sample_labels(self, section_mm: np.ndarray) -> np.ndarray:
        """Labels of the nearest file pixel at points (n, 2)."""
        return resample_section(self.labels, section_mm / self.pixel_size_mm, order=0)


class LevelCache:
    """The levels used last, up to a number of bytes of pixels; at least two neighbours.

    Parameters
    ----------
    load : the level of a section, by its number.
    """

    def __init__(self, load: Callable[[int], Level], max_bytes: int) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._kept: OrderedDict[int, Level] = OrderedDict()

    def __getitem__(self, section: int) -> Level:
        if section in self._kept:
            self._kept.move_to_end(section)
            return self._kept[section]
        level = self._kept[section] = self._load(section)
        while len(self._kept) > 2 and self._bytes() > self._max_bytes:
            self._kept.popitem(last=False)
        return level

    def _bytes(self) -> int:
        return sum(
            level.image.nbytes + (0 if level.labels is None else level.labels.nbytes)
            for level in self._kept.values()
        )


def local_gaps_mm(positions_mm: np.ndarray) -> np.ndarray:
    """The local gap of each section.

    Parameters
    ----------
    positions_mm : (n,), increasing, n >= 2.

    Returns
    -------
    (n,), mm.
    """
    positions_mm = np.asarray(positions_mm, float)
    gaps = np.diff(positions_mm)
    if len(gaps) < 1 or (gaps <= 0).any():
        raise ValueError("expected at least two positions, increasing")
    # section k has gaps k - 2, k - 1 before it and k, k + 1 behind it
    nearest = [np.sort(gaps[max(k - 2, 0) : k + 2]) for k in range(len(positions_mm))]
    return np.array([some[(len(some) - 1) // 2] for some in nearest])


def _regular_gaps(positions_mm: np.ndarray, local_mm: np.ndarray) -> np.ndarray:
    """(n - 1,) bool: gaps between neighbours in which no section is missing.

    Parameters
    ----------
    positions_mm, local_mm : (n,), and the local gap of each; see `local_gaps_mm`.
    """
    return np.diff(positions_mm) <= REGULAR_GAP * np.maximum(local_mm[:-1], local_mm[1:])


def _filled_by_others(positions_mm: np.ndarray, all_mm: np.ndarray) -> np.ndarray:
    """(n - 1,) bool: gaps between neighbours in which nothing is missing of the whole stack."""
    missing = np.cumsum(np.r_[False, ~_regular_gaps(all_mm, local_gaps_mm(all_mm))])
    return np.diff(missing[np.searchsorted(all_mm, positions_mm)]) == 0


@dataclass(frozen=True)
class Stack:
    """Positions of the sections, and how far each of them reaches.

    Attributes
    ----------
    positions_mm : (n,), increasing.
    reach_before_mm, reach_behind_mm : (n,), how far from the section voxels are filled on the
        side of lower and of higher positions, `max_gap_mm` included.
    bridged : (n - 1,) bool, gaps that are filled although sections are missing in them.
    """

    positions_mm: np.ndarray
    reach_before_mm: np.ndarray
    reach_behind_mm: np.ndarray
    bridged: np.ndarray

    @classmethod
    def of(
        cls,
        positions_mm: Sequence[float],
        max_gap_mm: float,
        only_gap_mm: float = 1.0,
        all_mm: Sequence[float] = (),
        *,
        bridge: bool = False,
    ) -> Stack:
        """Apply the rule of this module.

        Parameters
        ----------
        only_gap_mm : local gap of a stack of a single section, which has none of its own.
        all_mm : increasing positions of these and all other sections, where there are others.
        bridge : fill gaps of missing sections too, up to three local gaps.
        """
        positions = np.asarray(positions_mm, float)
        if len(positions) < 2:
            half = np.full(len(positions), only_gap_mm / 2 + max_gap_mm)
            return cls(positions, half, half, np.zeros(max(len(positions) - 1, 0), bool))
        local = local_gaps_mm(positions)
        gaps = np.diff(positions)
        regular = _regular_gaps(positions, local)
        near = gaps <= FILLED_GAP * np.maximum(local[:-1], local[1:])
        if len(all_mm) > len(positions):
            regular |= near & _filled_by_others(positions, np.asarray(all_mm, float))
        before, behind = local / 2, local / 2
        behind[:-1] = np.where(regular, gaps / 2, behind[:-1])
        before[1:] = np.where(regular, gaps / 2, before[1:])
        # a voxel half way between belongs to both, however it was rounded
        margin = max_gap_mm + 1e-6 * local
        bridged = near & ~regular if bridge else np.zeros(len(gaps), bool)
        return cls(positions, before + margin, behind + margin, bridged)

    def around(self, z_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The sections around positions (n,).

        Returns
        -------
        lower : (n,) index of the last section at or before z; -1 before the first.
        towards_upper : (n,) 0 at the lower section, 1 at the upper; beyond an end, whichever
            selects the section there is.
        filled : (n,) bool, in reach of a section or bridged.
        bridged : (n,) bool, in reach of none.
        """
        positions, last = self.positions_mm, len(self.positions_mm) - 1
        if last < 0:
            nowhere = np.zeros(len(z_mm), bool)
            return np.full(len(z_mm), -1), np.zeros(len(z_mm)), nowhere, nowhere
        lower = np.searchsorted(positions, z_mm, side="right") - 1
        low, high = np.clip(lower, 0, last), np.clip(lower + 1, 0, last)
        past_low, to_high = z_mm - positions[low], positions[high] - z_mm
        gap = positions[high] - positions[low]
        towards_upper = np.where(gap > 0, past_low / np.where(gap > 0, gap, 1.0), 0.0)
        towards_upper[lower < 0] = 1.0
        filled = (lower >= 0) & (past_low <= self.reach_behind_mm[low])
        filled |= (lower < last) & (to_high <= self.reach_before_mm[high])
        between = (lower >= 0) & (lower < last)
        bridged = between & ~filled
        bridged[between] &= self.bridged[lower[between]]
        return lower, towards_upper, filled | bridged, bridged


def slabs(
    shape: tuple[int, int, int], stack_from_voxel: np.ndarray, slab_voxels: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Parts of a grid of at most `slab_voxels` voxels (or one layer), each few sections thick.

    Parameters
    ----------
    stack_from_voxel : (4, 4); the slabs follow the voxel axis along which position changes most.
    """
    axis = int(np.argmax(np.abs(stack_from_voxel[2, :3]) * np.array(shape)))
    layers = max(1, slab_voxels // max(1, math.prod(shape) // shape[axis]))
    for start in range(0, shape[axis], layers):
        part = [slice(None)] * 3
        part[axis] = slice(start, min(start + layers, shape[axis]))
        yield tuple(part)


def fill_slab(
    part: tuple[slice, slice, slice],
    shape: tuple[int, int, int],
    stack_from_voxel: np.ndarray,
    stack: Stack,
    levels: LevelCache,
    *,
    interpolation: str = "linear",
    with_labels: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The voxels of one slab.

    What a voxel gets depends on nothing but its own coordinates, so slabs of any size give the
    same volume, bit for bit.

    Parameters
    ----------
    part : of the grid, from `slabs`.
    shape : of the whole grid.
    stack_from_voxel : (4, 4) from voxel (i, j, k) to stack mm.
    levels : of the stack's sections, by their number.
    interpolation : along the stack, ``linear`` or ``nearest``. Where only one of the two
        sections' files reaches a point, that one alone is used.

    Returns
    -------
    histology : float32, 0 where empty.
    coverage : float32, distance in mm to the nearest section that reaches the voxel,
        `EMPTY_COVERAGE` where none does, `BRIDGED_COVERAGE` where it is in a bridged gap.
    labels : int64 of the nearest section that reaches the voxel, 0 where empty, in a bridged gap
        or where that section has no labels; or None.
    """
    box, (x, y, z) = stack_mm_of(part, shape, stack_from_voxel)
    value, weight = np.zeros(len(z)), np.zeros(len(z))
    nearest_mm = np.full(len(z), np.inf)
    labels = np.zeros(len(z), np.int64) if with_labels else None
    for section, voxels, share in voxels_by_section(stack, z):
        level = levels[section]
        section_mm = level.section_mm_from_plane_mm(np.stack([x[voxels], y[voxels]], axis=-1))
        inside = level.inside(section_mm)
        voxels, share, section_mm = voxels[inside], share[inside], section_mm[inside]
        distance_mm = np.abs(z[voxels] - stack.positions_mm[section])
        sampled = level.sample(section_mm).astype(float)
        # a tie goes to the lower section, which comes first
        nearer = distance_mm < nearest_mm[voxels]
        if interpolation == "nearest":
            value[voxels[nearer]] = sampled[nearer]
            weight[voxels[nearer]] = 1.0
        else:
            # a section without any share still counts where the other file ends
            share = np.maximum(share, 1e-9)
            value[voxels] += share * sampled
            weight[voxels] += share
        if labels is not None:
            unknown = level.labels is None
            labels[voxels[nearer]] = 0 if unknown else level.sample_labels(section_mm[nearer])
        nearest_mm[voxels[nearer]] = distance_mm[nearer]

    histology = np.divide(value, weight, out=np.zeros_like(value), where=weight > 0)
    reached = np.isfinite(nearest_mm)
    coverage = np.where(reached, nearest_mm, EMPTY_COVERAGE)
    bridged = reached & stack.around(z)[3]
    coverage[bridged] = BRIDGED_COVERAGE
    if labels is not None:
        labels[bridged] = 0
    return (
        histology.astype(np.float32).reshape(box),
        coverage.astype(np.float32).reshape(box),
        None if labels is None else labels.reshape(box),
    )


def stack_mm_of(
    part: tuple[slice, slice, slice], shape: tuple[int, int, int], stack_from_voxel: np.ndarray
) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """Shape of a part of a grid, and x, y and z (n,) of its voxels, stack mm."""
    ranges = [np.arange(n, dtype=float)[s] for n, s in zip(shape, part, strict=True)]
    i, j, k = (axis.ravel() for axis in np.meshgrid(*ranges, indexing="ij"))
    # sums are written out: a matrix product may round differently with the number of points
    m = stack_from_voxel
    mm = [m[row, 0] * i + m[row, 1] * j + m[row, 2] * k + m[row, 3] for row in range(3)]
    return tuple(len(axis) for axis in ranges), mm


def voxels_by_section(
    stack: Stack, z_mm: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(section, the filled voxels it is one of the two sections around, its share of each).

    Parameters
    ----------
    z_mm : (n,) position of every voxel.
    """
    lower, towards_upper, filled, _ = stack.around(z_mm)
    chosen = np.flatnonzero(filled)
    if not len(chosen):
        return
    chosen = chosen[np.argsort(lower[chosen], kind="stable")]
    sorted_lower = lower[chosen]
    first, final = int(sorted_lower[0]), int(sorted_lower[-1])
    for section in range(max(first, 0), min(final + 1, len(stack.positions_mm) - 1) + 1):
        # the voxels just before this section, then those just behind it
        begin = np.searchsorted(sorted_lower, section - 1, side="left")
        middle = np.searchsorted(sorted_lower, section, side="left")
        end = np.searchsorted(sorted_lower, section, side="right")
        if begin == end:
            continue
        voxels = chosen[begin:end]
        # of the voxels before it, this is the upper section; of those behind it, the lower
        share = towards_upper[voxels]
        share[middle - begin :] = 1.0 - share[middle - begin :]
        yield section, voxels, share
