"""Tables users write: the manifest of a brain, the sheet of brains, landmarks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sbr_core.errors import ManifestError
from sbr_core.geometry import FLIPS, Box, orientation_matrix
from sbr_core.io.columns import (
    LANDMARK_SYNONYMS,
    MANIFEST_SYNONYMS,
    SHEET_SYNONYMS,
    check_columns,
)
from sbr_core.io.files import check_is_file, parse_json
from sbr_core.io.tables import read_tsv

SIMULATED = "-simulated"
"""What the name of a simulated brain ends in; no brain of the sheet may."""

WEIGHTS_USES = ("reuse", "finetune")
"""What a brain makes of the networks of `weights_from`: takes them as they are, or trains on."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Ids are parts of file names, wildcards of the workflow and words of command lines."""
PATH_COLUMNS = ("image", "mask", "labels", "mri_image", "mri_mask", "mri_labels")
"""Columns of a manifest that name a file, relative to its folder."""

_STAIN_GROUP = re.compile(r"[A-Za-z0-9]+")
"""Groups are entities in names of files, which end at the next ``_``."""

_TRUE = {"1", "true", "yes", "y", "t", "x"}
_FALSE = {"", "0", "false", "no", "n", "f"}
"""What people and spreadsheets write for yes and for no, in small letters."""


@dataclass(frozen=True)
class SectionRow:
    """One row of a manifest; paths are resolved against the manifest's folder.

    Attributes
    ----------
    position_mm : along the stack; no two sections share one.
    pixel_size_mm : side of a square pixel of the stored file.
    mask, labels : images of the tissue and of regions, on the image's grid.
    flip : ``none``, ``lr`` or ``ud``: how the image is mirrored before anything else.
    rotate_deg : how it is turned after that: counter-clockwise as displayed, about its centre.
    image_channel : a channel of the image, by its number from 1 or its name in the file.
    box_px : left, top, columns and rows of the part of the image that is the section; empty for
        all of it.
    stain_group : of the sections that become one volume and are compared with each other in
        staining; empty for those of no other stain.
    affine_from : ``neighbours`` for a section that is placed by its neighbours' affines, since its
        own image would not serve; empty for its own.
    thickness_um : of the section as it was cut, which is not the way to the next one; None where
        it is not stated.
    mri_image, mri_mask, mri_labels : of a prealigned brain, the MRI plane on the image's grid.
    """

    section: str
    image: str
    position_mm: float
    pixel_size_mm: float
    mask: str = ""
    labels: str = ""
    flip: str = "none"
    rotate_deg: float = 0.0
    stain: str = ""
    image_channel: str = ""
    box_px: str = ""
    thickness_um: float | None = None
    stain_group: str = ""
    affine_from: str = ""
    mri_image: str = ""
    mri_mask: str = ""
    mri_labels: str = ""

    def files(self) -> list[str]:
        """Every file the row names."""
        return [file for column in PATH_COLUMNS if (file := getattr(self, column))]


@dataclass(frozen=True)
class BrainRow:
    """One row of the sheet of brains; paths are relative to the working directory.

    Attributes
    ----------
    sections : its manifest.
    mri, mri_mask, mri_labels : NIfTI files on one grid; the last two may be empty.
    label_names : table of what labels are called, see `io.label_tables`.
    landmarks : table of landmarks.
    corrections : table of corrections, see `io.corrections`.
    atlas_xfm : files between the MRI and a template, separated by semicolons, for `sbr apply`; see
        `atlas_transforms`.
    orientation : anatomical direction of increasing column, row and position: three of the
        letters R, L, A, P, S and I, or ``auto``.
    weights_from : brain of the sheet whose networks it uses, in the way of `WEIGHTS_USES`.
    prealigned : every section lies on its MRI plane already.
    """

    brain: str
    sections: str
    mri: str = ""
    mri_mask: str = ""
    mri_labels: str = ""
    label_names: str = ""
    landmarks: str = ""
    corrections: str = ""
    atlas_xfm: str = ""
    orientation: str = ""
    weights_from: str = ""
    weights_use: str = "reuse"
    prealigned: bool = False


def check_id(value: str, where: str) -> str:
    """`value`, if it is safe as a file name and as a wildcard; ManifestError otherwise."""
    if not _ID.fullmatch(value) or ".." in value:
        raise ManifestError(
            f"{where}: id {value!r}: expected letters, digits, '.', '_' or '-' only,"
            " beginning with a letter or digit"
        )
    return value


