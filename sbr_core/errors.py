"""Errors that are the user's to mend: one clear line, exit code 2, no traceback."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TERMINATED = 143
"""Exit code after SIGTERM: 128 + 15, what a scheduler expects of a process it stopped."""

_STORAGE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}
"""Faults of the place a file is written to, not of the program."""
_LEAST_FREE_BYTES = 1 << 16
"""With less free, 64 KiB, a disk is full: a write that fails leaves a little less than it needs."""
_LONGEST = 1500
"""Characters of the one line of a fault. What a damaged file contains may be repeated in it, and a
longer one is read by nobody."""


class SbrError(Exception):
    """A fault in what the user gave: a file, a row, a key, a value.

    The message is one line that names the file, the row or the key, what was found and what
    was expected. The command line prints it without a traceback and exits with code 2. Of what is
    longer than a reader would follow the middle is left out, and characters that a terminal would
    not show, or would obey, are written as escapes.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        line = " ".join(str(message).split())
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


class ConfigError(SbrError):
    """A key or a value of the configuration."""


class ManifestError(SbrError):
    """A row or a column of a table the user wrote: manifest, sheet of brains, landmarks."""


class DownloadError(SbrError):
    """A file that cannot be had from the web, or is not the one it should be."""


class StorageError(SbrError):
    """A disk that is full, or a folder that may not be written to."""


class ImageError(SbrError):
    """An image or a volume that cannot be read or cannot be what it is said to be."""


class InputsError(SbrError):
    """Inputs of a brain that cannot belong together, each of which can be read."""


class AlignmentError(SbrError):
    """A stack and an MRI that do not come together."""


class WeightsError(SbrError):
    """Network weights that do not fit: another architecture, another format."""


class ReceiptError(SbrError):
    """A stage's receipt that does not match the files it lists."""


class TrainingError(SbrError):
    """Training that cannot go on: no data, a runaway or non-finite loss, a second trainer."""


def storage_fault(error: BaseException, folder: Path | None = None) -> str:
    """Why a file could not be written, in words, if the storage is to blame; otherwise "".

    Parameters
    ----------
    error : what was raised, with its causes.
    folder : where the file was to be; that its disk is full counts, whatever was raised.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _STORAGE:
            return os.strerror(cause.errno).lower()
        if os.strerror(errno.ENOSPC).lower() in str(cause).lower():  # safetensors, for one
            return os.strerror(errno.ENOSPC).lower()
        cause = cause.__cause__ or cause.__context__
    if folder is None or isinstance(error, SbrError):
        return ""
    try:
        full = shutil.disk_usage(folder).free < _LEAST_FREE_BYTES
    except OSError:
        return ""
    return os.strerror(errno.ENOSPC).lower() if full else ""


@contextmanager
def storage_named(path: Path) -> Iterator[None]:
    """Raise StorageError that names what was to be written, where the storage is to blame.

    What was begun is to be removed outside of the block: while it is there, a full disk still is.
    """
    try:
        yield
    except Exception as error:
        # libraries hide a full disk behind errors of their own; now it is still full
        if reason := storage_fault(error, path.parent):
            raise StorageError(f"{path}: cannot be written: {reason}") from error
        raise


def some_of(items: Sequence[str], most: int = 5) -> str:
    """The first of them, separated by commas, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
