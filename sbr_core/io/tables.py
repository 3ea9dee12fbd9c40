"""Tab-separated tables, read and written in one way; the standard library alone, so that planning
stays fast."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbr_core.errors import ManifestError
from sbr_core.io.files import write_text


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
    header = [c.strip() for c in table[0][1]]
    if len(header) == 1 and (separator := re.search(r"[,;]|\s", header[0])):
        what = "" if separator[0] in ",;" else "columns separated by blanks: "
        raise ManifestError(
            f"{path}: expected columns separated by tabs, found {what}{header[0]!r}"
        )
    if len(set(header)) != len(header):
        raise ManifestError(f"{path}: the same column twice in {', '.join(header)}")
    rows = []
    for number, cells in table[1:]:
        if len(cells) > len(header):
            raise ManifestError(
                f"{path}: line {number}: {len(cells)} cells for {len(header)} columns"
            )
        cells = [c.strip() for c in cells] + [""] * (len(header) - len(cells))
        rows.append(dict(zip(header, cells, strict=True)))
    return header, rows


def write_tsv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Write rows as TSV, whole or not at all; floats in full precision, dicts as JSON.

    Parameters
    ----------
    columns : their order; those of the rows, in order of appearance, are added.
    """
    header = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(row.get(c)) for c in header])
    write_text(path, stream.getvalue())


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
