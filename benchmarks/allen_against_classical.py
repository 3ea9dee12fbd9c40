"""SbR's Dice on Allen against linear, SyN-MI and greedy-NMI, section by section.

    python benchmarks/allen_against_classical.py DATA WORK [--greedy FOLDER]

WORK is a folder of `real_brain.py allen`, run again with ``methods: [linear, syn_mi, sbr]``. greedy
is run here, on the dataset's own 0.25 mm pairs, with the settings of `infer_speed.py`; its warps
are applied to the labels with nearest neighbour. Wilcoxon's signed-rank test is two-sided, over the
sections with labels.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np
from infer_speed import GREEDY
from machine import heading

from sbr_core.io.images import read_labels, read_section
from sbr_core.io.manifests import read_manifest, read_tsv
from sbr_core.metrics import dice, paired_wilcoxon

CLASSES = {2: "WM", 3: "GM", 1: "cerebellar GM", 4: "cerebellar WM"}


def greedy_dice(data: Path, folder: Path) -> dict[str, dict[int, float]]:
    """Section -> class -> Dice after greedy."""
    import SimpleITK as sitk

    sys.path.append(str(folder))
    greedy = importlib.import_module("picsl_greedy")
    found = {}
    for row in read_manifest(data / "sections.tsv", prealigned=True):
        if not row.labels:
            continue
        images = {
            "fixed": sitk.GetImageFromArray(np.asarray(read_section(Path(row.mri_image)), float)),
            "moving": sitk.GetImageFromArray(np.asarray(read_section(Path(row.image)), float)),
            "labels": sitk.GetImageFromArray(read_labels(Path(row.labels)).astype(float)),
        }
        tool = greedy.Greedy2D()
        tool.execute(f"-V 0 -i fixed moving {GREEDY} -o warp", warp=None, **images)
        tool.execute("-V 0 -rf fixed -ri NN -rm labels warped -r warp", warped=None)
        warped = sitk.GetArrayFromImage(tool["warped"])
        found[row.section] = dice(np.rint(warped).astype(int), read_labels(Path(row.mri_labels)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--greedy", type=Path, help="folder with picsl-greedy")
    arguments = parser.parse_args()
    values: dict[str, dict[str, dict[int, float]]] = {}
    table = arguments.work / "results" / "allen" / "evaluation" / "sections.tsv"
    for row in read_tsv(table)[1]:
        if row["metric"] == "dice":
            of_section = values.setdefault(row["method"], {}).setdefault(row["section"], {})
            of_section[int(row["class"])] = float(row["value"])
    if arguments.greedy:
        values["greedy-NMI"] = greedy_dice(arguments.data, arguments.greedy)

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
