"""Images and labels from one space of a brain to another, block by block.

Every pixel of the result is looked up once, through the whole chain, in the image that is given:
linear, or of labels the nearest. Where a pixel of the result is larger than one of the image, it
is the mean of points spread over it, or of labels the one that most of them have, from the
coarsest level of the pyramid that serves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import ndimage

from sbr_core.errors import ImageError
from sbr_core.geometry import apply, similarity_scale
from sbr_core.io.blocks import BlockMeans, grid_step
from sbr_core.io.scratch import let_go
from sbr_core.io.volumes import Volume
from sbr_core.io.windows import Level, Windows
from sbr_core.mapping.points import Route
from sbr_core.mapping.spaces import Space

_BLOCK = 512
"""Side of a block of the result, in pixels."""
_MOST_READ = 2048
"""Side of what is read for a block, at most about, in pixels of the level it is read from."""
_NODES = 8
"""Per working pixel, along a side: between these, places are linear."""
_MOST_POINTS = 16
"""Along a side of a pixel of the result, however large it is: of labels, whose blocks have no
mean."""


class Source(Protocol):
    """What is looked up.

    Attributes
    ----------
    channels, dtype : of its samples.
    """

    channels: int
    dtype: np.dtype

    def place(self, stack_mm: np.ndarray) -> np.ndarray:
        """(n, d) px or voxels, at full resolution, of points (n, 3), stack mm; NaN for none."""

    def holds(self, places: np.ndarray, sides: np.ndarray) -> np.ndarray:
        """(n,) bool: which pixels of the result, as of `sample`, it may have something of."""

    def sample(self, places: np.ndarray, sides: np.ndarray) -> np.ndarray:
        """(n, channels) at places (n, d), of pixels of the result with sides (2, d) there."""


@dataclass(frozen=True)
class SectionImage:
    """An image of a section or of a plane.

    Attributes
    ----------
    step : (x, y) px of the section's file, or of the plane's grid, per pixel of the image.
    fill : (channels,) what is outside.
    labels : whether samples are ids.
    """

    route: Route
    space: Space
    windows: Windows
    step: tuple[float, float]
    fill: np.ndarray
    labels: bool = False

    @property
    def channels(self) -> int:
        return self.windows.channels

    @property
    def dtype(self) -> np.dtype:
        return self.windows.dtype

    def place(self, stack_mm: np.ndarray) -> np.ndarray:
        brain = self.route.brain
        points_mm, _ = brain.from_stack(self.space, stack_mm, self.route.within_mm)
        px, step = points_mm / self.route.pixel_size_mm(self.space), np.array(self.step)
        if self.space.kind == "plane":  # first centres are the same, of a section outer edges
            return px / step
        return (px + 0.5) / step - 0.5

    def holds(self, places: np.ndarray, sides: np.ndarray) -> np.ndarray:
        low, high = self._limits(0.5 + _length(sides) / 2)
        return np.all((places >= low) & (places <= high), axis=1)

    def sample(self, places: np.ndarray, sides: np.ndarray) -> np.ndarray:
        ratio = _length(sides)
        level = self.windows.levels[0] if self.labels else self._level(ratio)
        step = np.array(level.step)
        per_pixel = ratio / max(level.step)
        # of what is much finer, blocks are averaged once, and points spread over these
        side = 1 if self.labels else max(1, int(per_pixel / 2))
        shifts = np.stack(_shifts(sides, per_pixel / side)) / step
        out = np.empty((len(places), self.channels), self.dtype)
        out[:] = self.fill
        for some in self._squares(places, ratio + 1.0, step * _MOST_READ):
            px = (places[some] + 0.5) / step - 0.5
            window = _Window.of(level, px, shifts, side)
            samples = [self._read(level, window, px + shift) for shift in shifts]
            out[some] = _most_common(samples) if self.labels else _mean(samples, self.dtype)
        return out

    def _squares(self, places: np.ndarray, reach: float, side: np.ndarray) -> Iterator[np.ndarray]:
        """Indices of places on the image, by squares of it: not all of it is needed at once.

        Parameters
        ----------
        reach : as of `_limits`.
        side : (x, y) of a square, px.
        """
        low, high = self._limits(reach)
        near = np.flatnonzero(np.all((places >= low) & (places <= high), axis=1))
        if not near.size:
            return
        column, row = np.floor(places[near] / side).astype(int).T
        for c in range(column.min(), column.max() + 1):
            for r in range(row.min(), row.max() + 1):
                here = near[(column == c) & (row == r)]
                if here.size:
                    yield here

    def _limits(self, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest (x, y) px of a place on the image.

        Parameters
        ----------
        reach : how far outside the first and last centres a place may be, px; but not of the box.
        """
        low, high = np.array([-reach, -reach]), np.array(self.windows.shape[::-1]) - 1 + reach
        section = self.route.brain.section(self.space.section)
        if self.space.kind == "section" and (box := section.prepared.box) is not None:
            # beyond it may be another section
            first, step = np.array([box.left, box.top]), np.array(self.step)
            low = np.maximum(low, first / step - 0.5)
            high = np.minimum(high, (first + np.array([box.columns, box.rows])) / step - 0.5)
        return low, high

    def _level(self, ratio: float) -> Level:
        """The coarsest level with pixels no larger than those of the result."""
        serves = [level for level in self.windows.levels if max(level.step) <= ratio * 1.001]
        return serves[-1] if serves else self.windows.levels[0]

    def _read(self, level: Level, window: _Window, px: np.ndarray) -> np.ndarray:
        """(n, channels) at places (n, 2) of a level; `fill` beyond its pixels' outer edges."""
        last = np.array(level.shape[::-1]) - 1
        inside = np.all((px >= -0.5 - 1e-6) & (px <= last + 0.5 + 1e-6), axis=1)
        values = np.empty((len(px), self.channels), self.dtype if self.labels else np.float32)
        values[:] = self.fill
        if inside.any():
            px = np.clip(px[inside], 0, last)
            values[inside] = window.nearest(px) if self.labels else window.linear(px)
        return values


