"""What of a brain is to be looked at, in groups: the page shows the gravest first."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Inferred, Row, read_rows
from sbr_core.errors import some_of
from sbr_core.io.files import read_json
from sbr_core.io.sums import lost_from
from sbr_core.io.tables import read_tsv
from sbr_core.report.corrections import Corrected
from sbr_core.report.page import number

logger = logging.getLogger(__name__)

_INVERSE_ALARM_PX = 0.1
"""Where a point that goes there and back ends this far off, the inverse is worth a look."""
_STAGES = ("prepare", "resample", "align_sections")
"""The stages before the methods that can leave out a section."""

Rows = Mapping[str, Mapping[str, Row]]
"""Method -> section -> its row; sections that failed are no `Inferred`."""


@dataclass(frozen=True)
class AlarmGroup:
    """Alarms of one kind.

    Attributes
    ----------
    grave : something is missing from the results; the others are to be looked at.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    grave: bool = False


class _Evaluation(BaseModel):
    """What the page shows of what `evaluate` wrote."""

    labels_left_out: dict[str, str] = {}
    labels_apart: str = ""


class _Doubts(BaseModel):
    """What the page shows of what `prepare_mri` or `align` wrote."""

    doubts: list[str] = []


def all_rows(table: Path, kind: type[Row]) -> list[Row]:
    """Rows of all sections, without reading their files; a page shows what is there."""
    return read_rows(table, kind, only_ok=False, verify=False)


def inferred(rows: Mapping[str, Row]) -> dict[str, Inferred]:
    """Those of the rows whose section did not fail."""
    return {key: row for key, row in rows.items() if isinstance(row, Inferred)}


def alarm_groups(
    rows: Rows,
    results_dir: Path,
    worse: list[str],
    corrected: Corrected,
    doctor: Mapping[str, Any] | None,
) -> list[AlarmGroup]:
    """Groups that have any, the gravest first.

    Parameters
    ----------
    worse : of sections that linear did better in something.
    doctor : its findings.
    """
    tables = {stage: results_dir / stage / names.TABLE for stage in _STAGES}
    of_stages = {s: all_rows(table, Row) for s, table in tables.items() if table.is_file()}
    groups = [
        AlarmGroup("Files that are gone", _lost(results_dir), grave=True),
        AlarmGroup("Sections left out", _left_out(rows, of_stages), grave=True),
        AlarmGroup("Sections that you rejected", corrected.alarms),
        AlarmGroup("What was given is doubtful", _doubtful(rows, of_stages, results_dir)),
        AlarmGroup("Deformations that fold or have a poor inverse", _deformed(rows)),
        AlarmGroup("Sections that a method made worse than linear", worse),
        AlarmGroup("What the section doctor would change", _suspects(doctor, corrected)),
    ]
    return [group for group in groups if group.lines]


def _left_out(rows: Rows, of_stages: Mapping[str, list[Row]]) -> list[str]:
    """Sections that failed, and those that a table lost."""
    failed: dict[str, str] = {}
    of_methods = {method: list(of_method.values()) for method, of_method in rows.items()}
    for maker, rows_of_maker in [*of_stages.items(), *of_methods.items()]:
        for row in rows_of_maker:
            if not row.ok:
                failed.setdefault(row.section, f"{maker}: {row.message}")
    lines = [f"section {section} was left out by {why}" for section, why in failed.items()]
    prepared = [row.section for row in of_stages.get("prepare", ())]
    for maker, of_maker in of_methods.items():
        there = {row.section for row in of_maker}
        if lost := [section for section in prepared if section not in there]:
            lines.append(f"the table of {maker} lacks sections of prepare: {some_of(lost)}")
    return lines


def _doubtful(rows: Rows, of_stages: Mapping[str, list[Row]], results_dir: Path) -> list[str]:
    """Warnings of stages and methods, of the MRI, of the fit, of `check`, and of labels."""
    warned: dict[str, list[str]] = {}
    for row in (row for of_stage in of_stages.values() for row in of_stage):
        if row.ok and row.message:
            warned.setdefault(row.message, []).append(row.section)
    # what is wrong with one section's pixel size mostly is with all
    lines = [
        f"section{'s' * (len(sections) > 1)} {some_of(sections)}: {message}"
        for message, sections in warned.items()
    ]
    lines += [
        f"section {section}: {method}: {row.message}"
        for method, of_method in rows.items()
        for section, row in inferred(of_method).items()
        if row.message
    ]
    lines += [f"the MRI: {d}" for d in _doubts(results_dir / "prepare" / names.MRI_FACTS)]
    lines += _doubts(results_dir / "align" / names.QUALITY)
    # some is found again by the stages that are concerned
    lines += [
        f"{line['looked_at']}: {line['words']}"
        for line in checked_lines(results_dir)
        if line["verdict"] != "fine" and not any(line["words"] in said for said in lines)
    ]
    if (evaluation := results_dir / "evaluation" / names.EVALUATION).is_file():
        facts = read_json(evaluation, _Evaluation)
        for section, why in facts.labels_left_out.items():
            whose = f"section {section}" if section else "the MRI"
            lines.append(f"{whose}: its labels were left out: {why}")
        lines += [facts.labels_apart] * bool(facts.labels_apart)
    return lines


def _deformed(rows: Rows) -> list[str]:
    """Deformations that fold, or that do not lead back."""
    lines = []
    for method, of_method in rows.items():
        for section, row in inferred(of_method).items():
            if row.folding_percent > 0:
                lines.append(
                    f"section {section}: {method} folds {number(row.folding_percent)} % of it"
                )
            if row.inverse_p99_px > _INVERSE_ALARM_PX:
                lines.append(
                    f"section {section}: {method} there and back ends"
                    f" {number(row.inverse_p99_px)} px away (99th percentile)"
                )
    return lines


def _lost(results_dir: Path) -> list[str]:
    """Files that a stage wrote and that are gone, which the page would be without unseen."""
    folders = sorted([*results_dir.glob("*"), *results_dir.glob(f"*/{names.VOLUME}")])
    lost = [
        f"{path.relative_to(results_dir)} was written and is missing; this page is without it"
        for folder in folders
        for path in lost_from(folder)
    ]
    for line in lost:
        logger.warning(f"report: WARNING: {line}")
    return lost


def _doubts(facts: Path) -> list[str]:
    """What a stage found doubtful, by its facts; nothing where there are none."""
    return read_json(facts, _Doubts).doubts if facts.is_file() else []


def checked_lines(results_dir: Path) -> list[dict[str, str]]:
    """The table of `check`; empty of a brain that was not checked."""
    table = results_dir / "check" / names.FINDINGS
    return read_tsv(table)[1] if table.is_file() else []


def _suspects(doctor: Mapping[str, Any] | None, corrected: Corrected) -> list[str]:
    """A line for each section the doctor would have changed, but for those that the user accepted.

    Those left out have a line already.
    """
    return [
        f"{line['words']} (the doctor says, {line['confidence']})"
        for line in (doctor or {"findings": []})["findings"]
        if line["suggestion"] and line["finding"] != "unusable"
        if corrected.verdicts.get(line["section"]) != "accept"
    ]
