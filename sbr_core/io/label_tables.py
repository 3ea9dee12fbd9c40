"""Names and colours of labels, as programs and atlases write them.

- FreeSurfer's colour look-up table and 3D Slicer's ``.ctbl``: ``index name R G B A`` between
  blanks, ``#`` before what is no row.
- ITK-SNAP's label descriptions: ``index R G B A visible mesh "name"``.
- Tables with a header, between tabs, commas or semicolons: the index is the column ``index``,
  ``id``, ``label`` or ``value``, the name ``name``, ``region`` or ``structure``, the colour
  ``color`` (``#rrggbb``) or ``r, g, b``: ``dseg.tsv`` of BIDS, the ontology of the Allen Institute
  (``color_hex_triplet``), newer tables of 3D Slicer, and what `sbr apply` writes beside labels.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sbr_core.errors import ManifestError
from sbr_core.io.files import check_is_file

_INDEX = ("index", "id", "label", "value", "label_id", "structure_id", "labelvalue")
_NAME = ("name", "region", "structure", "label_name", "safe_name", "acronym", "abbreviation")
_COLOUR = ("color", "colour", "hex", "color_hex_triplet", "rgb_hex", "hexcolor")
_PARTS = (("r", "g", "b"), ("red", "green", "blue"), ("color_r", "color_g", "color_b"))
_ITK_SNAP = re.compile(r'(-?\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\S+\s+\d+\s+\d+\s+"(.*)"$')
_FREESURFER = re.compile(r"(\S+)\s+(.+?)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(?:\s+-?[\d.]+)?$")
_FORMATS = (
    "a colour table of FreeSurfer (index name R G B A), label descriptions of ITK-SNAP, or a table"
    " with columns index and name"
)


@dataclass(frozen=True)
class Label:
    """What an id stands for.

    Attributes
    ----------
    rgb : each 0 to 255; None where the table gives no colour.
    """

    id: int
    name: str
    rgb: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class LabelTable:
    """The labels of a file, by id."""

    path: Path | None
    labels: Mapping[int, Label]

    def of(self, label: int) -> Label:
        """That of an id; one that the table does not have is called by its number."""
        return self.labels.get(label) or Label(label, str(label))


NO_NAMES = LabelTable(None, {})
"""Of labels without a table."""


def read_label_table(path: Path) -> LabelTable:
    """The names and colours of a file, whose kind is recognised by what is in it.

    Raises
    ------
    ManifestError
        No such file, none of the kinds, or an id that has two names or colours.
    """
    path = Path(path)
    check_is_file(path, ManifestError)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise ManifestError(f"{path}: not readable as UTF-8 text: {error}") from None
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise ManifestError(f"{path}: has no labels; expected {_FORMATS}")
    first = lines[0][1]
    if _ITK_SNAP.match(first):
        rows = _matches(path, lines, _ITK_SNAP, (1, 5, 2, 3, 4))
    elif _FREESURFER.match(first) and re.match(r"-?\d+\s", first):
        rows = _matches(path, lines, _FREESURFER, (1, 2, 3, 4, 5))
    else:
        rows = _of_table(path, text)
    return LabelTable(path, _unique(path, rows))


def _matches(
    path: Path, lines: Iterable[tuple[int, str]], pattern: re.Pattern, groups: Sequence[int]
) -> Iterator[tuple[str, Label]]:
    """(where, label) of each line; `groups` are those of index, name, red, green and blue."""
    for number, line in lines:
        where = f"{path}: line {number}"
        if (found := pattern.match(line)) is None:
            raise ManifestError(f"{where}: expected a row like those before it, found {line!r}")
        index, name, *rgb = (found[group] for group in groups)
        yield where, Label(_index(index, where), name, _rgb(rgb, where))


def _of_table(path: Path, text: str) -> Iterator[tuple[str, Label]]:
    """(where, label) of each row of a table with a header."""
    first = next(line for line in text.splitlines() if line.strip() and line[0] != "#")
    separator = max("\t,;", key=first.count)
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    header: list[str] = []
    for cells in rows:
        if not any(cell.strip() for cell in cells) or cells[0].startswith("#"):
            continue
        if not header:
            header = [cell.strip().casefold() for cell in cells]
            index, name = _first(_INDEX, header), _first(_NAME, header)
            if index is None or name is None:
                found = ", ".join(header[:12])
                raise ManifestError(f"{path}: expected {_FORMATS}, found {found!r}")
            continue
        where = f"{path}: line {rows.line_num}"
        if len(cells) < len(header):
            cells = [*cells, *[""] * (len(header) - len(cells))]
        values = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        if not values[name]:
            raise ManifestError(f"{where}: {name}: expected a name, found nothing")
        yield where, Label(_index(values[index], where), values[name], _colour(values, where))


def _first(known: Sequence[str], header: Sequence[str]) -> str | None:
    return next((column for column in known if column in header), None)


def _colour(values: Mapping[str, str], where: str) -> tuple[int, int, int] | None:
    for parts in _PARTS:
        given = [values.get(part, "") for part in parts]
        if any(given):
            return _rgb(given, where)
    column = _first(_COLOUR, list(values))
    text = values[column] if column is not None else ""
    if text.casefold() in ("", "n/a"):
        return None
    # spreadsheets drop the zeros that such a number begins with
    digits = text.removeprefix("#").rjust(6, "0")
    if not re.fullmatch(r"[0-9a-fA-F]{6}", digits):
        raise ManifestError(f"{where}: {column}: expected a colour as #rrggbb, found {text!r}")
    return tuple(bytes.fromhex(digits))


def _index(text: str, where: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}(\.0*)?", text):
        raise ManifestError(f"{where}: expected the whole number of a label, found {text!r}")
    return int(text.partition(".")[0])


def _rgb(parts: Sequence[str], where: str) -> tuple[int, int, int]:
    values = [int(part) if re.fullmatch(r"\d{1,3}", part) else -1 for part in parts]
    if not all(0 <= value <= 255 for value in values):
        found = " ".join(parts)
        raise ManifestError(f"{where}: expected a colour of three numbers 0 to 255, found {found}")
    return tuple(values)


def _unique(path: Path, rows: Iterable[tuple[str, Label]]) -> dict[int, Label]:
    """By id; ManifestError where one stands there twice and not for the same."""
    labels: dict[int, Label] = {}
    for where, label in rows:
        before = labels.setdefault(label.id, label)
        if before != label:
            raise ManifestError(
                f"{where}: the index {label.id} stands there twice, as {before.name!r} and"
                f" {label.name!r}: keep one"
            )
    if not labels:
        raise ManifestError(f"{path}: has no labels; expected {_FORMATS}")
    return labels
