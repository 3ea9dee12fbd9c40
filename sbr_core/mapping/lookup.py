"""Samples of an image anywhere between its pixels: linear, or of labels the nearest.

A pixel of the result that is larger than one of the image is the mean of points spread over it, or
of labels the one that most of them have, from the coarsest level of the pyramid that serves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sbr_core.geometry import Box
from sbr_core.io.blocks import BlockMeans
from sbr_core.io.windows import Level, Windows

MOST_READ = 2048
"""Side of what is read at once, at most about, in pixels of the level it is read from."""
_MOST_POINTS = 16
"""Along a side of a pixel of the result, however large it is: of labels, whose blocks have no
mean."""


@dataclass(frozen=True)
class Places:
    """Where pixels of the result lie in an image: base + px, in (x, y) px or voxels of it.

    Attributes
    ----------
    base : (d,) whole numbers.
    px : (n, d) float32 where that is accurate enough, as of differences it is.
    low, high : (d,) of all places; they may be further apart.
    """

    base: np.ndarray
    px: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.px)

    @classmethod
    def of(cls, places: np.ndarray, *, exact: bool = False) -> Places:
        """Those of an array (n, d) of float64, of which NaN are nowhere.

        Parameters
        ----------
        exact : keep float64, where half a pixel decides, as between labels.
        """
        # NumPy reduces long axes fast, and the short one last slowly
        low = np.array([column.min(initial=np.inf) for column in places.T])
        high = np.array([column.max(initial=-np.inf) for column in places.T])
        if exact or not (np.isfinite(low).all() and np.isfinite(high).all()):
            return cls(np.zeros(places.shape[1]), places, low, high)
        base = np.floor(low)
        return cls(base, (places - base).astype(np.float32), low, high)

    def all(self) -> np.ndarray:
        """(n, d) float64."""
        return self.px + self.base

    def between(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """(n,) bool: which places are neither lower nor higher."""
        inside = np.ones(len(self.px), bool)
        if np.all((self.low >= low) & (self.high <= high)):
            return inside
        for column, lowest, highest in zip(
            self.px.T, low - self.base, high - self.base, strict=True
        ):
            inside &= column >= lowest
            inside &= column <= highest
        return inside

    def at(self, indices: np.ndarray) -> Places:
        """Some of them."""
        px = self.px[indices]
        low = np.array([column.min() for column in px.T]) + self.base
        return Places(self.base, px, low, np.array([column.max() for column in px.T]) + self.base)


@dataclass(frozen=True)
class Lookup:
    """An image of which places are looked up, at full resolution, with pixel centres at integers.

    Attributes
    ----------
    fill : (channels,) what is outside.
    labels : whether samples are ids.
    first, last : (x, y) px, the outer edges of the part that counts; None for all there is.
    """

    windows: Windows
    fill: np.ndarray
    labels: bool = False
    first: np.ndarray | None = None
    last: np.ndarray | None = None

    @property
    def channels(self) -> int:
        return self.windows.channels

    @property
    def dtype(self) -> np.dtype:
        return self.windows.dtype

    def holds(self, places: Places, sides: np.ndarray) -> np.ndarray:
        """(n,) bool: which pixels of the result, as of `sample`, it may have something of."""
        return places.between(*self._limits(0.5 + length(sides) / 2))

    def contains(self, places: Places) -> np.ndarray:
        """(n,) bool: which places lie within the outer edges of the part that counts."""
        return places.between(*self._limits(0.5 + 1e-6))

    def sample(self, places: Places, sides: np.ndarray) -> np.ndarray:
        """(n, channels) at places, of pixels of the result with sides (2, 2) there, px."""
        ratio = length(sides)
        level = self.windows.levels[0] if self.labels else self._level(ratio)
        step = np.array(level.step)
        per_pixel = ratio / max(level.step)
        # of what is much finer, blocks are averaged once, and points spread over these
        side = 1 if self.labels else max(1, int(per_pixel / 2))
        shifts = np.stack(spread(sides, per_pixel / side)) / step
        low, high = self._limits(ratio + 1.0)
        if np.all((places.low >= low) & (places.high <= high)) and np.all(
            places.high - places.low <= step * MOST_READ
        ):
            return self._points(level, places, shifts, side)
        out = np.empty((len(places), self.channels), self.dtype)
        out[:] = self.fill
        near = np.flatnonzero(places.between(low, high))
        for some in _squares(places, near, step * MOST_READ):
            out[some] = self._points(level, places.at(some), shifts, side)
        return out

    def _points(self, level: Level, places: Places, shifts: np.ndarray, side: int) -> np.ndarray:
        """(n, channels) of a level, of each place the mean over points.

        Parameters
        ----------
        shifts : (points, 2) from a place to its points, px of the level.
        side : pixels of the level per block, along a side.
        """
        step = np.array(level.step)
        base, low, high = ((n + 0.5) / step - 0.5 for n in (places.base, places.low, places.high))
        px = places.px
        if level.step != (1.0, 1.0):
            px = px * (1 / step).astype(px.dtype)
        here = Places(base, px, low, high)
        window = _Window.of(level, here, shifts, side)
        samples = [self._read(level, window, here, shift) for shift in shifts]
        return most_common(samples) if self.labels else mean(samples, self.dtype)

    def _limits(self, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest (x, y) px of a place on the image.

        Parameters
        ----------
        reach : how far outside the first and last centres a place may be, px; but not beyond the
            part that counts.
        """
        low, high = np.array([-reach, -reach]), np.array(self.windows.shape[::-1]) - 1 + reach
        if self.first is not None:
            low = np.maximum(low, self.first)
        if self.last is not None:
            high = np.minimum(high, self.last)
        return low, high

    def _level(self, ratio: float) -> Level:
        """The coarsest level with pixels no larger than those of the result."""
        serves = [level for level in self.windows.levels if max(level.step) <= ratio * 1.001]
        return serves[-1] if serves else self.windows.levels[0]

    def _read(self, level: Level, window: _Window, places: Places, shift: np.ndarray) -> np.ndarray:
        """(n, channels) at places of a level, shifted; `fill` beyond its pixels' outer edges."""
        look_up = window.nearest if self.labels else window.linear
        edge = np.array(level.shape[::-1]) - 0.5 + 1e-6
        inside = places.between(-0.5 - 1e-6 - shift, edge - shift)
        base = places.base + shift
        if inside.all():
            return look_up(places.px, base)
        values = np.empty((len(places), self.channels), self.dtype if self.labels else np.float32)
        values[:] = self.fill
        if inside.any():
            values[inside] = look_up(places.px[inside], base)
        return values


