"""Images and labels from one space of a brain to another, block by block.

Every pixel of the result is looked up once, through the whole chain, in the image that is given:
see `lookup`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import ndimage

from sbr_core.errors import ImageError
from sbr_core.geometry import apply
from sbr_core.io.blocks import grid_step
from sbr_core.io.volumes import Volume
from sbr_core.io.windows import Windows
from sbr_core.mapping.grids import PixelGrid, Samples, nodes_of
from sbr_core.mapping.lookup import Lookup, Places, edges_of_box, length, mean, most_common, spread
from sbr_core.mapping.points import Route
from sbr_core.mapping.spaces import Space

_NODES = 8
"""Per working pixel, along a side, where working pixels do not bound what is linear."""


class Source(Samples, Protocol):
    """What is looked up.

    Attributes
    ----------
    labels : whether samples are ids.
    """

    labels: bool

    def place(self, stack_mm: np.ndarray) -> np.ndarray:
        """(n, d) px or voxels, at full resolution, of points (n, 3), stack mm; NaN for none."""


@dataclass(frozen=True, eq=False)
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

    def holds(self, places: Places, sides: np.ndarray) -> np.ndarray:
        return self._lookup.holds(places, sides)

    def sample(self, places: Places, sides: np.ndarray) -> np.ndarray:
        return self._lookup.sample(places, sides)

    @cached_property
    def _lookup(self) -> Lookup:
        section = self.route.brain.section(self.space.section)
        box = section.prepared.box if self.space.kind == "section" else None
        return Lookup(self.windows, self.fill, self.labels, *edges_of_box(box, self.step))


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

    def holds(self, places: Places, sides: np.ndarray) -> np.ndarray:
        reach = 0.5 + length(sides) / 2
        last = np.array(self.volume.data.shape) - 1
        return places.between(-reach * np.ones(3), last + reach)

    def sample(self, places: Places, sides: np.ndarray) -> np.ndarray:
        samples = []
        last = np.array(self.volume.data.shape) - 1
        for shift in spread(sides, length(sides)):
            voxels = places.all() + shift
            inside = np.all((voxels >= -0.5) & (voxels <= last + 0.5), axis=1)
            voxels = np.where(inside[:, None], np.clip(voxels, 0, last), 0.0)
            if self.labels:
                values = self.volume.data[tuple(np.floor(voxels + 0.5).astype(int).T)]
            else:
                data = self.volume.data
                values = ndimage.map_coordinates(data, voxels.T, np.float32, order=1)
            samples.append(np.where(inside, values, np.zeros((), values.dtype))[:, None])
        return most_common(samples) if self.labels else mean(samples, self.dtype)


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


def grid_of(target: PlaneTarget, source: Source) -> PixelGrid:
    """The pixels of an image, and where they lie in the source.

    From a section to a plane the nodes are those of the published field of displacements, which is
    linear between them, so that nothing is lost; on other ways there are several for each working
    pixel (`_NODES`).
    """

    def place(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        stack_mm = target.stack_mm(rows, columns)
        return source.place(stack_mm.reshape(-1, 3)).reshape(*stack_mm.shape[:2], -1)

    route, exact = target.route, source.labels
    if (route.source.kind, route.target.kind) == ("section", "plane"):
        transform = route.brain.section(route.source.section).section_from_plane
        return PixelGrid(target.shape, place, *nodes_of(transform, target.pixel_mm), exact)
    spacing_mm = route.brain.section(route.target.section).grid.spacing_mm
    return PixelGrid(target.shape, place, spacing_mm / _NODES / target.pixel_mm, exact=exact)


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
