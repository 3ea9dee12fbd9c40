"""All inputs of one brain read, and each judged by the others."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.algorithms.masks import brain_mask
from sbr_core.algorithms.plausibility import halves, heads, landmarks, sizes
from sbr_core.algorithms.plausibility.finding import Finding
from sbr_core.algorithms.plausibility.masks import doubt_of_place, doubt_of_values
from sbr_core.artifacts.label_pairs import read_label_volume
from sbr_core.artifacts.rows import Looked, Row
from sbr_core.errors import SbrError, some_of
from sbr_core.geometry import orientation_matrix
from sbr_core.io.manifests import read_landmarks
from sbr_core.io.volumes import Volume, as_mask, read_volume

if TYPE_CHECKING:
    from sbr_core.io.manifests import BrainRow

_MOSTLY = 0.5
"""Share of all sections from which on a fault of theirs is one of the brain; and share of the MRI's
labels that lie in its brain."""
_APART = 0.5
"""Overlap (Dice) below which a prealigned section is not on its plane; torn ones have 0.7."""


@dataclass(frozen=True)
class BrainInputs:
    """What a user gave of a brain.

    Attributes
    ----------
    row : of the sheet.
    seen : what was seen of its sections, sorted or not; those that cannot be read are plain rows.
    ids : of all sections of the manifest, excluded ones too.
    in_order : positions are no millimetres.
    """

    row: BrainRow
    seen: Sequence[Row]
    ids: Sequence[str]
    in_order: bool = False

    @cached_property
    def looked(self) -> list[Looked]:
        """Sections that can be used, sorted by position."""
        usable = [row for row in self.seen if isinstance(row, Looked)]
        return sorted(usable, key=lambda row: row.position_mm)

    @cached_property
    def volume(self) -> Volume:
        """The MRI; ImageError where it cannot be read, and for a prealigned brain, of none."""
        return read_volume(Path(self.row.mri))


def judge(inputs: BrainInputs) -> list[Finding]:
    """Everything that is to be said of a brain's inputs, in the order in which it is read."""
    findings = list(_of_sections(inputs))
    if not inputs.looked:
        return findings
    if inputs.row.prealigned:
        findings.append(sizes.judge_positions(inputs.looked, None, in_order=False))
        findings += _of_planes(inputs)
        findings += _of_landmarks(inputs, None, None)
        return findings
    try:
        volume = inputs.volume
    except SbrError as error:
        return [*findings, Finding("MRI", "refused", str(error))]
    mask, of_mri = _brain(inputs.row, volume)
    findings += of_mri
    if mask is None:
        return findings
    brain = sizes.Brain.of(mask, volume.world_from_voxel)
    findings.append(sizes.judge_sizes(inputs.looked, brain))
    findings.append(sizes.judge_positions(inputs.looked, brain, in_order=inputs.in_order))
    findings.append(_handedness(inputs.row.orientation))
    findings.append(halves.judge_part(inputs.looked, brain, inputs.row.orientation))
    findings += _of_labels(inputs, volume, mask)
    findings += _of_landmarks(inputs, Volume(mask, volume.world_from_voxel), brain)
    return findings


def _of_sections(inputs: BrainInputs) -> Iterator[Finding]:
    """What the sections show by themselves and beside each other."""
    failed = [row for row in inputs.seen if not row.ok]
    n = len(inputs.seen)
    if failed:
        words = f"{len(failed)} of {n} cannot be used: {some_of([r.message for r in failed], 3)}"
        yield Finding("sections", "refused" if len(failed) == n else "doubtful", words)
    else:
        yield Finding("sections", "fine", f"{n} can be read and show tissue")
    if not inputs.looked:
        return
    yield from sizes.judge_sections(inputs.looked)
    said: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    refused: dict[str, int] = defaultdict(int)
    poles = sizes.through_poles(inputs.looked)
    for row in inputs.looked:
        for subject, words in (*row.refusals.items(), *row.doubts.items()):
            if subject == "pictures" and row.section in poles:
                continue
            # figures differ from section to section
            said[subject, re.sub(r"[\d.]+", "#", words)].append((row.section, words))
        for subject in row.refusals:
            refused[subject] += 1
    by_subject: dict[str, list[str]] = defaultdict(list)
    for (subject, _), lines in said.items():
        sections, (words, *others) = zip(*lines, strict=True)
        which = f" (section {sections[0]})" if set(others) - {words} else ""
        s = "s" * (len(sections) > 1)
        by_subject[subject].append(f"section{s} {some_of(sections)}: {words}{which}")
    for subject, texts in by_subject.items():
        mostly = refused[subject] > _MOSTLY * len(inputs.looked)
        yield Finding(subject, "refused" if mostly else "doubtful", some_of(texts, 3))


