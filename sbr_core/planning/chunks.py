"""Which chunk of its brain a section belongs to.

Importing torch and loading weights costs seconds, a section costs milliseconds, so the
per-section stages work on chunks. A section's chunk follows from its id alone, so adding,
excluding or moving other rows never shuffles it; only when a brain outgrows a power of two are
all chunks split anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

MOST_CHUNKS = 128
"""Of a brain: each chunk is a job in every stage, and each job costs seconds to start."""


def number_of_chunks(n_rows: int, chunk_size: int) -> int:
    """The smallest power of two of chunks whose mean size is at most `chunk_size`.

    At most `MOST_CHUNKS`; a brain of more sections than they hold has larger ones.
    """
    if n_rows < 1 or chunk_size < 1:
        raise ValueError(f"{n_rows} rows in chunks of {chunk_size}: expected at least 1 of each")
    chunks = 1
    while chunks * chunk_size < n_rows and chunks < MOST_CHUNKS:
        chunks *= 2
    return chunks


def chunk_of(section: str, n_chunks: int) -> str:
    """Name of the chunk of a section: ``3of8``, counted from 1.

    The number is a hash of the id modulo `n_chunks`: the same on every machine and in every run.
    """
    digest = hashlib.sha256(section.encode()).digest()
    return f"{int.from_bytes(digest[:8], 'big') % n_chunks + 1}of{n_chunks}"


def chunks_of(sections: Iterable[str], n_rows: int, chunk_size: int) -> dict[str, list[str]]:
    """Chunk name -> its sections in the order given; only chunks that have sections, by number.

    Parameters
    ----------
    n_rows : rows of the whole manifest, excluded ones too, so that excluding never splits anew.
    """
    n_chunks = number_of_chunks(n_rows, chunk_size)
    members: dict[str, list[str]] = {}
    for section in sections:
        members.setdefault(chunk_of(section, n_chunks), []).append(section)
    return dict(sorted(members.items(), key=lambda item: int(item[0].split("of")[0])))
