"""How a stack lies in an MRI, from nothing: every rotation, both handednesses, any place.

Three steps, from many poses that are judged roughly to few that are judged well:

1. **Outlines, everywhere** (`outlines`). Rotations spread evenly over all there are, both
   handednesses and two scales. For each, the overlap of the two outlines is computed for all
   shifts at once by Fourier transforms.
2. **Intensity too, downhill** (`correlation_ratio`). The best of these are refined by damped
   Gauss-Newton steps on the correlation ratio, first similarities at low resolution; of what is
   left, one pose of each basin, with stretch and shear too, since sections shrink.
3. **Basins** (`poses`). Poses that put the tissue within 15 mm of one another are one basin. The
   best pose of each handedness and the best of its rivals are compared block by block
   (`start.preference`).

What is not known counts neither for nor against a pose: beyond the ends of the stack, and beyond
a flat face at which the MRI was cut off. Tissue that lies where the MRI is not known costs a
little, or the best place would be outside; it does not count in the steps downhill, or they
would draw the stack to where it is seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sbr_core.algorithms.alignment.correlation_ratio import Level
from sbr_core.algorithms.alignment.outlines import SCALES, overlapping_poses
from sbr_core.algorithms.alignment.poses import (
    Pose,
    Scene,
    angle_deg,
    best_of_basins,
    linear_about,
    rotations,
)

_N_ROTATIONS = 600
"""Of each handedness: none is further than 25 degrees from the next (a test), which the steps
downhill bridge."""
_NEAR_TIMES = 4
"""So many times more in all where only those near given letters are tried."""
_LEVELS_MM = (8.0, 5.0, 3.5)
"""Resolutions of the steps downhill. The first must be blurred as far as poses are off after the
outlines (9 mm); the last leaves the 3 to 5 mm that `stack_fit` starts from."""
_KEPT = (300, 120, 40, 12)
"""Poses left after the outlines, after four steps, after the first level, and after the second. A
true pose that is dropped is lost, more poses cost time: with these all 68 worlds of
benchmarks/2026-11-25_any_start.md were found, in 6 s of the processor."""
_FIRST_STEPS = 4
"""Steps of each pose before the worse ones are dropped: the first are the large ones."""
_N_CONFUSED = 3
"""Of the best poses, those from which the places in `_CONFUSED` are tried as well."""
_CONFUSED = [
    np.diag(signs).astype(float)
    for signs in ((-1, 1, 1), (1, -1, 1), (1, 1, -1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
]
"""What a brain is most easily mistaken for: itself, mirrored or turned about one of its axes."""
_FREE_SIZE = 0.02
"""Share of the usual cost of size and stretch in `refine`, whose question is what size fits."""


def search(
    stack: Scene,
    mri: Scene,
    *,
    near: np.ndarray | None = None,
    max_rotation_deg: float = 180.0,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Pose]:
    """The best pose of each basin, best first.

    Parameters
    ----------
    stack, mri : at about 3 mm.
    near : (3, 3) orthogonal, world from stack: only poses of its handedness, turned by at most
        `max_rotation_deg` from it; None searches everywhere.

    Returns
    -------
    Some ten poses or fewer; none where all end further than `max_rotation_deg` from `near`.
    """
    if near is None:
        every = rotations(_N_ROTATIONS)
        starts = [turn @ np.diag([1.0, 1.0, h]) for h in (1.0, -1.0) for turn in every]
    else:
        every = rotations(_NEAR_TIMES * _N_ROTATIONS)
        starts = [near, *(t @ near for t in every if angle_deg(t) <= max_rotation_deg)]
    begun = overlapping_poses(stack, mri, np.array(starts), _KEPT[0])
    progress(f"{len(SCALES) * len(starts)} poses by their outlines; {len(begun)} go on")
    levels = [Level(stack, mri, spacing_mm) for spacing_mm in _LEVELS_MM]

    def best_allowed(poses: list[Pose], keep: int | None) -> list[Pose]:
        poses = best_of_basins(poses, stack)
        if near is not None:
            poses = [
                p
                for p in poses
                if angle_deg(p.world_from_stack[:3, :3] @ near.T) <= max_rotation_deg
            ]
        return poses[:keep]

    def report(poses: list[Pose]) -> None:
        progress(f"{len(poses)} basins, cost {poses[0].cost:.3f} to {poses[-1].cost:.3f}")

    # a few steps show which are worth the others
    poses = levels[0].refine(np.array(begun), affine=False, iterations=_FIRST_STEPS)
    poses = sorted(poses, key=lambda p: p.cost)[: _KEPT[1]]
    poses = best_allowed(levels[0].refine(_matrices(poses), affine=False), _KEPT[2])
    if not poses:
        return []
    report(poses)
    if near is None:
        confused = [
            p.world_from_stack @ linear_about(levels[0].centre, change)
            for p in poses[:_N_CONFUSED]
            for change in _CONFUSED
        ]
        poses += levels[0].refine(np.array(confused), affine=False)
        poses = best_allowed(poses, _KEPT[2])
    for level, keep in zip(levels[1:], (_KEPT[3], None), strict=True):
        poses = best_allowed(level.refine(_matrices(poses), affine=True), keep)
        if not poses:
            return []
        report(poses)
    return poses


def refine(stack: Scene, mri: Scene, pose: Pose) -> Pose:
    """One pose, taken downhill once more at the finest level, size and stretch free."""
    level = Level(stack, mri, _LEVELS_MM[-1], prior_share=_FREE_SIZE)
    return level.refine(pose.world_from_stack[None], affine=True)[0]


def _matrices(poses: list[Pose]) -> np.ndarray:
    return np.array([p.world_from_stack for p in poses])
