"""What may go of finished results, how much that frees, and what would be computed again.

Nothing that a run with the same tables and configuration reads or misses is among what goes unless
it is asked for by name: receipts, sidecars and files of sections, weights, tables and plans stay.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from sbr_core.artifacts import names
from sbr_core.artifacts.benchmarks import read_benchmarks
from sbr_core.artifacts.chunks import current_chunks, is_of_other_chunk
from sbr_core.artifacts.rows import read_cells
from sbr_core.errors import SbrError, StorageError
from sbr_core.io.files import read_json, sum_file
from sbr_core.io.manifests import SIMULATED
from sbr_core.methods import METHODS
from sbr_core.planning.lock import LOCKS, remove_lock_of_killed_run
from sbr_core.planning.sheet import CHECKPOINTS

_LEFTOVER = re.compile(r"\.(tmp|old)-(\d+)-.")
"""What `io.files` names what it has not finished, with the process's number."""
_FRESH_S = 3600.0
"""What is younger may be of a process on another machine, whose number tells nothing here."""
_OLD_LOG_S = 30 * 86400.0
"""Snakemake's own logs that are older than this are of no run that anybody looks into."""
_ENDINGS = tuple({ending.split("/")[0] for ending in names.SECTION_ENDINGS} | {".json"})


@dataclass(frozen=True)
class Removable:
    """One file or folder that may go.

    Attributes
    ----------
    n_bytes : that it takes.
    again_s : seconds that it took to make, if a run would make it again; 0 if it would not.
    """

    path: Path
    n_bytes: int
    again_s: float = 0.0


Finder = Callable[[Path, Mapping[str, Path]], Iterator[Removable]]
"""Given the folder of all results, and the folders of its brains by name."""


@dataclass(frozen=True)
class Kind:
    """One kind of what may go.

    Attributes
    ----------
    words : what it is.
    again : what a later run computes again without it; empty for nothing, and then it goes without
        being asked for by name.
    """

    words: str
    again: str
    find: Finder


def refuse_while_running(results: Path) -> None:
    """StorageError while a run holds Snakemake's lock of this folder or of that of the results."""
    remove_lock_of_killed_run()  # of this folder, if there is one
    for place in {Path.cwd(), results.resolve().parent}:
        if any((place / LOCKS).glob("*")):
            raise StorageError(
                f"{place / LOCKS}: a run is going on there; let it end first (if it was killed on"
                " another machine: snakemake --unlock)"
            )


# --------------------------------------------------------------------------------------------
# What nothing needs
# --------------------------------------------------------------------------------------------


def _checkpoints(results: Path, brains: Mapping[str, Path]) -> Iterator[Removable]:
    """Checkpoints of trainings whose weights are there."""
    return (item for item, finished in _of_trainings(results, brains) if finished)


def _unfinished(results: Path, brains: Mapping[str, Path]) -> Iterator[Removable]:
    return (item for item, finished in _of_trainings(results, brains) if not finished)


def _of_trainings(results: Path, brains: Mapping[str, Path]) -> Iterator[tuple[Removable, bool]]:
    """(checkpoints of a training, whether it is finished)."""
    networks = ("registrar", *METHODS, *(f"compare/{method}" for method in METHODS))
    for brain, folder in brains.items():
        for network in networks:
            checkpoints = results / CHECKPOINTS / brain / network
            if checkpoints.is_symlink() or not checkpoints.is_dir():
                continue
            if n_bytes := size_of_tree(checkpoints):
                is_finished = (folder / network / names.WEIGHTS).is_file()
                yield Removable(checkpoints, n_bytes), is_finished


def _leftovers(results: Path, brains: Mapping[str, Path]) -> Iterator[Removable]:
    """What processes that are no more had begun to write."""
    for place in (*brains.values(), results / CHECKPOINTS):
        for folder, folders, files in os.walk(place):
            for name in [*folders, *files]:
                path = Path(folder, name)
                if (found := _LEFTOVER.match(name)) and _is_left(path, int(found[2])):
                    yield Removable(path, size_of_tree(path))
            folders[:] = [name for name in folders if not _LEFTOVER.match(name)]


def _is_left(path: Path, process: int) -> bool:
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > _FRESH_S and not psutil.pid_exists(process)
    return False


def _chunks(results: Path, brains: Mapping[str, Path]) -> Iterator[Removable]:
    """Receipts, plans, logs and benchmark files of chunks that a brain was split into before."""
    for folder in brains.values():
        chunks = current_chunks(folder)
        if chunks is None:
            continue
        for path in _files(folder):
            place = path.relative_to(folder).parts[0]
            is_receipt = path.parent.name == names.CHUNKS
            if not is_receipt and place not in ("logs", "benchmarks", "plan"):
                continue
            if is_of_other_chunk(path, chunks):
                yield _file(path)
                if is_receipt and (record := sum_file(path)).is_file():
                    yield _file(record)


