"""`sbr count`: cells in regions, with the areas and volumes they were counted in."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from sbr_core.artifacts import names as file_names
from sbr_core.errors import ConfigError, some_of
from sbr_core.io.label_tables import NO_NAMES, read_label_table
from sbr_core.io.point_tables import is_points, read_point_table
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import mri_grid, read_volume, write_volume
from sbr_core.mapping.brain import Brain, Section
from sbr_core.mapping.carry import of_file
from sbr_core.mapping.counting import (
    ALL_TISSUE,
    NOT_DRAWN,
    OUTSIDE_REGIONS,
    OUTSIDE_TISSUE,
    TOO_FAR,
    Counted,
    Tally,
    counted_sections,
    rows_by_section,
    rows_of_brain,
)
from sbr_core.mapping.density import Density
from sbr_core.mapping.jobs import atlas_files
from sbr_core.mapping.points import SECTION, Route
from sbr_core.mapping.regions import (
    NO_REGION,
    LabelImages,
    NoRegions,
    Outlines,
    Regions,
    Tissue,
    regions_of,
)
from sbr_core.mapping.spaces import Space

logger = logging.getLogger(__name__)

BY_SECTION, OF_BRAIN, DENSITY = "by_section.tsv", "brain.tsv", "density.nii.gz"


def run(
    options: None,
    cells: Sequence[Path] | None = None,
    *,
    results: Path,
    out: Annotated[Path, "-o"],
    regions: Sequence[Path] | None = None,
    regions_in: str | None = None,
    names: Path | None = None,
    only: Sequence[str] | None = None,
    from_: str | None = None,
    by: str | None = None,
    sections: Sequence[str] | None = None,
    thickness_um: float | None = None,
    density: bool = False,
    smooth_mm: float | None = None,
    voxel_mm: float | None = None,
    pixel_mm: float | None = None,
    within_mm: float | None = None,
    scale: float | None = None,
    method: str | None = None,
    atlas_xfm: Sequence[Path] | None = None,
    brains: Path | None = None,
    mend: bool = False,
    force: bool = False,
) -> None:
    """Count cells in regions: per section and for the brain, with areas and densities.

    Writes by_section.tsv, brain.tsv and, where asked, density.nii.gz. Cells outside of the tissue,
    and those outside of every region, have rows of their own. Without cells it measures the
    regions of all sections.

    Parameters
    ----------
    cells : tables of points as sbr apply reads them, or folders of tables.
    results : folder of the brain, results/BRAIN.
    out : folder to write to.
    regions : a volume of labels, or GeoJSON or label images of sections, named after these, or a
        folder of them (default: all tissue is one).
    regions_in : space of a volume, mri or atlas (default: mri).
    names : names of labels, a table as sbr apply reads it.
    only : names or ids of the regions to write rows of (default: all).
    from_ : space of the cells (default: section, which a column section or the name of the file
        tells).
    by : a column of the cells whose values are counted apart, a class for instance.
    sections : those that were counted, though the tables have no cell on some, or the word all
        (default: those with cells, and those that files are named after).
    thickness_um : of the sections, µm (default: the column thickness_um of the manifest).
    density : write cells per mm3 as a volume in the space of the MRI.
    smooth_mm : full width at half maximum of the Gaussian it is smoothed with, mm; 0 for none
        (default: twice the distance of the sections).
    voxel_mm : side of its voxels, mm (default: those of the MRI).
    pixel_mm : side of the squares that areas of labels are made of, mm, at most (default: a
        quarter of the working pixel).
    within_mm : how far from a section cells of the stack, the MRI or the atlas may be, stack mm
        (default: half the way to its neighbours).
    scale : pixels of the section's file per pixel of the image that cells in pixels are of, along
        each side (default: 1).
    method : whose transforms, a folder in the results (default: coherent, or else sbr, another
        trained one, mind, syn_mi or linear, whichever is finished).
    atlas_xfm : transforms between the MRI and the template of the space atlas, as of sbr apply.
    brains : the sheet of brains that has them otherwise (default: config/brains.tsv).
    mend : make outlines valid that cross themselves, instead of refusing them.
    force : write over what is there.

    Raises
    ------
    ConfigError
        No such section or region, outputs that exist, a density without a thickness.
    ManifestError
        Cells without coordinates or without a unit, a table of names or regions that are none.
    ImageError
        Labels that cannot be used.
    """
    numbers = {"--thickness-um": thickness_um, "--voxel-mm": voxel_mm, "--pixel-mm": pixel_mm}
    numbers |= {"--within-mm": within_mm, "--scale": scale}
    _check_numbers(numbers, smooth_mm)
    space = Space.of(from_ or "section", "--from")
    if regions_in not in (None, "mri", "atlas"):
        raise ConfigError(f"--regions-in: expected mri or atlas, found {regions_in!r}")
    _check_outputs(out, (BY_SECTION, OF_BRAIN, DENSITY), force)
    is_of_atlas = "atlas" in (space.kind, regions_in)
    brain = Brain(results, method, atlas_files(atlas_xfm, brains, results, is_of_atlas))
    brain.check(space)
    route = Route(brain, space, Space("section"), within_mm, scale or 1.0)
    table = read_label_table(names) if names is not None else NO_NAMES
    where = regions_of(brain, regions, regions_in or "mri", table, mend) if regions else NoRegions()
    chosen = _chosen(where, where.known, only or ())
    filled = _empty_density(brain, voxel_mm) if density else None
    tally = Tally(where, by, filled)
    files = list(_files(cells or ()))
    for number, path in enumerate(files, 1):
        points = read_point_table(path)
        of_path = route if SECTION in points.columns else of_file(route, path)
        n_cells = tally.add(of_path, points)
        logger.info(f"count: {number}/{len(files)} {path}: {n_cells} cells")
    tally.flush(brain)
    asked = sections or (() if files else brain.section_ids)
    counted = [
        _counted(section, where, Tissue.of(section, pixel_mm), thickness_um, filled)
        for section in counted_sections(brain, tally, asked)
    ]
    if where.known is None:  # only now they are
        chosen = _chosen(where, {label for one in counted for label in one.areas_mm2}, only or ())
    rows_of = {BY_SECTION: rows_by_section(tally, counted), OF_BRAIN: rows_of_brain(tally, counted)}
    if filled is not None:  # the largest first: where the disk is full, nothing is left
        write_volume(out / DENSITY, filled.per_mm3(brain, _width_mm(brain, smooth_mm)))
    for kind, rows in rows_of.items():
        write_tsv(out / kind, [row for row in rows if _is_wanted(row, chosen)])
    if filled is None:  # what is there would be the density of other cells
        (out / DENSITY).unlink(missing_ok=True)
    _say(brain, tally, counted, out)


def _check_numbers(numbers: Mapping[str, float | None], smooth_mm: float | None) -> None:
    for flag, value in numbers.items():
        if value is not None and not (0 < value < math.inf):
            raise ConfigError(f"{flag}: expected a number above 0, found {value:g}")
    if smooth_mm is not None and not (0 <= smooth_mm < math.inf):
        raise ConfigError(f"--smooth-mm: expected 0 or a number above it, found {smooth_mm:g}")


def _check_outputs(out: Path, kinds: Sequence[str], force: bool) -> None:
    if out.is_file():
        raise ConfigError(f"{out}: is a file, expected a folder")
    for path in (out / kind for kind in kinds):
        if path.is_dir() or (path.exists() and not force):
            raise ConfigError(f"{path}: is there already; --force writes over it")


def _counted(
    section: Section,
    regions: Regions,
    tissue: Tissue,
    thickness_um: float | None,
    density: Density | None,
) -> Counted:
    """What a section was counted in, which is added to the density too."""
    thickness_um = thickness_um or section.prepared.thickness_um
    if density is not None:
        if thickness_um is None:
            raise ConfigError(
                f"--density: section {section.id!r} has no thickness_um in the manifest;"
                " --thickness-um states it of all"
            )
        density.add_tissue(tissue, thickness_um / 1000)
    areas_mm2 = regions.areas_mm2(section, tissue) if regions.has(section) else {}
    return Counted(section, areas_mm2, tissue.mm2, thickness_um)


def _files(cells: Sequence[Path]) -> Iterator[Path]:
    """Tables, and those in folders; ConfigError of one that stands there twice."""
    found: set[Path] = set()
    for path in cells:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        tables = [file for file in inside if is_points(file) and file.name[0] != "."]
        if not tables:
            raise ConfigError(f"{path}: expected a table of points (.csv, .tsv, .parquet, …)")
        for table in tables:
            if table.resolve() in found:
                raise ConfigError(f"{table}: is given twice")
            found.add(table.resolve())
            yield table


def _chosen(
    regions: Regions, ids: Sequence[int] | set[int] | None, only: Sequence[str]
) -> set[str] | None:
    """Names of the regions to write, of those with these ids; None for all."""
    if not only or ids is None:
        return None
    known = {str(label): regions.names.of(label).name for label in ids if label != NO_REGION}
    chosen = set()
    for name in only:
        if name in known.values():
            chosen.add(name)
        elif name in known:
            chosen.add(known[name])
        else:
            there = some_of(sorted(set(known.values())), 12) or "none"
            raise ConfigError(f"--only: no region {name!r}; there are {there}")
    return chosen


def _is_wanted(row: dict[str, Any], chosen: set[str] | None) -> bool:
    return chosen is None or row["id"] is None or row["region"] in chosen


def _empty_density(brain: Brain, voxel_mm: float | None) -> Density:
    _ = brain.stack_from_mri  # a prealigned brain has none, which is said
    mri = read_volume(brain.results / "prepare" / file_names.MRI_VOLUME)
    return Density.on(*mri_grid(mri, voxel_mm))


def _width_mm(brain: Brain, smooth_mm: float | None) -> float:
    """Of the Gaussian: twice the distance of the sections, which fills what is between them."""
    if smooth_mm is not None:
        return smooth_mm
    ends_mm = np.array([[0.0, 0.0, section.position_mm] for section in brain])
    world_mm, _ = brain.from_stack(Space("mri"), ends_mm)
    apart_mm = np.linalg.norm(np.diff(world_mm, axis=0), axis=1)
    return 2 * float(np.median(apart_mm)) if len(apart_mm) else 0.0


def _say(brain: Brain, tally: Tally, counted: Sequence[Counted], out: Path) -> None:
    """What was counted, and what was not, with what is doubtful."""
    n_tissue = tally.n_apart(ALL_TISSUE)
    said = [f"{n_tissue} cells of the tissue"]
    if not isinstance(tally.regions, NoRegions):
        n_none = sum(n for (_, _, label), n in tally.cells.items() if label == NO_REGION)
        inside = n_tissue - n_none - tally.n_apart(NOT_DRAWN)
        said = [f"{inside} cells in regions", f"{n_none} {OUTSIDE_REGIONS[1:-1]}"]
    for what in (OUTSIDE_TISSUE, NOT_DRAWN, TOO_FAR):
        if n := tally.n_apart(what):
            said.append(f"{n} {what[1:-1]}")
    logger.info(f"count: {out}: {len(counted)} sections: {', '.join(said)}; method {brain.method}")
    for doubt in _doubts(brain, tally, counted):
        logger.warning(f"count: WARNING: {doubt}")


def _doubts(brain: Brain, tally: Tally, counted: Sequence[Counted]) -> Iterator[str]:
    """What is doubtful of the counts."""
    n_outside, n_tissue = tally.n_apart(OUTSIDE_TISSUE), tally.n_apart(ALL_TISSUE)
    if n_outside > n_tissue:
        yield (
            f"most cells, {n_outside} of {n_outside + n_tissue}, lie outside of the tissue: are"
            " they in pixels of a smaller copy (--scale), or of another image?"
        )
    unknown = [one.section.id for one in counted if one.thickness_um is None]
    if unknown and n_outside + n_tissue:
        yield (
            f"no cells per mm3: of {len(unknown)} sections ({some_of(unknown, 3)}) the manifest has"
            " no thickness_um; --thickness-um states it of all"
        )
    for one in counted:
        apart_mm = sum(one.section.reach_mm)
        if one.thickness_um is not None and len(counted) > 1 and one.thickness_um > 1500 * apart_mm:
            yield (
                f"section {one.section.id} is {one.thickness_um:g} µm thick, more than the"
                f" {apart_mm * 1000:.3g} µm between it and its neighbours: is that in µm?"
            )
            break
    if isinstance(tally.regions, Outlines | LabelImages):
        of_counted = {one.section.id for one in counted}
        drawn = [section.id for section in brain if tally.regions.has(section)]
        if others := [section for section in drawn if section not in of_counted]:
            yield (
                f"regions of {len(others)} sections ({some_of(others, 3)}) are not counted, for no"
                " table has cells of these; if there are none, --sections names them too"
            )
    names = tally.regions.names
    found = {label for one in counted for label in one.areas_mm2} - {NO_REGION}
    unnamed = [str(label) for label in sorted(found) if label not in names.labels]
    if names.path is not None and unnamed:
        yield f"{names.path}: has no name of {some_of(unnamed)}"
