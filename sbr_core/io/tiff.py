"""The picture in a TIFF of any kind: OME-TIFF, SVS, NDPI, BigTIFF, tiled or in strips.

tifffile knows the pyramids of these formats and decodes tile by tile; imagecodecs (the extra
``wsi``) adds the compressions of whole-slide images. From a pyramid the coarsest level that still
serves is read, and what is finer than asked for is averaged as it comes, so that memory holds one
tile and the result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from sbr_core.errors import ImageError
from sbr_core.io.blocks import BlockMeans, Picture, check_memory, grid_step, over_background
from sbr_core.io.channels import RGB, Channels
from sbr_core.io.ome import pixels_of

# its warnings of damaged files become one error here
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_ROWS_AT_ONCE_BYTES = 1 << 25
"""Of a file without tiles: 32 MiB, enough to read fast, little beside a picture."""
_STORE_TILED = ": store it in tiles, as a pyramid (OME-TIFF)"
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
"""PhotometricInterpretation (TIFF 6.0); other colour spaces are refused."""
_COLOURS = {_MINISWHITE: 1, _MINISBLACK: 1, _PALETTE: 1, _RGB: 3, _YCBCR: 3, _SEPARATED: 4}
"""How many samples of a pixel are its colour; what follows is opacity, or more channels."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
"""ExtraSamples that are opacity (TIFF 6.0): colours are multiplied by it already, or not."""
_DESCRIBED = "ome", "imagej", "shaped", "stk", "nih", "fluoview"
"""Kinds of TIFF, in tifffile's words, whose series follow from a description."""
_EXPORT_ONE = "export the one to be registered as a file of its own"
_DENSEST = {1: 2, 5: 3000, 7: 600 * 4, 8: 1100, 32773: 70, 32946: 1100}
"""Compression -> bytes that one byte of the file can stand for at most, and a little more, so that
a damaged header is not given memory: none (colours may be subsampled), LZW (12 bits for strings of
up to 4096 bytes), JPEG (a bit for 64 pixels of up to 4 samples), deflate (1032), PackBits (128 for
2), deflate by its other number."""


class MissingCodec(Exception):
    """A compression that only imagecodecs reads, which is not installed.

    Attributes
    ----------
    is_only_picture : whether the file has no other page or channel that a decoder might take.
    """

    def __init__(self, message: str, is_only_picture: bool) -> None:
        super().__init__(message)
        self.is_only_picture = is_only_picture


def is_tiff(path: Path) -> bool:
    """Whether a file begins like a TIFF, whatever its name."""
    with open(path, "rb") as stream:
        return stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Plane:
    """Where the picture of a TIFF is.

    Attributes
    ----------
    series : tifffile's, with the levels of its pyramid.
    page : which of the pages of a level.
    sample : the only one that counts of a pixel's colours or channels; None: its colour.
    skipped : how many planes of the page's size lie before it where only the first has a page.
    """

    series: Any
    page: int = 0
    sample: int | None = None
    skipped: int = 0


def read_tiff(path: Path, coarsest: float, channel: str | None = None) -> Picture:
    """The one picture of a TIFF.

    Parameters
    ----------
    coarsest : file pixels that a pixel may be wide; 1 reads the full resolution.
    channel : as of `find_plane`.

    Raises
    ------
    ImageError
        Several pictures, channels or planes, another colour space, a file cut off.
    MissingCodec
        See there.
    """
    import tifffile

    with tifffile.TiffFile(path, _multifile=False) as tiff:
        plane = find_plane(path, tiff, channel)
        series, page = plane.series, plane.series.keyframe
        file_shape = page.imagelength, page.imagewidth
        steps = [_steps(file_shape, level.keyframe) for level in series.levels]
        serves = [i for i, step in enumerate(steps) if max(step) <= coarsest * (1 + 1e-6)]
        level = max(serves, key=lambda i: steps[i]) if serves else 0
        step = steps[level]
        pages = series.levels[level].pages
        page = pages[plane.page] if plane.page < len(pages) else None
        if page is None:
            raise ImageError(f"{path}: level {level} of its pyramid is missing")
        rest = max(1, int(coarsest / max(step) + 1e-6))
        pixels = _read_page(path, page, rest, plane)
    return Picture(pixels, file_shape, (step[0] * rest, step[1] * rest))


def series_of(tiff: Any) -> tuple[Any, str]:
    """The series of a TIFF, and why its metadata do not tell them; "" where they do.

    OME-XML, ImageJ's and other descriptions say which pages belong together. Where one is not what
    it should be, as with a size that is no number, pages are taken as they are. Micro-Manager's
    are not asked: of those, tifffile takes pages from other files, whatever `_multifile` says.
    """
    tiff.is_ndtiff = tiff.is_mmstack = False
    try:
        return tiff.series, ""
    except Exception as error:  # as different as what somebody wrote there
        why = " ".join(str(error).split())[:100] or type(error).__name__
    for kind in _DESCRIBED:
        setattr(tiff, f"is_{kind}", False)
    return tiff.series, why


