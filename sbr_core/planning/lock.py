"""Whose lock of the working directory it is, and whether that run is no more.

Snakemake's own lock are files, which a killed run leaves behind. So a run also holds a lock of the
kernel's on a note of its own, which the kernel frees when the process dies, however it dies: no
clock, no process number and no name of a machine decides.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel

from sbr_core.errors import ReceiptError
from sbr_core.io.files import atomic_path, read_json

logger = logging.getLogger(__name__)

LOCKS = Path(".snakemake/locks")
"""Where Snakemake keeps its lock of the working directory."""
RUNNING = Path(".snakemake/sbr_running.json")
"""The note of the run that holds that lock, locked itself: there from the start of a run to its
end, unless it is killed."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OF_ONE_KERNEL = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"),
    *("tmpfs", "overlay", "apfs", "hfs"),
}
"""File systems that one kernel mounts at a time, so that it knows every lock on them."""

_held: int | None = None
"""Descriptor of the locked note, open as long as this run goes on."""


class _Note(BaseModel):
    """Which run it is.

    Attributes
    ----------
    boot : of the kernel, since it was started; another one for each machine. Empty where there is
        none, and in notes of before it was written.
    """

    pid: int
    host: str = ""
    boot: str = ""


def boot_id() -> str:
    """What tells this kernel, since it was started, from every other one; empty if unknown."""
    with suppress(OSError):
        return _BOOT.read_text().strip()
    return ""


def note_running() -> None:
    """Write down, and lock, that this process holds Snakemake's lock."""
    global _held
    note = {"host": platform.node(), "pid": os.getpid(), "boot": boot_id()}
    with atomic_path(RUNNING) as temporary:  # there once it is locked and whole
        _held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            fcntl.flock(_held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # without locks nothing can be told later: it will be left alone
            logger.debug(f"{RUNNING}: {error}")
            note["boot"] = ""
        os.write(_held, json.dumps(note).encode())


def forget_running() -> None:
    """Remove that note: the run ended by itself, and Snakemake takes its lock away."""
    global _held
    RUNNING.unlink(missing_ok=True)
    if _held is not None:
        os.close(_held)
        _held = None


def remove_lock_of_killed_run() -> None:
    """Remove the lock of a run that was killed, so that the same command goes on.

    The lock of a living process stays, and Snakemake explains it. So does one of which this kernel
    cannot know; how to remove it is logged.
    """
    try:
        note = os.open(RUNNING, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # it lives
        except OSError:
            return _left_alone()
        if not _is_the_note(note):
            return  # that run ended just now, and another one may have begun
        try:
            run = read_json(RUNNING, _Note)
        except ReceiptError:
            return _left_alone()
        if not run.boot or (run.boot != boot_id() and not _one_kernel_knows(RUNNING)):
            return _left_alone()
        RUNNING.unlink(missing_ok=True)
        locks = list(LOCKS.glob("*"))
        for lock in locks:
            lock.unlink(missing_ok=True)
        if locks:
            logger.warning(f"process {run.pid} held the lock and was killed: lock removed")
    finally:
        os.close(note)


def _is_the_note(descriptor: int) -> bool:
    """Whether an open file is the one that the note's path leads to."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.stat(RUNNING))
    return False


def _left_alone() -> None:
    """Log how to remove a lock that may be of a run elsewhere."""
    if any(LOCKS.glob("*")):
        logger.warning(
            f"{LOCKS}: whether the run that holds this lock lives cannot be told from here (another"
            f" machine, or {RUNNING} is damaged); if it does not: snakemake --unlock"
        )


def _one_kernel_knows(path: Path) -> bool:
    """Whether a path is on a file system that no other machine can have mounted."""
    path = path.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if path.is_relative_to(m.mountpoint)]
    # of two on one folder the later one is seen
    nearest = max(reversed(mounts), key=lambda mount: len(mount.mountpoint), default=None)
    return nearest is not None and nearest.fstype in _OF_ONE_KERNEL
