"""Chunks that a brain is split into now, as its plan tells, and files of those it once was."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from sbr_core.errors import ReceiptError
from sbr_core.io.files import read_json

_CHUNK = re.compile(r"\d+of\d+")


class _Chunks(BaseModel):
    chunks: list[str]


def current_chunks(results_dir: Path) -> frozenset[str] | None:
    """Names of the chunks of a brain; None if unknown.

    Parameters
    ----------
    results_dir : the brain's folder of results.
    """
    try:
        return frozenset(read_json(results_dir / "plan" / "collect.json", _Chunks).chunks)
    except ReceiptError:
        return None


def is_of_other_chunk(path: Path, chunks: frozenset[str]) -> bool:
    """Whether a file is named after a chunk, and after none of `chunks`."""
    named = [part for part in path.name.split(".") if _CHUNK.fullmatch(part)]
    return bool(named) and named[0] not in chunks
