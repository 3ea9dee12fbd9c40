"""`align` on stacks and MRIs that are only partly there, or whose positions are poorly known.

    python benchmarks/hard_starts.py DATA WORK [--working-pixel-mm 0.8] [--only TEXT]

DATA has ``sections.tsv``, ``mri.nii.gz`` and ``truth.json`` as bigbrain_anterior has. Each case
goes through ``prepare`` → ``align`` → ``resample`` → ``align-sections`` from the command line, with
`orientation: auto` and all defaults, and its error is measured as ``bigbrain_alignment.py`` does:

* a quarter of the stack, from its middle, with the whole MRI;
* the whole stack with an MRI cut across the stack, at two thirds of its length;
* the whole stack with an MRI that lacks a quarter at the bottom of the sections;
* irregular positions: a quarter of the sections, drawn at random;
* positions as an order only: what ``align`` proposes, against the truth, then the manifest with it.

Sections that lie where there is no MRI are left out of the error: nothing can place them closely.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from any_start import sbr
from bigbrain_alignment import section_errors
from machine import heading

from sbr_core.artifacts.rows import Row, read_rows
from sbr_core.geometry import similarity_scale
from sbr_core.io.manifests import read_manifest
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.volumes import Volume, read_volume, write_volume


@dataclass(frozen=True)
class Case:
    """What of the data a case keeps.

    Attributes
    ----------
    sections : their names.
    keeps : (stack axis, share of its extent, from the low end) of the MRI; None: all of it.
    positions_mm : of the manifest, where they are others than the true ones.
    """

    name: str
    sections: list[str]
    keeps: tuple[int, float] | None = None
    positions_mm: dict[str, float] = field(default_factory=dict)


def write_case(case: Case, data: Path, folder: Path, truth: dict) -> None:
    """The case's manifest, MRI and truth."""
    rows = [r for r in read_manifest(data / "sections.tsv") if r.section in case.sections]
    write_tsv(
        folder / "sections.tsv",
        [
            {
                "section": r.section,
                "image": r.image,
                "position_mm": case.positions_mm.get(r.section, r.position_mm),
                "pixel_size_mm": r.pixel_size_mm,
            }
            for r in rows
        ],
    )
    true = {**truth, "position_mm": {r.section: r.position_mm for r in rows}}
    (folder / "truth.json").write_text(json.dumps(true), encoding="utf-8")
    mri = read_volume(data / "mri.nii.gz")
    kept = mri.data.copy()
    if case.keeps:
        # cut along a voxel axis, as a scanner's field of view does
        axis, share = case.keeps
        stack_from_voxel = np.linalg.inv(truth["world_from_stack"]) @ mri.world_from_voxel
        along = int(np.argmax(np.abs(stack_from_voxel[axis, :3])))
        at = np.unique(np.nonzero(kept)[along])
        low, high = at[0], at[-1]
        grows = stack_from_voxel[axis, along] > 0
        cut = round(low + share * (high - low)) if grows else round(high - share * (high - low))
        index = [slice(None)] * 3
        index[along] = slice(None, cut) if grows else slice(cut, None)
        kept = kept[tuple(index)]
        shift = np.eye(4)
        shift[along, 3] = 0 if grows else cut
        mri = Volume(kept, mri.world_from_voxel @ shift)
    write_volume(folder / "mri.nii.gz", mri)


def take_through(folder: Path, pixel_mm: float, options: dict) -> None:
    """`prepare` → `align` → `resample` → `align-sections` of a case."""
    logs, prepared = folder / "logs", folder / "prepare"
    receipt = prepared / "chunks" / "all.tsv"
    sbr(
        logs / "prepare.log",
        *("prepare", "--rows", folder / "sections.tsv", "--out-dir", prepared),
        *("--receipt", receipt, "--options", json.dumps({"working_pixel_mm": pixel_mm})),
    )
    sbr(logs / "mri.log", "prepare-mri", "--mri", folder / "mri.nii.gz", "--out-dir", prepared)
    table = prepared / "sections.tsv"
    sbr(logs / "collect.log", "collect", "--receipts", receipt, "--table", table)
    mri = ("--mri", prepared / "mri.nii.gz", "--mri-mask", prepared / "mri_mask.nii.gz")
    aligned = ("--align-dir", folder / "align")
    sbr(
        logs / "align.log",
        *("align", "--sections", table, *mri, "--orientation", "auto"),
        *("--working-pixel-mm", pixel_mm, "--out-dir", folder / "align"),
        *("--options", json.dumps(options)),
    )
    planes = folder / "resample" / "all.tsv"
    sbr(
        logs / "resample.log",
        *("resample", "--rows", folder / "sections.tsv", *aligned, *mri),
        *("--out-dir", folder / "resample", "--receipt", planes),
    )
    affines = folder / "align_sections" / "all.tsv"
    sbr(
        logs / "align_sections.log",
        *("align-sections", "--prepared", receipt, "--planes", planes, *aligned),
        *("--out-dir", folder / "align_sections", "--receipt", affines),
    )
    table = folder / "align_sections" / "sections.tsv"
    sbr(logs / "collect_affines.log", "collect", "--receipts", affines, "--table", table)