def find_plane(path: Path, tiff: Any, channel: str | None = None) -> Plane:
    """The picture in a TIFF; ImageError where it is not one plane.

    Parameters
    ----------
    channel : which one of several, as of `Channels.index`; None where none can be chosen.
    """
    series, _ = series_of(tiff)
    if not series:
        raise ImageError(f"{path}: not readable as an image: has no picture")
    first = series[0]
    several = {
        axis: n for axis, n in zip(first.axes, first.shape, strict=True) if axis not in "YXS"
    }
    several = {axis: n for axis, n in several.items() if n > 1}
    along_axis = several.pop("C") if channel is not None and list(several) == ["C"] else 1
    if several or "Y" not in first.axes or "X" not in first.axes:
        words = {"C": "channels", "Z": "layers", "T": "times"}
        found = ", ".join(f"{n} {words.get(axis, 'pages')}" for axis, n in several.items())
        raise ImageError(
            f"{path}: expected one 2D plane, found {found}, shape {first.shape}: {_EXPORT_ONE}"
        )
    page = first.keyframe
    area = page.imagelength * page.imagewidth
    others = [other for other in series[1:] if "Y" in other.axes]
    # a slide's label and overview are smaller by far
    if any(2 * o.keyframe.imagelength * o.keyframe.imagewidth >= area for o in others):
        raise ImageError(f"{path}: expected one 2D plane, found {len(series)} pictures")
    if along_axis == 1:
        return Plane(first, sample=_sample(path, tiff, page, channel))
    index = Channels.of(along_axis, channel_names(path, tiff, page)).index(path, channel)
    if len(first.pages) == along_axis:
        _sample(path, tiff, page, None)  # only colours may be several samples now
        return Plane(first, page=index)
    if page.samplesperpixel == along_axis:
        return Plane(first, sample=index)
    if len(first.pages) == 1 and page.samplesperpixel == 1 and is_raw(page):
        return Plane(first, skipped=index)  # ImageJ writes one page for more than 4 GB
    raise ImageError(
        f"{path}: not readable as an image: {along_axis} channels, pages of {len(first.pages)}"
    )


def channel_names(path: Path, tiff: Any, page: Any) -> list[str]:
    """The names of the channels in the file, "" for one without a name."""
    if tiff.is_imagej:
        return [str(name) for name in (tiff.imagej_metadata or {}).get("Labels") or ()]
    if not tiff.ome_metadata:
        return []
    try:
        pixels = pixels_of(tiff.ome_metadata, path, (page.imagelength, page.imagewidth))
    except ElementTree.ParseError:
        return []
    channels = pixels[0].findall("{*}Channel") if pixels else []
    return [channel.get("Name", "").strip() for channel in channels]


def _sample(path: Path, tiff: Any, page: Any, channel: str | None) -> int | None:
    """Which sample of a pixel is the chosen channel; None for all of its colour.

    Channels that lie in one page as samples are refused where none is chosen, as they would be
    dropped.
    """
    photometric = int(page.photometric)
    colours = _COLOURS.get(photometric)
    if colours is None:
        return None  # refused by name where it is read
    alpha = _opacity_sample(page)
    more = page.samplesperpixel - colours - (alpha is not None)
    # scanners write a fourth sample beside colours that is not used
    if not channel and more <= (colours > 1):
        return None
    if channel and photometric in (_YCBCR, _SEPARATED, _PALETTE):  # made into red, green and blue
        return RGB.index(path, channel)
    if channel or (channel is not None and colours == 1):
        samples = [s for s in range(page.samplesperpixel) if s != alpha]
        known = Channels.of(len(samples), channel_names(path, tiff, page))
        if not known.names and colours > 1:
            known = Channels.of(len(samples), (*RGB.names, *[""] * more))
        return samples[known.index(path, channel)]
    if colours > 1:
        raise ImageError(
            f"{path}: expected one 2D plane, found colour and {more} more channels: save it without"
            " those, selections of a painting program among them"
        )
    rgb = ", or as RGB if they are red, green and blue" if more in (2, 3) else ""
    raise ImageError(
        f"{path}: expected one 2D plane, found {1 + more} channels: {_EXPORT_ONE}{rgb}"
    )


