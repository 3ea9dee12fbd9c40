"""All that is wrong with a stack's sections, in words, with the cells of a manifest to change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sbr_core.algorithms.doctor import order
from sbr_core.algorithms.doctor.damage import Damage, judge_damage
from sbr_core.algorithms.doctor.look import look_of, outliers
from sbr_core.algorithms.doctor.pictures import StackPictures
from sbr_core.algorithms.doctor.poses import Poses, judge_poses, pose_scores

_BADLY_DAMAGED = 0.25
"""Share of a section that does not fit, from which leaving it out is suggested: what is left bends
its neighbours more than a gap does. Less (a torn edge) is named and kept."""
_MOSTLY_MISSING = 1 / 3
"""Share of the misfit that is missing tissue, from which damage is described as such."""
_STRAIGHT_DEG = 10.0
"""A turn below this is not worth a word: sections lie a few degrees apart anyway."""
_STAINING = 0.35
"""Logarithm of the ratio to the neighbours' level that is of interest: 1.4 times."""
_FOCUS = 0.5
"""Logarithm of the ratio to the neighbours' sharpness that is of interest: 1.6 times."""


@dataclass(frozen=True)
class Section:
    """A prepared section of a stack.

    Attributes
    ----------
    name : its id.
    section_mm_from_working_mm : (3, 3), of `prepare`; its linear part is the manifest's flip and
        turn.
    image : (rows, columns), tissue above a background of 0.
    mask : (rows, columns) bool, some of it True.
    stain_group : of the manifest; how sections are stained is judged within it.
    """

    name: str
    position_mm: float
    section_mm_from_working_mm: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    stain_group: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that seems wrong with one section.

    Attributes
    ----------
    kind : ``unusable``, ``flip``, ``turn``, ``swap``, ``place``, ``damage``, ``staining``,
        ``focus`` or ``gap``.
    confidence : probability, by the evidence of this stack, that it is so.
    suggestion : cells of the manifest, ``column=value`` separated by blanks; may be empty.
    words : the same in plain words.
    correction : of a flip or a turn, (mirrored, angle in degrees) that would set right how it lies
        now.
    """

    section: str
    kind: str
    confidence: float
    suggestion: str
    words: str
    correction: tuple[bool, float] | None = None


def examine(
    sections: Sequence[Section],
    *,
    neighbours: int,
    expected_share: float,
    min_turn_deg: float,
    prealigned: bool = False,
) -> list[Finding]:
    """All findings of a prepared stack, whatever their confidence, along the stack.

    Parameters
    ----------
    sections : ascending in position.
    neighbours : sections on either side that each is compared with.
    expected_share : of sections that are flipped, and of those turned, swapped or misplaced.
    min_turn_deg : smaller turns are left as they are.
    prealigned : the sections lie on their MRI planes; then no flip, turn or place is suggested.
    """
    images, masks = [s.image for s in sections], [s.mask for s in sections]
    positions = np.array([s.position_mm for s in sections], float)
    pictures = StackPictures(images, masks, neighbours)
    scores = pose_scores(pictures, neighbours)
    poses = judge_poses(scores, prior=expected_share, min_turn_deg=min_turn_deg)
    damage = judge_damage(pictures, scores, poses, positions)
    whole = damage.confidence < 0.5
    fits = order.local_fits(pictures, scores, poses)
    swaps = order.judge_order(fits, whole, prior=expected_share)
    upright = whole & ~poses.wrong(0.5)
    suspects = np.flatnonzero(~whole).tolist()
    places = order.judge_place(pictures, suspects, upright, neighbours, prior=expected_share)

    findings: list[tuple[int, Finding]] = []
    elsewhere = {place.section for place in places}
    for i, section in enumerate(sections):
        if i not in elsewhere:
            findings += [(i, f) for f in _pose_findings(section, i, poses)]
            findings.append((i, _damage_finding(section, i, damage)))
    for swap in swaps:
        findings += _swap_findings(sections, swap)
    findings += [(place.section, _place_finding(sections, place)) for place in places]
    for group in sorted({section.stain_group for section in sections}):
        of_group = [i for i, section in enumerate(sections) if section.stain_group == group]
        found = _look_findings([sections[i] for i in of_group], neighbours)
        findings += [(of_group[i], finding) for i, finding in found]
    findings += [(gap.before, _gap_finding(sections, gap)) for gap in order.gaps(positions)]
    ordered = [finding for _, finding in sorted(findings, key=lambda item: item[0])]
    return [_without_pose(finding) for finding in ordered] if prealigned else ordered


def unusable(section: str, message: str) -> Finding:
    """The finding of a section that `prepare` failed at, with its message."""
    words = f"section {section}: could not be used: {message}"
    return Finding(section, "unusable", 1.0, "exclude=true", words)


# --------------------------------------------------------------------------------------------
# Flips and turns
# --------------------------------------------------------------------------------------------


def pose_of(section_mm_from_working_mm: np.ndarray) -> tuple[bool, float]:
    """(mirrored, angle in degrees) that `prepare` gave a section, from the matrix it recorded."""
    linear = np.asarray(section_mm_from_working_mm)[:2, :2]
    mirrored = bool(np.linalg.det(linear) < 0)
    # section from working is the mirroring after the turn back
    turn = np.diag([-1.0, 1.0]) @ linear if mirrored else linear
    return mirrored, math.degrees(math.atan2(turn[1, 0], turn[0, 0]))


def corrected(now: tuple[bool, float], correction: tuple[bool, float]) -> tuple[str, float]:
    """`flip` and `rotate_deg` of a manifest whose section is mirrored and turned further.

    Parameters
    ----------
    now, correction : (mirrored, angle): columns reversed if mirrored, then turned
        counter-clockwise; `correction` after `now`.

    Returns
    -------
    flip : ``none``, ``lr`` or ``ud``, of the latter two the one with the smaller turn.
    rotate_deg : whole degrees, in (−180, 180].
    """
    mirrored = now[0] != correction[0]
    # a turn before a mirroring is the opposite turn after it
    angle = _half_turn(round(correction[1] + (-now[1] if correction[0] else now[1])))
    if not mirrored:
        return "none", angle
    return ("lr", angle) if abs(angle) <= 90 else ("ud", _half_turn(angle - 180))


def correction_to(now: tuple[bool, float], suggestion: str) -> tuple[bool, float] | None:
    """(mirrored, angle) that a suggestion asks for beyond how a section lies; None of others.

    Parameters
    ----------
    now : of `pose_of`.
    suggestion : of a `Finding`; of others than flips and turns it says nothing of poses.
    """
    cells = dict(word.partition("=")[::2] for word in suggestion.split())
    if "flip" not in cells or "rotate_deg" not in cells:
        return None
    then = cells["flip"] != "none"
    angle = float(cells["rotate_deg"]) + 180.0 * (cells["flip"] == "ud")
    mirrored = then != now[0]
    return mirrored, _half_turn(angle + now[1] if mirrored else angle - now[1])


def _half_turn(angle_deg: float) -> float:
    """The same angle in (−180, 180]."""
    return 180.0 - (180.0 - angle_deg) % 360.0


def _turn_in_words(angle_deg: float) -> str:
    side = "counter-clockwise" if angle_deg > 0 else "clockwise"
    return f"{abs(angle_deg):.0f}° {side}"


def _pose_findings(section: Section, i: int, poses: Poses) -> list[Finding]:
    """The flip or the turn of a section, with the manifest's cells that would undo it."""
    mirrored = poses.flip_confidence[i] >= poses.turn_confidence[i]
    chance = float(max(poses.flip_confidence[i], poses.turn_confidence[i]))
    if chance == 0 or bool(poses.mirrored[i]) != mirrored:
        return []
    angle = float(poses.angle_deg[i])
    name = f"section {section.name}"
    if not mirrored:
        kind, words = "turn", f"{name}: seems turned; {_turn_in_words(angle)} would set it right"
    else:
        kind, upside_down = "flip", abs(angle) > 90
        rest = _half_turn(angle - 180) if upside_down else angle
        words = f"{name}: seems flipped {'upside down' if upside_down else 'left to right'}"
        if abs(rest) < _STRAIGHT_DEG:
            angle -= rest
        else:
            words += f" and turned; once flipped, {_turn_in_words(rest)} would set it right"
    correction = (mirrored, angle)
    flip, rotate_deg = corrected(pose_of(section.section_mm_from_working_mm), correction)
    suggestion = f"flip={flip} rotate_deg={rotate_deg:g}"
    return [Finding(section.name, kind, chance, suggestion, words, correction)]


