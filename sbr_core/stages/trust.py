"""`sbr trust`: how far each section of a method can be trusted: an expected error in mm.

It needs no truth: section and MRI plane are compared in small cells, methods with each other
(`algorithms.trust.evidence`), and a law that was fitted where the truth is known makes millimetres
of it (`algorithms.trust.calibration`). Sections that stand out from the stack are suspects, with a
reason and a next step (`algorithms.trust.suspects`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from sbr_core.algorithms.doctor.findings import correction_to, pose_of
from sbr_core.algorithms.sections import grid_px
from sbr_core.algorithms.trust import calibration, suspects
from sbr_core.algorithms.trust.evidence import Evidence, Seen, find_evidence
from sbr_core.algorithms.trust.poses import better_pose
from sbr_core.artifacts import names
from sbr_core.artifacts.joined import Joined, join
from sbr_core.artifacts.receipts import SectionResult, run_sections, unfinished
from sbr_core.artifacts.rows import Inferred, Row, Trusted, fingerprint, read_rows
from sbr_core.config import TrustOptions
from sbr_core.errors import ConfigError, ImageError, SbrError
from sbr_core.geometry import apply
from sbr_core.io.tables import read_tsv
from sbr_core.io.transforms import SectionTransform, read_section_transform
from sbr_core.io.volumes import read_plane, write_plane
from sbr_core.revisions import REVISION

logger = logging.getLogger(__name__)

_NEIGHBOURS = 2
"""On each side, whose affines a section's is compared with."""


def run(
    options: TrustOptions,
    *,
    method: str,
    prepared: Path,
    planes: Path,
    affines: Path,
    methods: dict[str, Path],
    out_dir: Path,
    findings: Path | None = None,
    accepted: Sequence[str] | None = None,
    strict: bool = False,
) -> None:
    """Estimate how far each section of a method lies from where it belongs.

    Parameters
    ----------
    method : name of the method, one of `methods`.
    prepared : table written by prepare.
    planes : table written by resample.
    affines : table written by align-sections.
    methods : one or more METHOD=FOLDER, the folders of their results; the others are compared with.
    out_dir : folder the results go to: a table of sections, and a map of each.
    findings : table written by doctor.
    accepted : ids of sections that were looked at and found good; they are no suspects.
    strict : stop at the first section that cannot be judged.

    Raises
    ------
    ConfigError
        No folder for `method` among `methods`.
    """
    if method not in methods:
        raise ConfigError(f"trust: --methods: expected {method}=FOLDER among them")
    pairs = join(prepared, planes, affines)
    by_method = {
        name: {row.section: row for row in read_rows(folder / names.TABLE, Inferred, verify=False)}
        for name, folder in methods.items()
    }
    failed = {
        row.section: row.message
        for row in read_rows(methods[method] / names.TABLE, Row, only_ok=False, verify=False)
        if not row.ok
    }
    lines = read_tsv(findings)[1] if findings is not None else []
    # the stack is judged as a whole: another section may change what is usual
    asked = fingerprint(
        REVISION["trust"],
        options,
        method=method,
        pairs=[p if isinstance(p, str) else _digests(p) for p in pairs.values()],
        rows={m: {s: row.fingerprint for s, row in rows.items()} for m, rows in by_method.items()},
        findings=lines,
        accepted=sorted(accepted or ()),
    )
    judged: dict[str, _Judged | str] = {}
    if unfinished(pairs, out_dir=out_dir, fingerprint=lambda _: asked):
        stack = _Stack(method, pairs, by_method, failed)
        judged = stack.judge(options, lines, set(accepted or ()))

    def write(section: str) -> SectionResult:
        verdict = judged[section]
        if isinstance(verdict, str):
            raise ImageError(verdict)
        path = names.section_file(out_dir, section, names.ERROR)
        cells = verdict.evidence.cells
        write_plane(
            path,
            verdict.error_mm.astype(np.float32),
            cells.size_mm,
            (cells.origin_mm, cells.origin_mm),
        )
        return SectionResult(verdict.row, [path])

    run_sections(
        {section: section for section in pairs},
        stage="trust",
        out_dir=out_dir,
        receipt=out_dir / names.TABLE,
        fingerprint=lambda _: asked,
        process=write,
        strict=strict,
    )


@dataclass(frozen=True, eq=False)
class _Judged:
    """What is written of a section: its row, and the errors of its cells (rows, columns)."""

    row: Trusted
    evidence: Evidence
    error_mm: np.ndarray