def _number(text: str, where: str, *, positive: bool = False) -> float:
    """The finite number in a cell; ManifestError otherwise, or if `positive` and not above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (positive and value <= 0):
        kind = "a number above 0" if positive else "a number"
        if re.fullmatch(r"[-+]?\d+,\d+", text):
            kind += " with a decimal point"
        raise ManifestError(f"{where}: expected {kind}, found {text!r}")
    return value


def _flag(text: str, where: str) -> bool:
    """The yes or no in a cell, which is no where it is empty; ManifestError otherwise."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ManifestError(f"{where}: expected true or false, found {text!r}")


def _stain_group(text: str, where: str) -> str:
    """The name in a cell, if it can be part of a file's; ManifestError otherwise."""
    if text and not _STAIN_GROUP.fullmatch(text):
        raise ManifestError(
            f"{where}: stain_group: expected letters and digits only, for names of files, found"
            f" {text!r}"
        )
    return text


def require_columns(path: Path, header: list[str], columns: Iterable[str]) -> None:
    """Raise ManifestError where a table lacks a column."""
    missing = [c for c in columns if c not in header]
    if missing:
        raise ManifestError(f"{path}: column {missing[0]!r} is missing; found {', '.join(header)}")


def parse_section(values: Mapping[str, Any], where: str, folder: Path | None) -> SectionRow:
    """One manifest row, checked; `folder` resolves its paths (None: they are resolved)."""
    text = {k: "" if v is None else str(v) for k, v in values.items()}
    where = f"{where}: section {text.get('section', '')!r}"
    row: dict[str, Any] = {"section": check_id(text.get("section", ""), where)}
    for key in ("position_mm", "pixel_size_mm"):
        row[key] = _number(text.get(key, ""), f"{where}: {key}", positive=key == "pixel_size_mm")
    if text.get("rotate_deg"):
        row["rotate_deg"] = _number(text["rotate_deg"], f"{where}: rotate_deg")
    if text.get("thickness_um"):
        thickness = text["thickness_um"]
        row["thickness_um"] = _number(thickness, f"{where}: thickness_um", positive=True)
    row["flip"] = text.get("flip") or "none"
    if row["flip"] not in FLIPS:
        raise ManifestError(f"{where}: flip: expected one of {FLIPS}, found {row['flip']!r}")
    for key in ("stain", "image_channel"):
        row[key] = text.get(key, "")
    affine_from = text.get("affine_from") or "own"
    if affine_from not in ("own", "neighbours"):
        raise ManifestError(
            f"{where}: affine_from: expected own or neighbours, found {affine_from!r}"
        )
    row["affine_from"] = "" if affine_from == "own" else affine_from
    row["stain_group"] = _stain_group(text.get("stain_group", ""), where)
    try:
        row["box_px"] = str(Box.of(text.get("box_px", "")) or "")
    except ValueError as error:
        raise ManifestError(f"{where}: box_px: {error}, found {text['box_px']!r}") from None
    for key in PATH_COLUMNS:
        if text.get(key):
            row[key] = str(folder / text[key]) if folder is not None else text[key]
    if "image" not in row:
        raise ManifestError(f"{where}: image: expected a file name, found nothing")
    return SectionRow(**row)


def is_excluded(values: Mapping[str, str], where: str) -> bool:
    """Whether a row of a manifest leaves its section out."""
    return _flag(values.get("exclude", ""), f"{where}: exclude")


def check_manifest_columns(where: Path | str, header: Iterable[str]) -> None:
    """Refuse a column of a manifest whose name is only nearly one that is read; ManifestError."""
    known = [*(field.name for field in fields(SectionRow)), "exclude", "notes"]
    check_columns(where, list(header), known, MANIFEST_SYNONYMS)


