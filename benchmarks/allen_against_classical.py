"""SbR's Dice on Allen against linear and the classical tools at their best, section by section.

    python benchmarks/allen_against_classical.py DATA WORK [--greedy FOLDER]

WORK is a folder of `real_brain.py allen`. SyN-MI and greedy are run here, on the dataset's own
0.25 mm pairs; their warps are applied to the labels with nearest neighbour. Each tool has its usual
settings (of the method `syn_mi` and of `infer_speed.py`) and others of smoothing and steps, which
are tried on every third section; the best mean of WM and GM there is then run on all sections,
beside the usual one. greedy is also given the MIND-SSC of SbR's refinement, as images of eight
components, and their squared difference. Everything is kept in WORK, so that it is run once.
Wilcoxon's signed-rank test is two-sided, over the sections with labels.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from infer_speed import GREEDY
from machine import heading
from scipy.ndimage import map_coordinates

from sbr_core.algorithms.syn import register_syn
from sbr_core.config import SynOptions
from sbr_core.functional.intensity import normalise
from sbr_core.functional.self_similarity import mind_ssc
from sbr_core.geometry import PlaneGrid
from sbr_core.io.images import read_labels, read_section
from sbr_core.io.manifests import read_manifest
from sbr_core.io.tables import read_tsv
from sbr_core.metrics import dice, paired_wilcoxon

SYN_SETTINGS: dict[str, dict[str, Any]] = {
    "usual": {},
    "step 0.5": {"gradient_step": 0.5},
    "flow 1": {"flow_sigma_px": 1.0},
    "flow 6": {"flow_sigma_px": 6.0},
}
_STEPS = "-n 100x100x40 -sv"
GREEDY_SETTINGS: dict[str, dict[str, str]] = {
    "greedy-NMI": {
        "usual": GREEDY,
        "its own smoothing": f"-m NMI {_STEPS} -s 1.732vox 0.7071vox",
        "4 and 1.5": f"-m NMI {_STEPS} -s 4.0vox 1.5vox",
    },
    "greedy-MIND": {
        "usual": f"-m SSD {_STEPS} -s 3.0vox 1.0vox",
        "its own smoothing": f"-m SSD {_STEPS} -s 1.732vox 0.7071vox",
        "4 and 1.5": f"-m SSD {_STEPS} -s 4.0vox 1.5vox",
    },
}
"""Tool -> setting -> options. The first setting is the usual one."""
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


def syn_dice(data: Path, setting: Mapping[str, Any], every: int) -> Dices:
    """After SyN-MI."""
    options, found = SynOptions(**setting), {}
    for section, pixel_mm, (fixed, moving, fixed_labels, labels) in islice(
        pairs(data), 0, None, every
    ):
        warp = register_syn(fixed, moving, PlaneGrid(fixed.shape, pixel_mm), options)
        disp_px = np.moveaxis(warp.disp_px, -1, 0)[::-1]  # rows, then columns
        places = np.indices(fixed.shape) + disp_px
        found[section] = dice(map_coordinates(labels, places, order=0), fixed_labels)
    return found


def greedy_dice(data: Path, setting: str, every: int, greedy: Any) -> Dices:
    """After greedy; with ``-m SSD`` of MIND-SSC instead of the images."""
    found = {}
    for section, _, (fixed, moving, fixed_labels, labels) in islice(pairs(data), 0, None, every):
        given = [fixed], [moving]
        if "-m SSD" in setting:
            given = descriptors(fixed), descriptors(moving)
        images = {"labels": sitk.GetImageFromArray(labels.astype(float))}
        inputs = []
        for number, arrays in enumerate(zip(*given, strict=True)):
            names = f"fixed{number}", f"moving{number}"
            images |= dict(zip(names, map(sitk.GetImageFromArray, arrays), strict=True))
            inputs += ["-i", *names]
        tool = greedy.Greedy2D()
        tool.execute(f"-V 0 {' '.join(inputs)} {setting} -o warp", warp=None, **images)
        tool.execute("-V 0 -rf fixed0 -ri NN -rm labels warped -r warp", warped=None)
        warped = sitk.GetArrayFromImage(tool["warped"])
        found[section] = dice(np.rint(warped).astype(int), fixed_labels)
    return found


def descriptors(image: np.ndarray) -> list[np.ndarray]:
    """Unlikeness by MIND-SSC, 0 in background, eight of (rows, columns)."""
    inside = torch.from_numpy(image > 0)[None, None].float()
    normalised = torch.from_numpy(normalise(image, image > 0, 0.01, 0.99))[None, None]
    return list((1 - mind_ssc(normalised, inside))[0].double().numpy())


def at_their_best(
    tool: str,
    settings: Mapping[str, Any],
    make: Callable[[Any, int], Dices],
    work: Path,
) -> dict[str, Dices]:
    """The tool with its usual, first, settings, and with the best on every third section."""
    print(f"\n| {tool}: setting | WM + GM / 2, every third section |\n|---|---|")
    means = {}
    for name, setting in settings.items():
        tried = kept(work / f"{tool}, {name}, third.json", lambda s=setting: make(s, 3))
        means[name] = np.mean([d[c] for c in (2, 3) for d in tried.values() if c in d])
        print(f"| {name} | {means[name]:.4f} |", flush=True)
    usual, best = next(iter(settings)), max(means, key=means.get)
    return {
        f"{tool}, {name}": kept(work / f"{tool}, {name}.json", lambda n=name: make(settings[n], 1))
        for name in dict.fromkeys((usual, best))
    }


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
    data, folder, work = arguments.data, arguments.greedy, arguments.work
    values |= at_their_best(
        "SyN-MI", SYN_SETTINGS, lambda setting, every: syn_dice(data, setting, every), work
    )
    if folder:
        sys.path.append(str(folder))
        greedy = importlib.import_module("picsl_greedy")
        for tool, settings in GREEDY_SETTINGS.items():
            values |= at_their_best(
                tool,
                settings,
                lambda setting, every: greedy_dice(data, setting, every, greedy),
                work,
            )

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
