"""Section files, all their channels and colours, looked up at points of their planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sbr_core.artifacts.rows import Prepared
from sbr_core.errors import ImageError
from sbr_core.geometry import PlaneGrid
from sbr_core.io.transforms import SectionTransform
from sbr_core.io.windows import Windows
from sbr_core.mapping.grids import PixelGrid, nodes_of
from sbr_core.mapping.lookup import Lookup, edges_of_box


@dataclass(frozen=True)
class SectionFile:
    """A section's file, open.

    Attributes
    ----------
    section_from_plane : plane mm to section mm.
    lookup : of the file.
    """

    prepared: Prepared
    section_from_plane: SectionTransform
    lookup: Lookup

    @classmethod
    def of(
        cls, prepared: Prepared, section_from_plane: SectionTransform, windows: Windows
    ) -> SectionFile:
        """ImageError where the file is no longer what `prepare` saw."""
        if windows.shape != prepared.file_shape:
            raise ImageError(
                f"{prepared.image}: shape {windows.shape}, but prepare saw {prepared.file_shape}"
            )
        fill = background_of(windows, prepared.polarity)
        lookup = Lookup(windows, fill, False, *edges_of_box(prepared.box))
        return cls(prepared, section_from_plane, lookup)

    def places(self, plane_mm: np.ndarray) -> np.ndarray:
        """(..., 2) px of the file, of points (..., 2) of the plane."""
        return self.section_from_plane.map(plane_mm) / self.prepared.pixel_size_mm

    def pixels(self, plane: PlaneGrid, pixel_mm: float) -> PixelGrid:
        """The pixels of its plane, of so many mm: the first one's centre is that of the grid."""

        def place(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return self.places(np.stack(np.meshgrid(columns, rows), axis=-1) * pixel_mm)

        nodes = nodes_of(self.section_from_plane, pixel_mm)
        return PixelGrid(plane.at_spacing(pixel_mm).shape, place, *nodes)


def background_of(windows: Windows, polarity: str) -> np.ndarray:
    """(channels,) what is where there is no image: white in photographs on bright glass, else 0.

    Parameters
    ----------
    polarity : of a `Prepared`.
    """
    fill = np.zeros(windows.channels, windows.dtype)
    is_photograph = windows.is_colour or windows.channels == 1
    # of inks and where 0 is white, white is 0 already
    is_light = windows.photometric in ("rgb", "minisblack") and windows.dtype.kind in "ui"
    if is_photograph and is_light and polarity == "bright_background":
        fill[:3] = np.iinfo(windows.dtype).max
    return fill
