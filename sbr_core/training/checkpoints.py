"""Checkpoints of a training: their folder, its lock, and which training they are of."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sbr_core.errors import TrainingError, storage_named
from sbr_core.training.stacks import Column

KEPT_CHECKPOINTS = 2
"""One to go on from, and the one before in case it is damaged."""
_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, NotImplementedError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)
"""What reading half a file can raise."""

logger = logging.getLogger(__name__)


def fingerprint(*tensors: Tensor | Column) -> str:
    """Hex digest of the shapes and bytes of tensors: the data's part of a checkpoint key."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if isinstance(tensor, Column):  # the same as of its tensor
            digest.update(f"float32{tensor.shape}".encode())
            for array in tensor:
                digest.update(array.tobytes())
            continue
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def checkpoint_key(stage: str, revision: int, options: Mapping[str, Any], data: str) -> str:
    """Name of the checkpoint folder: another option, data or revision is another training."""
    facts = json.dumps([stage, revision, dict(options), data], sort_keys=True)
    return f"{stage}-{hashlib.sha256(facts.encode()).hexdigest()[:20]}"


class CheckpointFolder:
    """The locked folder of one training. Made by `open_checkpoints`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: dict[str, Any]) -> None:
        """Write the state of a step, on disk before it gets its name; keep the last two."""
        path = self.path / f"step-{state['step']:09d}.pt"
        temporary = path.with_suffix(".tmp")
        try:
            with storage_named(path):
                with open(temporary, "wb") as stream:
                    torch.save(state, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, path)
        except Exception:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(self.path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        for old in self._steps()[:-KEPT_CHECKPOINTS]:
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest readable state, on the CPU, or None."""
        for path in reversed(self._steps()):
            try:
                with zipfile.ZipFile(path) as archive:  # torch passes the checksums over
                    if (damaged := archive.testzip()) is not None:
                        raise ValueError(f"the checksum of {damaged} differs")
                return torch.load(path, map_location="cpu", weights_only=True)
            except _DAMAGE as error:
                logger.warning(f"{path}: damaged, taking the one before ({error})")
        return None

    def clear(self) -> None:
        """Forget the checkpoints; the folder itself stays until the lock is given back."""
        for path in [*self._steps(), *self.path.glob("*.tmp")]:
            path.unlink()

    def _steps(self) -> list[Path]:
        return sorted(self.path.glob("step-*.pt"))


@contextlib.contextmanager
def open_checkpoints(root: Path, key: str, *, fresh: bool = False) -> Iterator[CheckpointFolder]:
    """Hold the checkpoint folder ``root/key``; nothing of it is left once it was cleared.

    Parameters
    ----------
    fresh : forget what is there.

    Raises
    ------
    TrainingError
        Another process trains in this folder.
    """
    path = Path(root) / key
    lock = _lock(path)
    try:
        for left_over in path.glob("*.tmp"):  # of a process killed while writing
            left_over.unlink()
        folder = CheckpointFolder(path)
        if fresh:
            folder.clear()
        yield folder
    finally:
        if not list(path.glob("step-*.pt")):
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(path: Path) -> int:
    """Descriptor of the locked file ``path/lock``; the system frees it when the process dies."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # whoever finished just now took the folder away
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise TrainingError(
                f"{path}: another process is training here (it holds {path / 'lock'});"
                " wait for it or stop it"
            ) from None
        try:
            if os.fstat(lock).st_ino == os.stat(path / "lock").st_ino:
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # locked a file that had just been removed
