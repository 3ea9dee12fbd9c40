"""Tab-separated tables, read and written in one way; the standard library alone, so that planning
stays fast."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbr_core.errors import ManifestError
from sbr_core.io.files import write_text
from sbr_core.io.sums import summed_path

_MOST_MISSING = 2_000_000
"""Cells that lines may lack at their end. Each is made, so that a header of thousands of columns
over thousands of short lines would take far more memory than the file is long."""


def read_tsv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """(columns, rows) of a tab-separated UTF-8 file; BOM and CRLF are taken as they come."""
    path = Path(path)
    if path.is_dir():
        raise ManifestError(f"{path}: is a folder, expected a table")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except PermissionError:
        raise ManifestError(f"{path}: may not be read (permission denied)") from None
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ManifestError(f"{path}: not readable as UTF-8 text: {error}") from None
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    try:
        table = [(i, row) for i, row in enumerate(lines, 1) if any(c.strip() for c in row)]
    except csv.Error as error:
        raise ManifestError(f"{path}: not readable as a table: {error}") from None
    for i, row in table:
        if any("\n" in cell for cell in row):  # rows that a quotation mark swallowed
            raise ManifestError(
                f"{path}: line {i}: a cell goes on in the next line: a quotation mark not closed?"
            )
    table = [(i, row) for i, row in table if not row[0].startswith("#")]
    if not table:
        raise ManifestError(f"{path}: is empty; expected a header line and rows")
    header = [cell.strip() for cell in table[0][1]]
    if len(without_empty_end(header)) == 1 and (separator := re.search(r"[,;]|\s", header[0])):
        what = "" if separator[0] in ",;" else "columns separated by blanks: "
        raise ManifestError(
            f"{path}: expected columns separated by tabs, found {what}{header[0]!r}"
        )
    header, rows = named_columns(path, header, table[1:])
    return header, [row for _, row in rows]


def without_empty_end(cells: Sequence[str]) -> list[str]:
    """Cells without blanks around them, and without the empty ones at the end of the line.

    Spreadsheets write those for whatever was once to the right of a table.
    """
    cells = [cell.strip() for cell in cells]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def named_columns(
    path: Path, header: Sequence[str], lines: Iterable[tuple[int, Sequence[str]]], hint: str = ""
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """(columns, (number of the line, row) of each) of lines that are split into cells.

    Columns without a name whose cells are all empty are dropped.

    Parameters
    ----------
    hint : what a line of too many cells is told beside their number.

    Raises
    ------
    ManifestError
        A name twice, several columns without a name that have values, or a line with more cells
        than there are columns.
    """
    names = [name.strip() for name in header]
    rows: list[tuple[int, list[str]]] = []
    n_missing = 0
    for number, cells in lines:
        values = without_empty_end(cells)
        if len(values) > len(names):
            raise ManifestError(
                f"{path}: line {number}: {len(values)} cells for {len(names)} columns{hint}"
            )
        n_missing += len(names) - len(values)
        if n_missing > _MOST_MISSING:
            raise ManifestError(
                f"{path}: {len(names)} columns, but most cells of its lines are missing"
            )
        rows.append((number, values + [""] * (len(names) - len(values))))
    kept = [i for i, name in enumerate(names) if name or any(cells[i] for _, cells in rows)]
    unnamed = [i for i in kept if not names[i]]
    if len(unnamed) > 1:
        raise ManifestError(
            f"{path}: columns {', '.join(str(i + 1) for i in unnamed)} have values, but no name in"
            " the header"
        )
    names_kept = [names[i] for i in kept]
    if twice := [name for name, n in Counter(names_kept).items() if n > 1]:
        raise ManifestError(
            f"{path}: the same column twice, {twice[0]!r}, in {', '.join(names_kept)}"
        )
    return names_kept, [(number, {names[i]: cells[i] for i in kept}) for number, cells in rows]


def write_tsv(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    columns: Iterable[str] = (),
    *,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write rows as TSV, whole or not at all; floats in full precision, dicts as JSON.

    Parameters
    ----------
    columns : their order; those of the rows, in order of appearance, are added.
    facts : record the table's sum, with these fields of `sums.Sum`; None for a table that is the
        user's to edit.
    """
    header = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(row.get(c)) for c in header])
    if facts is None:
        write_text(path, stream.getvalue())
    else:
        with summed_path(path, **facts) as temporary:
            temporary.write_text(stream.getvalue(), encoding="utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True)
    return str(value)