def _brain(row: BrainRow, volume: Volume) -> tuple[np.ndarray | None, list[Finding]]:
    """The brain of the MRI as (i, j, k) bool, given or found, and what is to be said of it."""
    found = brain_mask(volume.data)
    said = [Finding("MRI", "doubtful", doubt) for doubt in volume.doubts]
    spacing = " × ".join(f"{s:.3g}" for s in volume.spacing_mm)
    if not row.mri_mask:
        if not found.any():
            return None, [Finding("MRI", "refused", f"{row.mri}: no brain found; give mri_mask")]
        darkness = heads.skull_darkness(volume.data, volume.spacing_mm)
        if heads.is_head(darkness):
            words = (
                "shows a head, not a brain alone: below its surface lies a layer of"
                f" {darkness:.0%} of the brightness around it, as of a skull; strip it, or give"
                " mri_mask (docs/checking_inputs.md)"
            )
            return found, [*said, Finding("MRI", "doubtful", words)]
        words = f"voxels of {spacing} mm, no mask given: brain found by its brightness"
        return found, [*said, Finding("MRI", "fine", words), *_size_of(found, volume)]
    try:
        given = read_volume(Path(row.mri_mask))
        mask = as_mask(Path(row.mri_mask), given, volume).data
    except SbrError as error:
        return None, [Finding("MRI mask", "refused", str(error))]
    findings = [*said, Finding("MRI", "fine", f"voxels of {spacing} mm, with a mask")]
    findings += _size_of(mask, volume)
    doubts = [doubt_of_values(given.data), doubt_of_place(mask, found)]
    findings += [Finding("MRI mask", d.verdict, d.words) for d in doubts if d.words][:1]
    return mask, findings


def _size_of(mask: np.ndarray, volume: Volume) -> list[Finding]:
    """What is to be said of the length of the brain, as `prepare_mri` says it."""
    if not mask.any():
        return []
    fault, doubt = sizes.length_of_brain(mask, volume.spacing_mm, volume.unit_mm)
    if fault:
        return [Finding("MRI", "refused", fault)]
    return [Finding("MRI", "doubtful", doubt)] if doubt else []


def _handedness(orientation: str) -> Finding:
    """What the letters say of the stack."""
    if orientation == "auto":
        return Finding("orientation", "fine", "auto: found by align, which may have to ask")
    left = np.linalg.det(orientation_matrix(orientation)) < 0
    words = f"{orientation}: a {'left' if left else 'right'}-handed stack"
    return Finding("orientation", "fine", words)


def _of_planes(inputs: BrainInputs) -> Iterator[Finding]:
    """Sections of a prealigned brain beside their planes."""
    rows = [row for row in inputs.looked if row.plane_dice is not None]
    apart = [f"{row.section} ({row.plane_dice:.2f})" for row in rows if row.plane_dice < _APART]
    words = f"{len(rows)} compared; overlap with the sections (Dice) is" + (
        f" {np.median([row.plane_dice for row in rows]):.2f} in the median" if rows else " unknown"
    )
    if apart:
        words += f", low in {some_of(apart)}: are they aligned already, and unmirrored?"
    yield Finding("MRI planes", "doubtful" if apart else "fine", words)
    if rows:
        tissue_mm2 = np.array([row.tissue_mm2 for row in rows])
        planes = halves.Planes(np.array([row.plane_mm2 for row in rows]), np.zeros((len(rows), 2)))
        _, doubt = halves.doubt_of_planes(tissue_mm2, planes)
        if doubt:
            yield Finding("part", "doubtful", doubt)
    yield from _common_ids(inputs, {int(i) for row in inputs.looked for i in row.plane_ids or ()})


def _common_ids(inputs: BrainInputs, of_mri: set[int]) -> Iterator[Finding]:
    """Ids of labels that sections and MRI share."""
    of_sections = {int(i) for row in inputs.looked for i in row.ids or ()}
    if not (of_sections and of_mri):
        return
    common = of_sections & of_mri
    words = (
        f"{len(common)} ids are in sections and MRI, {len(of_sections - common)} in sections only,"
        f" {len(of_mri - common)} in the MRI only"
    )
    if not common:
        first = [some_of([str(i) for i in sorted(ids)], 4) for ids in (of_sections, of_mri)]
        words += f": nothing can be compared; sections have {first[0]}, the MRI {first[1]}"
    yield Finding("labels", "fine" if common else "doubtful", words)


def _of_labels(inputs: BrainInputs, volume: Volume, mask: np.ndarray) -> Iterator[Finding]:
    """Labels of the MRI: whole numbers, in the brain, and shared with sections."""
    if not inputs.row.mri_labels:
        return
    try:
        of_mri = read_label_volume(Path(inputs.row.mri_labels))
    except SbrError as error:
        yield Finding("labels", "doubtful", f"those of the MRI are left out: {error}")
        return
    labels = of_mri.data
    for doubt in of_mri.doubts:
        yield Finding("labels", "doubtful", f"those of the MRI: {doubt}")
    if labels.shape == volume.data.shape:
        inside = np.count_nonzero(mask & (labels > 0)) / max(np.count_nonzero(labels > 0), 1)
        if inside < _MOSTLY:
            words = f"{inside:.0%} of the MRI's labels lie in its brain: of another image?"
            yield Finding("labels", "doubtful", words)
    yield from _common_ids(inputs, {int(i) for i in np.unique(labels) if i > 0})


def _of_landmarks(
    inputs: BrainInputs, mask: Volume | None, brain: sizes.Brain | None
) -> Iterator[Finding]:
    """Landmarks on sections and in the MRI, or in its planes."""
    row = inputs.row
    if not row.landmarks:
        return
    try:
        marks = read_landmarks(Path(row.landmarks), inputs.ids, prealigned=row.prealigned)
    except SbrError as error:
        yield Finding(landmarks.SUBJECT, "refused", str(error))
        return
    looked = {each.section: each for each in inputs.looked}
    yield landmarks.judge_on_sections(marks, looked)
    if mask is None or brain is None:
        yield landmarks.judge_in_plane(marks, looked)
        return
    yield landmarks.judge_in_mri(marks, mask.data, mask.world_from_voxel)
    against = landmarks.judge_directions(marks, looked, row.orientation, brain.extent_mm)
    if against is not None:
        yield against
