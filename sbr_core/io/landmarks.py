"""Points that people set in other programs: napari, QuPath, 3D Slicer.

Points on an image come back as (x, y) in pixels from the upper left **corner** of the image that
was annotated, so that the centre of its first pixel is (0.5, 0.5); points in an MRI as RAS mm.

What the programs write:

- napari, a points layer saved as CSV: ``index, axis-0, axis-1`` and the layer's properties; axis 0
  is the row. Pixel centres are at integers (napari pull request 1660). ``index`` is written as a
  float, since it goes through one array with the coordinates (``napari_builtins/io/_write.py``).
  Shapes: ``index, shape-type, vertex-index, axis-0, axis-1``.
- QuPath, GeoJSON of objects (``Point`` or, of several points, ``MultiPoint``), with ``name`` and
  ``classification`` in the properties: pixels, (x, y), "taking the origin (0, 0) as the top left
  corner of the full-resolution image" (its manual, *Exporting annotations*).
- QuPath, points saved from the counting tool: a tab-separated ``x, y[, c, z, t][, class][, name]
  [, color]``, one row per point, a tab at the end of the header (``qupath.lib.io.PointIO``).
- QuPath, table of measurements: ``Centroid X µm`` (or ``px``), ``Name``, ``Classification``.
- 3D Slicer (its manual, *Markups*), ``.mrk.json``: ``markups[].coordinateSystem`` LPS or RAS,
  ``controlPoints[]`` with ``label`` and ``position``. ``.fcsv``: ``# CoordinateSystem = LPS`` or
  RAS, in older versions 1 or 0, and ``# columns = …``. Tables: ``label`` and ``l, p, s`` or
  ``r, a, s``.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.errors import ManifestError
from sbr_core.geometry import LPS_FROM_RAS, apply
from sbr_core.io.files import parse_json
from sbr_core.io.point_columns import NAPARI, QUPATH_POINTS, of_program, plain
from sbr_core.io.tables import named_columns, without_empty_end

_VERTEX_SHAPES = {"line", "path", "polygon"}
"""Shapes of napari whose vertices somebody set one by one; others have the corners of a box."""
_RAS_FROM = {"RAS": np.eye(4), "LPS": np.linalg.inv(LPS_FROM_RAS)}
_FCSV_SYSTEMS = {"RAS": "RAS", "LPS": "LPS", "0": "RAS", "1": "LPS"}
"""What ``.fcsv`` calls its coordinate system; numbers are those of older versions of Slicer."""
_COORDINATE = re.compile(r"axis-\d|[xyzraslp]|Centroid [XY] .*")
"""Names of columns that are coordinates."""
_FCSV_MORE_CELLS = 2
"""Newer versions of Slicer write so many cells more in a line of ``.fcsv`` than it has columns."""


@dataclass(frozen=True)
class Mark:
    """One point.

    Attributes
    ----------
    name : what pairs it with its partner; empty where it has none.
    point : (x, y) px from the image's corner, or RAS mm.
    where : file and row, for messages.
    """

    name: str
    point: tuple[float, ...]
    where: str


def read_image_marks(path: Path, pixel_size_mm: float) -> list[Mark]:
    """Points on an image, in the order of the file.

    Parameters
    ----------
    path : CSV of napari, GeoJSON or table of QuPath; recognised by what is in it.
    pixel_size_mm : of the annotated image; only a table of measurements in µm asks for it.

    Returns
    -------
    Marks with (x, y) in px from the upper left corner of the image.

    Raises
    ------
    ManifestError
        Not one of these files, or a row that is no point; naming file and row.
    """
    text = _read_text(path)
    if text.lstrip().startswith(("{", "[")):
        return _of_json(path, text, _of_geojson, "QuPath")
    header, rows = _table(path, text)
    columns = of_program(header)
    if columns is None:
        raise ManifestError(
            f"{path}: expected points of napari (axis-0, axis-1) or QuPath (x, y; Centroid X px),"
            f" found columns {', '.join(header)}"
        )
    if columns == NAPARI:
        return list(_of_napari(path, set(header), rows))
    read = _of_qupath if columns == QUPATH_POINTS else _of_measurements
    px_per_unit = columns.px_per_unit(pixel_size_mm)
    return [read(row, where, columns.names, px_per_unit) for where, row in rows]


def read_world_marks(path: Path) -> list[Mark]:
    """Points in an MRI, RAS mm, in the order of the file.

    Parameters
    ----------
    path : ``.mrk.json`` or ``.fcsv`` of 3D Slicer, or a table with ``label`` and ``r, a, s`` or
        ``l, p, s``.

    Raises
    ------
    ManifestError
        Not one of these files, or a row that is no point; naming file and row.
    """
    text = _read_text(path)
    if text.lstrip().startswith("{"):
        return _of_json(path, text, _of_markups, "3D Slicer")
    if text.lstrip().startswith("#"):
        return list(_of_fcsv(path, text))
    header, rows = _table(path, text)
    for axes, system in (("ras", "RAS"), ("lps", "LPS")):
        if {"label", *axes} <= set(header):
            return [
                Mark(row["label"], _ras([row[axis] for axis in axes], system, where), where)
                for where, row in rows
                if row.get("defined", "") != "0"
            ]
    raise ManifestError(
        f"{path}: expected markups of 3D Slicer, or columns label, r, a, s, found columns"
        f" {', '.join(header)}"
    )


def named(marks: Iterable[Mark]) -> list[Mark]:
    """Marks of one section with names of their own.

    Marks that share a name, as the points of one object do, become ``name-1``, ``name-2``, …;
    those without a name ``1``, ``2``, … ManifestError when such a name is used already.
    """
    marks = list(marks)
    alike, seen = Counter(mark.name for mark in marks), Counter[str]()
    result = []
    for mark in marks:
        seen[mark.name] += 1
        number = str(seen[mark.name])
        if not mark.name:
            mark = replace(mark, name=number)
        elif alike[mark.name] > 1:
            mark = replace(mark, name=f"{mark.name}-{number}")
        if any(mark.name == other.name for other in result):
            raise ManifestError(f"{mark.where}: a second point with the name {mark.name!r}")
        result.append(mark)
    return result


# --------------------------------------------------------------------------------------------
# napari, QuPath
# --------------------------------------------------------------------------------------------


def _of_napari(
    path: Path, columns: set[str], rows: Sequence[tuple[str, Mapping[str, str]]]
) -> Iterator[Mark]:
    if "axis-2" in columns:
        raise ManifestError(f"{path}: expected points of one 2D image, found three axes")
    for where, row in rows:
        name = row.get("name") or row.get("label") or _whole(row.get("index", ""))
        if "shape-type" in columns:
            if "vertex-index" not in columns:
                raise ManifestError(f"{path}: expected a column vertex-index beside shape-type")
            if row["shape-type"] not in _VERTEX_SHAPES:
                raise ManifestError(
                    f"{where}: expected a point or a vertex of a path, found a {row['shape-type']}"
                )
            name = f"{name}-{_whole(row['vertex-index'])}"
        y, x = (_number(row[axis], f"{where}: {axis}") for axis in ("axis-0", "axis-1"))
        yield Mark(name, (x + 0.5, y + 0.5), where)


def _whole(text: str) -> str:
    """``3.0`` as ``3``; any other text as it is."""
    return text.removesuffix(".0")


def _of_geojson(path: Path, value: Any) -> Iterator[Mark]:
    features = value.get("features", [value]) if isinstance(value, dict) else value
    for number, feature in enumerate(features, 1):
        where = f"{path}: feature {number}"
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        if not isinstance(geometry, dict):
            raise ManifestError(f"{where}: expected a GeoJSON feature with a geometry")
        kind, points = geometry.get("type"), geometry.get("coordinates")
        if kind not in ("Point", "MultiPoint"):
            continue  # an outline, say, that was exported with the points
        for point in [points] if kind == "Point" else points or []:
            if not isinstance(point, list) or len(point) < 2:
                raise ManifestError(f"{where}: expected (x, y), found {point!r}")
            x, y = (_number(v, where) for v in point[:2])
            yield Mark(_geojson_name(feature.get("properties") or {}), (x, y), where)


def _geojson_name(properties: Mapping[str, Any]) -> str:
    """The object's name, else its class, else nothing."""
    classification = properties.get("classification") or {}
    classes = classification.get("names") or [classification.get("name") or ""]
    return str(properties.get("name") or ": ".join(classes))


