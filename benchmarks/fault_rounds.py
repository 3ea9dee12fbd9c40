"""A campaign of random faults over a miniature brain: the end is as without, or a line says why.

    python benchmarks/fault_rounds.py WORK [--rounds 200] [--seed 0] [--table] [--cost]

The small brain of `faults.py` goes through the workflow below WORK once. Each round then takes a
copy, does one fault to one file, or to a run, and runs what reads that file: mostly one stage
whose results were removed, every tenth round the whole workflow. Time stamps are put back after a
fault, as decay of a disk leaves them. What comes of it:

- *noticed*: an exit code and one line that begins with ``sbr``, or a line in log and report about
  the sections that are left out for it;
- *mended*: exit code 0, and every result as it was without the fault;
- *for verify*: of the whole workflow: a finished result that nothing in the run reads, so that it
  ends with exit code 0, and `sbr verify`, run after it, names the file;
- *missed*: another result with exit code 0 and without a word;
- *crashed*: a traceback, or a process that ended by a signal nobody sent.

Rounds are appended to ``WORK/rounds.jsonl``, so that several calls add up; printed is the table of
all of them. Exits 1 if one was missed or crashed. Faults of the disk need root (they mount).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gzip
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from faults import REPOSITORY, STAGES, environment, finished_lab
from machine import heading

CONFIG = """\
preset: demo
methods: [sbr]
registrar: train
chunk_size: 16
demo: {n_sections: 8, section_spacing_mm: 16.0, pixel_size_mm: 1.5, mri_spacing_mm: 3.0}
prepare: {working_pixel_mm: 3.0}
align: {rounds: 1, spacing_mm: 5.0}
train_registrar: {steps: 20, encoder_channels: [8, 8, 8, 8], decoder_channels: [8, 8, 8, 8],
  checkpoint_every_s: 0.02}
train_sbr: {steps: 20, generator_channels: 4, residual_blocks: 2, n_samples: 64,
  projection_channels: 32, checkpoint_every_s: 0.02}
