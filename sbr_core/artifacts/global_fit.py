"""What `align` leaves for the stages after it, the similarity apart: grid and initial affines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbr_core.artifacts.rows import matrix_columns, read_matrix
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import read_json, write_json
from sbr_core.io.tables import read_tsv, write_tsv


@dataclass(frozen=True, eq=False)
class InitialAffine:
    """The affine that `align` found for a section.

    Attributes
    ----------
    prepared : `Prepared.pixels_digest` of the section it was found for.
    working_mm_from_plane_mm : (3, 3).
    """

    section: str
    position_mm: float
    prepared: str
    working_mm_from_plane_mm: np.ndarray


def read_initial(path: Path) -> list[InitialAffine]:
    """The initial affines, sorted by position."""
    rows = [
        InitialAffine(
            cells["section"],
            float(cells["position_mm"]),
            cells.get("prepared", ""),
            read_matrix(cells, "a"),
        )
        for cells in read_tsv(path)[1]
    ]
    return sorted(rows, key=lambda row: row.position_mm)


def write_initial(path: Path, rows: Sequence[InitialAffine]) -> None:
    """Write the table that `read_initial` reads."""
    write_tsv(
        path,
        [
            {
                "section": row.section,
                "position_mm": row.position_mm,
                "prepared": row.prepared,
                **matrix_columns(row.working_mm_from_plane_mm, "a"),
            }
            for row in rows
        ],
    )


def read_plane_grid(path: Path) -> tuple[PlaneGrid, float]:
    """The grid of every plane, and what makes a millimetre one of a human brain (`brain_size`)."""
    values = read_json(path)
    shape = int(values["rows"]), int(values["columns"])
    return PlaneGrid(shape, float(values["spacing_mm"])), float(values.get("enlargement", 1.0))


def write_plane_grid(path: Path, grid: PlaneGrid, enlargement: float) -> None:
    """Write the file that `read_plane_grid` reads."""
    rows, columns = grid.shape
    write_json(
        path,
        {
            "rows": rows,
            "columns": columns,
            "spacing_mm": grid.spacing_mm,
            "enlargement": enlargement,
        },
    )
