"""Volumes in the stack, the MRI and the atlas, and what fills them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbr_core.artifacts import names
from sbr_core.errors import ConfigError
from sbr_core.geometry import LPS_FROM_RAS, apply, stack_grid
from sbr_core.io.volumes import mri_grid, read_volume
from sbr_core.mapping.brain import Brain
from sbr_core.mapping.lookup import Places, mean, most_common
from sbr_core.mapping.points import Route
from sbr_core.mapping.rasters import MriVolume, SectionImage
from sbr_core.mapping.spaces import Space

_MOST_POINTS = 4
"""Along a side of a voxel that is larger than those of the volume it is looked up in."""


@dataclass(frozen=True)
class VolumeGrid:
    """The grid of a volume.

    Attributes
    ----------
    space : of three axes.
    shape : (i, j, k).
    world_from_voxel : (4, 4), as the file says: to RAS mm; in the stack to what ITK, which has LPS,
        reads as stack mm, as in volumes of `reassemble`.
    """

    brain: Brain
    space: Space
    shape: tuple[int, int, int]
    world_from_voxel: np.ndarray

    @classmethod
    def of(cls, route: Route, spacing_mm: float | None, like: Path | None) -> VolumeGrid:
        """That of a route's target, or of a volume in it, at another spacing where asked.

        Parameters
        ----------
        like : whose grid it is; None for the MRI's, or for the planes at the sections' positions.

        Raises
        ------
        ConfigError
            The grid of the atlas is not known without `like`.
        ImageError
            It is no volume.
        """
        brain, space = route.brain, route.target
        if like is None and space.kind == "stack":
            grids, positions_mm = [one.grid for one in brain], [one.position_mm for one in brain]
            shape, stack_from_voxel = stack_grid(grids, positions_mm, spacing_mm)
            return cls(brain, space, shape, LPS_FROM_RAS @ stack_from_voxel)
        if like is None and space.kind == "atlas":
            raise ConfigError("--like: expected a volume of the template, whose grid is filled")
        path = like or brain.results / "prepare" / names.MRI_VOLUME
        return cls(brain, space, *mri_grid(read_volume(path), spacing_mm))

    def stack_mm(self, voxels: np.ndarray) -> np.ndarray:
        """Where voxels (n, 3) lie, stack mm."""
        points_mm = apply(self.world_from_voxel, voxels)
        if self.space.kind == "stack":
            points_mm = apply(LPS_FROM_RAS, points_mm)
        return self.brain.to_stack(self.space, points_mm)

    def sides_mm(self) -> np.ndarray:
        """(3,) of the voxel in the middle, stack mm."""
        middle = (np.array(self.shape) - 1) / 2
        ends = np.concatenate([middle + np.eye(3) / 2, middle - np.eye(3) / 2])
        low, high = np.split(self.stack_mm(ends), 2)
        return np.linalg.norm(high - low, axis=1)

    def layers(self) -> Iterator[tuple[float, np.ndarray]]:
        """The share that is done with it, and the voxels (n, 3), of each layer along i."""
        in_layer = np.stack(np.indices(self.shape[1:]), axis=-1).reshape(-1, 2)
        for layer in range(self.shape[0]):
            voxels = np.column_stack([np.full(len(in_layer), layer), in_layer])
            yield (layer + 1) / self.shape[0], voxels


def fill_volume(
    grid: VolumeGrid, source: SectionImage, out: np.ndarray
) -> Iterator[tuple[float, int]]:
    """Fill the voxels of (i, j, k, channels) that are near a section; yields as `fill_image`."""
    route = source.route
    section = route.brain.section(source.space.section)
    side_mm = float(grid.sides_mm().min())
    sides = np.eye(2) * side_mm / route.pixel_size_mm(source.space) / max(source.step)
    for share, voxels in grid.layers():
        stack_mm = grid.stack_mm(voxels)
        plane_mm, _ = section.dropped(stack_mm, route.within_mm)
        near = np.flatnonzero(np.isfinite(plane_mm[:, 0]))
        n_held = 0
        if near.size:
            places = Places.of(source.place(stack_mm[near]), exact=source.labels)
            n_held = int(source.holds(places, sides).sum())
            i, j, k = voxels[near].T
            out[i, j, k] = source.sample(places, sides)
        yield share, n_held


def fill_from_volume(
    grid: VolumeGrid, source: MriVolume, out: np.ndarray
) -> Iterator[tuple[float, int]]:
    """Fill (i, j, k, 1) from another volume; yields as `fill_image`.

    A voxel that is larger than those of the volume is the mean of points spread over it, or of
    labels the one that most of them have.
    """
    middle = (np.array(grid.shape) - 1) / 2
    ends = source.place(grid.stack_mm(np.concatenate([middle + np.eye(3), [middle]])))
    sides = np.linalg.norm(ends[:3] - ends[3], axis=1)
    per_axis = [
        (np.arange(n) + 0.5) / n - 0.5
        for n in (int(np.clip(math.ceil(side - 0.25), 1, _MOST_POINTS)) for side in sides)
    ]
    shifts = np.stack(np.meshgrid(*per_axis, indexing="ij"), axis=-1).reshape(-1, 3)
    none = np.zeros((2, 3))
    for share, voxels in grid.layers():
        samples, held = [], np.zeros(len(voxels), bool)
        for shift in shifts:
            places = Places.of(source.place(grid.stack_mm(voxels + shift)), exact=source.labels)
            held |= source.holds(places, none)
            samples.append(source.sample(places, none))
        i, j, k = voxels.T
        out[i, j, k] = most_common(samples) if source.labels else mean(samples, source.dtype)
        yield share, int(held.sum())
