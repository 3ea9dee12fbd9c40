"""What the section doctor finds of known harm, and what its advice does to the alignment.

    python benchmarks/doctor.py DATA WORK [--seeds 4] [--working-pixel-mm 0.8] [--align [--harmed]]

DATA is a folder with the ``sections.tsv`` of raw sections: bigbrain_anterior, or what `sbr demo`
made. Each seed makes a harmed copy in WORK: 10 % of the sections flipped (left-right or up-down),
10 % removed, 5 % swapped with a neighbour, 5 % torn or with a large part missing, 10 % turned in
their plane by up to 180°; no section has two of these. Then it runs, through the command line,
``prepare`` → ``doctor`` → ``apply-findings`` → ``prepare`` → ``doctor``, and says which share of
the harm was found, and mended (the section lies within 15° of how it did, in its place), and how
many unharmed sections were accused of something. The stack without harm comes first.

With ``--align`` (DATA needs ``mri.nii.gz`` and ``truth.json``, as bigbrain_anterior has) the mended
stacks are aligned, and the stack without harm (with ``--harmed`` the harmed ones too): ``align`` →
``resample`` → ``align-sections``, measured as ``bigbrain_alignment.py`` does, with the harm
composed into the truth. Run again with the same WORK, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parent))
from bigbrain_alignment import section_errors
from machine import heading

from sbr_core.geometry import apply, translation, upright_from_file
from sbr_core.io.files import write_json
from sbr_core.io.images import read_section, write_png
from sbr_core.io.manifests import SectionRow, read_manifest
from sbr_core.io.tables import read_tsv, write_tsv

SHARES = {"flipped": 0.1, "removed": 0.1, "swapped": 0.05, "torn": 0.05, "turned": 0.1}
TURNED_AT_LEAST_DEG = 20.0
"""Smaller turns are made too, but not counted: they are within what sections lie anyway."""


# --------------------------------------------------------------------------------------------
# Harm
# --------------------------------------------------------------------------------------------


def _tissue(image: np.ndarray, background: float) -> np.ndarray:
    """Roughly where the tissue is, to place the harm; the largest piece that stands out."""
    apart = ndimage.gaussian_filter(np.abs(image - background), 1.5)
    labels, _ = ndimage.label(apart > 0.15 * np.quantile(apart, 0.99))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _beyond(shape, tissue, share, angle):
    """Pixels on one side of a wavy line that cuts off `share` of the tissue."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = rows * math.cos(angle) - columns * math.sin(angle)
    along = along + 0.01 * shape[1] * np.sin(across / (0.05 * shape[1]))
    return along > np.quantile(along[tissue], 1 - share)


def missing_part(image, background, rng):
    """A copy without 25 to 50 % of its tissue, beyond a wavy line."""
    share, angle = rng.uniform(0.25, 0.5), rng.uniform(0, 2 * math.pi)
    gone = _beyond(image.shape, _tissue(image, background), share, angle)
    return np.where(gone, background, image), f"{100 * share:.0f} % missing"


def torn_apart(image, background, rng):
    """A copy whose smaller part is turned by 8 to 15° and lies 4 to 8 % of its extent apart."""
    tissue = _tissue(image, background)
    share, angle = rng.uniform(0.25, 0.45), rng.uniform(0, 2 * math.pi)
    part = _beyond(image.shape, tissue, share, angle)
    extent = max(np.ptp(axis) for axis in np.nonzero(tissue))
    shift, turn = extent * rng.uniform(0.04, 0.08), rng.choice([-1, 1]) * rng.uniform(8, 15)
    pad = int(shift) + 4
    wide = {"mode": "constant", "constant_values": background}
    image, part = np.pad(image, pad, **wide), np.pad(part & tissue, pad)
    middle = np.argwhere(part).mean(axis=0)[::-1]
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    about = translation(*middle) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about = about @ translation(*-middle)
    away = shift * np.array([math.cos(angle), math.sin(angle)])
    old_from_new = np.linalg.inv(translation(*away) @ about)
    rest = np.where(part, background, image)
    moved = _looked_up(np.where(part, image, background), old_from_new, image.shape, background)
    # where both would lie, the one with more tissue is seen
    torn = np.where(np.abs(moved - background) > np.abs(rest - background), moved, rest)
    return torn, translation(pad, pad), f"torn, {turn:.0f}° and {shift:.0f} px apart"


def _looked_up(image, old_from_new, shape, background):
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    old = apply(old_from_new, np.stack([columns, rows], axis=-1))
    return ndimage.map_coordinates(
        image, [old[..., 1], old[..., 0]], order=1, mode="constant", cval=background
    )