infer: {refine_steps: 3}
"""
"""Smaller still than the brain of `faults.py`: a round takes seconds."""
B = "results/demo"
READS: dict[str, dict[str, str]] = {
    "prepare-mri": {"MRI as given": "data/demo/mri*.nii.gz"},
    "prepare": {"section as given": "data/demo/images/*.png"},
    "prepare, kept": {
        "section's file": f"{B}/prepare/sections/*.nii.gz",
        "sidecar": f"{B}/prepare/sections/*.json",
    },
    "infer, kept": {
        "section's file": f"{B}/sbr/sections/*.nii.gz",
        "transform": f"{B}/sbr/transforms/*.h5",
        "sidecar": f"{B}/sbr/sections/*.json",
    },
    "collect": {
        "receipt": f"{B}/prepare/chunks/*.tsv",
        "record of a sum": f"{B}/prepare/chunks/.sums/*",
    },
    "doctor": {
        "table": f"{B}/prepare/sections.tsv",
        "section's file": f"{B}/prepare/sections/*.nii.gz",
    },
    "align": {
        "table": f"{B}/prepare/sections.tsv",
        "MRI": f"{B}/prepare/mri*.nii.gz",
        "section's file": f"{B}/prepare/sections/*.nii.gz",
    },
    "resample": {
        "similarity": f"{B}/align/from-*.txt",
        "plane grid": f"{B}/align/plane_grid.json",
        "MRI": f"{B}/prepare/mri*.nii.gz",
        "record of a sum": f"{B}/align/.sums/*",
    },
    "align-sections": {
        "initial affines": f"{B}/align/sections_initial.tsv",
        "plane grid": f"{B}/align/plane_grid.json",
        "receipt": f"{B}/*e/chunks/1of1.tsv",
        "section's file": f"{B}/prepare/sections/*.nii.gz",
        "plane": f"{B}/resample/sections/*.nii.gz",
    },
    "train-registrar": {
        "table": f"{B}/resample/sections.tsv",
        "plane": f"{B}/resample/sections/*.nii.gz",
    },
    "train": {
        "weights": f"{B}/registrar/weights.safetensors",
        "table": f"{B}/[ra]*/sections.tsv",
        "section's file": f"{B}/align_sections/sections/*.nii.gz",
        "checkpoint": "results/.checkpoints/demo/sbr/*/step-*.pt",
    },
    "infer": {
        "weights": f"{B}/*/weights.safetensors",
        "receipt": f"{B}/[pra]*/chunks/1of1.tsv",
        "plane": f"{B}/resample/sections/*.nii.gz",
        "section's file": f"{B}/align_sections/sections/*.nii.gz",
        "record of a sum": f"{B}/registrar/.sums/weights.safetensors.json",
    },
    "reassemble": {
        "transform": f"{B}/sbr/transforms/*from-section*.h5",
        "table": f"{B}/[ps]*r*/sections.tsv",
        "similarity": f"{B}/align/from-*.txt",
        "MRI": f"{B}/prepare/mri.nii.gz",
        "section's file": f"{B}/sbr/sections/*_registered.nii.gz",
        "section as given": "data/demo/images/*.png",
    },
    "evaluate": {
        "transform": f"{B}/*/transforms/*.h5",
        "table": f"{B}/*/sections.tsv",
        "similarity": f"{B}/align/from-*.txt",
        "volume": f"{B}/*/volume/*_[cl]*.nii.gz",
        "plane": f"{B}/resample/sections/*_mrimask.nii.gz",
    },
    "report": {
        "table of values": f"{B}/evaluation/s*.tsv",
        "table": f"{B}/[lsr]*/sections.tsv",
        "volume": f"{B}/*/volume/*_histology.nii.gz",
        "picture": f"{B}/*/*.png",
        "facts": f"{B}/*/[qe]*.json",
        "section's file": f"{B}/sbr/sections/*_[rs]*.nii.gz",
        "transform": f"{B}/sbr/transforms/*from-section*.h5",
    },
}
"""Stage -> kind of file that it reads -> where such files are."""
EVERYTHING = {
    kind: pattern
    for stage, kinds in READS.items()
    if "kept" not in stage
    for kind, pattern in kinds.items()
} | {"plan": f"{B}/plan/*.json"}
FILE_FAULTS = ("flipped bit", "changed digit", "cut", "zeros", "removed")
RUN_FAULTS = ("SIGKILL", "full disk", "read-only disk", "two at once")
LOGS = {"collect": f"{B}/logs/collect/prepare.log"}
PASSED_OVER = r"(training_)?seconds|versions|files|row_sha256|sha256|fingerprint|inputs|asked"
"""Of tables and JSON: clocks, and digests of compressed bytes."""


@dataclass(frozen=True)
class Round:
    """What was done, and what came of it."""

    reader: str
    fault: str
    kind: str
    file: str
    outcome: str
    said: str
    seconds: float


# --------------------------------------------------------------------------------------------
# Faults of a file
# --------------------------------------------------------------------------------------------


def harm(path: Path, fault: str, rng: random.Random) -> bool:
    """Do a fault to a file, its time put back; False where the file has nothing to do it to."""
    before, content = path.stat(), bytearray(path.read_bytes())
    if fault == "removed":
        path.unlink()
        return True
    if not content:
        return False
    if fault == "flipped bit":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif fault == "changed digit":
        digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
        if path.suffix not in (".tsv", ".json", ".txt") or not digits:
            return False
        place = rng.choice(digits)
        content[place] = 48 + (content[place] - 48 + rng.randint(1, 9)) % 10
    elif fault == "cut":
        lines = content.splitlines(keepends=True)
        if path.suffix == ".tsv" and len(lines) > 2 and rng.random() < 0.7:
            content = bytearray().join(lines[: rng.randrange(1, len(lines))])
        else:
            del content[rng.randrange(len(content)) :]
    elif fault == "zeros":
        first = rng.randrange(len(content))
        content[first : first + 512] = bytes(min(512, len(content) - first))
    if bytes(content) == path.read_bytes():
        return False
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return True


# --------------------------------------------------------------------------------------------
# Results, as they are compared
# --------------------------------------------------------------------------------------------


def content_of(path: Path) -> object:
    """What a result says, without clocks and without what compression adds."""
    import numpy as np
    from PIL import Image

    from sbr_core.io.tables import read_tsv
    from sbr_core.io.transforms import read_section_transform

    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".tsv":
        rows = read_tsv(path)[1]
        return [{k: v for k, v in r.items() if not re.fullmatch(PASSED_OVER, k)} for r in rows]
    if path.suffix == ".json":
        return _bare(json.loads(path.read_text()))
    if path.suffix == ".h5":
        steps = read_section_transform(path).steps
        return [getattr(s, "disp_mm", s).tobytes() for s in steps]
    if path.suffix == ".png":
        return np.asarray(Image.open(path)).tobytes()
    return path.read_bytes()


def _bare(value: object) -> object:
    if isinstance(value, dict):
        return {k: _bare(v) for k, v in value.items() if not re.fullmatch(PASSED_OVER, k)}
    return [_bare(v) for v in value] if isinstance(value, list) else value


def differing(case: Path, finished: Path, patterns: list[str]) -> list[str]:
    """Results that are missing or other than those of the undisturbed brain."""
    others = []
    for pattern in patterns:
        for wanted in sorted(finished.glob(pattern)):
            name = wanted.relative_to(finished)
            if not wanted.is_file() or ".sums" in name.parts or name.parts[-1].startswith(".tmp-"):
                continue
            try:
                if content_of(case / name) == content_of(wanted):
                    continue
            except Exception as error:  # of a result that cannot be read
                others.append(f"{name} ({error!r:.60})")
                continue
            others.append(str(name))
    return others


# --------------------------------------------------------------------------------------------
# Runs
# --------------------------------------------------------------------------------------------


class Reader:
    """A stage in a copy of the brain, its results removed unless they are to be kept."""

    def __init__(self, case: Path, name: str) -> None:
        self.case = case
        stage, _, kept = name.partition(", ")
        log = LOGS.get(stage) or STAGES[stage].log
        line = (case / log).read_text().splitlines()[0]
        self.words = shlex.split(line.removeprefix("$ sbr "))
        flag = next(f for f in ("--out-dir", "--out", "--table") if f in self.words)
        out = Path(self.words[self.words.index(flag) + 1])
        self.out = out if flag == "--out-dir" else out.parent
        makes = ("sections.tsv",) if stage == "collect" else STAGES[stage].makes
        self.patterns = [f"{self.out}/{pattern}" for pattern in makes]
        if stage == "prepare":  # its neighbours in the folder are another stage's
            self.patterns = [p for p in self.patterns if "mri" not in p]
        removed = ["chunks/*.tsv"] if kept else makes
        for path in {p for pattern in removed for p in (case / self.out).glob(pattern)}:
            if path.is_file():
                path.unlink()

    def start(self) -> int:
        """Its process, forked from this one, which has imported everything already."""
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = _run(self.case, self.words)
            os._exit(code)
        return child


def _run(folder: Path, words: list[str]) -> int:
    """The command in a forked process, what it says in a file."""
    import traceback

    os.chdir(folder)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    from sbr_core.cli import main

    try:
        return main(words)
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def snakemake(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    command += ["--snakefile", str(REPOSITORY / "workflow" / "Snakefile")]
    with open(folder / "said.txt", "a") as said:
        return subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=said, stderr=said, start_new_session=True
        )


def outcome(code: int, said: str, others: list[str]) -> tuple[str, str]:
    """(what came of a round, the line that says so)."""
    told = [s for s in said.splitlines() if re.match(r"\s*(sbr |.*: sbr |ManifestError)", s)]
    left_out = [s for s in said.splitlines() if re.search(r"FAILED|WARNING|left out|damaged", s)]
    said = said or f"exit code {code}, without a word"
    if "Traceback (most recent call last)" in said or code not in (0, 1, 2, 143):
        return "crashed", said.strip().splitlines()[-1]
    if code != 0:
        return (
            ("noticed", told[-1]) if told else ("crashed", (said.splitlines() or ["nothing"])[-1])
        )
    if not others:
        return "mended", (left_out or [""])[-1]
    return ("noticed", left_out[-1]) if left_out else ("missed", ", ".join(others)[:300])


def one_stage(finished: Path, case: Path, rng: random.Random, readers: list[str]) -> Round | None:
    """A round of one stage: a fault of a file it reads, or of its run."""
    name = rng.choice([s for s in readers for _ in READS[s]])
    run_fault = rng.random() < 0.25 and "kept" not in name
    reader = Reader(case, name)
    began = time.monotonic()
    if run_fault:
        fault, kind, file = rng.choice(RUN_FAULTS), "a run", ""
        code = disturbed(reader, fault, rng)
        if code is None:
            return None
    else:
        kind = rng.choice(list(READS[name]))
        fault = rng.choice(FILE_FAULTS)
        if kind == "checkpoint" and not leave_checkpoints(reader):
            return None
        files = sorted(case.glob(READS[name][kind]))
        if not files:
            return None
        file = str(rng.choice(files).relative_to(case))
        if not harm(case / file, fault, rng):
            return None
        code = wait(reader.start())
    said = (case / "said.txt").read_text(errors="replace")
    others = differing(case, finished, reader.patterns)
    return Round(name, fault, kind, file, *outcome(code, said, others), time.monotonic() - began)


def leave_checkpoints(reader: Reader) -> bool:
    """Stop a training once it has written two checkpoints."""
    child = reader.start()
    for _ in range(3000):
        if len(list(reader.case.glob(READS["train"]["checkpoint"]))) >= 2:
            os.kill(child, signal.SIGKILL)
            wait(child)
            (reader.case / "said.txt").unlink()
            return True
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.01)
    return False


def disturbed(reader: Reader, fault: str, rng: random.Random) -> int | None:
    """The exit code of a stage's last run, after a fault of the run before or of the disk."""
    out = reader.case / reader.out
    if fault == "SIGKILL":
        child = reader.start()
        time.sleep(rng.expovariate(1.0))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        wait(child)
        return wait(reader.start())
    if fault == "two at once":
        children = [reader.start(), reader.start()]
        codes = [wait(child) for child in children]
        return max(codes) if min(codes) == 0 and max(codes) in (0, 2) else 1
    out.mkdir(parents=True, exist_ok=True)
    kept = reader.case / "kept"
    shutil.copytree(out, kept)
    room = sum(p.stat().st_size + 4096 for p in kept.rglob("*") if p.is_file())
    size = room + rng.randrange(4096, 200_000) if fault == "full disk" else room + (8 << 20)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(out)]
    if subprocess.run(mount, check=False).returncode:
        return None
    try:
        shutil.copytree(kept, out, dirs_exist_ok=True)
        if fault == "read-only disk":
            subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
        code = wait(reader.start())
        if code == 0:
            return code  # there was room enough
        subprocess.run(["mount", "-o", "remount,rw,size=1g", str(out)], check=True)
        first = (reader.case / "said.txt").read_text(errors="replace")
        if not re.search(r"^sbr .*(no space|read-only|cannot be)", first, re.M):
            return 1
        (reader.case / "said.txt").unlink()
        return wait(reader.start())
    finally:
        shutil.copytree(out, kept, dirs_exist_ok=True)
        subprocess.run(["umount", str(out)], check=True)
        shutil.copytree(kept, out, dirs_exist_ok=True)


