"""`sbr apply`: points, shapes, labels and images from one space of a brain to another."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from sbr_core.errors import ConfigError
from sbr_core.io.label_tables import NO_NAMES, read_label_table
from sbr_core.mapping.brain import Brain
from sbr_core.mapping.carry import How, NothingThereError, carry_file
from sbr_core.mapping.jobs import atlas_files, check_jobs, jobs_of, read_jobs
from sbr_core.mapping.points import Route
from sbr_core.mapping.spaces import Space

logger = logging.getLogger(__name__)

_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


def run(
    options: None,
    inputs: Sequence[Path] | None = None,
    *,
    results: Path,
    from_: str | None = None,
    to: str | None = None,
    out: Annotated[Path | None, "-o"] = None,
    table: Path | None = None,
    method: str | None = None,
    labels: bool = False,
    names: Path | None = None,
    pixel_mm: float | None = None,
    simplify_mm: float | None = None,
    like: Path | None = None,
    regions: Path | None = None,
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
    nearest one, of a volume for every one.

    Parameters
    ----------
    inputs : files or folders of them: tables of points (CSV, TSV, Parquet, of napari or QuPath,
        .mrk.json of 3D Slicer), shapes (GeoJSON of QuPath), or images.
    results : folder of the brain, results/BRAIN.
    from_ : space of the inputs.
    to : space of the results.
    out : file to write, or, of several inputs, a folder, where each keeps its name; of a volume
        that goes to every section, a folder or a name with {section} in it.
    table : a table of jobs instead, with a column input and, for what the flags do not say of
        all, from, to, out, labels, names, pixel_mm, simplify_mm, like, regions, within_mm, scale
        and mend.
    method : whose transforms, a folder in the results (default: coherent, or else sbr, another
        trained one, mind, syn_mi or linear, whichever is finished).
    labels : images are of labels: the nearest one counts, or that of most of a larger pixel.
    names : names and colours of labels that become shapes, out of .geojson: a colour table of
        FreeSurfer, label descriptions of ITK-SNAP or a table with columns index and name.
    pixel_mm : side of a pixel of images that are written, mm (default: that of the section's file,
        of the plane's grid or of the MRI).
    simplify_mm : how far outlines of labels may lie from the edges of pixels, mm, for fewer points
        (default: 0).
    like : volume whose grid volumes that are written have; one of the template for the space atlas
        (default: the MRI, or in the stack the planes at the positions of the sections).
    regions : labels in the space of the results, mri or atlas: tables of points get columns
        region_id and region, which names has the names of.
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
        Points without coordinates or without a unit, shapes without a valid geometry, a colour
        table or a table of jobs that is none; naming file and row.
    ImageError
        An image that is not one of the section, or labels that are none.
    """
    flags = {"from": from_, "to": to, "labels": labels, "names": names, "mend": mend}
    flags |= {"pixel_mm": pixel_mm, "simplify_mm": simplify_mm, "within_mm": within_mm}
    flags |= {"scale": scale, "like": like, "regions": regions}
    is_of_atlas = table is not None or "atlas" in (from_, to)
    brain = Brain(results, method, atlas_files(atlas_xfm, brains, results, is_of_atlas))
    if table is not None:
        if inputs:
            raise ConfigError(f"--table: {table} names the inputs; {inputs[0]} is one more")
        folder = table.parent
        jobs = read_jobs(table, lambda row: _asked(brain, flags | _of_row(row, folder)), out)
    else:
        if not inputs:
            raise ConfigError("expected files or folders to carry, or --table")
        if out is None:
            raise ConfigError("--out: expected a file, or a folder of several results")
        jobs = jobs_of(inputs, out, *_asked(brain, flags))
    check_jobs(jobs, force)
    n_empty = 0
    for number, job in enumerate(jobs, 1):
        try:
            done = carry_file(job.route, job.source, job.target, job.how)
        except NothingThereError as error:
            n_empty += 1
            if not job.of_many or n_empty == len(jobs):
                raise
            logger.warning(f"apply: {number}/{len(jobs)} WARNING: left out: {error}")
            continue
        logger.info(f"apply: {number}/{len(jobs)} {job.target}: {done}")
    logger.info(f"apply: method {brain.method}")


def _asked(brain: Brain, given: Mapping[str, Any]) -> tuple[Route, How]:
    """What flags, or the cells of a row, ask for; ConfigError of what cannot be."""
    for name in ("within_mm", "scale", "pixel_mm", "simplify_mm"):
        value = given[name]
        if value is not None and not (0 < value < math.inf):
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag}: expected a number above 0, found {value:g}")
    for name in ("from", "to"):
        if given[name] is None:
            raise ConfigError(
                f"--{name}: expected a space: section:ID, plane:ID, stack, mri, atlas"
            )
    source, target = Space.of(given["from"], "--from"), Space.of(given["to"], "--to")
    for space in (source, target):
        brain.check(space)
    table = read_label_table(given["names"]) if given["names"] is not None else NO_NAMES
    route = Route(brain, source, target, given["within_mm"], given["scale"] or 1.0)
    how = How(
        labels=given["labels"],
        pixel_mm=given["pixel_mm"],
        mend=given["mend"],
        names=table,
        simplify_mm=given["simplify_mm"] or 0.0,
        like=given["like"],
        regions=given["regions"],
    )
    return route, how


def _of_row(row: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The cells of a row of a table of jobs as flags have them; ConfigError of one that is none."""
    flags: dict[str, Any] = {}
    for column, cell in row.items():
        if column in ("labels", "mend"):
            if cell.lower() not in (*_YES, *_NO):
                raise ConfigError(f"{column}: expected true or false, found {cell!r}")
            flags[column] = cell.lower() in _YES
        elif column in ("pixel_mm", "simplify_mm", "within_mm", "scale"):
            try:
                flags[column] = float(cell)
            except ValueError:
                raise ConfigError(f"{column}: expected a number, found {cell!r}") from None
        else:
            flags[column] = folder / cell if column in ("names", "like", "regions") else cell
    return flags
