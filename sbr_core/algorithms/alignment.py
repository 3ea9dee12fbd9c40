"""The 3D similarity between a stack of sections and an MRI, alternated with section affines.

Who explains what, and why nothing drifts
-----------------------------------------
Sections carry their own 2D affines, so a stack can be turned, stretched and sheared in its planes
either by the similarity or by all affines together. What no section affine can do is move a point
along z. So the two share the work like this:

* Each round fits the stack volume, built with the current section affines, to the MRI by ANTs
  with a full 3D affine M (stack mm from MRI mm). Its third row says which MRI point lies at which
  position: that row *is* the similarity's third row, direction, scale and offset. The scale is
  therefore set by ``position_mm`` alone.
* What is left of M is, exactly, an in-plane affine that changes linearly with z:
  (x, y) = P (x', y') + c z + d, with P symmetric. It goes to the section affines
  (`split_affine`), so no part of a fit is lost between rounds.
* P symmetric leaves common rotation to the similarity, d its translation: of all
  equivalent splits each round takes this one. At the end the origin moves to the corner of the
  plane grid.
* Rounds of ANTs are followed by joint Gauss-Newton steps on what only the similarity can do
  (offset and scale along z, two tilts), every section's affine answering as if fitted again
  (`_plane_step`). The step at which the sections fit their planes best is the one that is kept.
* A stretch of a single section is drawn to that of its neighbours, robustly (`smooth_stretch`),
  not to its own last value; it cannot walk away round by round.
* Curvature of the stack (the "banana": translations that bend with z) is anchored by the MRI
  planes, to which every section is fitted; sections are never chained to their neighbours.

Orientation
-----------
Where the stack lies, `pose_search` finds at low resolution, anywhere or near the anatomical
letters. The nearest letters are a signed permutation, applied to the MRI's world before anything
is refined: ANTs sees two right-handed or two left-handed brains alike and fits only maps of
positive determinant. Nothing here chooses handedness.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation

from sbr_core import geometry
from sbr_core.algorithms.planes import prefiltered_volume, resample_plane, sample_volume
from sbr_core.algorithms.pose_search import Pose, Scene, mri_scene, refine, search, stretch_along
from sbr_core.algorithms.section_affine import (
    AffineLimits,
    SectionFit,
    fit_section_affine,
    plane_equations,
    stretch_of,
    with_stretch,
)
from sbr_core.algorithms.sections import grid_px, prefilter, resample_section
from sbr_core.errors import AlignmentError
from sbr_core.geometry import PlaneGrid, apply

_MARGIN_MM = 5.0
_ORDER_MM = 25.0, 1.3  # shortest length of a stack of unknown spacing, ratio of lengths
_ORDER_STEPS = 4
_COARSE_MM = 3.0
_BINS = 32
_PLANE_STEPS = 10
_SETTLED_MM = 0.03
_STEP_SIGMA_MM = 1.5
_JOINT_SIGMAS_MM = (3.0, 1.5)
_FINAL_SIGMAS_MM = (3.0, 1.5, 0.8)
_JOINT_SECTIONS = 48
_STRETCH_REACH_MM = 5.0
_HELD_WEIGHT = 30.0
_ODD_DEG = 12.0


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


@dataclass(frozen=True)
class Brain:
    """The MRI.

    Attributes
    ----------
    data, mask : [i, j, k], intensity and bool.
    world_from_voxel : (4, 4), RAS mm.
    """

    data: np.ndarray
    mask: np.ndarray
    world_from_voxel: np.ndarray

    @property
    def voxel_mm(self) -> np.ndarray:
        return np.linalg.norm(self.world_from_voxel[:3, :3], axis=0)


@dataclass(frozen=True)
class StackAlignment:
    """Result of `align_stack`.

    Attributes
    ----------
    stack_from_world : (4, 4) similarity, possibly with a reflection; RAS mm to stack mm.
    grid : plane grid that holds all tissue of the sections and of the MRI's planes.
    working_from_plane_mm : one (3, 3) per section.
    rounds : one dict of figures per round.
    """

    stack_from_world: np.ndarray
    grid: PlaneGrid
    working_from_plane_mm: list[np.ndarray]
    rounds: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Grid3:
    """A regular 3D grid, [x, y, z]: point = origin + index * spacing, mm."""

    shape: tuple[int, int, int]
    spacing_mm: float
    origin_mm: np.ndarray

    def mm_from_index(self) -> np.ndarray:
        matrix = np.diag([*[self.spacing_mm] * 3, 1.0])
        matrix[:3, 3] = self.origin_mm
        return matrix

    def points(self) -> np.ndarray:
        """(nx, ny, nz, 3), mm."""
        axes = [np.arange(n) for n in self.shape]
        index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        return self.origin_mm + index * self.spacing_mm


@dataclass(frozen=True)
class _Image3:
    """Intensity, tissue and the voxels where there is data at all, on a `_Grid3`."""

    grid: _Grid3
    data: np.ndarray
    tissue: np.ndarray
    known: np.ndarray


def centred_affine(
    mask: np.ndarray, working_pixel_mm: float, centre_plane_mm: np.ndarray
) -> np.ndarray:
    """(3, 3) working_from_plane_mm that puts the tissue's centroid at `centre_plane_mm`.

    It only translates.
    """
    return geometry.translation(*(tissue_centre_mm(mask, working_pixel_mm) - centre_plane_mm))


def centred_affines(sections: Sequence[StackSection], working_pixel_mm: float) -> list[np.ndarray]:
    """`centred_affine` of all sections, to one point: how the stack lies before it was aligned."""
    half = max(max(s.mask.shape) for s in sections) * working_pixel_mm
    return [centred_affine(s.mask, working_pixel_mm, np.array([half, half])) for s in sections]


def nearest_orientation(world_from_stack: np.ndarray) -> np.ndarray:
    """The signed permutation (3, 3) nearest to a (4, 4) affine, of the same handedness."""
    linear = world_from_stack[:3, :3]
    u, _, vt = np.linalg.svd(linear)
    handedness = np.sign(np.linalg.det(linear))
    best, most = np.eye(3), -np.inf
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(axes), range(3)] = signs
            alike = float(np.sum(matrix * (u @ vt)))
            if np.linalg.det(matrix) * handedness > 0 and alike > most:
                best, most = matrix, alike
    return best


def coarse_scenes(
    sections: Sequence[StackSection], working_pixel_mm: float, brain: Brain
) -> tuple[Scene, Scene]:
    """(stack, MRI) for `pose_search.search`, the stack as `centred_affines` lay it out."""
    affines = centred_affines(sections, working_pixel_mm)
    volume = _stack_volume(sections, affines, working_pixel_mm, _COARSE_MM)
    stack = Scene(
        volume.data,
        volume.tissue.astype(np.float32),
        np.array(volume.known),
        volume.grid.mm_from_index(),
    )
    return stack, mri_scene(brain.data, brain.mask, brain.world_from_voxel, _COARSE_MM)


def spacing_of_order(
    sections: Sequence[StackSection],
    working_pixel_mm: float,
    brain: Brain,
    *,
    near: np.ndarray | None,
    max_rotation_deg: float,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[float, list[Pose]]:
    """World mm that one unit of `position_mm` stands for, where it is only an order.

    Stacks of several lengths, from `_ORDER_MM[0]` up to the MRI's longest extent, are searched
    for. The one that fits best is made longer or shorter until its pose stretches it no more than
    across; stretch costs a pose something, so that one step does not go all the way.

    Parameters
    ----------
    near, max_rotation_deg : as for `pose_search.search`.

    Returns
    -------
    mm_per_position, and the poses of the best length, of the stack with positions in mm.

    Raises
    ------
    AlignmentError
        No length with a pose.
    """
    corners = apply(brain.world_from_voxel, np.argwhere(brain.mask)[::50])
    longest = float(np.linalg.norm(np.ptp(corners, axis=0)))
    units = sections[-1].position_mm - sections[0].position_mm
    n = 1 + int(np.ceil(np.log(longest / _ORDER_MM[0]) / np.log(_ORDER_MM[1])))
    best: tuple[float, list[Pose]] | None = None

    def scenes_at(unit_mm: float) -> tuple[Scene, Scene]:
        scaled = [replace(s, position_mm=s.position_mm * unit_mm) for s in sections]
        return coarse_scenes(scaled, working_pixel_mm, brain)

    for number, unit_mm in enumerate(_ORDER_MM[0] * _ORDER_MM[1] ** np.arange(n) / units, 1):
        scenes = scenes_at(unit_mm)
        poses = search(*scenes, near=near, max_rotation_deg=max_rotation_deg)
        if poses:
            progress(f"length {number} of {n}: the stack explains {1 - poses[0].cost:.1%}")
            if best is None or poses[0].cost < best[1][0].cost:
                best = unit_mm, poses
    if best is None:
        raise AlignmentError("align: no length of the stack fits the MRI; check orientation")
    unit_mm, poses = best
    pose = poses[0]
    for _ in range(_ORDER_STEPS):
        longer = float(np.exp(1.5 * stretch_along(pose)))
        unit_mm *= longer
        there = pose.world_from_stack @ np.diag([1.0, 1.0, 1 / longer, 1.0])
        pose = refine(*scenes_at(unit_mm), replace(pose, world_from_stack=there))
    return unit_mm * float(np.linalg.norm(pose.world_from_stack[:3, 2])), poses


def tissue_centre_mm(mask: np.ndarray, pixel_mm: float) -> np.ndarray:
    """(x, y) of a mask's centroid, mm from the centre of pixel (0, 0)."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()]) * pixel_mm


