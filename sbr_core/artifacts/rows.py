"""What the stages that work section by section hand on: a row for each section, typed.

A receipt is a table of such rows, and so is the table of a brain that `collect` makes of receipts.
Field names are the tables' columns, except that a 3x3 matrix is six columns (``g00`` … ``g12`` for
the letter ``g``), and a `PlaneGrid` the columns ``rows``, ``columns`` and ``spacing_mm``. A field
without a default must be in every row; one with a default came later, or may be empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import numpy as np

from sbr_core.artifacts.cells import CELLS, matrix_columns, read_matrix
from sbr_core.artifacts.names import CHUNKS, IMAGE, MASK
from sbr_core.errors import ManifestError, ReceiptError, some_of
from sbr_core.geometry import Box, PlaneGrid
from sbr_core.io.files import inside, sha256_file, sha256_of, sum_file
from sbr_core.io.manifests import check_id
from sbr_core.io.sums import check_sum
from sbr_core.io.tables import read_tsv, write_tsv

if TYPE_CHECKING:
    from sbr_core.config import Options

FIRST_COLUMNS = ("section", "status", "message", "position_mm")
"""What a reader of the table looks for first; the others follow in alphabetical order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One section in a stage's table. Sections that failed have nothing beyond these fields.

    Attributes
    ----------
    status : ``ok`` or ``failed``.
    message : why it failed, or a warning.
    files : names relative to the stage's folder -> sha256.
    fingerprint : digest of everything the section's result depends on.
    table : the file that the row was read from; no column.
    """

    section: str
    status: str = "ok"
    message: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    table: Path = Path()

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def has(self, ending: str) -> bool:
        """Whether the row lists a file whose name ends with `ending`."""
        return any(name.endswith(ending) for name in self.files)

    def file(self, ending: str) -> Path:
        """The one file of the row whose name ends with `ending`; else ReceiptError."""
        names = [name for name in self.files if name.endswith(ending)]
        if len(names) != 1:
            raise ReceiptError(f"{self.table}: section {self.section!r} lists no file …{ending}")
        return stage_dir(self.table) / names[0]

    def intact(self, ending: str) -> Path:
        """As `file`; ReceiptError too where it is missing, or another than the table lists."""
        path = self.file(ending)
        _check(path, self.files[str(path.relative_to(stage_dir(self.table)))], self.table)
        return path


@dataclass(frozen=True, kw_only=True, eq=False)
class Looked(Row):
    """What `check-sections` saw of a section; see `algorithms.plausibility`.

    Attributes
    ----------
    position_mm, pixel_size_mm, flip, rotate_deg, box_px : of the manifest.
    file_rows, file_columns : shape of the file.
    pixel_aspect : height of a pixel over its width, as the file states them; 1 where it does not.
    tissue_mm2 : area of the tissue: of the mask given, or as found.
    width_mm, height_mm : of the box around it, flipped and turned as the manifest states.
    cells : where in the file it is, see `outlines.cells_of`.
    unevenness : of its left, right, upper and lower outline, see `outlines.unevenness_of_sides`.
    ids, plane_ids : of its labels and of those of its MRI plane, without 0.
    plane_mm2, plane_dice : of a prealigned section's plane: its area, and the overlap of both.
    doubts, refusals : subject -> what is to be said of it.
    """

    position_mm: float
    pixel_size_mm: float
    flip: str = "none"
    rotate_deg: float = 0.0
    box_px: str = ""
    file_rows: int
    file_columns: int
    pixel_aspect: float = 1.0
    tissue_mm2: float
    width_mm: float
    height_mm: float
    cells: str
    unevenness: tuple[float, ...] | None = None
    ids: tuple[float, ...] | None = None
    plane_ids: tuple[float, ...] | None = None
    plane_mm2: float | None = None
    plane_dice: float | None = None
    doubts: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared(Row):
    """A section as `prepare` left it: image and mask at working resolution.

    Attributes
    ----------
    position_mm : along the stack.
    pixel_size_mm, working_pixel_mm : of the section's file, and of what was made of it.
    file_rows, file_columns : shape of the file.
    image, image_channel, labels, stain, box_px, thickness_um, stain_group, affine_from : of the
        manifest.
    channel, polarity, background, white, padding : see `algorithms.staining.Channel`; rows of
        before there were channels are of luminance, ``grey``.
    light, staining : `SmoothField` as a table's cell, or empty.
    read_step : file pixels per pixel that was read.
    section_mm_from_working_mm : (3, 3).
    tissue_mm2 : area of the mask.
    """

    position_mm: float
    pixel_size_mm: float
    working_pixel_mm: float
    file_rows: int
    file_columns: int
    read_step: float = 1.0
    channel: str = "grey"
    polarity: str
    background: float
    white: tuple[float, ...] | None = None
    padding: float | None = None
    light: str = ""
    staining: str = ""
    section_mm_from_working_mm: np.ndarray = field(metadata={"letter": "g"})
    tissue_mm2: float
    image: str
    image_channel: str = ""
    labels: str = ""
    stain: str = ""
    box_px: str = ""
    thickness_um: float | None = None
    stain_group: str = ""
    affine_from: str = ""

    @property
    def box(self) -> Box | None:
        """The part of the file that is the section; None for all of it."""
        return Box.of(self.box_px)

    @property
    def file_shape(self) -> tuple[int, int]:
        """(rows, columns) of the section's file."""
        return self.file_rows, self.file_columns

    @property
    def pixels_digest(self) -> str:
        """What the section looks like, as a digest: its image, mask and place in the file.

        Unlike the fingerprint it stays the same when only labels, stain or the like are edited.
        """
        pixels = {n: sha256 for n, sha256 in self.files.items() if n.endswith((IMAGE, MASK))}
        return sha256_of([pixels, self.section_mm_from_working_mm.tolist()])


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane(Row):
    """The MRI plane of a section, as `resample` cut it out; its mask beside it."""

    position_mm: float
    grid: PlaneGrid


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine(Row):
    """The affine of a section to its MRI plane, and the section through it (`align-sections`).

    Attributes
    ----------
    working_mm_from_plane_mm : (3, 3).
    cost, prior_cost : see `algorithms.alignment.section_affine`; None for a prealigned section.
    moved_mm : by the fit, mean over the plane's tissue.
    missing : share of the plane's tissue that the section has lost, where that is a tenth or more.
    trust : from 0 to 1, see `algorithms.alignment.trust`; None for a prealigned section.
    stain, channel : of the prepared section.
    constraints : landmark that is obeyed -> x and y on the plane and in the section's file, mm;
        None where there are none.
    landmark_tolerance_mm : how near deformations hold them.
    """

    position_mm: float
    working_mm_from_plane_mm: np.ndarray = field(metadata={"letter": "a"})
    cost: float | None = None
    prior_cost: float | None = None
    moved_mm: float
    missing: float | None = None
    trust: float | None = None
    stain: str = ""
    channel: str = "grey"
    constraints: Mapping[str, tuple[float, ...]] | None = None
    landmark_tolerance_mm: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Inferred(Row):
    """A section's transforms and registered image by one method.

    Attributes
    ----------
    grid : of the plane.
    folding_percent : share of the tissue where the deformation folds.
    disp_mean_mm, disp_max_mm : length of the deformation's displacement, over the tissue.
    inverse_mean_px, inverse_p99_px : how far from where it started a point is, there and back.
    seconds : that it took; None in rows of before it was recorded.
    landmarks_mm : how far the farthest landmark of its affine is from its place, through the affine
        back on the plane; None without landmarks.
    """

    position_mm: float
    grid: PlaneGrid
    folding_percent: float
    disp_mean_mm: float
    disp_max_mm: float
    inverse_mean_px: float
    inverse_p99_px: float
    seconds: float | None = None
    landmarks_mm: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Trusted(Row):
    """How far a method's registration of a section can be trusted (`trust`).

    Attributes
    ----------
    expected_error_mm : expected in-plane error, root mean square over the tissue.
    likely_wrong : probability that the section is badly wrong.
    reason, next_step : of a suspect, in words; empty of others.
    evidence : what both were computed from, by name; see `algorithms.trust.evidence`.
    """

    position_mm: float
    expected_error_mm: float
    likely_wrong: float
    reason: str = ""
    next_step: str = ""
    evidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Full(Row):
    """A registered section with all its channels and colours (`registered`).

    Attributes
    ----------
    image_rows, image_columns, channels : shape of the image.
    pixel_mm : of the image.
    seconds : that it took.
    """

    position_mm: float
    image_rows: int
    image_columns: int
    channels: int
    pixel_mm: float
    seconds: float | None = None


