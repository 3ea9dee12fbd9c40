"""Tables of points, a part at a time: CSV, TSV, Parquet, and the markups of 3D Slicer.

A table of a million cells with fifty measurements does not lie in memory whole. Cells that are no
coordinates are text as they are written, so that they come out as they came in.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.errors import ConfigError, ManifestError
from sbr_core.io.files import atomic_path, check_is_file
from sbr_core.io.landmarks import read_world_marks

if TYPE_CHECKING:
    import pandas as pd

ROWS_AT_ONCE = 100_000
MARKUPS = (".mrk.json", ".fcsv")
_PARQUET = (".parquet", ".pq")
_SEPARATED = {".tsv": "\t", ".csv": ","}
ENDINGS = (*MARKUPS, *_PARQUET, *_SEPARATED, ".txt")
"""Of names of files with points."""
_WORD_OF = {True: "true", False: "false"}
_NO_PYARROW = "Parquet needs pyarrow: pip install 'sbr_core[parquet]'"


@dataclass(frozen=True)
class PointTable:
    """A table of points that is read part by part.

    Attributes
    ----------
    columns : of every part.
    of_qupath : whether QuPath's points tool wrote it, whose ``x, y`` are pixels.
    parts : each with up to `ROWS_AT_ONCE` rows, indexed by the number of the row, from 1.
    """

    path: Path
    columns: tuple[str, ...]
    parts: Iterator[pd.DataFrame]
    of_qupath: bool = False


def is_points(path: Path) -> bool:
    """Whether a file is named like a table of points."""
    return Path(path).name.lower().endswith(ENDINGS)


def read_point_table(path: Path) -> PointTable:
    """A table of points.

    Parameters
    ----------
    path : ``.parquet``; ``.mrk.json`` or ``.fcsv`` of 3D Slicer, as columns ``label, x_mm, y_mm,
        z_mm`` in RAS; anything else as a text with cells between tabs, semicolons or commas.

    Raises
    ------
    ManifestError
        Not such a table; also while its parts are read.
    ConfigError
        Parquet without pyarrow.
    """
    path = Path(path)
    check_is_file(path, ManifestError)
    name = path.name.lower()
    if name.endswith(MARKUPS):
        return _of_slicer(path)
    return _of_parquet(path) if name.endswith(_PARQUET) else _of_text(path)


def numbers(path: Path, part: pd.DataFrame, column: str) -> np.ndarray:
    """(n,) finite float64 of a column; ManifestError naming the first row that has none."""
    cells = part[column]
    try:
        values = cells.to_numpy().astype(float)
    except (ValueError, TypeError):
        values = np.array([_number(cell) for cell in cells])
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        row, cell = part.index[bad[0]], cells.iloc[bad[0]]
        point = " with a decimal point" if "," in str(cell) else ""
        raise ManifestError(
            f"{path}: row {row}: {column}: expected a number{point}, found {str(cell)!r}"
        )
    return values


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (ValueError, TypeError):
        return np.nan


# --------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------


def _of_slicer(path: Path) -> PointTable:
    import pandas as pd

    marks = read_world_marks(path)
    if not marks:
        raise ManifestError(f"{path}: has no points")
    points = np.array([mark.point for mark in marks])
    part = pd.DataFrame({"label": [mark.name for mark in marks]}, index=range(1, len(marks) + 1))
    for axis, values in zip("xyz", points.T, strict=True):
        part[f"{axis}_mm"] = values
    return PointTable(path, tuple(part.columns), iter([part]))


def _of_text(path: Path) -> PointTable:
    import pandas as pd

    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
    except (UnicodeDecodeError, OSError) as error:
        raise ManifestError(f"{path}: not readable as UTF-8 text: {error}") from None
    if not first.strip():
        raise ManifestError(f"{path}: is empty; expected a header line and points")
    separator = "\t" if "\t" in first else max(",;", key=first.count)
    with _parsing(path):
        header = pd.read_csv(io.StringIO(first), sep=separator, dtype=str, header=None).iloc[0]
    # a tab at the end of the header: as QuPath's points tool writes it
    columns = ["" if pd.isna(name) else str(name).strip() for name in header]
    ends_in_tab = separator == "\t" and columns[-1] == ""
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise ManifestError(f"{path}: the same column twice, {twice[0]!r}")
    kept = [name for name in columns if name]
    names = [name or f"\0{i}" for i, name in enumerate(columns)]

    def parts() -> Iterator[pd.DataFrame]:
        n_read = 0
        how = {"sep": separator, "names": names, "skiprows": 1, "header": None}
        how |= {"dtype": str, "keep_default_na": False, "index_col": False}
        with _parsing(path):
            reader = pd.read_csv(path, encoding="utf-8-sig", chunksize=ROWS_AT_ONCE, **how)
            for part in reader:
                part.index = range(n_read + 1, n_read + len(part) + 1)
                n_read += len(part)
                if unnamed := [n for n in names if n[0] == "\0" and part[n].fillna("").any()]:
                    place = names.index(unnamed[0]) + 1
                    raise ManifestError(f"{path}: column {place} has values, but no name")
                yield part[kept].fillna("")

    return PointTable(path, tuple(kept), parts(), ends_in_tab and kept[:2] == ["x", "y"])


@contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """What pandas finds wrong with a text, as the file's fault; lines of too many cells too."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ManifestError(
            f"{path}: not readable as a table: {error} (decimal commas between commas?)"
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not readable as UTF-8 text: {error}") from None