def _no_fit(error: Exception) -> AlignmentError:
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


def align_stack(
    sections: Sequence[StackSection],
    working_pixel_mm: float,
    brain: Brain,
    start: np.ndarray,
    *,
    spacing_mm: float,
    rounds: int,
    limits: AffineLimits,
    seed: int,
    progress: Callable[[str], None] = lambda line: None,
) -> StackAlignment:
    """Fit stack and MRI to each other: similarity and one affine per section.

    Parameters
    ----------
    sections : sorted by position; at least three.
    start : (4, 4) affine, world from the stack as `centred_affines` lay it out, that is near
        the truth; `find_start` finds one. Its handedness stays as it is.
    spacing_mm : voxel of the volumes that ANTs compares.
    rounds : how often the 3D fit and the section fits alternate.
    limits : of each section's stretch, against the stack's median one.
    seed : of ANTs' sampling. ANTs runs on one thread, so equal input gives equal output on one
        machine and build; another processor may round differently in the last digits.
    """
    world_from_oriented = np.eye(4)
    world_from_oriented[:3, :3] = nearest_orientation(start)
    oriented_from_world = world_from_oriented.T  # a signed permutation
    affines = centred_affines(sections, working_pixel_mm)
    centre = _tissue_centre(sections, affines, working_pixel_mm)
    try:
        stack_from_oriented, in_plane = split_affine(
            np.linalg.inv(start) @ world_from_oriented, centre
        )
    except ValueError as error:
        raise _no_fit(error) from error
    affines = [a @ in_plane(s.position_mm) for a, s in zip(affines, sections, strict=True)]
    moving = _oriented_mri(brain, world_from_oriented, spacing_mm)
    report: list[dict[str, Any]] = []

    def placed(
        stack_from_oriented: np.ndarray, affines: list[np.ndarray], pixel_mm: float
    ) -> tuple[np.ndarray, list[np.ndarray], _MriPlanes]:
        """Both on the plane grid that holds them now, and the MRI's planes on it."""
        stack_from_world = stack_from_oriented @ oriented_from_world
        grid, shift = _plane_grid(sections, affines, working_pixel_mm, brain, stack_from_world)
        return (
            shift @ stack_from_oriented,
            [a @ np.linalg.inv(_in_plane_part(shift)) for a in affines],
            _MriPlanes(brain, shift @ stack_from_world, grid.at_spacing(pixel_mm)),
        )

    def tell(what: str, cost: float, before: tuple, after: tuple, kept: bool) -> None:
        stacked = _stack_volume(sections, after[1], working_pixel_mm, spacing_mm)
        information, dice = _agreement(stacked, moving, after[0])
        moved = _moved_mm(
            sections,
            working_pixel_mm,
            *((s @ oriented_from_world, a) for s, a in (before, after)),
        )
        report.append(
            {
                "round": len(report) + 1,
                "volume_fit": what,
                "mutual_information": information,
                "mask_dice": dice,
                "section_cost": cost,
                "moved_mm": moved,
                "world_mm_per_stack_mm": 1 / geometry.similarity_scale(after[0]),
                "kept": kept,
            }
        )
        progress(
            f"round {len(report)}: mutual information {information:.3f}, mask Dice {dice:.3f},"
            f" section cost {cost:.4f}"
        )

    for number in range(1, rounds + 1):
        before = stack_from_oriented, affines
        centre = _tissue_centre(sections, affines, working_pixel_mm)
        fixed = _stack_volume(sections, affines, working_pixel_mm, spacing_mm)
        shrink = (3, 2, 1) if number == 1 else (2, 1)
        fitted = _ants_fit(fixed, moving, stack_from_oriented, "Affine", shrink, seed)
        try:
            stack_from_oriented, in_plane = split_affine(fitted, centre)
        except ValueError as error:
            raise _no_fit(error) from error
        affines = [a @ in_plane(s.position_mm) for a, s in zip(affines, sections, strict=True)]
        if number > 1:
            affines = _with_smooth_stretch(sections, affines, working_pixel_mm)
        stack_from_oriented, affines, planes = placed(
            stack_from_oriented, affines, 2 * working_pixel_mm
        )
        sigmas_mm = (8.0, 4.0, 2.0) if number == 1 else (3.0, 1.5)
        fits = _fit_sections(sections, affines, working_pixel_mm, planes, limits, sigmas_mm)
        fits = _second_thoughts(sections, fits, working_pixel_mm, planes, limits, sigmas_mm)
        affines = [f.working_from_plane_mm for f in fits]
        cost = float(np.nanmean([f.cost for f in fits]))
        tell("ANTs affine, split", cost, before, (stack_from_oriented, affines), True)

    # the joint steps look at some sections, evenly spread; the others go along
    every = int(np.ceil(len(sections) / _JOINT_SECTIONS))
    some = sections[::every]
    best: _State | None = None
    gain = 1.0
    for _ in range(_PLANE_STEPS + 1):
        if best is None:
            before = stack_from_oriented, list(affines)
        else:
            before = best.stack_from_oriented, best.affines
            centre = _tissue_centre(sections, best.affines, working_pixel_mm)
            step = _plane_step(some, best, working_pixel_mm, centre, limits, gain)
            stack_from_oriented, in_plane = split_affine(step @ best.stack_from_oriented, centre)
            affines = [
                a @ in_plane(s.position_mm) for a, s in zip(best.affines, sections, strict=True)
            ]
        affines[::every] = _with_smooth_stretch(some, affines[::every], working_pixel_mm)
        stack_from_oriented, affines, planes = placed(
            stack_from_oriented, affines, working_pixel_mm
        )
        fits = _fit_sections(
            some, affines[::every], working_pixel_mm, planes, limits, _JOINT_SIGMAS_MM
        )
        affines[::every] = [f.working_from_plane_mm for f in fits]
        cost = float(np.nanmean([f.cost for f in fits]))
        state = _State(cost, stack_from_oriented, affines, planes, fits)
        better = best is None or cost < best.cost
        after = stack_from_oriented, affines
        tell("joint step of planes and sections", cost, before, after, better)
        if better:
            settled = best is not None and report[-1]["moved_mm"] < _SETTLED_MM
            best, gain = state, min(gain * 1.5, 4.0)
            if settled:
                break
        elif gain > 1:
            gain = 1.0  # too far: once more from the best, by the plain step
        else:
            break

    affines = list(best.affines)
    affines = _with_smooth_stretch(sections, affines, working_pixel_mm, affines[::every], every)
    stack_from_oriented, affines, planes = placed(
        best.stack_from_oriented, affines, working_pixel_mm
    )
    held = replace(limits, prior_weight=_HELD_WEIGHT * limits.prior_weight)
    fits = _fit_sections(sections, affines, working_pixel_mm, planes, held, _FINAL_SIGMAS_MM)
    affines = [f.working_from_plane_mm for f in fits]
    stack_from_world = stack_from_oriented @ oriented_from_world
    grid, shift = _plane_grid(sections, affines, working_pixel_mm, brain, stack_from_world)
    affines = [a @ np.linalg.inv(_in_plane_part(shift)) for a in affines]
    return StackAlignment(shift @ stack_from_world, grid, affines, report)


