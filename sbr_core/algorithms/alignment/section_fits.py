"""The 2D affines of all sections to the MRI planes of a similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_dilation

from sbr_core import geometry
from sbr_core.algorithms.alignment.edge_start import laid_on, section_edges
from sbr_core.algorithms.alignment.section_affine import (
    AffineLimits,
    MaskedImage,
    SectionFit,
    fit_section_affine,
)
from sbr_core.algorithms.alignment.stack import Mri, Stack, tissue_centre_mm
from sbr_core.algorithms.alignment.stretch import smooth_stretch, stretch_of
from sbr_core.algorithms.planes import prefiltered_volume, resample_plane
from sbr_core.geometry import PlaneGrid, apply

_OUTLIER_DEG = 12.0
"""Turn against the neighbours above which a section is an outlier. The demo's sections lie within 5
degrees on their slides. Smaller, good sections would be fitted twice, which only takes time;
larger, torn ones would pass."""
_OUTLIER_SPREADS = 3.0
_LEAST_SPREAD = 0.01
"""A cost this many robust standard deviations above the neighbours' median makes an outlier, the
deviation being at least `_LEAST_SPREAD` (1 % of the misfit), since it may vanish by chance."""
_NEIGHBOURS = 6
"""To either side: a median over 12 holds although a few of them are torn as well."""
_FAR_MM = 10.0
"""Farther apart, two fits of an incomplete section are in two places; that of the lower cost may be
where less of it is compared."""


class MriPlanes:
    """The MRI on any plane of a stack, prefiltered for the planes' grid."""

    def __init__(self, mri: Mri, stack_from_world: np.ndarray, grid: PlaneGrid) -> None:
        self.grid = grid
        spacing_world_mm = grid.spacing_mm / geometry.similarity_scale(stack_from_world)
        # what lies well outside the brain goes; its blurred edge stays whole
        reach = max(1, round(2 * spacing_world_mm / mri.voxel_mm.min()))
        near = np.where(binary_dilation(mri.mask, iterations=reach), mri.data, 0)
        self._data = prefiltered_volume(near, mri.voxel_mm, spacing_world_mm)
        self._mask = mri.mask.astype(np.uint8)
        self._where = mri.world_from_voxel, stack_from_world, grid

    def image(self, position_mm: float) -> np.ndarray:
        """(rows, columns) intensity."""
        return resample_plane(self._data, *self._where, position_mm)

    def masked(self, position_mm: float) -> MaskedImage:
        """Intensity and brain."""
        mask = resample_plane(self._mask, *self._where, position_mm, order=0) > 0
        return MaskedImage(self.image(position_mm), mask, self.grid.spacing_mm)


def fit_sections(
    stack: Stack,
    priors: Sequence[np.ndarray],
    planes: MriPlanes,
    limits: AffineLimits,
    sigmas_mm: tuple[float, ...],
) -> list[SectionFit]:
    """One 2D fit per section, to the MRI planes of the present similarity.

    Parameters
    ----------
    priors : (3, 3) working_from_plane_mm of each section, to start from.
    """
    return [
        fit_section_affine(
            MaskedImage(section.image, section.mask, stack.pixel_mm),
            planes.masked(section.position_mm),
            prior,
            limits=limits,
            sigmas_mm=sigmas_mm,
        )
        for section, prior in zip(stack.sections, priors, strict=True)
    ]


def refit_outliers(
    stack: Stack,
    fits: Sequence[SectionFit],
    planes: MriPlanes,
    limits: AffineLimits,
    sigmas_mm: tuple[float, ...],
) -> list[SectionFit]:
    """The fits, those that differ from their neighbours tried again from where these lie.

    A torn section starts off its place, since its tissue's centre is not that of the whole, and may
    end far from it. An outlier (`outliers`) is laid on the two nearest sections that are none (by
    their edges, which a missing piece leaves alone) and fitted from there. The better of both fits
    is kept: neighbours give a start and are no part of the fit.

    Parameters
    ----------
    fits : of each section, by `fit_sections`.
    sigmas_mm : that they were made with; the last two serve again.
    """
    affines = [f.working_from_plane_mm for f in fits]
    linears = [stretch_of(a[:2, :2]) for a in affines]
    angles = np.array([np.arctan2(r[1, 0], r[0, 0]) for r, _ in linears])
    costs = np.nan_to_num(np.array([f.cost for f in fits]), nan=1.0)
    outlier, usual_angles = outliers(angles, costs)
    # half a section has no centre to start by; and a fit that found no step may have been far off
    outlier |= np.array([f.missing > 0 or f.moved_mm == 0 for f in fits])
    if not outlier.any() or outlier.sum() > len(outlier) / 2:
        return list(fits)
    positions = stack.positions_mm
    usual_logs = smooth_stretch(
        positions[~outlier], np.array([log for _, log in linears])[~outlier], positions
    )
    out = list(fits)
    for k in np.flatnonzero(outlier):
        inliers = np.flatnonzero(~outlier)
        nearest = inliers[np.argsort(np.abs(positions[inliers] - positions[k]))[:2]]
        wanted = np.mean(
            [
                section_edges(stack.sections[i], stack.pixel_mm, affines[i], planes.grid)
                for i in nearest
            ],
            axis=0,
        )
        section, usual = stack.sections[k], (usual_angles[k], usual_logs[k])
        start = laid_on(section, stack.pixel_mm, wanted, *usual, planes.grid)
        alone = Stack([section], stack.pixel_mm)
        (again,) = fit_sections(alone, [start], planes, limits, sigmas_mm[-2:])
        out[k] = better_fit(fits[k], again, tissue_centre_mm(section.mask, stack.pixel_mm))
    return out


def better_fit(first: SectionFit, laid: SectionFit, centre_mm: np.ndarray) -> SectionFit:
    """That which leaves less of the misfit; of an incomplete section far apart, that by its edges.

    Parameters
    ----------
    first, laid : from a start by the centre of the tissue, and by its edges.
    centre_mm : (2,) of the tissue, working mm.
    """
    at = [apply(np.linalg.inv(f.working_from_plane_mm), centre_mm) for f in (first, laid)]
    if (first.missing or laid.missing) and np.linalg.norm(at[0] - at[1]) > _FAR_MM:
        return laid
    return laid if laid.cost < np.nan_to_num(first.cost, nan=np.inf) else first


def outliers(angles: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which sections are turned against their neighbours, or fit much worse than they.

    Parameters
    ----------
    angles, costs : (n,) radians, and share of the misfit that remains.

    Returns
    -------
    outlier : (n,) bool.
    usual_angles : (n,) radians, the median of each section's neighbours.
    """
    n = len(costs)
    usual = np.empty(n)
    outlier = np.zeros(n, bool)
    for k in range(n):
        near = [i for i in range(max(0, k - _NEIGHBOURS), min(n, k + _NEIGHBOURS + 1)) if i != k]
        apart = np.angle(np.exp(1j * (angles[near] - angles[k])))
        usual[k] = angles[k] + np.median(apart)
        middle = np.median(costs[near])
        spread = max(1.48 * float(np.median(np.abs(costs[near] - middle))), _LEAST_SPREAD)
        turned = abs(np.median(apart)) > np.deg2rad(_OUTLIER_DEG)
        outlier[k] = turned or costs[k] > middle + _OUTLIER_SPREADS * spread
    return outlier, usual
