"""What landmarks of corrections do for sections that are laid wrongly.

    python benchmarks/corrections.py RESULTS LANDMARKS WORK [--sections 8] [--seed 1]

RESULTS is the folder of a finished demo brain, LANDMARKS its ``landmarks.tsv``, whose points are
the truth; run it where the workflow ran. In a copy of what `align-sections` reads, the affine that
`align` found of each chosen section is turned by 12° and shifted by ``--shift-mm``, from where the
fit does not find back. Then the section is fitted and registered (`linear`, `mind`) without
landmarks; with one, two, three and five of its own, each set ``--noise-mm`` off as people do; and
with three of which one lies 20 mm from its place.

*At landmarks*: the farthest of those given, the wrong one apart; mm on the plane. *True error*:
mean distance of all other landmarks of the section from where they belong, in the plane.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import heading

from sbr_core.artifacts import names
from sbr_core.artifacts.accuracy import landmark_errors_mm
from sbr_core.artifacts.global_fit import read_initial, write_initial
from sbr_core.artifacts.rows import Affine, Inferred, Plane, Prepared, Row, read_rows, write_rows
from sbr_core.config import AlignSectionsOptions, InferOptions, MindOptions
from sbr_core.io.manifests import Landmark, read_landmarks
from sbr_core.io.transforms import read_section_transform, read_stack_from_world
from sbr_core.stages import align_sections, infer

_WRONG_MM = 20.0
_TURN_DEG = 12.0


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sections", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shift-mm", type=float, default=10.0)
    parser.add_argument("--noise-mm", type=float, default=0.5)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    chosen = _harmed(given.results, given.work, given.sections, given.shift_mm, rng)
    marks = {s: [] for s in chosen}
    for mark in read_landmarks(given.landmarks, _ids(given.work), prealigned=False):
        if mark.section in marks:
            marks[mark.section].append(mark)
    print(heading("Landmarks of corrections"))
    print(f"\n{len(chosen)} sections: {', '.join(chosen)}\n")
    print("| case | method | at landmarks, median (largest) | true error, mean (largest) | told |")
    print("|---|---|---|---|---|")
    for case, number, wrong in (
        ("as it was", 0, False),
        ("laid wrongly", 0, False),
        *((f"{n} landmark{'s' * (n > 1)}", n, False) for n in (1, 2, 3, 5)),
        ("3, one of them wrong", 3, True),
    ):
        set_ = {s: _set(marks[s], number, wrong, given.noise_mm, rng) for s in chosen}
        folder = given.work / case.replace(" ", "_").replace(",", "")
        align_dir = given.results / "align" if case == "as it was" else given.work / "align"
        _run(given.work, align_dir, folder, [m for each in set_.values() for m in each])
        for method in ("linear", "mind"):
            _print(case, method, given.work, folder, marks, set_)


def _ids(work: Path) -> list[str]:
    return [f"s{i:03d}" for i in range(1, 1000)]


def _harmed(
    results: Path, work: Path, count: int, shift_mm: float, rng: np.random.Generator
) -> list[str]:
    """Copy what is needed, with tables of the chosen sections alone, and turn their affines."""
    shutil.rmtree(work, ignore_errors=True)
    for stage in ("prepare", "resample", "align"):
        shutil.copytree(results / stage, work / stage)
    rows = sorted(read_rows(work / "prepare" / names.TABLE, Prepared), key=lambda r: r.position_mm)
    inner = rows[len(rows) // 8 : -len(rows) // 8]
    chosen = [inner[round(i)].section for i in np.linspace(0, len(inner) - 1, count)]
    for stage, kind in (("prepare", Prepared), ("resample", Plane)):
        table = work / stage / names.TABLE
        write_rows(table, [r for r in read_rows(table, kind) if r.section in chosen])
    initial = work / "align" / names.INITIAL_AFFINES
    harmed = []
    for row in read_initial(initial):
        if row.section in chosen:
            a, b = np.deg2rad(rng.choice([-1, 1]) * _TURN_DEG), rng.uniform(0, 2 * np.pi)
            turn = np.eye(3)
            turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
            # about the middle of the section, roughly
            middle = np.array([50.0, 45.0])
            turn[:2, 2] = middle - turn[:2, :2] @ middle
            turn[:2, 2] += shift_mm * np.array([np.cos(b), np.sin(b)])
            row = replace(row, working_mm_from_plane_mm=turn @ row.working_mm_from_plane_mm)
        harmed.append(row)
    write_initial(initial, harmed)
    return chosen


def _set(
    marks: list[Landmark], number: int, wrong: bool, noise_mm: float, rng: np.random.Generator
) -> list[Landmark]:
    """So many landmarks far apart from each other, as people set them."""
    if not number:
        return []
    points = np.array([m.section_mm for m in marks])
    taken = [int(rng.integers(len(marks)))]
    while len(taken) < number:
        apart = np.linalg.norm(points[:, None] - points[taken], axis=-1).min(axis=1)
        taken.append(int(apart.argmax()))
    out = []
    for order, i in enumerate(taken):
        off = rng.normal(0, noise_mm / np.sqrt(2), 2)
        if wrong and order == number - 1:
            angle = rng.uniform(0, 2 * np.pi)
            off = _WRONG_MM * np.array([np.cos(angle), np.sin(angle)])
        xy = tuple((points[i] + off).tolist())
        name = "wrong" if wrong and order == number - 1 else str(i)
        out.append(replace(marks[i], section_mm=xy, name=name))
    return out


def _run(work: Path, align_dir: Path, folder: Path, landmarks: list[Landmark]) -> None:
    tables = {"prepared": work / "prepare" / names.TABLE, "planes": work / "resample" / names.TABLE}
    affines = folder / "align_sections" / names.TABLE
    align_sections.run(
        AlignSectionsOptions(),
        **tables,
        out_dir=affines.parent,
        receipt=affines,
        align_dir=align_dir,
        landmarks=landmarks,
    )
    for method, options in (("linear", InferOptions()), ("mind", MindOptions())):
        receipt = folder / method / names.TABLE
        infer.run(
            options,
            method=method,
            **tables,
            affines=affines,
            out_dir=receipt.parent,
            receipt=receipt,
        )


def _print(
    case: str,
    method: str,
    work: Path,
    folder: Path,
    marks: dict[str, list[Landmark]],
    set_: dict[str, list[Landmark]],
) -> None:
    stack_from_world = read_stack_from_world(work / "align" / names.STACK_TRANSFORM)
    said: dict[str, str] = {}
    for table, kind in (("align_sections", Affine), (method, Inferred)):
        for row in read_rows(folder / table / names.TABLE, kind):
            said[row.section] = said.get(row.section, "") + row.message
    held, errors, told = [], [], 0
    rows: list[Row] = read_rows(folder / method / names.TABLE, Inferred)
    for row in rows:
        section = row.section
        given = [m for m in set_[section] if m.name != "wrong"]
        names_given = {m.name for m in set_[section]}
        others = [m for i, m in enumerate(marks[section]) if str(i) not in names_given]
        back = read_section_transform(row.file(names.STACK_TO_SECTION))
        if given:
            held.append(landmark_errors_mm(given, back, stack_from_world, 0.0)[0].max())
        errors.append(landmark_errors_mm(others, back, stack_from_world, 0.0)[0].mean())
        told += "not obeyed" in said[section]
    at = f"{np.median(held):.2f} ({np.max(held):.2f})" if held else "–"
    print(f"| {case} | {method} | {at} | {np.mean(errors):.2f} ({np.max(errors):.2f}) | {told} |")


if __name__ == "__main__":
    main()
