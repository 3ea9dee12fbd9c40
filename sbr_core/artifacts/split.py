"""The sections of a picture that shows several, each with its box in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbr_core.algorithms.masks import tissue_mask
from sbr_core.algorithms.pieces import Piece, find_sections
from sbr_core.artifacts.section_signal import find_source
from sbr_core.errors import ImageError
from sbr_core.geometry import Box
from sbr_core.io.images import image_shape, read_reduced

_SIDE_PX = 1200
"""Side of the picture that pieces are looked for on: sections on a slide are hundreds wide then."""
_MARGINS = (0.08, 0.04, 0.02, 0.0)
"""Around the tissue, as a share of its extent: the widest that shows nothing of another section."""
_LINE = np.array([255, 0, 0], np.uint8)


@dataclass(frozen=True, eq=False)
class SplitPicture:
    """What a picture shows.

    Attributes
    ----------
    boxes : of its sections, from the upper left; one for all of a picture of one section.
    crossed : numbers from 1 of the sections in whose box another one reaches.
    preview : (rows, columns, 3) uint8, the picture with boxes and numbers.
    """

    boxes: tuple[Box, ...]
    crossed: tuple[int, ...]
    preview: np.ndarray


def split_picture(path: Path, channel: str = "", count: int | None = None) -> SplitPicture:
    """Find the sections of a picture.

    Parameters
    ----------
    channel : as of `read_reduced`.
    count : how many there are, if that is known.

    Raises
    ------
    ImageError
        The file cannot be read, or shows no tissue or fewer pieces of it than `count`.
    """
    shape = image_shape(path, channel)
    picture = read_reduced(path, max(shape) / _SIDE_PX, channel)
    source, noise = find_source(picture.pixels, "auto", "auto", "auto")
    even = source.lit_evenly(picture.pixels)
    tissue = tissue_mask(source.channel.tissue(even), 1.0, 2.0, noise)
    pieces = find_sections(tissue, count)
    if len(pieces) < (count or 1):
        raise ImageError(
            f"{path}: expected {count or 'tissue'} {'sections' if count else ''}, found"
            f" {len(pieces)} pieces of tissue"
        )
    if len(pieces) == 1:
        boxes, crossed = [Box.whole(shape)], []
    else:
        found = [_box_px(i, pieces) for i in range(len(pieces))]
        boxes = [_in_file(bounds, picture.step, shape) for bounds, _ in found]
        crossed = [number for number, (_, is_crossed) in enumerate(found, 1) if is_crossed]
    return SplitPicture(tuple(boxes), tuple(crossed), _preview(picture.pixels, boxes, picture.step))


def _box_px(index: int, pieces: list[Piece]) -> tuple[tuple[int, int, int, int], bool]:
    """(bounds of a section with a margin, as `Piece.bounds`; whether another one reaches in)."""
    top, left, bottom, right = pieces[index].bounds
    shape = pieces[index].mask.shape
    others = np.zeros(shape, bool)
    for other in pieces[:index] + pieces[index + 1 :]:
        others |= other.mask
    for share in _MARGINS:
        margin = round(share * max(bottom - top, right - left))
        bounds = (
            max(0, top - margin),
            max(0, left - margin),
            min(shape[0], bottom + margin),
            min(shape[1], right + margin),
        )
        if not others[bounds[0] : bounds[2], bounds[1] : bounds[3]].any():
            return bounds, False
    return bounds, True


def _in_file(
    bounds: tuple[int, int, int, int], step: tuple[float, float], shape: tuple[int, int]
) -> Box:
    """A box in pixels of the file, of bounds in pixels `step` file pixels wide."""
    top, left = math.floor(bounds[0] * step[1]), math.floor(bounds[1] * step[0])
    bottom = min(shape[0], math.ceil(bounds[2] * step[1]))
    right = min(shape[1], math.ceil(bounds[3] * step[0]))
    return Box(left, top, right - left, bottom - top)


def _preview(pixels: np.ndarray, boxes: list[Box], step: tuple[float, float]) -> np.ndarray:
    """The picture in 8 bits with the boxes and their numbers."""
    from PIL import Image, ImageDraw, ImageFont

    low, high = np.quantile(pixels, (0.002, 0.998))
    grey = np.clip((pixels - low) / max(high - low, 1e-9), 0, 1) * 255
    grey = np.round(grey).astype(np.uint8)
    image = Image.fromarray(grey if grey.ndim == 3 else np.stack([grey] * 3, -1))
    draw, side = ImageDraw.Draw(image), max(image.size)
    font = ImageFont.load_default(size=max(10, side // 30))
    for number, box in enumerate(boxes, 1):
        left, top = box.left / step[0], box.top / step[1]
        right, bottom = left + box.columns / step[0] - 1, top + box.rows / step[1] - 1
        colour = tuple(_LINE.tolist())
        draw.rectangle((left, top, right, bottom), outline=colour, width=max(1, side // 400))
        draw.text((left + side / 150, top + side / 300), str(number), fill=colour, font=font)
    return np.asarray(image)
