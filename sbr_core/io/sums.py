"""Whether a file is still what was written: checksums of compressed files, and recorded sums.

What a stage hands on has a record of its sha256 in the folder ``.sums`` beside it; whoever reads it
compares. Files of sections have theirs in receipts and sidecars instead. A file without a record,
as results of before there were any have none, is taken as it is.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sbr_core.errors import ImageError, ReceiptError
from sbr_core.io.files import (
    SUMS,
    atomic_path,
    json_text,
    read_json,
    sha256_file,
    sum_file,
    write_json,
)

_BLOCK = 1 << 20
_MOST_AFTER = 1 << 24
"""Bytes that may follow what is needed of a compressed file, uncompressed: 16 MiB."""


class Sum(BaseModel):
    """The record of a file.

    Attributes
    ----------
    sections : of a table of sections, the ids it must have, in its order.
    asked : options and revision that it was made with, of stages that have no plan.
    """

    model_config = ConfigDict(frozen=True)
    sha256: str
    sections: list[str] | None = None
    asked: dict[str, Any] | None = None


def recorded(path: Path) -> Sum | None:
    """The record of a file, None where there is none; ReceiptError where it is damaged."""
    record = sum_file(path)
    try:
        return read_json(record, Sum) if record.is_file() else None
    except ReceiptError as error:
        raise ReceiptError(
            f"{error}; without this record {path} is taken as it is: remove both, and the workflow"
            " makes it anew, or the record alone if you know the file to be right"
        ) from None


def recorded_in(folder: Path) -> Iterator[Path]:
    """Files of a folder that have a record, whether they are still there or not."""
    for record in sorted((folder / SUMS).glob("*.json")):
        if not record.name.startswith("."):  # what a killed job had begun to write
            yield folder / record.name.removesuffix(".json")


def lost_from(folder: Path) -> Iterator[Path]:
    """Files of a folder that were written, as their records tell, and are gone."""
    return (path for path in recorded_in(folder) if not path.is_file())


@contextmanager
def summed_path(path: Path, **facts: Any) -> Iterator[Path]:
    """As `atomic_path`, and the sum is recorded.

    Parameters
    ----------
    facts : further fields of `Sum`.
    """
    with atomic_path(path) as temporary:
        yield temporary
        sha256 = sha256_file(temporary)
    write_json(sum_file(path), {"sha256": sha256, **facts})


def remove_summed(path: Path) -> None:
    """Remove a file, if it is there, and its record."""
    path.unlink(missing_ok=True)
    sum_file(path).unlink(missing_ok=True)


def write_summed_json(path: Path, value: Any) -> None:
    """As `write_json`, and the sum is recorded."""
    with summed_path(path) as temporary:
        temporary.write_text(json_text(value), encoding="utf-8")


def check_sum(path: Path) -> Sum | None:
    """The record of a file that is as it was written; None where it has none.

    Raises
    ------
    ReceiptError
        It is another file than was written.
    """
    record = recorded(path)
    while record is not None and sha256_file(path) != record.sha256:
        if (newer := recorded(path)) != record:  # it was written anew in between
            record = newer
            continue
        raise ReceiptError(
            f"{path}: is not the file that was written: its sha256 is not that in {sum_file(path)};"
            " remove it, and the workflow makes it anew (if it was changed on purpose, remove the"
            " latter)"
        )
    return record


def check_gzip(path: Path, needed: int) -> None:
    """Read a gzip file to its end, where its checksum is; who needs only its data stops before.

    Parameters
    ----------
    needed : bytes of its uncompressed content that are used.

    Raises
    ------
    ImageError
        The checksum differs, the file ends too early or goes on for too long.
    """
    size = 0
    try:
        with gzip.open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                size += len(block)
                if size > 2 * needed + _MOST_AFTER:
                    raise ImageError(f"{path}: {size} bytes and more, of which {needed} are used")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImageError(
            f"{path}: damaged: {error}; copy it anew from where it came from"
        ) from None


def check_png(path: Path) -> None:
    """Compare the checksums of a PNG's picture, which Pillow passes over; not those of its texts.

    Raises
    ------
    ImageError
        One differs.
    """
    with open(path, "rb") as stream:
        stream.seek(8)
        while len(head := stream.read(8)) == 8:
            left, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind != b"IDAT":
                stream.seek(left + 4, 1)
                continue
            crc = zlib.crc32(kind)
            while left > 0 and (block := stream.read(min(left, _BLOCK))):
                left -= len(block)
                crc = zlib.crc32(block, crc)
            if left > 0 or stream.read(4) != crc.to_bytes(4, "big"):
                raise ImageError(
                    f"{path}: not readable as an image: the checksum of its pixels differs;"
                    " take it anew from where it is from"
                )
