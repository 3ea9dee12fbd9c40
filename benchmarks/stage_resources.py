"""Wall time and memory of each rule in finished runs, and a profile's lines for them.

    python benchmarks/stage_resources.py RESULTS [RESULTS ...]

reads the files that Snakemake's `benchmark:` leaves in ``RESULTS/benchmarks`` and
``RESULTS/{brain}/benchmarks``, and prints the largest use of every rule as a table and as
``set-resources`` of ``workflow/profiles/slurm``: twice that, at least 2 GB and 10 minutes, times
the attempt. Memory is the sum over a job's processes, looked at now and then; of a job of a few
seconds it may be seen too early, which the 2 GB are for.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections import defaultdict
from pathlib import Path

MARGIN = 2
LEAST_MB, LEAST_MIN = 2000, 10
STEP_MB, STEP_MIN = 500, 10
RULE_OF_FILE = {
    "compare/evaluate": "evaluate_compared",
    "compare/compare": "compare_methods",
    "simulate": "simulate_pairs",
}


def rule_of(path: Path) -> str:
    """The rule a benchmark file belongs to, by its place below the folder ``benchmarks``."""
    below = path.parts[path.parts.index("benchmarks") + 1 :]
    name = "/".join(below).removesuffix(".tsv")
    return RULE_OF_FILE.get(name, below[0].removesuffix(".tsv"))


def measured(results: list[Path]) -> dict[str, tuple[int, float, float]]:
    """Rule -> (jobs measured, longest wall time in s, largest memory in MB)."""
    found = defaultdict(list)
    for folder in results:
        files = (*folder.glob("benchmarks/**/*.tsv"), *folder.glob("*/benchmarks/**/*.tsv"))
        for path in files:
            with open(path, newline="") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    # of a job that was over before the first look there is no memory
                    memory = float(row["max_rss"]) if row["max_rss"] not in ("NA", "-") else 0.0
                    found[rule_of(path)].append((float(row["s"]), memory))
    return {
        rule: (len(jobs), max(s for s, _ in jobs), max(mb for _, mb in jobs))
        for rule, jobs in sorted(found.items())
    }


def asked_for(wall_s: float, memory_mb: float) -> tuple[int, int]:
    """Memory in MB and minutes to ask for."""
    mb = math.ceil(MARGIN * memory_mb / STEP_MB) * STEP_MB
    minutes = math.ceil(MARGIN * wall_s / 60 / STEP_MIN) * STEP_MIN
    return max(LEAST_MB, mb), max(LEAST_MIN, minutes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path)
    use = measured(parser.parse_args().results)
    if not use:
        sys.exit("no benchmark files below these folders")
    print("| rule | jobs | longest, s | largest, MB |\n|---|---|---|---|")
    for rule, (jobs, wall_s, memory_mb) in use.items():
        print(f"| {rule} | {jobs} | {wall_s:.0f} | {memory_mb:.0f} |")
    print("\nset-resources:")
    for rule, (_, wall_s, memory_mb) in use.items():
        mb, minutes = asked_for(wall_s, memory_mb)
        print(f"  {rule}: {{mem_mb: {mb} * attempt, runtime: {minutes} * attempt}}")


if __name__ == "__main__":
    main()
