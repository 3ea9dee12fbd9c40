"""The pixel size that an image file contains, if it does."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from sbr_core.errors import ImageError
from sbr_core.io.files import check_is_file
from sbr_core.io.frames import stated_unit_mm
from sbr_core.io.nifti import open_nifti
from sbr_core.io.ome import pixels_of
from sbr_core.io.pictures import open_picture
from sbr_core.io.tiff import is_tiff, series_of

_MM = {
    "nm": 1e-6,
    "µm": 1e-3,
    "um": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "micrometer": 1e-3,
    "mm": 1.0,
    "millimeter": 1.0,
    "cm": 10.0,
    "centimeter": 10.0,
    "inch": 25.4,
    "in": 25.4,
    "m": 1000.0,
    "meter": 1000.0,
}
"""Units of length as OME-XML and ImageJ write them, in mm."""
_THOUSAND = 500, 2000
"""Between these a factor is a unit mistaken for another, 1000, and not the magnification: that may
be off by a factor of 2 as well."""
_MPP = r"\bMPP\s*=\s*([^\s|]*)"
"""Micrometres per pixel in the description of Aperio's slides."""
_DEFAULT_DPI = (72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 240, 250, 300, 360, 400, 600)
"""Resolutions, dots per inch, that programs write when none was set; those of screens, printers and
scanners."""


@dataclass(frozen=True)
class PixelSize:
    """A pixel size from a file's metadata.

    Attributes
    ----------
    x_mm, y_mm : width and height of a pixel.
    source : which metadata, in words.
    is_certain : whether somebody must have set it, unit included.
    """

    x_mm: float
    y_mm: float
    source: str
    is_certain: bool = True

    @property
    def is_square(self) -> bool:
        return math.isclose(self.x_mm, self.y_mm, rel_tol=0.01)


def stated_pixel_size(path: Path, doubts: list[str] | None = None) -> PixelSize | None:
    """The pixel size in a file's metadata; None where there is none that can be meant.

    Read are OME-XML (``PhysicalSizeX``, with its unit), Aperio's ``MPP``, ImageJ's and the TIFF's
    own resolution, the resolution of a PNG or JPEG, and the header of a NIfTI. Resolutions that
    programs write by default, as 72 dots per inch, are none. Metadata that cannot be read, or that
    do not say plainly which size is meant, are none either: the pixels may be good.

    Parameters
    ----------
    doubts : a sentence about such metadata is added to it.

    Raises
    ------
    ImageError
        The file cannot be read.
    """
    path, said = Path(path), [] if doubts is None else doubts
    check_is_file(path)
    try:
        if path.name.lower().endswith((".nii", ".nii.gz")):
            size = _of_nifti(path)
        elif is_tiff(path):
            size = _of_tiff(path, said)
        else:
            size = _of_picture(path, said)
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        raise ImageError(f"{path}: not readable as an image: {error}") from error
    if size is None or not all(math.isfinite(v) and v > 0 for v in (size.x_mm, size.y_mm)):
        return None
    return size


@contextmanager
def _metadata(name: str, said: list[str]) -> Iterator[None]:
    """Whatever is wrong with some metadata, as a sentence: they are not needed to read pixels."""
    try:
        yield
    except Exception as error:  # as different as what somebody wrote there
        why = " ".join(str(error).split())[:100] or type(error).__name__
        said.append(f"its {name} is not clean, so it states no pixel size: {why}")


def _of_nifti(path: Path) -> PixelSize | None:
    header = open_nifti(path).header
    zooms = [
        float(z) for z, n in zip(header.get_zooms(), header.get_data_shape(), strict=True) if n > 1
    ]
    if len(zooms) < 2:
        return None
    unit_mm = stated_unit_mm(header)
    said, mm = "" if unit_mm else ", unit not given, taken as mm", unit_mm or 1.0
    # 1 mm is what programs write that were not told a size
    is_certain = unit_mm is not None and zooms[0] * mm != 1
    return PixelSize(zooms[0] * mm, zooms[1] * mm, f"NIfTI header{said}", is_certain)


def _of_tiff(path: Path, said: list[str]) -> PixelSize | None:
    import tifffile

    with tifffile.TiffFile(path, _multifile=False) as tiff:
        page, size = tiff.pages[0], None
        ome, aperio = tiff.ome_metadata, re.search(_MPP, page.description or "")
        _, why = series_of(tiff)
        if why:
            said.append(
                f"its description does not fit its pages, which are read as they are: {why}"
            )
        if ome:
            with _metadata("OME-XML", said):
                size = _of_ome(ome, path, (page.imagelength, page.imagewidth))
        if size is None and aperio:
            with _metadata("MPP", said):
                mm = _number(aperio[1]) / 1000
                size = PixelSize(mm, mm, "Aperio MPP")
        if size is None:
            with _metadata("resolution", said):
                size = _of_tags(tiff, page)
        return size


