"""`sbr manifest`: a manifest for a folder of images, or for a stack in one 3D NIfTI.

It writes what names and metadata contain, and logs what they do not.
"""

from __future__ import annotations

import logging
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from sbr_core.artifacts.split import split_picture
from sbr_core.errors import ConfigError, ImageError, ManifestError, some_of
from sbr_core.geometry import orientation_matrix
from sbr_core.io.folders import SUFFIXES, list_folder, stem_of
from sbr_core.io.images import image_shape, write_png
from sbr_core.io.manifests import check_id
from sbr_core.io.name_numbers import Numbers, have_dates, numbers_in
from sbr_core.io.pixel_size import PixelSize, stated_pixel_size
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import Volume, read_volume, write_plane

logger = logging.getLogger(__name__)

_COLUMNS = ("section", "image", "position_mm", "pixel_size_mm")
"""The columns that every manifest has; they are written first."""
_MOST_RANKS = 100_000
"""Of more places from the first to the last number, those that are missing are not listed."""
_THICKER = 1.2
"""A NIfTI is cut along the axis whose voxels are longer than the others by this factor: sections
are farther apart than their pixels; the sides of isotropic volumes differ by rounding only."""


def run(
    options: None,
    source: Path,
    *,
    out: Annotated[Path | None, "-o"] = None,
    section_spacing_mm: float | None = None,
    thickness_mm: float | None = None,
    pixel_size_mm: float | None = None,
    slice_axis: str | None = None,
    image_channel: str | None = None,
    split: bool = False,
    split_into: int | None = None,
) -> None:
    """Write the manifest of a folder of section images, or of a stack in a 3D NIfTI.

    What it could not find out is listed on stderr.

    Parameters
    ----------
    source : the folder, whose images are taken in the natural order of their names; or the NIfTI,
        whose slices are written beside the manifest as files.
    out : manifest to write (default: sections.tsv beside them).
    section_spacing_mm : from one section to the next, mm. Where numbers in the names skip some,
        there is a gap.
    thickness_mm : what 1 in the names' numbers stands for, mm, instead.
    pixel_size_mm : pixel of all files, instead of what they contain.
    slice_axis : i, j or k: the axis a NIfTI is cut along.
    image_channel : which channel of all files of a folder: number from 1, or name.
    split : pictures show several sections: find them and give each a row with its box. Pictures
        with the boxes drawn in go to a folder beside the manifest.
    split_into : the same, where every picture shows so many sections.

    Raises
    ------
    ConfigError
        A manifest is there already, or flags that do not go together.
    ManifestError
        A folder without images.
    ImageError
        A NIfTI that is no stack.
    """
    _check_flags(section_spacing_mm, thickness_mm, pixel_size_mm)
    split = split or split_into is not None
    _check_split(source, split, split_into, thickness_mm)
    if out is None:
        out = (source if source.is_dir() else source.parent) / "sections.tsv"
    if out.exists():
        raise ConfigError(f"{out}: is there already; -o FILE writes another one")
    if source.is_dir():
        files, left_out = _files_of(source, out.parent, pixel_size_mm, image_channel or "")
        positions_mm, how = positions_of([f.stem for f in files], section_spacing_mm, thickness_mm)
        notes = [*_notes_on(files), *left_out]
        hint = ""
        if not image_channel and any("image_channel" in file.fault for file in files):
            notes.append(hint := "--image-channel NUMBER or NAME chooses a channel of all files")
        rows = [
            file.row | {"position_mm": position_mm}
            for file, position_mm in zip(files, positions_mm, strict=True)
            if not file.fault
        ]
        if not rows:
            why = some_of([file.fault for file in files]) + (hint and f" ({hint})")
            raise ManifestError(f"{source}: no image in it can be read: {why}")
        if split:
            rows, how = _split_rows(rows, out, section_spacing_mm, split_into, notes)
        elif any(file.fault for file in files):
            notes.append("sections that are left out keep their places in the stack")
        notes += [
            f"position_mm: {how}",
            "not known from files: the direction of the stack (orientation, in the sheet)",
        ]
    elif source.name.lower().endswith((".nii", ".nii.gz")):
        if section_spacing_mm is not None or thickness_mm is not None:
            flag = "--section-spacing-mm" if thickness_mm is None else "--thickness-mm"
            raise ConfigError(f"{flag}: the header of {source} says how far slices are apart")
        if image_channel is not None:
            raise ConfigError(f"--image-channel: slices of {source} have one channel")
        rows, notes = _of_volume(source, out.parent, slice_axis, pixel_size_mm)
    elif source.exists():
        raise ConfigError(f"{source}: expected a folder of section images, or one 3D NIfTI")
    else:
        raise ManifestError(f"{source}: no such file or folder")
    write_tsv(out, rows, _COLUMNS)
    for line in (f"{len(rows)} sections -> {out}", *notes):
        logger.info(f"manifest: {line}")