@dataclass(frozen=True)
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
    def of(cls, level: Level, px: np.ndarray, shifts: np.ndarray, side: int) -> _Window:
        """What is needed for places (n, 2) of a level and points shifted from them."""
        size = np.array(level.shape[::-1])
        first = np.clip(np.floor(px.min(axis=0) + shifts.min(axis=0)) - side, 0, size - 1)
        low = first.astype(int) // side * side  # so that blocks are the same in every window
        high = np.ceil(px.max(axis=0) + shifts.max(axis=0)).astype(int) + 2 * side
        high = np.minimum(np.maximum(high, low + 1), size)
        samples = level.read(low[1], low[0], high[1], high[0])
        if side > 1:
            means = BlockMeans(samples.shape[:2], samples.shape[2], side)
            means.add(samples, 0, 0)
            samples = means.means()
        return cls(samples, low, side)

    def nearest(self, px: np.ndarray) -> np.ndarray:
        """(n, channels) of the pixels that places (n, 2) of the level lie in."""
        column, row = (np.floor(px + 0.5).astype(int) - self.low).T
        return self.samples[row, column]

    def linear(self, px: np.ndarray) -> np.ndarray:
        """(n, channels) float32 at places (n, 2) of the level."""
        here = ((px - self.low + 0.5) / self.side - 0.5).T[::-1]
        planes = np.moveaxis(self.samples, -1, 0)
        return np.stack(
            [
                ndimage.map_coordinates(plane, here, np.float32, order=1, mode="nearest")
                for plane in planes
            ],
            axis=-1,
        )


