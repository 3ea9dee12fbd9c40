"""What every stage loses to SIGTERM, SIGKILL, a time-out and a full disk, and what is done again.

    python benchmarks/faults.py WORK [--stages prepare train …] [--faults SIGTERM …]

A small demo brain goes through the whole workflow below WORK once. Then, for each stage and fault,
the outputs of the stage are removed in a copy and its command, as its log has it, is run and hit
in the middle: a stage that works on sections when a third of them are done, a training when there
is a checkpoint, any other after 60 % of the time it takes. The time-out is SIGTERM and, 30 s later,
SIGKILL, as SLURM does; the full disk is a file system in memory (root only) that has room for half
of what the stage writes. What lies there under a result's name is then opened and read to its end,
and the same command is given again. Printed: one row each. Exits 1 if something finished was lost,
a half-written file had a result's name, or the second run did not end with all results.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from machine import heading

REPOSITORY = Path(__file__).resolve().parents[1]
FAULTS = ("SIGTERM", "SIGKILL", "time-out", "full disk")
GRACE_S = 30.0
CONFIG = """\
preset: demo
methods: [sbr]
registrar: train
chunk_size: 16
demo: {n_sections: 10, section_spacing_mm: 14.0, pixel_size_mm: 1.0, mri_spacing_mm: 2.4}
prepare: {working_pixel_mm: 2.5}
align: {rounds: 2, spacing_mm: 3.0}
train_registrar: {steps: 60, encoder_channels: [8, 8, 8, 8], decoder_channels: [8, 8, 8, 8],
  checkpoint_every_s: 0.5}
train_sbr: {steps: 60, generator_channels: 4, residual_blocks: 2, n_samples: 64,
  projection_channels: 32, checkpoint_every_s: 0.5}
"""


@dataclass(frozen=True)
class Stage:
    """A stage's log, and what it makes below its folder."""

    log: str
    makes: tuple[str, ...]


BRAIN = "results/demo"
PER_SECTION = ("chunks/*.tsv", "sections/*", "transforms/*")
WEIGHTS = ("weights.*", "loss.*")
STAGES = {
    "demo": Stage("results/logs/demo.log", ("**/*",)),
    "prepare": Stage(f"{BRAIN}/logs/prepare/1of1.log", PER_SECTION),
    "prepare-mri": Stage(f"{BRAIN}/logs/prepare_mri.log", ("mri*",)),
    "doctor": Stage(f"{BRAIN}/logs/doctor.log", ("**/*",)),
    "align": Stage(f"{BRAIN}/logs/align.log", ("**/*",)),
    "resample": Stage(f"{BRAIN}/logs/resample/1of1.log", PER_SECTION),
    "align-sections": Stage(f"{BRAIN}/logs/align_sections/1of1.log", PER_SECTION),
    "train-registrar": Stage(f"{BRAIN}/logs/train_registrar.log", WEIGHTS),
    "train": Stage(f"{BRAIN}/logs/train/sbr.log", WEIGHTS),
    "infer": Stage(f"{BRAIN}/logs/infer/sbr/1of1.log", PER_SECTION),
    "reassemble": Stage(f"{BRAIN}/logs/reassemble/sbr_space-mri.log", ("**/*",)),
    "evaluate": Stage(f"{BRAIN}/logs/evaluate.log", ("**/*",)),
    "report": Stage(f"{BRAIN}/logs/report.log", ("**/*",)),
}


