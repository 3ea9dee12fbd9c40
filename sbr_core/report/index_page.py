"""What the page over all brains shows: of each its state, accuracy, suspects, time and links."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sbr_core.artifacts import names
from sbr_core.artifacts.benchmarks import read_benchmarks
from sbr_core.artifacts.brain_folders import brains_in
from sbr_core.artifacts.rows import Inferred, Plane, Row, Trusted, read_cells, read_rows
from sbr_core.errors import SbrError, some_of
from sbr_core.io.manifests import SIMULATED
from sbr_core.io.tables import read_tsv
from sbr_core.io.volumes import read_plane
from sbr_core.methods import METHODS
from sbr_core.report import pictures
from sbr_core.report.citation import Citation
from sbr_core.report.corrections import Corrected
from sbr_core.report.measures import Measured, read_measurements
from sbr_core.report.page import jpeg, number
from sbr_core.report.suspects import measured_suspects

logger = logging.getLogger(__name__)

_STRIP, _STRIP_PX, _JPEG_QUALITY = 6, 110, 65
"""Sections of a brain's strip, their longer side on it, and how well they are kept."""
_STAGES = ("check", "prepare", "doctor", "align", "resample", "align_sections", "registrar")
"""Folders of stages before the methods, in the order of a run."""
_SIGN = {
    "check": names.PASSED,
    "align": names.QUALITY,
    "doctor": names.FINDINGS,
    "registrar": names.WEIGHTS,
}
"""File of a finished stage; of the others the table of sections."""
_HEADLINES = (
    ("in_plane_mm", "in-plane landmark error, mm"),
    ("dice", "Dice of sections"),
    ("dice_volume", "Dice of the volume"),
)
_SECTIONS_STAGES = ("prepare", "resample", "align_sections")


_NOTHING: dict[str, Any] = {
    "state": "nothing yet",
    "grade": "",
    "fault": "",
    "stages": [],
    "methods": [],
    "volumes": [],
    "sections": "",
    "left_out": "",
    "accuracy": [],
    "simulated": None,
    "to_look_at": [],
    "n_to_look_at": 0,
    "time": None,
    "strip": [],
    "citation": None,
    "report": False,
    "compare": False,
}
"""What is shown of a brain of which nothing is there."""


def index_page(results: Path, brains: Sequence[str]) -> dict[str, Any]:
    """Values of ``index.html.j2``.

    Parameters
    ----------
    results : folder of all results, where the page will lie.
    brains : names of brains that are shown even if nothing of them is there yet.
    """
    folders = {name: results / name for name in brains}
    try:
        folders |= brains_in(results)
    except SbrError:  # nothing there yet
        logger.info(f"index: {results}: no results of a brain yet")
    shown = {
        name: folder
        for name, folder in folders.items()
        # simulated pairs are shown with the brain they are made of
        if not (name.endswith(SIMULATED) and name.removesuffix(SIMULATED) in folders)
    }
    return {"brains": [_brain_or_fault(name, folder) for name, folder in sorted(shown.items())]}


