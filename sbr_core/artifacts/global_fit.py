"""What `align` leaves for the stages after it, the similarity apart: grid and initial affines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbr_core.artifacts.cells import finite, matrix_columns, read_matrix
from sbr_core.config.base import Count, Options, Positive
from sbr_core.errors import ReceiptError
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import read_json
from sbr_core.io.sums import check_sum, write_summed_json
from sbr_core.io.tables import read_tsv, write_tsv


@dataclass(frozen=True, eq=False)
class InitialAffine:
    """The affine that `align` found for a section.

    Attributes
    ----------
    prepared : `Prepared.pixels_digest` of the section it was found for.
    working_mm_from_plane_mm : (3, 3).
    cost : share of the misfit that remains; NaN where nothing could be compared, and in tables of
        before it was recorded.
    stain_group : of the section.
    """

    section: str
    position_mm: float
    prepared: str
    working_mm_from_plane_mm: np.ndarray
    cost: float = math.nan
    stain_group: str = ""


def read_initial(path: Path) -> list[InitialAffine]:
    """The initial affines, sorted by position; ReceiptError naming a damaged line."""
    check_sum(path)
    rows = []
    for number, cells in enumerate(read_tsv(path)[1], 1):
        try:
            rows.append(
                InitialAffine(
                    cells["section"],
                    finite(cells["position_mm"]),
                    cells.get("prepared", ""),
                    read_matrix(cells, "a"),
                    finite(cells["cost"]) if cells.get("cost") else math.nan,
                    cells.get("stain_group", ""),
                )
            )
        except (KeyError, ValueError) as error:
            raise ReceiptError(f"{path}: row {number}: damaged: {error}") from None
    return sorted(rows, key=lambda row: row.position_mm)


def write_initial(path: Path, rows: Sequence[InitialAffine]) -> None:
    """Write the table that `read_initial` reads."""
    has_groups = any(row.stain_group for row in rows)
    write_tsv(
        path,
        [
            {
                "section": row.section,
                "position_mm": row.position_mm,
                "prepared": row.prepared,
                "cost": row.cost if math.isfinite(row.cost) else "",
                **({"stain_group": row.stain_group} if has_groups else {}),
                **matrix_columns(row.working_mm_from_plane_mm, "a"),
            }
            for row in rows
        ],
        facts={"sections": [row.section for row in rows]},
    )


class _PlaneGrid(Options):
    """The file, as it must be."""

    rows: Count
    columns: Count
    spacing_mm: Positive
    enlargement: Positive = 1.0


def read_plane_grid(path: Path) -> tuple[PlaneGrid, float]:
    """The grid of every plane, and what makes a millimetre one of a human brain (`brain_size`)."""
    check_sum(path)
    values = read_json(path, _PlaneGrid)
    return PlaneGrid((values.rows, values.columns), values.spacing_mm), values.enlargement


def write_plane_grid(path: Path, grid: PlaneGrid, enlargement: float) -> None:
    """Write the file that `read_plane_grid` reads."""
    rows, columns = grid.shape
    write_summed_json(
        path,
        {
            "rows": rows,
            "columns": columns,
            "spacing_mm": grid.spacing_mm,
            "enlargement": enlargement,
        },
    )