def measured(folder: Path, name: str, left_out: int) -> None:
    """One line of the table."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    quality = json.loads((folder / "align" / "quality.json").read_text(encoding="utf-8"))
    errors = section_errors(folder, truth, None)
    every = np.concatenate(list(errors.values()))
    without = np.linalg.norm(every - every.mean(axis=0), axis=1).mean()
    medians = np.median([np.linalg.norm(e, axis=1).mean() for e in errors.values()])
    print(
        f"| {name} | {len(errors)} | {left_out} | {quality['orientation_found']}"
        f" | {_shown(quality['place_margin'])} | {_shown(quality['handedness_margin'])}"
        f" | {np.linalg.norm(every, axis=1).mean():.2f} | {medians:.2f} | {without:.2f} |",
        flush=True,
    )


def _shown(margin: float | None) -> str:
    return "no other" if margin is None else f"{margin:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--working-pixel-mm", type=float, default=0.8)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    asked = parser.parse_args()
    truth = json.loads((asked.data / "truth.json").read_text(encoding="utf-8"))
    rows = sorted(read_manifest(asked.data / "sections.tsv"), key=lambda r: r.position_mm)
    names = [r.section for r in rows]
    n = len(names)
    rng = np.random.default_rng(1)
    drawn = sorted(rng.choice(n, n // 4, replace=False))
    step_mm = float(np.min(np.diff([r.position_mm for r in rows])))
    order = {r.section: 1 + round((r.position_mm - rows[0].position_mm) / step_mm) for r in rows}
    cases = [
        Case("a quarter of the stack", names[3 * n // 8 : 5 * n // 8]),
        Case("two thirds of the MRI", names, keeps=(2, 2 / 3)),
        Case("MRI without the lowest quarter", names, keeps=(1, 0.75)),
        Case("irregular positions", [names[k] for k in drawn]),
        Case("positions as an order", names, positions_mm=order),
    ]
    print(heading(f"Hard starts, {asked.data.name}"))
    columns = ("case", "sections", "left out", "found", "margin of place", "of handedness")
    columns += ("mean error mm", "median of sections", "without the common shift")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for case in cases:
        if asked.only not in case.name:
            continue
        folder = asked.work / case.name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        write_case(case, asked.data, folder, truth)
        said = ""
        try:
            if case.positions_mm:
                try:
                    take_through(folder, asked.working_pixel_mm, {"positions": "order"})
                except RuntimeError:
                    found = read_tsv(folder / "align" / "positions.tsv")[1]
                    proposed = {r["section"]: float(r["position_mm"]) for r in found}
                    per_step = proposed[names[-1]] / (order[names[-1]] - order[names[0]])
                    true = step_mm * similarity_scale(np.array(truth["world_from_stack"]))
                    said = f", {per_step:.4f} mm a step proposed, {true:.4f} true"
                    write_case(
                        Case(case.name, names, positions_mm=proposed), asked.data, folder, truth
                    )
            take_through(folder, asked.working_pixel_mm, {})
        except (RuntimeError, FileNotFoundError) as error:
            print(f"| {case.name}{said} | {str(error).strip().splitlines()[-1]} |" + " |" * 7)
            continue
        measured(folder, case.name + said, len(case.sections) - _placed(folder))
    print()


def _placed(folder: Path) -> int:
    """Sections that have an MRI plane and so an affine."""
    return len(read_rows(folder / "align_sections" / "sections.tsv", Row))


if __name__ == "__main__":
    main()
