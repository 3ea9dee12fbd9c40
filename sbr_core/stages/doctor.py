"""`sbr doctor`: what seems wrong with the sections of a stack, and what to write in the manifest.

It proposes; the manifest decides. Nothing later reads its table but the report, and
`sbr apply-findings`, which writes an edited copy of a manifest when asked to.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.algorithms import doctor as judge
from sbr_core.artifacts.receipts import file_of, matrix_of, read_table
from sbr_core.errors import ImageError
from sbr_core.io.images import write_png
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import read_plane
from sbr_core.report import pictures
from sbr_core.revisions import REVISION

if TYPE_CHECKING:
    from sbr_core.config import DoctorOptions

FINDINGS = "findings.tsv"
CONTACT_SHEET = "contact_sheet.png"
COLUMNS = ("section", "finding", "confidence", "suggestion", "words")
_BADLY_DAMAGED = 0.25
"""Share of a section that does not fit, from which leaving it out is suggested."""


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes
    ----------
    kind : ``unusable``, ``flip``, ``turn``, ``swap``, ``place``, ``damage``, ``staining``,
        ``focus`` or ``gap``.
    confidence : probability, by the evidence of this stack, that it is so.
    suggestion : cells of the manifest, ``column=value`` separated by blanks; may be empty.
    words : the same in plain words.
    correction : of a flip or a turn, (mirrored, angle) that would set right how it lies now.
    """

    section: str
    kind: str
    confidence: float
    suggestion: str
    words: str
    correction: tuple[bool, float] | None = None