def _opacity_sample(page: Any) -> int | None:
    """Which sample of a pixel is its opacity; None where none is declared to be."""
    colours = _COLOURS[int(page.photometric)]
    for sample, kind in enumerate(page.extrasamples, colours):
        if int(kind) in (_ASSOCIATED, _UNASSOCIATED) and sample < page.samplesperpixel:
            return sample
    return None


def _steps(file_shape: tuple[int, int], page: Any) -> tuple[float, float]:
    """(x, y) file pixels per pixel of a level."""
    return grid_step(file_shape[1], page.imagewidth), grid_step(file_shape[0], page.imagelength)


@dataclass(frozen=True)
class _Light:
    """How samples of a page become light, and their opacity.

    Attributes
    ----------
    top : the largest value of a sample.
    table : colours of a palette.
    first, channels : which colours of a pixel are kept: one, or three.
    alpha : the sample that is opacity.
    is_associated : whether colours are multiplied by it already.
    with_opacity : whether the opacity is returned as the last channel.
    """

    photometric: int
    top: np.float32
    table: np.ndarray | None
    first: int
    channels: int
    alpha: int | None
    is_associated: bool
    with_opacity: bool

    @classmethod
    def of(cls, path: Path, page: Any, sample: int | None) -> _Light:
        """That of a page; ImageError where it has no light.

        Parameters
        ----------
        sample : as of `Plane`.
        """
        key = page.keyframe
        if key.dtype is None or key.dtype.kind not in "buif":
            raise ImageError(f"{path}: expected grey levels or colour, found {key.dtype} values")
        photometric = int(key.photometric)
        if photometric not in _COLOURS:
            name = getattr(key.photometric, "name", photometric)
            raise ImageError(
                f"{path}: colours as {name}: expected grey levels, RGB, palette or CMYK"
            )
        colours, alpha = _COLOURS[photometric], _opacity_sample(key)
        if key.samplesperpixel < colours:
            raise ImageError(
                f"{path}: expected {colours} samples a pixel, found {key.samplesperpixel}"
            )
        is_colour = photometric not in (_MINISWHITE, _MINISBLACK) and sample is None
        return cls(
            photometric=photometric,
            top=np.float32(_top(key)),
            table=_colour_table(key) if photometric == _PALETTE else None,
            first=sample or 0,
            channels=3 if is_colour else 1,
            alpha=alpha,
            is_associated=alpha is not None
            and int(key.extrasamples[alpha - colours]) == _ASSOCIATED,
            with_opacity=alpha is not None or 0 in page.databytecounts,  # a part was not scanned
        )

    def __call__(self, piece: np.ndarray) -> np.ndarray:
        """(rows, columns, channels[, opacity last]) of (rows, columns, samples), premultiplied."""
        if self.table is not None:
            colours = self.table[np.clip(piece[..., 0], 0, len(self.table) - 1)]
        elif self.photometric == _SEPARATED:
            ink = piece[..., :4].astype(np.float32) / self.top
            colours = (1 - ink[..., :3]) * (1 - ink[..., 3:]) * self.top
        else:
            colours = piece
        light = colours[..., self.first : self.first + self.channels]
        if self.photometric == _MINISWHITE:
            light = self.top - light
        if not self.with_opacity:
            return light
        cover = np.ones((*piece.shape[:2], 1), np.float32)
        if self.alpha is not None:
            cover = piece[..., self.alpha : self.alpha + 1].astype(np.float32) / self.top
            if not self.is_associated:
                light = light * cover
        return np.concatenate([light.astype(np.float32), cover], axis=-1)


def check_samples(path: Path, page: Any) -> None:
    """Refuse samples that are neither grey levels nor colours; ImageError."""
    _Light.of(path, page, None)


