"""Memory and time of `sbr prepare` on a section of a gigapixel.

    python benchmarks/gigapixel.py WORK [--side PIXELS] [--target-gb GB]

Writes into WORK, in turn, one RGB section of `--side` squared pixels (32768 by default: 1.07
gigapixels) in several ways and prepares each in a process of its own, whose peak of resident memory
is measured:

- a pyramid: OME-TIFF in tiles, seven levels, each half the one before;
- only the full plane, in tiles, without compression, and with deflate;
- only the full plane, in strips.

The section is a simulated one: tissue with texture on glass, a dot in it that must be found again
where it was put. Exits 1 if the memory is above the target (1 GB) anywhere, or the dot elsewhere
than within half a working pixel.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import machine
import numpy as np
import tifffile

from sbr_core.artifacts.rows import Prepared, read_rows
from sbr_core.io.volumes import read_plane

SECTION_MM = 65.536
"""0.002 mm a pixel of the full side."""
TILE = 512
LEVELS = 7
WORKING_MM = 0.25
DOT = (0.62, 0.41)
"""Where the dot is, as a share of the side: (column, row)."""
DOT_RADIUS = 0.012
CELL = 8


def band(side: int, first: int, rows: int) -> np.ndarray:
    """(rows, side, 3) uint8: rows `first` on of the section on a grid of `side` pixels.

    It is computed for cells of `CELL` pixels, which grain makes into pixels that differ.
    """
    cell = min(CELL, rows)
    y = ((first + np.arange(0, rows, cell, dtype=np.float32)) + cell / 2)[:, None] / side
    x = (np.arange(0, side, cell, dtype=np.float32) + cell / 2)[None] / side
    tissue = ((x - 0.5) / 0.38) ** 2 + ((y - 0.5) / 0.33) ** 2 < 1
    texture = 0.5 + 0.25 * np.sin(40 * x + 9 * y) * np.cos(33 * y)
    amount = np.where(tissue, texture, 0).astype(np.float32)
    amount[(x - DOT[0]) ** 2 + (y - DOT[1]) ** 2 < DOT_RADIUS**2] = 1.4
    light = 240 * 10 ** (-0.5 * amount[..., None] * np.array([0.9, 1.0, 0.45], np.float32))
    out = light.astype(np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)[:rows, :side]
    grain = np.random.default_rng(first).integers(0, 7, (64, side, 1), dtype=np.uint8)
    for start in range(0, rows, 64):
        out[start : start + 64] += grain[: min(64, rows - start)]
    return out


def tiles(side: int) -> Iterator[np.ndarray]:
    """The section on a grid of `side` pixels, tile by tile, row by row."""
    for first in range(0, side, TILE):
        rows = band(side, first, min(TILE, side - first))
        rows = np.pad(rows, ((0, TILE - len(rows)), (0, -side % TILE), (0, 0)), mode="edge")
        for column in range(0, side, TILE):
            yield np.ascontiguousarray(rows[:, column : column + TILE])


def write(path: Path, side: int, levels: int, tiled: bool, compression: str | None) -> None:
    """Write the section, without ever holding it whole."""
    how = {"photometric": "rgb", "dtype": np.uint8, "compression": compression}
    if not tiled:
        rows = 64
        parts = (band(side, first, rows).tobytes() for first in range(0, side, rows))
        with tifffile.TiffWriter(path, bigtiff=True) as writer:
            writer.write(parts, shape=(side, side, 3), rowsperstrip=rows, **how)
        return
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
        um = 1000 * SECTION_MM / side
        size = {"PhysicalSizeX": um, "PhysicalSizeY": um}
        size |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
        for level in range(levels):
            n = side >> level
            own = {"subifds": levels - 1, "metadata": size} if level == 0 else {"subfiletype": 1}
            writer.write(tiles(n), shape=(n, n, 3), tile=(TILE, TILE), **own, **how)


def prepare(
    path: Path, work: Path, name: str, pixel_mm: float
) -> tuple[dict[str, object], float, float]:
    """(row of the receipt, peak of resident memory in MB, seconds) of `sbr prepare`."""
    rows = [
        {"section": name, "image": str(path), "position_mm": 0.0, "pixel_size_mm": pixel_mm},
    ]
    receipt = work / name / "chunks" / "1of1.tsv"
    command = [sys.executable, "-m", "sbr_core", "prepare", "--rows", json.dumps(rows)]
    command += ["--options", json.dumps({"working_pixel_mm": WORKING_MM}), "--strict"]
    command += ["--out-dir", str(work / name), "--receipt", str(receipt)]
    began = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name}: sbr prepare ended with {process.returncode}")
    (row,) = read_rows(receipt, Prepared)
    return row, usage.ru_maxrss * 1024 / 1e6, seconds


def dot_error_px(row: Prepared, folder: Path, pixel_mm: float) -> float:
    """How far the dot is from where it was put, in working pixels."""
    image, _ = read_plane(folder / "sections" / f"{row.section}_image.nii.gz")
    bright = image > 0.85 * image.max()
    y, x = (float(np.mean(axis)) for axis in np.nonzero(bright))
    section_mm = row.section_mm_from_working_mm @ [x * WORKING_MM, y * WORKING_MM, 1]
    truth_mm = np.array(DOT) * SECTION_MM - pixel_mm / 2
    return float(np.linalg.norm(section_mm[:2] - truth_mm)) / WORKING_MM


def main() -> int:
    """Print the table; 0 if everything is within the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--side", type=int, default=32768)
    parser.add_argument("--target-gb", type=float, default=1.0)
    arguments = parser.parse_args()
    work, side = arguments.work, arguments.side
    work.mkdir(parents=True, exist_ok=True)
    print(machine.heading(f"A section of {side**2 / 1e9:.2f} gigapixels"))
    print("| stored as | file, GB | read at | peak memory, MB | seconds | dot off by, px |")
    print("|---|---|---|---|---|---|", flush=True)
    good = True
    for name, levels, tiled, compression in (
        ("pyramid", LEVELS, True, None),
        ("tiles", 1, True, None),
        ("deflated-tiles", 1, True, "zlib"),
        ("strips", 1, False, None),
    ):
        path = work / f"{name}{'.ome' if tiled else ''}.tif"
        write(path, side, levels, tiled, compression)
        size = path.stat().st_size
        row, peak_mb, seconds = prepare(path, work, name, SECTION_MM / side)
        off = dot_error_px(row, work / name, SECTION_MM / side)
        path.unlink()
        good &= peak_mb < 1000 * arguments.target_gb and off < 0.5
        step = f"1 : {row.read_step:g}"
        figures = f"{size / 1e9:.2f} | {step} | {peak_mb:.0f} | {seconds:.1f} | {off:.2f}"
        print(f"| {name} | {figures} |", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