def _without_pose(finding: Finding) -> Finding:
    """The finding of a section that lies on its MRI plane: no flip and no place would mend it."""
    if finding.suggestion and not finding.suggestion.startswith("exclude"):
        words = finding.words + " (or its MRI plane is another one)"
        return replace(finding, suggestion="", words=words)
    return finding


# --------------------------------------------------------------------------------------------
# All others
# --------------------------------------------------------------------------------------------


def _damage_finding(section: Section, i: int, damage: Damage) -> Finding:
    missing, misfit = float(damage.missing[i]), float(damage.misfit[i])
    if missing >= misfit * _MOSTLY_MISSING:
        what = f"about {100 * max(missing, 0.01):.0f} % of its tissue is missing"
    else:
        what = f"about {100 * misfit:.0f} % of it is torn, folded or elsewhere than it should be"
    suggestion = "exclude=true" if misfit >= _BADLY_DAMAGED else ""
    words = f"section {section.name}: {what}, its neighbours say"
    return Finding(section.name, "damage", float(damage.confidence[i]), suggestion, words)


def _swap_findings(sections: Sequence[Section], swap: order.Swap) -> list[tuple[int, Finding]]:
    """One of each of the two, with the other's position."""
    findings = []
    for i, j in ((swap.first, swap.second), (swap.second, swap.first)):
        name, other = sections[i].name, sections[j]
        words = f"section {name}: seems to have changed places with {other.name}"
        suggestion = f"position_mm={other.position_mm!r}"
        findings.append((i, Finding(name, "swap", swap.confidence, suggestion, words)))
    return findings