def _of_qupath(
    row: Mapping[str, str], where: str, names: tuple[str, ...], px_per_unit: float
) -> Mark:
    name = row.get("name") or row.get("Name") or row.get("class") or row.get("Classification")
    point = tuple(px_per_unit * _number(row[axis], f"{where}: {axis}") for axis in names)
    return Mark(name or "", point, where)


def _of_measurements(
    row: Mapping[str, str], where: str, names: tuple[str, ...], px_per_unit: float
) -> Mark:
    if (n_points := row.get("Num points") or "1") not in ("1", "1.0"):
        raise ManifestError(
            f"{where}: an object of {n_points} points has one centroid only; export GeoJSON"
        )
    return _of_qupath(row, where, names, px_per_unit)


# --------------------------------------------------------------------------------------------
# 3D Slicer
# --------------------------------------------------------------------------------------------


def _of_markups(path: Path, value: Any) -> Iterator[Mark]:
    for markup in value["markups"]:
        system = markup.get("coordinateSystem", "LPS")
        if system not in _RAS_FROM:
            raise ManifestError(f"{path}: coordinateSystem: expected LPS or RAS, found {system!r}")
        if set(_each(markup.get("coordinateUnits", "mm"))) != {"mm"}:
            raise ManifestError(f"{path}: coordinateUnits: expected mm")
        for number, point in enumerate(markup.get("controlPoints", []), 1):
            if point.get("positionStatus", "defined") != "defined":
                continue
            where = f"{path}: control point {number}"
            if not isinstance(label := point.get("label", ""), str):
                raise ManifestError(f"{where}: label: expected text, found {label!r}")
            yield Mark(label, _ras(point.get("position"), system, where), where)