def environment() -> dict[str, str]:
    """One thread, and this checkout."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def finished_lab(work: Path, config: str = CONFIG) -> Path:
    """The small brain with every result, made once."""
    lab = work / "finished"
    if not (lab / BRAIN / "report" / "index.html").is_file():
        (lab / "config").mkdir(parents=True, exist_ok=True)
        (lab / "config" / "config.yaml").write_text(config)
        shutil.copy(REPOSITORY / "config" / "brains.tsv", lab / "config")
        snakefile = REPOSITORY / "workflow" / "Snakefile"
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--cores", "1"]
        subprocess.run(command, cwd=lab, env=environment(), check=True, capture_output=True)
    return lab


class Case:
    """A copy of the finished brain in which one stage is to be run again."""

    def __init__(self, finished: Path, folder: Path, stage: str) -> None:
        shutil.copytree(finished, folder, symlinks=True)
        self.folder, self.stage = folder, STAGES[stage]
        line = (folder / self.stage.log).read_text().splitlines()[0]
        self.words = shlex.split(line.removeprefix("$ sbr "))
        flag = "--out-dir" if "--out-dir" in self.words else "--out"
        out = folder / self.words[self.words.index(flag) + 1]
        self.out = out if flag == "--out-dir" else out.parent
        self.bytes = sum(path.stat().st_size for path in self.made())
        self.names = {str(path.relative_to(self.out)) for path in self.made()}
        for path in self.made():
            path.unlink()

    def made(self) -> list[Path]:
        """Files that lie under the names of results."""
        found = {path for pattern in self.stage.makes for path in self.out.glob(pattern)}
        return sorted(p for p in found if p.is_file() and not p.name.startswith(".tmp-"))

    def left_over(self) -> int:
        """Temporary files that a killed process left."""
        return len(list(self.out.rglob(".tmp-*")))

    def sections(self) -> int:
        """Sections that are finished."""
        return len(list(self.out.glob("sections/*.json")))

    def checkpoints(self) -> list[Path]:
        if "--checkpoint-root" not in self.words:
            return []
        root = self.folder / self.words[self.words.index("--checkpoint-root") + 1]
        return sorted(root.glob("*/step-*.pt"))

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "sbr_core", *self.words],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def in_the_middle(self, began: float, takes_s: float) -> bool:
        """Whether it is time for the fault."""
        if self.stage.makes == PER_SECTION:
            return 3 * self.sections() >= sum(n.endswith(".json") for n in self.names)
        if self.stage.makes == WEIGHTS:
            return bool(self.checkpoints())
        return time.monotonic() - began > 0.6 * takes_s


def fault(case: Case, kind: str, takes_s: float) -> tuple[int, str, float]:
    """(exit code, what it said, s from the fault to the end) of a run that is hit in its middle."""
    if kind == "full disk":
        kept = case.folder / "kept"
        case.out.mkdir(parents=True, exist_ok=True)
        shutil.copytree(case.out, kept)
        there = sum(p.stat().st_size + 4096 for p in kept.rglob("*") if p.is_file())
        size = there + case.bytes // 2 + 4096
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(case.out)], check=True
        )
        shutil.copytree(kept, case.out, dirs_exist_ok=True)
    run, began = case.start(), time.monotonic()
    hit = began
    if kind != "full disk":
        while run.poll() is None and not case.in_the_middle(began, takes_s):
            time.sleep(0.005)
        hit = time.monotonic()
        run.send_signal(signal.SIGKILL if kind == "SIGKILL" else signal.SIGTERM)
    try:
        said = run.communicate(timeout=GRACE_S if kind == "time-out" else None)[1]
    except subprocess.TimeoutExpired:
        run.kill()
        said = run.communicate()[1]
    seconds = time.monotonic() - hit
    if kind == "full disk":
        subprocess.run(["mount", "-o", "remount,size=1g", str(case.out)], check=True)
    lines = [line for line in said.splitlines() if line.strip()]
    last = next((s for s in lines[::-1] if "SIGTERM" in s or s.startswith("sbr ")), None)
    if run.returncode == -signal.SIGKILL:
        last = "nothing (killed)"
    return run.returncode, (last or (lines or ["nothing"])[-1]).strip(), seconds


def is_whole(path: Path) -> bool:
    """Whether a file can be read to its end as what its name says."""
    import nibabel as nib
    import numpy as np
    import SimpleITK as sitk
    from PIL import Image
    from safetensors.numpy import load_file

    from sbr_core.io.tables import read_tsv

    read = {
        ".gz": lambda: np.asarray(nib.load(path).dataobj),
        ".json": lambda: json.loads(path.read_text()),
        ".tsv": lambda: read_tsv(path),
        ".png": lambda: Image.open(path).load(),
        ".safetensors": lambda: load_file(path),
        ".h5": lambda: sitk.ReadTransform(str(path)),
        ".txt": lambda: sitk.ReadTransform(str(path)),
        ".html": lambda: path.read_text().index("</html>"),
    }[path.suffix]
    try:
        read()
    except Exception:  # whatever a reader raises, the file is not whole
        return False
    return True


def again(case: Case) -> tuple[int, str]:
    """(exit code, standard error) of the same command once more."""
    run = case.start()
    said = run.communicate()[1]
    return run.returncode, said


def told_of(case: Case, said: str, before: int, checkpoint: int | None) -> tuple[str, str, int]:
    """(finished before, done again, how much of what was finished is lost) of the second run."""
    if case.stage.makes == PER_SECTION:
        kept = len(re.findall(r"section \S+ kept$", said, re.M))
        done = len(re.findall(r"section \S+ done$", said, re.M))
        return f"{before} sections", f"{done} sections, {kept} kept", before - kept
    if case.stage.makes == WEIGHTS and checkpoint is not None:
        found = re.search(r"going on from step (\d+) of (\d+)", said)
        first = int(found[1]) if found else 0
        return f"{checkpoint} steps", f"from step {first}", checkpoint - first
    return "nothing", "the stage", 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=FAULTS)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    finished = finished_lab(work)
    print(heading("Faults in every stage"))
    print(
        "| stage | fault | exit | s to the end | it said | finished before | done again | lost |"
        " half-written results | left over |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    wrong = 0
    for stage in arguments.stages:
        takes_s = None
        for kind in arguments.faults:
            folder = work / "case"
            shutil.rmtree(folder, ignore_errors=True)
            case = Case(finished, folder, stage)
            if takes_s is None:
                began = time.monotonic()
                if again(case)[0]:
                    raise SystemExit(f"{stage}: {shlex.join(case.words)} fails by itself")
                takes_s = time.monotonic() - began
                shutil.rmtree(folder)
                case = Case(finished, folder, stage)
            code, message, seconds = fault(case, kind, takes_s)
            halves = [path for path in case.made() if not is_whole(path)]
            before = case.sections()
            steps = [int(p.stem.removeprefix("step-")) for p in case.checkpoints()]
            second, said = again(case)
            done_before, redone, lost = told_of(case, said, before, max(steps, default=None))
            names = {str(path.relative_to(case.out)) for path in case.made()}
            left_over = case.left_over()
            if kind == "full disk":
                subprocess.run(["umount", str(case.out)], check=True)
            complete = second == 0 and names >= case.names
            wrong += bool(halves) + (lost > 0) + (not complete) + (code == 0)
            message = message.replace(str(folder), "…").replace("|", "/")
            if not complete:
                redone = f"FAILED: {said.splitlines()[-1] if said else second}"
            print(
                f"| {stage} | {kind} | {code} | {seconds:.1f} | {message[:150]} | {done_before}"
                f" | {redone} | {lost} | {len(halves)} | {left_over} |",
                flush=True,
            )
    print(f"\n{wrong} things wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
