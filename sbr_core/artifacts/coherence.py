"""What `cohere` hands on, and the deformations that `infer` makes of it for `coherent`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sbr_core.artifacts.names import (
    CHANGE,
    LINEAR_MASK,
    MRI_MASK,
    SYNTHESISED,
    VELOCITY,
)
from sbr_core.artifacts.rows import Inferred, Row, read_rows
from sbr_core.errors import ImageError
from sbr_core.geometry import PlaneGrid
from sbr_core.io.volumes import read_plane

if TYPE_CHECKING:
    from sbr_core.artifacts.joined import Joined
    from sbr_core.artifacts.predictors import Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared(Row):
    """A section beside the next one of its stain group.

    Attributes
    ----------
    next_section : its id; empty for the last, and where one of both does not lie on its plane.
    apart_mm : how far the two disagree, mean over the tissue; None where there is no next.
    """

    position_mm: float
    next_section: str = ""
    apart_mm: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Cohered(Row):
    """What is added to a section's velocity, so that it agrees with its neighbours.

    Attributes
    ----------
    grid : on which it is given, coarser than the plane's.
    change_mean_mm : its length, mean over the grid.
    """

    position_mm: float
    grid: PlaneGrid
    change_mean_mm: float


@dataclass(frozen=True, eq=False)
class Followed:
    """What `coherent` starts from, section by section.

    Attributes
    ----------
    begun : rows of the method it follows; of sections that failed there, plain `Row`.
    changes : rows of `cohere`.
    """

    begun: Mapping[str, Row]
    changes: Mapping[str, Cohered]

    @classmethod
    def read(cls, begun: Path, changes: Path) -> Followed:
        """From the two tables."""
        rows = read_rows(begun, Inferred, only_ok=False, verify=False)
        return cls(
            {row.section: row for row in rows},
            {row.section: row for row in read_rows(changes, Cohered, verify=False)},
        )

    def digests(self, section: str) -> list[str]:
        """What the result of a section depends on, beside what every method's does."""
        begun, change = self.begun.get(section), self.changes.get(section)
        of_change = change.files[f"sections/{section}{CHANGE}"] if change is not None else ""
        return [begun.fingerprint if begun is not None else "", of_change]

    def rows(self, section: str) -> tuple[Inferred, Cohered]:
        """Both rows of a section; ImageError where the method it follows could not do it."""
        begun, change = self.begun.get(section), self.changes.get(section)
        if not isinstance(begun, Inferred):
            reason = begun.message if begun is not None else "it is not in the table"
            raise ImageError(f"section {section!r}: the method that is followed has none: {reason}")
        if change is None:
            raise ImageError(f"section {section!r}: was not compared with its neighbours")
        return begun, change


class CoherentPredictor:
    """The deformations of another method, corrected so that neighbours agree."""

    def __init__(self, followed: Followed) -> None:
        self.followed = followed

    def predict(self, pair: Joined) -> Prediction:
        """As of every `Predictor`; what the method synthesised is handed on."""
        from sbr_core.algorithms import deformation as flow
        from sbr_core.artifacts.predictors import Prediction

        begun, change = self.followed.rows(pair.section)
        section_mask = pair.read(pair.affine, LINEAR_MASK)
        if not section_mask.any():
            raise ImageError(f"section {pair.section!r}: no tissue within its MRI plane")
        grid = pair.grid
        change_px = read_plane(change.intact(CHANGE))[0] / change.grid.spacing_mm
        velocity_px = flow.resample_velocity(change_px, change.grid, grid)
        if begun.has(VELOCITY):
            begun_mm = read_plane(begun.intact(VELOCITY))[0].astype(float)
            canvas = flow.Canvas(grid, (begun_mm.shape[0] - grid.shape[0]) // 2)
            velocity_px = velocity_px + canvas.crop(begun_mm) / grid.spacing_mm
        synthesised = None
        if begun.has(SYNTHESISED):
            synthesised = read_plane(begun.intact(SYNTHESISED))[0]
        return Prediction(
            partial(flow.integrate, velocity_px, grid),
            pair.read(pair.plane, MRI_MASK),
            section_mask,
            synthesised,
        )
