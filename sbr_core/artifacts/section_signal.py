"""A section's file as a signal: the same in every stage that goes back to the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sbr_core.algorithms.background import find_background
from sbr_core.algorithms.evenness import SmoothField, light_field
from sbr_core.algorithms.sections import grid_px, prefilter, resample_section
from sbr_core.algorithms.staining import Channel, find_channel, luminance
from sbr_core.artifacts.rows import Prepared
from sbr_core.errors import ImageError, ReceiptError
from sbr_core.geometry import Box, PlaneGrid, apply, scaling
from sbr_core.io.blocks import Picture
from sbr_core.io.images import read_reduced
from sbr_core.io.transforms import SectionTransform

if TYPE_CHECKING:
    from sbr_core.io.manifests import SectionRow

OVERSAMPLING = 4
"""Pixels read for a pixel of the output, along each side, if the file has that many. The mask is
found on a grid twice as fine as the output, which leaves two for each of its pixels."""

_ENOUGH_PX = 1500
"""Side of the picture that background, light and channel are found on: more pixels take longer
without telling more."""


class SectionFile(Protocol):
    """What is needed to read a section's file: a row of a manifest, or of `prepare`."""

    image: str
    image_channel: str
    pixel_size_mm: float


@dataclass(frozen=True)
class Source:
    """What `prepare` found out about a section's picture.

    Attributes
    ----------
    channel : which signal it is made into.
    light : how the light falls off, by which the picture is divided first; or None.
    staining : how unevenly the tissue is stained, by which the signal is divided; or None.
    """

    channel: Channel
    light: SmoothField | None = None
    staining: SmoothField | None = None

    def signal(self, picture: np.ndarray) -> np.ndarray:
        """(rows, columns) float32: tissue above a background of 0."""
        signal = self.channel.signal(self.lit_evenly(picture))
        return signal if self.staining is None else signal / self.staining.over(signal.shape)

    def lit_evenly(self, picture: np.ndarray) -> np.ndarray:
        """The picture without the fall-off of the light."""
        if self.light is None:
            return picture
        field = self.light.over(picture.shape[:2])
        return picture / (field if picture.ndim == 2 else field[..., None])

    def fields(self) -> dict[str, Any]:
        """Itself, as fields of a `Prepared` row."""
        return {
            "channel": self.channel.stain,
            "polarity": self.channel.polarity,
            "background": self.channel.background,
            "white": self.channel.white,
            "padding": self.channel.padding,
            "light": self.light.cell() if self.light else "",
            "staining": self.staining.cell() if self.staining else "",
        }

    @classmethod
    def of(cls, row: Prepared) -> Source:
        """What `prepare` recorded; ReceiptError where that is damaged."""
        try:
            fields = [SmoothField.of_cell(cell) for cell in (row.light, row.staining)]
        except (ValueError, TypeError, RecursionError) as error:
            what = f"light or staining: {error}"
            raise ReceiptError(f"{row.table}: section {row.section!r}: {what}") from None
        return cls(
            Channel(row.channel, row.polarity, row.background, row.white, row.padding), *fields
        )


def find_source(
    picture: np.ndarray, stain: str, polarity: str, even_light: str
) -> tuple[Source, float]:
    """Channel and light of a picture, and the noise of its background.

    Parameters
    ----------
    stain, polarity : as of `find_channel`.
    even_light : ``auto``, ``always`` or ``never``.
    """
    # every so many pixels tell as much, the noise of a single one included
    step = max(1, max(picture.shape[:2]) // _ENOUGH_PX)
    picture = picture[::step, ::step]
    light = None
    if even_light != "never":
        grey = luminance(picture)
        around = find_background(grey, polarity)
        if around.polarity == "bright_background" and around.padding is None:
            light = light_field(grey, always=even_light == "always")
    even = Source(Channel("grey", "bright_background", 0.0), light).lit_evenly(picture)
    channel, noise = find_channel(even, stain, polarity)
    return Source(channel, light), noise


def box_of(row: SectionRow, file_shape: tuple[int, int]) -> Box | None:
    """The part of the image that is the section; ImageError where it is not within the image."""
    box = Box.of(row.box_px)
    if box is not None and not box.is_within(file_shape):
        raise ImageError(
            f"{row.image}: section {row.section!r}: box_px {box} (left, top, columns, rows) is not"
            f" within the image of {file_shape[1]} x {file_shape[0]} pixels"
        )
    return box


def read_picture(file: SectionFile, output_mm: float) -> Picture:
    """A section's picture, as finely as an output of `output_mm` a pixel needs it."""
    coarsest = output_mm / OVERSAMPLING / file.pixel_size_mm
    return read_reduced(Path(file.image), coarsest, file.image_channel)


def read_signal(row: Prepared, output_mm: float) -> Picture:
    """The signal of a prepared section's file.

    Parameters
    ----------
    output_mm : pixel of what is made of it, section mm; the file is read `OVERSAMPLING` times as
        finely, if it is that fine.

    Returns
    -------
    With `pixels` (rows, columns), 0 outside the section's box.

    Raises
    ------
    ImageError
        The file cannot be read.
    """
    picture = read_picture(row, output_mm)
    return replace(picture, pixels=Source.of(row).signal(picture.pixels)).within(row.box)


def through_affine(
    signal: Picture, file_px_from_output_px: np.ndarray, shape: tuple[int, int], scale: float
) -> np.ndarray:
    """A section's signal on another grid, interpolated once.

    Parameters
    ----------
    file_px_from_output_px : (3, 3).
    shape : (rows, columns) of the output.
    scale : file pixels per pixel of the output.

    Returns
    -------
    `shape` float32, 0 outside the file.
    """
    px = apply(signal.px_from_file_px @ file_px_from_output_px, grid_px(shape))
    return resample_section(prefilter(signal.pixels, scale / signal.mean_step), px)


def through_transform(
    signal: Picture, pixel_size_mm: float, section_mm_from_plane: SectionTransform, grid: PlaneGrid
) -> np.ndarray:
    """A section's signal on a plane's grid, interpolated once through the whole chain.

    Parameters
    ----------
    pixel_size_mm : of the section's file.

    Returns
    -------
    (rows, columns) float32, 0 outside the file.
    """
    image = prefilter(signal.pixels, grid.spacing_mm / pixel_size_mm / signal.mean_step)
    plane_mm = apply(grid.plane_mm_from_px, grid_px(grid.shape))
    file_px = section_mm_from_plane.map(plane_mm) / pixel_size_mm
    return resample_section(image, apply(signal.px_from_file_px, file_px))


def linear_image(
    row: Prepared, section_mm_from_plane_mm: np.ndarray, grid: PlaneGrid
) -> np.ndarray:
    """A section's file on the plane's grid through an affine (3, 3), which may enlarge; returns as
    `registered`."""
    file_px_from_plane_px = (
        scaling(1 / row.pixel_size_mm) @ section_mm_from_plane_mm @ grid.plane_mm_from_px
    )
    scale = float(np.sqrt(abs(np.linalg.det(file_px_from_plane_px[:2, :2]))))
    signal = read_signal(row, scale * row.pixel_size_mm)
    return through_affine(signal, file_px_from_plane_px, grid.shape, scale)


def registered(
    row: Prepared, section_mm_from_plane: SectionTransform, grid: PlaneGrid
) -> np.ndarray:
    """A section's file on the plane's grid.

    Returns
    -------
    (rows, columns) float32, background 0, tissue above, in the file's intensity; 0 outside the
    file.
    """
    signal = read_signal(row, grid.spacing_mm)
    return through_transform(signal, row.pixel_size_mm, section_mm_from_plane, grid)