def _in_plane_part(matrix: np.ndarray) -> np.ndarray:
    """The (3, 3) on (x, y) of a (4, 4) that leaves z alone."""
    return matrix[np.ix_([0, 1, 3], [0, 1, 3])]


def _tissue_points(section: StackSection, pixel_mm: float, step: int = 1) -> np.ndarray:
    """(n, 2): every `step`-th tissue pixel, working mm."""
    return np.argwhere(section.mask)[::step, ::-1] * pixel_mm


def _tissue_centre(
    sections: Sequence[StackSection], affines: Sequence[np.ndarray], pixel_mm: float
) -> np.ndarray:
    """(3,) centroid of all tissue, stack mm."""
    centres = [
        [*apply(np.linalg.inv(a), tissue_centre_mm(s.mask, pixel_mm)), s.position_mm]
        for s, a in zip(sections, affines, strict=True)
    ]
    return np.average(centres, axis=0, weights=[s.mask.sum() for s in sections])


def _plane_grid(
    sections: Sequence[StackSection],
    affines: Sequence[np.ndarray],
    working_pixel_mm: float,
    brain: Brain,
    stack_from_world: np.ndarray,
) -> tuple[PlaneGrid, np.ndarray]:
    """The grid that holds the tissue of all sections and the brain between the end positions.

    Returns
    -------
    grid : with a margin on every side.
    shift : (4, 4) in-plane translation that brings stack mm onto it.
    """
    found = [
        apply(np.linalg.inv(a), _tissue_points(s, working_pixel_mm, 5))
        for s, a in zip(sections, affines, strict=True)
    ]
    voxels = np.argwhere(brain.mask[::2, ::2, ::2]) * 2
    points = apply(stack_from_world @ brain.world_from_voxel, voxels)
    ends = sections[0].position_mm - _MARGIN_MM, sections[-1].position_mm + _MARGIN_MM
    found.append(points[(points[:, 2] >= ends[0]) & (points[:, 2] <= ends[1]), :2])
    every = np.concatenate(found)
    low, high = every.min(axis=0) - _MARGIN_MM, every.max(axis=0) + _MARGIN_MM
    columns, rows = np.ceil((high - low) / working_pixel_mm).astype(int) + 1
    shift = np.eye(4)
    shift[:2, 3] = -low
    return PlaneGrid((int(rows), int(columns)), working_pixel_mm), shift


