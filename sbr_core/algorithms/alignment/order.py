"""How long a stack is whose positions are only an order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sbr_core.algorithms.alignment.pose_search import refine, search
from sbr_core.algorithms.alignment.poses import Pose, stretch_along
from sbr_core.algorithms.alignment.scenes import coarse_scenes
from sbr_core.algorithms.alignment.stack import Mri, Stack
from sbr_core.errors import AlignmentError
from sbr_core.geometry import apply

_SHORTEST_MM = 25.0
"""Of the lengths that are tried: a shorter piece of a human brain shows too little to be found."""
_RATIO = 1.3
"""Of one length to the next. What lies between is reached by the steps below; the search itself
takes up 15 % of size (benchmarks/2026-11-25_any_start.md)."""
_STEPS = 4
_STEP_GAIN = 1.5
"""Steps that make the best length longer or shorter, each by this power of the stretch that its
pose still has: stretch costs a pose something, so that the plain step falls short."""


@dataclass(frozen=True)
class OrderSpacing:
    """Result of `spacing_of_order`.

    Attributes
    ----------
    mm_per_position : world mm that one unit of `position_mm` is.
    poses : of the best length tried, best first, of the stack with positions in mm.
    """

    mm_per_position: float
    poses: list[Pose]


def spacing_of_order(
    stack: Stack,
    mri: Mri,
    *,
    near: np.ndarray | None,
    max_rotation_deg: float,
    progress: Callable[[str], None] = lambda line: None,
) -> OrderSpacing:
    """The length of a stack, where `position_mm` is only an order.

    Stacks of several lengths, from 25 mm up to the MRI's longest extent, are searched for. The one
    that fits best is made longer or shorter until its pose stretches it no more than across;
    stretch costs a pose something, so that one step does not go all the way.

    Parameters
    ----------
    near, max_rotation_deg : as for `pose_search.search`.

    Raises
    ------
    AlignmentError
        No length with a pose.
    """
    corners = apply(mri.world_from_voxel, np.argwhere(mri.mask)[::50])
    longest = float(np.linalg.norm(np.ptp(corners, axis=0)))
    n = 1 + int(np.ceil(np.log(longest / _SHORTEST_MM) / np.log(_RATIO)))
    best: tuple[float, list[Pose]] | None = None
    units_mm = _SHORTEST_MM * _RATIO ** np.arange(n) / stack.length_mm
    for number, unit_mm in enumerate(units_mm, 1):
        scenes = coarse_scenes(stack.with_spacing(unit_mm), mri)
        poses = search(*scenes, near=near, max_rotation_deg=max_rotation_deg)
        if poses:
            progress(f"length {number} of {n}: the stack explains {1 - poses[0].cost:.1%}")
            if best is None or poses[0].cost < best[1][0].cost:
                best = unit_mm, poses
    if best is None:
        raise AlignmentError("align: no length of the stack fits the MRI; check orientation")
    unit_mm, poses = best
    pose = poses[0]
    for _ in range(_STEPS):
        longer = float(np.exp(_STEP_GAIN * stretch_along(pose)))
        unit_mm *= longer
        start = pose.world_from_stack @ np.diag([1.0, 1.0, 1 / longer, 1.0])
        scenes = coarse_scenes(stack.with_spacing(unit_mm), mri)
        pose = refine(*scenes, replace(pose, world_from_stack=start))
    return OrderSpacing(unit_mm * float(np.linalg.norm(pose.world_from_stack[:3, 2])), poses)
