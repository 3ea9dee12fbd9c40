"""SbR's Dice on Allen against linear, SyN-MI and greedy-NMI, section by section.

    python benchmarks/allen_against_classical.py DATA WORK [--greedy FOLDER]

WORK is a folder of `real_brain.py allen`. SyN-MI and greedy are run here, on the dataset's own
0.25 mm pairs, with the settings of the method `syn_mi` and of `infer_speed.py`; their warps are
applied to the labels with nearest neighbour. They are kept in WORK, so that they are run once.
Wilcoxon's signed-rank test is two-sided, over the sections with labels.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from infer_speed import GREEDY
from machine import heading
from scipy.ndimage import map_coordinates

from sbr_core.algorithms.syn import register_syn
from sbr_core.config import SynOptions
from sbr_core.geometry import PlaneGrid
from sbr_core.io.images import read_labels, read_section
from sbr_core.io.manifests import read_manifest
from sbr_core.io.tables import read_tsv
from sbr_core.metrics import dice, paired_wilcoxon

CLASSES = {2: "WM", 3: "GM", 1: "cerebellar GM", 4: "cerebellar WM"}


Dices = dict[str, dict[int, float]]
"""Section -> class -> Dice."""


def pairs(data: Path) -> Iterator[tuple[str, float, list[np.ndarray]]]:
    """Of each section with labels its name, pixel in mm, MRI plane, section and both label maps."""
    for row in read_manifest(data / "sections.tsv", prealigned=True):
        if row.labels:
            images = [np.asarray(read_section(Path(f)), float) for f in (row.mri_image, row.image)]
            maps = [read_labels(Path(f)) for f in (row.mri_labels, row.labels)]
            yield row.section, row.pixel_size_mm, images + maps


def syn_dice(data: Path) -> Dices:
    """After SyN-MI."""
    options, found = SynOptions(), {}
    for section, pixel_mm, (fixed, moving, fixed_labels, labels) in pairs(data):
        warp = register_syn(fixed, moving, PlaneGrid(fixed.shape, pixel_mm), options)
        disp_px = np.moveaxis(warp.disp_px, -1, 0)[::-1]  # rows, then columns
        places = np.indices(fixed.shape) + disp_px
        found[section] = dice(map_coordinates(labels, places, order=0), fixed_labels)
    return found


def greedy_dice(data: Path, folder: Path) -> Dices:
    """After greedy."""
    import SimpleITK as sitk

    sys.path.append(str(folder))
    greedy = importlib.import_module("picsl_greedy")
    found = {}
    for section, _, arrays in pairs(data):
        names = ("fixed", "moving", "fixed_labels", "labels")
        images = {
            name: sitk.GetImageFromArray(array.astype(float))
            for name, array in zip(names, arrays, strict=True)
        }
        del images["fixed_labels"]
        tool = greedy.Greedy2D()
        tool.execute(f"-V 0 -i fixed moving {GREEDY} -o warp", warp=None, **images)
        tool.execute("-V 0 -rf fixed -ri NN -rm labels warped -r warp", warped=None)
        warped = sitk.GetArrayFromImage(tool["warped"])
        found[section] = dice(np.rint(warped).astype(int), arrays[2])
    return found


def kept(file: Path, make: Callable[[], Dices]) -> Dices:
    """What `make` returns, or returned in an earlier run."""
    if not file.is_file():
        file.write_text(json.dumps(make()))
    return {s: {int(c): v for c, v in d.items()} for s, d in json.loads(file.read_text()).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--greedy", type=Path, help="folder with picsl-greedy")
    arguments = parser.parse_args()
    values: dict[str, Dices] = {}
    table = arguments.work / "results" / "allen" / "evaluation" / "sections.tsv"
    for row in read_tsv(table)[1]:
        if row["metric"] == "dice":
            of_section = values.setdefault(row["method"], {}).setdefault(row["section"], {})
            of_section[int(row["class"])] = float(row["value"])
    data, folder = arguments.data, arguments.greedy
    values["SyN-MI, 0.25 mm"] = kept(arguments.work / "syn.json", lambda: syn_dice(data))
    if folder:
        file = arguments.work / "greedy.json"
        values["greedy-NMI, 0.25 mm"] = kept(file, lambda: greedy_dice(data, folder))

    print(heading("Dice on Allen against the classical tools"))
    print("| method | class | Dice | SbR more by | sections where SbR is worse | n | p |")
    print("|---" * 7 + "|")
    ours = values.pop("sbr")
    for method, theirs in values.items():
        for number, name in CLASSES.items():
            a, b = ({s: v[number] for s, v in m.items() if number in v} for m in (ours, theirs))
            test = paired_wilcoxon(a, b)
            more = np.array([a[s] - b[s] for s in a if s in b])
            print(
                f"| {method} | {name} | {np.mean(list(b.values())):.4f} | {more.mean():+.4f} |"
                f" {np.count_nonzero(more < 0)} | {test.n} | {test.p:.2g} |"
            )
    means = (np.mean([v[c] for v in ours.values() if c in v]) for c in CLASSES)
    print(
        "\nsbr: " + ", ".join(f"{n} {m:.4f}" for n, m in zip(CLASSES.values(), means, strict=True))
    )


if __name__ == "__main__":
    main()