def _normalised(section: StackSection) -> np.ndarray:
    """Intensity with the tissue's median at 1, so that stains of one stack compare."""
    image = np.where(section.mask, section.image, 0)
    return np.clip(image / max(np.median(section.image[section.mask]), 1e-6), 0, 3)


def _stack_volume(
    sections: Sequence[StackSection],
    affines: Sequence[np.ndarray],
    working_pixel_mm: float,
    spacing_mm: float,
) -> _Image3:
    """The stack as a volume at isotropic spacing: sections averaged, or interpolated along z.

    Each slice is the mean of the sections around it, weighted by a hat that is as wide as the
    spacing, or as 1.5 times the usual distance of sections where that is more; a slice out of
    reach of any section is not `known`.
    """
    corners = np.concatenate(
        [
            apply(np.linalg.inv(a), _tissue_points(s, working_pixel_mm, 5))
            for s, a in zip(sections, affines, strict=True)
        ]
    )
    low, high = corners.min(axis=0) - 2 * _MARGIN_MM, corners.max(axis=0) + 2 * _MARGIN_MM
    positions = np.array([s.position_mm for s in sections])
    columns, rows = np.ceil((high - low) / spacing_mm).astype(int) + 1
    n_slices = int(np.ceil((positions[-1] - positions[0]) / spacing_mm)) + 1
    grid = _Grid3((int(columns), int(rows), n_slices), spacing_mm, np.array([*low, positions[0]]))
    reach = max(spacing_mm, 1.5 * float(np.median(np.diff(positions))))
    total = np.zeros((n_slices, rows, columns, 2), np.float32)
    weight_sum = np.zeros(n_slices)
    points = low + grid_px((rows, columns)) * spacing_mm
    for section, affine in zip(sections, affines, strict=True):
        px = apply(geometry.scaling(1 / working_pixel_mm) @ affine, points)
        ratio = spacing_mm / working_pixel_mm
        plane = np.stack(
            [
                resample_section(prefilter(image, ratio), px)
                for image in (_normalised(section), section.mask.astype(np.float32))
            ],
            axis=-1,
        )
        slices = positions[0] + np.arange(n_slices) * spacing_mm
        weights = np.maximum(1 - np.abs(slices - section.position_mm) / reach, 0)
        for k in np.flatnonzero(weights):
            total[k] += np.float32(weights[k]) * plane
        weight_sum += weights
    total /= np.maximum(weight_sum, 1e-6)[:, None, None, None].astype(np.float32)
    volume = total.transpose(2, 1, 0, 3)  # [z, y, x] to [x, y, z]
    known = np.broadcast_to(weight_sum > 1e-3, volume.shape[:3])
    return _Image3(grid, volume[..., 0], volume[..., 1] > 0.5, known)