def _check_flags(
    section_spacing_mm: float | None, thickness_mm: float | None, pixel_size_mm: float | None
) -> None:
    for flag, value in (
        ("--section-spacing-mm", section_spacing_mm),
        ("--thickness-mm", thickness_mm),
        ("--pixel-size-mm", pixel_size_mm),
    ):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{flag}: expected a number above 0, found {value:g}")
    if section_spacing_mm is not None and thickness_mm is not None:
        raise ConfigError("--section-spacing-mm and --thickness-mm: expected one of them")


def _check_split(
    source: Path, split: bool, split_into: int | None, thickness_mm: float | None
) -> None:
    if split_into is not None and split_into < 1:
        raise ConfigError(f"--split-into: expected a number above 0, found {split_into}")
    if split and thickness_mm is not None:
        raise ConfigError(
            "--thickness-mm: numbers in the names are those of pictures; with --split sections are"
            " placed by their order (--section-spacing-mm)"
        )
    if split and not source.is_dir():
        raise ConfigError(f"--split: {source}: expected a folder of pictures")


def _split_rows(
    rows: Sequence[dict[str, Any]],
    out: Path,
    section_spacing_mm: float | None,
    split_into: int | None,
    notes: list[str],
) -> tuple[list[dict[str, Any]], str]:
    """(a row for each section of each picture, how positions were determined).

    Adds to `notes` what was found; the boxes are drawn in a folder beside the manifest.
    """
    sections: list[dict[str, Any]] = []
    counts, crossed, empty = Counter[int](), [], []
    found: list[tuple[str, int]] = []
    for row in rows:
        path = out.parent / row["image"]
        try:
            picture = split_picture(path, row.get("image_channel", ""), split_into)
        except ImageError as error:
            empty.append(str(error))
            continue
        n_sections = len(picture.boxes)
        counts[n_sections] += 1
        found.append((row["section"], n_sections))
        write_png(out.parent / f"{out.stem}_boxes" / f"{row['section']}.png", picture.preview)
        for number, box in enumerate(picture.boxes, 1):
            is_part = {"section": f"{row['section']}_{number}", "box_px": str(box)}
            sections.append({**row, **(is_part if n_sections > 1 else {})})
        crossed += [f"{row['section']}_{number}" for number in picture.crossed]
    if not sections:
        raise ManifestError(f"--split: no picture shows what is looked for: {some_of(empty)}")
    places = range(len(sections))
    for place, section in zip(places, sections, strict=True):
        spaced = section_spacing_mm is not None
        section["position_mm"] = _rounded(place * section_spacing_mm) if spaced else None
    usual = counts.most_common(1)[0][0]
    notes.append(
        f"split: {', '.join(f'{n} pictures of {k}' for k, n in sorted(counts.items()))} sections,"
        f" numbered from the upper left, line by line: look at {out.parent / f'{out.stem}_boxes'}"
    )
    if other := [f"{name} ({n})" for name, n in found if n != usual]:
        notes.append(
            f"split: not {usual} sections, as most have: {some_of(other)}: --split-into N?"
        )
    if crossed:
        notes.append(f"split: another section reaches into the box: {some_of(crossed)}: give masks")
    if empty:
        notes.append(f"LEFT OUT, {len(empty)}: {some_of(empty)}")
    if section_spacing_mm is None:
        return sections, positions_of([], None, None)[1].partition(" or --thickness-mm")[0] + ")"
    return sections, (
        "by the order of the pictures, and of the sections in each,"
        f" {section_spacing_mm:g} mm apart: check it, and that none misses"
    )


