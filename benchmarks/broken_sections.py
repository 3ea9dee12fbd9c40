"""How broken sections are laid: half cut away, a dark frame, pen writing, two pieces moved apart.

    python benchmarks/broken_sections.py DATA WORK [--each 4] [--seed 1] [--working-pixel-mm 1]

DATA is bigbrain_anterior: raw sections, ``mri.nii.gz`` and ``truth.json``. In a copy of it,
``--each`` sections of every kind, spread over the stack, are broken:

half missing       45 to 60 % of the tissue is gone, beyond a wavy line at any angle
dark frame         the slide's edges are dark on two to four sides and touch the tissue
pen writing        letters and strokes as dark as ink, beside the tissue and across it
frame and writing  both
two pieces         25 to 45 % of the tissue is turned by 8 to 15° and lies 4 to 8 % of the section's
                   extent apart

Both stacks go through ``prepare`` → ``align`` → ``resample`` → ``align-sections``. The *error* of a
broken section is how far its tissue (all of the untouched section's; of two pieces, the larger
one's) lies from where the untouched section came to lie, mean 3D mm; *of truth.json* is the same
against the dataset's own alignment, the shift common to all sections taken out. *Neighbours* is the
error of the mean turn and stretch of the sections on either side, tissue on tissue, which a section
that `align` never saw starts from. Last come the sections that nothing was done to. Run again with
the same WORK, finished steps are kept.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import doctor
import numpy as np
from bigbrain_alignment import section_errors
from machine import heading
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from sbr_core.algorithms.alignment.stack import tissue_centre_mm
from sbr_core.artifacts.names import MASK, MRI_MASK, STACK_TRANSFORM
from sbr_core.artifacts.rows import Affine, Plane, Prepared, read_rows
from sbr_core.geometry import apply, scaling, translation
from sbr_core.io.files import write_json
from sbr_core.io.images import read_section, write_png
from sbr_core.io.manifests import read_manifest
from sbr_core.io.tables import write_tsv
from sbr_core.io.transforms import read_stack_from_world
from sbr_core.io.volumes import read_plane
from sbr_core.stages.align_sections import interpolated_start

_WRONG_TRUTH = ("348", "351", "357", "361")
"""Sections that the dataset's own alignment lays wrongly (2026-11-25_alignment.md)."""
_ORIENTATION = "LIA"


@dataclass(frozen=True)
class Broken:
    """A broken section.

    Attributes
    ----------
    image : (rows, columns) in [0, 1].
    new_from_old : (3, 3), px; how what did not move lies in it.
    moved : (rows, columns) bool, the tissue of the old image that moved with its piece.
    what : in words.
    """

    image: np.ndarray
    new_from_old: np.ndarray
    moved: np.ndarray
    what: str


def _padded(image: np.ndarray, pad: int, value: float) -> np.ndarray:
    return np.pad(image, pad, constant_values=value)


def half_missing(image: np.ndarray, glass: float, rng: np.random.Generator) -> Broken:
    share, angle = rng.uniform(0.45, 0.6), rng.uniform(0, 2 * math.pi)
    gone = doctor._beyond(image.shape, doctor._tissue(image, glass), share, angle)
    what = f"{100 * share:.0f} % missing"
    return Broken(np.where(gone, glass, image), np.eye(3), np.zeros(image.shape, bool), what)


def two_pieces(image: np.ndarray, glass: float, rng: np.random.Generator) -> Broken:
    tissue = doctor._tissue(image, glass)
    share, angle = rng.uniform(0.25, 0.45), rng.uniform(0, 2 * math.pi)
    part = doctor._beyond(image.shape, tissue, share, angle)
    extent = max(np.ptp(axis) for axis in np.nonzero(tissue))
    shift, turn = extent * rng.uniform(0.04, 0.08), rng.choice([-1, 1]) * rng.uniform(8, 15)
    pad = round(0.15 * extent)
    wide, wide_part = _padded(image, pad, glass), np.pad(part, pad)
    middle = np.argwhere(np.pad(part & tissue, pad)).mean(axis=0)[::-1]
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    about = translation(*middle) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    away = shift * np.array([math.cos(angle), math.sin(angle)])
    moved_from_old = translation(*away) @ about @ translation(*-middle)
    rest = np.where(wide_part, glass, wide)
    alone = np.where(wide_part, wide, glass)
    moved = doctor._looked_up(alone, np.linalg.inv(moved_from_old), wide.shape, glass)
    torn = np.minimum(moved, rest)  # where both would lie, the darker is seen
    what = f"{100 * share:.0f} % turned by {turn:.0f}°, {shift:.0f} px apart"
    return Broken(torn, translation(pad, pad), part, what)


