"""Pictures of one section on top of each other: what the viewer shows, and the page prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Inferred, Plane, Prepared
from sbr_core.io.transforms import PlaneField, read_section_transform
from sbr_core.io.volumes import read_plane
from sbr_core.report import pictures
from sbr_core.report.shelf import Shelf, grey_jpeg, overlay_png, rgba_png

if TYPE_CHECKING:
    from sbr_core.config import ReportOptions

_GRID_LINES = 18
"""Lines of the deformed grid along a picture's longer side: enough to see a fold, few enough for
the section to show between them."""
BRAIN = 0.1
"""An MRI that is shown in [0, 1] has brain above this, roughly; grey levels of the histology are
scaled by what lies there."""
_LARGER = 2
"""The viewer zooms: its pictures may be this many times larger than others, if the files are."""


@dataclass(frozen=True)
class ErrorMap:
    """A method's expected error on a section's plane.

    Attributes
    ----------
    path : of the NIfTI, mm, 0 outside the tissue.
    top_mm : error that has the darkest colour.
    """

    path: Path
    top_mm: float


@dataclass(frozen=True)
class Painter:
    """Draws the layers of sections and puts them on a shelf."""

    options: ReportOptions
    shelf: Shelf

    def section(
        self,
        plane: Plane,
        prepared: Prepared | None,
        of_methods: Mapping[str, Inferred],
        errors: Mapping[str, ErrorMap],
    ) -> dict[str, Any]:
        """Names of pictures on the shelf, and the grids that they show.

        Parameters
        ----------
        of_methods : method -> the section's row.
        errors : method -> its map, of those that have one.
        """
        mri, spacing_mm = read_plane(plane.intact(names.MRI))
        shape = self._shape(mri.shape)
        fixed = pictures.resized(pictures.window(mri), shape)
        section = plane.section
        layers: dict[str, Any] = {
            "mri": self._grey(section, "mri", fixed),
            "edges": self.shelf.add(
                f"{section}_edges.png", overlay_png(pictures.edges(fixed), pictures.MRI_COLOUR)
            ),
            "plane": _grid(mri.shape, spacing_mm, shape),
            "methods": {},
        }
        if prepared is not None and prepared.has(names.IMAGE):
            image, pixel_mm = read_plane(prepared.intact(names.IMAGE))
            small = self._shape(image.shape)
            grey = pictures.window(pictures.resized(image, small))
            layers["prepared"] = self._grey(section, "prepared", grey)
            layers["prepared_grid"] = _grid(image.shape, pixel_mm, small)
        for method, row in of_methods.items():
            layers["methods"][method] = self._of_method(method, row, fixed, errors.get(method))
        return layers

    def _of_method(
        self, method: str, row: Inferred, fixed: np.ndarray, error: ErrorMap | None
    ) -> dict[str, str]:
        section, shape = row.section, fixed.shape
        image, _ = read_plane(row.intact(names.REGISTERED))
        moving = pictures.window(pictures.resized(image, shape), fixed > BRAIN)
        layers = {"registered": self._grey(section, f"{method}_registered", moving)}
        if row.has(names.SYNTHESISED):
            synthesised, _ = read_plane(row.intact(names.SYNTHESISED))
            grey = pictures.resized(np.clip(synthesised, 0, 1), shape)
            layers["synthesised"] = self._grey(section, f"{method}_synthesised", grey)
        disp_px = _displacement_px(row, shape) if row.disp_max_mm > 0 else None
        if disp_px is not None:
            lines = pictures.grid_lines(disp_px, max(shape) / _GRID_LINES)
            layers["grid"] = self.shelf.add(
                f"{section}_{method}_grid.png", overlay_png(lines, pictures.GRID_COLOUR)
            )
        if error is not None:
            values_mm = _on_picture(*read_plane(error.path), row, shape)
            layers["error"] = self.shelf.add(
                f"{section}_{method}_error.png", rgba_png(pictures.heat(values_mm, error.top_mm))
            )
        return layers

    def _shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Of a layer: as its file, but not larger than the options allow."""
        factor = min(1.0, _LARGER * self.options.max_width_px / max(shape))
        return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))

    def _grey(self, section: str, what: str, grey: np.ndarray) -> str:
        data = grey_jpeg(grey, self.options.jpeg_quality)
        return self.shelf.add(f"{section}_{what}.jpg", data)


def _grid(
    shape: tuple[int, int], pixel_mm: float, picture: tuple[int, int]
) -> dict[str, float | int]:
    """What the page needs to tell millimetres from a place on a picture."""
    return {
        "rows": int(shape[0]),
        "columns": int(shape[1]),
        "pixel_mm": float(pixel_mm),
        "height": picture[0],
        "width": picture[1],
    }


def _plane_mm(row: Inferred, shape: tuple[int, int]) -> np.ndarray:
    """(rows, columns, 2) plane mm of a picture's pixels; it keeps the plane's outer edges."""
    scale = row.grid.shape[0] / shape[0], row.grid.shape[1] / shape[1]
    rows, columns = np.indices(shape)
    plane_px = np.stack([(columns + 0.5) * scale[1] - 0.5, (rows + 0.5) * scale[0] - 0.5], axis=-1)
    return plane_px * row.grid.spacing_mm


def _displacement_px(row: Inferred, shape: tuple[int, int]) -> np.ndarray | None:
    """A section's deformation on a picture of its plane, (rows, columns, 2) px, if it has one."""
    field = read_section_transform(row.intact(names.SECTION_TO_STACK)).steps[0]
    if not isinstance(field, PlaneField):
        return None
    plane_mm = _plane_mm(row, shape)
    moved_px = (field.map(plane_mm) - plane_mm) / row.grid.spacing_mm
    return moved_px * [shape[1] / row.grid.shape[1], shape[0] / row.grid.shape[0]]


def _on_picture(
    values: np.ndarray, spacing_mm: float, row: Inferred, shape: tuple[int, int]
) -> np.ndarray:
    """A coarser image of the plane, sampled at a picture's pixels."""
    from scipy.ndimage import map_coordinates

    px = _plane_mm(row, shape) / spacing_mm
    return map_coordinates(np.asarray(values, float), [px[..., 1], px[..., 0]], order=1)
