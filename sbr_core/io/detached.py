"""Which other files the header of an NRRD or a MetaImage names for its voxels.

The libraries that read these open whatever stands there. So a name is taken only as a relative one
without ``..``, and where they may differ in what they make of a line, both are looked at.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from sbr_core.errors import ImageError

_LONGEST = 1 << 22
"""Bytes of a header, 4 MiB: with a line for each of some ten thousand slices."""
_LIST = re.compile(r"LIST(\s+\d+D?)?")
"""Says that names follow, one a line, to the end of the file."""
_NUMBER = re.compile(r"%0?\d{0,3}[diu]")
"""What stands for the number of a slice in a pattern of names."""


def detached_files(path: Path) -> list[Path]:
    """The files that have the voxels of an NRRD or a MetaImage, beside it or in folders below.

    Returns
    -------
    Files that are there; none where the voxels are in `path` itself.

    Raises
    ------
    ImageError
        A header that names a file elsewhere or none that is there, or that has no end.
    """
    with open(path, "rb") as stream:
        head = stream.read(_LONGEST)
    stated = (_of_nrrd if head.startswith(b"NRRD") else _of_metaimage)(path, head)
    return [file for name in stated for file in _files_of(path, name)]


def _of_nrrd(path: Path, head: bytes) -> Iterator[str]:
    """What the header of an NRRD states as ``data file``."""
    found = re.search(rb"\n\r?\n", head)
    end = found.start() if found else _checked_end(path, head)
    start = 0
    for line in head[:end].split(b"\n"):
        start += len(line) + 1
        field, _, value = _text(path, line).partition(":")
        if re.sub(r"\s", "", field).lower() == "datafile":
            yield from _names(path, value, head, start)


def _of_metaimage(path: Path, head: bytes) -> Iterator[str]:
    """What the header of a MetaImage states as ``ElementDataFile``, its last field."""
    lines = list(re.finditer(rb"ElementDataFile[ \t]*[=:]?([^\n]*)\n?", head))
    if not lines:
        raise ImageError(f"{path}: damaged: its header has no ElementDataFile")
    for line in lines:
        value = _text(path, line[1])
        if value.strip().lower() != "local":
            yield from _names(path, value, head, line.end())


def _names(path: Path, value: str, head: bytes, start: int) -> Iterator[str]:
    """The names or patterns that a value stands for: itself, or the lines from `start` on."""
    value = value.strip()
    if value.upper().startswith("LIST"):
        _checked_end(path, head)
        yield from filter(None, map(str.strip, _text(path, head[start:]).split("\n")))
    if not _LIST.fullmatch(value):
        yield value


def _checked_end(path: Path, head: bytes) -> int:
    """Where a file ends that is a header only; ImageError where it goes on too long."""
    if len(head) >= _LONGEST:
        raise ImageError(f"{path}: damaged: its header has no end within {_LONGEST} bytes")
    return len(head)


def _text(path: Path, part: bytes) -> str:
    """A part of a header, without the carriage returns at the ends of its lines.

    One that stands alone ends a line for some readers and not for others.
    """
    text = os.fsdecode(part).replace("\r\n", "\n").removesuffix("\r")
    if re.search(r"[\0\r]", text):
        raise ImageError(f"{path}: damaged: its header is no text")
    return text


def _files_of(path: Path, stated: str) -> list[Path]:
    """The files of one name, or of one pattern with the numbers of its slices."""
    name = stated.split()[0] if "%" in stated else stated
    parts = PurePosixPath(name)
    is_inside = not (parts.is_absolute() or ".." in parts.parts or name.startswith("~"))
    n_numbers = len(_NUMBER.findall(name))
    if not is_inside or name in ("", "-") or (stated.count("%"), n_numbers) not in ((0, 0), (1, 1)):
        raise ImageError(
            f"{path}: its voxels are in {stated!r}, and only names of files in its own folder are"
            " followed: put that file there, and write its name alone into the header"
        )
    if "%" in name:
        before, after = map(glob.escape, _NUMBER.split(name))
        files = [file for file in path.parent.glob(f"{before}*{after}") if file.is_file()]
    else:
        files = [file for file in (path.parent / name,) if file.is_file()]
    if not files:
        raise ImageError(f"{path}: its voxels are in {stated!r}, and there is no such file")
    return files
