"""`sbr doctor`: what seems wrong with the sections of a stack, and what to write in the manifest.

It proposes; the manifest decides. Nothing later reads its table but the report, and
`sbr apply-findings`, which writes an edited copy of a manifest when asked to.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from pathlib import Path

from sbr_core.algorithms.doctor.findings import Finding, Section, examine, unusable
from sbr_core.artifacts.names import CONTACT_SHEET, DOCTOR, FINDINGS, IMAGE, MASK
from sbr_core.artifacts.rows import Prepared, read_rows
from sbr_core.config import DoctorOptions
from sbr_core.errors import ImageError
from sbr_core.io.images import write_png
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import read_plane
from sbr_core.report.contact_sheet import contact_sheet
from sbr_core.revisions import REVISION

logger = logging.getLogger(__name__)

_COLUMNS = ("section", "finding", "confidence", "suggestion", "words")


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
    rows = read_rows(prepared, Prepared, only_ok=False, verify=(IMAGE, MASK))
    sections = [_read(row) for row in rows if isinstance(row, Prepared)]
    if not sections:
        raise ImageError(f"{prepared}: no section was prepared, expected at least one")
    sections.sort(key=lambda section: section.position_mm)
    judged = examine(
        sections,
        neighbours=options.neighbours,
        expected_share=options.expected_share,
        min_turn_deg=options.min_turn_deg,
        prealigned=prealigned,
    )
    findings = [unusable(row.section, row.message) for row in rows if not row.ok]
    findings += [f for f in judged if f.confidence >= options.min_confidence]
    write_tsv(out_dir / FINDINGS, [_line(finding) for finding in findings], _COLUMNS)
    picture = contact_sheet(sections, findings, options.picture_px)
    write_png(out_dir / CONTACT_SHEET, picture)
    write_provenance(
        out_dir / DOCTOR,
        stage="doctor",
        options=options.model_dump(mode="json"),
        inputs={"prepared": prepared},
        revision=REVISION["doctor"],
        n_sections=len(sections),
        findings=dict(sorted(Counter(f.kind for f in findings).items())),
        seconds=round(time.monotonic() - begin, 1),
    )
    for finding in findings:
        logger.info("doctor: %s (%.2f)", finding.words, finding.confidence)
    logger.info("doctor: %d findings in %d sections", len(findings), len(sections))


def _read(row: Prepared) -> Section:
    return Section(
        row.section,
        row.position_mm,
        row.section_mm_from_working_mm,
        read_plane(row.file(IMAGE))[0],
        read_plane(row.file(MASK))[0] > 0,
        row.stain_group,
    )


def _line(finding: Finding) -> dict[str, str]:
    return {
        "section": finding.section,
        "finding": finding.kind,
        "confidence": f"{finding.confidence:.3f}",
        "suggestion": finding.suggestion,
        "words": finding.words,
    }
