"""`sbr apply-findings`: an edited copy of a manifest, with what `sbr doctor` suggests."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from sbr_core.errors import ConfigError, ManifestError
from sbr_core.io.columns import FINDING_SYNONYMS, check_columns
from sbr_core.io.manifest_edits import ManifestCopy
from sbr_core.io.tables import read_tsv

logger = logging.getLogger(__name__)

EDITABLE = ("flip", "rotate_deg", "position_mm", "exclude")
"""Columns of a manifest that `sbr doctor` suggests cells of; no other is ever changed."""


def run(
    options: None,
    findings: Path,
    *,
    manifest: Path,
    out: Annotated[Path, "-o"],
    min_confidence: float | None = None,
) -> None:
    """Write an edited copy of a manifest, with what the doctor suggests.

    Where two findings suggest different values for one cell, the surer one is applied. What was
    changed, and why, is added to `notes`.

    Parameters
    ----------
    findings : findings.tsv written by doctor, whose lines may have been deleted or edited.
    manifest : the manifest; it stays as it is.
    out : manifest to write; in another folder, relative paths are written anew.
    min_confidence : leave out what is less sure, from 0 to 1 (default: 0).

    Raises
    ------
    ManifestError
        A finding of no section of the manifest, a suggestion that cannot be read, or two sections
        that would come to the same position.
    ConfigError
        `out` is the manifest, or `min_confidence` is none of 0 to 1.
    """
    copy = ManifestCopy(manifest, out)
    least = 0.0 if min_confidence is None else min_confidence
    if not 0 <= least <= 1:
        raise ConfigError(f"--min-confidence: expected a number from 0 to 1, found {least:g}")
    changed = [
        section
        for section, cells in _edits(findings, copy, least).items()
        if copy.edit(section, {c: (v, f"{sure:g}") for c, (v, sure) in cells.items()}, "doctor")
    ]
    copy.check(f"{findings}: with its suggestions", ": are both lines of the pair there?")
    copy.write()
    which = f": {', '.join(sorted(changed))}" if changed else ""
    logger.info("apply-findings: %d of %d sections edited%s", len(changed), len(copy.rows), which)


def _edits(
    findings: Path, copy: ManifestCopy, least: float
) -> dict[str, dict[str, tuple[str, float]]]:
    """Section -> column -> (value, confidence of its finding)."""
    header, table = read_tsv(findings)
    check_columns(findings, header, tuple(FINDING_SYNONYMS), FINDING_SYNONYMS)
    for column in ("section", "confidence", "suggestion"):
        if column not in header:
            raise ManifestError(f"{findings}: column {column!r} is missing")
    edits: dict[str, dict[str, tuple[str, float]]] = {}
    for number, line in enumerate(table, 2):
        where = f"{findings}: line {number}: section {line['section']!r}"
        if line["section"] not in copy:
            raise ManifestError(f"{where}: {copy.manifest} has no such section")
        try:
            confidence = float(line["confidence"])
        except ValueError:
            found = line["confidence"]
            raise ManifestError(
                f"{where}: confidence: expected a number, found {found!r}"
            ) from None
        if not confidence >= least:
            continue
        for word in line["suggestion"].split():
            column, equals, value = word.partition("=")
            if not equals or not value or column not in EDITABLE:
                raise ManifestError(
                    f"{where}: suggestion: expected {' or '.join(c + '=…' for c in EDITABLE)},"
                    f" found {word!r}"
                )
            cells = edits.setdefault(line["section"], {})
            if column not in cells or cells[column][1] < confidence:
                cells[column] = value, confidence
    return edits
