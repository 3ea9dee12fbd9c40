"""Cells per mm3 as a volume in the space of the MRI.

The cells of a voxel over the tissue of sections that was looked at there: both are put onto the
grid, smoothed with the same Gaussian and divided. So a gap between sections is filled from those
beside it, and the edge of the tissue looks no emptier than its middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sbr_core.geometry import apply
from sbr_core.io.volumes import Volume
from sbr_core.mapping.brain import Brain, Section
from sbr_core.mapping.regions import Tissue

_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))
_LEAST_TISSUE = 1e-3
"""Share of the most tissue at a voxel; less is none: so far beside it that a cell nearer than all
tissue would stand for many."""
_TRUNCATE = 3.0
"""Where the Gaussian ends, in standard deviations: what is further from all tissue is 0."""


@dataclass(frozen=True)
class Density:
    """A density that is filled.

    Attributes
    ----------
    world_from_voxel : (4, 4).
    cells, tissue_mm3 : [i, j, k] of each voxel.
    """

    world_from_voxel: np.ndarray
    cells: np.ndarray
    tissue_mm3: np.ndarray

    @classmethod
    def on(cls, shape: tuple[int, int, int], world_from_voxel: np.ndarray) -> Density:
        """An empty one on a grid of the MRI."""
        return cls(world_from_voxel, np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def add_cells(self, section: Section, points_px: np.ndarray) -> None:
        """Add cells (n, 2) of a section, px of its file."""
        self._add(self.cells, section, points_px, 1.0)

    def add_tissue(self, tissue: Tissue, thickness_mm: float) -> None:
        """Add the tissue that a section was counted in."""
        for points_px in tissue.middles_px():
            weight = tissue.square_mm2 * thickness_mm
            self._add(self.tissue_mm3, tissue.section, points_px, weight)

    def _add(
        self, onto: np.ndarray, section: Section, points_px: np.ndarray, weight: float
    ) -> None:
        voxel_from_world = np.linalg.inv(self.world_from_voxel)
        voxels = np.rint(apply(voxel_from_world, section.to_mri(points_px))).astype(np.int64)
        inside = np.all((voxels >= 0) & (voxels < onto.shape), axis=1)
        flat = np.ravel_multi_index(tuple(voxels[inside].T), onto.shape)
        places, counts = np.unique(flat, return_counts=True)
        onto.reshape(-1)[places] += (counts * weight).astype(np.float32)

    def per_mm3(self, brain: Brain, fwhm_mm: float) -> Volume:
        """Cells per mm3, float32; 0 outside of the MRI's mask and where no tissue is near.

        Parameters
        ----------
        fwhm_mm : full width at half maximum of the Gaussian, mm of the MRI; 0 for none.
        """
        spacing_mm = np.linalg.norm(self.world_from_voxel[:3, :3], axis=0)
        sigma = fwhm_mm * _SIGMA_PER_FWHM / spacing_mm
        cells, tissue = self.cells, self.tissue_mm3
        if fwhm_mm > 0:
            how = {"sigma": sigma, "mode": "constant", "truncate": _TRUNCATE}
            cells, tissue = (ndimage.gaussian_filter(array, **how) for array in (cells, tissue))
        # what is left of rounding in single precision is no tissue
        there = tissue > _LEAST_TISSUE * tissue.max()
        stack_from_voxel = brain.stack_from_mri @ self.world_from_voxel
        for layer in range(len(there)):
            voxels = np.argwhere(there[layer])
            voxels = np.column_stack([np.full(len(voxels), layer), voxels])
            there[layer][there[layer]] = brain.in_brain(apply(stack_from_voxel, voxels))
        density = np.divide(cells, tissue, out=np.zeros_like(cells), where=there)
        return Volume(density, self.world_from_voxel)