def _squares(places: Places, near: np.ndarray, side: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of places, of those `near`, by squares: not all of an image is needed at once.

    Parameters
    ----------
    side : (x, y) of a square, px.
    """
    if not near.size:
        return
    column, row = np.floor((places.px[near] + places.base) / side).astype(int).T
    for c in range(column.min(), column.max() + 1):
        for r in range(row.min(), row.max() + 1):
            here = near[(column == c) & (row == r)]
            if here.size:
                yield here


@dataclass(frozen=True, eq=False)
class _Window:
    """A part of a level, perhaps of means over blocks.

    Attributes
    ----------
    samples : (rows, columns, channels).
    low : (column, row) of its first pixel in the level.
    side : pixels of the level per block, along a side.
    """

    samples: np.ndarray
    low: np.ndarray
    side: int

    @classmethod
    def of(cls, level: Level, places: Places, shifts: np.ndarray, side: int) -> _Window:
        """What is needed for places of a level and points shifted from them."""
        size = np.array(level.shape[::-1])
        first = np.clip(np.floor(places.low + shifts.min(axis=0)) - side, 0, size - 1)
        low = first.astype(int) // side * side  # so that blocks are the same in every window
        high = np.ceil(places.high + shifts.max(axis=0)).astype(int) + 2 * side
        high = np.minimum(np.maximum(high, low + 1), size)
        samples = level.read(low[1], low[0], high[1], high[0])
        if side > 1:
            means = BlockMeans(samples.shape[:2], samples.shape[2], side)
            means.add(samples, 0, 0)
            samples = means.means()
        return cls(samples, low, side)

    @cached_property
    def _planes(self) -> np.ndarray:
        """(channels, rows, columns) float32."""
        return np.ascontiguousarray(np.moveaxis(self.samples, -1, 0), np.float32)

    def nearest(self, px: np.ndarray, base: np.ndarray) -> np.ndarray:
        """(n, channels) of the pixels that places base + px of the level lie in."""
        rows, columns = self.samples.shape[:2]
        column, row = np.floor(px + (base + 0.5 - self.low)).astype(int).T
        return self.samples[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]

    def linear(self, px: np.ndarray, base: np.ndarray) -> np.ndarray:
        """(n, channels) float32 at places base + px of the level."""
        import torch
        from torch.nn.functional import grid_sample

        last = np.maximum(np.array(self.samples.shape[1::-1]) - 1, 1)
        first = (base - self.low + 0.5) / self.side - 0.5
        # torch counts from -1 at the centre of the first pixel to 1 at that of the last
        grid = np.empty_like(px, np.float32)
        for axis in (0, 1):  # both at once NumPy would go through in steps of two
            scaled = px[:, axis] * np.float32(2 / (self.side * last[axis]))
            np.add(scaled, np.float32(2 * first[axis] / last[axis] - 1), out=grid[:, axis])
        found = grid_sample(
            torch.from_numpy(self._planes)[None],
            torch.from_numpy(grid)[None, None],
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        return found[0, :, 0].numpy().T


def edges_of_box(
    box: Box | None, step: tuple[float, float] = (1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """(x, y) px of the outer edges of a part of a file, beyond which may be another section.

    Parameters
    ----------
    box : None where all of the file is the section, as `Lookup` has it too.
    step : (x, y) px of the file per px of the image.
    """
    if box is None:
        return None, None
    first, size = np.array([box.left, box.top]), np.array([box.columns, box.rows])
    return first / np.array(step) - 0.5, (first + size) / np.array(step) - 0.5


def length(sides: np.ndarray) -> float:
    """How long the sides (2, d) of a pixel of the result are, in px of the source."""
    return float(np.linalg.norm(sides, axis=1).mean())


def spread(sides: np.ndarray, n_px: float) -> list[np.ndarray]:
    """(d,) from the middle of a pixel to points spread over it, one for each px of its length."""
    n_points = int(np.clip(math.ceil(n_px - 0.25), 1, _MOST_POINTS))
    offsets = (np.arange(n_points) + 0.5) / n_points - 0.5
    return [across * sides[0] + down * sides[1] for across in offsets for down in offsets]


def mean(samples: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """The mean of samples (n, channels) of one type, rounded where that has no fractions."""
    found = samples[0] if len(samples) == 1 else np.mean(samples, axis=0, dtype=np.float32)
    return as_type(found, dtype)


def as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers that lie between samples of a type as such: rounded."""
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    if dtype.kind == "b":
        return values >= 0.5
    rounded = np.rint(values)
    if dtype.itemsize > 2:  # the greatest of these float32 rounds up
        limits = np.iinfo(dtype)
        np.clip(rounded, limits.min, limits.max, out=rounded)
    return rounded.astype(dtype)


def most_common(samples: list[np.ndarray]) -> np.ndarray:
    """The id that most of the samples (n, 1) have; of several the lowest."""
    if len(samples) == 1:
        return samples[0]
    stacked = np.sort(np.concatenate(samples, axis=1), axis=1)
    # runs of equal ids: how many samples back the first of its run is
    n = stacked.shape[1]
    starts = np.ones_like(stacked, bool)
    starts[:, 1:] = stacked[:, 1:] != stacked[:, :-1]
    first = np.maximum.accumulate(np.where(starts, np.arange(n), 0), axis=1)
    longest = np.argmax(np.arange(n) - first, axis=1)
    return np.take_along_axis(stacked, longest[:, None], axis=1)
