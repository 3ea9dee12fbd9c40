"""What is aligned: sections, the stack of them, the MRI; and what the alignment returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sbr_core import geometry
from sbr_core.geometry import PlaneGrid, extent_px


@dataclass(frozen=True)
class StackSection:
    """A section as `prepare` left it.

    Attributes
    ----------
    name : its id.
    image : (rows, columns) float32, background 0, any scale.
    mask : (rows, columns) bool, tissue.
    position_mm : its z in the stack.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    position_mm: float

    def normalised(self) -> np.ndarray:
        """The image, the median of its tissue 1 and 3 the most; so stains of one stack compare."""
        image = np.where(self.mask, self.image, 0)
        return np.clip(image / max(np.median(self.image[self.mask]), 1e-6), 0, 3)

    def tissue_mm(self, pixel_mm: float, step: int = 1) -> np.ndarray:
        """(n, 2) x, y of every `step`-th pixel of tissue, working mm."""
        return np.argwhere(self.mask)[::step, ::-1] * pixel_mm


@dataclass(frozen=True)
class Stack:
    """Sections of one brain, all of one pixel size.

    Attributes
    ----------
    sections : sorted by position.
    pixel_mm : side of a pixel of every section (the working pixel).
    """

    sections: Sequence[StackSection]
    pixel_mm: float

    @property
    def positions_mm(self) -> np.ndarray:
        """(n,) z of each section."""
        return np.array([s.position_mm for s in self.sections])

    @property
    def length_mm(self) -> float:
        return self.sections[-1].position_mm - self.sections[0].position_mm

    def thinned(self, every: int) -> Stack:
        """The stack of every `every`-th section."""
        return replace(self, sections=self.sections[::every])

    def with_spacing(self, factor: float) -> Stack:
        """The stack with its positions multiplied by `factor`."""
        return replace(
            self, sections=[replace(s, position_mm=s.position_mm * factor) for s in self.sections]
        )


@dataclass(frozen=True)
class Mri:
    """The MRI.

    Attributes
    ----------
    data, mask : [i, j, k], intensity of any scale, and bool (brain).
    world_from_voxel : (4, 4), RAS mm.
    """

    data: np.ndarray
    mask: np.ndarray
    world_from_voxel: np.ndarray

    @property
    def voxel_mm(self) -> np.ndarray:
        """(3,) side of a voxel along i, j, k."""
        return np.linalg.norm(self.world_from_voxel[:3, :3], axis=0)

    @property
    def longest_mm(self) -> float:
        """Diagonal of the box around the brain, which must not be empty."""
        return float(np.linalg.norm(extent_px(self.mask) * self.voxel_mm))


@dataclass(frozen=True)
class StackAlignment:
    """Result of `stack_fit.align_stack`.

    Attributes
    ----------
    stack_from_world : (4, 4) similarity, possibly with a reflection; RAS mm to stack mm.
    grid : plane grid that holds all tissue of the sections and of the MRI's planes.
    working_from_plane_mm : one (3, 3) per section.
    rounds : one dict of figures per round.
    costs : share of the misfit that remains of each section, NaN where nothing could be compared.
    """

    stack_from_world: np.ndarray
    grid: PlaneGrid
    working_from_plane_mm: list[np.ndarray]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    costs: Sequence[float] = ()


def tissue_centre_mm(mask: np.ndarray, pixel_mm: float) -> np.ndarray:
    """(x, y) of a mask's centroid, mm from the centre of pixel (0, 0)."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()]) * pixel_mm


def centred_affine(mask: np.ndarray, pixel_mm: float, centre_plane_mm: np.ndarray) -> np.ndarray:
    """(3, 3) working_from_plane_mm that puts the tissue's centroid at `centre_plane_mm`.

    It only translates.
    """
    return geometry.translation(*(tissue_centre_mm(mask, pixel_mm) - centre_plane_mm))


def centred_affines(stack: Stack) -> list[np.ndarray]:
    """`centred_affine` of all sections, to one point: how the stack lies before it was aligned."""
    half = max(max(s.mask.shape) for s in stack.sections) * stack.pixel_mm
    centre = np.array([half, half])
    return [centred_affine(s.mask, stack.pixel_mm, centre) for s in stack.sections]