def _place_finding(sections: Sequence[Section], place: order.Place) -> Finding:
    section, before, after = (sections[k] for k in (place.section, place.before, place.after))
    position_mm = (before.position_mm + after.position_mm) / 2
    words = (
        f"section {section.name}: fits best between {before.name} and {after.name},"
        " far from where it lies"
    )
    suggestion = f"position_mm={position_mm!r}"
    return Finding(section.name, "place", place.confidence, suggestion, words)


def _look_findings(sections: Sequence[Section], reach: int) -> list[tuple[int, Finding]]:
    """Sections of one stain group that are stained otherwise than those about them, or less sharp.

    With their numbers among these.
    """
    group = sections[0].stain_group
    them = f"its neighbours of stain group {group}" if group else "its neighbours"
    looks = [look_of(section.image, section.mask) for section in sections]
    findings = []
    differences, chances = outliers(np.array([look.level for look in looks]), _STAINING, reach)
    for i, (difference, chance) in enumerate(zip(differences, chances, strict=True)):
        side, factor = "stronger" if difference > 0 else "weaker", math.exp(abs(difference))
        name = sections[i].name
        words = f"section {name}: is stained {factor:.1f} times {side} than {them}"
        findings.append((i, Finding(name, "staining", float(chance), "", words)))
    differences, chances = outliers(np.array([look.sharpness for look in looks]), _FOCUS, reach)
    for i, (difference, chance) in enumerate(zip(differences, chances, strict=True)):
        if difference > 0:  # sharper than its neighbours is no fault
            continue
        name, factor = sections[i].name, math.exp(abs(difference))
        words = (
            f"section {name}: shows {factor:.1f} times less fine structure than {them}: blurred?"
        )
        findings.append((i, Finding(name, "focus", float(chance), "", words)))
    return findings


def _gap_finding(sections: Sequence[Section], gap: order.Gap) -> Finding:
    here, after = sections[gap.before].name, sections[gap.before + 1].name
    room = f"{gap.missing} more" if gap.regular else "more"
    words = (
        f"section {here}: between it and {after} lie {gap.distance_mm:g} mm, room for {room};"
        " is something missing, or a position wrong?"
    )
    return Finding(here, "gap", 1.0, "", words)