def whole_workflow(
    finished: Path, case: Path, rng: random.Random, readers: list[str]
) -> Round | None:
    """A round of the workflow: some results removed, a fault, and the same command."""
    began = time.monotonic()
    kind, file, fault = "a run", "", rng.choice((*FILE_FAULTS, "SIGKILL", "two at once"))
    for target in (f"{B}/report/index.html", f"{B}/sbr/volume/demo_space-mri_histology.nii.gz"):
        if rng.random() < 0.7:
            (case / target).unlink()
    if fault in FILE_FAULTS:
        kind = rng.choice([k for k in EVERYTHING if k != "checkpoint"])
        files = sorted(case.glob(EVERYTHING[kind]))
        file = str(rng.choice(files).relative_to(case))
        if not harm(case / file, fault, rng):
            return None
        code = snakemake(case).wait()
    elif fault == "SIGKILL":
        first = snakemake(case)
        time.sleep(rng.uniform(3, 20))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        (case / "said.txt").unlink()
        code = snakemake(case).wait()
    else:
        runs = [snakemake(case), snakemake(case)]
        codes = sorted(run.wait() for run in runs)
        code = codes[0] if codes[1] in (0, 1) else codes[1]
    said = (case / "said.txt").read_text(errors="replace")
    said = re.sub(r"(?s)LockException.*?(?=\n\S*sbr|\Z)", "", said)
    others = differing(case, finished, [f"{B}/**/*"])
    others = [o for o in others if not re.search(r"/(logs|benchmarks|plan)/|rows.json", o)]
    what, line = outcome(code, said, others)
    if what == "missed" and (named := _named_by_verify(case, others)):
        what, line = "for verify", named
    return Round("workflow", fault, kind, file, what, line, time.monotonic() - began)


