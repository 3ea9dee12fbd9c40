"""Time and memory of `sbr apply` and `sbr count` on much, and how far points end from their start.

    python benchmarks/carrying.py RESULTS WORK [--cells N] [--polygons N] [--side PIXELS]
        [--labels VOLUME [--only-labels]]

RESULTS is the folder of a finished brain. Of its middle section come a table of cells as QuPath
writes it, and polygons with measurements; each goes to the MRI in a process of its own, whose
processor time and peak of resident memory are measured. There and back is measured over the tissue
of all sections, in working px. With labels of its MRI, cells all over every section are counted in
them, and they are put onto the middle section in `--side` pixels along its longer side, as an
image, as outlines and as simplified ones. Images: `full_resolution.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import machine
import numpy as np
import pandas as pd

from sbr_core import Brain
from sbr_core.mapping.brain import Section


def cells(path: Path, section: Section, n: int, seed: int = 0) -> None:
    """A table of measurements with centroids all over the section."""
    rng = np.random.default_rng(seed)
    um = section.pixel_size_mm * 1000 * np.array(section.shape[::-1])
    table = pd.DataFrame({"Object ID": [f"{i:032x}" for i in range(n)]})
    table["Classification"] = np.where(rng.random(n) < 0.5, "Positive", "Negative")
    table["Centroid X µm"] = rng.uniform(0, um[0], n).round(3)
    table["Centroid Y µm"] = rng.uniform(0, um[1], n).round(3)
    for i in range(6):
        table[f"Nucleus: {i}"] = rng.random(n).round(4)
    table.to_csv(path, sep="\t", index=False)


def polygons(path: Path, section: Section, n: int) -> None:
    """Outlines of 32 points, up to a twentieth of the section wide, with 20 measurements."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 33)[:-1]
    size = np.array(section.shape[::-1])
    features = []
    for i in range(n):
        radius = size.min() * rng.uniform(0.0005, 0.025) * (1 + 0.2 * np.sin(3 * angle))
        circle = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        ring = (rng.uniform(0.1, 0.9, 2) * size + circle).round(3).tolist()
        properties = {"objectType": "annotation", "name": str(i)}
        properties["measurements"] = {f"m{j}": float(rng.random()) for j in range(20)}
        geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


LAUNCHER = """
import json, os, subprocess, sys, time
began = time.monotonic()
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([status, time.monotonic() - began, usage.ru_utime + usage.ru_stime,
                  usage.ru_maxrss]))
"""
"""A process begins with the peak of the one that starts it, so this one is small."""


def measured(*words: object) -> dict[str, float]:
    """Seconds, processor seconds and MB at most of `sbr`."""
    return run_measured([sys.executable, "-m", "sbr_core", *words])


def run_measured(words: Sequence[object]) -> dict[str, float]:
    """Seconds, processor seconds and MB at most of a command."""
    launcher = [sys.executable, "-c", LAUNCHER, *map(str, words)]
    done = subprocess.run(launcher, stdout=subprocess.PIPE, text=True, check=True)
    status, seconds, processor_s, peak_kib = json.loads(done.stdout.splitlines()[-1])
    if status:
        ended = os.waitstatus_to_exitcode(status)
        raise SystemExit(f"{' '.join(map(str, words[:5]))} ended with {ended}")
    return {
        "seconds": round(seconds, 1),
        "processor_s": round(processor_s, 1),
        "peak_mb": round(peak_kib / 1024),
    }


def there_and_back(brain: Brain) -> dict[str, float]:
    """Of points of the tissue of all sections to the MRI and back, working px."""
    apart = []
    for section in brain:
        rows, columns = np.mgrid[: section.shape[0] : 4, : section.shape[1] : 4]
        px = np.column_stack([columns.ravel(), rows.ravel()]).astype(float)
        px = px[section.in_tissue(px)]
        off = np.linalg.norm(section.from_mri(section.to_mri(px)).points - px, axis=1)
        apart.append(off * section.pixel_size_mm / section.grid.spacing_mm)
    all_px = np.concatenate(apart)
    return {
        "points": len(all_px),
        "mean_px": round(float(all_px.mean()), 4),
        "p99_px": round(float(np.quantile(all_px, 0.99)), 4),
        "max_px": round(float(all_px.max()), 4),
    }


def measure_labels(brain: Brain, given: argparse.Namespace) -> None:
    """Cells of all sections counted in a volume of labels, which goes onto the middle section."""
    folder, here = given.work / "cells", ["--results", given.results, "--force"]
    folder.mkdir(exist_ok=True)
    for number, section in enumerate(brain):
        cells(folder / f"{section.id}.tsv", section, given.cells // len(brain), number)
    for name, more in (("count", []), ("count --density", ["--density", "--thickness-um", 20])):
        words = [folder, *here, "--regions", given.labels, "--out", given.work / "counts", *more]
        print(json.dumps({name: given.cells} | measured("count", *words)), flush=True)
    section = list(brain)[len(brain) // 2]
    pixel_mm = section.pixel_size_mm * max(section.shape) / given.side
    way = [given.labels, "--labels", *here, "--from", "mri", "--to", f"section:{section.id}"]
    for name, more in (
        ("labels.tif", []),
        ("outlines.geojson", []),
        ("simplified.geojson", ["--simplify-mm", 2 * pixel_mm]),
    ):
        out = given.work / name
        done = measured("apply", *way, "--out", out, "--pixel-mm", pixel_mm, *more)
        size = {"side": given.side, "mb": round(out.stat().st_size / 1e6, 1)}
        print(json.dumps({name: size} | done), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--polygons", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--labels", type=Path, help="of the brain's MRI, a volume")
    parser.add_argument("--only-labels", action="store_true", help="measure nothing else")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    brain = Brain(given.results)
    section = list(brain)[len(brain) // 2]
    print(machine.heading("Carried by sbr apply"))
    if given.labels:
        measure_labels(brain, given)
    if given.only_labels:
        return
    print(json.dumps({"there_and_back": there_and_back(brain)}), flush=True)
    way = ["--results", given.results, "--force", "--from", f"section:{section.id}"]
    for name, make, n in (
        ("cells.tsv", cells, given.cells),
        ("polygons.geojson", polygons, given.polygons),
    ):
        path = given.work / name
        make(path, section, n)
        done = measured("apply", path, *way, "--to", "mri", "--out", given.work / f"mri_{name}")
        print(json.dumps({name: n} | done), flush=True)


if __name__ == "__main__":
    main()
