"""What the search compares: stack and MRI at low resolution, and poses of the one in the other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from sbr_core.algorithms.alignment.stack import Mri, Stack, centred_affines
from sbr_core.algorithms.alignment.volumes import stack_volume
from sbr_core.algorithms.planes import prefiltered_volume, sample_volume
from sbr_core.geometry import apply, orientation_letters

SEARCH_MM = 3.0
"""Spacing of both scenes: a little finer than the search's finest level (3.5 mm)."""
MARGIN_MM = 20.0
"""Background kept around the brain and compared around the stack's tissue: without background of
both, a pose could not lose by tissue on nothing."""
_CUT_SHARE = 0.6
_CUT_DEPTH_MM = 8.0
"""A face is a cut where its cross section is at least `_CUT_SHARE` of that `_CUT_DEPTH_MM` further
in. A brain is round: 8 mm from its pole its section is already several times larger than at it."""
_CUT_LEAST = 0.05
"""And at least this share of the largest cross section, so that ragged poles are no cuts."""
BASIN_MM = 15.0
"""Mean distance between where two poses put the tissue, above which they are two. Poses of one
place end within a few millimetres of one another (the search's error is 3 to 5 mm,
benchmarks/2026-11-25_any_start.md); a mirrored or turned brain lies tens of millimetres off."""


@dataclass(frozen=True)
class Scene:
    """A volume, prepared once for all poses.

    Attributes
    ----------
    data : [i, j, k] float32, 0 outside tissue, its median there 1.
    tissue : the same shape, share of tissue.
    known : the same shape, bool: whether there is data at all. Of an MRI all of it.
    mm_from_index : (4, 4), stack mm, or the MRI's world.
    cuts : of an MRI, half spaces (4,) of index coordinates (a·x + d > 0) beyond which it was cut.
    """

    data: np.ndarray
    tissue: np.ndarray
    known: np.ndarray
    mm_from_index: np.ndarray
    cuts: tuple[np.ndarray, ...] = ()

    @property
    def spacing_mm(self) -> float:
        return float(np.abs(np.linalg.det(self.mm_from_index[:3, :3])) ** (1 / 3))


def coarse_scenes(stack: Stack, mri: Mri) -> tuple[Scene, Scene]:
    """(stack, MRI) for `pose_search.search`, the stack as `centred_affines` lay it out."""
    volume = stack_volume(stack, centred_affines(stack), SEARCH_MM)
    return (
        Scene(
            volume.data,
            volume.tissue.astype(np.float32),
            np.array(volume.known),
            volume.grid.mm_from_index(),
        ),
        mri_scene(mri, SEARCH_MM),
    )


def mri_scene(mri: Mri, spacing_mm: float) -> Scene:
    """An MRI at `spacing_mm`, along its own axes."""
    unit = max(float(np.median(mri.data[mri.mask])), 1e-6)
    step = spacing_mm / mri.voxel_mm
    where = np.argwhere(mri.mask)
    low, high = where.min(axis=0), where.max(axis=0)
    start = low - np.ceil(MARGIN_MM / mri.voxel_mm)
    stop = high + np.ceil(MARGIN_MM / mri.voxel_mm)
    axes = [np.arange(a, b + s, s) for a, b, s in zip(start, stop, step, strict=True)]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    data, tissue = (
        sample_volume(prefiltered_volume(image, mri.voxel_mm, spacing_mm), voxels)
        for image in (np.where(mri.mask, mri.data, 0) / unit, mri.mask.astype(np.float32))
    )
    voxel_from_index = np.diag([*step, 1.0])
    voxel_from_index[:3, 3] = start
    return Scene(
        np.clip(data, 0, 3),
        tissue,
        np.ones(tissue.shape, bool),
        mri.world_from_voxel @ voxel_from_index,
        _cuts(mri, start, step),
    )


def _cuts(mri: Mri, start: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, ...]:
    """Half spaces beyond the faces at which the MRI was cut off.

    A face of the brain's bounding box towards which the brain hardly tapers is taken for one:
    near it the cross section is at least 0.6 times that 8 mm further in.

    Parameters
    ----------
    start, step : (3,) voxel of the scene's index 0, and voxels per index.
    """
    where = np.argwhere(mri.mask)
    low, high = where.min(axis=0), where.max(axis=0)
    cuts = []
    for axis in range(3):
        area = mri.mask.sum(axis=tuple(a for a in range(3) if a != axis))
        for side, face in ((-1, low[axis]), (1, high[axis])):
            # one slice in, for edges are ragged
            outer, deeper = (
                area[int(np.clip(face - side * n, low[axis], high[axis]))]
                for n in (1, 1 + round(_CUT_DEPTH_MM / mri.voxel_mm[axis]))
            )
            if outer > max(_CUT_SHARE * deeper, _CUT_LEAST * area.max()):
                plane = np.zeros(4)
                plane[axis] = side * step[axis]
                plane[3] = side * (start[axis] - face) - 0.5
                cuts.append(plane)
    return tuple(cuts)