def harm(rows: list[SectionRow], truth: dict, folder: Path, seed: int) -> None:
    """Write a harmed copy of a brain's sections and what was done to each."""
    rng = np.random.default_rng(seed)
    n = len(rows)
    count = {kind: max(1, round(share * n)) for kind, share in SHARES.items()}
    removed = set(rng.choice(n, count["removed"], replace=False).tolist())
    left = [i for i in range(n) if i not in removed]
    swapped: list[tuple[int, int]] = []
    for at in rng.permutation(len(left) - 1):
        pair = left[at], left[at + 1]
        if len(swapped) < max(1, count["swapped"] // 2) and not {*pair} & {*sum(swapped, ())}:
            swapped.append(pair)
    others = rng.permutation([i for i in left if i not in sum(swapped, ())]).tolist()
    kind_of = {}
    for kind in ("flipped", "torn", "turned"):
        for _ in range(count[kind]):
            kind_of[others.pop()] = kind
    partner = dict(swapped) | {b: a for a, b in swapped}

    table, done, plane_px, position_mm = [], {}, {}, {}
    for i in left:
        row = rows[i]
        image = read_section(Path(row.image))
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        background = float(np.median(edge))
        kind, what = kind_of.get(i, ""), ""
        # the brain's own flips and turns first, so that what is harmed is known
        upright, shape = upright_from_file(image.shape, row.flip, row.rotate_deg)
        if row.flip != "none" or row.rotate_deg:
            image = _looked_up(image, np.linalg.inv(upright), shape, background)
        new_from_old = np.eye(3)
        if kind == "flipped":
            what = str(rng.choice(["lr", "ud"]))
            new_from_old, _ = upright_from_file(image.shape, what)
            image = image[:, ::-1] if what == "lr" else image[::-1]
        elif kind == "turned":
            degrees = float(rng.uniform(-180, 180))
            what = f"{degrees:.1f}"
            new_from_old, shape = upright_from_file(image.shape, "none", degrees)
            image = _looked_up(image, np.linalg.inv(new_from_old), shape, background)
        elif kind == "torn":
            if rng.random() < 0.5:
                image, what = missing_part(image, background, rng)
            else:
                image, new_from_old, what = torn_apart(image, background, rng)
        shown = rows[partner[i]].position_mm if i in partner else row.position_mm
        if i in partner:
            kind, what = "swapped", rows[partner[i]].section
        write_png(
            folder / "sections" / f"{row.section}.png",
            np.round(255 * np.clip(image, 0, 1)).astype(np.uint8),
        )
        table.append(
            {
                "section": row.section,
                "image": f"sections/{row.section}.png",
                "position_mm": shown,
                "pixel_size_mm": row.pixel_size_mm,
            }
        )
        done[row.section] = {"harm": kind, "what": what}
        position_mm[row.section] = row.position_mm
        if "section_from_plane_px" in truth:
            old = np.eye(3)
            old[:2] = truth["section_from_plane_px"][row.section]
            plane_px[row.section] = (new_from_old @ upright @ old)[:2].tolist()
    write_tsv(folder / "sections.tsv", sorted(table, key=lambda r: r["position_mm"]))
    affines = {"section_from_plane_px": plane_px} if plane_px else {}
    write_json(folder / "truth.json", {**truth, **affines, "position_mm": position_mm})
    write_json(
        folder / "harm.json",
        {"sections": done, "removed_at_mm": sorted(rows[i].position_mm for i in removed)},
    )


# --------------------------------------------------------------------------------------------
# Running
# --------------------------------------------------------------------------------------------


def sbr(log: Path, *arguments: object) -> None:
    """Run one command of `sbr`, its output in a log."""
    command = [sys.executable, "-m", "sbr_core", *map(str, arguments)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed, see {log}")


def prepare(manifest: Path, results: Path, options: dict) -> None:
    """`prepare` and its table."""
    receipt = results / "prepare" / "chunks" / "1of1.tsv"
    asked = ("--options", json.dumps(options)) if options else ()
    where = ("--rows", manifest, "--out-dir", results / "prepare", "--receipt", receipt)
    sbr(results / "logs" / "prepare.log", "prepare", *asked, *where)
    table = results / "prepare" / "sections.tsv"
    sbr(results / "logs" / "collect.log", "collect", "--receipts", receipt, "--table", table)


def doctor(results: Path) -> Path:
    """`doctor` of a prepared brain; its findings."""
    where = ("--prepared", results / "prepare" / "sections.tsv", "--out-dir", results / "doctor")
    sbr(results / "logs" / "doctor.log", "doctor", *where)
    return results / "doctor" / "findings.tsv"


def align(manifest: Path, results: Path, data: Path, orientation: str, pixel_mm: float) -> None:
    """`align` → `resample` → `align-sections` of a prepared brain."""
    table, folder = results / "prepare" / "sections.tsv", results / "align"
    log = results / "logs"
    mri = ("--mri", results / "prepare" / "mri.nii.gz")
    mri += ("--mri-mask", results / "prepare" / "mri_mask.nii.gz")
    sbr(
        log / "prepare_mri.log",
        *("prepare-mri", "--mri", data / "mri.nii.gz", "--out-dir", results / "prepare"),
    )
    sbr(
        log / "align.log",
        *("align", "--sections", table, *mri, "--orientation", orientation),
        *("--working-pixel-mm", pixel_mm, "--out-dir", folder),
    )
    planes = results / "resample" / "chunks" / "1of1.tsv"
    sbr(
        log / "resample.log",
        *("resample", "--rows", manifest, "--align-dir", folder, *mri),
        *("--out-dir", results / "resample", "--receipt", planes),
    )
    affines = results / "align_sections" / "chunks" / "1of1.tsv"
    sbr(
        log / "align_sections.log",
        *("align-sections", "--prepared", results / "prepare" / "chunks" / "1of1.tsv"),
        *("--planes", planes, "--align-dir", folder),
        *("--out-dir", results / "align_sections", "--receipt", affines),
    )
    whole = results / "align_sections" / "sections.tsv"
    sbr(log / "collect.log", "collect", "--receipts", affines, "--table", whole)


# --------------------------------------------------------------------------------------------
# Counting
# --------------------------------------------------------------------------------------------

KIND_OF = {"flipped": "flip", "turned": "turn", "torn": "damage", "swapped": "swap"}


def counts(folder: Path, findings: Path, mended: Path) -> dict[str, object]:
    """Of each kind of harm (found, mended, all), and the unharmed sections that were accused."""
    harm = json.loads((folder / "harm.json").read_text(encoding="utf-8"))
    lines = read_tsv(findings)[1]
    said: dict[str, set[str]] = {}
    for line in lines:
        said.setdefault(line["section"], set()).add(line["finding"])
    at = {r["section"]: float(r["position_mm"]) for r in read_tsv(folder / "sections.tsv")[1]}
    after = {row["section"]: row for row in read_tsv(mended)[1]}
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    found: dict[str, object] = {}
    missed = []
    for harmed, kind in KIND_OF.items():
        sections = [s for s, done in harm["sections"].items() if done["harm"] == harmed]
        if harmed == "turned":
            what = {s: float(harm["sections"][s]["what"]) for s in sections}
            sections = [s for s in sections if abs(what[s]) >= TURNED_AT_LEAST_DEG]
        seen = [s for s in sections if kind in said.get(s, ())]
        missed += [
            f"{s} ({harmed} {harm['sections'][s]['what']})" for s in sections if s not in seen
        ]
        if harmed == "swapped":
            right = [
                s for s in sections if float(after[s]["position_mm"]) == truth["position_mm"][s]
            ]
        elif harmed == "torn":
            right = []
        else:
            right = [s for s in sections if _lies_right(harm["sections"][s], after[s])]
        found[harmed] = (len(seen), len(right), len(sections))
    gaps = sorted(at.values())
    between = [
        mm for mm in harm["removed_at_mm"] if gaps[0] < mm < gaps[-1]
    ]  # what is gone from an end leaves no gap
    after_gap = [at[line["section"]] for line in lines if line["finding"] == "gap"]
    noticed = [mm for mm in between if max((g for g in gaps if g < mm), default=0) in after_gap]
    found["removed"] = (len(noticed), 0, len(between))
    unharmed = [s for s, done in harm["sections"].items() if not done["harm"]]
    accused = {s: sorted(said[s] - {"gap"}) for s in unharmed if said.get(s, set()) - {"gap"}}
    return {"found": found, "unharmed": len(unharmed), "accused": accused, "missed": missed}


def _lies_right(done: dict[str, str], row: dict[str, str]) -> bool:
    """Whether flip and turn of the mended manifest undo what was done to a section, within 15°."""
    turn = float(row.get("rotate_deg") or 0)
    flip = row.get("flip") or "none"
    # mirrored left-right, then turned: upside down is left-right and half a turn
    mirrored, angle = flip != "none", turn + (180 if flip == "ud" else 0)
    if done["harm"] == "turned":
        return not mirrored and abs(_half_turn(angle + float(done["what"]))) <= 15
    return mirrored and abs(_half_turn(angle - (180 if done["what"] == "ud" else 0))) <= 15


def _half_turn(degrees: float) -> float:
    return (degrees + 180) % 360 - 180


def error_mm(results: Path, truth: Path) -> tuple[float, float, float, int]:
    """(mean, median, 95th percentile, sections) of the 3D distance over tissue pixels."""
    errors = section_errors(results, json.loads(truth.read_text(encoding="utf-8")), None)
    distance = np.linalg.norm(np.concatenate(list(errors.values())), axis=1)
    return distance.mean(), np.median(distance), np.quantile(distance, 0.95), len(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of sections.tsv")
    parser.add_argument("work", type=Path, help="folder for copies and results")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--working-pixel-mm", type=float, default=0.8)
    parser.add_argument("--orientation", default="LIA")
    parser.add_argument("--align", action="store_true", help="measure the alignment too")
    parser.add_argument("--harmed", action="store_true", help="align the harmed stacks too")
    asked = parser.parse_args()
    options = {"working_pixel_mm": asked.working_pixel_mm}
    rows = read_manifest(asked.data / "sections.tsv")
    truth_file = asked.data / "truth.json"
    truth = json.loads(truth_file.read_text(encoding="utf-8")) if truth_file.is_file() else {}
    print(heading("The section doctor on known harm"))
    aligned: list[tuple[str, Path, Path, Path]] = []

    plain = asked.work / "unharmed"
    if not (plain / "doctor" / "doctor.json").is_file():
        prepare(asked.data / "sections.tsv", plain, options)
        doctor(plain)
    accused = [r for r in read_tsv(plain / "doctor" / "findings.tsv")[1] if r["finding"] != "gap"]
    print(f"Without harm: {len(accused)} of {len(rows)} sections accused of something.\n")
    for line in accused:
        print(f"- {line['words']} ({line['confidence']})")
    aligned.append(("without harm", asked.data / "sections.tsv", plain, truth_file))

    every = {}
    for seed in range(1, asked.seeds + 1):
        folder = asked.work / f"seed{seed}"
        mended, again = folder / "mended.tsv", folder / "mended"
        if not (again / "doctor" / "doctor.json").is_file():
            harm(rows, truth, folder, seed)
            prepare(folder / "sections.tsv", folder / "harmed", options)
            findings = doctor(folder / "harmed")
            log = folder / "harmed" / "logs" / "apply_findings.log"
            sbr(
                log, "apply-findings", findings, "--manifest", folder / "sections.tsv", "-o", mended
            )
            prepare(mended, again, options)
            doctor(again)
        findings = folder / "harmed" / "doctor" / "findings.tsv"
        every[seed] = counts(folder, findings, mended)
        if asked.harmed:
            sections = folder / "sections.tsv"
            harmed = folder / "harmed"
            aligned.append((f"harmed, seed {seed}", sections, harmed, folder / "truth.json"))
        aligned.append((f"mended, seed {seed}", mended, again, folder / "truth.json"))

    harms = [*KIND_OF, "removed"]
    print(
        f"\nTurned means by {TURNED_AT_LEAST_DEG:g}° or more. Found, of all; in brackets, mended.\n"
    )
    print("| seed | " + " | ".join(harms) + " | unharmed accused |")
    print("|---|" + "---|" * (len(harms) + 1))
    total = {name: np.zeros(3, int) for name in harms}
    for seed, one in every.items():
        cells = []
        for name in harms:
            total[name] += one["found"][name]
            cells.append(_cell(name, one["found"][name]))
        cells.append(f"{len(one['accused'])} of {one['unharmed']}")
        print(f"| {seed} | " + " | ".join(cells) + " |")
    n_accused = sum(len(one["accused"]) for one in every.values())
    n_unharmed = sum(one["unharmed"] for one in every.values())
    cells = [_cell(name, total[name]) for name in harms] + [f"{n_accused} of {n_unharmed}"]
    print("| all | " + " | ".join(cells) + " |\n")
    for seed, one in every.items():
        accused = ", ".join(f"{s} ({', '.join(kinds)})" for s, kinds in one["accused"].items())
        print(f"- seed {seed}: missed {', '.join(one['missed']) or '-'}; accused {accused or '-'}")
        lines = read_tsv(asked.work / f"seed{seed}" / "mended" / "doctor" / "findings.tsv")[1]
        still = [f"{r['section']} {r['finding']}" for r in lines if r["suggestion"]]
        print(f"  - of the mended stack the doctor still says: {', '.join(still) or 'nothing'}")

    if asked.align:
        print("\n| stack | sections | mean error mm | median | 95 % |\n|---|---|---|---|---|")
        for name, manifest, results, truth_of in aligned:
            if not (results / "align_sections" / "sections.tsv").is_file():
                try:
                    align(manifest, results, asked.data, asked.orientation, asked.working_pixel_mm)
                except SystemExit as failed:
                    print(f"| {name} | did not align: {str(failed).splitlines()[-1]} | | | |")
                    continue
            mean, median, high, n = error_mm(results, truth_of)
            print(f"| {name} | {n} | {mean:.2f} | {median:.2f} | {high:.2f} |", flush=True)


def _cell(name: str, counted: Sequence[int]) -> str:
    found, right, of = counted
    mended = f" ({right})" if name not in ("torn", "removed") else ""
    return f"{found} of {of}{mended}"


if __name__ == "__main__":
    main()
