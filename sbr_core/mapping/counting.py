"""Cells counted in regions, section by section, with the area and the volume they were counted in.

A density is cells of the tissue of a region over the area of that tissue, or over that times the
thickness of the section; of the whole brain it is the sum of the cells of all sections that were
counted over the sum of these, which weighs every piece of tissue alike. Millimetres are those of
the sections as they lie on their slides.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.errors import ConfigError, ManifestError, some_of
from sbr_core.io.point_tables import PointTable
from sbr_core.mapping.brain import Brain, Section
from sbr_core.mapping.density import Density
from sbr_core.mapping.points import Route, points_on_sections
from sbr_core.mapping.regions import NO_REGION, NoRegions, Regions

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

OUTSIDE_REGIONS, OUTSIDE_TISSUE = "(outside of every region)", "(outside of the tissue)"
ALL_TISSUE, TOO_FAR = "(all tissue)", "(too far from a section)"
NOT_DRAWN = "(on sections without regions)"
"""What rows are called that are of no region."""
_COLUMNS = (
    *("section", "position_mm", "thickness_um", "id", "region", "area_mm2", "volume_mm3"),
    *("cells", "cells_per_mm2", "cells_per_mm3", "sections"),
)
_SAY_EVERY = 1_000_000
_MOST_WAITING = 1 << 21
"""Cells that are kept until they are counted: 40 MiB."""


class Tally:
    """What was counted so far.

    Parameters
    ----------
    regions : that cells are counted in.
    by : column whose values are counted apart, in a column of that name, or, where there is one,
        of ``from_`` and its name; None counts all together.
    density : that cells are put into as well.

    Attributes
    ----------
    cells : (section, group, region) -> cells of the tissue; in two regions where these overlap.
    apart : (what, section, group) -> cells that are of no region.
    sections : that were counted, with or without cells.
    """

    def __init__(self, regions: Regions, by: str | None, density: Density | None) -> None:
        self.regions, self.by, self._density = regions, by, density
        self.cells: Counter[tuple[str, str, int]] = Counter()
        self.apart: Counter[tuple[str, str, str]] = Counter()
        self.sections: set[str] = set()
        self._groups: list[str] = []
        # of each section, (n, 2) px and (n,) numbers of groups, so that it is looked at seldom
        self._waiting: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._n_waiting = 0

    def add(self, route: Route, table: PointTable) -> int:
        """Count the points of a table, and put them into a density; how many there were.

        Raises
        ------
        ManifestError, ConfigError
            As of `points_on_sections`, or the table has no column `by`.
        """
        if self.by is not None and self.by not in table.columns:
            found = some_of(table.columns, 20)
            raise ManifestError(f"{table.path}: --by: no column {self.by!r}; there are {found}")
        if route.source.section is not None:
            self.sections.add(route.source.section)
        n_points = 0
        for section, points_px, part, rows in points_on_sections(route, table):
            if not len(rows):
                continue
            n_points += len(rows)
            if n_points // _SAY_EVERY > (n_points - len(rows)) // _SAY_EVERY:
                logger.info(f"count: {table.path}: {n_points} cells so far")
            groups = self._groups_of(part, rows)
            if section is None:
                self._add_apart(TOO_FAR, "", groups)
                continue
            self.sections.add(section.id)
            self._waiting.setdefault(section.id, []).append((points_px, groups))
            self._n_waiting += len(rows)
            if self._n_waiting > _MOST_WAITING:
                self.flush(route.brain)
        return n_points

    def flush(self, brain: Brain) -> None:
        """Count what was added and is not counted yet."""
        for name, parts in self._waiting.items():
            points_px, groups = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            self._count(brain.section(name), points_px, groups)
        self._waiting, self._n_waiting = {}, 0

    def n_apart(self, what: str) -> int:
        """Cells of all sections that were counted apart as this."""
        return sum(n for (name, _, _), n in self.apart.items() if name == what)

    def groups(self) -> list[str]:
        """Values of the column that are counted apart, sorted; one that is empty without it."""
        return sorted(self._groups) or [""]

    def named(self, group: str) -> dict[str, str]:
        """The cell of a row that says of which group it is."""
        if self.by is None:
            return {}
        return {f"from_{self.by}" if self.by in _COLUMNS else self.by: group}

    def _groups_of(self, part: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
        """(n,) number of the group of each row."""
        if self.by is None:
            self._groups = [""]
            return np.zeros(len(rows), np.int32)
        cells = part[self.by].iloc[rows]
        texts = np.where(cells.isna(), "", cells.astype(str)).astype(str)
        values, numbers = np.unique(texts, return_inverse=True)
        for value in values.tolist():
            if value not in self._groups:
                self._groups.append(value)
        known = np.array([self._groups.index(value) for value in values.tolist()], np.int32)
        return known[numbers]

    def _count(self, section: Section, points_px: np.ndarray, groups: np.ndarray) -> None:
        inside = section.in_tissue(points_px)
        self._add_apart(OUTSIDE_TISSUE, section.id, groups[~inside])
        points_px, groups = points_px[inside], groups[inside]
        if self._density is not None:
            self._density.add_cells(section, points_px)
        self._add_apart(ALL_TISSUE, section.id, groups)
        if not self.regions.has(section):
            self._add_apart(NOT_DRAWN, section.id, groups)
            return
        numbers, ids = self.regions.ids(section, points_px)
        of_numbers = groups[numbers]
        for group in np.unique(of_numbers):
            found, counts = np.unique(ids[of_numbers == group], return_counts=True)
            for label, n in zip(found.tolist(), counts.tolist(), strict=True):
                self.cells[section.id, self._groups[group], int(label)] += n

    def _add_apart(self, what: str, section: str, groups: np.ndarray) -> None:
        for group, n in zip(*np.unique(groups, return_counts=True), strict=True):
            self.apart[what, section, self._groups[group]] += int(n)


@dataclass(frozen=True)
class Counted:
    """A section that was counted.

    Attributes
    ----------
    areas_mm2 : region -> its tissue; empty where the section has no regions.
    tissue_mm2 : of all of it.
    thickness_um : None where it is not known.
    """

    section: Section
    areas_mm2: dict[int, float]
    tissue_mm2: float
    thickness_um: float | None


def counted_sections(brain: Brain, tally: Tally, asked: Sequence[str]) -> list[Section]:
    """The sections that were counted, sorted by position: those with cells, and those asked for.

    Raises
    ------
    ConfigError
        No such section, or none at all.
    """
    names = set(asked)
    if names == {"all"} and "all" not in brain.section_ids:
        names = set(brain.section_ids)
    sections = {brain.section(name).id for name in sorted(names)} | tally.sections
    if not sections:
        raise ConfigError("no cell lies on a section; --sections names those that were counted")
    return [section for section in brain if section.id in sections]


def rows_by_section(tally: Tally, counted: Iterable[Counted]) -> list[dict[str, Any]]:
    """A row for each section, region and group."""
    groups, rows = tally.groups(), []
    for one in counted:
        section = one.section
        about = {"section": section.id, "position_mm": section.position_mm}
        about["thickness_um"] = one.thickness_um
        mm3 = None if one.thickness_um is None else one.thickness_um / 1000
        for group in groups:
            place = about | tally.named(group)
            for label, name, mm2 in _regions(tally, one):
                n = tally.cells[section.id, group, label]
                rows.append(place | _row(label, name, mm2, n, mm3 and mm2 * mm3))
            for what, mm2 in ((ALL_TISSUE, one.tissue_mm2), (OUTSIDE_TISSUE, None)):
                n = tally.apart[what, section.id, group]
                rows.append(place | _row(None, what, mm2, n, mm3 and mm2 and mm2 * mm3))
    return rows


def rows_of_brain(tally: Tally, counted: Sequence[Counted]) -> list[dict[str, Any]]:
    """A row for each region and group, over all sections that were counted."""
    areas: dict[int, list[tuple[float, float | None, str]]] = {}
    names: dict[int, str] = {}
    for one in counted:
        for label, name, mm2 in _regions(tally, one):
            names[label] = name
            areas.setdefault(label, []).append((mm2, one.thickness_um, one.section.id))
    whole = [(one.tissue_mm2, one.thickness_um, one.section.id) for one in counted]
    rows = []
    for group in tally.groups():
        place = tally.named(group)
        for label in sorted(areas, key=_no_region_last):
            n = sum(tally.cells[section, group, label] for _, _, section in areas[label])
            rows.append(place | _sum(label, names[label], areas[label], n))
        for what in (ALL_TISSUE, OUTSIDE_TISSUE, NOT_DRAWN, TOO_FAR):
            tissue = whole if what == ALL_TISSUE else []
            n = sum(m for (name, _, g), m in tally.apart.items() if (name, g) == (what, group))
            if n or what in (ALL_TISSUE, OUTSIDE_TISSUE):
                rows.append(place | _sum(None, what, tissue, n))
    return rows


def _regions(tally: Tally, one: Counted) -> list[tuple[int, str, float]]:
    """(id, name, mm2) of the regions of a section; what is of none comes last."""
    if isinstance(tally.regions, NoRegions):
        return []
    # of a region smaller than the squares that areas are made of there may be cells alone
    there = set(one.areas_mm2) | {r for section, _, r in tally.cells if section == one.section.id}
    found = []
    for label in sorted(there, key=_no_region_last):
        name = OUTSIDE_REGIONS if label == NO_REGION else tally.regions.names.of(label).name
        found.append((label, name, one.areas_mm2.get(label, 0.0)))
    return found


def _no_region_last(label: int) -> tuple[bool, int]:
    return label == NO_REGION, label


def _sum(
    label: int | None, name: str, areas: Sequence[tuple[float, float | None, str]], n: int
) -> dict[str, Any]:
    """The row of a region over sections: (mm2, thickness, id) of each."""
    mm2 = sum(area for area, _, _ in areas) if areas else None
    known = areas and all(thickness is not None for _, thickness, _ in areas)
    mm3 = sum(area * thickness / 1000 for area, thickness, _ in areas) if known else None
    n_sections = sum(area > 0 for area, _, _ in areas) if areas else None
    return {**_row(label, name, mm2, n, mm3), "sections": n_sections}


def _row(
    label: int | None, name: str, mm2: float | None, n: int, mm3: float | None
) -> dict[str, Any]:
    return {
        "id": None if label == NO_REGION else label,
        "region": name,
        "area_mm2": mm2,
        "volume_mm3": mm3,
        "cells": n,
        "cells_per_mm2": n / mm2 if mm2 else None,
        "cells_per_mm3": n / mm3 if mm3 else None,
    }