def _of_parquet(path: Path) -> PointTable:
    import pandas as pd

    parquet = _pyarrow_parquet(path)
    try:
        file = parquet.ParquetFile(path)
        columns = tuple(file.schema_arrow.names)
    except Exception as error:  # as different as what is damaged
        raise ManifestError(f"{path}: not readable as Parquet: {error}") from None

    def parts() -> Iterator[pd.DataFrame]:
        n_read = 0
        try:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                # as they are in the file: an index of pandas is a column too
                part = batch.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
                part.index = range(n_read + 1, n_read + len(part) + 1)
                n_read += len(part)
                yield part
        except OSError as error:
            raise ManifestError(f"{path}: not readable as Parquet: {error}") from None

    return PointTable(path, columns, parts())


def _pyarrow_parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"{path}: {_NO_PYARROW}") from None
    return parquet


# --------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------


def check_point_output(path: Path, n_axes: int) -> None:
    """Refuse a name of a file that points cannot be written to; ConfigError.

    Parameters
    ----------
    n_axes : of the points; markups of 3D Slicer have three.
    """
    name = path.name.lower()
    if name.endswith(_PARQUET):
        _pyarrow_parquet(path)
    elif name.endswith(".mrk.json"):
        if n_axes != 3:
            raise ConfigError(f"{path}: markups of 3D Slicer are points in space: --to mri")
    elif not name.endswith(tuple(_SEPARATED)):
        raise ConfigError(f"{path}: expected .csv, .tsv, .parquet or, to mri, .mrk.json for points")


def write_point_table(path: Path, parts: Iterable[pd.DataFrame]) -> int:
    """Write parts of a table one after another, whole or not at all; the number of rows.

    Parameters
    ----------
    path : as of `check_point_output`.
    parts : all with the same columns; of markups with ``x_mm, y_mm, z_mm`` in RAS.
    """
    name, written = path.name.lower(), 0
    with atomic_path(path) as temporary:
        if name.endswith(".mrk.json"):
            return _write_markups(temporary, parts)
        if name.endswith(_PARQUET):
            return _write_parquet(temporary, parts)
        separator = _SEPARATED[path.suffix.lower()]
        with open(temporary, "w", encoding="utf-8", newline="") as stream:
            for part in parts:
                flags = {c: part[c].map(_WORD_OF) for c in part if part[c].dtype == bool}
                part.assign(**flags).to_csv(
                    stream, sep=separator, index=False, header=not written, lineterminator="\n"
                )
                written += len(part)
    return written


def _write_parquet(path: Path, parts: Iterable[pd.DataFrame]) -> int:
    import pyarrow as pa

    parquet, writer, written = _pyarrow_parquet(path), None, 0
    try:
        for part in parts:
            schema = None if writer is None else writer.schema
            table = pa.Table.from_pandas(part, schema=schema, preserve_index=False)
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            written += len(part)
    finally:
        if writer is not None:
            writer.close()
    return written


def _write_markups(path: Path, parts: Iterable[pd.DataFrame]) -> int:
    """A list of points of 3D Slicer; its schema 1.0.3 (Slicer, *Markups*, file format).

    Points that have no position stay in the list, as undefined.
    """
    points: list[dict[str, Any]] = []
    for part in parts:
        labels = part["label"] if "label" in part else [""] * len(part)
        for label, position in zip(labels, part[["x_mm", "y_mm", "z_mm"]].to_numpy(), strict=True):
            number = str(len(points) + 1)
            point: dict[str, Any] = {"id": number, "label": str(label) or number}
            if np.isfinite(position).all():
                point |= {"position": [float(value) for value in position]}
                points.append(point | {"positionStatus": "defined"})
            else:
                points.append(point | {"positionStatus": "undefined"})
    markup = {"type": "Fiducial", "coordinateSystem": "RAS", "coordinateUnits": "mm"}
    schema = (
        "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
        "Schema/markups-schema-v1.0.3.json#"
    )
    content = {"@schema": schema, "markups": [{**markup, "controlPoints": points}]}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return len(points)
