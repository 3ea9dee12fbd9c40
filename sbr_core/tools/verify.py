"""`sbr verify`: whether finished results are still what was written."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from sbr_core.artifacts.cells import files_of_cell
from sbr_core.artifacts.chunks import current_chunks
from sbr_core.artifacts.names import CHUNKS, SECTIONS, TABLE
from sbr_core.artifacts.receipts import check_chunks, read_sidecar
from sbr_core.artifacts.rows import read_cells, stage_dir
from sbr_core.errors import ReceiptError, SbrError
from sbr_core.io.files import SUMS, inside, parse_json, sha256_file, walk
from sbr_core.io.sums import check_gzip, check_sum
from sbr_core.io.weights import read_header
from sbr_core.report.page import read_png

logger = logging.getLogger(__name__)


def run(options: None, results: Path) -> None:
    """Look at every file of finished results, and name what is not as it was written.

    Compares with recorded sums, tables with their sections and files, and reads what has no sum to
    its own checksum. Nothing is changed; what is named can be removed, and the workflow makes it
    anew.

    Parameters
    ----------
    results : folder of all results, or of one brain.

    Raises
    ------
    ReceiptError
        Something does not match; it was logged before, a line each.
    """
    if not results.is_dir():
        raise ReceiptError(f"{results}: no such folder")
    check = _Check()
    faults = [*check.of_folder(results)]
    for fault in faults:
        logger.error(f"verify: {fault}")
    compared = f"{len(check.summed)} of {check.n_files} files compared with a recorded sum"
    if faults:
        raise ReceiptError(f"{results}: {len(faults)} faults, named above; {compared}")
    logger.info(f"verify: {results}: all is as it was written; {compared}")


class _Check:
    """What was looked at so far.

    Attributes
    ----------
    summed : files that a recorded sum was compared with: once, though a sidecar and two tables
        list the same file.
    """

    def __init__(self) -> None:
        self.n_files = 0
        self.summed: set[Path] = set()

    def of_folder(self, folder: Path) -> Iterator[str]:
        """A line for each fault below a folder."""
        files = []
        for path, why in walk(folder):
            if why:
                yield f"{path}: {why}"
            else:
                files.append(Path(path))
        files.sort()
        lists = [path for path in files if _is_list(path)]
        for path in lists:
            yield from self._of_list(path)
        for folder in dict.fromkeys(path.parent for path in lists if path.parent.name == CHUNKS):
            if fault := _fault(lambda folder=folder: check_chunks(self._sections_of(folder))):
                yield fault
        for path in files:
            if path.name.startswith("."):  # of a killed run, or of a file browser
                continue
            if path.parent.name == SUMS:
                target = path.parent.parent / path.name.removesuffix(".json")
                if not target.is_file():
                    yield f"{target}: missing, although {path} records its sum"
            else:
                self.n_files += 1
                if fault := _fault(lambda path=path: self._of_file(path)):
                    yield fault

    def _of_list(self, path: Path) -> Iterator[str]:
        """Faults of the files that a sidecar or a table of sections lists."""
        listed: dict[str, str] = {}
        try:
            if path.suffix == ".json":
                listed = read_sidecar(path).row.files
                folder = path.parent.parent
            else:
                folder = stage_dir(path)
                for row in read_cells(path)[1]:
                    listed |= files_of_cell(row.get("files", ""))
        except (SbrError, ValueError) as error:
            yield str(error) if str(path) in str(error) else f"{path}: {error}"
        for name, sha256 in listed.items():
            if fault := _fault(
                lambda name=name, sha256=sha256: self._compare(folder, name, sha256)
            ):
                yield f"{fault} ({path} lists it)"

    def _compare(self, folder: Path, name: str, sha256: str) -> None:
        file = inside(folder, name)
        if file in self.summed:
            return
        self.summed.add(file)
        if sha256_file(file) != sha256:
            raise ReceiptError(f"{file}: its sha256 is another than was recorded")

    def _sections_of(self, chunks: Path) -> dict[Path, set[str]]:
        """Receipt -> its sections, of those in a folder that can be read."""
        sections = {}
        for receipt in filter(_is_list, sorted(chunks.glob("*.tsv"))):
            with suppress(SbrError):
                sections[receipt] = {row["section"] for row in read_cells(receipt)[1]}
        return sections

    def _of_file(self, path: Path) -> None:
        """Compare a file with its record; without one, read it to its own checksum."""
        if check_sum(path) is not None:
            self.summed.add(path)
        elif path not in self.summed and (read := _READERS.get(path.suffix)) is not None:
            read(path)


def _is_list(path: Path) -> bool:
    """Whether a file is a sidecar or a table of sections with their files."""
    if path.parent.name == SECTIONS:
        return path.suffix == ".json"
    if path.parent.name == CHUNKS:
        return path.suffix == ".tsv" and not _is_outdated(path)
    return path.name == TABLE and (path.parent / CHUNKS).is_dir()


def _is_outdated(receipt: Path) -> bool:
    """Whether a receipt is of a chunk that there is no more: the brain was split anew since."""
    chunks = _chunks_of(receipt.parent)
    return chunks is not None and receipt.stem not in chunks


@cache
def _chunks_of(folder: Path) -> frozenset[str] | None:
    """Chunks, by its plan, of the brain that a folder of receipts is of; None if unknown."""
    # of a comparison's method it is one higher
    found = (current_chunks(above) for above in folder.parents[1:3])
    return next((chunks for chunks in found if chunks is not None), None)


def _fault(check: Callable[[], None]) -> str:
    """What a check found wrong; empty for nothing."""
    try:
        check()
    except SbrError as error:
        return str(error)
    return ""


def _of_json(path: Path) -> None:
    try:
        parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReceiptError(f"{path}: not readable as JSON: {error}") from None


def _of_checkpoint(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # of a damaged archive it raises many
        raise ReceiptError(f"{path}: not readable as a checkpoint: {error}") from None
    if damaged is not None:
        raise ReceiptError(f"{path}: the checksum of {damaged} differs")


_READERS: dict[str, Callable[[Path], object]] = {
    ".gz": lambda path: check_gzip(path, path.stat().st_size << 10),
    ".png": lambda path: read_png(path.parent, path.name),
    ".json": _of_json,
    ".pt": _of_checkpoint,
    ".safetensors": read_header,
}
"""How a file without a recorded sum is read to its end, by its suffix."""
