"""`sbr apply`: points, shapes, labels and images from one space of a brain to another."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from sbr_core.errors import ConfigError
from sbr_core.io.geojson import is_geojson, read_geojson, write_geojson
from sbr_core.io.point_tables import (
    ENDINGS,
    MARKUPS,
    check_point_output,
    is_points,
    read_point_table,
    write_point_table,
)
from sbr_core.mapping.brain import Brain
from sbr_core.mapping.points import SECTION, Route, map_points
from sbr_core.mapping.shapes import map_shapes
from sbr_core.mapping.spaces import Space

logger = logging.getLogger(__name__)


def run(
    options: None,
    inputs: Sequence[Path],
    *,
    results: Path,
    from_: str,
    to: str,
    out: Annotated[Path, "-o"],
    method: str | None = None,
    within_mm: float | None = None,
    scale: float | None = None,
    mend: bool = False,
    force: bool = False,
) -> None:
    """Carry points and shapes from a section to the MRI, or the other way.

    Spaces are section:ID, plane:ID, stack and mri; section or plane alone stand for the section
    that a column section or the name of a file tells, and, as a target, for the nearest one.

    Parameters
    ----------
    inputs : files or folders of them: tables of points (CSV, TSV, Parquet, of napari or QuPath,
        .mrk.json of 3D Slicer), or shapes (GeoJSON of QuPath).
    results : folder of the brain, results/BRAIN.
    from_ : space of the inputs.
    to : space of the results.
    out : file to write, or, of several inputs, a folder, where each keeps its name.
    method : whose transforms, a folder in the results (default: sbr).
    within_mm : how far from a section what comes from the stack or the MRI may be, stack mm
        (default: as far as reassemble fills the volume from it, half the way to its neighbours).
    scale : pixels of the section's file per pixel of the image that inputs in pixels are of, along
        each side (default: 1).
    mend : make outlines valid that cross themselves, instead of refusing them.
    force : write over what is there.

    Raises
    ------
    ConfigError
        No such space or section, an output that exists or of a kind that cannot be written.
    ManifestError
        Inputs without coordinates, or without a unit; naming file and row.
    """
    for flag, value in (("--within-mm", within_mm), ("--scale", scale)):
        if value is not None and not value > 0:
            raise ConfigError(f"{flag}: expected a number above 0, found {value:g}")
    brain = Brain(results, method or "sbr")
    route = Route(brain, Space.of(from_, "--from"), Space.of(to, "--to"), within_mm, scale or 1.0)
    for space in (route.source, route.target):
        if space.section is not None:
            brain.section(space.section)
        if space.kind == "mri":
            _ = brain.stack_from_mri
    jobs = list(_jobs(inputs, out, route.target.n_axes))
    for source, target in jobs:
        _check_output(source, target, route.target, force)
    for number, (source, target) in enumerate(jobs, 1):
        if is_geojson(source):
            done = _carry_shapes(_of_file(route, source), source, target, mend)
        else:
            done = _carry_points(route, source, target)
        logger.info(f"apply: {number}/{len(jobs)} {target}: {done}")


def _jobs(inputs: Sequence[Path], out: Path, n_axes: int) -> Iterator[tuple[Path, Path]]:
    """Each file to read, and the one to write."""
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if _is_known(file))
            if not inside:
                raise ConfigError(f"{path}: has no tables of points and no shapes")
            files += inside
        elif not _is_known(path):
            raise ConfigError(
                f"{path}: expected points (.csv, .tsv, .parquet, .mrk.json) or shapes (.geojson)"
            )
        else:
            files.append(path)
    if len(files) == 1 and not inputs[0].is_dir() and not out.is_dir():
        yield files[0], out
        return
    names = [file.name for file in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{twice[0]}: two inputs have this name, and {out} is for both")
    if out.is_file():
        raise ConfigError(f"{out}: is a file, expected a folder for {len(files)} results")
    for file in files:
        yield file, out / _name_of_result(file.name, n_axes)


def _is_known(path: Path) -> bool:
    return is_points(path) or is_geojson(path)


def _name_of_result(name: str, n_axes: int) -> str:
    """A file's name with an ending that points of so many axes are written with."""
    if is_geojson(Path(name)):
        return name
    stem, dot, ending = name.partition(".")
    while dot and f".{ending.lower()}" not in ENDINGS:  # of names with further full stops
        more, dot, ending = ending.partition(".")
        stem = f"{stem}.{more}"
    ending = f".{ending.lower()}"
    if ending in MARKUPS:
        ending = ".mrk.json" if n_axes == 3 else ".tsv"
    return stem + (".tsv" if ending == ".txt" else ending)


def _check_output(source: Path, target: Path, space: Space, force: bool) -> None:
    if target.exists():
        if target.is_dir() or not force:
            raise ConfigError(f"{target}: is there already; --force writes over it")
        if target.samefile(source):
            raise ConfigError(f"{target}: is the input itself; give another --out")
    if not is_geojson(source):
        check_point_output(target, space.n_axes)
    elif not is_geojson(target):
        raise ConfigError(f"{target}: expected .geojson for shapes")


def _of_file(route: Route, path: Path) -> Route:
    """The route from the section that a file is named after, where the source is open."""
    named = [section for section in route.brain.section_ids if path.name.startswith(f"{section}.")]
    return route.at(max(named, key=len)) if named else route


def _carry_points(route: Route, source: Path, target: Path) -> str:
    """Write the points of one table; what to say of it."""
    table = read_point_table(source)
    if SECTION not in table.columns:
        route = _of_file(route, source)
    counts = {"points": 0, "outside the tissue": 0, "too far from the section": 0}

    def counted() -> Iterator:
        for part in map_points(route, table):
            if "in_tissue" in part:
                counts["outside the tissue"] += int((~part["in_tissue"]).sum())
            if "x_px" in part and route.target.n_axes == 2:
                counts["too far from the section"] += int(part["x_px"].isna().sum())
            counts["points"] += len(part)
            if counts["points"] % 1_000_000 == 0:
                logger.info(f"apply: {source}: {counts['points']} points so far")
            yield part

    write_point_table(target, counted())
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n or what == "points")


def _carry_shapes(route: Route, source: Path, target: Path, mend: bool) -> str:
    """Write the shapes of one GeoJSON; what to say of it."""
    for flag, space in (("--from", route.source), ("--to", route.target)):
        if space.is_open:
            raise ConfigError(f"{source}: of which section? Expected {flag} {space}:ID")
    shapes, n_far = map_shapes(route, read_geojson(source, route.source.n_axes), mend=mend)
    n_features = len(shapes.features)
    if n_far == n_features:
        raise ConfigError(
            f"{source}: all its features are too far from {route.target}; --within-mm takes more in"
        )
    facts = {"space": str(route.target), "units": "mm"} if route.target.n_axes == 3 else {}
    write_geojson(target, shapes, **facts)
    far = f", {n_far} left out, too far from the section" if n_far else ""
    return f"{n_features - n_far} features{far}"
