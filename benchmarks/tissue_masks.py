"""Tissue masks against hand-checked ones, against known truth and against published labels.

    python benchmarks/tissue_masks.py DATA HANDMASKS [--demo FOLDER] [--pictures FOLDER]

DATA holds ``bigbrain_anterior`` and ``allen`` (the data README). HANDMASKS holds a PNG per raw
BigBrain section, ``slice_{section}.png``, on the section's grid; they were made from the data and
are not part of the project. With ``--demo`` the simulated sections of `sbr demo` are compared with
the labels they were painted from. ``--pictures`` writes the outlines of every eighth section of
BigBrain and of every third raw one of Allen.

All masks are those of `prepare` with its defaults, on its working grid; truth is brought there by
area vote. Dice is 2 |A and B| / (|A| + |B|).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import machine
import numpy as np
from scipy import ndimage

from sbr_core import geometry
from sbr_core.algorithms.sections import area_vote
from sbr_core.config import PrepareOptions
from sbr_core.io.images import read_labels, write_png
from sbr_core.io.manifests import SectionRow, read_manifest
from sbr_core.io.tables import read_tsv
from sbr_core.io.volumes import read_plane
from sbr_core.stages.prepare import prepare_section


def prepared(row: SectionRow, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """(image, mask) on the working grid."""
    with TemporaryDirectory() as folder:
        prepare_section(row, PrepareOptions(working_pixel_mm=pixel_mm), Path(folder))
        image, mask = (
            read_plane(Path(folder) / "sections" / f"{row.section}_{kind}.nii.gz")[0]
            for kind in ("image", "mask")
        )
    return image, mask > 0


def dice(row: SectionRow, truth: np.ndarray, pixel_mm: float) -> float:
    """Of the found mask with a true one on the file's grid."""
    _, found = prepared(row, pixel_mm)
    matrix, shape = geometry.file_px_from_working_px(
        truth.shape, row.pixel_size_mm, pixel_mm, row.flip, row.rotate_deg
    )
    true = area_vote(truth, matrix, shape)
    return float(2 * np.sum(found & true) / (found.sum() + true.sum()))


def table(
    title: str, pairs: Iterable[tuple[SectionRow, Path]], pixels_mm: Iterable[float], names: bool
) -> None:
    """Print mean and worst Dice at several working pixels; each section's too, if asked."""
    pairs = list(pairs)
    print(f"\n### {title}\n\n| working pixel, mm | sections | mean | worst |\n|---|---|---|---|")
    each = {}
    for pixel_mm in pixels_mm:
        values = {row.section: dice(row, read_labels(t) > 0, pixel_mm) for row, t in pairs}
        worst = min(values, key=values.get)
        mean = np.mean(list(values.values()))
        print(f"| {pixel_mm:g} | {len(values)} | {mean:.4f} | {values[worst]:.4f} ({worst}) |")
        each[pixel_mm] = values
    if names:
        print("\n| section | " + " | ".join(f"{p:g} mm" for p in each) + " |")
        print("|---|" + "---|" * len(each))
        for row, _ in pairs:
            cells = " | ".join(f"{values[row.section]:.3f}" for values in each.values())
            print(f"| {row.section} | {cells} |")


def picture(row: SectionRow, pixel_mm: float, path: Path) -> None:
    """The section as prepared, tissue dark, with the outline of its mask in red."""
    image, mask = prepared(row, pixel_mm)
    scale = max(1, round(700 / max(image.shape)))
    top = float(np.quantile(image[mask], 0.99))
    grey = np.kron(np.clip(1 - (image / top + 0.1) / 1.1, 0, 1), np.ones((scale, scale)))
    big = np.kron(mask, np.ones((scale, scale), bool))
    rgb = np.repeat(np.round(255 * grey).astype(np.uint8)[..., None], 3, axis=-1)
    rgb[big ^ ndimage.binary_erosion(big, border_value=1)] = (255, 0, 0)
    write_png(path, rgb)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("hand_masks", type=Path)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    print(machine.heading("Tissue masks"))

    bigbrain = read_manifest(options.data / "bigbrain_anterior" / "sections.tsv")
    by_hand = [(row, options.hand_masks / f"slice_{row.section}.png") for row in bigbrain]
    by_hand = [(row, path) for row, path in by_hand if path.is_file()]
    table("Raw BigBrain sections, hand-checked masks", by_hand, (0.4, 0.8, 1.25), names=True)

    allen_folder = options.data / "allen"
    allen = read_manifest(allen_folder / "sections.tsv")
    labelled = [(row, Path(row.labels)) for row in allen if row.labels]
    bare = [(replace(row, labels=""), path) for row, path in labelled]
    table("Allen sections, published labels", bare, (0.25, 0.5, 1.0), names=False)

    if options.demo:
        rows = read_manifest(options.demo / "sections.tsv")
        table(
            "Simulated sections, labels they were painted from",
            [(row, Path(row.labels)) for row in rows],
            (0.5, 1.25),
            names=False,
        )
    if options.pictures:
        for row in bigbrain[::8]:
            picture(row, 0.4, options.pictures / f"bigbrain_{row.section}.png")
        raw = {r["section"]: r["image_raw"] for r in read_tsv(allen_folder / "sections.tsv")[1]}
        for row in allen[::3]:
            bare_row = SectionRow(
                row.section, str(allen_folder / raw[row.section]), row.position_mm, 0.25
            )
            picture(bare_row, 0.25, options.pictures / f"allen_raw_{row.section}.png")


if __name__ == "__main__":
    main()
