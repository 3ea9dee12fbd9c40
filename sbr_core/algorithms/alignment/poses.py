"""Poses: how a stack may lie in an MRI, and how far two poses are apart."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from sbr_core.algorithms.alignment.scenes import Scene, tissue_points_mm
from sbr_core.geometry import apply, orientation_letters

BASIN_MM = 15.0
"""Mean distance between where two poses put the tissue, above which they are two. Poses of one
place end within a few millimetres of one another (the search's error is 3 to 5 mm,
benchmarks/2026-11-25_any_start.md); a mirrored or turned brain lies tens of millimetres off."""


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
        [
            size,
            (log[:, 0, 0] - log[:, 1, 1]) / 2,
            along,
            log[:, 0, 1],
            log[:, 0, 2],
            log[:, 1, 2],
        ],
        axis=1,
    )


def stretch_along(pose: Pose) -> float:
    """Logarithm of how much more the stack is stretched along z than in the mean of its axes."""
    return float(strains(pose.world_from_stack[None])[0, 2])


def distance_mm(a: np.ndarray, b: np.ndarray, stack: Scene) -> float:
    """Mean distance, world mm, between where two poses (4, 4) put the stack's tissue."""
    points = tissue_points_mm(stack)
    return float(np.linalg.norm(apply(a, points) - apply(b, points), axis=1).mean())


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
