"""What pages have in common: the template's style, pictures inside the page, numbers as text."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from sbr_core.errors import ReceiptError
from sbr_core.io.files import check_is_file, inside, read_json, write_text
from sbr_core.io.manifests import SIMULATED
from sbr_core.io.pictures import open_picture
from sbr_core.io.provenance import versions
from sbr_core.io.sums import check_sum
from sbr_core.report import words

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngImageFile

COMPARISON = "comparison.json"
"""The part of a comparison that pages show, which `compare` writes beside its tables."""

PRINT_DPI = 250
_SCREEN_DPI = 165
"""Figures are drawn for print; at these pixels an inch their letters are as large as a page's."""


_MOST_PIXELS = 1 << 28
"""Of a picture on a page: 16384 x 16384, many times a contact sheet. A file of 0.5 MB may have 3.6
thousand million."""


def write_page(out: Path, template: str, **values: Any) -> None:
    """Fill in a template of ``report/templates/`` and write the page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sbr_core", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["plain"] = lambda metric: words.metric(metric).name
    environment.globals |= {"asset": _asset, "digest_of": _digest_of}
    write_text(out, environment.get_template(template).render(versions=versions(), **values))


def _asset(name: str) -> str:
    """A style sheet or a script of ``report/templates/``, to stand in a page as it is."""
    return (files("sbr_core") / "report" / "templates" / name).read_text("utf-8")


def _digest_of(script: str) -> str:
    """The word by which a page's policy allows one script that stands in it, and no other."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "'sha256-" + base64.b64encode(digest).decode("ascii") + "'"


def number(value: float | None) -> str:
    """A number as text: a count as it is, else three digits; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return str(value)
    if abs(value) < 1e-6:  # rounding of something that is nought
        return "0"
    # noughts at the end are kept, so that a column has its points below each other
    return f"{value:#.3g}" if abs(value) < 99.95 else f"{value:.0f}"


def read_png(root: Path, name: str) -> PngImageFile:
    """A PNG inside a folder of results, which may be somebody else's, in memory.

    Raises
    ------
    ReceiptError
        Missing, outside the folder, or no PNG, whole and undamaged.
    """
    path = inside(root, name)
    check_is_file(path, ReceiptError)
    try:
        with open_picture(path, ("PNG",)) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} pixels, too many for a page")
            picture.verify()  # every checksum; nothing can be read after it
        with open_picture(path, ("PNG",)) as picture:
            picture.load()
            return picture
    except Exception as error:  # decoders raise whatever they like
        raise ReceiptError(f"{path}: not readable as PNG: {error}") from None


def png_uri(root: Path, name: str) -> str:
    """A PNG file as an address that holds it; raises as `read_png`."""
    read_png(root, name)
    return "data:image/png;base64," + base64.b64encode((root / name).read_bytes()).decode("ascii")


def jpeg(picture: np.ndarray, caption: str, quality: int) -> dict[str, Any]:
    """An RGB array as a JPEG inside the page."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, optimize=True)
    return {
        "uri": "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii"),
        "caption": caption,
        "width": picture.shape[1],
        "height": picture.shape[0],
    }


class _Figure(BaseModel):
    title: str
    file: str
    caption: str


class _Comparison(BaseModel):
    """What `compare` writes for pages to show."""

    methods: list[str]
    lines: list[dict[str, Any]]
    tests: list[dict[str, Any]]
    figures: list[_Figure]
    notes: list[str]
    alpha: float


def comparison_of(folder: Path) -> Mapping[str, Any] | None:
    """A comparison with its figures inside, for a page to show; None if there is none."""
    if not (folder / COMPARISON).is_file():
        return None
    check_sum(folder / COMPARISON)
    comparison = read_json(folder / COMPARISON, _Comparison).model_dump()
    figures = [figure | _on_screen(folder, figure["file"]) for figure in comparison["figures"]]
    return comparison | {"figures": figures}


def _on_screen(folder: Path, figure: str) -> dict[str, Any]:
    """A figure inside the page, and how wide it is shown."""
    width = round(read_png(folder, figure).width * _SCREEN_DPI / PRINT_DPI)
    return {"uri": png_uri(folder, figure), "width": width}


def simulated_from(brain: str, results_dir: Path) -> dict[str, Any] | None:
    """The real brain that a simulated one is made from, and how far; None for a real one."""
    if not brain.endswith(SIMULATED):
        return None
    truth = results_dir / "data" / "truth.json"
    moved_mm = read_json(truth, _Truth).in_plane_mm_of_linear if truth.is_file() else None
    return {"source": brain.removesuffix(SIMULATED), "moved_mm": number(moved_mm)}


class _Truth(BaseModel):
    in_plane_mm_of_linear: float | None
