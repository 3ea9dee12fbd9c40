"""The one place where Pillow opens a file, with the formats it may be.

Pillow goes by a file's content, not by its name, and knows formats that are programs: PostScript,
which it hands to an interpreter.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "JPEG2000", "GIF", "PPM", "TGA")
"""Of sections, masks and labels. Pillow knows MPO, which cameras write, as JPEG."""


def open_picture(path: Path, formats: tuple[str, ...] = FORMATS) -> Image:
    """A picture of one of the formats, of which only the header is read yet.

    It raises what Pillow raises: an `OSError` for a file that is none of them.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # a slide is larger than Pillow's guard for the web allows
    return Image.open(path, formats=formats)
