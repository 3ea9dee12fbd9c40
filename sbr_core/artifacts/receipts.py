"""Per-section results of a chunk: files, a sidecar per section, and the receipt of the chunk.

A stage that works section by section writes into its folder ::

    chunks/{chunk}.tsv          the receipt, which is the output Snakemake knows
    sections/{section}.json     the sidecar: fingerprint, files with sha256, the receipt's columns
    …                           the files themselves, anywhere below the folder

The sidecar survives when Snakemake deletes the receipt before a job, so a section whose
fingerprint and files still match is not computed again.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sbr_core.artifacts.names import SECTION_ENDINGS, SECTIONS
from sbr_core.artifacts.rows import Row, check_ids, columns_of, write_columns
from sbr_core.errors import ReceiptError, SbrError, StorageError
from sbr_core.io.files import inside, read_json, remove_tree, sha256_file, sha256_of, write_json
from sbr_core.io.provenance import versions

_MOST_THREADS = 4
"""That finish sections: enough for what a graphics card begins."""
_BEGUN = 4
"""Sections that may be begun and not finished, or two for each thread: more only take memory."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SectionResult:
    """What a stage made of one section.

    Attributes
    ----------
    row : of the receipt, without files and fingerprint.
    files : those that it wrote, with their paths.
    """

    row: Row
    files: list[Path] = field(default_factory=list)


Rest = Callable[[], SectionResult]
"""What is left to do of a section, which does not need that others wait for it."""