def run(options: DoctorOptions, *, prepared: Path, out_dir: Path, prealigned: bool = False) -> None:
    """List what seems wrong with the sections: a table of findings and a contact sheet.

    Parameters
    ----------
    prepared : table written by prepare, all sections of a brain.
    out_dir : folder the results go to.
    prealigned : the sections lie on their MRI planes already; then no flip, turn or place is
        suggested.

    Raises
    ------
    ImageError
        No section was prepared.
    """
    begin = time.monotonic()
    prepared, out_dir = Path(prepared), Path(out_dir)
    table = read_table(prepared, only_ok=False, verify=("_image.nii.gz", "_mask.nii.gz"))
    rows = sorted((r for r in table if r["status"] == "ok"), key=lambda r: r["position_mm"])
    if not rows:
        raise ImageError(f"{prepared}: no section was prepared, expected at least one")
    images = [read_plane(file_of(prepared, row, "_image.nii.gz"))[0] for row in rows]
    masks = [read_plane(file_of(prepared, row, "_mask.nii.gz"))[0] > 0 for row in rows]
    found = [
        Finding(
            row["section"],
            "unusable",
            1.0,
            "exclude=true",
            f"section {row['section']}: could not be used: {row['message']}",
        )
        for row in table
        if row["status"] != "ok"
    ]
    judged = examine(rows, images, masks, options)
    if prealigned:
        judged = [_without_pose(finding) for finding in judged]
    found += [f for f in judged if f.confidence >= options.min_confidence]
    write_tsv(
        out_dir / FINDINGS,
        [
            {
                "section": f.section,
                "finding": f.kind,
                "confidence": f"{f.confidence:.3f}",
                "suggestion": f.suggestion,
                "words": f.words,
            }
            for f in found
        ],
        COLUMNS,
    )
    write_png(
        out_dir / CONTACT_SHEET,
        contact_sheet([r["section"] for r in rows], images, masks, found, options.picture_px),
    )
    kinds = [f.kind for f in found]
    write_provenance(
        out_dir / "doctor.json",
        stage="doctor",
        options=options.model_dump(mode="json"),
        inputs={"prepared": prepared},
        revision=REVISION["doctor"],
        n_sections=len(rows),
        findings={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        seconds=round(time.monotonic() - begin, 1),
    )
    for f in found:
        print(f"doctor: {f.words} ({f.confidence:.2f})", file=sys.stderr)
    print(f"doctor: {len(found)} findings in {len(rows)} sections", file=sys.stderr)


def examine(
    rows: Sequence[dict[str, Any]],
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    options: DoctorOptions,
) -> list[Finding]:
    """All findings of a prepared stack, whatever their confidence, along the stack.

    Parameters
    ----------
    rows : of the table of `prepare`, ascending in position; images and masks belong to them.
    """
    positions = np.array([row["position_mm"] for row in rows], float)
    reach = options.neighbours
    pictures = judge.Pictures(images, masks, reach)
    scores = judge.pose_scores(pictures, reach)
    poses = judge.judge_poses(
        scores, prior=options.expected_share, min_turn_deg=options.min_turn_deg
    )
    damage = judge.judge_damage(pictures, scores, poses, positions)
    whole = damage.confidence < 0.5
    swaps = judge.judge_order(
        judge.local_fits(pictures, scores, poses), whole, prior=options.expected_share
    )
    moved = judge.judge_place(
        pictures,
        np.flatnonzero(~whole).tolist(),
        whole & ~poses.wrong(0.5),
        reach,
        prior=options.expected_share,
    )
    found: list[tuple[int, Finding]] = []
    elsewhere = {place.section for place in moved}
    for i, row in enumerate(rows):
        if i not in elsewhere:
            found += [(i, f) for f in _pose_findings(row, i, poses)]
            found += [(i, f) for f in _damage_findings(row, i, damage)]
    for swap in swaps:
        pair = rows[swap.first], rows[swap.second]
        for i, (row, other) in ((swap.first, pair), (swap.second, pair[::-1])):
            words = (
                f"section {row['section']}: seems to have changed places with {other['section']}"
            )
            suggestion = f"position_mm={other['position_mm']!r}"
            found.append((i, Finding(row["section"], "swap", swap.confidence, suggestion, words)))
    for place in moved:
        found.append((place.section, _place_finding(rows, place)))
    found += _look_findings(rows, images, masks, reach)
    for gap in judge.gaps(positions):
        found.append((gap.before, _gap_finding(rows, gap)))
    return [finding for _, finding in sorted(found, key=lambda item: item[0])]


def _pose_findings(row: dict[str, Any], i: int, poses: judge.Poses) -> list[Finding]:
    """The flip or the turn of a section, with what the manifest should say instead."""
    mirrored = poses.flip_confidence[i] >= poses.turn_confidence[i]
    chance = float(max(poses.flip_confidence[i], poses.turn_confidence[i]))
    if chance == 0 or bool(poses.mirrored[i]) != mirrored:
        return []
    angle = float(poses.angle_deg[i])
    name = f"section {row['section']}"
    if not mirrored:
        kind, words = "turn", f"{name}: seems turned; {_turn_in_words(angle)} would set it right"
    else:
        kind, upside_down = "flip", abs(angle) > 90
        rest = _half_turn(angle - 180) if upside_down else angle
        words = f"{name}: seems flipped {'upside down' if upside_down else 'left to right'}"
        if abs(rest) < _STRAIGHT_DEG:  # sections lie a few degrees apart anyway
            angle -= rest
        else:
            words += f" and turned; once flipped, {_turn_in_words(rest)} would set it right"
    flip, rotate_deg = corrected(pose_of(row), (mirrored, angle))
    suggestion = f"flip={flip} rotate_deg={rotate_deg:g}"
    return [Finding(row["section"], kind, chance, suggestion, words, (mirrored, angle))]


_STRAIGHT_DEG = 10.0


def _turn_in_words(angle_deg: float) -> str:
    side = "counter-clockwise" if angle_deg > 0 else "clockwise"
    return f"{abs(angle_deg):.0f}° {side}"


def pose_of(row: dict[str, Any]) -> tuple[bool, float]:
    """(mirrored, angle in degrees) that `prepare` gave a section, from the matrix it recorded."""
    linear = np.array(matrix_of(row, "g"))[:2, :2]
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


def _half_turn(angle_deg: float) -> float:
    """The same angle in (−180, 180]."""
    return 180.0 - (180.0 - angle_deg) % 360.0


def _damage_findings(row: dict[str, Any], i: int, damage: judge.Damage) -> list[Finding]:
    missing, misfit = float(damage.missing[i]), float(damage.misfit[i])
    if missing >= misfit / 3:
        what = f"about {100 * max(missing, 0.01):.0f} % of its tissue is missing"
    else:
        what = f"about {100 * misfit:.0f} % of it is torn, folded or elsewhere than it should be"
    suggestion = "exclude=true" if misfit >= _BADLY_DAMAGED else ""
    words = f"section {row['section']}: {what}, its neighbours say"
    return [Finding(row["section"], "damage", float(damage.confidence[i]), suggestion, words)]


def _place_finding(rows: Sequence[dict[str, Any]], place: judge.Place) -> Finding:
    row, before, after = (rows[k] for k in (place.section, place.before, place.after))
    position_mm = (before["position_mm"] + after["position_mm"]) / 2
    words = (
        f"section {row['section']}: fits best between {before['section']} and {after['section']},"
        " far from where it lies"
    )
    suggestion = f"position_mm={position_mm!r}"
    return Finding(row["section"], "place", place.confidence, suggestion, words)


def _look_findings(
    rows: Sequence[dict[str, Any]],
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    reach: int,
) -> list[tuple[int, Finding]]:
    """Sections that are stained otherwise than those about them, or less sharp."""
    looks = [judge.look_of(image, mask) for image, mask in zip(images, masks, strict=True)]
    found = []
    for kind, name, least, both_ways in (
        ("staining", "level", 0.35, True),
        ("focus", "sharpness", 0.5, False),
    ):
        values = np.array([getattr(look, name) for look in looks])
        difference, chance = judge.outliers(values, least, reach)
        for i, row in enumerate(rows):
            if not both_ways and difference[i] > 0:
                continue
            factor = math.exp(abs(difference[i]))
            if kind == "focus":
                words = (
                    f"shows {factor:.1f} times less fine structure than its neighbours: blurred?"
                )
            else:
                side = "stronger" if difference[i] > 0 else "weaker"
                words = f"is stained {factor:.1f} times {side} than its neighbours"
            words = f"section {row['section']}: {words}"
            found.append((i, Finding(row["section"], kind, float(chance[i]), "", words)))
    return found


def _gap_finding(rows: Sequence[dict[str, Any]], gap: judge.Gap) -> Finding:
    here, after = rows[gap.before]["section"], rows[gap.before + 1]["section"]
    room = f"{gap.missing} more" if gap.regular else "more"
    words = (
        f"section {here}: between it and {after} lie {gap.distance_mm:g} mm, room for {room};"
        " is something missing, or a position wrong?"
    )
    return Finding(here, "gap", 1.0, "", words)


def _without_pose(finding: Finding) -> Finding:
    """The finding of a section that lies on its MRI plane: no flip and no place would mend it."""
    if finding.suggestion and not finding.suggestion.startswith("exclude"):
        words = finding.words + " (or its MRI plane is another one)"
        return replace(finding, suggestion="", words=words)
    return finding


def contact_sheet(
    names: Sequence[str],
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    findings: Sequence[Finding],
    picture_px: int,
) -> np.ndarray:
    """All sections as they lie, framed and marked where something was found; then what was found.

    Of every section that seems to lie wrong, below: the sections before and after it, and between
    them itself, as it lies and as suggested.

    Parameters
    ----------
    names : ids along the stack; images and masks belong to them.
    picture_px : side of the square that a section is shown in.

    Returns
    -------
    (rows, columns, 3) uint8.
    """
    kinds: dict[str, list[str]] = {}
    for finding in findings:
        if finding.kind != "gap":  # which is no fault of the section before it
            kinds.setdefault(finding.section, []).append(finding.kind)
    # one white for all, so that a pale section looks pale
    dark = float(np.median([np.quantile(i[m], 0.98) for i, m in zip(images, masks, strict=True)]))
    # one scale for all, so that a section half as large looks so
    shown = float(np.quantile([max(image.shape) for image in images], 0.9))
    stains, tiles = [], []
    for name, image, mask in zip(names, images, masks, strict=True):
        scale = picture_px / max(shown, *image.shape)
        shape = tuple(max(1, round(n * scale)) for n in image.shape)
        stains.append(pictures.resized(np.where(mask, image, 0.5 * image), shape) / dark)
        tiles.append(pictures.Tile(_on_glass(stains[-1]), name, tuple(kinds.get(name, ()))))
    page = pictures.sheet(tiles, picture_px)
    asides: list[pictures.Tile] = []
    for finding in findings:
        if finding.correction is None:
            continue
        i = names.index(finding.section)
        mended = _on_glass(judge.posed(_square(stains[i], picture_px), *finding.correction))
        asides += [
            pictures.Tile(tiles[i - 1].picture, f"{names[i - 1]}, before") if i else tiles[i],
            tiles[i],
            pictures.Tile(mended, f"{finding.section}, as suggested"),
            pictures.Tile(tiles[i + 1].picture, f"{names[i + 1]}, after")
            if i + 1 < len(names)
            else tiles[i],
        ]
    if not asides:
        return page
    below = pictures.sheet(asides, picture_px)
    width = max(page.shape[1], below.shape[1])
    parts = (
        np.pad(part, ((0, 12), (0, width - part.shape[1]), (0, 0)), constant_values=255)
        for part in (page, below)
    )
    return np.concatenate(list(parts))


def _on_glass(stain: np.ndarray) -> np.ndarray:
    """As histology looks: tissue dark on white."""
    return pictures.rgb(1 - 0.85 * stain)


def _square(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture in the middle of a square that it fits in, 0 around it."""
    rows, columns = (side - n for n in picture.shape)
    return np.pad(picture, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))
