"""Whether a file is still what was written: checksums of compressed files, and recorded sums."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from sbr_core.errors import ImageError

_BLOCK = 1 << 20
_MOST_AFTER = 1 << 24
"""Bytes that may follow what is needed of a compressed file, uncompressed: 16 MiB."""


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