def run_sections(
    sections: Mapping[str, Any],
    *,
    stage: str,
    out_dir: Path,
    receipt: Path,
    fingerprint: Callable[[Any], str],
    process: Callable[[Any], SectionResult | Rest],
    strict: bool = False,
    asked: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Process the sections that changed, keep the rest, write the receipt.

    Parameters
    ----------
    sections : section id -> whatever `process` takes.
    out_dir : the stage's folder; files in the receipt are relative to it.
    receipt : ``chunks/{chunk}.tsv`` in it.
    fingerprint : everything a section's result depends on, as a digest.
    process : makes the files of one section, or begins to and returns what is left, which is done
        in threads while the next sections are begun; its `SbrError`, or that of `fingerprint`,
        becomes status ``failed``.
    strict : let that error stop the stage instead.
    asked : options and revision, of a stage that has no plan.

    Returns
    -------
    The receipt's rows.

    Raises
    ------
    ReceiptError
        Before anything is written: an id is no name of a file.
    """
    check_ids(sections, out_dir)
    chunk = _Chunk(stage, out_dir, receipt, fingerprint, process, strict)
    rows: list[dict[str, Any]] = []
    begun: deque[tuple[str, _Outcome | Future[_Outcome]]] = deque()

    def end_first() -> None:
        section, outcome = begun.popleft()
        if isinstance(outcome, Future):
            outcome = chunk.settled(section, outcome.result)
        row, state = outcome
        rows.append(row)
        logger.info(f"{stage}: {len(rows)}/{len(sections)} section {section} {state}")

    # macOS does not tell which cores a process has
    own = getattr(os, "sched_getaffinity", None)
    threads = min(_MOST_THREADS, len(own(0)) if own else os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix=stage)
    try:
        for section, item in sections.items():
            begin = partial(chunk.begin, section, item, pool)
            begun.append((section, chunk.settled(section, begin)))
            while begun and (len(begun) > max(_BEGUN, 2 * threads) or _is_over(begun[0][1])):
                end_first()
        while begun:
            end_first()
    finally:
        # what is being written is finished, and kept; what waits is not begun
        pool.shutdown(cancel_futures=True)
    _sweep(out_dir, receipt.stem, set(sections))
    write_columns(receipt, rows, **({} if asked is None else {"asked": asked}))
    return rows


_Outcome = tuple[dict[str, Any], str]
"""The row of a section, and what the log says of it."""


def _is_over(outcome: _Outcome | Future[_Outcome]) -> bool:
    return not isinstance(outcome, Future) or outcome.done()


@dataclass(frozen=True)
class _Chunk:
    """What happens to each section of a chunk; the parameters of `run_sections`."""

    stage: str
    out_dir: Path
    receipt: Path
    fingerprint: Callable[[Any], str]
    process: Callable[[Any], SectionResult | Rest]
    strict: bool

    def begin(
        self, section: str, item: Any, pool: ThreadPoolExecutor
    ) -> _Outcome | Future[_Outcome]:
        """Keep a section, do it, or begin it and leave the rest to a thread."""
        digest = self.fingerprint(item)
        row = _intact(self.out_dir / SECTIONS / f"{section}.json", self.out_dir, digest)
        if row is not None:
            return row, "kept"
        result = self.process(item)
        if isinstance(result, SectionResult):
            return self._recorded(section, digest, result)
        return pool.submit(lambda: self._recorded(section, digest, result()))

    def settled(self, section: str, outcome: Callable[[], Any]) -> Any:
        """What a function returns; where it raises a section's fault, the row of a failed one."""
        try:
            return outcome()
        except StorageError:
            raise  # no fault of the section: the next one would end alike
        except SbrError as error:
            if self.strict:
                raise
            # it is tried again next time, so it gets no sidecar
            _forget(self.out_dir / SECTIONS / f"{section}.json", self.out_dir)
            row = {"section": section, "status": "failed", "message": str(error)}
            return row, f"FAILED: {error}"

    def _recorded(self, section: str, digest: str, result: SectionResult) -> _Outcome:
        """The row of a section whose files are written, once its sidecar is."""
        files = {str(f.relative_to(self.out_dir)): sha256_file(f) for f in sorted(result.files)}
        row = columns_of(replace(result.row, files=files, fingerprint=digest))
        content = {"stage": self.stage, "chunk": self.receipt.stem, "row": row}
        sums = {"versions": versions(), "row_sha256": sha256_of(row)}
        write_json(self.out_dir / SECTIONS / f"{section}.json", content | sums)
        return row, "done"


def unfinished(
    sections: Mapping[str, Any], *, out_dir: Path, fingerprint: Callable[[Any], str]
) -> list[str]:
    """The sections that `run_sections` would process, in order; its parameters."""
    return [
        section
        for section, item in sections.items()
        if _intact(out_dir / SECTIONS / f"{section}.json", out_dir, fingerprint(item)) is None
    ]


class SidecarRow(BaseModel):
    """What is needed of a row in a sidecar; the other columns go to the receipt as they are."""

    model_config = ConfigDict(extra="allow")
    section: str
    files: dict[str, str]
    fingerprint: str


class Sidecar(BaseModel):
    """A sidecar; those of before the row's digest was recorded have none."""

    chunk: str
    row: SidecarRow
    row_sha256: str | None = None


def read_sidecar(path: Path) -> Sidecar:
    """A sidecar; ReceiptError where it is missing, damaged, or of another section."""
    sidecar = read_json(path, Sidecar)
    digest = sidecar.row_sha256
    if digest is not None and sha256_of(sidecar.row.model_dump()) != digest:
        raise ReceiptError(f"{path}: damaged: its row has another sha256 than was recorded")
    if sidecar.row.section != path.stem:
        raise ReceiptError(f"{path}: is of section {sidecar.row.section!r}")
    return sidecar


def _content(path: Path) -> Sidecar | None:
    """What a sidecar contains; None where it is missing or damaged."""
    try:
        return read_sidecar(path)
    except ReceiptError:
        return None


def _intact(sidecar: Path, out_dir: Path, digest: str) -> dict[str, Any] | None:
    """The row of a section whose fingerprint and files match, else None."""
    content = _content(sidecar)
    if content is None or content.row.fingerprint != digest:
        return None
    for name, sha256 in content.row.files.items():
        try:
            if sha256_file(inside(out_dir, name)) != sha256:
                return None
        except ReceiptError:
            return None
    return content.row.model_dump()


def _forget(sidecar: Path, out_dir: Path) -> None:
    """Remove a section's sidecar, and its files that the sidecar lists.

    A sidecar may be somebody else's: only what lies in the stage's folder and is named as a file of
    this section is removed.
    """
    content = _content(sidecar)
    sidecar.unlink(missing_ok=True)
    for name in content.row.files if content is not None else ():
        try:
            path = inside(out_dir, name)
        except ReceiptError as error:
            logger.warning(f"{sidecar}: {error}: left alone")
            continue
        of_section = {f"{sidecar.stem}{ending}" for ending in SECTION_ENDINGS}
        if path.name in of_section:
            path.unlink(missing_ok=True)
        elif f"{path.parent.name}/{path.name}" in of_section:  # a folder, of which it is the root
            remove_tree(path.parent)


def _sweep(out_dir: Path, chunk: str, sections: set[str]) -> None:
    """Remove what this chunk once made for sections that are no longer in it."""
    for sidecar in (out_dir / SECTIONS).glob("*.json"):
        if sidecar.stem not in sections:
            content = _content(sidecar)
            if content is not None and content.chunk == chunk:
                _forget(sidecar, out_dir)


def check_chunks(sections: Mapping[Path, Collection[str]]) -> None:
    """Compare receipts of one stage with its sidecars, which say of which chunk a section is.

    Parameters
    ----------
    sections : receipt -> the ids that it has.

    Raises
    ------
    ReceiptError
        A receipt lacks a section.
    """
    receipts = {(receipt.parents[1], receipt.stem): receipt for receipt in sections}
    for folder in {folder for folder, _ in receipts}:
        for path in sorted((folder / SECTIONS).glob("*.json")):
            sidecar = _content(path)
            receipt = receipts.get((folder, sidecar.chunk)) if sidecar is not None else None
            if receipt is not None and path.stem not in sections[receipt]:
                raise ReceiptError(
                    f"{receipt}: lacks section {path.stem!r}, which {path} says is of it; remove"
                    " the receipt, and the workflow makes it anew"
                )
