"""How long Snakemake plans, with how many jobs and how much memory, for one big brain and for many.

`python benchmarks/many_brains.py [--sections 7400] [--brains 200x100] [--workflow FOLDER]` writes
sheets, manifests and empty image files below a temporary folder and runs `snakemake -n` there; the
planner looks at names, never into images. Long names stand for the paths of a cluster's storage.
Prints a table for `benchmarks/`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import heading

REPOSITORY = Path(__file__).resolve().parents[1]


def write_lab(folder: Path, workflow: Path, n_brains: int, n_sections: int) -> None:
    """A copy of the workflow and a sheet of brains whose images are there but empty."""
    for name in ("workflow", "config", "envs"):
        shutil.copytree(workflow / name, folder / name)
    (folder / "config" / "config.yaml").write_text("preset: cpu\n")
    sheet = ["brain\tsections\tmri\torientation"]
    for number in range(1, n_brains + 1):
        name = f"brain{number:04d}"
        data = folder / "storage" / "group" / "project" / name
        (data / "images").mkdir(parents=True)
        (data / "mri.nii.gz").touch()
        lines = ["section\timage\tposition_mm\tpixel_size_mm"]
        for section in range(1, n_sections + 1):
            image = f"images/{name}_stain-nissl_slide-{section:05d}_res-20um.png"
            (data / image).touch()
            lines.append(f"s{section:05d}\t{image}\t{0.02 * section:.2f}\t0.02")
        (data / "sections.tsv").write_text("\n".join(lines) + "\n")
        place = data.relative_to(folder)
        sheet.append(f"{name}\t{place}/sections.tsv\t{place}/mri.nii.gz\tLIA")
    (folder / "config" / "brains.tsv").write_text("\n".join(sheet) + "\n")


def dry_run(folder: Path, *arguments: str) -> tuple[float, float, float, dict[str, int]]:
    """(s on the clock, s of one core, peak memory in MB, rule -> jobs) of `snakemake -n`."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / ".cache")}
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2", *arguments]
    with open(folder / "plan.txt", "w") as stream:
        began = time.monotonic()
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=stream)
        _, status, usage = os.wait4(run.pid, 0)
        seconds = time.monotonic() - began
    text = (folder / "plan.txt").read_text()
    if status:
        raise SystemExit(text[-2000:])
    table = text[text.rindex("Job stats:") :]
    jobs = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+) +(\d+)$", table, re.M)}
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", type=int, nargs="*", default=[7400])
    parser.add_argument("--brains", nargs="*", default=["200x100"], metavar="BRAINSxSECTIONS")
    parser.add_argument("--workflow", type=Path, default=REPOSITORY)
    arguments = parser.parse_args()
    cases = [(1, n) for n in arguments.sections]
    cases += [tuple(map(int, case.split("x"))) for case in arguments.brains]
    print(heading("Planning big brains and many brains"))
    print(
        "| brains x sections | `snakemake -n`, s | of one core, s | peak memory, MB | jobs |"
        " of the commonest rules |"
    )
    print("|---|---|---|---|---|---|")
    for n_brains, n_sections in cases:
        with tempfile.TemporaryDirectory() as folder:
            write_lab(Path(folder), arguments.workflow.resolve(), n_brains, n_sections)
            seconds, core_s, memory_mb, jobs = dry_run(Path(folder))
        total = jobs.pop("total")
        often = sorted(jobs.items(), key=lambda item: -item[1])[:6]
        listed = ", ".join(f"{rule} {count}" for rule, count in often)
        cells = f"{seconds:.1f} | {core_s:.1f} | {memory_mb:.0f} | {total} | {listed}"
        print(f"| {n_brains} x {n_sections} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
