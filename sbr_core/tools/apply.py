"""`sbr apply`: points, shapes, labels and images from one space of a brain to another."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from sbr_core.errors import ConfigError
from sbr_core.io.manifests import read_brains
from sbr_core.mapping.brain import Brain
from sbr_core.mapping.carry import (
    How,
    can_be_carried,
    carry_file,
    check_target,
    files_written,
    name_of_result,
)
from sbr_core.mapping.points import Route
from sbr_core.mapping.spaces import Space

logger = logging.getLogger(__name__)

_SHEET = Path("config", "brains.tsv")


def run(
    options: None,
    inputs: Sequence[Path],
    *,
    results: Path,
    from_: str,
    to: str,
    out: Annotated[Path, "-o"],
    method: str | None = None,
    labels: bool = False,
    pixel_mm: float | None = None,
    within_mm: float | None = None,
    scale: float | None = None,
    atlas_xfm: Sequence[Path] | None = None,
    brains: Path | None = None,
    mend: bool = False,
    force: bool = False,
) -> None:
    """Carry points, shapes, labels and images from a section to the MRI, or the other way.

    Spaces are section:ID, plane:ID, stack, mri and atlas; section or plane alone stand for the
    section that a column section or the name of a file tells, and, as a target of points, for the
    nearest one.

    Parameters
    ----------
    inputs : files or folders of them: tables of points (CSV, TSV, Parquet, of napari or QuPath,
        .mrk.json of 3D Slicer), shapes (GeoJSON of QuPath), or images.
    results : folder of the brain, results/BRAIN.
    from_ : space of the inputs.
    to : space of the results.
    out : file to write, or, of several inputs, a folder, where each keeps its name.
    method : whose transforms, a folder in the results (default: sbr).
    labels : images are of labels: the nearest one counts, or that of most of a larger pixel.
    pixel_mm : side of a pixel of images that are written, mm (default: that of the section's file,
        of the plane's grid or of the MRI).
    within_mm : how far from a section what comes from the stack or the MRI may be, stack mm
        (default: half the way to its neighbours, as reassemble fills the volume from it with
        max_gap_mm 0).
    scale : pixels of the section's file per pixel of the image that points and shapes in pixels
        are of, along each side (default: 1).
    atlas_xfm : transforms that resample the MRI onto the template of the space atlas, as
        antsApplyTransforms takes them after -t, or an LTA from the MRI to it (default: what the
        column atlas_xfm of the sheet of brains names).
    brains : that sheet (default: config/brains.tsv).
    mend : make outlines valid that cross themselves, instead of refusing them.
    force : write over what is there.

    Raises
    ------
    ConfigError
        No such space or section, an output that exists or of a kind that cannot be written.
    ManifestError
        Points without coordinates or without a unit, shapes without a valid geometry; naming file
        and row.
    ImageError
        An image that is not one of the section, or labels that are none.
    """
    numbers = {"--within-mm": within_mm, "--scale": scale, "--pixel-mm": pixel_mm}
    for flag, value in numbers.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{flag}: expected a number above 0, found {value:g}")
    spaces = Space.of(from_, "--from"), Space.of(to, "--to")
    if not atlas_xfm and any(space.kind == "atlas" for space in spaces):
        atlas_xfm = _atlas_of_sheet(brains, results)
    brain = Brain(results, method or "sbr", atlas_xfm or ())
    route = Route(brain, *spaces, within_mm, scale or 1.0)
    how = How(labels, pixel_mm, mend)
    for space in (route.source, route.target):
        if space.section is not None:
            brain.section(space.section)
        if space.kind in ("mri", "atlas"):
            _ = brain.stack_from_mri
        if space.kind == "atlas":
            _ = brain.atlas
    jobs = list(_jobs(inputs, out, route))
    for source, target in jobs:
        check_target(source, target, route, how)
        for path in files_written(source, target):
            if not path.exists():
                continue
            if path.is_dir() or not force:
                raise ConfigError(f"{path}: is there already; --force writes over it")
            if path.samefile(source):
                raise ConfigError(f"{path}: is the input itself; give another --out")
    for number, (source, target) in enumerate(jobs, 1):
        done = carry_file(route, source, target, how)
        logger.info(f"apply: {number}/{len(jobs)} {target}: {done}")


def _atlas_of_sheet(sheet: Path | None, results: Path) -> Sequence[Path]:
    """What the sheet names for the brain that a folder of results is called after."""
    if sheet is None and not _SHEET.is_file():
        return ()
    row = read_brains(sheet or _SHEET).get(results.resolve().name)
    names = row.atlas_xfm.split(";") if row is not None else []
    return [Path(name.strip()) for name in names if name.strip()]


def _jobs(inputs: Sequence[Path], out: Path, route: Route) -> Iterator[tuple[Path, Path]]:
    """Each file to read, and the one to write."""
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            shown = (file for file in path.iterdir() if not file.name.startswith("."))
            inside = sorted(file for file in shown if file.is_file() and can_be_carried(file))
            if not inside:
                raise ConfigError(f"{path}: has no points, shapes or images")
            files += inside
        elif not can_be_carried(path):
            raise ConfigError(
                f"{path}: expected points (.csv, .tsv, .parquet, .mrk.json), shapes (.geojson) or"
                " an image"
            )
        else:
            files.append(path)
    if len(files) == 1 and not inputs[0].is_dir() and not out.is_dir():
        yield files[0], out
        return
    names = [name_of_result(file, route) for file in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{twice[0]}: two inputs would have this name in {out}")
    if out.is_file():
        raise ConfigError(f"{out}: is a file, expected a folder for {len(files)} results")
    for file, name in zip(files, names, strict=True):
        yield file, out / name
