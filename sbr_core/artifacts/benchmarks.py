"""How long the jobs of a brain took: the benchmark files that the workflow writes of each job."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sbr_core.artifacts.chunks import current_chunks, is_of_other_chunk
from sbr_core.errors import SbrError
from sbr_core.io.tables import read_tsv

BENCHMARKS = "benchmarks"
"""Their folder, in that of a brain."""


@dataclass(frozen=True)
class Benchmark:
    """One finished job.

    Attributes
    ----------
    parts : its path below `BENCHMARKS`, without the suffix: the rule, then what tells its jobs
        apart, as ``("infer", "sbr", "1of4")``.
    wall_s, cpu_s : seconds on the clock, and of all cores together; the latter NaN if unknown.
    """

    parts: tuple[str, ...]
    wall_s: float
    cpu_s: float

    @property
    def rule(self) -> str:
        """The rule of the job, or ``compare`` for all jobs of a comparison."""
        return self.parts[0]


def read_benchmarks(results_dir: Path) -> Iterator[Benchmark]:
    """Every job of a brain that was measured, sorted by path; damaged files are passed over.

    So are jobs of chunks that there are no more.

    Parameters
    ----------
    results_dir : the brain's folder of results.
    """
    folder = results_dir / BENCHMARKS
    chunks = current_chunks(results_dir)
    for path in sorted(folder.rglob("*.tsv")):
        if chunks is not None and is_of_other_chunk(path, chunks):
            continue
        parts = path.relative_to(folder).with_suffix("").parts
        with suppress(SbrError, OSError, IndexError, KeyError):
            cells = read_tsv(path)[1][-1]
            wall_s = _seconds(cells["s"])
            if math.isfinite(wall_s):
                yield Benchmark(parts, wall_s, _seconds(cells.get("cpu_time", "")))


def _seconds(text: str) -> float:
    """A number of seconds; NaN for what is none: jobs that were too short have ``NA``."""
    try:
        return float(text)
    except ValueError:
        return math.nan
