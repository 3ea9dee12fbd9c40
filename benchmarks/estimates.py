"""What the workflow expects of time and disk, beside what finished brains took.

    python benchmarks/estimates.py STUDY BRAIN [--by STUDY] [KEY=VALUE …]

STUDY is a folder with ``config/`` and ``results/`` as the workflow was run in; ``KEY=VALUE`` are
keys of the configuration that were given on its command line. With ``--by`` the seconds are
corrected by the benchmark files of another study, as they are once a machine has run something.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from pathlib import Path

import yaml

from sbr_core.artifacts.benchmarks import read_benchmarks
from sbr_core.io.files import walk
from sbr_core.methods import METHODS, REGISTRY
from sbr_core.planning.estimates import Estimator, Job, job_of_benchmark
from sbr_core.planning.study import Study, read_study

PRESETS = Path(__file__).resolve().parents[1] / "config" / "presets"


def study_in(folder: Path, keys: list[str]) -> Study:
    """The study of a folder, which becomes the working directory."""
    os.chdir(folder)
    config = Path("config/config.yaml")
    values = yaml.safe_load(config.read_text()) if config.is_file() else {}
    for key, _, value in (text.partition("=") for text in keys):
        values[key] = yaml.safe_load(value)
    return read_study(values, PRESETS, compare_sums=False)


def disk_jobs(study: Study, brain: str) -> list[Job]:
    """The jobs of the methods that a brain has results of, as far as they leave something."""
    chunks = study.brains[brain].chunks
    jobs = [Job(r, brain, chunk=c) for r in ("prepare", "align_sections") for c in chunks]
    for method in (m for m in METHODS if Path(study.path(brain, m)).is_dir()):
        jobs += [Job("infer", brain, method, c) for c in chunks]
        jobs += [Job("reassemble", brain, method)]
        jobs += [Job("train", brain, method)] if REGISTRY[method].trained else []
    return [*jobs, Job("report", brain)]


def main() -> None:
    """Print a line for each rule, for all jobs, and for the disk."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("brain")
    parser.add_argument("keys", nargs="*")
    parser.add_argument("--by", type=Path)
    arguments = parser.parse_args()
    here = Path.cwd()
    factors = {}
    if arguments.by is not None:
        factors = Estimator(study_in(here / arguments.by, [])).factors
    study = study_in(here / arguments.study, arguments.keys)
    brain = arguments.brain
    estimator = Estimator(study, measured=False)
    estimator.factors = factors
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for done in read_benchmarks(Path(study.path(brain))):
        job = job_of_benchmark(brain, done.parts)
        for name in (f"{job.rule} {job.method}", "all"):
            sums[name][0] += done.wall_s
            sums[name][1] += estimator.seconds(job, estimator.steps_of(job))
    for name, (measured, expected) in sums.items():
        print(
            f"{name:24} {measured:8.1f} s, expected {expected:8.1f} s ({expected / measured:.2f})"
        )
    took = sum(os.path.getsize(path) for path, _ in walk(Path(study.path(brain))))
    expected = sum(estimator.disk_bytes(job) for job in disk_jobs(study, brain))
    print(f"disk {took / 1e6:.0f} MB, expected {expected / 1e6:.0f} MB ({expected / took:.2f})")


if __name__ == "__main__":
    main()