@dataclass(frozen=True)
class MriVolume:
    """A volume on a grid of its own in the world of the MRI, or of the atlas."""

    route: Route
    space: Space
    volume: Volume
    labels: bool = False
    channels: int = 1

    @property
    def dtype(self) -> np.dtype:
        return self.volume.data.dtype

    def place(self, stack_mm: np.ndarray) -> np.ndarray:
        world_mm, _ = self.route.brain.from_stack(self.space, stack_mm)
        return apply(np.linalg.inv(self.volume.world_from_voxel), world_mm)

    def holds(self, places: np.ndarray, sides: np.ndarray) -> np.ndarray:
        reach = 0.5 + _length(sides) / 2
        last = np.array(self.volume.data.shape) - 1
        return np.all((places >= -reach) & (places <= last + reach), axis=1)

    def sample(self, places: np.ndarray, sides: np.ndarray) -> np.ndarray:
        samples = []
        last = np.array(self.volume.data.shape) - 1
        for shift in _shifts(sides, _length(sides)):
            voxels = places + shift
            inside = np.all((voxels >= -0.5) & (voxels <= last + 0.5), axis=1)
            voxels = np.where(inside[:, None], np.clip(voxels, 0, last), 0.0)
            if self.labels:
                values = self.volume.data[tuple(np.floor(voxels + 0.5).astype(int).T)]
            else:
                data = self.volume.data
                values = ndimage.map_coordinates(data, voxels.T, np.float32, order=1)
            samples.append(np.where(inside, values, np.zeros((), values.dtype))[:, None])
        return _most_common(samples) if self.labels else _mean(samples, self.dtype)


@dataclass(frozen=True)
class PlaneTarget:
    """The grid of an image of a section or a plane.

    Attributes
    ----------
    shape : (rows, columns).
    step : px of the section's file, or of the plane's grid, per pixel. On a section, outer edges of
        the first pixels are the same, on a plane their centres.
    """

    route: Route
    shape: tuple[int, int]
    step: float

    @classmethod
    def of(cls, route: Route, pixel_mm: float | None) -> PlaneTarget:
        """That of a route's target, in pixels of so many mm, or of its own."""
        space = route.target
        section, own_mm = route.brain.section(space.section), route.pixel_size_mm(space)
        step = 1.0 if pixel_mm is None else pixel_mm / own_mm
        if space.kind == "plane":
            return cls(route, section.grid.at_spacing(own_mm * step).shape, step)
        return cls(route, tuple(max(1, math.ceil(n / step - 1e-6)) for n in section.shape), step)

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel."""
        return self.step * self.route.pixel_size_mm(self.route.target)

    def stack_mm(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(rows, columns, 3) of the pixels of these rows and columns."""
        px = np.stack(np.meshgrid(columns, rows), axis=-1) * self.step
        if self.route.target.kind == "section":
            px = px + (self.step - 1) / 2
        points_mm = px * self.route.pixel_size_mm(self.route.target)
        return self.route.brain.to_stack(self.route.target, points_mm)