def _brain_or_fault(name: str, folder: Path) -> dict[str, Any]:
    """What is shown of a brain; of one whose results are damaged, that they are."""
    bare = _NOTHING | {"name": name, "link": quote(name)}
    if not folder.is_dir():
        return bare
    try:
        return bare | _brain(name, folder)
    except (SbrError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        logger.warning(f"index: {name}: {error}")
        has_report = (folder / "report" / "index.html").is_file()
        damaged = {"state": "damaged", "grade": "bad", "fault": str(error), "report": has_report}
        return bare | damaged


def _brain(name: str, folder: Path) -> dict[str, Any]:
    methods = [m for m in METHODS if (folder / m).is_dir()]
    stages = _stages(folder, methods)
    has_report = (folder / "report" / "index.html").is_file()
    done = [stage["name"] for stage in stages if stage["done"]]
    measured = Measured(folder / "evaluation", methods)
    failed, n_sections = _failed(folder)
    to_look_at = _to_look_at(folder, measured, failed)
    fault = "" if has_report else last_fault(folder)
    state = "finished" if has_report else ("report missing" if done else "begun")
    return {
        "state": state,
        "grade": "good" if has_report else "bad" if fault else "",
        "fault": fault,
        "stages": stages,
        "methods": [m for m in methods if (folder / m / names.TABLE).is_file()],
        "volumes": [
            {"method": m, "link": f"{quote(name)}/{m}/{names.VOLUME}/"}
            for m in methods
            if any((folder / m / names.VOLUME).glob("*.nii.gz"))
        ],
        "sections": f"{n_sections - len(failed)} of {n_sections}" if n_sections else "",
        "left_out": some_of(list(failed)) if failed else "",
        "accuracy": _accuracy(measured, methods),
        "simulated": _simulated(name, folder),
        "to_look_at": to_look_at,
        "n_to_look_at": sum(count for count, _ in to_look_at),
        "time": _time(folder),
        "strip": _strip(folder, methods),
        "citation": _citation(folder, name) if has_report else None,
        "report": has_report,
        "compare": (folder / "compare" / "index.html").is_file(),
    }


def _stages(folder: Path, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Each stage and method that was begun, and whether it is done."""
    begun = [stage for stage in (*_STAGES, *methods) if (folder / stage).is_dir()]
    lines = [{"name": stage, "done": _is_done(folder / stage)} for stage in begun]
    if methods:
        measured = (folder / "evaluation" / names.SUMMARY).is_file()
        lines.append({"name": "evaluation", "done": measured})
        lines.append({"name": "report", "done": (folder / "report" / "index.html").is_file()})
    return lines


def _is_done(folder: Path) -> bool:
    """Whether a stage ended; a table that nobody needed is not collected of its receipts."""
    if (folder / _SIGN.get(folder.name, names.TABLE)).is_file():
        return True
    return folder.name == "align_sections" and any((folder / names.CHUNKS).glob("*.tsv"))


def _failed(folder: Path) -> tuple[dict[str, str], int]:
    """(section -> the stage that left it out and why, sections in all)."""
    failed: dict[str, str] = {}
    sections: set[str] = set()
    for stage in _SECTIONS_STAGES:
        table = folder / stage / names.TABLE
        for row in read_cells(table)[1] if table.is_file() else ():
            sections.add(row["section"])
            if row["status"] != "ok":
                failed.setdefault(row["section"], f"{stage}: {row.get('message', '')}")
    return failed, len(sections)


def _to_look_at(
    folder: Path, measured: Measured, failed: Mapping[str, str]
) -> list[tuple[int, str]]:
    """(how many, of what) a reader of the report should look at first; none where none."""
    findings = folder / "doctor" / names.FINDINGS
    suggested = [
        line for line in (read_tsv(findings)[1] if findings.is_file() else ()) if line["suggestion"]
    ]
    checked = folder / "check" / names.FINDINGS
    doubts = [
        line
        for line in (read_tsv(checked)[1] if checked.is_file() else ())
        if line["verdict"] != "fine"
    ]
    suspects = {
        row.section
        for table in folder.glob(f"*/{names.TRUST}/{names.TABLE}")
        for row in _rows(table, Trusted)
        if row.reason
    }
    judged = Corrected.of(folder / "evaluation").verdicts
    for method in measured.methods:
        suspects |= {s for s in measured_suspects(measured, method) if s not in judged}
    folding = measured.sections.query("metric == 'folding' and value > 0")["section"].nunique()
    counts = (
        (len(failed), "section", "left out"),
        (len(suspects), "suspect", "that may be badly wrong"),
        (len(suggested), "suggestion", "of the section doctor"),
        (len(doubts), "doubt", "about the inputs"),
        (len(measured.worse_than_linear()), "section", "worse than linear by a method"),
        (folding, "section", "folded by a method"),
    )
    return [(n, f"{what}{'s' * (n > 1)} {words}") for n, what, words in counts if n]


def _accuracy(measured: Measured, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Headline values, method by method, as far as they were measured; graded as on the report."""
    lines = []
    for metric, words in _HEADLINES:
        values = {method: measured.headline(metric, method) for method in methods}
        cells = [{"method": m, "text": number(v)} for m, v in values.items() if v is not None]
        if cells:
            lines.append({"metric": words, "cells": cells})
    return lines


def _simulated(name: str, folder: Path) -> dict[str, Any] | None:
    """The error on simulated pairs of a brain, method by method, where they were made."""
    simulated = folder.with_name(name + SIMULATED)
    table = read_measurements(simulated / "evaluation" / names.SUMMARY)
    errors = table.query("metric == 'in_plane_mm' and statistic == 'mean'")
    if errors.empty:
        return None
    cells = zip(errors["method"], errors["value"], strict=True)
    return {
        "cells": [{"method": method, "text": number(value)} for method, value in cells],
        "report": (simulated / "report" / "index.html").is_file(),
        "link": quote(simulated.name),
    }


def _time(folder: Path) -> dict[str, Any] | None:
    """Time on the clock and of the cores, in all and rule by rule."""
    rules: dict[str, list[float]] = {}
    for job in read_benchmarks(folder):
        sums = rules.setdefault(job.rule, [0, 0.0, 0.0])
        sums[0] += 1
        sums[1] += job.wall_s
        sums[2] += 0.0 if math.isnan(job.cpu_s) else job.cpu_s
    if not rules:
        return None
    return {
        "wall": duration(sum(sums[1] for sums in rules.values())),
        "cpu": duration(sum(sums[2] for sums in rules.values())),
        "lines": [
            {"rule": rule, "jobs": jobs, "wall": duration(wall), "cpu": duration(cpu)}
            for rule, (jobs, wall, cpu) in sorted(rules.items(), key=lambda item: -item[1][1])
        ],
    }


def _citation(folder: Path, name: str) -> dict[str, Any]:
    """The paragraph for a paper and its references."""
    citation = Citation(folder, name)
    return {"paragraph": citation.paragraph, "references": citation.references}


def duration(seconds: float) -> str:
    """A time in words, to two digits or so."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def last_fault(folder: Path) -> str:
    """The line in which the newest log of a brain that has one names a fault; else empty."""
    logs = sorted(folder.glob("logs/**/*.log"), key=lambda path: -path.stat().st_mtime)
    for log in logs:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        faults = [line for line in lines if line.startswith("sbr ")]
        if faults:
            return f"{faults[-1]} ({log.relative_to(folder)})"
    return ""


def _strip(folder: Path, methods: Sequence[str]) -> list[dict[str, Any]]:
    """A few registered sections of the last method that has some, with the edges of the MRI."""
    planes_table = folder / "resample" / names.TABLE
    for method in reversed(methods):
        table = folder / method / names.TABLE
        if not table.is_file() or not planes_table.is_file():
            continue
        rows = [row for row in _rows(table, Inferred) if row.has(names.REGISTERED)]
        planes = {row.section: row for row in _rows(planes_table, Plane)}
        rows = [row for row in rows if row.section in planes]
        if not rows:
            continue
        chosen = np.unique(np.linspace(0, len(rows) - 1, _STRIP + 2).round().astype(int))
        inner = chosen[1:-1] if chosen.size > 2 else chosen  # the ends show little tissue
        return [_picture(method, rows[i], planes[rows[i].section]) for i in inner]
    return []


def _rows(table: Path, kind: type[Row]) -> list[Any]:
    """Rows of sections that did not fail, whose files are looked at when they are shown."""
    return read_rows(table, kind, verify=False)


def _picture(method: str, row: Inferred, plane: Plane) -> dict[str, Any]:
    mri, _ = read_plane(plane.intact(names.MRI))
    image, _ = read_plane(row.intact(names.REGISTERED))
    shape = pictures.display_shape(mri.shape, _STRIP_PX)
    fixed = pictures.resized(pictures.window(mri), shape)
    moving = pictures.window(pictures.resized(image, shape))
    caption = f"{row.section}, {method}"
    return jpeg(pictures.overlay(moving, fixed), caption, _JPEG_QUALITY)