def _section_id(stem: str) -> str:
    """An id like a name: letters, digits, ``.``, ``_`` and ``-``, beginning with one of the first.

    Accents are dropped, anything else becomes ``_``.
    """
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain)
    plain = re.sub(r"\.{2,}", ".", plain).strip("._-")
    return plain or "section"


def _rounded(value: float) -> float:
    """Without the last digits, which are of the computation: 0.3, not 0.30000000000000004."""
    return float(f"{value:.9g}")


@dataclass(frozen=True)
class _SectionFile:
    """One section image of a folder.

    Attributes
    ----------
    row : of the manifest, without its position; its id is made of the file's name.
    stated : pixel size that the file contains, if it states one and none is given.
    fault : why the file cannot be read, or empty.
    doubts : what is wrong with its metadata.
    is_read : whether files of its format are read at all.
    """

    name: str
    stem: str
    row: dict[str, Any]
    stated: PixelSize | None
    fault: str
    doubts: list[str]
    is_read: bool = True


def _files_of(
    folder: Path, beside: Path, pixel_size_mm: float | None, image_channel: str
) -> tuple[list[_SectionFile], list[str]]:
    """(the section images of a folder in their order, notes on what else there is in it).

    `beside` is the manifest's folder.

    Raises
    ------
    ManifestError
        There is none.
    """
    listing = list_folder(folder)
    if not listing.sections:
        below = next((p for p in sorted(folder.iterdir()) if p.is_dir()), None)
        hint = f"; images in folders below, as {below}, take a manifest each" if below else ""
        raise ManifestError(f"{folder}: no image in it ({', '.join(SUFFIXES)}){hint}")
    files, ids = [], set()
    for name in listing.sections:
        stem = listing.stems[name]
        section = _new_id(name, stem, ids)
        ids.add(section)
        row = {"section": section, "image": os.path.relpath(folder / name, beside)}
        for column, companion in listing.companions.get(stem, {}).items():
            row[column] = os.path.relpath(folder / companion, beside)
        if image_channel:
            row["image_channel"] = image_channel
        stated, fault, doubts = None, "", []
        try:
            if name in listing.unread:
                fault = f"{name}: {listing.unread[name]}"
            else:
                image_shape(folder / name, image_channel)
                stated = None if pixel_size_mm else stated_pixel_size(folder / name, doubts)
        except ImageError as error:
            fault = str(error)
        is_square = stated is not None and stated.is_square
        row["pixel_size_mm"] = _rounded(stated.x_mm) if is_square else pixel_size_mm
        is_read = name not in listing.unread
        files.append(_SectionFile(name, stem, row, stated, fault, doubts, is_read=is_read))
    return files, list(listing.notes)


def _new_id(name: str, stem: str, used: Collection[str]) -> str:
    """The id of a file; where the same is used already, it ends with ``_2``, ``_3``, …"""
    section, number = _section_id(stem), 2
    while section in used:
        section, number = f"{_section_id(stem)}_{number}", number + 1
    return check_id(section, name)


