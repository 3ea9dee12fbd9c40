"""Which files of a folder are sections, which belong to one, and which are left out and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sbr_core.errors import some_of
from sbr_core.io.name_numbers import numbers_in

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tga"),
    *(".jp2", ".j2k", ".jpx", ".jpf", ".pgm", ".ppm", ".pnm", ".pbm", ".nii", ".nii.gz"),
    *(".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".lsm"),
)
"""Endings of files that are sections, whatever their case: what `sbr_core.io.images` reads."""
COMPANIONS = {"_mask": "mask", "_labels": "labels"}
"""Ending of a stem -> column of the manifest: ``a_mask.png`` is the mask of ``a.tif``."""

_CONVERTED = {
    ending: hint
    for hint, endings in {
        "convert to OME-TIFF, with QuPath or Bio-Formats": (
            *(".czi", ".lif", ".nd2", ".vsi", ".ets", ".oir", ".oib", ".oif", ".ims", ".zvi"),
            *(".mrxs", ".vms", ".vmu", ".isyntax", ".svslide", ".afi", ".stk", ".dv", ".zarr"),
        ),
        "save as PNG or TIFF": (
            *(".heic", ".heif", ".avif", ".jxl", ".jxr", ".cr2", ".cr3", ".nef", ".arw", ".dng"),
            *(".raf", ".orf", ".rw2", ".raw", ".psd", ".psb", ".xcf", ".ai", ".svg", ".eps"),
            *(".ps", ".pdf", ".emf", ".wmf", ".pcx", ".exr"),
        ),
        "save as TIFF, or as NIfTI of one slice": (
            *(".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".mnc", ".img", ".dcm", ".dicom"),
            *(".ima", ".h5", ".hdf5", ".npy", ".npz"),
        ),
    }.items()
    for ending in endings
}
"""Ending of an image that is not read -> what to do with it."""
_HEADS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
    b"BM": ".bmp",
    b"GIF8": ".gif",
}
"""How files begin -> the ending that such a one has."""

_MASK_WORDS = (
    r"masks?|masked|seg(?:m|ment(?:ed|ations?)?)?|labels?|labelmaps?|labell?ed|annotat(?:ions?|ed)"
    r"|parcellations?|rois?|overlays?|outlines?|thumb(?:nail)?s?|overview|preview|macro"
)
_BESIDE_MASK = r"cp|simple|binary|final|tissue|brain|auto|manual|image"
_LOOKS_LIKE_MASK = re.compile(rf"(?<![a-z])(?:{_MASK_WORDS})(?![a-z])")
_MASK_PARTS = re.compile(rf"(?<![a-z])(?:{_MASK_WORDS}|{_BESIDE_MASK})(?![a-z])")


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes
    ----------
    sections : names of those taken for sections, in their order.
    stems : their names without endings.
    companions : stem -> column of the manifest -> name of the file.
    unread : those of `sections` that are not read -> what to do.
    notes : what is left out, and what is doubtful, in words.
    """

    sections: tuple[str, ...]
    stems: dict[str, str]
    companions: dict[str, dict[str, str]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def natural(name: str) -> tuple[object, ...]:
    """Key that sorts ``s2`` before ``s10``, and is the same whatever the case."""
    parts = re.split(r"(\d+)", name.casefold())
    return (*((int(p), p) if i % 2 else (p,) for i, p in enumerate(parts)), name)


def stem_of(name: str) -> str:
    """A file's name without its ending, ``a`` of ``a.nii.gz`` and of ``a.ome.tif``."""
    low = name.lower()
    for ending in (*(f".ome{s}" for s in (".tif", ".tiff", ".btf")), ".nii.gz", *SUFFIXES):
        if low.endswith(ending):
            return name[: -len(ending)]
    return name


def list_folder(folder: Path) -> Listing:
    """The section images of a folder, with what belongs to them and what is left out.

    Sections come in the natural order of their names, or by the numbers in them where these have
    signs or decimals, or stand beside dates.
    """
    there = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    names = sorted((p.name for p in there if p.name.lower().endswith(SUFFIXES)), key=natural)
    stems = {name: stem_of(name) for name in names}
    companions: dict[str, dict[str, str]] = {}
    for name, stem in stems.items():
        for ending, column in COMPANIONS.items():
            if stem.endswith(ending) and (of := stem.removesuffix(ending)) in stems.values():
                companions.setdefault(of, {})[column] = name
    taken = set(names).difference(*(some.values() for some in companions.values()))
    masks = [name for name in names if name in taken and _is_beside(stems[name], stems.values())]
    sections = [name for name in names if name in taken and name not in masks]
    unread, notes = _others(there, [stems[name] for name in sections])
    if masks:
        notes.insert(
            0,
            f"LEFT OUT, {len(masks)} look like masks, labels or copies beside an image of the same"
            f" name: {some_of(masks)}: are they? Name a mask NAME_mask and labels NAME_labels to"
            " have them taken; a section needs another name, or a row of yours",
        )
    if alone := [name for name in sections if _LOOKS_LIKE_MASK.search(stems[name].casefold())]:
        notes.append(
            f"{len(alone)} are named like masks or copies, but there is no image of the same name:"
            f" taken for sections, check it: {some_of(alone)}"
        )
    alike = [n for n in sections if sum(stems[n] == stems[other] for other in sections) > 1]
    if alike:
        notes.append(f"several files of one name are sections each, check it: {some_of(alike)}")
    stems |= {name: Path(name).stem for name in unread}
    order = _in_order([*sections, *unread], stems)
    return Listing(tuple(order), stems, companions, unread, tuple(notes))


def _in_order(names: Sequence[str], stems: dict[str, str]) -> list[str]:
    names = sorted(names, key=natural)
    numbers = numbers_in([stems[name] for name in names])
    if numbers is None or not (numbers.are_decimal or numbers.have_dates):
        return names
    return [name for _, name in sorted(zip(numbers.values, names, strict=True))]


def _is_beside(stem: str, others: Iterable[str]) -> bool:
    """Whether a name is that of another image but for words like mask."""
    low = stem.casefold()
    if not _LOOKS_LIKE_MASK.search(low):
        return False
    of = re.sub(r"[\W_]+", "", _MASK_PARTS.sub("", low))
    return any(
        of == re.sub(r"[\W_]+", "", other.casefold())
        for other in others
        if not _LOOKS_LIKE_MASK.search(other.casefold())
    )


def _others(there: Sequence[Path], stems: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(sections that are not read -> what to do, notes) of what has no ending of `SUFFIXES`.

    Of images that are not read, those are sections whose names are like those of the others.

    Parameters
    ----------
    stems : names of the images that are read.
    """
    sections: dict[str, str] = {}
    same_name = {stem.casefold() for stem in stems}
    alike = {_skeleton(stem) for stem in stems}
    left_out: dict[str, list[str]] = {}
    for path in there:
        if path.name.lower().endswith(SUFFIXES):
            continue
        hint, stem = _CONVERTED.get(path.suffix.lower()), path.stem.casefold()
        if path.is_dir() and hint is None:
            n_images = sum(p.name.lower().endswith(SUFFIXES) for p in path.iterdir())
            if n_images:
                what = "folders below are not looked into"
                left_out.setdefault(what, []).append(f"{path.name} ({n_images} images)")
            continue
        if hint is None and (ending := _ending_by_content(path)):
            hint = f"add the ending {ending}"
        if hint is None:
            left_out.setdefault("not taken for images", []).append(path.name)
        elif stem in same_name:
            what = "passed over, beside an image of the same name"
            left_out.setdefault(what, []).append(path.name)
        else:
            same_name.add(stem)
            if not alike or _skeleton(stem) in alike:
                sections[path.name] = hint
            left_out.setdefault(f"LEFT OUT, not read: {hint}", []).append(path.name)
    return sections, [f"{what}: {some_of(names, 12)}" for what, names in left_out.items()]


def _skeleton(stem: str) -> str:
    """A name without its numbers."""
    return re.sub(r"\d+", "0", stem.casefold())


def _ending_by_content(path: Path) -> str:
    """The ending that an image of these first bytes has; "" where it is none that is known."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
    except OSError:
        return ""
    return next((ending for begin, ending in _HEADS.items() if head.startswith(begin)), "")
