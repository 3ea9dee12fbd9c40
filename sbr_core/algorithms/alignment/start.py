"""Where a stack lies at first, how long it is, and whether that is sure enough to build upon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.algorithms.alignment.pose_search import refine, search
from sbr_core.algorithms.alignment.poses import Pose, coarse_scenes, letters_of, stretch_along
from sbr_core.algorithms.alignment.stack import Mri, Stack
from sbr_core.errors import AlignmentError, ConfigError
from sbr_core.geometry import apply, orientation_matrix

if TYPE_CHECKING:
    from sbr_core.config import AlignOptions

AUTO = "auto"
"""`orientation` of a stack that is to be found in any."""
_LEFT_OUT = 2
"""Blocks that speak most for the better pose and are left out: one torn section can be in two."""
_LEAST_CHANCE = 0.05
"""Share of all squared differences that counts as chance in any case: where no block at all speaks
for the worse pose, the standard error would be 0."""
_SHORTEST_MM = 25.0
"""Of the lengths that are tried: a shorter piece of a human brain shows too little to be found."""
_RATIO = 1.3
"""Of one length to the next. What lies between is reached by the steps below; the search itself
takes up 15 % of size (benchmarks/2026-11-25_any_start.md)."""
_STEPS = 4
_STEP_GAIN = 1.5
"""Steps that make the best length longer or shorter, each by this power of the stretch that its
pose still has: stretch costs a pose something, so that the plain step falls short."""


def orientation_asked(orientation: str) -> np.ndarray | None:
    """(3, 3) world from stack of three letters, None of ``auto``; else ConfigError."""
    if orientation == AUTO:
        return None
    try:
        return orientation_matrix(orientation)
    except ValueError as error:
        raise ConfigError(f"{error}, or {AUTO!r}") from None


def find_start(
    stack: Stack, mri: Mri, options: AlignOptions, orientation: str, progress: Callable[[str], None]
) -> Verdict:
    """The best pose and its rivals; `doubt` decides whether it is sure enough.

    Raises
    ------
    AlignmentError
        No pose near the letters.
    """
    progress("looking for the stack in the MRI at low resolution")
    poses = search(
        *coarse_scenes(stack, mri),
        near=orientation_asked(orientation),
        max_rotation_deg=options.max_rotation_deg,
        progress=progress,
    )
    if not poses:
        raise AlignmentError(
            f"align: no pose within {options.max_rotation_deg:g} degrees (max_rotation_deg) of"
            f" orientation {orientation}; check it, or write orientation {AUTO}"
        )
    verdict = judge(poses)
    progress(
        f"the stack lies {letters_of(verdict.best)}, explains {verdict.explained:.0%}; margin"
        f" {verdict.place_margin:.1f} over other places, {verdict.handedness_margin:.1f} over the"
        " other handedness"
    )
    return verdict


def mm_per_position(
    stack: Stack, mri: Mri, options: AlignOptions, orientation: str, progress: Callable[[str], None]
) -> float:
    """World mm of one unit of positions that are only an order.

    Stacks of several lengths, from 25 mm up to the MRI's longest extent, are searched for. The one
    that fits best is made longer or shorter until its pose stretches it no more than across;
    stretch costs a pose something, so that one step does not go all the way.

    Raises
    ------
    AlignmentError
        No length of the stack fits, or none clearly better in one place than elsewhere.
    """
    progress("looking for the length of the stack")
    near = orientation_asked(orientation)
    corners = apply(mri.world_from_voxel, np.argwhere(mri.mask)[::50])
    longest = float(np.linalg.norm(np.ptp(corners, axis=0)))
    n = 1 + int(np.ceil(np.log(longest / _SHORTEST_MM) / np.log(_RATIO)))
    best: tuple[float, list[Pose]] | None = None
    for number, unit_mm in enumerate(_SHORTEST_MM * _RATIO ** np.arange(n) / stack.length_mm, 1):
        scenes = coarse_scenes(stack.with_spacing(unit_mm), mri)
        poses = search(*scenes, near=near, max_rotation_deg=options.max_rotation_deg)
        if poses:
            progress(f"length {number} of {n}: the stack explains {1 - poses[0].cost:.1%}")
            if best is None or poses[0].cost < best[1][0].cost:
                best = unit_mm, poses
    if best is None:
        raise AlignmentError("align: no length of the stack fits the MRI; check orientation")
    unit_mm, poses = best
    # handedness is for the run with millimetres to ask
    if why := doubt(replace(judge(poses), handedness_margin=np.inf), options, orientation):
        raise AlignmentError(f"align: positions: order: {why}")
    pose = poses[0]
    for _ in range(_STEPS):
        longer = float(np.exp(_STEP_GAIN * stretch_along(pose)))
        unit_mm *= longer
        begun = pose.world_from_stack @ np.diag([1.0, 1.0, 1 / longer, 1.0])
        scenes = coarse_scenes(stack.with_spacing(unit_mm), mri)
        pose = refine(*scenes, replace(pose, world_from_stack=begun))
    return unit_mm * float(np.linalg.norm(pose.world_from_stack[:3, 2]))


@dataclass(frozen=True)
class Verdict:
    """The best pose of a search, and how sure it is.

    Attributes
    ----------
    best : the pose of least cost.
    rival : the best pose of its handedness in another basin, or None.
    mirror : the best pose of the other handedness, or None where none was searched for.
    place_margin, handedness_margin : `preference` of the best over them; infinite without one.
    explained : share of the stack's variance that the best pose explains.
    """

    best: Pose
    rival: Pose | None
    mirror: Pose | None
    place_margin: float
    handedness_margin: float

    @property
    def explained(self) -> float:
        return 1.0 - self.best.cost


def judge(poses: list[Pose]) -> Verdict:
    """The best of some poses (at least one), against its rivals."""
    best = poses[0]
    rival = next((p for p in poses[1:] if p.mirrored == best.mirrored), None)
    mirror = next((p for p in poses if p.mirrored != best.mirrored), None)
    margins = [np.inf if p is None else preference(best, p) for p in (rival, mirror)]
    return Verdict(best, rival, mirror, *margins)


def preference(better: Pose, worse: Pose) -> float:
    """How sure the better of two poses is better: what speaks for it over what is chance.

    The sum of the differences of blocks of the stack, some 2 cm wide, over its standard error by
    chance. Were two poses as good, differences would scatter about 0 evenly; so their variance is
    judged by those that speak for the worse pose, counted twice. That some blocks speak for the
    better one strongly then does not make it less sure; but the two that do most are left out,
    for they may be one torn section. About 2 is chance, for one looked for the best.
    """
    difference = np.sort(worse.left_over - better.left_over)[:-_LEFT_OUT]
    against = difference[difference < 0]
    chance = np.sqrt(2 * np.sum(against**2) + _LEAST_CHANCE**2 * np.sum(difference**2))
    return float(difference.sum() / max(chance, 1e-12))


def doubt(verdict: Verdict, options: AlignOptions, orientation: str) -> str:
    """Why this start is not to be built on; empty where it is.

    Parameters
    ----------
    orientation : that was asked for, three letters or ``auto``.
    """
    if verdict.explained < options.min_explained:
        return (
            f"the stack and the MRI do not come together: the best place explains"
            f" {verdict.explained:.0%} of the sections, expected at least"
            f" {options.min_explained:.0%} (min_explained); check orientation, position_mm,"
            " pixel_size_mm and the MRI"
        )
    if verdict.place_margin < options.min_margin:
        return (
            f"not sure where the stack lies: it fits as well elsewhere (margin"
            f" {verdict.place_margin:.1f}, expected {options.min_margin:g}, min_margin);"
            " give orientation, or a lower max_rotation_deg"
        )
    if verdict.mirror is not None and verdict.handedness_margin < options.min_margin:
        one, other = letters_of(verdict.best), letters_of(verdict.mirror)
        return (
            f"handedness undetermined: {one} and its mirror image, {other}, fit alike (margin"
            f" {verdict.handedness_margin:.1f}, expected {options.min_margin:g}, min_margin);"
            f" give orientation instead of {orientation}"
        )
    return ""
