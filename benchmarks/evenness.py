"""Whether uneven light, staining and jumps along the stack are found, and only those.

    python benchmarks/evenness.py DATA

DATA holds ``bigbrain_anterior`` (the data README). Three questions, on its raw sections:

- How often do `even_light: auto` and `even_staining: auto` act? Nobody would call these sections
  unevenly lit, so every time is a false alarm.
- Known fields of light and of staining, multiplied onto the sections: how often are they found, and
  what of them is left?
- How much does the staining jump from section to section, before and after `even_sections`? The
  sections are brought to the data set's planes by its own affines, at 0.8 mm. *Jump of the
  medians*: mean absolute difference of neighbours' tissue medians, as a share of their median;
  *jump pixel by pixel*: mean absolute median ratio of neighbours, less one.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import machine
import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.evenness import (
    evening_gains,
    has_jumps,
    light_field,
    log_ratio,
    section_levels,
    staining_field,
    unit_square,
)
from sbr_core.algorithms.masks import tissue_mask
from sbr_core.algorithms.sections import grid_px, prefilter, resample_section
from sbr_core.artifacts.section_signal import find_source
from sbr_core.io.images import read_picture
from sbr_core.io.manifests import SectionRow, read_manifest

PLANE_SHAPE, FILE_PX = (174, 151), 2
"""The data set's planes at twice its pixel."""


def signal_and_mask(row: SectionRow) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, signal and tissue of one raw section."""
    picture = read_picture(Path(row.image))
    source, noise = find_source(picture, "auto", "auto", "never")
    signal = source.signal(picture)
    return picture, signal, tissue_mask(signal, row.pixel_size_mm, 2 * row.pixel_size_mm, noise)


def xy_of(shape: tuple[int, int]) -> np.ndarray:
    """(rows, columns, 2) in the coordinates of a field."""
    return unit_square(grid_px(shape), shape)


def left_of(true: np.ndarray, found: np.ndarray, where: np.ndarray) -> float:
    """Root mean square of the logarithm that is left, over that of the true field."""
    off, whole = np.log(true[where] / found[where]), np.log(true[where])
    return float(np.std(off) / np.std(whole))


def fields(rows: list[SectionRow]) -> None:
    """Known fields of light and of staining on every eighth section, and none."""
    rng = np.random.default_rng(0)
    alarms = {"light": 0, "staining": 0}
    kinds = ("light", 1.3), ("light", 1.6), ("staining", 1.8), ("staining", 2.5)
    lefts = {kind: [] for kind in kinds}
    counts = dict.fromkeys(kinds, 0)
    for number, row in enumerate(rows):
        picture, signal, tissue = signal_and_mask(row)
        xy = xy_of(signal.shape)
        alarms["light"] += light_field(picture) is not None
        alarms["staining"] += staining_field(signal, tissue, xy) is not None
        if number % 8:
            continue
        angle = rng.uniform(0, 2 * np.pi)
        along = xy @ np.array([np.cos(angle), np.sin(angle)])
        centre = rng.uniform(-0.4, 0.4, 2)
        shape = {"staining": along, "light": -((xy - centre) ** 2).sum(axis=-1)}
        for kind in kinds:
            counts[kind] += 1
            log = shape[kind[0]]
            true = np.exp(np.log(kind[1]) * log / np.ptp(log))
            if kind[0] == "light":
                found, where = light_field(picture * true.astype(np.float32)), ...
            else:
                found, where = staining_field(signal * true, tissue, xy), tissue
            if found is not None:
                lefts[kind].append(left_of(true, found.over(signal.shape), where))
    print(f"\nOf {len(rows)} sections as they are, `auto` evens the light of {alarms['light']} and")
    print(f"the staining of {alarms['staining']}.\n")
    print("| field | brightest / faintest | found | left of it where found, mean | worst |")
    print("|---|---|---|---|---|")
    for kind, values in lefts.items():
        mean, worst = (f"{f(values):.2f}" if values else "" for f in (np.mean, np.max))
        name = "light, falling off" if kind[0] == "light" else "staining, a slope"
        print(f"| {name} | {kind[1]:g} | {len(values)} of {counts[kind]} | {mean} | {worst} |")


def stack_jumps(rows: list[SectionRow], truth: dict) -> None:
    """Jumps along the stack, before and after."""
    planes = []
    for row in rows:
        picture = read_picture(Path(row.image))
        source, _ = find_source(picture, "auto", "auto", "auto")
        file_from_plane = np.eye(3)
        file_from_plane[:2] = np.array(truth["section_from_plane_px"][row.section])[:2, :3]
        coarse = geometry.scaling(FILE_PX)
        coarse[:2, 2] = (FILE_PX - 1) / 2
        points = geometry.apply(file_from_plane @ coarse, grid_px(PLANE_SHAPE))
        planes.append(resample_section(prefilter(source.signal(picture), FILE_PX), points))
    links = [
        (i - back, i, *log_ratio(planes[i - back], planes[i]))
        for i in range(len(planes))
        for back in (1, 2)
        if i >= back
    ]
    levels = section_levels(len(planes), links)
    gains = evening_gains(levels, np.array([row.position_mm for row in rows]))
    print(f"\nThe stack has jumps: {has_jumps(levels)}. Factors from {gains.min():.2f} to", end=" ")
    print(f"{gains.max():.2f}.\n\n| | jump of the medians | jump pixel by pixel |\n|---|---|---|")
    for name, factors in (("before", np.ones(len(planes))), ("after", gains)):
        evened = [plane * factor for plane, factor in zip(planes, factors, strict=True)]
        medians = np.array(
            [np.median(p[p > 0.05 * f]) for p, f in zip(evened, factors, strict=True)]
        )
        by_median = np.abs(np.diff(medians)).mean() / np.median(medians)
        ratios = [log_ratio(a, b)[0] for a, b in pairwise(evened)]
        by_pixel = np.abs(np.expm1(ratios)).mean()
        print(f"| {name} | {100 * by_median:.1f} % | {100 * by_pixel:.1f} % |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data / "bigbrain_anterior"
    print(machine.heading("Evenness on BigBrain's raw sections"))
    rows = read_manifest(folder / "sections.tsv")
    fields(rows)
    stack_jumps(rows, json.loads((folder / "truth.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