def _oriented_mri(brain: Brain, world_from_oriented: np.ndarray, spacing_mm: float) -> _Image3:
    """The masked MRI on a grid along the oriented axes; known on the brain and just around it."""
    oriented_from_voxel = np.linalg.inv(world_from_oriented) @ brain.world_from_voxel
    extent = apply(oriented_from_voxel, np.argwhere(brain.mask))
    low, high = extent.min(axis=0) - 2 * _MARGIN_MM, extent.max(axis=0) + 2 * _MARGIN_MM
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing_mm) + 1)
    grid = _Grid3(shape, spacing_mm, low)
    voxels = apply(np.linalg.inv(oriented_from_voxel), grid.points())
    mask = brain.mask.astype(np.float32)
    data = np.where(brain.mask, brain.data, 0) / np.quantile(brain.data[brain.mask], 0.99)
    data, mask = (
        sample_volume(prefiltered_volume(image, brain.voxel_mm, spacing_mm), voxels)
        for image in (data, mask)
    )
    tissue = mask > 0.5
    known = binary_dilation(tissue, iterations=max(1, round(_MARGIN_MM / spacing_mm)))
    return _Image3(grid, np.clip(data, 0, 1.5), tissue, known)


def _on_stack(fixed: _Image3, moving: _Image3, stack_from_oriented: np.ndarray):
    """(data, tissue, known) of the MRI on the stack's grid."""
    index = np.linalg.inv(stack_from_oriented @ moving.grid.mm_from_index())
    voxels = apply(index, fixed.grid.points())
    return (
        sample_volume(moving.data, voxels),
        sample_volume(moving.tissue.astype(np.uint8), voxels, order=0) > 0,
        sample_volume(moving.known.astype(np.uint8), voxels, order=0) > 0,
    )


def _agreement(
    fixed: _Image3, moving: _Image3, stack_from_oriented: np.ndarray
) -> tuple[float, float]:
    """(normalised mutual information, mask Dice), over all known slices of the stack.

    Judged wherever either has tissue, so that tissue on nothing counts against a pose.
    """
    data, tissue, _ = _on_stack(fixed, moving, stack_from_oriented)
    either = fixed.known & (fixed.tissue | tissue)
    dice = (
        2
        * np.sum(fixed.tissue & tissue & fixed.known)
        / max(1, np.sum(fixed.tissue & fixed.known) + np.sum(tissue & fixed.known))
    )
    return normalised_mutual_information(fixed.data[either], data[either]), float(dice)


def normalised_mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """(H(a) + H(b)) / H(a, b) of two lists of intensities: 1 for independent, 2 for the same.

    Source: Studholme, Hill, Hawkes: An overlap invariant entropy measure of 3D medical image
    alignment, Pattern Recognition 1999, eq. 8.
    """
    joint, _, _ = np.histogram2d(a.ravel(), b.ravel(), bins=_BINS)
    joint /= max(joint.sum(), 1)

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-np.sum(p * np.log(p)))

    both = entropy(joint)
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / both if both > 0 else 1.0