def read_manifest(
    path: Path, *, prealigned: bool = False, check_files: bool = True
) -> list[SectionRow]:
    """The sections of one brain that are not excluded, sorted by position.

    Parameters
    ----------
    path : TSV with `section`, `image`, `position_mm`, `pixel_size_mm` and optional columns.
        Paths in it are relative to its own folder.
    prealigned : each row must name `mri_image` too.
    check_files : refuse rows whose files are missing.

    Raises
    ------
    ManifestError
        Naming the file, the section and what was expected.
    """
    path = Path(path)
    if path.is_dir() or path.name.lower().endswith((".nii", ".nii.gz")):
        what = "a folder" if path.is_dir() else "an image"
        made = (path if path.is_dir() else path.parent) / "sections.tsv"
        raise ManifestError(
            f"{path}: is {what}, expected a manifest: `sbr manifest {path}` writes one, {made}"
        )
    header, table = read_tsv(path)
    check_manifest_columns(path, header)
    require_columns(path, header, ["section", "image", "position_mm", "pixel_size_mm"])
    if prealigned:
        require_columns(path, header, ["mri_image"])
    rows: list[SectionRow] = []
    names: set[str] = set()
    positions: dict[float, str] = {}
    groups: dict[str, str] = {}
    for values in table:
        row = parse_section(values, str(path), path.parent)
        where = f"{path}: section {row.section!r}"
        if row.section in names:
            raise ManifestError(f"{where} stands there twice")
        names.add(row.section)
        if is_excluded(values, where):
            continue
        if row.position_mm in positions:
            raise ManifestError(
                f"{path}: sections {positions[row.position_mm]!r} and {row.section!r} have the"
                f" same position_mm {row.position_mm:g}"
            )
        positions[row.position_mm] = row.section
        if prealigned and row.affine_from:
            raise ManifestError(
                f"{where}: affine_from: {row.affine_from}, but the brain is prealigned: every"
                " section lies on its MRI plane already"
            )
        group = groups.setdefault(row.stain_group.lower(), row.stain_group)
        if group != row.stain_group:
            raise ManifestError(
                f"{where}: stain_group: {row.stain_group!r} and {group!r} differ in nothing but"
                " small and capital letters: write one of them"
            )
        if prealigned and not row.mri_image:
            raise ManifestError(f"{where}: mri_image: found nothing")
        if prealigned and (row.flip != "none" or row.rotate_deg or row.box_px):
            raise ManifestError(
                f"{where}: a prealigned section takes no flip, rotate_deg or box_px"
            )
        if check_files:
            for name in row.files():
                check_is_file(Path(name), ManifestError, f"{where}: ")
        rows.append(row)
    if not rows:
        raise ManifestError(f"{path}: has no section that is not excluded")
    return sorted(rows, key=lambda r: r.position_mm)


def rows_to_json(rows: Sequence[SectionRow]) -> str:
    """Rows as the JSON list a rule hands to the command line; defaults are left out."""
    default = {f.name: f.default for f in fields(SectionRow)}
    return json.dumps(
        [{k: v for k, v in vars(r).items() if v != default[k]} for r in rows], sort_keys=True
    )


def rows_from(text: str) -> list[SectionRow]:
    """Rows from `rows_to_json`'s JSON, or from the file whose path `text` is.

    A file that ends in ``.json`` holds that JSON; any other is a manifest.
    """
    if text.endswith(".json"):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"--rows: {text}: not readable: {error}") from None
    elif not text.lstrip().startswith("["):
        return read_manifest(Path(text))
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ManifestError(f"--rows: not readable as JSON: {error}") from None
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        raise ManifestError("--rows: expected a list of objects, one for each section")
    check_manifest_columns("--rows", dict.fromkeys(key for v in values for key in v))
    rows = [parse_section(v, "--rows", None) for v in values]
    for name in {r.section for r in rows}:
        if sum(r.section == name for r in rows) > 1:
            raise ManifestError(f"--rows: section {name!r} stands there twice")
    return rows


def read_brains(path: Path) -> dict[str, BrainRow]:
    """The sheet of brains: name -> row, in the order of the table.

    Raises
    ------
    ManifestError
        Naming the file, the brain and what was expected, also where `weights_from` names no brain
        of the sheet or goes in a circle.
    """
    path = Path(path)
    header, table = read_tsv(path)
    known = [*(field.name for field in fields(BrainRow)), "notes"]
    check_columns(path, header, known, SHEET_SYNONYMS, own_allowed=False)
    require_columns(path, header, ["brain", "sections"])
    brains: dict[str, BrainRow] = {}
    for values in table:
        where = f"{path}: brain {values['brain']!r}"
        name = check_id(values["brain"], where)
        if name in brains:
            raise ManifestError(f"{where} stands there twice")
        brains[name] = _parse_brain(values, where)
    if not brains:
        raise ManifestError(f"{path}: has no brain")
    for name in brains:
        _check_weights_from(path, brains, name)
    return brains