def _each(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def _of_fcsv(path: Path, text: str) -> Iterator[Mark]:
    facts = {}
    lines = text.splitlines()
    for line in lines:
        if line.startswith("#") and "=" in line:
            key, _, value = line.lstrip("# ").partition("=")
            facts[key.strip()] = value.strip()
    system = _FCSV_SYSTEMS.get(facts.get("CoordinateSystem", ""))
    if system is None:
        given = facts.get("CoordinateSystem", "nothing")
        raise ManifestError(f"{path}: '# CoordinateSystem': expected LPS or RAS, found {given}")
    columns = facts.get("columns", "").split(",")
    if not {"x", "y", "z", "label"} <= set(columns):
        raise ManifestError(f"{path}: '# columns': expected x, y, z, label, found {columns}")
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        where = f"{path}: line {number}"
        cells = next(csv.reader([line]))
        row = dict(zip(columns, cells, strict=False))
        if len(row) <= max(columns.index(c) for c in ("x", "y", "z", "label")):
            raise ManifestError(f"{where}: expected {len(columns)} values, found {len(row)}")
        if len(cells) > len(columns) + _FCSV_MORE_CELLS or not _has_orientation(row):
            raise ManifestError(
                f"{where}: {len(cells)} cells for {len(columns)} columns: decimal commas? Between"
                " commas, numbers take a decimal point"
            )
        yield Mark(row["label"], _ras([row["x"], row["y"], row["z"]], system, where), where)


def _has_orientation(row: Mapping[str, str]) -> bool:
    """Whether a point's orientation in ``.fcsv`` is one, where it has one: a unit quaternion.

    It follows the coordinates, so what is cut in them shifts into it.
    """
    try:
        return all(abs(float(row.get(c) or 0)) <= 1.001 for c in ("ow", "ox", "oy", "oz"))
    except ValueError:
        return False


def _ras(position: Any, system: str, where: str) -> tuple[float, ...]:
    """RAS mm of a position in RAS or LPS mm."""
    if not isinstance(position, list) or len(position) != 3:
        raise ManifestError(f"{where}: expected a position of three numbers, found {position!r}")
    return tuple(apply(_RAS_FROM[system], np.array([_number(v, where) for v in position])).tolist())


# --------------------------------------------------------------------------------------------
# Text
# --------------------------------------------------------------------------------------------


def _read_text(path: Path) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ManifestError(f"{path}: not readable as UTF-8 text: {error}") from None
    if not text.strip():
        raise ManifestError(f"{path}: is empty; expected points")
    return text


def _of_json(
    path: Path, text: str, marks: Callable[[Path, Any], Iterator[Mark]], program: str
) -> list[Mark]:
    """The marks in a JSON file; what lacks the parts they are looked for in is another's."""
    try:
        return list(marks(path, parse_json(text)))
    except ValueError as error:
        raise ManifestError(f"{path}: not readable as JSON: {error}") from None
    except (AttributeError, KeyError, TypeError):
        raise ManifestError(f"{path}: not as {program} writes points") from None


def _table(path: Path, text: str) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """(columns, (file and line, row) of each) of a table separated by tabs, semicolons or commas.

    Raises
    ------
    ManifestError
        No table, or a line that has more cells than columns, as decimal commas make of a table
        that is separated by commas.
    """
    first = text.lstrip().split("\n", 1)[0]
    delimiter = "\t" if "\t" in first else max(",;", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        table = [(reader.line_num, cells) for cells in reader if any(c.strip() for c in cells)]
    except csv.Error as error:
        raise ManifestError(f"{path}: not readable as a table: {error}") from None
    if not table:
        raise ManifestError(f"{path}: is empty; expected points")
    header, lines = table[0][1], table[1:]
    if delimiter == ",":
        _check_decimal_commas(path, header, lines)
    columns, rows = named_columns(path, header, lines)
    columns = [plain(column) for column in columns]
    return columns, [
        (f"{path}: line {number}", dict(zip(columns, row.values(), strict=True)))
        for number, row in rows
    ]


def _check_decimal_commas(
    path: Path, header: Sequence[str], lines: Iterable[tuple[int, Sequence[str]]]
) -> None:
    """Refuse what decimal commas made of a table that is separated by commas.

    They cut each number in two, so that lines have more cells than the header, or, where such a
    line or the header ends in empty cells, whole numbers stand beyond the coordinates.
    """
    names = without_empty_end(header)
    last = max((i for i, name in enumerate(names) if _COORDINATE.fullmatch(name)), default=0)
    for number, cells in lines:
        values = without_empty_end(cells)
        is_whole = [bool(re.fullmatch(r"[-+]?\d+", value)) for value in values]
        n_pairs = sum(a and b for a, b in pairwise(is_whole))
        is_longer = len(values) > len(names) or len(cells) > len(header)
        if len(values) > len(header) or (is_longer and len(values) > last + 1 and n_pairs > 1):
            raise ManifestError(
                f"{path}: line {number}: {len(cells)} cells for {len(names)} columns: decimal"
                " commas? Between commas, numbers take a decimal point"
            )


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        point = " with a decimal point" if re.fullmatch(r"[-+]?\d+,\d+", str(value)) else ""
        raise ManifestError(f"{where}: expected a number{point}, found {value!r}")
    return number