def _read_page(path: Path, page: Any, step: int, plane: Plane) -> np.ndarray:
    """(rows, columns[, 3]) float32, averaged over blocks of `step` pixels.

    Parameters
    ----------
    page : the plane's own, or that of a coarser level.
    """
    key = page.keyframe
    light = _Light.of(path, page, plane.sample)
    shape, channels = (key.imagelength, key.imagewidth), light.channels + light.with_opacity
    # once as it is read, and once as what is made of it
    check_memory(path, 2 * 4 * channels * shape[0] * shape[1] // step**2)
    means = BlockMeans(shape, channels, step)
    try:
        for piece, row, column in _pieces(path, page, plane.skipped):
            means.add(light(piece), row, column)
    except ValueError as error:
        if "imagecodecs" in str(error):
            used = _COLOURS[light.photometric] + (light.alpha is not None)
            is_only = len(plane.series.pages) == 1 and key.samplesperpixel == used
            raise MissingCodec(str(error), is_only) from error
        raise
    pixels = means.means()
    seen = pixels[..., : light.channels]
    if key.dtype.kind != "f":
        seen /= light.top
    if light.with_opacity:
        seen = over_background(seen, pixels[..., -1])
    return np.ascontiguousarray(seen[..., 0] if light.channels == 1 else seen)


def _top(page: Any) -> float:
    """The largest value of a sample: of its bits, which may be fewer than its type has."""
    if page.dtype.kind == "f":
        return 1.0
    if page.dtype.kind == "i":
        return float(np.iinfo(page.dtype).max)
    return float(2 ** _bits(page) - 1)


def _bits(page: Any) -> int:
    """Of a sample."""
    bits = page.bitspersample
    return bits if isinstance(bits, int) else max(bits)


def _colour_table(page: Any) -> np.ndarray:
    """(n, 3) float32 colours of a palette, in the range of the page's samples."""
    table = np.asarray(page.colormap, np.float32).T
    # 16 bits by the standard; some programs write 8
    return table * np.float32(_top(page) / (65535 if table.max() > 255 else 255))


def _is_planar(key: Any) -> bool:
    """Whether the samples of a page lie plane by plane."""
    return key.samplesperpixel > 1 and int(key.planarconfig) == 2


def is_raw(page: Any) -> bool:
    """Whether a page's pixels lie in the file row by row, as they are."""
    key = page.keyframe
    return page.is_contiguous and key.predictor == 1 and not _is_planar(key) and not key.is_tiled


def _pieces(path: Path, page: Any, skipped: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """((rows, columns, samples), first row, first column) of all there is in a page.

    Parameters
    ----------
    skipped : as of `Plane`.
    """
    key = page.keyframe
    file = page.parent.filehandle
    offsets, counts = page.dataoffsets, page.databytecounts
    if not offsets or len(offsets) != len(counts):
        raise ImageError(f"{path}: not readable as an image: its pixels are not there")
    end = max(o + c for o, c in zip(offsets, counts, strict=True))
    if end > file.size:
        raise ImageError(
            f"{path}: not readable as an image: cut off, {file.size} bytes of at least {end}"
        )
    rows, columns, samples = key.imagelength, key.imagewidth, key.samplesperpixel
    # a tile or strip is decoded as one
    part = (key.tilelength or key.rowsperstrip) * (key.tilewidth or columns) * key.imagedepth
    part = min(part, rows * columns) if not key.is_tiled else part
    if is_raw(page):
        band = max(1, _ROWS_AT_ONCE_BYTES // max(1, columns * samples * key.dtype.itemsize))
        dtype = np.dtype(key.dtype).newbyteorder(page.parent.byteorder)
        needed = rows * columns * samples * dtype.itemsize
        start = offsets[0] + skipped * needed
        if start + needed > file.size:
            raise ImageError(
                f"{path}: not readable as an image: {columns} x {rows} pixels take {needed} bytes,"
                f" the file has {file.size}"
            )
        for row in range(0, rows, band):
            n = min(band, rows - row)
            file.seek(start + row * columns * samples * dtype.itemsize)
            block = file.read_array(dtype, n * columns * samples)
            yield block.reshape(n, columns, samples), row, 0
        return
    samples_in_part = 1 if _is_planar(key) else samples
    densest = _DENSEST.get(int(key.compression))
    if densest and part * samples_in_part * _bits(key) / 8 > densest * max(counts):
        raise ImageError(
            f"{path}: not readable as an image: claims {columns} x {rows} pixels, which its"
            f" {sum(counts)} bytes of data cannot hold"
        )
    if len(offsets) != int(np.prod(key.chunked)):
        raise ImageError(
            f"{path}: not readable as an image: {columns} x {rows} pixels in"
            f" {int(np.prod(key.chunked))} parts, of which it lists {len(offsets)}"
        )
    if _is_planar(key):
        check_memory(path, rows * columns * samples * key.dtype.itemsize, _STORE_TILED)
        whole = np.moveaxis(page.asarray().reshape(samples, rows, columns), 0, -1)
        band = max(1, _ROWS_AT_ONCE_BYTES // max(1, columns * samples * key.dtype.itemsize))
        for row in range(0, rows, band):
            yield whole[row : row + band], row, 0
        return
    check_memory(path, 3 * part * samples * key.dtype.itemsize, _STORE_TILED)
    # in the order of the file, without which tifffile misreads parts that follow a missing one
    for data, index, shape in page.segments(
        maxworkers=1, sort=True, buffersize=_ROWS_AT_ONCE_BYTES
    ):
        if data is None:  # a part that was not scanned
            continue
        _, depth, row, column = index[:4]
        if depth:
            raise ImageError(f"{path}: expected one 2D plane, found {key.imagedepth} layers")
        inside = data[0, : min(shape[1], rows - row), : min(shape[2], columns - column)]
        yield inside, row, column
