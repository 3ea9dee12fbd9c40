"""Where a page keeps its pictures: inside itself, or in a folder beside it where they are many."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.io.files import atomic_folder, remove_tree

logger = logging.getLogger(__name__)

MOST_INSIDE = 30_000_000
"""Bytes of pictures, as text, that a page may have inside: browsers and mail still take it."""
_KINDS = {"jpg": "jpeg", "png": "png"}
_LEVELS = 16
"""Of opacity in a picture that is laid over another: lines stay smooth, and files small."""


class Shelf:
    """Pictures of a page's sections, by the name of a file.

    Parameters
    ----------
    page : where it will be written; the folder is beside it, of the page's name.
    """

    def __init__(self, page: Path) -> None:
        self.folder = page.with_name(f"{page.stem}_files")
        self._files: dict[str, bytes] = {}

    def add(self, name: str, data: bytes) -> str:
        """Keep a picture; its name, which `uris` has an address for."""
        self._files[name] = data
        return name

    @property
    def is_beside(self) -> bool:
        """Whether the pictures are too many to be inside the page."""
        return sum(4 * len(data) / 3 for data in self._files.values()) > MOST_INSIDE

    def uris(self) -> Mapping[str, str]:
        """Name -> address within the page."""
        if self.is_beside:
            # names are of section ids, which have no sign that an address would need escaped
            return {name: f"{self.folder.name}/{name}" for name in self._files}
        return {name: _inside(name, data) for name, data in self._files.items()}

    def write(self) -> None:
        """Write the folder, or remove what an earlier page had beside it."""
        if not self.is_beside:
            remove_tree(self.folder)
            return
        with atomic_folder(self.folder) as temporary:
            for name, data in self._files.items():
                (temporary / name).write_bytes(data)
        logger.info(f"report: its {len(self._files)} pictures are in {self.folder}, beside it")


def _inside(name: str, data: bytes) -> str:
    kind = _KINDS[name.rsplit(".", 1)[-1]]
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def grey_jpeg(grey: np.ndarray, quality: int) -> bytes:
    """Grey levels (rows, columns) in [0, 1] as a JPEG."""
    from PIL import Image

    levels = np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    return _encoded(Image.fromarray(levels), "JPEG", quality=quality, optimize=True)


def overlay_png(opacity: np.ndarray, colour: tuple[int, int, int]) -> bytes:
    """One colour to be laid over other pictures, as a PNG.

    Parameters
    ----------
    opacity : (rows, columns) bool, or in [0, 1].
    """
    from PIL import Image

    levels = np.round((_LEVELS - 1) * np.clip(np.asarray(opacity, np.float32), 0, 1))
    picture = Image.fromarray(levels.astype(np.uint8))
    picture.putpalette([*colour] * _LEVELS)
    alphas = bytes(round(255 * level / (_LEVELS - 1)) for level in range(_LEVELS))
    return _encoded(picture, "PNG", transparency=alphas, optimize=True, bits=4)


def rgba_png(picture: np.ndarray) -> bytes:
    """(rows, columns, 4) uint8 as a PNG."""
    from PIL import Image

    return _encoded(Image.fromarray(picture), "PNG", optimize=True)


def _encoded(picture: Any, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()
