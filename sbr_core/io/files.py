"""Files that appear whole or not at all and stay inside their folder, JSON, and digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sbr_core.config import canonical_json
from sbr_core.errors import ImageError, ReceiptError, SbrError, StorageError, storage_named

_DEEPEST = 64
"""Levels of a JSON artefact, and of folders; what this package writes has fewer than ten."""

SUMS = ".sums"
"""Name of the folder of recorded sums, beside the files."""

T = TypeVar("T")


def inside(root: Path, name: str) -> Path:
    """The file below `root` that a table, a sidecar or a page names, whether it is there or not.

    Such names come with results, which may be somebody else's.

    Raises
    ------
    ReceiptError
        A name that is absolute, goes up by ``..``, goes through a link out of the folder, or is
        that of a folder, a pipe or a device, or of nothing that a disk can have.
    """
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts:
        raise ReceiptError(f"{root}: lists the file {name!r}, which is not inside this folder")
    path = root / name
    steps = [path, *path.parents[: len(parts.parts) - 1]]
    try:
        is_outside = any(step.is_symlink() for step in steps) and not (
            path.resolve().is_relative_to(root.resolve())
        )
        is_odd = not is_outside and not stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (ValueError, RuntimeError, OSError) as error:  # no name of a file; links in a circle
        raise ReceiptError(f"{root}: lists the file {name!r}, which is none: {error}") from None
    if is_outside:
        raise ReceiptError(f"{path}: is a link that leads out of {root}")
    if is_odd:
        raise ReceiptError(f"{path}: is listed as a file, and is none")
    return path


def walk(folder: Path) -> Iterator[tuple[str, str]]:
    """What is below a folder of results, which itself may be a link.

    Yields
    ------
    The path of each entry that is no folder, or of a folder that cannot be gone through; and what
    is wrong with it, in words: "" for a file.
    """
    waiting = [(os.fspath(folder), 0)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):  # of a job that runs, or not there at all
            continue
        except OSError as error:
            # what may be read by name alone is read by jobs; into the rest nobody gets
            if os.access(folder, os.X_OK) or not isinstance(error, PermissionError):
                yield folder, f"its files cannot be listed: {error.strerror}"
            continue
        for entry in entries:
            if entry.is_symlink():
                yield entry.path, "is a link, and results may contain none"
            elif entry.is_file(follow_symlinks=False):
                yield entry.path, ""
            elif not entry.is_dir(follow_symlinks=False):
                if os.path.lexists(entry):  # not of a job that runs
                    yield entry.path, "is a pipe or a device, and results may contain none"
            elif depth < _DEEPEST:
                waiting.append((entry.path, depth + 1))
            else:
                yield entry.path, f"lies {_DEEPEST} folders deep, and results never do"


def refuse_links(folder: Path) -> None:
    """StorageError where a folder of results is a link or contains one, or what is no file.

    A job would write through a link, to wherever whoever made these results wants, and wait for a
    pipe forever.
    """
    odd = ((path, why) for path, why in walk(folder) if why)
    if Path(folder).is_symlink():
        odd = iter([(folder, "is a link, and results may contain none")])
    for path, why in odd:
        raise StorageError(
            f"{path}: {why}: jobs write there; put a file or a folder in its place, or remove it"
            " (the folder of all results itself may be a link)"
        )


def sum_file(path: Path) -> Path:
    """Where the record of a file's sum is, if it has one; see `sums`."""
    return Path(path).parent / SUMS / f"{Path(path).name}.json"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, same suffixes, renamed onto it when the block ends well.

    A link under either name is replaced, not followed.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with storage_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            yield temporary
            # of what was there before; killed between the two: a file without a record, as any
            sum_file(path).unlink(missing_ok=True)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed onto it when the block ends well.

    What was there before is removed then, and not earlier; a link is replaced, not followed.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    old = path.with_name(f".old-{os.getpid()}-{path.name}")
    try:
        with storage_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_tree(temporary)
            temporary.mkdir()
            yield temporary
            if os.path.lexists(path):
                remove_tree(old)
                os.replace(path, old)
            os.replace(temporary, path)
    finally:
        for left in (temporary, old):
            with suppress(OSError):
                remove_tree(left)


def remove_tree(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys, whole or not at all."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Indented JSON with sorted keys."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def parse_json(text: str) -> Any:
    """A JSON value of at most `_DEEPEST` levels; ValueError for anything else."""
    try:
        value = json.loads(text)
    except RecursionError:
        value = None
    else:
        if _is_shallow(value, _DEEPEST):
            return value
    raise ValueError(f"nested more than {_DEEPEST} levels deep")


def _is_shallow(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in parts)


def read_json(path: Path, kind: type[T] = dict[str, Any]) -> T:
    """Read JSON that this package wrote.

    Parameters
    ----------
    kind : what it must be, as pydantic checks it.

    Raises
    ------
    ReceiptError
        No such file; not JSON, nested too deeply, or not of that kind.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise ReceiptError(f"{path}: is no file")
        value = parse_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReceiptError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise ReceiptError(f"{path}: not readable as JSON: {error}") from None
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"])
        raise ReceiptError(
            f"{path}: damaged{f': {where}' if where else ''}: {first['msg']}"
        ) from None


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def check_is_file(path: Path, error: type[SbrError] = ImageError, where: str = "") -> None:
    """Refuse a path that is no file to read, in words that tell what is there instead."""
    path = Path(path)
    try:
        if path.is_file():
            return
        if path.is_dir():
            what = "is a folder, expected a file"
        elif path.is_symlink():
            what = "no such file: it is a link to nothing, or round in a circle"
        else:
            what = "no such file"
    except OSError as fault:  # a name that is too long, a folder that may not be entered
        what = f"no such file: {fault.strerror}"
    raise error(f"{where}{path}: {what}")


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes; ReceiptError when there is no such file to read.

    Of a folder (of DICOM files), that of the names and digests of its files.
    """
    path = Path(path)
    if path.is_dir():
        return sha256_of({p.name: sha256_file(p) for p in path.iterdir() if p.is_file()})
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise ReceiptError(f"{path}: no such file") from None
    except PermissionError:
        raise ReceiptError(f"{path}: may not be read (permission denied)") from None
    except OSError as error:
        raise ReceiptError(f"{path}: cannot be read: {error.strerror or error}") from None


def sha256_of(value: Any) -> str:
    """Hex digest of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()
