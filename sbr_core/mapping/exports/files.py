"""The files of an export: known by name before they are made, written all or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sbr_core.errors import ConfigError, storage_named


@dataclass(frozen=True)
class Export:
    """What is to be written.

    Attributes
    ----------
    files : name below the output folder -> what writes it to a path.
    told : what is to be said of it, a line each.
    doubts : what is doubtful about it, a line each.
    """

    files: Mapping[str, Callable[[Path], object]]
    told: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def write_export(out: Path, export: Export, force: bool) -> None:
    """Write all files to a temporary folder, then move them into `out`.

    What else is in `out` stays there, which is why it is not replaced as a whole.

    Raises
    ------
    ConfigError
        `out` is a file, or contains one of the files and `force` is not set.
    StorageError
        The disk is full, or may not be written to; `out` is then as it was.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out} is a file; expected a folder")
    for name in export.files:
        there = out / name
        if there.is_dir() or (os.path.lexists(there) and not force):
            raise ConfigError(f"--out: {there} exists; --force writes over files")
    is_new = not out.exists()
    try:
        with storage_named(out):
            out.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".tmp-", dir=out) as folder:
                made = Path(folder)
                for name, write in export.files.items():
                    (made / name).parent.mkdir(parents=True, exist_ok=True)
                    write(made / name)
                for name in export.files:
                    (out / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(made / name, out / name)
    except Exception:
        if is_new:
            with suppress(OSError):
                out.rmdir()
        raise
