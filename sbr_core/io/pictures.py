"""The one place where Pillow opens a file, with the formats it may be.

Pillow goes by a file's content, not by its name, and knows formats that are programs: PostScript,
which it hands to an interpreter.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "JPEG2000", "GIF", "PPM", "TGA")
"""Of sections, masks and labels. Pillow knows MPO, which cameras write, as JPEG."""
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"


def open_picture(path: Path, formats: tuple[str, ...] = FORMATS) -> Image:
    """A picture of one of the formats, of which only the header is read yet.

    It raises what Pillow raises: an `OSError` for a file that is none of them.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # a slide is larger than Pillow's guard for the web allows
    _check_boxes(path)
    return Image.open(path, formats=formats)


def _check_boxes(path: Path) -> None:
    """OSError where a JPEG 2000 has a box longer than itself, which Pillow would take memory for.

    The boxes are those of ISO/IEC 15444-1, annex I.4.
    """
    with open(path, "rb") as stream:
        if stream.read(12) != _JP2:
            return
        n_bytes, start = stream.seek(0, os.SEEK_END), 0
        while start + 8 <= n_bytes:
            stream.seek(start)
            length, kind = struct.unpack(">I4s", stream.read(8))
            if length == 1:
                (length,) = struct.unpack(">Q", stream.read(8).ljust(8, b"\0"))
            if length == 0 or kind == b"jp2c":  # to the end of the file; the picture itself
                return
            if length < 8 or start + length > n_bytes:
                raise OSError(f"its part {kind!r} claims {length} bytes, of {n_bytes} there are")
            start += length