def _parse_brain(values: Mapping[str, str], where: str) -> BrainRow:
    """One row of the sheet of brains, checked by itself."""
    if values["brain"].endswith(SIMULATED):
        raise ManifestError(
            f"{where}: expected a name that does not end in {SIMULATED!r}, which is kept for"
            " the simulated pairs of a brain"
        )
    given = {k: v for k, v in values.items() if k != "notes" and v != ""}
    prealigned = _flag(given.pop("prealigned", ""), f"{where}: prealigned")
    if "sections" not in given:
        raise ManifestError(f"{where}: sections: expected a manifest, found nothing")
    row = BrainRow(**given, prealigned=prealigned)
    if not prealigned:
        if not row.mri:
            raise ManifestError(f"{where}: mri: expected a NIfTI file, found nothing")
        try:
            if row.orientation != "auto":
                orientation_matrix(row.orientation)
        except ValueError as error:
            raise ManifestError(f"{where}: {error}, or auto") from None
    if row.weights_use not in WEIGHTS_USES:
        raise ManifestError(
            f"{where}: weights_use: expected one of {', '.join(WEIGHTS_USES)}, found"
            f" {row.weights_use!r}"
        )
    if row.weights_use == "finetune" and not row.weights_from:
        raise ManifestError(
            f"{where}: weights_use: finetune, but weights_from names no brain to start from"
        )
    return row


def _check_weights_from(path: Path, brains: Mapping[str, BrainRow], brain: str) -> None:
    """Raise where the `weights_from` of a brain, followed, names no brain or goes in a circle."""
    seen = [brain]
    while (donor := brains[seen[-1]].weights_from) != "":
        if donor not in brains:
            raise ManifestError(
                f"{path}: brain {seen[-1]!r}: weights_from: no brain {donor!r} in this sheet"
            )
        if donor in seen:
            raise ManifestError(
                f"{path}: weights_from goes in a circle: {' <- '.join([*seen, donor])}"
            )
        seen.append(donor)


@dataclass(frozen=True)
class Landmark:
    """A point in section mm and the same anatomical point in the MRI (RAS mm) or its plane."""

    section: str
    section_mm: tuple[float, float]
    mri_mm: tuple[float, float, float] | None = None
    plane_mm: tuple[float, float] | None = None
    name: str = ""


SECTION_POINT = ("x_section_mm", "y_section_mm")
"""Columns of a landmark on its section."""
_MRI_POINT, _PLANE_POINT = ("mri_x_mm", "mri_y_mm", "mri_z_mm"), ("x_plane_mm", "y_plane_mm")


def target_columns(*, prealigned: bool) -> tuple[str, ...]:
    """Columns of a landmark's point in the MRI, or on the MRI plane of a prealigned section."""
    return _PLANE_POINT if prealigned else _MRI_POINT


def parse_landmark(values: Mapping[str, str], where: str, *, prealigned: bool) -> Landmark:
    """The landmark in a row of a table; ManifestError where a cell is no number."""
    xy, point = (
        tuple(_number(values[c], f"{where}: {c}") for c in columns)
        for columns in (SECTION_POINT, target_columns(prealigned=prealigned))
    )
    target = {"plane_mm" if prealigned else "mri_mm": point}
    return Landmark(values["section"], xy, **target, name=values.get("landmark", ""))


def read_landmarks(path: Path, sections: Iterable[str], *, prealigned: bool) -> list[Landmark]:
    """Landmarks of a brain, in the order of the table.

    Parameters
    ----------
    path : TSV with `section`, `x_section_mm`, `y_section_mm`, and `mri_x_mm`, `mri_y_mm`,
        `mri_z_mm`, or of a prealigned brain `x_plane_mm`, `y_plane_mm`; `landmark` is its name.
    sections : ids that rows may name, those of excluded sections too.

    Raises
    ------
    ManifestError
        A column is missing, a cell is no number, or a row names another section.
    """
    path = Path(path)
    header, table = read_tsv(path)
    needed = ["section", *SECTION_POINT, *target_columns(prealigned=prealigned)]
    check_columns(path, header, needed, LANDMARK_SYNONYMS)
    require_columns(path, header, needed)
    known = set(sections)
    landmarks = []
    for number, values in enumerate(table, 1):
        where = f"{path}: landmark {number}"
        if values["section"] not in known:
            raise ManifestError(f"{where}: no section {values['section']!r} in this brain")
        landmarks.append(parse_landmark(values, where, prealigned=prealigned))
    return landmarks