def _ants_fit(
    fixed: _Image3,
    moving: _Image3,
    stack_from_oriented: np.ndarray,
    kind: str,
    shrink: tuple[int, ...],
    seed: int,
) -> np.ndarray:
    """Refine (4, 4) stack from oriented by ANTs: Mattes mutual information over the masks.

    Parameters
    ----------
    kind : ``Similarity`` or ``Affine``.
    shrink : factors of the levels, coarse to fine; each is smoothed by half its factor.
    """
    # ITK reads this when it is loaded: sums over threads differ in their last digits
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    import ants

    ants.config.set_ants_deterministic(True, seed + 1)  # ANTs takes 0 for "by the clock"
    # both origins at the centre of the stack's tissue, so that turning does not also shift
    centre = fixed.grid.points()[fixed.tissue & fixed.known].mean(axis=0)
    oriented_from_stack = np.linalg.inv(stack_from_oriented)
    origins = centre, apply(oriented_from_stack, centre)
    images, masks = [], []
    for image, origin in zip((fixed, moving), origins, strict=True):
        place = {
            "origin": tuple(image.grid.origin_mm - origin),
            "spacing": (image.grid.spacing_mm,) * 3,
        }
        images.append(ants.from_numpy(np.ascontiguousarray(image.data, np.float32), **place))
        reach = max(1, round(_MARGIN_MM / image.grid.spacing_mm))
        near = binary_dilation(image.tissue, iterations=reach) & image.known
        masks.append(ants.from_numpy(near.astype(np.float32), **place))
    with tempfile.TemporaryDirectory() as folder:
        start = str(Path(folder) / "start.mat")
        transform = ants.create_ants_transform(
            transform_type="AffineTransform", dimension=3, precision="double",
            matrix=oriented_from_stack[:3, :3], translation=np.zeros(3), center=np.zeros(3),
        )  # fmt: skip
        ants.write_transform(transform, start)
        try:
            result = ants.registration(
                images[0],
                images[1],
                type_of_transform=kind,
                initial_transform=[start],
                outprefix=str(Path(folder) / "fit"),
                mask=masks[0],
                moving_mask=masks[1],
                mask_all_stages=True,
                aff_metric="mattes",
                aff_sampling=_BINS,
                aff_random_sampling_rate=1.0 if kind == "Similarity" else 0.5,
                aff_iterations=(200,) * len(shrink),
                aff_shrink_factors=shrink,
                aff_smoothing_sigmas=tuple(0.5 * s for s in shrink),
                singleprecision=False,
            )
        except RuntimeError as error:
            raise _no_fit(error) from error
        (name,) = result["fwdtransforms"]
        fitted = ants.read_transform(name, precision="double")
        parameters = np.array(fitted.parameters)
        fixed_centre = np.array(fitted.fixed_parameters)
    linear = parameters[:9].reshape(3, 3)
    offset = parameters[9:] + fixed_centre - linear @ fixed_centre
    moving_from_fixed = np.eye(4)
    moving_from_fixed[:3, :3] = linear
    moving_from_fixed[:3, 3] = offset + origins[1] - linear @ origins[0]
    return np.linalg.inv(moving_from_fixed)


def smooth_stretch(
    positions_mm: np.ndarray, log_stretch: np.ndarray, at_mm: np.ndarray
) -> np.ndarray:
    """Stretches as they change along the stack, without those that stand alone.

    A straight line is fitted around each position (Gaussian weights, `_STRETCH_REACH_MM` or five
    sections wide, whichever is more); stretches far from it count little (Geman and McClure,
    four passes).

    Parameters
    ----------
    positions_mm : (n,), increasing.
    log_stretch : (n, 2, 2), symmetric.
    at_mm : (m,) where it is asked for.

    Returns
    -------
    (m, 2, 2).
    """
    z = np.asarray(positions_mm, float)
    values = log_stretch.reshape(len(z), 4)
    reach = _STRETCH_REACH_MM
    if len(z) > 1:
        reach = max(reach, 5 * float(np.median(np.diff(z))))

    def fitted(trust: np.ndarray, at: np.ndarray) -> np.ndarray:
        out = np.empty((len(at), 4))
        for k, here in enumerate(at):
            apart = (z - here) / reach
            weight = np.exp(-0.5 * apart**2) * trust + 1e-9
            base = np.stack([np.ones(len(z)), apart], axis=1)
            # the slope is held back, so that few sections do not extrapolate
            normal = (base * weight[:, None]).T @ base + np.diag([0.0, 0.5 * weight.sum() + 1e-9])
            out[k] = np.linalg.solve(normal, (base * weight[:, None]).T @ values)[0]
        return out

    smooth = np.tile(np.median(values, axis=0), (len(z), 1))
    for _ in range(4):
        distance = np.linalg.norm(values - smooth, axis=1)
        scale = max(2.5 * float(np.median(distance)), 1e-4)
        trust = 1 / (1 + (distance / scale) ** 2) ** 2
        smooth = fitted(trust, z)
    return fitted(trust, np.asarray(at_mm, float)).reshape(-1, 2, 2)


def _with_smooth_stretch(
    sections: Sequence[StackSection],
    affines: Sequence[np.ndarray],
    working_pixel_mm: float,
    fitted: Sequence[np.ndarray] | None = None,
    every: int = 1,
) -> list[np.ndarray]:
    """Each affine with its own rotation and place of the tissue, and its neighbours' stretch.

    `fitted` are the affines to take stretches from, those of every `every`-th section; else all.
    """
    parts = [stretch_of(a[:2, :2]) for a in affines]
    logs = [stretch_of(a[:2, :2])[1] for a in (affines if fitted is None else fitted)]
    positions = np.array([s.position_mm for s in sections])
    common = smooth_stretch(positions[::every], np.array(logs), positions)
    out = []
    for section, affine, (rotation, _), log in zip(sections, affines, parts, common, strict=True):
        at_working = tissue_centre_mm(section.mask, working_pixel_mm)
        at_plane = apply(np.linalg.inv(affine), at_working)
        matrix = np.eye(3)
        matrix[:2, :2] = with_stretch(rotation, log)
        matrix[:2, 2] = at_working - matrix[:2, :2] @ at_plane
        out.append(matrix)
    return out


class _MriPlanes:
    """The MRI on any plane of a stack, prefiltered for the planes' grid."""

    def __init__(self, brain: Brain, stack_from_world: np.ndarray, grid: PlaneGrid) -> None:
        self.grid = grid
        spacing_world_mm = grid.spacing_mm / geometry.similarity_scale(stack_from_world)
        # what lies well outside the brain goes; its blurred edge stays whole
        reach = max(1, round(2 * spacing_world_mm / brain.voxel_mm.min()))
        near = np.where(binary_dilation(brain.mask, iterations=reach), brain.data, 0)
        self._data = prefiltered_volume(near, brain.voxel_mm, spacing_world_mm)
        self._mask = brain.mask.astype(np.uint8)
        self._where = brain.world_from_voxel, stack_from_world, grid

    def image(self, position_mm: float) -> np.ndarray:
        return resample_plane(self._data, *self._where, position_mm)

    def mask(self, position_mm: float) -> np.ndarray:
        return resample_plane(self._mask, *self._where, position_mm, order=0) > 0