def _of_tags(tiff: Any, page: Any) -> PixelSize | None:
    """Of a TIFF's own resolution, and ImageJ's unit of it."""
    tags = [page.tags.get(name) for name in ("XResolution", "YResolution")]
    if None in tags:
        return None
    unit = page.tags.get("ResolutionUnit")
    mm, source = {2: 25.4, 3: 10.0}.get(int(unit.value) if unit else 2), "TIFF resolution"
    imagej = (tiff.imagej_metadata or {}).get("unit") if tiff.is_imagej else None
    if imagej is not None:
        name = str(imagej).replace("\\u00B5", "µ").replace("μ", "µ").lower()
        mm, source = _MM.get(name), "ImageJ metadata"
    # in inches ImageJ passes on what it read, in micrometres somebody set the scale
    was_set = imagej is not None and mm is not None and mm <= 1
    return _of_density([_ratio(tag.value) for tag in tags], mm, source, was_set)


def _of_ome(xml: str, path: Path, shape: tuple[int, int]) -> PixelSize | None:
    """Of the image in OME-XML that is the file's own.

    Raises
    ------
    ValueError
        A size that is no number, or several images that may be it, of different sizes.
    """
    found = [_of_pixels(pixels) for pixels in pixels_of(xml, path, shape)]
    if len(set(found)) > 1:
        raise ValueError(f"it lists {len(found)} images that may be this one, of different sizes")
    return found[0] if found else None


def _of_pixels(pixels: ElementTree.Element) -> PixelSize | None:
    sizes = []
    for axis in "XY":
        value = pixels.get(f"PhysicalSize{axis}") or pixels.get("PhysicalSizeX")
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm").replace("μ", "µ")
        if value is None or unit not in _MM:
            return None
        sizes.append(_number(value) * _MM[unit])
    return PixelSize(*sizes, "OME-XML PhysicalSizeX")


def _number(text: str) -> float:
    """A number that somebody wrote; ValueError where it is none."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


def _of_picture(path: Path, said: list[str]) -> PixelSize | None:
    with open_picture(path) as image:
        dpi = image.info.get("dpi")
        format_name = image.format
    size = None
    if dpi:
        with _metadata(f"{format_name} resolution", said):
            size = _of_density([float(d) for d in dpi], 25.4, f"{format_name} resolution")
    return size


def _of_density(
    per_unit: list[float], unit_mm: float | None, source: str, was_set: bool = False
) -> PixelSize | None:
    """Of pixels per unit of length; None for a program's default, unless it `was_set`."""
    if unit_mm is None or min(per_unit) <= 0 or not all(map(math.isfinite, per_unit)):
        return None
    x_mm, y_mm = (unit_mm / value for value in per_unit)
    dpi, per_cm = 25.4 / x_mm, 10 / x_mm
    # JPEG has whole numbers only: 72 dots per inch are 28 per centimetre there
    is_default = per_unit[0] == 1 or any(
        math.isclose(dpi, usual, rel_tol=0.005) or math.isclose(per_cm, round(usual / 2.54))
        for usual in _DEFAULT_DPI
    )
    return None if is_default and not was_set else PixelSize(x_mm, y_mm, source)


def _ratio(value: Any) -> float:
    if isinstance(value, tuple):
        return value[0] / value[1] if value[1] else math.nan
    return float(value)


def disagreement(stated: PixelSize | None, pixel_size_mm: float) -> str:
    """A warning where a manifest and a file differ by more than 5 %; "" where they do not.

    So much passes for rounding.
    """
    if stated is None or math.isclose(stated.x_mm, pixel_size_mm, rel_tol=0.05):
        return ""
    factor = pixel_size_mm / stated.x_mm
    times = f"{factor:.4g} times as much" if factor > 1 else f"1/{1 / factor:.4g} of it"
    hint = ""
    if _is_thousand(factor):
        larger = factor > 1
        hint = ": micrometres given as millimetres?" if larger else ": divided by 1000 twice?"
    return (
        f"pixel_size_mm is {pixel_size_mm:g}, but the file says {stated.x_mm:g} mm"
        f" ({stated.source}): {times}{hint}"
    )


def is_another_unit(stated: PixelSize | None, pixel_size_mm: float) -> bool:
    """Whether a manifest's pixel size and a file's are a factor of about 1000 apart for certain."""
    if stated is None or not stated.is_certain:
        return False
    return _is_thousand(pixel_size_mm / stated.x_mm)


def _is_thousand(factor: float) -> bool:
    """Whether a factor, or one over it, is about 1000."""
    return _THOUSAND[0] <= max(factor, 1 / factor) <= _THOUSAND[1]
