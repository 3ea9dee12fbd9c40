"""`check_sections`: a coarse look at the sections of one chunk; `check` judges the brain by it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sbr_core.artifacts.receipts import SectionResult, run_sections
from sbr_core.artifacts.rows import digest_of_file, fingerprint
from sbr_core.artifacts.section_looks import look_at_section
from sbr_core.config import PrepareOptions
from sbr_core.io.manifests import SectionRow, rows_to_json
from sbr_core.revisions import REVISION


def run(
    options: PrepareOptions, *, rows: Sequence[SectionRow], out_dir: Path, receipt: Path
) -> None:
    """Look at sections coarsely, with their masks, labels and MRI planes.

    Parameters
    ----------
    rows : manifest rows: a JSON list, its path (.json), or a manifest (.tsv).
    out_dir : folder the results go to.
    receipt : table to write: what was seen of each section. One that cannot be read is failed.
    """
    run_sections(
        {row.section: row for row in rows},
        stage="check-sections",
        out_dir=out_dir,
        receipt=receipt,
        fingerprint=lambda row: fingerprint(
            REVISION["check"],
            options,
            row=rows_to_json([row]),
            inputs=[digest_of_file(file) for file in row.files()],
        ),
        process=lambda row: SectionResult(look_at_section(row, options)),
    )