@dataclass(frozen=True, eq=False)
class _Stack:
    """The sections of a brain as one method registered them.

    Attributes
    ----------
    pairs : of `join`.
    by_method : method -> section -> row.
    failed : sections of the method that failed -> why.
    """

    method: str
    pairs: Mapping[str, Joined | str]
    by_method: Mapping[str, Mapping[str, Inferred]]
    failed: Mapping[str, str]

    def judge(
        self, options: TrustOptions, findings: Sequence[Mapping[str, str]], accepted: set[str]
    ) -> dict[str, _Judged | str]:
        """Section -> its judgement, or why there is none."""
        found: dict[str, Evidence | str] = {}
        for section, pair in self.pairs.items():
            try:
                found[section] = self._evidence(section, pair)
            except SbrError as error:
                found[section] = str(error)
        good = {s: evidence for s, evidence in found.items() if isinstance(evidence, Evidence)}
        good = dict(sorted(good.items(), key=lambda item: self._position_mm(item[0])))
        numbers = {section: evidence.numbers() for section, evidence in good.items()}
        odd = dict(zip(good, suspects.oddness(list(numbers.values())), strict=True))
        scales = self._scales(list(good))
        of_doctor = {line["section"]: line for line in reversed(findings)}
        judged: dict[str, _Judged | str] = dict(found)
        for number, (section, evidence) in enumerate(good.items()):
            wrong = suspects.likely_wrong(odd[section])
            reason = next_step = ""
            line = of_doctor.get(section, {})
            pose = ""
            doubted = wrong >= suspects.PERHAPS_MIRRORED or line.get("finding") == "damage"
            if section not in accepted and (doubted or wrong >= options.suspect):
                pose = self._better_pose(section)
            is_suspect = wrong >= options.suspect or pose in suspects.MIRRORED
            if is_suspect and section not in accepted:
                known = self._known(section, numbers[section], scales[section], line)
                reason, next_step = suspects.reason_of(
                    known, suspects.usual_of(list(numbers.values()), number), pose
                )
            error_mm, of_cells = calibration.expected_error_mm(evidence)
            row = Trusted(
                section=section,
                position_mm=self._position_mm(section),
                expected_error_mm=error_mm,
                likely_wrong=wrong,
                reason=reason,
                next_step=next_step,
                evidence=numbers[section],
            )
            judged[section] = _Judged(row, evidence, of_cells)
            logger.info(
                f"trust: {self.method}: section {section}: {error_mm:.2f} mm"
                + (f"; {reason}: {next_step}" if reason else "")
            )
        return judged

    def _better_pose(self, section: str) -> str:
        """Of `better_pose`, as linear laid the section, if there is such a result."""
        has_linear = section in self.by_method.get("linear", {})
        laid = replace(self, method="linear") if has_linear else self
        return better_pose(laid._seen(section, *laid._read(section)))

    def _known(
        self, section: str, evidence: Mapping[str, float], scale: float, line: Mapping[str, str]
    ) -> suspects.Known:
        """With what the doctor found of the section, a line of its table or nothing."""
        now = pose_of(self._pair(section).prepared.section_mm_from_working_mm)
        correction = correction_to(now, line.get("suggestion", ""))
        found = line.get("finding", ""), line.get("words", "")
        return suspects.Known(evidence, scale, *found, correction)

    def _pair(self, section: str) -> Joined:
        pair = self.pairs[section]
        if isinstance(pair, str):
            raise ImageError(pair)
        if section not in self.by_method[self.method]:
            raise ImageError(
                self.failed.get(section, f"section {section!r} is not of {self.method}")
            )
        return pair

    def _position_mm(self, section: str) -> float:
        return self._pair(section).prepared.position_mm

    def _read(self, section: str) -> tuple[Joined, SectionTransform]:
        pair = self._pair(section)
        row = self.by_method[self.method][section]
        return pair, read_section_transform(row.intact(names.SECTION_TO_STACK))

    def _seen(self, section: str, pair: Joined, section_from_plane: SectionTransform) -> Seen:
        """The registered section on its plane; ImageError where the plane has no tissue."""
        plane_mask = pair.read(pair.plane, names.MRI_MASK) > 0
        if not plane_mask.any():
            raise ImageError(f"section {section!r}: its MRI plane has no tissue")
        registered, _ = read_plane(self.by_method[self.method][section].intact(names.REGISTERED))
        mask, pixel_mm = read_plane(pair.prepared.file(names.MASK))
        section_mm = section_from_plane.map(grid_px(pair.grid.shape) * pair.grid.spacing_mm)
        working_mm = apply(np.linalg.inv(pair.prepared.section_mm_from_working_mm), section_mm)
        at = np.moveaxis(working_mm / pixel_mm, -1, 0)[::-1]
        covered = ndimage.map_coordinates(mask.astype(np.float32), at, order=1) > 0.5
        return Seen(
            registered, covered, pair.read(pair.plane, names.MRI), plane_mask, pair.grid.spacing_mm
        )

    def _evidence(self, section: str, pair: Joined | str) -> Evidence:
        pair, section_from_plane = self._read(section)
        seen = self._seen(section, pair, section_from_plane)
        centres_mm = seen.cells.centres_mm()
        plane_mm_from_section_mm = np.linalg.inv(pair.section_mm_from_plane_mm)

        def moved_mm(transform: SectionTransform) -> np.ndarray:
            return apply(plane_mm_from_section_mm, transform.map(centres_mm)) - centres_mm

        others = [
            read_section_transform(rows[section].intact(names.SECTION_TO_STACK))
            for other, rows in self.by_method.items()
            if other not in (self.method, "linear") and section in rows
        ]
        return find_evidence(seen, moved_mm(section_from_plane), [moved_mm(t) for t in others])

    def _scales(self, sections: Sequence[str]) -> dict[str, float]:
        """Logarithm of the scale of each section's affine over its neighbours' median."""
        pairs = sorted((self._pair(s) for s in sections), key=lambda p: p.prepared.position_mm)
        scales = [
            math.log(abs(np.linalg.det(pair.section_mm_from_plane_mm[:2, :2]))) / 2
            for pair in pairs
        ]
        found = {}
        for i, pair in enumerate(pairs):
            around = scales[max(0, i - _NEIGHBOURS) : i] + scales[i + 1 : i + 1 + _NEIGHBOURS]
            found[pair.section] = -(scales[i] - float(np.median(around))) if around else 0.0
        return found


def _digests(pair: Joined) -> list[str]:
    return [pair.prepared.fingerprint, pair.plane.fingerprint, pair.affine.fingerprint]
