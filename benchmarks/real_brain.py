"""The whole workflow on one of the two real inputs, with a table of time and memory per stage.

    python benchmarks/real_brain.py allen DATA WORK [--cores N] [--set section.key=value …]
    python benchmarks/real_brain.py bigbrain DATA WORK …

DATA is the folder with the input's ``sections.tsv``; WORK a folder for configuration and results.
Run again with the same WORK, it goes on where it stopped. At the end it prints, as Markdown: the
stages, Dice or alignment error, and the sections that got worse than linear.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections import defaultdict
from datetime import date
from pathlib import Path

import yaml

from sbr_core.io.tables import read_tsv, write_tsv

REPOSITORY = Path(__file__).resolve().parents[1]
INPUTS = {
    "allen": {"prealigned": True},
    "bigbrain": {"mri": "mri.nii.gz", "orientation": "LIA"},
}
CHANGES = {"allen": {}, "bigbrain": {"prepare": {"working_pixel_mm": 0.4}}}


def write_configuration(name: str, data: Path, work: Path, settings: list[str]) -> None:
    """``config/`` of the run: the preset `cpu`, and what this input or the caller changes."""
    row = {"brain": name, "sections": str(data / "sections.tsv"), **INPUTS[name]}
    if "mri" in row:
        row["mri"] = str(data / row["mri"])
    write_tsv(work / "config" / "brains.tsv", [row])
    config = {"preset": "cpu", "methods": ["linear", "sbr"], **CHANGES[name]}
    for setting in settings:
        key, _, value = setting.partition("=")
        section, _, option = key.partition(".")
        found = yaml.safe_load(value)
        config[section] = {**config.get(section, {}), option: found} if option else found
    (work / "config" / "config.yaml").write_text(yaml.safe_dump(config))


def stages(folder: Path) -> dict[str, tuple[float, float, float]]:
    """Stage -> (wall seconds, CPU seconds, peak memory in MB), summed or maximal over its jobs."""
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for path in sorted(folder.rglob("*.tsv")):
        stage = "/".join(path.relative_to(folder).with_suffix("").parts)
        if path.parent != folder:
            stage = "/".join(path.parent.relative_to(folder).parts)
        for job in read_tsv(path)[1]:
            numbers = (job["s"], job["cpu_time"], job["max_rss"])
            if "-" not in numbers and "NA" not in numbers:
                found[stage].append(tuple(map(float, numbers)))
    return {
        stage: (sum(j[0] for j in jobs), sum(j[1] for j in jobs), max(j[2] for j in jobs))
        for stage, jobs in found.items()
    }


def worse_than_linear(evaluation: Path) -> list[str]:
    """Lines of the sections whose Dice with SbR is below that of linear."""
    values = {
        (r["section"], r["class"], r["method"]): float(r["value"])
        for r in read_tsv(evaluation / "sections.tsv")[1]
        if r["metric"] == "dice"
    }
    return [
        f"section {section}, class {label}: {values[section, label, 'linear']:.4f} -> {value:.4f}"
        for (section, label, method), value in values.items()
        if method == "sbr" and value < values[section, label, "linear"]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", choices=INPUTS)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--cores", default="all")
    parser.add_argument("--set", action="append", default=[], metavar="[SECTION.]KEY=VALUE")
    arguments = parser.parse_args()
    data, work, name = arguments.data.resolve(), arguments.work.resolve(), arguments.input
    write_configuration(name, data, work, arguments.set)
    done = subprocess.run(
        ["snakemake", "-s", REPOSITORY / "workflow" / "Snakefile", "--cores", arguments.cores],
        cwd=work,
    ).returncode
    if done:
        return done

    results = work / "results" / name
    print(f"\n## {name}, {date.today()}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| stage | wall s | CPU s | peak MB |\n|---|---|---|---|")
    table = stages(results / "benchmarks")
    for stage, (wall, cpu, memory) in table.items():
        print(f"| {stage} | {wall:.0f} | {cpu:.0f} | {memory:.0f} |")
    print(
        f"| all jobs | {sum(t[0] for t in table.values()):.0f} |"
        f" {sum(t[1] for t in table.values()):.0f} | {max(t[2] for t in table.values()):.0f} |"
    )
    print("\n| method | metric | class | statistic | value | unit | n |\n" + "|---" * 7 + "|")
    for r in read_tsv(results / "evaluation" / "summary.tsv")[1]:
        print(
            f"| {r['method']} | {r['metric']} | {r['class']} | {r['statistic']}"
            f" | {float(r['value']):.4g} | {r['unit']} | {r['n']} |"
        )
    worse = worse_than_linear(results / "evaluation")
    print(f"\n{len(worse)} sections and classes with Dice below linear")
    print("\n".join(worse))
    if (data / "truth.json").is_file():
        script = Path(__file__).with_name("bigbrain_alignment.py")
        subprocess.run([sys.executable, script, results, data / "truth.json"], check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