def _named_by_verify(case: Path, others: list[str]) -> str:
    """What `sbr verify` says of the results that are other than they were; "" unless of each."""
    command = [sys.executable, "-m", "sbr_core", "verify", "results"]
    done = subprocess.run(
        command, cwd=case, env=environment(), capture_output=True, text=True, check=False
    )
    files = [other.partition(" (")[0] for other in others]
    if done.returncode != 2 or not all(file in done.stderr for file in files):
        return ""
    return next(line for line in done.stderr.splitlines() if files[0] in line)


# --------------------------------------------------------------------------------------------
# What the checks cost
# --------------------------------------------------------------------------------------------


def costs(finished: Path, work: Path) -> int:
    """Print the time of every stage, and how much of it its new checks are; 1 if results differ."""
    print("| stage | CPU s | in checks, s | share |")
    print("|---|---|---|---|")
    spent, checked, wrong = 0.0, 0.0, 0
    for name in [name for name in READS if "kept" not in name]:
        case = work / "case-cost"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(finished, case, symlinks=True)
        reader = Reader(case, name)
        child = os.fork()
        if child == 0:
            clock = _time_checks()
            began = time.process_time()
            _run(case, reader.words)
            facts = [time.process_time() - began, clock["checks"]]
            (case / "cost.json").write_text(json.dumps(facts))
            os._exit(0)
        wait(child)
        total, of_checks = json.loads((case / "cost.json").read_text())
        spent, checked = spent + total, checked + of_checks
        wrong += bool(others := differing(case, finished, reader.patterns))
        print(f"| {name} | {total:.2f} | {of_checks:.4f} | {of_checks / total:.2%} |", *others[:3])
    print(f"| all | {spent:.2f} | {checked:.4f} | {checked / spent:.2%} |")
    return min(wrong, 1)


