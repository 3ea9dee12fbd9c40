"""Where a stack is and how its sections lie in it, and how both share a 3D affine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sbr_core.algorithms.alignment.section_affine import SectionFit
from sbr_core.algorithms.alignment.stack import Mri, Stack, tissue_centre_mm
from sbr_core.algorithms.alignment.volumes import MARGIN_MM, POINTS_STEP
from sbr_core.errors import AlignmentError
from sbr_core.geometry import PlaneGrid, apply

_MOVED_STEP = 20
"""Of a section's tissue pixels, every this many are averaged over in `moved_mm`: some hundreds of
a section of human size, whose mean is known far better than what it is compared with."""


@dataclass(frozen=True)
class Placement:
    """One state of the fit.

    Attributes
    ----------
    stack_from_world : (4, 4) similarity, RAS mm to stack mm.
    affines : (3, 3) working_from_plane_mm of each section.
    """

    stack_from_world: np.ndarray
    affines: list[np.ndarray]

    def with_affines(self, affines: Sequence[np.ndarray], every: int = 1) -> Placement:
        """The placement with other affines of every `every`-th section."""
        joined = list(self.affines)
        joined[::every] = affines
        return replace(self, affines=joined)

    def with_fits(self, fits: Sequence[SectionFit], every: int = 1) -> Placement:
        """The placement with the fitted affines of every `every`-th section."""
        return self.with_affines([fit.working_from_plane_mm for fit in fits], every)


def no_fit(error: Exception) -> AlignmentError:
    """The error of a fit that ends in nonsense."""
    return AlignmentError(
        "align: the stack and the MRI do not come together; check orientation, position_mm,"
        f" pixel_size_mm and the MRI ({error})"
    )


def split_affine(
    stack_from_mri: np.ndarray, centre_stack_mm: np.ndarray
) -> tuple[np.ndarray, Callable[[float], np.ndarray]]:
    """Split a 3D affine into a similarity and what section affines can do.

    Parameters
    ----------
    stack_from_mri : (4, 4), determinant above 0.
    centre_stack_mm : (3,) the point that keeps its in-plane coordinates.

    Returns
    -------
    similarity : (4, 4) with the affine's third row.
    in_plane : position_mm -> (3, 3), such that the affine's (x, y) are
        in_plane(z) · (similarity's x, y). Its linear part is symmetric and the same for every z.

    Raises
    ------
    ValueError
        If the affine is a reflection or has no volume.
    """
    linear = stack_from_mri[:3, :3]
    if not np.linalg.det(linear) > 1e-6:
        raise ValueError(f"an affine of determinant {np.linalg.det(linear):g} is no alignment")
    normal = linear[2]
    scale = np.linalg.norm(normal)
    # any right-handed pair of directions across the normal
    first = np.cross(linear[1], normal)
    first /= np.linalg.norm(first)
    across = np.stack([first, np.cross(normal / scale, first)])
    stretch = linear[:2] @ across.T / scale
    drift = linear[:2] @ normal / scale**2
    # left polar decomposition: the rotation joins the similarity
    u, s, vt = np.linalg.svd(stretch)
    symmetric, rotation = (u * s) @ u.T, u @ vt
    similarity = np.eye(4)
    similarity[:2, :3] = scale * rotation @ across
    similarity[2] = stack_from_mri[2]
    centre_mri = apply(np.linalg.inv(stack_from_mri), centre_stack_mm)
    similarity[:2, 3] = centre_stack_mm[:2] - similarity[:2, :3] @ centre_mri

    def in_plane(position_mm: float) -> np.ndarray:
        matrix = np.eye(3)
        matrix[:2, :2] = symmetric
        offset = drift * (position_mm - centre_stack_mm[2])
        matrix[:2, 2] = centre_stack_mm[:2] - symmetric @ centre_stack_mm[:2] + offset
        return matrix

    return similarity, in_plane


def tissue_centre(stack: Stack, affines: Sequence[np.ndarray]) -> np.ndarray:
    """(3,) centroid of all tissue, stack mm."""
    centres = [
        [*apply(np.linalg.inv(a), tissue_centre_mm(s.mask, stack.pixel_mm)), s.position_mm]
        for s, a in zip(stack.sections, affines, strict=True)
    ]
    return np.average(centres, axis=0, weights=[s.mask.sum() for s in stack.sections])


def section_in_world(
    points_mm: np.ndarray,
    position_mm: float,
    working_from_plane_mm: np.ndarray,
    stack_from_world: np.ndarray,
) -> np.ndarray:
    """World points (..., 3), RAS mm, of a section's points (..., 2), working mm."""
    plane = apply(np.linalg.inv(working_from_plane_mm), points_mm)
    z = np.full((*plane.shape[:-1], 1), float(position_mm))
    return apply(np.linalg.inv(stack_from_world), np.concatenate([plane, z], axis=-1))


def moved_mm(stack: Stack, before: Placement, after: Placement) -> float:
    """Mean distance, in the world, that tissue moved between two placements."""
    distances = []
    for index, section in enumerate(stack.sections):
        points = section.tissue_mm(stack.pixel_mm, _MOVED_STEP)
        places = [
            section_in_world(points, section.position_mm, p.affines[index], p.stack_from_world)
            for p in (before, after)
        ]
        distances.append(np.linalg.norm(places[0] - places[1], axis=-1))
    return float(np.concatenate(distances).mean())


def on_plane_grid(stack: Stack, mri: Mri, placement: Placement) -> tuple[PlaneGrid, Placement]:
    """The grid that holds the tissue of all sections and the brain between the end positions.

    Returns
    -------
    grid : at the working pixel, with a margin on every side.
    placement : the one given, shifted in its planes so that the grid begins at (0, 0).
    """
    tissue = [
        apply(np.linalg.inv(a), s.tissue_mm(stack.pixel_mm, POINTS_STEP))
        for s, a in zip(stack.sections, placement.affines, strict=True)
    ]
    voxels = np.argwhere(mri.mask[::2, ::2, ::2]) * 2
    brain = apply(placement.stack_from_world @ mri.world_from_voxel, voxels)
    positions = stack.positions_mm
    within = brain[:, 2] >= positions[0] - MARGIN_MM
    within &= brain[:, 2] <= positions[-1] + MARGIN_MM
    points = np.concatenate([*tissue, brain[within, :2]])
    low, high = points.min(axis=0) - MARGIN_MM, points.max(axis=0) + MARGIN_MM
    columns, rows = np.ceil((high - low) / stack.pixel_mm).astype(int) + 1
    shift = np.eye(4)
    shift[:2, 3] = -low
    in_plane = np.linalg.inv(shift[np.ix_([0, 1, 3], [0, 1, 3])])
    shifted = Placement(
        shift @ placement.stack_from_world, [a @ in_plane for a in placement.affines]
    )
    return PlaneGrid((int(rows), int(columns)), stack.pixel_mm), shifted
