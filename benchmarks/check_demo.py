"""Whether a method keeps what the demo promises, by its published table.

    python benchmarks/check_demo.py [SUMMARY_TSV] [--method sbr]

On the demo's known truth a method must, against `linear`,

- at least halve the mean landmark error within the plane, ``in_plane_mm``,
- fold nowhere,
- raise the overlap of the reassembled labels, ``dice_volume``, of both classes.

Exit code 0 if it does, 1 if it does not, 2 if the table does not say. ``--method linear`` is the
identity field, and fails.

This is a guard against what breaks. The goal is more: to leave at most 0.4 of linear's error
(``2026-11-25_demo.md``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sbr_core.errors import ManifestError, SbrError
from sbr_core.io.tables import read_tsv

SUMMARY = Path("results/demo/evaluation/summary.tsv")
CLASSES = {"2": "white matter", "3": "grey matter"}


def read_summary(path: Path) -> dict[tuple[str, str, str, str], float]:
    """(method, metric, class, statistic) -> value."""
    keys = ("method", "metric", "class", "statistic")
    return {tuple(row[k] for k in keys): float(row["value"]) for row in read_tsv(path)[1]}


def checks(
    summary: dict[tuple[str, str, str, str], float], method: str, path: Path
) -> list[tuple[str, float, float, str, bool]]:
    """(what, value of `linear`, value of `method`, what must be, whether it holds).

    Raises
    ------
    ManifestError
        The table lacks a value.
    """

    def both(metric: str, class_: str, statistic: str) -> tuple[float, float]:
        keys = [(name, metric, class_, statistic) for name in ("linear", method)]
        for key in keys:
            if key not in summary:
                raise ManifestError(f"{path}: has no {' '.join(filter(None, key))}")
        return summary[keys[0]], summary[keys[1]]

    linear, ours = both("in_plane_mm", "", "mean")
    rows = [("in_plane_mm, mean", linear, ours, "at most half", ours <= linear / 2)]
    # the largest share of any section: none may fold
    linear, ours = both("folding", "", "max")
    rows.append(("folding, worst section", linear, ours, "0", ours == 0))
    for class_, name in CLASSES.items():
        linear, ours = both("dice_volume", class_, "value")
        rows.append((f"dice_volume, {name}", linear, ours, "more", ours > linear))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Print the table of checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("summary", nargs="?", type=Path, default=SUMMARY)
    parser.add_argument("--method", default="sbr")
    arguments = parser.parse_args(argv)
    try:
        rows = checks(read_summary(arguments.summary), arguments.method, arguments.summary)
    except SbrError as error:
        print(f"check_demo: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{'':28}{'linear':>10}{arguments.method:>10}  must be")
    for what, linear, ours, asked, holds in rows:
        print(f"{what:28}{linear:10.4f}{ours:10.4f}  {asked:14}{'yes' if holds else 'NO'}")
    return 0 if all(holds for *_, holds in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
