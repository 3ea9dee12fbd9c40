"""How many steps a second brain saves by training on from the networks of a first.

    python benchmarks/finetuning.py WORK [--steps 1000] [--shares 0.1 0.2] [--rates 2e-4]

Two simulated brains (`sbr demo` with seeds 1 and 2: other deformations, staining and noise) go
through the whole workflow below WORK with preset `demo`, each trained from nothing for `--steps`
steps. Then the second is done again: with the first one's networks as they are (`reuse`), trained
on from them for a share of the steps (`finetune`), and, for what that share is worth, trained from
nothing as long. Printed: the landmark error of each, in_plane_mm, in the mean over the sections.
Run again with the same WORK, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from machine import heading

from sbr_core.config import resolve
from sbr_core.io.tables import read_tsv

REPOSITORY = Path(__file__).resolve().parents[1]
BRAINS = {"first": 1, "second": 2}
DEMO = {"n_sections": 24, "section_spacing_mm": 6.0}


def call(work: Path, *words: object) -> None:
    """Run a command in WORK; its output is shown only if it fails."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stdout[-3000:])


def lay_out(work: Path, steps: int) -> None:
    """Data, sheet and configuration of both brains."""
    (work / "config").mkdir(parents=True, exist_ok=True)
    config = {
        "preset": "demo",
        "brains": "config/brains.tsv",
        "methods": ["linear", "sbr"],
        "train_sbr": {"steps": steps},
    }
    (work / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    columns = ("mri", "mri_mask", "mri_labels")
    lines = ["\t".join(["brain", "sections", *columns, "landmarks", "orientation"])]
    for name, seed in BRAINS.items():
        folder = work / "data" / name
        if not (folder / "sections.tsv").is_file():
            options = json.dumps(DEMO | {"seed": seed})
            call(work, "sbr_core", "demo", "--out-dir", folder, "--options", options)
        files = [f"data/{name}/{file}.nii.gz" for file in columns]
        row = [name, f"data/{name}/sections.tsv", *files, f"data/{name}/landmarks.tsv", "LIA"]
        lines.append("\t".join(row))
    (work / "config" / "brains.tsv").write_text("\n".join(lines) + "\n")


def error_mm(folder: Path, method: str) -> float:
    """The mean landmark error of a method in the tables of `evaluate`."""
    for row in read_tsv(folder / "summary.tsv")[1]:
        if (row["method"], row["metric"], row["statistic"]) == (method, "in_plane_mm", "mean"):
            return float(row["value"])
    raise SystemExit(f"{folder}: no in_plane_mm of {method}")


def again(work: Path, name: str, options: dict, start: Path | None, trained: bool) -> float:
    """`in_plane_mm` of the second brain with other networks: trained anew, or `start` as it is."""
    results, out = work / "results" / "second", work / "again" / name
    registrar = work / "results" / "first" / "registrar" / "weights.safetensors"
    weights = out / "sbr" / "weights.safetensors"
    if trained and not weights.is_file():
        if start is None:
            registrar = results / "registrar" / "weights.safetensors"
        call(
            work,
            *("sbr_core", "train", "--method", "sbr", "--options", json.dumps(options)),
            *("--planes", results / "resample" / "sections.tsv"),
            *("--sections", results / "align_sections" / "sections.tsv"),
            *("--registrar", registrar, "--out-dir", out / "sbr"),
            *("--checkpoint-root", out / "checkpoints"),
            *(("--start", start) if start else ()),
        )
    if not trained:
        weights = start
    if trained and start is None:
        registrar = results / "registrar" / "weights.safetensors"
    config = resolve(
        yaml.safe_load((work / "config/config.yaml").read_text()),
        REPOSITORY / "sbr_core/config/presets",
    )
    tables = {
        stage: results / stage / "sections.tsv"
        for stage in ("prepare", "resample", "align_sections")
    }
    if not (out / "evaluation" / "summary.tsv").is_file():
        call(
            work,
            *("sbr_core", "infer", "--method", "sbr", "--options", config.section_json("infer")),
            *("--prepared", tables["prepare"], "--planes", tables["resample"]),
            *("--affines", tables["align_sections"], "--registrar", registrar),
            *("--weights", weights, "--out-dir", out / "sbr"),
            *("--receipt", out / "sbr" / "chunks" / "1of1.tsv"),
        )
        call(
            work,
            *("sbr_core", "collect", "--receipts", out / "sbr" / "chunks" / "1of1.tsv"),
            *("--table", out / "sbr" / "sections.tsv"),
        )
        call(
            work,
            *("sbr_core", "reassemble", "--options", config.section_json("reassemble")),
            *("--brain", "second", "--method", "sbr", "--sections", out / "sbr" / "sections.tsv"),
            *("--prepared", tables["prepare"], "--align-dir", results / "align"),
            *("--mri", results / "prepare" / "mri.nii.gz", "--out-dir", out / "sbr" / "volume"),
        )
        call(
            work,
            *("sbr_core", "evaluate", "--brain", "second", "--methods", f"sbr={out / 'sbr'}"),
            *("--prepared", tables["prepare"], "--planes", tables["resample"]),
            *("--align-dir", results / "align"),
            *("--landmarks", work / "data" / "second" / "landmarks.tsv"),
            *("--out-dir", out / "evaluation"),
        )
    return error_mm(out / "evaluation", "sbr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.2])
    parser.add_argument("--rates", type=float, nargs="*", default=[2e-4])
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    lay_out(work, arguments.steps)
    snakefile = REPOSITORY / "workflow" / "Snakefile"
    call(work, "snakemake", "--snakefile", snakefile, "--cores", "1", "evaluate_all")

    print(heading("Fine-tuning on a second brain"))
    print("| second brain: networks | steps | learning rate | in_plane_mm | of from nothing |")
    print("|---|---|---|---|---|")
    evaluation = work / "results" / "second" / "evaluation"
    whole_mm = error_mm(evaluation, "sbr")

    def tell(what: str, steps: int, rate: object, mm: float) -> None:
        print(f"| {what} | {steps} | {rate} | {mm:.3f} | {mm / whole_mm:.2f} |", flush=True)

    tell("linear: none", 0, "", error_mm(evaluation, "linear"))
    values = yaml.safe_load((work / "config/config.yaml").read_text())
    options = resolve(values).train_sbr.model_dump(mode="json")
    tell("from nothing", arguments.steps, options["learning_rate"], whole_mm)
    start = work / "results" / "first" / "sbr" / "weights.safetensors"
    tell("reuse", 0, "", again(work, "reuse", options, start, False))
    for share in arguments.shares:
        steps = round(share * arguments.steps)
        short = options | {"steps": steps}
        mm = again(work, f"nothing-{steps}", short, None, True)
        tell("from nothing", steps, options["learning_rate"], mm)
        for rate in arguments.rates:
            tuned = options | {"finetune_steps": steps, "finetune_learning_rate": rate}
            mm = again(work, f"finetune-{steps}-{rate}", tuned, start, True)
            tell("finetune", steps, rate, mm)


if __name__ == "__main__":
    main()
