"""How a stack is found in its MRI however that MRI's world is turned, mirrored, scaled, shifted.

    python benchmarks/any_start.py DATA WORK [--working-pixel-mm 0.8] [--full N] [--only TEXT]

DATA has ``sections.tsv``, ``mri.nii.gz`` and ``truth.json`` as bigbrain_anterior has, or as
``sbr demo`` writes them. Voxels stay as they are; the MRI's *world affine* is followed by

* the 24 turns of the axes onto each other, and each of them after a mirror: 48;
* 20 random rotations of up to 180 degrees (seed 1, axes and angles uniform), every other one
  mirrored; scaled by up to 15 % either way and shifted by up to 30 mm along each axis.

The truth is transformed alike. Each case is searched with nothing given (`orientation: auto`), at
the resolution of the search only. *Error* is the mean 3D distance, over tissue pixels of all
sections, between where the pose found puts them, sections centred and nothing more, and where they
are; *floor* is what the best affine of the centred stack leaves. *Angle* is that between the
rotations found and true. A mirror of the world changes the handedness that is to be found; it is
counted apart: right, wrong, or undetermined (where `align` would stop and ask).

With ``--full N``, of the random cases N, evenly spread, are then taken through ``align`` →
``resample`` → ``align-sections``, and the error measured as ``bigbrain_alignment.py`` does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from bigbrain_alignment import section_errors
from machine import heading
from scipy.spatial.transform import Rotation

from sbr_core.algorithms.alignment.pose_search import search
from sbr_core.algorithms.alignment.poses import coarse_scenes
from sbr_core.algorithms.alignment.stack import Stack, centred_affines
from sbr_core.algorithms.alignment.start import judge
from sbr_core.algorithms.simulation.truth import true_world_from_section_mm
from sbr_core.artifacts.rows import Prepared
from sbr_core.config import AlignOptions
from sbr_core.geometry import apply
from sbr_core.io.volumes import Volume, read_volume, write_volume
from sbr_core.stages.align import read_mri, read_stack


@dataclass(frozen=True)
class Case:
    """`change` (4, 4): new world from old."""

    name: str
    change: np.ndarray


def cases() -> list[Case]:
    """The 48 turns of the axes and the 20 random ones."""
    found = []
    for mirrored in (False, True):
        for axes in itertools.permutations(range(3)):
            for signs in itertools.product((1.0, -1.0), repeat=3):
                matrix = np.zeros((3, 3))
                matrix[list(axes), range(3)] = signs
                if (np.linalg.det(matrix) < 0) != mirrored:
                    continue
                change = np.eye(4)
                change[:3, :3] = matrix
                name = "".join(
                    "-+"[int(s > 0)] + "xyz"[a] for a, s in zip(axes, signs, strict=True)
                )
                found.append(Case(("mirror " if mirrored else "turn ") + name, change))
    rng = np.random.default_rng(1)
    for number in range(20):
        axis = rng.normal(size=3)
        angle = rng.uniform(0, np.pi)
        scale = rng.uniform(0.85, 1.15)
        change = np.eye(4)
        turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
        change[:3, :3] = scale * turn @ np.diag([-1.0 if number % 2 else 1.0, 1, 1])
        change[:3, 3] = rng.uniform(-30, 30, 3)
        what = f"random {number}: {np.rad2deg(angle):.0f} degrees, x {scale:.2f}"
        found.append(Case(what + (", mirrored" if number % 2 else ""), change))
    return found


def sbr(log: Path, *command: object) -> None:
    """Run a command of `sbr`; its words go to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(["sbr", *map(str, command)], stderr=stream, stdout=stream)
    if done.returncode:
        raise RuntimeError(log.read_text(encoding="utf-8"))