def _notes_on(files: Sequence[_SectionFile]) -> Iterator[str]:
    """What the user should look at or fill in."""
    renamed = [f"{f.name} -> {f.row['section']}" for f in files if f.row["section"] != f.stem]
    if renamed:
        yield f"section: {len(renamed)} names written otherwise: {some_of(renamed)}"
    stated = {f.row["section"]: f.stated for f in files if f.stated is not None}
    for source, n in Counter(size.source for size in stated.values() if size.is_square).items():
        yield f"pixel_size_mm: of {n} from their metadata ({source}): check one"
    empty = [f.row["section"] for f in files if not (f.fault or f.row["pixel_size_mm"])]
    if unknown := [section for section in empty if section not in stated]:
        yield (
            f"pixel_size_mm: EMPTY for {len(unknown)}, their files do not say it: fill it in, or"
            f" give --pixel-size-mm: {some_of(unknown)}"
        )
    if oblong := [
        f"{section} ({size.x_mm:g} x {size.y_mm:g} mm)"
        for section, size in stated.items()
        if not size.is_square
    ]:
        yield f"pixel_size_mm: EMPTY, pixels are not square: {some_of(oblong)}"
    if doubtful := [f"{f.row['section']}: {'; '.join(f.doubts)}" for f in files if f.doubts]:
        yield f"metadata: of {len(doubtful)} not clean: {some_of(doubtful)}"
    if faults := [f.fault for f in files if f.fault and f.is_read]:
        yield f"LEFT OUT, {len(faults)} cannot be read: {some_of(faults)}"


def positions_of(
    stems: Sequence[str], spacing_mm: float | None, thickness_mm: float | None
) -> tuple[list[float | None], str]:
    """Positions of files in order, mm, and in words how they were determined.

    By the number in each name, where there is one (`sbr_core.io.name_numbers`).
    """
    numbers = numbers_in(stems)
    if spacing_mm is None and thickness_mm is None:
        return [None] * len(stems), (
            "EMPTY, a file does not say it: fill it in, or give --section-spacing-mm (from one file"
            " to the next) or --thickness-mm (what 1 in the names' numbers stands for)"
        )
    dates = "; dates in them do not count" if have_dates(stems) else ""
    if thickness_mm is not None:
        if numbers is None:
            raise ConfigError(
                "--thickness-mm: expected one number in every name that differs from file to file"
                f"{dates}; --section-spacing-mm goes by order"
            )
        first = numbers.values[0]
        places = [_rounded(float(n - first) * thickness_mm) for n in numbers.values]
        return places, f"{_numbers_used(stems, numbers)}, {thickness_mm:g} mm each{dates}"
    if numbers is None or sorted(numbers.values) != list(numbers.values):
        places = [_rounded(i * spacing_mm) for i in range(len(stems))]
        return places, (
            f"by the order of the names, {spacing_mm:g} mm apart: check that none misses{dates}"
        )
    step = _common_step(numbers.values)
    ranks = [int((n - numbers.values[0]) / step) for n in numbers.values]
    missing = sorted(set(range(ranks[-1] + 1)) - set(ranks)) if ranks[-1] < _MOST_RANKS else []
    places = [_rounded(rank * spacing_mm) for rank in ranks]
    gaps = ""
    if len(set(range(len(ranks)))) <= ranks[-1]:
        absent = some_of([f"{float(numbers.values[0] + m * step):g}" for m in missing])
        n_missing = ranks[-1] + 1 - len(ranks)
        gaps = f"; {n_missing} numbers are missing, which leaves gaps: {absent or 'many'}"
    if numbers.are_decimal:
        gaps += "; if these numbers are millimetres, --thickness-mm 1 takes them as they are"
    used = _numbers_used(stems, numbers)
    return places, f"{used}, which go by {float(step):g}: {spacing_mm:g} mm apart{gaps}{dates}"


def _common_step(values: Sequence[Fraction]) -> Fraction:
    """The largest step of which all differences are multiples; 1 where there is no difference."""
    scale = math.lcm(*(value.denominator for value in values))
    whole = [int(value * scale) for value in values]
    return Fraction(math.gcd(*(n - whole[0] for n in whole)) or scale, scale)


