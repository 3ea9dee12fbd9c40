"""What minutes of training buy: Dice, or simulated landmark error, after each of several budgets.

    python benchmarks/accuracy_over_time.py allen DATA WORK --minutes 1 5 15 [--set A.B=VALUE …]
    python benchmarks/accuracy_over_time.py allen DATA WORK --steps 440 1800 …

The workflow of `real_brain.py`, once per budget of the synthesis (`train_sbr`); the registrar is
made once, and its time stands beside. A budget in steps tells what minutes buy on a machine that
others use too: there the steps are the same, only slower. Run again with the same WORK, it goes on
where it stopped. Every budget is a training of its own, since the learning rate falls towards its
end.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from machine import heading
from real_brain import INPUTS, REPOSITORY, write_configuration

from sbr_core.config import UNLIMITED_STEPS
from sbr_core.io.tables import read_tsv, write_tsv


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
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 15, 60])
    group.add_argument("--steps", type=int, nargs="+", help="budgets in steps instead")
    parser.add_argument("--cores", default="all")
    parser.add_argument("--set", action="append", default=[], metavar="[SECTION.]KEY=VALUE")
    arguments = parser.parse_args()
    work, name = arguments.work.resolve(), arguments.input
    results, table = work / "results" / name, work / "accuracy.tsv"
    rows = read_tsv(table)[1] if table.is_file() else []
    if arguments.steps:
        budgets = {f"{n} steps": [f"train_sbr.steps={n}"] for n in arguments.steps}
    else:
        unlimited = f"train_sbr.steps={UNLIMITED_STEPS}"
        budgets = {f"{m:g} min": [f"train_sbr.minutes={m}", unlimited] for m in arguments.minutes}
    for budget, settings in budgets.items():
        if any(row["budget"] == budget for row in rows):
            continue
        write_configuration(name, arguments.data.resolve(), work, [*arguments.set, *settings])
        command = ["snakemake", "-s", REPOSITORY / "workflow" / "Snakefile"]
        done = subprocess.run([*command, "--cores", arguments.cores], cwd=work).returncode
        if done:
            return done
        row = {
            "budget": budget,
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
        numbers = [f"{float(row[c]):.4g}" for c in columns[1:]]
        print("| " + " | ".join([row["budget"], *numbers]) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
