"""Large arrays on disk, so that memory holds a part of them."""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import numpy as np

from sbr_core.errors import StorageError, storage_fault


def scratch_array(
    folder: Path, dtype: Any, shape: tuple[int, ...], order: Literal["C", "F"] = "F"
) -> np.ndarray:
    """An array of zeros in a file that has no name, so that it goes however the process ends.

    Its room is taken at once: where the disk is full, writing into a mapped page would end the
    process by a signal, without a word.

    Parameters
    ----------
    order : F has the first index fastest, as NIfTI is written.

    Raises
    ------
    StorageError
        There is no room for it.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    with TemporaryFile(prefix=".tmp-", dir=folder) as stream:
        if hasattr(os, "posix_fallocate"):  # macOS has none
            try:
                os.posix_fallocate(stream.fileno(), 0, n_bytes)
            except OSError as error:
                if reason := storage_fault(error):
                    room = f"room for {n_bytes / 2**20:.0f} MiB of scratch"
                    raise StorageError(f"{folder}: {room} cannot be had: {reason}") from error
                raise
        return np.memmap(stream, dtype, "w+", shape=shape, order=order)


def let_go(array: np.ndarray) -> None:
    """Keep what was written to an array on disk there alone, where it is one.

    Otherwise all that was ever touched counts as the memory of the process, until the system needs
    some; what is touched again is read again.
    """
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    # of views, the last memmap on the way to the file has it
    if array is not None and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)
