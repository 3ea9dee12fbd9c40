"""A section's file as a signal: the same in every stage that goes back to the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.algorithms.background import find_background
from sbr_core.algorithms.evenness import SmoothField, light_field
from sbr_core.algorithms.staining import Channel, find_channel, luminance
from sbr_core.io.blocks import Picture
from sbr_core.io.images import read_reduced

OVERSAMPLING = 4
"""Pixels read for a pixel of the output, along each side, if the file has that many. The mask is
found on a grid twice as fine as the output, which leaves two for each of its pixels."""

_ENOUGH_PX = 1500


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

    def columns(self) -> dict[str, Any]:
        """Itself, as columns of a receipt."""
        return {
            **self.channel.columns(),
            "light": self.light.cell() if self.light else "",
            "staining": self.staining.cell() if self.staining else "",
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Source:
        """What a row of `prepare` recorded."""
        return cls(
            Channel.of(row),
            SmoothField.of_cell(row.get("light", "")),
            SmoothField.of_cell(row.get("staining", "")),
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


def read_for(row: Mapping[str, Any], output_mm: float) -> Picture:
    """A section's picture, as finely as an output of `output_mm` a pixel needs it.

    Parameters
    ----------
    row : with `image`, `pixel_size_mm` and maybe `image_channel`, of a manifest or of `prepare`.
    """
    coarsest = output_mm / OVERSAMPLING / float(row["pixel_size_mm"])
    return read_reduced(Path(row["image"]), coarsest, row.get("image_channel") or "")


def read_signal(row: Mapping[str, Any], output_mm: float) -> Picture:
    """The signal of a prepared section's file.

    Parameters
    ----------
    row : of `prepare`.
    output_mm : pixel of what is made of it, section mm; the file is read `OVERSAMPLING` times as
        finely, if it is that fine.

    Returns
    -------
    With `pixels` (rows, columns).

    Raises
    ------
    ImageError
        The file cannot be read.
    """
    picture = read_for(row, output_mm)
    return replace(picture, pixels=Source.of(row).signal(picture.pixels))