def tissue_points_mm(stack: Scene) -> np.ndarray:
    """(n, 3) stack mm of some 300 voxels of tissue, by which poses are compared."""
    where = np.argwhere((stack.tissue > 0.5) & stack.known)
    return apply(stack.mm_from_index, where[:: max(1, len(where) // 300)])


@dataclass(frozen=True)
class Pose:
    """One way the stack may lie.

    Attributes
    ----------
    world_from_stack : (4, 4) affine; of negative determinant where it mirrors.
    cost : share of the variance of what is seen of the stack that is left unexplained, and
        a quarter of the share of tissue that lies where the MRI is not known.
    left_over : (blocks,) the same, block by block of the stack; their sum is `cost`.
    """

    world_from_stack: np.ndarray
    cost: float
    left_over: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def mirrored(self) -> bool:
        return bool(np.linalg.det(self.world_from_stack[:3, :3]) < 0)


def rotations(n: int) -> np.ndarray:
    """(n, 3, 3) rotations, evenly spread over all.

    Source: super-Fibonacci spirals; Alexa: *Super-Fibonacci spirals: fast, low-discrepancy sampling
    of SO(3)*, CVPR 2022, with its constants phi and psi.
    """
    phi, psi = np.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(n) + 0.5
    t = s / n
    alpha, beta = 2 * np.pi * s / phi, 2 * np.pi * s / psi
    r, q = np.sqrt(t), np.sqrt(1 - t)
    quaternions = np.stack(
        [r * np.sin(alpha), r * np.cos(alpha), q * np.sin(beta), q * np.cos(beta)], axis=1
    )
    return Rotation.from_quat(quaternions).as_matrix()


def nearest_orientation(world_from_stack: np.ndarray) -> np.ndarray:
    """The signed permutation (3, 3) nearest to a (4, 4) affine, of the same handedness."""
    linear = world_from_stack[:3, :3]
    u, _, vt = np.linalg.svd(linear)
    handedness = np.sign(np.linalg.det(linear))
    best, highest = np.eye(3), -np.inf
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(axes), range(3)] = signs
            agreement = float(np.sum(matrix * (u @ vt)))
            if np.linalg.det(matrix) * handedness > 0 and agreement > highest:
                best, highest = matrix, agreement
    return best


def letters_of(pose: Pose) -> str:
    """Orientation letters of the stack, as the nearest axes of the world."""
    return orientation_letters(nearest_orientation(pose.world_from_stack))


def angle_deg(linear: np.ndarray) -> float:
    """Angle of the rotation in a (3, 3) of positive determinant."""
    u, _, vt = np.linalg.svd(linear)
    return float(np.rad2deg(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1))))


def linear_about(centre: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """(4, 4): a (3, 3) linear map that leaves a point (3,) where it is."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre - linear @ centre
    return matrix


def strains(poses: np.ndarray) -> np.ndarray:
    """(h, 6) logarithmic size, two stretches and three shears of poses (h, 4, 4)."""
    _, s, vt = np.linalg.svd(poses[:, :3, :3])
    log = np.einsum("hki,hk,hkj->hij", vt, np.log(s), vt)
    size = np.einsum("hii->h", log) / 3
    along = log[:, 2, 2] - size
    return np.stack(
        [size, (log[:, 0, 0] - log[:, 1, 1]) / 2, along, log[:, 0, 1], log[:, 0, 2], log[:, 1, 2]],
        axis=1,
    )


def stretch_along(pose: Pose) -> float:
    """Logarithm of how much more the stack is stretched along z than in the mean of its axes."""
    return float(strains(pose.world_from_stack[None])[0, 2])


def best_of_basins(poses: list[Pose], stack: Scene) -> list[Pose]:
    """The best of each basin, best first: without those that lie within one of a better pose."""
    points = tissue_points_mm(stack)
    kept: list[Pose] = []
    places: list[np.ndarray] = []
    for pose in sorted(poses, key=lambda p: p.cost):
        place = apply(pose.world_from_stack, points)
        if all(np.linalg.norm(place - p, axis=1).mean() > BASIN_MM for p in places):
            kept.append(pose)
            places.append(place)
    return kept