def _sections(results: Path, brains: Mapping[str, Path]) -> Iterator[Removable]:
    """Files of sections that are in no receipt of a stage, all of whose receipts are there."""
    for folder in brains.values():
        chunks = current_chunks(folder)
        if not chunks:
            continue
        for receipts in sorted(folder.rglob(names.CHUNKS)):
            stage = receipts.parent
            sections = _sections_of([receipts / f"{chunk}.tsv" for chunk in chunks])
            if sections is None:
                continue
            for place in (stage / names.SECTIONS, stage / names.TRANSFORMS):
                for path in sorted(place.iterdir()) if place.is_dir() else ():
                    section = _section_of(path.name)
                    if section is not None and section not in sections:
                        yield Removable(path, size_of_tree(path))


def _sections_of(receipts: Iterable[Path]) -> set[str] | None:
    """Sections of receipts; None if one is missing or damaged, since a run will go on with it."""
    sections: set[str] = set()
    for receipt in receipts:
        try:
            sections |= {row["section"] for row in read_cells(receipt)[1]}
        except (SbrError, OSError):
            return None
    return sections


def _section_of(name: str) -> str | None:
    """The section that a file is named after; None if it is named like none of a section's."""
    if name.startswith("."):
        return None
    fitting = [ending for ending in _ENDINGS if name.endswith(ending)]
    return name.removesuffix(max(fitting, key=len)) if fitting else None


# --------------------------------------------------------------------------------------------
# What goes only by name
# --------------------------------------------------------------------------------------------


def _logs(results: Path, brains: Mapping[str, Path]) -> Iterator[Removable]:
    """Logs of all jobs, and Snakemake's own that are a month old."""
    for folder in (*brains.values(), results):
        for path in _files(folder / "logs"):
            yield _file(path)
    for place in {Path.cwd(), results.resolve().parent}:
        for path in _files(place / ".snakemake" / "log"):
            if time.time() - path.stat().st_mtime > _OLD_LOG_S:
                yield _file(path)


def _methods(results: Path, brains: Mapping[str, Path]) -> Iterator[Removable]:
    """Results of methods that neither a brain's evaluation nor its comparison contains."""
    for folder in brains.values():
        shown: set[str] = set()
        for evaluation in (folder / "evaluation", folder / "compare" / "evaluation"):
            with suppress(SbrError):
                inputs = read_json(evaluation / names.EVALUATION).get("inputs", {})
                shown |= {name.removesuffix("_sections") for name in inputs}
        if "linear" not in shown:
            continue  # not evaluated yet: what is there is what is asked for
        if "coherent" in shown:  # it follows one of them
            shown |= set(METHODS)
        for method in METHODS:
            place = folder / method
            if method not in shown and place.is_dir() and not place.is_symlink():
                took = [job.wall_s for job in read_benchmarks(folder) if method in job.parts]
                yield Removable(place, size_of_tree(place), sum(took))


def of_no_sheet(sheet: Iterable[str]) -> Kind:
    """The kind of brains that a sheet does not name, given the names that it does."""
    known = {name + end for name in sheet for end in ("", SIMULATED)}

    def find(results: Path, brains: Mapping[str, Path]) -> Iterator[Removable]:
        for brain, folder in brains.items():
            if brain not in known:
                took = sum(job.wall_s for job in read_benchmarks(folder))
                yield Removable(folder, size_of_tree(folder), took)
                checkpoints = results / CHECKPOINTS / brain
                if checkpoints.is_dir() and not checkpoints.is_symlink():
                    yield Removable(checkpoints, size_of_tree(checkpoints))

    return Kind("brains that the sheet does not name", "all of such a brain", find)


KINDS = {
    "checkpoints": Kind("checkpoints of finished trainings", "", _checkpoints),
    "leftovers": Kind("what killed processes had begun to write", "", _leftovers),
    "chunks": Kind("receipts, plans, logs and times of chunks that are no more", "", _chunks),
    "sections": Kind("files of sections that no table lists", "", _sections),
    "unfinished": Kind(
        "checkpoints of trainings that did not end", "these trainings from step 0", _unfinished
    ),
    "logs": Kind("logs of jobs", "nothing, but a bug report needs them", _logs),
    "methods": Kind(
        "results of methods that the brain's tables do not show",
        "such a method, if it is asked for again",
        _methods,
    ),
}
"""Name on the command line -> kind. Those without `again` go without being named."""


# --------------------------------------------------------------------------------------------


def size_of_tree(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count as nothing and are not followed."""
    if path.is_symlink():
        return 0
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder, links left out, sorted."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        yield from (p for name in sorted(files) if not (p := Path(place, name)).is_symlink())


def _file(path: Path) -> Removable:
    return Removable(path, path.stat().st_size)