def fill_image(target: PlaneTarget, source: Source, out: np.ndarray) -> Iterator[tuple[float, int]]:
    """Fill an image (rows, columns, channels) block by block.

    Yields the share that is done, and how many pixels of the block the source has something of.
    """
    rows, columns = target.shape
    middle = _places(target, source, (rows // 2, columns // 2), (1, 1))
    side = int(np.clip(_MOST_READ / max(_length(middle[1]), 1.0), 32, _BLOCK))
    for row in range(0, rows, side):
        n_held = 0
        for column in range(0, columns, side):
            block = min(side, rows - row), min(side, columns - column)
            places, sides = _places(target, source, (row, column), block)
            n_held += int(source.holds(places, sides).sum())
            samples = source.sample(places, sides)
            out[row : row + block[0], column : column + block[1]] = samples.reshape(*block, -1)
        let_go(out)
        yield min(1.0, (row + side) / rows), n_held


def _places(
    target: PlaneTarget, source: Source, first: tuple[int, int], block: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, d) of the pixels of a block, row by row, and the sides (2, d) of one about there.

    They are mapped at nodes some pixels apart and linear between, as the deformation itself is
    between pixels of the working grid, which are longer by far (`_NODES`).

    Parameters
    ----------
    first : row and column.
    block : rows and columns.
    """
    section = target.route.brain.section(target.route.target.section)
    apart = max(1, int(section.grid.spacing_mm / _NODES / target.pixel_mm))
    counts = [-(-n // apart) + 1 for n in block]
    nodes = [a + apart * np.arange(n) for a, n in zip(first, counts, strict=True)]
    places = source.place(target.stack_mm(*nodes).reshape(-1, 3)).reshape(*counts, -1)
    sides = np.zeros((2, places.shape[2]))
    if np.isfinite(places).all():
        across, down = np.diff(places, axis=1), np.diff(places, axis=0)
        sides = np.stack([across.mean(axis=(0, 1)), down.mean(axis=(0, 1))]) / apart
    if apart == 1:
        places = places[:-1, :-1]
    else:
        for axis, n in enumerate(block):
            low, share = np.divmod(np.arange(n), apart)
            share = (share / apart).reshape(-1, 1, 1) if axis == 0 else (share / apart)[:, None]
            before, behind = (np.take(places, low + i, axis=axis) for i in (0, 1))
            places = before + share * (behind - before)
    return places.reshape(-1, places.shape[2]), sides


def fill_volume(
    route: Route, source: SectionImage, world_from_voxel: np.ndarray, out: np.ndarray
) -> Iterator[tuple[float, int]]:
    """Fill the voxels of (i, j, k, channels) that are near a section; yields as `fill_image`."""
    section = route.brain.section(source.space.section)
    stack_from_voxel = route.brain.stack_from_mri @ world_from_voxel
    side_mm = float(np.linalg.norm(world_from_voxel[:3, :3], axis=0).min())
    side_mm *= similarity_scale(route.brain.stack_from_mri)
    ratio = side_mm / route.pixel_size_mm(source.space) / max(source.step)
    for layer in range(out.shape[0]):
        voxels = np.stack(
            np.meshgrid([layer], np.arange(out.shape[1]), np.arange(out.shape[2]), indexing="ij"),
            axis=-1,
        ).reshape(-1, 3)
        stack_mm = apply(stack_from_voxel, voxels)
        plane_mm, _ = section.dropped(stack_mm, route.within_mm)
        near = np.flatnonzero(np.isfinite(plane_mm[:, 0]))
        n_held = 0
        if near.size:
            places, sides = source.place(stack_mm[near]), np.eye(2) * ratio
            n_held = int(source.holds(places, sides).sum())
            samples = source.sample(places, sides)
            out[layer, voxels[near, 1], voxels[near, 2]] = samples
        yield (layer + 1) / out.shape[0], n_held


def step_on_section(route: Route, shape: tuple[int, int], name: str) -> tuple[float, float]:
    """(x, y) px of the source section's file per pixel of an image of it.

    Raises
    ------
    ImageError
        The image has other proportions: it is none of the section, or a part, or turned.
    """
    whole = route.brain.section(route.source.section).shape
    ratio = (whole[1] / shape[1]) / (whole[0] / shape[0])
    # what is left at the far edge may be dropped, or kept as a pixel, when levels are made
    if abs(ratio - 1) > 1.5 / min(*shape, *whole):
        raise ImageError(
            f"{name}: {shape[1]} x {shape[0]} pixels have not the proportions of {route.source},"
            f" {whole[1]} x {whole[0]}: expected an image of all of it, as its file is stored"
        )
    return grid_step(whole[1], shape[1]), grid_step(whole[0], shape[0])


def _length(sides: np.ndarray) -> float:
    """How long the sides (2, d) of a pixel of the result are, in px of the source."""
    return float(np.linalg.norm(sides, axis=1).mean())


def _shifts(sides: np.ndarray, length: float) -> list[np.ndarray]:
    """(d,) from the middle of a pixel to points spread over it, one for each px of its length."""
    n_points = int(np.clip(math.ceil(length - 0.25), 1, _MOST_POINTS))
    offsets = (np.arange(n_points) + 0.5) / n_points - 0.5
    return [across * sides[0] + down * sides[1] for across in offsets for down in offsets]


def _mean(samples: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    mean = samples[0] if len(samples) == 1 else np.mean(samples, axis=0, dtype=np.float32)
    if dtype.kind == "f":
        return mean
    if dtype.kind == "b":
        return mean >= 0.5
    limits = np.iinfo(dtype)
    return np.clip(np.rint(mean), limits.min, limits.max)


def _most_common(samples: list[np.ndarray]) -> np.ndarray:
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
