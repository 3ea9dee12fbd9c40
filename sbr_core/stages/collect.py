"""Gather the receipts of one stage's chunks into one table of the brain."""

from __future__ import annotations

import math
from pathlib import Path

from sbr_core.errors import ReceiptError
from sbr_core.io.manifests import read_tsv, write_tsv


def run(options: None, *, receipts: list[Path], table: Path) -> None:
    """Write `table`: every row of every receipt, sorted by position, then by id.

    A section that failed early may have no position; those rows come last.

    Raises
    ------
    ReceiptError
        A section stands in two receipts.
    """
    rows: list[dict[str, str]] = []
    columns: dict[str, None] = {}
    seen: dict[str, Path] = {}
    for receipt in receipts:
        header, found = read_tsv(receipt)
        columns |= dict.fromkeys(header)
        for row in found:
            if (section := row["section"]) in seen:
                raise ReceiptError(
                    f"{receipt}: section {section!r} stands in {seen[section]} too"
                )
            seen[section] = receipt
        rows += found
    rows.sort(key=lambda row: (float(row.get("position_mm") or math.inf), row["section"]))
    write_tsv(table, rows, columns)