def _time_checks() -> dict[str, float]:
    """Count the CPU time of every check that is made beside what a stage did without any."""
    from sbr_core.io import files, sums

    clock = collections.Counter(checks=0.0)

    def timed(function: Callable) -> Callable:
        def call(*arguments: object, **keywords: object) -> object:
            if clock["depth"]:
                return function(*arguments, **keywords)
            clock["depth"], began = 1, time.process_time()
            try:
                return function(*arguments, **keywords)
            finally:
                clock["depth"] = 0
                clock["checks"] += time.process_time() - began

        return call

    wrapped = {f: timed(f) for f in (sums.check_sum, sums.check_gzip, files.inside)}
    for module in [m for name, m in sys.modules.items() if name.startswith("sbr_core")]:
        for name, value in list(vars(module).items()):
            if callable(value) and value in wrapped:
                setattr(module, name, wrapped[value])
    sums.sha256_file, sums.write_json = timed(sums.sha256_file), timed(sums.write_json)
    return clock


# --------------------------------------------------------------------------------------------


def table(rounds: list[dict], column: str) -> list[str]:
    """Fault × kind of file, and how often each outcome was."""
    columns = sorted({r[column] for r in rounds})
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for fault in (*FILE_FAULTS, *RUN_FAULTS):
        cells = []
        for each in columns:
            found = collections.Counter(
                r["outcome"] for r in rounds if (r["fault"], r[column]) == (fault, each)
            )
            cells.append(", ".join(f"{n} {what}" for what, n in sorted(found.items())) or "–")
        if any(cell != "–" for cell in cells):
            lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workflow-every", type=int, default=10)
    parser.add_argument("--readers", nargs="*", default=list(READS), choices=list(READS))
    parser.add_argument("--table", action="store_true", help="only print what there is")
    parser.add_argument("--cost", action="store_true", help="print what the checks cost instead")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    record = work / "rounds.jsonl"
    if not arguments.table:
        finished = finished_lab(work, CONFIG)
        sys.path.insert(0, str(REPOSITORY))
        _import_stages(arguments.readers)
        if arguments.cost:
            return costs(finished, work)
        done, attempt = 0, 0
        while done < arguments.rounds:
            attempt += 1
            rng = random.Random(f"{arguments.seed}-{attempt}")
            case = work / f"case-{arguments.seed}"
            shutil.rmtree(case, ignore_errors=True)
            shutil.copytree(finished, case, symlinks=True)
            every = arguments.workflow_every
            kind: Callable = whole_workflow if every and (done + 1) % every == 0 else one_stage
            if (result := kind(finished, case, rng, arguments.readers)) is None:
                continue
            done += 1
            line = vars(result) | {"seed": f"{arguments.seed}-{attempt}"}
            line["said"] = line["said"].replace(str(case), "…")
            with open(record, "a") as stream:
                stream.write(json.dumps(line) + "\n")
            print(json.dumps(line), file=sys.stderr, flush=True)
    rounds = [json.loads(line) for line in record.read_text().splitlines()]
    print(heading("A campaign of faults"))
    print(f"{len(rounds)} rounds.\n")
    for column in ("kind", "reader"):
        print("\n".join(table(rounds, column)) + "\n")
    wrong = [r for r in rounds if r["outcome"] in ("missed", "crashed")]
    for r in wrong:
        print(
            f"- {r['outcome']}: {r['fault']}, {r['file'] or r['kind']}, {r['reader']}: {r['said']}"
        )
    print(f"\n{len(wrong)} missed or crashed.")
    return min(len(wrong), 1)


def _import_stages(readers: list[str]) -> None:
    """So that a forked stage starts at once."""
    for reader in readers:
        import_module(f"sbr_core.stages.{reader.partition(',')[0].replace('-', '_')}")
    for library in ("SimpleITK", "nibabel", "PIL.Image", "scipy.ndimage", "pydantic"):
        import_module(library)


if __name__ == "__main__":
    sys.exit(main())
