"""Files that appear whole or not at all, JSON, and digests."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sbr_core.config import canonical_json
from sbr_core.errors import ImageError, ReceiptError, SbrError, StorageError, storage_fault


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, same suffixes, renamed onto it when the block ends well."""
    path = Path(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        # libraries hide a full disk behind errors of their own; now it is still full
        if reason := storage_fault(error, path.parent):
            raise StorageError(f"{path}: cannot be written: {reason}") from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON that this package wrote; ReceiptError naming the file when it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReceiptError(f"{path}: no such file") from None
    except ValueError as error:
        raise ReceiptError(f"{path}: not readable as JSON: {error}") from None


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
    """Hex digest of a file's bytes; ReceiptError when there is no such file to read."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise ReceiptError(f"{path}: no such file") from None
    except PermissionError:
        raise ReceiptError(f"{path}: may not be read (permission denied)") from None


def sha256_of(value: Any) -> str:
    """Hex digest of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
