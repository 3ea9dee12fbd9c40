"""The demo's anatomy: the MNI152 average, its tissues and the depths of its cortex."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sbr_core import geometry

WHITE, GREY = 2, 3
_FLUID_T1 = 0.56
"""T1 of the template below which there is fluid, which has about 0.5 (white matter has 1)."""
_MARGIN_PX = 3
"""Around the brain on every side; cubic interpolation looks two voxels further."""
_TISSUE_SLOPE, _WHITE_SLOPE = 0.33, 0.44
"""Medians of the maps' gradients at their boundaries, per mm: what shifts a boundary by 1 mm. Where
a map is flat, as in sulci that are nearly closed, the same opens or closes them."""
_DEPTH_SIGMA_PX = 0.6
"""Smoothing of the depths, which are whole voxels in places and would show as steps of staining."""


@dataclass(frozen=True)
class Anatomy:
    """Maps of one brain on one grid, all (I, J, K) float32.

    Attributes
    ----------
    t1 : T1 contrast, 0 outside the skull-stripped brain, about 0.5 (fluid) to 1 (white matter).
    white : above 0 in white matter, below 0 in grey matter.
    tissue : above 0 in tissue, below 0 in fluid and outside.
    depth_pial_mm : distance from the nearest fluid or outside, within tissue.
    depth_white_mm : distance from the nearest white matter, outside it.
    template_from_voxel : (4, 4).
    """

    t1: np.ndarray
    white: np.ndarray
    tissue: np.ndarray
    depth_pial_mm: np.ndarray
    depth_white_mm: np.ndarray
    template_from_voxel: np.ndarray

    @cached_property
    def _splines(self) -> dict[str, np.ndarray]:
        """Coefficients of the maps that were sampled with order 3."""
        return {}

    def sample(self, name: str, template_mm: np.ndarray, order: int = 1) -> np.ndarray:
        """Values of the map `name` at points (..., 3) in template mm; returns (...) float32."""
        from scipy.ndimage import map_coordinates, spline_filter

        voxels = geometry.apply(np.linalg.inv(self.template_from_voxel), template_mm)
        outside = {"t1": 0.0, "white": -1.0, "tissue": -1.0}.get(name, 0.0)
        data = getattr(self, name)
        if order > 1:
            if name not in self._splines:
                self._splines[name] = spline_filter(data, order)
            data = self._splines[name]
        at = np.moveaxis(voxels, -1, 0)
        return map_coordinates(
            data, at, order=order, cval=outside, prefilter=False, output=np.float32
        )


def load_anatomy() -> Anatomy:
    """The MNI152 maps that ship inside nilearn (1 mm), with the depths of the cortex; seconds."""
    from nilearn.datasets import (
        load_mni152_gm_template,
        load_mni152_template,
        load_mni152_wm_template,
    )
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    image = load_mni152_template(resolution=1)
    t1 = image.get_fdata(dtype=np.float32)
    grey = load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32)
    white = load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32)

    inside = np.argwhere(t1 > 0)
    low, high = np.maximum(inside.min(0) - _MARGIN_PX, 0), inside.max(0) + 1 + _MARGIN_PX
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    t1, grey, white = t1[box], grey[box], white[box]
    template_from_voxel = np.array(image.affine, float)
    template_from_voxel[:3, 3] = geometry.apply(template_from_voxel, low.astype(float))

    # Sulci are closed in the average brain's tissue maps but still dark lines in its T1.
    tissue = np.minimum(grey + white - 0.5, (t1 - _FLUID_T1) * 4.0)
    more_white = white - grey

    def depth(region: np.ndarray) -> np.ndarray:
        """Smooth distance in mm into the region where a map is above 0, from its outline."""
        signed = distance_transform_edt(region > 0) - distance_transform_edt(region <= 0)
        return gaussian_filter(signed.astype(np.float32), _DEPTH_SIGMA_PX)

    return Anatomy(
        t1=t1,
        white=np.where(grey + white > 0.05, more_white, -1.0).astype(np.float32),
        tissue=tissue.astype(np.float32),
        depth_pial_mm=depth(tissue),
        depth_white_mm=depth(-np.where(tissue > 0, more_white, -1.0)),
        template_from_voxel=template_from_voxel,
    )


@dataclass(frozen=True)
class Shifts:
    """How far boundaries lie further out than in the maps, mm, at some points (...)."""

    pial_mm: np.ndarray
    white_mm: np.ndarray

    def tissue(self, tissue: np.ndarray, depth_pial_mm: np.ndarray) -> np.ndarray:
        """Values of the map `tissue` after the shift.

        Nothing grows by more than twice the shift: where the map is flat outside, as at the edge of
        the template's mask, the outline would become ragged.
        """
        most = _TISSUE_SLOPE * (depth_pial_mm + 2 * self.pial_mm) - tissue
        return tissue + np.minimum(_TISSUE_SLOPE * self.pial_mm, np.maximum(most, 0))

    def white(self, white: np.ndarray) -> np.ndarray:
        """Values of the map `white` after the shift."""
        return white + _WHITE_SLOPE * self.white_mm


def labels_at(
    anatomy: Anatomy, template_mm: np.ndarray, shifts: Shifts | None = None
) -> np.ndarray:
    """uint8 (...): 2 white, 3 grey matter, 0 neither, at points (..., 3) in template mm."""
    white, tissue = anatomy.sample("white", template_mm), anatomy.sample("tissue", template_mm)
    if shifts is not None:
        white = shifts.white(white)
        tissue = shifts.tissue(tissue, anatomy.sample("depth_pial_mm", template_mm))
    return np.where(tissue > 0, np.where(white > 0, WHITE, GREY), 0).astype(np.uint8)
