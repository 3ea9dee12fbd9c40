"""The same sections at half the pixel size and twice the bit depth: the same deformation?

    python benchmarks/other_pixel_size.py WORK [--sections s005 s013 …]

Run at the repository's root after `make demo`. Some of the demo's sections are stored again, twice
as fine and with 16 bits, and both copies go through prepare, align-sections and infer with the
demo's fit and trained networks. Printed: the distance, over tissue, between where the two chains
send a point of the plane, in section mm; without and with refinement.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
from skimage.transform import resize

from sbr_core.artifacts.names import SECTION_TO_STACK, section_file
from sbr_core.io.images import read_section, write_png
from sbr_core.io.manifests import SectionRow, read_manifest, rows_to_json
from sbr_core.io.transforms import read_section_transform
from sbr_core.io.volumes import read_plane

RESULTS = Path("results/demo")
SECTIONS = ["s005", "s013", "s018", "s024", "s032", "s040"]


def twice_as_fine(row: SectionRow, folder: Path) -> SectionRow:
    """The row of a 16-bit copy with half the pixel size and the same outer edges."""
    image = read_section(Path(row.image))
    fine = resize(image, tuple(2 * n for n in image.shape), order=3, mode="edge")
    path = folder / f"{row.section}.png"
    write_png(path, np.round(np.clip(fine, 0, 1) * 65535).astype(np.uint16))
    return replace(row, image=str(path), pixel_size_mm=row.pixel_size_mm / 2)


def chain(rows: list[SectionRow], out: Path, refine_steps: tuple[int, ...]) -> None:
    """Everything from `prepare` to `infer` for these rows, with the demo's fit and networks."""
    plan = json.loads((RESULTS / "plan" / "infer.json").read_text())["infer"]["options"]
    working = json.loads((RESULTS / "plan" / "align.json").read_text())["prepare"]["options"]
    receipt = {
        s: out / s / "chunks" / "1of1.tsv" for s in ("prepare", "resample", "align_sections")
    }

    def sbr(command: str, stage: str, *flags: object) -> None:
        words = ["sbr", command, *flags, "--out-dir", out / stage]
        words += ["--receipt", out / stage / "chunks" / "1of1.tsv"]
        subprocess.run(list(map(str, words)), check=True, capture_output=True)

    rows_json = rows_to_json(rows)
    sbr("prepare", "prepare", "--rows", rows_json, "--options", json.dumps(working))
    fit = ("--align-dir", RESULTS / "align")
    mri = ("--mri", RESULTS / "prepare" / "mri.nii.gz")
    mask = ("--mri-mask", RESULTS / "prepare" / "mri_mask.nii.gz")
    sbr("resample", "resample", "--rows", rows_json, *fit, *mri, *mask)
    tables = ("--prepared", receipt["prepare"], "--planes", receipt["resample"])
    sbr("align-sections", "align_sections", *tables, *fit)
    for steps in refine_steps:
        sbr(
            *("infer", f"infer_{steps}", "--method", "sbr", *tables),
            *("--affines", receipt["align_sections"]),
            *("--options", json.dumps({**plan, "refine_steps": steps})),
            *("--registrar", RESULTS / "registrar" / "weights.safetensors"),
            *("--weights", RESULTS / "sbr" / "weights.safetensors"),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument(
        "--sections", nargs="+", default=["s005", "s013", "s018", "s024", "s032", "s040"]
    )
    parser.add_argument("--refine-steps", nargs="+", type=int, default=[0, 60])
    arguments = parser.parse_args()
    work, steps = arguments.work.resolve(), tuple(arguments.refine_steps)
    work.mkdir(parents=True, exist_ok=True)
    rows = [
        replace(r, image=str(Path(r.image).resolve()), labels="")
        for r in read_manifest(Path("data/demo/sections.tsv"))
        if r.section in arguments.sections
    ]
    chain(rows, work / "stored", steps)
    chain([twice_as_fine(r, work) for r in rows], work / "fine", steps)
    print("| refine_steps | mean mm | median | 95 % | 99 % | largest |\n" + "|---" * 6 + "|")
    for k in steps:
        distances = []
        for row in rows:
            mask, spacing_mm = read_plane(
                work / "stored" / "resample" / "sections" / f"{row.section}_mrimask.nii.gz"
            )
            plane_mm = np.argwhere(mask > 0)[:, ::-1] * spacing_mm
            stored, fine = (
                read_section_transform(
                    section_file(work / copy / f"infer_{k}", row.section, SECTION_TO_STACK)
                ).map(plane_mm)
                for copy in ("stored", "fine")
            )
            # section mm begin at the centre of the first pixel, here a quarter pixel apart
            distances.append(np.linalg.norm(stored - (fine - row.pixel_size_mm / 4), axis=1))
        d = np.concatenate(distances)
        values = (d.mean(), np.median(d), *np.percentile(d, [95, 99]), d.max())
        print(f"| {k} | " + " | ".join(f"{v:.3f}" for v in values) + " |", flush=True)


if __name__ == "__main__":
    main()
