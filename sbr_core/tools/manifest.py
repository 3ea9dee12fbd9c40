"""`sbr manifest`: a manifest for a folder of images, or for a stack in one 3D NIfTI.

It writes what names and metadata tell, and says what they do not.
"""

from __future__ import annotations

import math
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from sbr_core.errors import ConfigError, ImageError, ManifestError, some_of
from sbr_core.geometry import orientation_matrix
from sbr_core.io.images import image_shape
from sbr_core.io.manifests import check_id
from sbr_core.io.pixel_size import stated_pixel_size
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import read_volume, write_plane

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".webp", ".jp2", ".nii", ".nii.gz"),
    *(".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn", ".bif", ".qptiff"),
)
"""Endings of files that are taken for sections."""
COMPANIONS = {"_mask": "mask", "_labels": "labels"}
"""What a file is that is named like a section and this."""
CHOOSE = "--image-channel NUMBER or NAME chooses a channel of all files"
COLUMNS = ("section", "image", "position_mm", "pixel_size_mm")


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
) -> None:
    """Write the manifest of a folder of section images, or of a stack in a 3D NIfTI.

    And print what it could not know.

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

    Raises
    ------
    ConfigError
        A manifest is there already, or flags that do not go together.
    ManifestError
        A folder without images.
    ImageError
        A NIfTI that is no stack.
    """
    source = Path(source)
    for flag, value in (
        ("--section-spacing-mm", section_spacing_mm),
        ("--thickness-mm", thickness_mm),
        ("--pixel-size-mm", pixel_size_mm),
    ):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{flag}: expected a number above 0, found {value:g}")
    if section_spacing_mm is not None and thickness_mm is not None:
        raise ConfigError("--section-spacing-mm and --thickness-mm: expected one of them")
    if out is None:
        out = (source if source.is_dir() else source.parent) / "sections.tsv"
    out = Path(out)
    if out.exists():
        raise ConfigError(f"{out}: is there already; -o FILE writes another one")
    if source.is_dir():
        rows, said = of_folder(
            source, out.parent, section_spacing_mm, thickness_mm, pixel_size_mm, image_channel or ""
        )
    elif source.name.lower().endswith((".nii", ".nii.gz")):
        if section_spacing_mm is not None or thickness_mm is not None:
            said_of = "--section-spacing-mm" if thickness_mm is None else "--thickness-mm"
            raise ConfigError(f"{said_of}: the header of {source} says how far slices are apart")
        if image_channel is not None:
            raise ConfigError(f"--image-channel: slices of {source} have one channel")
        rows, said = of_volume(source, out.parent, slice_axis, pixel_size_mm)
    elif source.exists():
        raise ConfigError(f"{source}: expected a folder of section images, or one 3D NIfTI")
    else:
        raise ManifestError(f"{source}: no such file or folder")
    write_tsv(out, rows, COLUMNS)
    print(f"manifest: {len(rows)} sections -> {out}", file=sys.stderr)
    for line in said:
        print(f"manifest: {line}", file=sys.stderr)


def natural(name: str) -> tuple[Any, ...]:
    """Key that sorts ``s2`` before ``s10``, and is the same whatever the case."""
    parts = re.split(r"(\d+)", name.casefold())
    return (*((int(p), p) if i % 2 else (p,) for i, p in enumerate(parts)), name)


def stem_of(name: str) -> str:
    """A file's name without its ending, ``a`` of ``a.nii.gz`` and of ``a.ome.tif``."""
    low = name.lower()
    for ending in (*(f".ome{s}" for s in (".tif", ".tiff", ".btf")), *SUFFIXES[::-1]):
        if low.endswith(ending):
            return name[: -len(ending)]
    return name


def section_id(stem: str) -> str:
    """An id like a name: letters, digits, ``.``, ``_`` and ``-``, beginning with one of the first.

    Accents are dropped, anything else becomes ``_``.
    """
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain)
    plain = re.sub(r"\.{2,}", ".", plain).strip("._-")
    return plain or "section"