def _numbers_used(stems: Sequence[str], numbers: Numbers) -> str:
    """Which number of which name counts, of some."""
    pairs = [f"{text} in {stem}" for text, stem in zip(numbers.texts, stems, strict=True)]
    shown = pairs if len(pairs) < 5 else [*pairs[:2], "…", pairs[-1]]
    return f"by the numbers in the names ({', '.join(shown)})"


def _of_volume(
    path: Path, beside: Path, slice_axis: str | None, pixel_size_mm: float | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows, notes) of the slices of a 3D NIfTI, which are written as files; see `run`."""
    import nibabel as nib

    volume = read_volume(path)
    header = nib.load(path).header
    mm = volume.unit_mm or 1.0
    sides_mm = np.array([float(f"{z * mm:.6g}") for z in header.get_zooms()[:3]])  # float32
    axis, why = _axis_to_cut(sides_mm, slice_axis)
    across = [a for a in range(3) if a != axis]
    pixel = [float(sides_mm[a]) for a in across]
    if not math.isclose(*pixel, rel_tol=0.01):
        raise ImageError(
            f"{path}: pixels of its slices are {pixel[0]:g} x {pixel[1]:g} mm: expected square"
            " ones; another --slice-axis, or resample it"
        )
    side_mm = pixel_size_mm or _rounded(pixel[0])
    folder = beside / f"{_section_id(stem_of(path.name))}_slices"
    rows = [
        {
            "section": file.name.partition(".")[0],
            "image": os.path.relpath(file, beside),
            "position_mm": _rounded(index * sides_mm[axis]),
            "pixel_size_mm": side_mm,
            "exclude": "true" if is_empty else "",
        }
        for index, (file, is_empty) in enumerate(_write_slices(volume, axis, folder, side_mm))
    ]
    empty = [row["section"] for row in rows if row["exclude"]]
    if len(empty) == len(rows):
        raise ImageError(f"{path}: every slice along {'ijk'[axis]} is one single value")
    notes = [
        f"slices along axis {'ijk'[axis]} ({why}), written to {folder}",
        f"pixel_size_mm: {side_mm:g}, {'as given' if pixel_size_mm else 'from the header'}",
        f"position_mm: {sides_mm[axis]:g} mm apart, from the header",
    ]
    if volume.unit_mm is None:
        notes.append("the header does not say its unit of length: taken as mm, check it")
    if empty:
        notes.append(f"exclude: {len(empty)} slices are empty: {some_of(empty)}")
    letters = "".join(nib.aff2axcodes(volume.world_from_voxel)[a] for a in (*across, axis))
    if int(header["sform_code"]) or int(header["qform_code"]):
        orientation_matrix(letters)
        notes.append(f"orientation, if the header was ever set: {letters}; auto finds it otherwise")
    else:
        notes.append("orientation: the header does not say it; auto finds it")
    return rows, notes


def _axis_to_cut(sides_mm: np.ndarray, slice_axis: str | None) -> tuple[int, str]:
    """The axis across the slices, and in words why; `sides_mm` are those of a voxel."""
    if slice_axis is not None:
        if slice_axis not in ("i", "j", "k"):
            raise ConfigError(f"--slice-axis: expected i, j or k, found {slice_axis!r}")
        return "ijk".index(slice_axis), "as asked for"
    for axis in range(3):
        if sides_mm[axis] > _THICKER * max(np.delete(sides_mm, axis)):
            return axis, "its voxels are longest along it"
    return 2, "the last one"  # as is usual


def _write_slices(
    volume: Volume, axis: int, folder: Path, pixel_size_mm: float
) -> Iterator[tuple[Path, bool]]:
    """Write each slice along an axis; (file, whether it has one single value) of each."""
    n_slices = volume.data.shape[axis]
    width = max(3, len(str(n_slices)))
    for index in range(n_slices):
        plane = np.take(volume.data, index, axis=axis).T
        if plane.dtype.kind == "f":
            plane = plane.astype(np.float32)
        file = folder / f"{index:0{width}d}.nii.gz"
        write_plane(file, plane, pixel_size_mm)
        yield file, bool(plane.min() == plane.max())
