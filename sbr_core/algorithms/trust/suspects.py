"""Which sections are likely badly wrong, why, and what to do about it, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sbr_core.algorithms.trust.calibration import law_for

_LEAST = 1e-4
"""Below it, a number of the evidence is nothing."""
BIAS = -2.39
WEIGHTS = {"error": 2.3, "least_unlike": 2.63, "overlap": 16.52, "moved": 2.86}
"""Of `oddness`, fitted to sections that were harmed on purpose by ``benchmarks/trust.py``."""
_AROUND = 7
"""Sections on each side that one is compared with: enough that several wrong ones do not count."""
MIRRORED = ("lr", "ud")
"""Poses of `poses.better_pose` that are flips."""
PERHAPS_MIRRORED = 0.3
"""`likely_wrong` from which a section is a suspect if it fits clearly better mirrored: where a
brain is nearly symmetric, little else tells."""
FLIP, LANDMARKS, EXCLUDE = "flip?", "set three landmarks", "exclude"
_POOR_OVERLAP = 0.85
"""Share of the stack's usual overlap of masks below which the outline is the reason."""
_FAR = 1.7
"""Times the usual length of deformations above which the affine is the reason."""
_OTHER_SCALE = 0.08
"""Logarithm of a section's scale over its neighbours' that is worth a word."""


T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """What is known of a section beside its evidence.

    Attributes
    ----------
    evidence : of `evidence.Evidence.numbers`.
    scale : of its affine over that of its neighbours', logarithm; 0 where it has none.
    finding, words : kind of what the doctor found, and its words; empty of nothing.
    correction : (mirrored, degrees counter-clockwise) of how it is displayed that the doctor
        suggests, if it does.
    """

    evidence: Mapping[str, float]
    scale: float = 0.0
    finding: str = ""
    words: str = ""
    correction: tuple[bool, float] | None = None


def oddness(stack: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """How each section stands out from those around it, by name.

    ``error``, ``least_unlike``, ``moved``: logarithm over the median; ``overlap``: what is missing
    to it. The median is of the sections around, since poles of a brain are unlike its middle.

    Parameters
    ----------
    stack : evidence of each section, by one method, sorted by position.
    """
    error = [math.log(max(law_for(each).of_numbers(each), _LEAST)) for each in stack]
    unlike = [math.log(max(each["least_unlike"], _LEAST)) for each in stack]
    overlap = [-each["overlap"] for each in stack]
    moved = [math.log(max(each["moved"], _LEAST)) for each in stack]
    columns = {"error": error, "least_unlike": unlike, "overlap": overlap, "moved": moved}
    return [
        {name: v[i] - float(np.median(_around(v, i))) for name, v in columns.items()}
        for i in range(len(stack))
    ]


def _around(stack: Sequence[T], i: int) -> Sequence[T]:
    """What is around one of a stack, itself among it."""
    return stack[max(0, i - _AROUND) : i + _AROUND + 1]


def likely_wrong(odd: Mapping[str, float]) -> float:
    """Probability that a section is badly wrong."""
    score = BIAS + sum(weight * odd[name] for name, weight in WEIGHTS.items())
    return 1.0 / (1.0 + math.exp(-min(max(score, -30.0), 30.0)))


def usual_of(stack: Sequence[Mapping[str, float]], i: int) -> dict[str, float]:
    """Medians of evidence around one section of a stack, as far as reasons speak of it, by name."""
    around = _around(stack, i)
    return {name: float(np.median([e[name] for e in around])) for name in ("overlap", "moved")}


def reason_of(known: Known, usual: Mapping[str, float], pose: str) -> tuple[str, str]:
    """(reason, next step) of a suspect.

    Parameters
    ----------
    usual : of `usual_of`.
    pose : of `poses.better_pose`.
    """
    evidence, extent_mm = known.evidence, known.evidence["extent_mm"]
    # the doctor's turn is the finer one
    if known.correction is not None:
        mirrored, angle_deg = known.correction
        if not mirrored:
            return known.words, _step(angle_deg)
        turned = f", then {_step(angle_deg)}" if round(angle_deg) % 360 else ""
        return known.words, FLIP.rstrip("?") + turned
    if pose in MIRRORED:
        sides = {"lr": "left and right", "ud": "top and bottom"}[pose]
        return f"fits its MRI plane better with {sides} exchanged", FLIP
    if pose:
        turned = f"{_turn(float(pose))} counter-clockwise"
        return f"fits its MRI plane better turned by about {turned}", f"{_step(float(pose))}?"
    if known.finding in ("unusable", "damage"):
        return known.words, EXCLUDE
    if known.words:
        return known.words, LANDMARKS
    if abs(known.scale) > _OTHER_SCALE:
        percent = 100 * (math.exp(known.scale) - 1)
        return f"is scaled {percent:+.0f} % unlike its neighbours", LANDMARKS
    if evidence["overlap"] < _POOR_OVERLAP * usual["overlap"]:
        return (
            f"its outline is not that of its MRI plane (overlap {evidence['overlap']:.2f},"
            f" usually {usual['overlap']:.2f})",
            LANDMARKS,
        )
    if evidence["moved"] > _FAR * usual["moved"]:
        moved_mm, usual_mm = (extent_mm * each["moved"] for each in (evidence, usual))
        return (
            f"was laid wrong before it was deformed: by {moved_mm:.1f} mm, usually {usual_mm:.1f}",
            LANDMARKS,
        )
    apart_mm = extent_mm * evidence.get("disagreement", 0.0)
    match_mm = extent_mm * evidence["match"]
    if apart_mm > match_mm:
        return f"methods disagree by {apart_mm:.1f} mm", LANDMARKS
    return f"matches its MRI plane better about {match_mm:.1f} mm away", LANDMARKS


def _step(angle_deg: float) -> str:
    """The next step of a section that is to be turned counter-clockwise."""
    return f"turn by {_turn(angle_deg)} counter-clockwise"


def _turn(angle_deg: float) -> str:
    """As the field of the page has it: from 0 to 359."""
    return f"{round(angle_deg) % 360}°"