def of_folder(
    folder: Path,
    beside: Path,
    spacing_mm: float | None,
    thickness_mm: float | None,
    pixel_size_mm: float | None,
    image_channel: str,
) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows, what is to be said) of a folder of images; `beside` is where the manifest goes."""
    names = sorted(
        (
            p.name
            for p in folder.iterdir()
            if p.name.lower().endswith(tuple(SUFFIXES)) and not p.name.startswith(".")
        ),
        key=natural,
    )
    stems = {name: stem_of(name) for name in names}
    known = set(stems.values())
    companions: dict[str, dict[str, str]] = {}
    for name, stem in stems.items():
        for ending, column in COMPANIONS.items():
            if stem.endswith(ending) and stem.removesuffix(ending) in known:
                companions.setdefault(stem.removesuffix(ending), {})[column] = name
    taken = {name for some in companions.values() for name in some.values()}
    names = [name for name in names if name not in taken]
    if not names:
        within = next((p for p in sorted(folder.iterdir()) if p.is_dir()), None)
        hint = f"; images in folders below, as {within}, take a manifest each" if within else ""
        raise ManifestError(f"{folder}: no image in it ({', '.join(SUFFIXES)}){hint}")

    said: list[str] = []
    unknown, odd, broken, sources = [], [], [], {}
    rows: list[dict[str, Any] | None] = []
    ids: dict[str, str] = {}
    for name in names:
        section = section_id(stems[name])
        number = 2
        while section in ids:
            section, number = f"{section_id(stems[name])}_{number}", number + 1
        ids[check_id(section, name)] = name
        row: dict[str, Any] = {"section": section, "image": os.path.relpath(folder / name, beside)}
        for column, other in companions.get(stems[name], {}).items():
            row[column] = os.path.relpath(folder / other, beside)
        try:
            image_shape(folder / name, image_channel)
            stated = None if pixel_size_mm else stated_pixel_size(folder / name)
        except ImageError as error:
            broken.append(str(error))
            rows.append(None)
            continue
        if stated is not None and not stated.is_square:
            odd.append(f"{section} ({stated.x_mm:g} x {stated.y_mm:g} mm)")
            stated = None
        elif stated is not None:
            sources[stated.source] = sources.get(stated.source, 0) + 1
        elif pixel_size_mm is None:
            unknown.append(section)
        if image_channel:
            row["image_channel"] = image_channel
        row["pixel_size_mm"] = pixel_size_mm or (stated and float(f"{stated.x_mm:.9g}"))
        rows.append(row)
    renamed = [f"{name} -> {section}" for section, name in ids.items() if section != stems[name]]
    if renamed:
        said.append(f"section: {len(renamed)} names written otherwise: {some_of(renamed)}")
    for source, count in sources.items():
        said.append(f"pixel_size_mm: of {count} from their metadata ({source}): check one")
    if unknown:
        said.append(
            f"pixel_size_mm: EMPTY for {len(unknown)}, their files do not say it: fill it in, or"
            f" give --pixel-size-mm: {some_of(unknown)}"
        )
    if odd:
        said.append(f"pixel_size_mm: EMPTY, pixels are not square: {some_of(odd)}")
    to_choose = not image_channel and any("image_channel" in why for why in broken)
    if broken:
        said.append(f"LEFT OUT, {len(broken)} cannot be read: {some_of(broken)}")
        said += [CHOOSE] if to_choose else []
    positions, how = positions_of([stems[name] for name in names], spacing_mm, thickness_mm)
    for row, position in zip(rows, positions, strict=True):
        if row is not None:
            row["position_mm"] = position
    rows = [row for row in rows if row is not None]
    if not rows:
        hint = f" ({CHOOSE})" if to_choose else ""
        raise ManifestError(f"{folder}: no image in it can be read: {some_of(broken)}{hint}")
    said.append(f"position_mm: {how}")
    said.append("not known from files: the direction of the stack (orientation, in the sheet)")
    return rows, said


def positions_of(
    stems: Sequence[str], spacing_mm: float | None, thickness_mm: float | None
) -> tuple[list[float | None], str]:
    """Positions of files in order, and how they were found.

    Numbers in names count where exactly one place in them differs from file to file, or the last
    of several such places.
    """
    numbers = _varying_numbers(stems)
    if spacing_mm is None and thickness_mm is None:
        return [None] * len(stems), (
            "EMPTY, a file does not say it: fill it in, or give --section-spacing-mm (from one file"
            " to the next) or --thickness-mm (what 1 in the names' numbers stands for)"
        )
    if thickness_mm is not None:
        if numbers is None:
            raise ConfigError(
                "--thickness-mm: expected one number in every name that differs from file to file;"
                " --section-spacing-mm goes by order"
            )
        places = [float(f"{(n - numbers[0]) * thickness_mm:.9g}") for n in numbers]
        return places, f"from the numbers in the names, {thickness_mm:g} mm each"
    if numbers is None or sorted(numbers) != numbers:
        places = [float(f"{i * spacing_mm:.9g}") for i in range(len(stems))]
        return places, f"by the order of the names, {spacing_mm:g} mm apart: check that none misses"
    step = reduce(math.gcd, np.diff(numbers).tolist(), 0) or 1
    ranks = [(n - numbers[0]) // step for n in numbers]
    missing = sorted(set(range(ranks[-1] + 1)) - set(ranks))
    places = [float(f"{rank * spacing_mm:.9g}") for rank in ranks]
    gaps = ""
    if missing:
        found = some_of([str(numbers[0] + m * step) for m in missing])
        gaps = f"; {len(missing)} numbers are missing, which leaves gaps: {found}"
    return places, f"by the numbers in the names, {spacing_mm:g} mm apart{gaps}"


def _varying_numbers(stems: Sequence[str]) -> list[int] | None:
    """The number in each name that differs from file to file; None where there is none."""
    found = [[int(n) for n in re.findall(r"\d+", stem)] for stem in stems]
    if len({len(numbers) for numbers in found}) != 1 or len(stems) < 2:
        return None
    places = [list(place) for place in zip(*found, strict=True)]
    different = [place for place in places if len(set(place)) == len(stems)]
    return different[-1] if different else None


def of_volume(
    path: Path, beside: Path, slice_axis: str | None, pixel_size_mm: float | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows, what is to be said) of the slices of a 3D NIfTI, which are written as files."""
    import nibabel as nib

    volume = read_volume(path)
    header = nib.load(path).header
    unit = header.get_xyzt_units()[0]
    mm = {"micron": 1e-3, "meter": 1000.0}.get(unit, 1.0)
    sides_mm = np.array([float(f"{z * mm:.6g}") for z in header.get_zooms()[:3]])  # float32
    if slice_axis is not None and slice_axis not in ("i", "j", "k"):
        raise ConfigError(f"--slice-axis: expected i, j or k, found {slice_axis!r}")
    if slice_axis is None:
        # sections lie farther apart than their pixels; of equal sides the last axis is usual
        others = [max(np.delete(sides_mm, a)) for a in range(3)]
        wider = [a for a in range(3) if sides_mm[a] > 1.2 * others[a]]
        axis, why = (wider[0], "its voxels are longest along it") if wider else (2, "the last one")
    else:
        axis, why = "ijk".index(slice_axis), "as asked for"
    across = [a for a in range(3) if a != axis]
    pixel = [float(sides_mm[a]) for a in across]
    if not math.isclose(*pixel, rel_tol=0.01):
        raise ImageError(
            f"{path}: pixels of its slices are {pixel[0]:g} x {pixel[1]:g} mm: expected square"
            " ones; another --slice-axis, or resample it"
        )
    side_mm = pixel_size_mm or float(f"{pixel[0]:.9g}")
    data = volume.data if volume.data.dtype.kind != "b" else volume.data.astype(np.uint8)
    folder = beside / f"{section_id(stem_of(path.name))}_slices"
    width = max(3, len(str(data.shape[axis])))
    rows, empty = [], []
    for index in range(data.shape[axis]):
        plane = np.take(data, index, axis=axis).T
        name = f"{index:0{width}d}"
        file = folder / f"{name}.nii.gz"
        write_plane(file, plane if plane.dtype.kind != "f" else plane.astype(np.float32), side_mm)
        row: dict[str, Any] = {
            "section": name,
            "image": os.path.relpath(file, beside),
            "position_mm": float(f"{index * sides_mm[axis]:.9g}"),
            "pixel_size_mm": side_mm,
            "exclude": "",
        }
        if plane.min() == plane.max():
            row["exclude"] = "true"
            empty.append(name)
        rows.append(row)
    if len(empty) == len(rows):
        raise ImageError(f"{path}: every slice along {'ijk'[axis]} is one single value")
    said = [
        f"slices along axis {'ijk'[axis]} ({why}), written to {folder}",
        f"pixel_size_mm: {side_mm:g}, {'as given' if pixel_size_mm else 'from the header'}",
        f"position_mm: {sides_mm[axis]:g} mm apart, from the header",
    ]
    if unit == "unknown":
        said.append("the header does not say its unit of length: taken as mm, check it")
    if empty:
        said.append(f"exclude: {len(empty)} slices are empty: {some_of(empty)}")
    letters = "".join(nib.aff2axcodes(volume.world_from_voxel)[a] for a in (*across, axis))
    if int(header["sform_code"]) or int(header["qform_code"]):
        orientation_matrix(letters)
        said.append(f"orientation, if the header was ever set: {letters}; auto finds it otherwise")
    else:
        said.append("orientation: the header does not say it; auto finds it")
    return rows, said
