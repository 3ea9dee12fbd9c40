"""How sure the best pose of a search is, and whether to build upon it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.algorithms.alignment.poses import Pose, letters_of

if TYPE_CHECKING:
    from sbr_core.config import AlignOptions

_LEFT_OUT = 2
"""Blocks that speak most for the better pose and are left out: one torn section can be in two."""
_LEAST_CHANCE = 0.05
"""Share of all squared differences that counts as chance in any case: where no block at all speaks
for the worse pose, the standard error would be 0."""


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