R = TypeVar("R", bound=Row)


def read_rows(
    table: Path, kind: type[R], *, only_ok: bool = True, verify: Iterable[str] | bool = True
) -> list[R]:
    """Rows of a receipt or a collected table.

    Parameters
    ----------
    kind : of the rows.
    only_ok : leave out sections that failed, which are plain `Row` of whatever kind.
    verify : check that the files exist and have the recorded sha256; an iterable of name
        endings checks only those files.

    Raises
    ------
    ReceiptError
        A listed file is missing or is not what the table lists; a column is missing.
    """
    endings = "" if verify is True else tuple(verify or ())
    rows = []
    for cells in read_cells(table)[1]:
        if only_ok and cells["status"] != "ok":
            continue
        row = _row(cells, kind if cells["status"] == "ok" else Row, table)
        rows.append(row)
        for name, sha256 in row.files.items():
            if name.endswith(endings):
                _check(stage_dir(table) / name, sha256, table)
    return rows


def read_cells(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    """(columns, rows) of a receipt or a collected table, as they are written.

    Raises
    ------
    ReceiptError
        It is not the table that was written, lacks sections that it must have, or has one whose id
        is no name of a file, which no manifest could have.
    """
    record = check_sum(table)
    header, rows = read_tsv(table)
    if missing := [name for name in ("section", "status") if name not in header]:
        raise ReceiptError(f"{table}: has no column {', '.join(missing)}")
    check_ids((row["section"] for row in rows), table)
    if record is not None and record.sections is not None:
        there = [row["section"] for row in rows]
        if there != record.sections:
            lost = [section for section in record.sections if section not in there]
            raise ReceiptError(
                f"{table}: has {len(there)} sections, of the {len(record.sections)} that"
                f" {sum_file(table)} names it lacks {some_of(lost)}"
            )
    return header, rows


def check_ids(sections: Iterable[str], where: Path) -> None:
    """ReceiptError where an id is none that a manifest may have: files are named by them."""
    for section in sections:
        try:
            check_id(section, str(where))
        except ManifestError as error:
            raise ReceiptError(str(error)) from None


def sections_lost(table: Path, prepared: Path) -> str:
    """Which sections of `prepare` a later table lacks, as a sentence; empty for none.

    One that failed has a row that says so, so none is lost unless a table was cut, or made of some
    sections only.
    """
    there = {row["section"] for row in read_cells(table)[1]}
    lost = [r["section"] for r in read_cells(prepared)[1] if r["section"] not in there]
    if not lost:
        return ""
    return f"{table}: lacks {len(lost)} sections that {prepared} has: {some_of(lost)}"


def write_rows(table: Path, rows: Sequence[Row]) -> None:
    """Write a table that `read_rows` reads, whole or not at all."""
    write_columns(table, [columns_of(row) for row in rows])


def write_columns(table: Path, rows: Sequence[Mapping[str, Any]], **facts: Any) -> None:
    """As `write_rows`, of rows as `columns_of` makes them.

    Parameters
    ----------
    facts : further fields of the table's `Sum`.
    """
    facts["sections"] = [row["section"] for row in rows]
    # sorted, so that the same content is the same file whether computed or kept
    columns = [*FIRST_COLUMNS, *sorted({key for row in rows for key in row})]
    write_tsv(table, rows, columns, facts=facts)


def columns_of(row: Row) -> dict[str, Any]:
    """A row's columns, JSON-able."""
    if not row.ok:
        return {"section": row.section, "status": row.status, "message": row.message}
    columns: dict[str, Any] = {}
    for each in fields(row):
        value = getattr(row, each.name)
        if each.name == "table":
            continue
        if isinstance(value, PlaneGrid):
            names, values = _GRID, (*value.shape, value.spacing_mm)
            columns |= dict(zip(names, values, strict=True))
        elif "letter" in each.metadata:
            columns |= matrix_columns(value, each.metadata["letter"])
        else:
            columns[each.name] = "" if value is None else value
    return columns


def _row(cells: Mapping[str, str], kind: type[R], table: Path) -> R:
    """A row of a table's text; its files must be inside the folder of the table."""
    values: dict[str, Any] = {"table": table}
    try:
        for name, read, optional in _readers(kind):
            if not optional or cells.get(name):
                values[name] = read(cells)
        row = kind(**values)
    except KeyError as error:
        what = f"has no column {error}"
    except (ValueError, TypeError) as error:
        what = str(error)
    else:
        for name in row.files:
            inside(stage_dir(table), name)
        return row
    raise ReceiptError(f"{table}: section {cells.get('section')!r}: {what}")


_GRID = ("rows", "columns", "spacing_mm")


@cache
def _readers(kind: type[Row]) -> list[tuple[str, Callable[[Mapping[str, str]], Any], bool]]:
    """(name, how to read it from a table's line, whether it may be missing) of each field."""
    hints = get_type_hints(kind)
    return [
        (
            each.name,
            _reader(each.name, hints[each.name], each.metadata.get("letter", "")),
            (each.default, each.default_factory) != (MISSING, MISSING),
        )
        for each in fields(kind)
        if each.name != "table"
    ]


def _reader(name: str, hint: Any, letter: str) -> Callable[[Mapping[str, str]], Any]:
    if hint is PlaneGrid:
        rows, columns, spacing_mm = _GRID
        return lambda cells: PlaneGrid(
            (int(float(cells[rows])), int(float(cells[columns]))), float(cells[spacing_mm])
        )
    if letter:
        return lambda cells: read_matrix(cells, letter)
    return lambda cells: CELLS[hint](cells[name])


def fingerprint(
    revision: int | Sequence[int], options: Options | None = None, **inputs: Any
) -> str:
    """Everything the result of one section depends on, as a digest.

    Parameters
    ----------
    revision : of the stage, and of the method.
    options : of the stage; None where `inputs` contain what counts of them.
    inputs : JSON-able values, by name; see `digest_of_file`.
    """
    if options is not None:
        inputs["options"] = options.asked()
    return sha256_of({"revision": revision, **inputs})


def digest_of_file(path: Path | str) -> str:
    """A file's sha256 for a fingerprint; empty where there is none, which `process` reports."""
    return sha256_file(Path(path)) if Path(path).is_file() else ""


def stage_dir(table: Path) -> Path:
    """The folder that a receipt's or a collected table's file names are relative to."""
    return table.parent.parent if table.parent.name == CHUNKS else table.parent


def _check(path: Path, sha256: str, table: Path) -> None:
    """ReceiptError where a file is missing, or another than its table lists."""
    if not path.is_file():
        raise ReceiptError(f"{path}: missing, although {table} lists it")
    if sha256_file(path) != sha256:
        raise ReceiptError(f"{path}: is not the file that {table} lists (sha256 differs)")
