"""What `sbr apply` is asked for: which files, from where to where, under which names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sbr_core.errors import ConfigError, ManifestError
from sbr_core.io.columns import check_columns
from sbr_core.io.geojson import is_geojson
from sbr_core.io.manifests import read_brains
from sbr_core.io.ome_zarr import is_ome_zarr
from sbr_core.io.point_tables import is_points
from sbr_core.io.tables import read_tsv
from sbr_core.mapping.carry import (
    How,
    can_be_carried,
    check_target,
    files_written,
    name_of_result,
)
from sbr_core.mapping.points import Route

_SHEET = Path("config", "brains.tsv")
PLACE = "{section}"
"""In the name of an output: the id of its section."""
JOB_COLUMNS = (
    *("input", "from", "to", "out", "labels", "pixel_mm", "within_mm", "scale"),
    *("names", "simplify_mm", "like", "regions", "mend"),
)
"""Of a table of jobs."""


@dataclass(frozen=True)
class Job:
    """One file to read and one to write.

    Attributes
    ----------
    of_many : one of those that one volume becomes, a section each.
    """

    route: Route
    source: Path
    target: Path
    how: How
    of_many: bool = False


def jobs_of(inputs: Sequence[Path], out: Path, route: Route, how: How) -> list[Job]:
    """The jobs of some files and folders.

    Parameters
    ----------
    out : a file, or, of several inputs, a folder. With `PLACE` in its name, a file for each
        section.

    Raises
    ------
    ConfigError
        Nothing that can be carried, or two results of one name.
    """
    files = list(_files(inputs))
    many = [file for file in files if _becomes_many(file, route)]
    if PLACE in str(out) or many:
        return [job for file in files for job in _of_sections(file, out, route, how)]
    if len(files) == 1 and not inputs[0].is_dir() and (is_ome_zarr(out) or not out.is_dir()):
        return [Job(route, files[0], out, how)]
    names = [name_of_result(file, route) for file in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{twice[0]}: two inputs would have this name in {out}")
    if out.is_file():
        raise ConfigError(f"{out}: is a file, expected a folder for {len(files)} results")
    return [Job(route, file, out / name, how) for file, name in zip(files, names, strict=True)]


def check_jobs(jobs: Sequence[Job], force: bool) -> None:
    """Refuse jobs whose results cannot be written, or are there already; ConfigError."""
    counts = Counter(path for job in jobs for path in files_written(job.source, job.target))
    if twice := [path for path, n in counts.items() if n > 1]:
        raise ConfigError(f"{twice[0]}: two results would have this name")
    for job in jobs:
        check_target(job.source, job.target, job.route, job.how)
        for path in files_written(job.source, job.target):
            if not path.exists():
                continue
            if not force or (path.is_dir() and not is_ome_zarr(path)):
                raise ConfigError(f"{path}: is there already; --force writes over it")
            if path.samefile(job.source):
                raise ConfigError(f"{path}: is the input itself; give another --out")


def _files(inputs: Sequence[Path]) -> Iterator[Path]:
    """Files, and those in folders that can be carried."""
    for path in inputs:
        if path.is_dir():
            shown = (file for file in path.iterdir() if not file.name.startswith("."))
            inside = sorted(file for file in shown if file.is_file() and can_be_carried(file))
            if not inside:
                raise ConfigError(f"{path}: has no points, shapes or images")
            yield from inside
        elif not can_be_carried(path):
            raise ConfigError(
                f"{path}: expected points (.csv, .tsv, .parquet, .mrk.json), shapes (.geojson) or"
                " an image"
            )
        else:
            yield path


def _becomes_many(file: Path, route: Route) -> bool:
    """Whether it is a volume, and the target any section."""
    is_image = not is_points(file) and not is_geojson(file)
    return is_image and route.source.n_axes == 3 and route.target.is_open


def _of_sections(file: Path, out: Path, route: Route, how: How) -> Iterator[Job]:
    """A job for each section that a volume goes to, or the one of a file of one section."""
    if not _becomes_many(file, route):
        raise ConfigError(
            f"{out}: {PLACE} stands for the sections that a volume of mri or atlas goes to:"
            " expected --to section or --to plane, and an image"
        )
    name = str(out)
    if PLACE not in name:
        is_name_of_one = is_ome_zarr(out) or (can_be_carried(out) and not out.is_dir())
        if out.is_file() or is_name_of_one:
            raise ConfigError(
                f"{out}: expected a folder for the results of {len(route.brain)} sections, or"
                f" {PLACE} in the name"
            )
        name = str(out / f"{PLACE}.{re.sub(r'([.]nii)?[.][^.]+$', '', file.name)}.tif")
    for section in route.brain.section_ids:
        there = replace(route, target=route.target.at(section))
        yield Job(there, file, Path(name.replace(PLACE, section)), how, of_many=True)


def read_jobs(
    path: Path, route_of: Callable[[Mapping[str, str]], tuple[Route, How]], out: Path | None
) -> list[Job]:
    """The jobs of a table, a row for each input.

    Parameters
    ----------
    path : TSV with a column ``input``: a file, a folder, or a pattern with ``*``, relative to
        the table's folder as all its paths are; others are named as in `JOB_COLUMNS`.
    route_of : what a row's cells ask for, by column; empty ones are left out.
    out : where results go that no cell names.

    Raises
    ------
    ManifestError
        A column that nothing reads, a row without an input or an output.
    ConfigError
        As of `jobs_of`, with the line of the table before it.
    """
    header, rows = read_tsv(path)
    check_columns(path, header, JOB_COLUMNS, {}, own_allowed=False)
    if "input" not in header:
        raise ManifestError(f"{path}: column 'input' is missing; found {', '.join(header)}")
    jobs: list[Job] = []
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        given = {column: cell.strip() for column, cell in row.items() if cell.strip()}
        for column in ("input", "out"):
            if column not in given and (column == "input" or out is None):
                raise ManifestError(f"{where}: {column}: expected a file, found nothing")
        target = path.parent / given["out"] if "out" in given else out
        try:
            route, how = route_of(given)
            jobs += jobs_of(_named(path.parent, given["input"]), target, route, how)
        except ConfigError as error:
            raise ManifestError(f"{where}: {error}") from None
    if not jobs:
        raise ManifestError(f"{path}: has no jobs")
    return jobs


def _named(folder: Path, name: str) -> list[Path]:
    """The file or folder of a name, or the files that a pattern stands for."""
    if "*" not in name or (folder / name).exists():
        return [folder / name]
    pattern = Path(name)
    start = Path(pattern.anchor) if pattern.is_absolute() else folder
    found = sorted(start.glob(str(pattern.relative_to(pattern.anchor))))
    if not found:
        raise ConfigError(f"{name}: no file has such a name")
    return found


def atlas_files(
    given: Sequence[Path] | None, sheet: Path | None, results: Path, is_asked: bool
) -> Sequence[Path]:
    """Files between the MRI and a template: those given, else what the sheet names for the brain.

    Parameters
    ----------
    sheet : None for the one of the configuration, where there is one.
    results : folder that is called after the brain.
    is_asked : whether anything goes to or comes from the atlas; the sheet is not read otherwise.
    """
    if given or not is_asked or (sheet is None and not _SHEET.is_file()):
        return given or ()
    row = read_brains(sheet or _SHEET).get(results.resolve().name)
    names = row.atlas_xfm.split(";") if row is not None else []
    return [Path(name.strip()) for name in names if name.strip()]