@dataclass(frozen=True)
class _State:
    """A round's result, and what its section fits were made with."""

    cost: float
    stack_from_oriented: np.ndarray
    affines: list[np.ndarray]
    planes: _MriPlanes
    fits: list[SectionFit]


def _fit_sections(
    sections: Sequence[StackSection],
    priors: Sequence[np.ndarray],
    working_pixel_mm: float,
    planes: _MriPlanes,
    limits: AffineLimits,
    sigmas_mm: tuple[float, ...],
) -> list[SectionFit]:
    """One 2D fit per section, to the MRI planes of the present similarity."""
    return [
        fit_section_affine(
            section.image,
            section.mask,
            working_pixel_mm,
            planes.image(section.position_mm),
            planes.mask(section.position_mm),
            planes.grid.spacing_mm,
            prior,
            limits=limits,
            sigmas_mm=sigmas_mm,
        )
        for section, prior in zip(sections, priors, strict=True)
    ]


def _second_thoughts(
    sections: Sequence[StackSection],
    fits: Sequence[SectionFit],
    working_pixel_mm: float,
    planes: _MriPlanes,
    limits: AffineLimits,
    sigmas_mm: tuple[float, ...],
) -> list[SectionFit]:
    """The fits, those that stand out among their neighbours tried again from where these lie.

    A torn section starts off its place, since its tissue's centre is not that of the whole, and may
    end far from it. One that is turned by more than `_ODD_DEG` against its neighbours, or fits
    much worse than they, is laid on the two nearest that do not (by their edges, which a
    missing piece leaves alone) and fitted from there. The better of both fits is kept: neighbours
    give a start and are no part of the fit.
    """
    affines = [f.working_from_plane_mm for f in fits]
    linears = [stretch_of(a[:2, :2]) for a in affines]
    angles = np.array([np.arctan2(r[1, 0], r[0, 0]) for r, _ in linears])
    costs = np.nan_to_num(np.array([f.cost for f in fits]), nan=1.0)
    usual = np.empty(len(fits))
    odd = np.zeros(len(fits), bool)
    for k in range(len(fits)):
        near = [i for i in range(max(0, k - 6), min(len(fits), k + 7)) if i != k]
        apart = np.angle(np.exp(1j * (angles[near] - angles[k])))
        usual[k] = angles[k] + np.median(apart)
        middle = np.median(costs[near])
        spread = max(1.48 * float(np.median(np.abs(costs[near] - middle))), 0.01)
        turned = abs(np.median(apart)) > np.deg2rad(_ODD_DEG)
        odd[k] = turned or costs[k] > middle + 3 * spread
    if not odd.any() or odd.sum() > len(odd) / 2:
        return list(fits)
    positions = np.array([s.position_mm for s in sections])
    logs = smooth_stretch(positions[~odd], np.array([log for _, log in linears])[~odd], positions)
    grid = planes.grid
    points = grid_px(grid.shape) * grid.spacing_mm

    def edges(k: int, working_from_plane_mm: np.ndarray) -> np.ndarray:
        px = apply(geometry.scaling(1 / working_pixel_mm) @ working_from_plane_mm, points)
        image = prefilter(_normalised(sections[k]), 2 * grid.spacing_mm / working_pixel_mm)
        return np.hypot(*np.gradient(resample_section(image, px)))

    out = list(fits)
    for k in np.flatnonzero(odd):
        even = np.flatnonzero(~odd)
        nearest = even[np.argsort(np.abs(positions[even] - positions[k]))[:2]]
        wanted = np.fft.rfft2(np.mean([edges(i, affines[i]) for i in nearest], axis=0))
        at_working = tissue_centre_mm(sections[k].mask, working_pixel_mm)
        at_plane = (np.array(grid.shape[::-1]) - 1) / 2 * grid.spacing_mm
        best, most = affines[k], -np.inf
        for turn in np.deg2rad(np.arange(-15.0, 15.1, 5.0)):
            c, s = np.cos(usual[k] + turn), np.sin(usual[k] + turn)
            start = np.eye(3)
            start[:2, :2] = with_stretch(np.array([[c, -s], [s, c]]), logs[k])
            start[:2, 2] = at_working - start[:2, :2] @ at_plane
            alike = np.fft.irfft2(wanted * np.conj(np.fft.rfft2(edges(k, start))), s=grid.shape)
            if alike.max() > most:
                most = float(alike.max())
                shift = np.array(np.unravel_index(np.argmax(alike), grid.shape))
                shift = np.where(shift > np.array(grid.shape) / 2, shift - grid.shape, shift)
                # drawn `shift` further on, the section's edges lie on its neighbours'
                best = start @ geometry.translation(*(-shift[::-1] * grid.spacing_mm))
        (again,) = _fit_sections(
            [sections[k]], [best], working_pixel_mm, planes, limits, sigmas_mm[-2:]
        )
        if again.cost < costs[k]:
            out[k] = again
    return out


