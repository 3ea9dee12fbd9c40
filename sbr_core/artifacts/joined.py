"""A section's rows of `prepare`, `resample` and `align-sections`, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.artifacts.rows import Affine, Plane, Prepared, Row, read_rows
from sbr_core.errors import ReceiptError
from sbr_core.geometry import PlaneGrid
from sbr_core.io.volumes import read_plane


@dataclass(frozen=True, eq=False)
class Joined:
    """One section, its MRI plane, and the affine between them."""

    prepared: Prepared
    plane: Plane
    affine: Affine

    @property
    def section(self) -> str:
        return self.prepared.section

    @property
    def grid(self) -> PlaneGrid:
        """Of the plane."""
        return self.plane.grid

    @property
    def section_mm_from_plane_mm(self) -> np.ndarray:
        """(3, 3)."""
        return self.prepared.section_mm_from_working_mm @ self.affine.working_mm_from_plane_mm

    def read(self, row: Plane | Affine, ending: str) -> np.ndarray:
        """(rows, columns): an image of the section's, which must be on the plane's grid.

        Raises
        ------
        ReceiptError
            It is on another grid.
        """
        path = row.file(ending)
        array, spacing_mm = read_plane(path)
        same_spacing = math.isclose(spacing_mm, self.grid.spacing_mm, rel_tol=1e-5)
        if array.shape != self.grid.shape or not same_spacing:  # NIfTI has float32
            raise ReceiptError(
                f"{path}: is {array.shape} at {spacing_mm:g} mm, expected the plane's grid,"
                f" {self.grid.shape} at {self.grid.spacing_mm:g} mm"
            )
        return array


def join(prepared: Path, planes: Path, affines: Path, **reading: Any) -> dict[str, Joined | str]:
    """The sections of three tables: the rows of each, or why a stage before could not do it.

    Parameters
    ----------
    prepared, planes, affines : tables of `prepare`, `resample` and `align-sections`.
    reading : `verify` of `read_rows`.
    """
    tables = prepared, planes, affines
    rows: list[Mapping[str, Row]] = [
        {row.section: row for row in read_rows(table, kind, only_ok=False, **reading)}
        for table, kind in zip(tables, (Prepared, Plane, Affine), strict=True)
    ]
    sections: dict[str, Joined | str] = {}
    for section in dict.fromkeys(section for table in rows for section in table):
        of_section = [table.get(section) for table in rows]
        reasons = [row.message for row in of_section if row is not None and not row.ok]
        absent = [table for table, row in zip(tables, of_section, strict=True) if row is None]
        if reasons:
            sections[section] = reasons[0]
        elif absent:
            sections[section] = f"section {section!r} is not in {absent[0]}"
        else:
            sections[section] = Joined(*of_section)
    return sections