def prepare(data: Path, work: Path, pixel_mm: float) -> Path:
    """The sections and the MRI at working resolution; kept where they are there already."""
    out = work / "prepare"
    if not (out / "sections.tsv").is_file():
        options = json.dumps({"working_pixel_mm": pixel_mm})
        receipt = out / "chunks" / "all.tsv"
        sbr(
            work / "logs" / "prepare.log",
            *("prepare", "--rows", data / "sections.tsv", "--options", options),
            *("--out-dir", out, "--receipt", receipt),
        )
        mask = data / "mri_mask.nii.gz"
        given = ("--mri-mask", mask) if mask.is_file() else ()
        mri = ("--mri", data / "mri.nii.gz", *given)
        sbr(work / "logs" / "mri.log", "prepare-mri", *mri, "--out-dir", out)
        table = out / "sections.tsv"
        sbr(work / "logs" / "collect.log", "collect", "--receipts", receipt, "--table", table)
    return out


def true_points(rows: list[Prepared], stack: Stack, truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Tissue pixels of all sections: in the stack as it is centred, and in the world."""
    centred, world = [], []
    for row, section, affine in zip(rows, stack.sections, centred_affines(stack), strict=True):
        working_mm = section.tissue_mm(stack.pixel_mm, 7)
        section_mm = apply(row.section_mm_from_working_mm, working_mm)
        z = np.full((len(working_mm), 1), row.position_mm)
        centred.append(np.hstack([apply(np.linalg.inv(affine), working_mm), z]))
        if "section_from_plane_px" in truth:
            section_from_plane_px = np.eye(3)
            section_from_plane_px[:2] = truth["section_from_plane_px"][row.section]
            plane_px = apply(np.linalg.inv(section_from_plane_px), section_mm / row.pixel_size_mm)
            plane = np.hstack([truth["pixel_mm"] * plane_px, z])
            world.append(apply(np.array(truth["world_from_stack"]), plane))
        else:
            world.append(true_world_from_section_mm(truth, row.section, section_mm))
    return np.concatenate(centred), np.concatenate(world)


def rotation_of(linear: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(linear)
    return u @ vt


def take_through(
    case: Case, data: Path, work: Path, prepared: Path, truth: dict, pixel_mm: float
) -> tuple[float, float, float]:
    """(mean error, the same without the shift common to all, seconds of align) of a case."""
    folder = work / "full" / case.name.split(":")[0].replace(" ", "_")
    for name in ("mri", "mri_mask"):
        volume = read_volume(prepared / f"{name}.nii.gz")
        moved = Volume(volume.data, case.change @ volume.world_from_voxel)
        write_volume(folder / f"{name}.nii.gz", moved)
    mri = ("--mri", folder / "mri.nii.gz", "--mri-mask", folder / "mri_mask.nii.gz")
    begin = time.monotonic()
    sbr(
        folder / "align.log",
        *("align", "--sections", prepared / "sections.tsv", *mri, "--orientation", "auto"),
        *("--working-pixel-mm", pixel_mm, "--out-dir", folder / "align"),
    )
    seconds = time.monotonic() - begin
    planes = folder / "resample" / "all.tsv"
    aligned = ("--align-dir", folder / "align")
    sbr(
        folder / "resample.log",
        *("resample", "--rows", data / "sections.tsv", *aligned, *mri),
        *("--out-dir", folder / "resample", "--receipt", planes),
    )
    receipt = folder / "align_sections" / "all.tsv"
    sbr(
        folder / "align_sections.log",
        *("align-sections", "--prepared", prepared / "chunks" / "all.tsv", "--planes", planes),
        *(*aligned, "--out-dir", folder / "align_sections", "--receipt", receipt),
    )
    table = folder / "align_sections" / "sections.tsv"
    sbr(folder / "collect.log", "collect", "--receipts", receipt, "--table", table)
    if not (folder / "prepare").exists():
        (folder / "prepare").symlink_to(prepared.resolve())
    true = {**truth, "world_from_stack": (case.change @ truth["world_from_stack"]).tolist()}
    every = np.concatenate(list(section_errors(folder, true, None).values()))
    # the old world's millimetres, so that cases of different scale compare
    every = every @ np.linalg.inv(case.change[:3, :3]).T
    without = np.linalg.norm(every - every.mean(axis=0), axis=1).mean()
    return float(np.linalg.norm(every, axis=1).mean()), float(without), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--working-pixel-mm", type=float, default=0.8)
    parser.add_argument("--full", type=int, default=0, metavar="N")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    asked = parser.parse_args()
    truth = json.loads((asked.data / "truth.json").read_text(encoding="utf-8"))
    true_world_from_stack = np.array(truth["world_from_stack"])
    pixel_mm = asked.working_pixel_mm
    prepared = prepare(asked.data, asked.work, pixel_mm)
    rows, stack = read_stack(prepared / "sections.tsv", pixel_mm)
    brain = read_mri(prepared / "mri.nii.gz", prepared / "mri_mask.nii.gz")
    centred, world = true_points(rows, stack, truth)
    with_one = np.hstack([centred, np.ones((len(centred), 1))])
    best_affine = np.linalg.lstsq(with_one, world, rcond=None)[0]
    floor = float(np.linalg.norm(with_one @ best_affine - world, axis=1).mean())
    scenes = coarse_scenes(stack, brain)
    least = AlignOptions().min_margin

    print(heading(f"The search, {asked.data.name}: {len(rows)} sections"))
    print(f"floor {floor:.1f} mm\n")
    columns = ("case", "error mm", "angle", "handedness", "margin of it", "of place", "s", "CPU s")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    chosen = [case for case in cases() if asked.only in case.name]
    counts = {"right": 0, "wrong": 0, "undetermined": 0}
    reached, errors, angles, seconds, cpu = 0, [], [], [], []
    for case in chosen:
        begin, cpu_begin = time.monotonic(), time.process_time()
        moved = replace(scenes[1], mm_from_index=case.change @ scenes[1].mm_from_index)
        verdict = judge(search(scenes[0], moved))
        seconds.append(time.monotonic() - begin)
        cpu.append(time.process_time() - cpu_begin)
        true = case.change @ true_world_from_stack
        true_handedness = np.linalg.det(true[:3, :3]) < 0
        # place and angle by the better pose of the true handedness; handedness counts apart
        right = verdict.best.mirrored == true_handedness
        pose = verdict.best if right else verdict.mirror
        sure = verdict.handedness_margin >= least
        counts["undetermined" if not sure else "right" if right else "wrong"] += 1
        there = apply(case.change, world)
        errors.append(
            float(np.linalg.norm(apply(pose.world_from_stack, centred) - there, axis=1).mean())
        )
        between = rotation_of(pose.world_from_stack[:3, :3]) @ rotation_of(true[:3, :3]).T
        angles.append(float(np.rad2deg(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1)))))
        good = errors[-1] < 10 and angles[-1] < 10 and verdict.place_margin >= least
        reached += good
        print(
            f"| {case.name} | {errors[-1]:.1f} | {angles[-1]:.1f}°"
            f" | {'right' if right else 'wrong'}{'' if sure else ', undetermined'}"
            f" | {verdict.handedness_margin:.1f} | {verdict.place_margin:.1f}"
            f" | {seconds[-1]:.0f} | {cpu[-1]:.0f} |{'' if good else ' **missed**'}",
            flush=True,
        )
    print(
        f"\nin the right basin (under 10 mm and 10°, and sure of it): {reached} of {len(chosen)};"
        f" largest error {max(errors):.1f} mm, {max(angles):.1f}°; handedness right"
        f" {counts['right']}, wrong {counts['wrong']}, undetermined {counts['undetermined']};"
        f" seconds mean {np.mean(seconds):.0f}, largest {max(seconds):.0f}, of the processor"
        f" {np.mean(cpu):.0f} and {max(cpu):.0f}"
    )
    if asked.full:
        random = [case for case in chosen if case.name.startswith("random")]
        picked = random[:: max(1, len(random) // asked.full)][: asked.full]
        print(
            "\n| case | mean error mm | without the common shift | s of align |\n"
            + "|---" * 4
            + "|"
        )
        for case in picked:
            mean, without, wall = take_through(
                case, asked.data, asked.work, prepared, truth, pixel_mm
            )
            print(f"| {case.name} | {mean:.3f} | {without:.3f} | {wall:.0f} |", flush=True)


if __name__ == "__main__":
    main()