def _plane_step(
    sections: Sequence[StackSection],
    state: _State,
    working_pixel_mm: float,
    centre: np.ndarray,
    limits: AffineLimits,
    gain: float,
) -> np.ndarray:
    """One Gauss-Newton step of all planes together, section affines answering to it.

    Unknowns are what section affines cannot do: the stack's offset and scale along z and its two
    tilts, u = (o, s, a, b). The planes move along z by o + s (z − z0) + a (x − x0) + b (y − y0).

    Returns
    -------
    (4, 4), new stack mm from old: only z changes.
    """
    hessian, gradient = np.zeros((4, 4)), np.zeros(4)
    planes = state.planes
    half = planes.grid.spacing_mm / 2
    for section, fit in zip(sections, state.fits, strict=True):
        z = section.position_mm
        found = plane_equations(
            section.image,
            section.mask,
            working_pixel_mm,
            (planes.image(z - half), planes.image(z), planes.image(z + half)),
            2 * half,
            planes.mask(z),
            planes.grid.spacing_mm,
            fit.working_from_plane_mm,
            limits=limits,
            sigma_mm=_STEP_SIGMA_MM,
        )
        if found is None:
            continue
        # (q0, q1, q2) of this section from the stack's u
        from_stack = np.array(
            [[1.0, z - centre[2], -centre[0], -centre[1]], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
        )
        hessian += from_stack.T @ found[0] @ from_stack
        gradient += from_stack.T @ found[1]
    plain = np.linalg.solve(hessian + 1e-9 * np.diag(np.diag(hessian) + 1e-9), gradient)
    o, s, a, b = -gain * plain
    # far from the solution the linear step overshoots
    shrink = min(1.0, 2.0 / max(abs(o), 1e-9), 0.05 / max(abs(s), abs(a), abs(b), 1e-9))
    o, s, a, b = np.array([o, s, a, b]) * shrink
    # z_old = z + o + s (z - z0) + a (x - x0) + b (y - y0), solved for z
    step = np.eye(4)
    step[2, :3] = np.array([-a, -b, 1.0]) / (1 + s)
    step[2, 3] = (s * centre[2] - o + a * centre[0] + b * centre[1]) / (1 + s)
    return step


def _moved_mm(
    sections: Sequence[StackSection],
    working_pixel_mm: float,
    before: tuple[np.ndarray, Sequence[np.ndarray]],
    after: tuple[np.ndarray, Sequence[np.ndarray]],
) -> float:
    """Mean distance, in the world, that tissue moved between two alignments."""
    distances = []
    for index, section in enumerate(sections):
        points = _tissue_points(section, working_pixel_mm, 20)
        places = [
            section_in_world(points, section.position_mm, affines[index], stack_from_world)
            for stack_from_world, affines in (before, after)
        ]
        distances.append(np.linalg.norm(places[0] - places[1], axis=-1))
    return float(np.concatenate(distances).mean())


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


def overview_cuts(
    sections: Sequence[StackSection],
    working_pixel_mm: float,
    brain: Brain,
    found: StackAlignment,
    enlargement: float = 1.0,
) -> list[dict[str, Any]]:
    """Three orthogonal cuts through the middle of the tissue, MRI and stack on one grid.

    Parameters
    ----------
    enlargement : how many times too large all lengths are; those returned are not.

    Returns
    -------
    One dict per cut: ``mri``, ``stack`` (rows, columns) intensities; ``mri_mask``, ``stack_mask``
    bool; ``title``; ``x``, ``y`` names of the axes; ``extent_mm`` (left, right, bottom, top).
    """
    spacing_mm = max(working_pixel_mm, 0.5)
    volume = _stack_volume(sections, found.working_from_plane_mm, working_pixel_mm, spacing_mm)
    grid = volume.grid
    points = grid.points()
    voxel_from_stack = np.linalg.inv(found.stack_from_world @ brain.world_from_voxel)
    centre = _tissue_centre(sections, found.working_from_plane_mm, working_pixel_mm)
    middle = np.round((centre - grid.origin_mm) / spacing_mm).astype(int)
    names = "x", "y", "position"
    cuts = []
    for across in (2, 1, 0):
        index: list[Any] = [slice(None)] * 3
        index[across] = int(np.clip(middle[across], 0, grid.shape[across] - 1))
        key = tuple(index)
        voxels = apply(voxel_from_stack, points[key])
        # the first remaining axis runs along the picture's columns, the second along its rows
        x, y = (a for a in range(3) if a != across)
        lows = (grid.origin_mm - grid.spacing_mm / 2) / enlargement
        highs = lows + np.array(grid.shape) * grid.spacing_mm / enlargement
        at_mm = points[key][0, 0, across] / enlargement
        cuts.append(
            {
                "mri": sample_volume(brain.data, voxels).T,
                "mri_mask": sample_volume(brain.mask.astype(np.uint8), voxels, 0).T > 0,
                "stack": volume.data[key].T,
                "stack_mask": (volume.tissue & volume.known)[key].T,
                "title": f"{names[across]} = {at_mm:.3g} mm",
                "x": f"{names[x]}, mm",
                "y": f"{names[y]}, mm",
                "extent_mm": (lows[x], highs[x], highs[y], lows[y]),
            }
        )
    return cuts
