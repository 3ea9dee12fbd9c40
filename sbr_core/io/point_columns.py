"""Which columns of a table are the coordinates of points, and what they are counted in.

Own tables name the unit: ``x_px, y_px``, ``x_um, y_um`` or ``x_mm, y_mm`` of an image, counted from
the centre of its first pixel, and ``x_mm, y_mm, z_mm`` in space. What other programs write is in
`landmarks`; they count pixels from the corner of the image, but for napari.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sbr_core.errors import ManifestError

_MM_OF_UNIT = {"um": 1e-3, "mm": 1.0}


@dataclass(frozen=True)
class PointColumns:
    """Columns of coordinates.

    Attributes
    ----------
    names : of x, y[, z], as the file spells them.
    unit : ``px``, ``um`` or ``mm``.
    from_corner : counted from the upper left corner of the image, not from the centre of its first
        pixel.
    signs : of each axis, to have section or plane axes, or RAS.
    """

    names: tuple[str, ...]
    unit: str
    from_corner: bool = False
    signs: tuple[int, ...] = (1, 1, 1)

    def px_per_unit(self, pixel_size_mm: float) -> float:
        """Pixels of an image in one unit."""
        return 1.0 if self.unit == "px" else _MM_OF_UNIT[self.unit] / pixel_size_mm

    @property
    def mm_per_unit(self) -> float:
        """Of a unit of length."""
        return _MM_OF_UNIT[self.unit]


NAPARI = PointColumns(("axis-1", "axis-0"), "px")
QUPATH_POINTS = PointColumns(("x", "y"), "px", from_corner=True)
_MEASURED = (
    PointColumns(("Centroid X px", "Centroid Y px"), "px", from_corner=True),
    PointColumns(("Centroid X µm", "Centroid Y µm"), "um", from_corner=True),
)
"""Of QuPath's tables of measurements."""
OF_PROGRAMS = (NAPARI, QUPATH_POINTS, *_MEASURED)
"""What napari and QuPath write of points on an image; the first that a table has."""
_OWN = tuple(PointColumns((f"x_{unit}", f"y_{unit}"), unit) for unit in ("px", "um", "mm"))
_IN_SPACE = (
    *(PointColumns(tuple(f"{axis}_{unit}" for axis in "xyz"), unit) for unit in ("mm", "um")),
    PointColumns(("r", "a", "s"), "mm"),
    PointColumns(("l", "p", "s"), "mm", signs=(-1, -1, 1)),
)


def plain(column: str) -> str:
    """The name of a column with one sign for each letter: there are two for the micro of µm."""
    return unicodedata.normalize("NFKC", column)


def of_program(header: Sequence[str]) -> PointColumns | None:
    """The columns of a table on an image that another program wrote; None of any other."""
    return next(iter(_there(OF_PROGRAMS, header)), None)


def on_image(path: Path, header: Sequence[str], *, of_qupath: bool) -> tuple[PointColumns, ...]:
    """The columns of points on an image: those in px and in mm where a table has both.

    Own names go before those of programs, which stay in a table that was mapped before.

    Parameters
    ----------
    of_qupath : whether columns ``x, y`` are pixels, as where QuPath wrote the table.

    Raises
    ------
    ManifestError
        None, coordinates without a unit, in two units of which it is not plain which counts, or
        of three axes.
    """
    own = _there(_OWN, header)
    if any("axis-2" in column for column in header):
        raise ManifestError(f"{path}: expected points of one 2D image, found three axes")
    spelt = {plain(column) for column in header}
    for unit in _MM_OF_UNIT:
        if {f"{axis}_{unit}" for axis in "xyz"} <= spelt:
            raise ManifestError(
                f"{path}: x_{unit}, y_{unit}, z_{unit} are points in space, expected those of one"
                f" image: --from stack or --from mri, or rename z_{unit}"
            )
    units = [columns.unit for columns in own]
    if "um" in units and len(units) > 1:
        names = ", ".join(name for columns in own for name in columns.names)
        raise ManifestError(
            f"{path}: has coordinates in {' and in '.join(units)} ({names}): keep those of one"
        )
    known = [c for c in OF_PROGRAMS if c is not QUPATH_POINTS or of_qupath]
    found = own or _there(known, header)[:1]
    if not found:
        raise ManifestError(f"{path}: {_why_none(header, 'x_px, y_px, x_um, y_um or x_mm, y_mm')}")
    return tuple(found)


def in_space(path: Path, header: Sequence[str]) -> PointColumns:
    """The columns of points in the stack or the MRI; ManifestError where there are none."""
    found = _there(_IN_SPACE, header)
    if not found:
        raise ManifestError(f"{path}: {_why_none(header, 'x_mm, y_mm, z_mm')}")
    return found[0]


def _there(known: Sequence[PointColumns], header: Sequence[str]) -> list[PointColumns]:
    """Those whose columns a table has, named as it spells them."""
    spelt = {plain(column): column for column in header}
    return [
        PointColumns(
            tuple(spelt[plain(name)] for name in columns.names),
            columns.unit,
            columns.from_corner,
            columns.signs,
        )
        for columns in known
        if all(plain(name) in spelt for name in columns.names)
    ]


def _why_none(header: Sequence[str], expected: str) -> str:
    """What a table without coordinates has instead."""
    if {"x", "y"} <= {column.casefold() for column in header}:
        return f"columns x, y have no unit: name them {expected}"
    found = ", ".join(list(header)[:12]) or "nothing"
    return f"expected columns {expected}, found {found}"
