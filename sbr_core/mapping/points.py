"""Tables of points from one space of a brain to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.errors import ConfigError, ManifestError
from sbr_core.io.point_columns import PointColumns, in_space, on_image
from sbr_core.io.point_tables import PointTable, numbers
from sbr_core.mapping.brain import Brain, Section
from sbr_core.mapping.spaces import Space

if TYPE_CHECKING:
    import pandas as pd

SECTION = "section"
"""Column of a section's id."""
_AGREE_PX = 1e-3
"""How far apart the same point may be in two units, in px of the file: they were rounded."""


@dataclass(frozen=True)
class Route:
    """From where to where.

    Attributes
    ----------
    within_mm : how far from a section points of space may be, stack mm; None for as far as the
        section reaches, see `Section.reach_mm`.
    scale : px of the file per px of the image that coordinates in px are of, along each side.
    """

    brain: Brain
    source: Space
    target: Space
    within_mm: float | None = None
    scale: float = 1.0

    def at(self, section: str) -> Route:
        """From the section, where the source leaves open which."""
        return Route(self.brain, self.source.at(section), self.target, self.within_mm, self.scale)

    def pixel_size_mm(self, space: Space) -> float:
        """Of the section's file or of the plane's working grid."""
        section = self.brain.section(space.section)
        return section.pixel_size_mm if space.kind == "section" else section.grid.spacing_mm

    def centre_px(self, px: np.ndarray, *, from_corner: bool) -> np.ndarray:
        """Coordinates in px as they were given, as px of the file, from the centre of its first.

        Parameters
        ----------
        from_corner : counted from the upper left corner of the image.
        """
        return (px + (0.0 if from_corner else 0.5)) * self.scale - 0.5


def map_points(route: Route, table: PointTable) -> Iterator[pd.DataFrame]:
    """The parts of a table with the coordinates of its points in the target.

    They have ``x_mm, y_mm, z_mm`` in space, and ``x_px, y_px, x_mm, y_mm`` and
    ``distance_to_plane_mm`` on a section or a plane, where those that are too far from it are
    empty; ``in_tissue``; where a section is involved ``expected_error_mm``, empty where none is
    estimated; and ``section``, where the target leaves it open (the nearest one; empty
    where that is too far), or is in space. Coordinates they came with, and columns with these
    names, become ``from_…``, other columns stay.

    Raises
    ------
    ManifestError
        Naming the file and the row: no coordinates, or those of another section than there are,
        or than the source is.
    """
    columns = _columns(route, table)
    is_empty = True
    for part in table.parts:
        if len(part):
            is_empty = False
            yield _mapped(route, table, columns, part)
    if is_empty:
        raise ManifestError(f"{table.path}: has no points")


def points_on_sections(
    route: Route, table: PointTable
) -> Iterator[tuple[Section | None, np.ndarray, pd.DataFrame, np.ndarray]]:
    """The points of a table on their sections; points in space on the nearest one, as in a target.

    Yields
    ------
    section : None with points that are too far from any.
    points_px : (n, 2) px of its file.
    part : a part of the table.
    rows : (n,) numbers of its rows that they stand in.

    Raises
    ------
    ManifestError, ConfigError
        As `map_points`, but that there may be no points.
    """
    columns, brain = _columns(route, table), route.brain
    for part in table.parts:
        for space, rows in _sources(route, table, part) if len(part) else ():
            points_mm = _coordinates_mm(route, space, table, columns, part.iloc[rows])
            if space.kind == "section":
                section = brain.section(space.section)
                yield section, points_mm / section.pixel_size_mm, part, rows
                continue
            stack_mm = brain.to_stack(space, points_mm)
            for target, here in _targets(replace(route, target=Space("section")), stack_mm):
                section = brain.section(target.section)
                points_px = section.from_stack(stack_mm[here], route.within_mm).points
                near = np.isfinite(points_px).all(axis=1)
                yield section, points_px[near], part, rows[here[near]]
                yield None, points_px[~near], part, rows[here[~near]]


def _columns(route: Route, table: PointTable) -> Sequence[PointColumns]:
    """The columns of a table's coordinates in the source of a route."""
    source = route.source
    if source.n_axes == 3:
        return [in_space(table.path, table.columns)]
    columns = on_image(table.path, table.columns, of_qupath=table.of_qupath)
    if source.is_open and SECTION not in table.columns:
        raise ConfigError(
            f"{table.path}: of which section? Expected --from {source}:ID, a column {SECTION},"
            " or a file named after its section"
        )
    return columns


