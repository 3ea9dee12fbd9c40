"""What minutes of training buy: Dice, or simulated landmark error, after each of several budgets.

    python benchmarks/accuracy_over_time.py allen DATA WORK --minutes 1 5 15 [--set A.B=VALUE …]

The workflow of `real_brain.py`, once per budget of `train_sbr.minutes`; the registrar is made once,
and its time stands beside. Run again with the same WORK, it goes on where it stopped. Every budget
is a training of its own, since the learning rate falls towards its end.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from machine import heading
from real_brain import INPUTS, REPOSITORY, write_configuration

from sbr_core.config import UNLIMITED_STEPS
from sbr_core.io.manifests import read_tsv, write_tsv


def last_second(losses: Path) -> float:
    """How long a training took, s; 0 where nothing was trained here."""
    return float(read_tsv(losses)[1][-1].get("seconds") or 0)


def figures(results: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(metric, class) -> method -> mean, of what tells accuracy."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in read_tsv(results / "evaluation" / "summary.tsv")[1]:
        if row["metric"] in ("dice", "in_plane_mm") and row["statistic"] == "mean":
            key = row["metric"], row["class"]
            found.setdefault(key, {})[row["method"]] = float(row["value"])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", choices=INPUTS)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 15, 60])
    parser.add_argument("--cores", default="all")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    work, name = arguments.work.resolve(), arguments.input
    results, table = work / "results" / name, work / "accuracy.tsv"
    rows = read_tsv(table)[1] if table.is_file() else []
    for minutes in arguments.minutes:
        if any(float(row["budget_min"]) == minutes for row in rows):
            continue
        budget = [f"train_sbr.minutes={minutes}", f"train_sbr.steps={UNLIMITED_STEPS}"]
        write_configuration(name, arguments.data.resolve(), work, [*arguments.set, *budget])
        command = ["snakemake", "-s", REPOSITORY / "workflow" / "Snakefile"]
        done = subprocess.run([*command, "--cores", arguments.cores], cwd=work).returncode
        if done:
            return done
        row = {
            "budget_min": minutes,
            "registrar_min": last_second(results / "registrar" / "loss.tsv") / 60,
            "sbr_min": last_second(results / "sbr" / "loss.tsv") / 60,
            "steps": len(read_tsv(results / "sbr" / "loss.tsv")[1]),
        }
        for (metric, label), of in figures(results).items():
            for method, value in of.items():
                row[" ".join(filter(None, (metric, label, method)))] = value
        rows.append(row)
        write_tsv(table, rows)

    print(heading(f"Accuracy over time on {name}"))
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(f"{float(row[c]):.4g}" for c in columns) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
