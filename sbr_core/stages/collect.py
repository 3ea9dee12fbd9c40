"""Gather the receipts of one stage's chunks into one table of the brain."""

from __future__ import annotations

import math
from pathlib import Path

from sbr_core.artifacts.receipts import check_chunks
from sbr_core.artifacts.rows import read_cells
from sbr_core.errors import ImageError, ReceiptError
from sbr_core.io.sums import recorded
from sbr_core.io.tables import write_tsv

_MIN_SECTIONS = 2
"""Fewer are no stack: nothing to interpolate between, or to train on."""


def run(options: None, *, receipts: list[Path], table: Path) -> None:
    """Gather receipts of one stage into one table, sorted by position, then by id.

    A section that failed early may have no position; those rows come last.

    Parameters
    ----------
    receipts : receipts of the chunks.
    table : table to write.

    Raises
    ------
    ReceiptError
        A section stands in two receipts, or a receipt is not what was written.
    ImageError
        Fewer than two sections can be used, which are no stack.
    """
    rows: list[dict[str, str]] = []
    columns: dict[str, None] = {}
    seen: dict[str, Path] = {}
    unrecorded: dict[Path, set[str]] = {}
    for receipt in receipts:
        header, of_receipt = read_cells(receipt)
        columns |= dict.fromkeys(header)
        for row in of_receipt:
            if (section := row["section"]) in seen:
                raise ReceiptError(f"{receipt}: section {section!r} stands in {seen[section]} too")
            seen[section] = receipt
        rows += of_receipt
        if recorded(receipt) is None:  # one of before it was recorded which sections it must have
            unrecorded[receipt] = {row["section"] for row in of_receipt}
    check_chunks(unrecorded)
    good = sum(row["status"] == "ok" for row in rows)
    if good < _MIN_SECTIONS:
        failed = next((f"; {row['message']}" for row in rows if row["status"] != "ok"), "")
        raise ImageError(
            f"{table}: {good} of {len(rows)} sections can be used, expected at least"
            f" {_MIN_SECTIONS}{failed}"
        )
    rows.sort(key=lambda row: (float(row.get("position_mm") or math.inf), row["section"]))
    write_tsv(table, rows, columns, facts={"sections": [row["section"] for row in rows]})