def _mapped(
    route: Route, table: PointTable, columns: Sequence[PointColumns], part: pd.DataFrame
) -> pd.DataFrame:
    brain, source, target = route.brain, route.source, route.target
    stack_mm, error_mm = np.empty((len(part), 3)), np.full(len(part), np.nan)
    tissue = np.zeros(len(part), bool)
    of_tissue = "section" if "section" in (source.kind, target.kind) else "mri"
    for space, rows in _sources(route, table, part):
        points_mm = _coordinates_mm(route, space, table, columns, part.iloc[rows])
        stack_mm[rows] = brain.to_stack(space, points_mm)
        if space.kind == "section":
            error_mm[rows] = brain.section(space.section).expected_error_mm(stack_mm[rows, :2])
        if space.kind == "section" != target.kind:
            px = points_mm / route.pixel_size_mm(space)
            tissue[rows] = brain.section(space.section).in_tissue(px)
    result = {}
    if target.n_axes == 3:
        points_mm, _ = brain.from_stack(target, stack_mm)
        result |= dict(zip(("x_mm", "y_mm", "z_mm"), points_mm.T, strict=True))
        if source.n_axes == 2 and SECTION not in part:
            result[SECTION] = source.section
    else:
        points_px, points_mm = np.full((2, len(part), 2), np.nan)
        distance_mm = np.empty(len(part))
        for space, rows in _targets(route, stack_mm):
            points_mm[rows], distance_mm[rows] = brain.from_stack(
                space, stack_mm[rows], route.within_mm
            )
            points_px[rows] = points_mm[rows] / route.pixel_size_mm(space)
            if space.kind == "section":
                section = brain.section(space.section)
                tissue[rows] = section.in_tissue(points_px[rows])
                reached = np.isfinite(points_mm[rows, 0])
                of_target = section.expected_error_mm(stack_mm[rows, :2])
                error_mm[rows] = np.where(reached, of_target, np.nan)
        result |= dict(zip(("x_px", "y_px"), points_px.T, strict=True))
        result |= dict(zip(("x_mm", "y_mm"), points_mm.T, strict=True))
        result["distance_to_plane_mm"] = distance_mm
        if target.is_open:
            ids = np.array(brain.section_ids)[brain.nearest(stack_mm)]
            result[SECTION] = np.where(np.isnan(points_mm[:, 0]), "", ids)
    if of_tissue == "section":
        result |= {"in_tissue": tissue, "expected_error_mm": error_mm}
    elif brain.has_mri:
        result["in_tissue"] = brain.in_brain(stack_mm)
    return _with(part, columns, result)


def _with(
    part: pd.DataFrame, columns: Sequence[PointColumns], result: dict[str, np.ndarray | str]
) -> pd.DataFrame:
    """A part with further columns; those of it with the same names get others first."""
    own = [n for c in columns for n in c.names if n[0] in "xyz" and n[1:] in ("_px", "_um", "_mm")]
    taken = [name for name in result if name in part and name not in own]
    renamed = {name: f"from_{name}" for name in (*own, *taken)}
    replaced = [name for name in renamed.values() if name in part]  # of the way before
    return part.drop(columns=replaced).rename(columns=renamed).assign(**result)


def _sources(
    route: Route, table: PointTable, part: pd.DataFrame
) -> Iterator[tuple[Space, np.ndarray]]:
    """Each space that a part's points lie in, and the numbers of their rows."""
    if not route.source.is_open:
        _check_sections(route, table, part)
        yield route.source, np.arange(len(part))
        return
    cells = part[SECTION].astype(str)
    for section, rows in cells.groupby(cells).indices.items():
        try:
            route.brain.section(section)
        except ConfigError as error:
            where = f"{table.path}: row {part.index[rows[0]]}"
            raise ManifestError(f"{where}: {error}") from None
        yield route.source.at(section), rows


def _check_sections(route: Route, table: PointTable, part: pd.DataFrame) -> None:
    """Refuse rows that name another section of the brain than the source; ManifestError."""
    if route.source.n_axes == 3 or SECTION not in part:
        return
    cells = part[SECTION].astype(str)
    others = set(route.brain.known_ids) - {route.source.section}
    if (bad := np.flatnonzero(cells.isin(others))).size:
        raise ManifestError(
            f"{table.path}: row {part.index[bad[0]]}: is of section {cells.iloc[bad[0]]!r}, not of"
            f" {route.source}; --from {route.source.kind} takes each row's own"
        )


def _targets(route: Route, stack_mm: np.ndarray) -> Iterator[tuple[Space, np.ndarray]]:
    """Each space that points (n, 3), stack mm, go to, and their numbers."""
    if not route.target.is_open:
        yield route.target, np.arange(len(stack_mm))
        return
    nearest = route.brain.nearest(stack_mm)
    for number in np.unique(nearest):
        yield route.target.at(route.brain.section_ids[number]), np.flatnonzero(nearest == number)


def _coordinates_mm(
    route: Route,
    space: Space,
    table: PointTable,
    columns: Sequence[PointColumns],
    part: pd.DataFrame,
) -> np.ndarray:
    """(n, 2) or (n, 3) mm of a space; ManifestError where two units disagree."""
    found = []
    for each in columns:
        values = np.column_stack([numbers(table.path, part, name) for name in each.names])
        if space.n_axes == 3:
            found.append(values * each.mm_per_unit * np.array(each.signs))
            continue
        pixel_size_mm = route.pixel_size_mm(space)
        if each.unit == "px":
            values = route.centre_px(values, from_corner=each.from_corner) * pixel_size_mm
        else:
            values = values * each.mm_per_unit - each.from_corner * pixel_size_mm / 2
        found.append(values)
    if len(found) > 1:
        apart_px = np.abs(found[1] - found[0]).max(axis=1) / route.pixel_size_mm(space)
        if (bad := np.flatnonzero(apart_px > _AGREE_PX)).size:
            names = ", ".join(name for each in columns for name in each.names)
            raise ManifestError(
                f"{table.path}: row {part.index[bad[0]]}: {names} are {apart_px[bad[0]]:.3g} px"
                f" apart with pixels of {route.pixel_size_mm(space):g} mm: keep the right ones"
            )
    return found[0]