def _frame(image: np.ndarray, glass: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A wider picture whose sides are dark, and by how much it is wider on each."""
    tissue = doctor._tissue(image, glass)
    extent = max(np.ptp(axis) for axis in np.nonzero(tissue))
    pad = round(rng.uniform(0.06, 0.12) * extent)
    wide = _padded(image, pad, glass)
    rows, columns = np.indices(wide.shape)
    from_side = [rows, wide.shape[0] - 1 - rows, columns, wide.shape[1] - 1 - columns]
    along = [columns, columns, rows, rows]
    dark = rng.uniform(0.05, 0.35)
    for side in rng.permutation(4)[: rng.integers(2, 5)]:
        slant = rng.uniform(-0.04, 0.04)
        ragged = 0.006 * extent * np.sin(along[side] / rng.uniform(0.03, 0.1) / extent)
        width = pad * rng.uniform(0.7, 1.15) + slant * (along[side] - along[side].max() / 2)
        share = 1 / (1 + np.exp((from_side[side] - width - ragged) / 0.8))
        wide = np.minimum(wide, share * dark + (1 - share) * wide)
    return wide, pad


def _written_on(image: np.ndarray, extent: float, rng: np.random.Generator) -> np.ndarray:
    """The picture with two words and a winding stroke of a pen on it."""
    ink = Image.new("L", image.shape[::-1], 0)
    pen = ImageDraw.Draw(ink)
    height = int(rng.uniform(0.1, 0.16) * extent)
    for word in ("BB " + str(rng.integers(1000, 9999)), "R " + str(rng.integers(10, 99))):
        at = rng.uniform((0.0, 0.0), (0.7 * image.shape[1], image.shape[0] - height))
        font = ImageFont.load_default(height)
        pen.text(tuple(at), word, fill=255, font=font, stroke_width=max(1, height // 12))
    x = np.linspace(0, 1, 60)
    start, end = rng.uniform((0, 0), image.shape[::-1], (2, 2))
    line = start + x[:, None] * (end - start)
    line += 0.04 * extent * np.sin(rng.uniform(8, 20) * x)[:, None]
    pen.line([tuple(p) for p in line], fill=255, width=max(2, round(0.015 * extent)))
    covered = gaussian_filter(np.asarray(ink, float) / 255, 0.5)
    return image * (1 - covered) + 0.03 * covered


def framed(image: np.ndarray, glass: float, rng: np.random.Generator) -> Broken:
    wide, pad = _frame(image, glass, rng)
    return Broken(wide, translation(pad, pad), np.zeros(image.shape, bool), f"{pad} px wide")


def written(image: np.ndarray, glass: float, rng: np.random.Generator) -> Broken:
    tissue = doctor._tissue(image, glass)
    extent = max(np.ptp(axis) for axis in np.nonzero(tissue))
    pad = round(0.1 * extent)
    wide = _written_on(_padded(image, pad, glass), extent, rng)
    return Broken(wide, translation(pad, pad), np.zeros(image.shape, bool), "")


def framed_and_written(image: np.ndarray, glass: float, rng: np.random.Generator) -> Broken:
    tissue = doctor._tissue(image, glass)
    wide, pad = _frame(image, glass, rng)
    wide = _written_on(wide, max(np.ptp(axis) for axis in np.nonzero(tissue)), rng)
    return Broken(wide, translation(pad, pad), np.zeros(image.shape, bool), f"{pad} px wide")


KINDS = {
    "half missing": half_missing,
    "dark frame": framed,
    "pen writing": written,
    "frame and writing": framed_and_written,
    "two pieces": two_pieces,
}


def break_sections(data: Path, folder: Path, each: int, seed: int) -> None:
    """Write a copy of a brain's sections with some broken, its truth, and what was done."""
    rng = np.random.default_rng(seed)
    rows = read_manifest(data / "sections.tsv")
    truth = json.loads((data / "truth.json").read_text(encoding="utf-8"))
    # every kind all along the stack, its first and last sections left out
    places = np.linspace(4, len(rows) - 6, each * len(KINDS)).round().astype(int)
    kinds = dict(zip(places.tolist(), list(KINDS) * each, strict=True))
    table, done = [], {}
    for i, row in enumerate(rows):
        place = {"position_mm": row.position_mm, "pixel_size_mm": row.pixel_size_mm}
        if i not in kinds or row.section in _WRONG_TRUTH:
            table.append({"section": row.section, "image": row.image, **place})
            continue
        image = read_section(Path(row.image))
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        broken = KINDS[kinds[i]](image, float(np.median(edge)), rng)
        path = folder / "sections" / f"{row.section}.png"
        write_png(path, np.round(255 * np.clip(broken.image, 0, 1)).astype(np.uint8))
        table.append({"section": row.section, "image": str(path), **place})
        done[row.section] = {
            "kind": kinds[i],
            "what": broken.what,
            "new_from_old_px": broken.new_from_old.tolist(),
            "moved": np.argwhere(broken.moved)[:, ::-1].tolist(),
        }
        old = np.eye(3)
        old[:2] = truth["section_from_plane_px"][row.section]
        truth["section_from_plane_px"][row.section] = (broken.new_from_old @ old)[:2].tolist()
    write_tsv(folder / "sections.tsv", table)
    write_json(folder / "truth.json", truth)
    write_json(folder / "broken.json", done)


class Aligned:
    """Results of a stack, and where they say that points of its files are."""

    def __init__(self, results: Path) -> None:
        stack_from_world = read_stack_from_world(results / "align" / STACK_TRANSFORM)
        self.world_from_stack = np.linalg.inv(stack_from_world)
        tables = ("prepare", Prepared), ("resample", Plane), ("align_sections", Affine)
        self.prepared, self.planes, self.affines = (
            {row.section: row for row in read_rows(_table(results / stage), kind)}
            for stage, kind in tables
        )

    def world(self, section: str, file_px: np.ndarray, working_from_plane_mm: np.ndarray):
        """(n, 3) world mm of points (n, 2) of the section's file."""
        row = self.prepared[section]
        working_from_file = np.linalg.inv(row.section_mm_from_working_mm)
        working_mm = apply(working_from_file @ scaling(row.pixel_size_mm), file_px)
        plane_mm = apply(np.linalg.inv(working_from_plane_mm), working_mm)
        z = np.full((len(plane_mm), 1), row.position_mm)
        return apply(self.world_from_stack, np.hstack([plane_mm, z]))

    def tissue_px(self, section: str) -> np.ndarray:
        """(n, 2) points of the section's file that are tissue."""
        row = self.prepared[section]
        mask = read_plane(row.file(MASK))[0] > 0
        working_mm = np.argwhere(mask)[:, ::-1] * row.working_pixel_mm
        section_mm = apply(row.section_mm_from_working_mm, working_mm)
        return section_mm / row.pixel_size_mm

    def by_neighbours(self, section: str, broken: set[str]) -> np.ndarray:
        """(3, 3) working_from_plane_mm: turn and stretch of the neighbours, centre on centre."""
        row = self.prepared[section]
        whole = sorted(
            (r for s, r in self.affines.items() if s not in broken), key=lambda r: r.position_mm
        )
        below = [r for r in whole if r.position_mm < row.position_mm][-1]
        above = next(r for r in whole if r.position_mm > row.position_mm)
        share = (row.position_mm - below.position_mm) / (above.position_mm - below.position_mm)
        plane = self.planes[section]
        return interpolated_start(
            [below.working_mm_from_plane_mm, above.working_mm_from_plane_mm],
            [1 - share, share],
            tissue_centre_mm(read_plane(row.file(MASK))[0] > 0, row.working_pixel_mm),
            tissue_centre_mm(read_plane(plane.file(MRI_MASK))[0] > 0, plane.grid.spacing_mm),
        )


def _table(folder: Path) -> Path:
    table = folder / "sections.tsv"
    return table if table.is_file() else folder / "chunks" / "1of1.tsv"


def _taken_through(data: Path, manifest: Path, results: Path, pixel_mm: float) -> Aligned:
    if not (results / "prepare" / "sections.tsv").is_file():
        doctor.prepare(manifest, results, {"working_pixel_mm": pixel_mm})
    if not (results / "align_sections" / "sections.tsv").is_file():
        doctor.align(manifest, results, data, _ORIENTATION, pixel_mm)
    return Aligned(results)


def _mean_mm(difference: np.ndarray) -> float:
    return float(np.linalg.norm(difference, axis=1).mean())


def compare(work: Path, whole: Aligned, broken: Aligned) -> None:
    """Print a table of the broken sections, and a line of those that nothing was done to."""
    done = json.loads((work / "broken.json").read_text(encoding="utf-8"))
    truth = json.loads((work / "truth.json").read_text(encoding="utf-8"))
    against_truth = section_errors(work / "broken", truth, None)
    common = np.concatenate(list(against_truth.values())).mean(axis=0)
    head = ("section", "kind", "what", "error mm", "neighbours", "of truth.json", "trust")
    print("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    errors: dict[str, list[float]] = {}
    for section, case in done.items():
        old_px = whole.tissue_px(section)
        moved = {tuple(p) for p in case["moved"]}
        stayed = np.array([tuple(p) not in moved for p in old_px.round().astype(int).tolist()])
        old_px = old_px[stayed]
        new_px = apply(np.array(case["new_from_old_px"]), old_px)
        want = whole.world(section, old_px, whole.affines[section].working_mm_from_plane_mm)
        affine = broken.affines[section]
        found = broken.world(section, new_px, affine.working_mm_from_plane_mm)
        near = broken.world(section, new_px, broken.by_neighbours(section, set(done)))
        error = _mean_mm(found - want)
        errors.setdefault(case["kind"], []).append(error)
        of_truth = _mean_mm(against_truth[section] - common)
        figures = f"{error:.2f} | {_mean_mm(near - want):.2f} | {of_truth:.2f}"
        trust = getattr(affine, "trust", None)
        trust = "" if trust is None else f"{trust:.2f}"
        print(f"| {section} | {case['kind']} | {case['what']} | {figures} | {trust} |")
    for kind, values in errors.items():
        print(f"{kind}: mean {np.mean(values):.2f} mm, worst {np.max(values):.2f}")
    every = np.concatenate(list(errors.values()))
    print(f"all broken: mean {every.mean():.2f} mm, worst {every.max():.2f}")
    healthy = [s for s in broken.affines if s not in done and s not in _WRONG_TRUTH]
    apart = [
        _mean_mm(
            broken.world(s, px, broken.affines[s].working_mm_from_plane_mm)
            - whole.world(s, px, whole.affines[s].working_mm_from_plane_mm)
        )
        for s in healthy
        for px in (whole.tissue_px(s),)
    ]
    of_truth = [_mean_mm(against_truth[s] - common) for s in healthy]
    print(
        f"{len(healthy)} others: from where they lie in the untouched stack, mean"
        f" {np.mean(apart):.3f} mm, largest {np.max(apart):.2f}; from truth.json, mean"
        f" {np.mean(of_truth):.3f}, largest {np.max(of_truth):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--working-pixel-mm", type=float, default=1.0)
    asked = parser.parse_args()
    data, work, pixel_mm = asked.data.resolve(), asked.work, asked.working_pixel_mm
    print(heading("Broken sections"))
    if not (work / "broken.json").is_file():
        break_sections(data, work, asked.each, asked.seed)
    whole = _taken_through(data, data / "sections.tsv", work / "whole", pixel_mm)
    broken = _taken_through(data, work / "sections.tsv", work / "broken", pixel_mm)
    compare(work, whole, broken)


if __name__ == "__main__":
    main()
