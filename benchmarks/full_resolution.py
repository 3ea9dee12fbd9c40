"""Speed and memory of carrying a slide of a gigapixel, beside a plain read and write of its tiles.

    python benchmarks/full_resolution.py RESULTS WORK TEXTURE [--megapixels N] [--section ID]

RESULTS is the folder of a finished brain, TEXTURE a folder of pictures of sections. Of a section of
the brain comes a slide: its own picture, enlarged, in the grain of those pictures, in the colours
of a Nissl stain, as an RGB pyramid in tiles of JPEG none of which repeats. `sbr apply` carries it
to its plane, as OME-Zarr and as TIFF. Beside each stands what reads the same tiles and writes them
as they are, by the same functions: same codec, same chunks, same pyramid. Each runs in a process of
its own, of which time, processor time and the peak of resident memory are measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import machine
import numpy as np
import tifffile
from carrying import measured, run_measured
from scipy import ndimage

from sbr_core import Brain
from sbr_core.io.blocks import halved
from sbr_core.io.images import read_reduced
from sbr_core.io.scratch import let_go, scratch_array
from sbr_core.mapping.brain import Section

TILE = 512
STAIN = np.array([0.75, 1.0, 0.45], np.float32)
"""Optical density of red, green and blue, as of cresyl violet."""

_COPY = """
import sys
from pathlib import Path
import numpy as np
from sbr_core.io.ome_zarr import Streamed, write_ome_zarr
from sbr_core.io.pyramids import write_picture
from sbr_core.io.scratch import let_go, scratch_array
from sbr_core.io.windows import open_windows
source, target, pixel_mm = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
with open_windows(source) as windows:
    level, shape = windows.levels[0], windows.shape
    if target.name.endswith(".zarr"):
        image = Streamed((3, *shape), windows.dtype, (pixel_mm, pixel_mm), "rgb")
        write_ome_zarr(target, image, lambda region: np.moveaxis(
            level.read(region[1].start, region[2].start, region[1].stop, region[2].stop), -1, 0))
    else:
        out = scratch_array(target.parent, windows.dtype, (*shape, 3), "C")
        for row in range(0, shape[0], 512):
            for column in range(0, shape[1], 512):
                ends = min(row + 512, shape[0]), min(column + 512, shape[1])
                out[row : ends[0], column : ends[1]] = level.read(row, column, *ends)
            let_go(out)
        write_picture(target, out, photometric="rgb", pixel_mm=pixel_mm)
"""
"""A plain read and write."""


def grain(folder: Path, side: int = 4096) -> np.ndarray:
    """(side, side) of the middles of pictures of sections, about 1, turned as it comes."""
    rng = np.random.default_rng(0)
    out = np.ones((side, side), np.float32)
    pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".tif", ".jpg"))
    cell = 128
    for row in range(0, side, cell):
        for column in range(0, side, cell):
            picture = read_reduced(pictures[rng.integers(len(pictures))], 1.0).pixels
            if picture.ndim == 3:
                picture = picture.mean(axis=-1)
            first = [
                rng.integers(n // 4, max(n // 4 + 1, 3 * n // 4 - cell)) for n in picture.shape
            ]
            part = picture[first[0] : first[0] + cell, first[1] : first[1] + cell]
            part = np.rot90(part, rng.integers(4))
            fine = part - ndimage.gaussian_filter(part, 6)
            out[row : row + part.shape[0], column : column + part.shape[1]] += 2 * fine
    return out + rng.normal(0, 0.03, out.shape).astype(np.float32)


def slide(path: Path, section: Section, shape: tuple[int, int], texture: np.ndarray) -> None:
    """Write the slide, in tiles of JPEG, with the levels of its pyramid."""
    rng = np.random.default_rng(1)
    picture = read_reduced(Path(section.prepared.image), 1.0).pixels
    picture = picture.mean(axis=-1) if picture.ndim == 3 else picture
    # tissue dark on glass
    amount = (
        picture if section.prepared.polarity != "bright_background" else picture.max() - picture
    )
    levels = [scratch_array(path.parent, np.uint8, (*shape, 3), "C")]
    step = shape[0] / picture.shape[0]
    for row in range(0, shape[0], TILE):
        for column in range(0, shape[1], TILE):
            part = levels[0][row : row + TILE, column : column + TILE]
            y, x = (
                (first + np.arange(0, n + 16, 16) + 0.5) / step - 0.5
                for first, n in zip((row, column), part.shape[:2], strict=True)
            )
            coarse = ndimage.map_coordinates(
                amount, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest"
            )
            smooth = ndimage.zoom(coarse, 16, order=1, grid_mode=True, mode="nearest")
            r, c = rng.integers(0, len(texture) - TILE, 2)
            density = smooth[: part.shape[0], : part.shape[1]].astype(np.float32)
            density *= texture[r : r + part.shape[0], c : c + part.shape[1]]
            density += 0.02 * texture[c : c + part.shape[0], r : r + part.shape[1]]
            part[:] = 240 * np.power(10, -np.clip(density, 0, 2)[..., None] * STAIN)
        let_go(levels[0])
    while max(levels[-1].shape) > 1024:
        fine = levels[-1]
        levels.append(
            scratch_array(
                path.parent, np.uint8, (-(-fine.shape[0] // 2), -(-fine.shape[1] // 2), 3), "C"
            )
        )
        for row in range(0, fine.shape[0], 1024):
            half = halved(fine[row : row + 1024], (0, 1))
            levels[-1][row // 2 : row // 2 + len(half)] = half
            let_go(fine)
    how = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "jpeg"}
    how["compressionargs"] = {"level": 90}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, level in enumerate(levels):
            own = {"subfiletype": 1} if number else {"subifds": len(levels) - 1}
            tiff.write(_tiles(level), shape=level.shape, dtype=level.dtype, **how, **own)


def _tiles(level: np.ndarray) -> Iterator[np.ndarray]:
    for row in range(0, level.shape[0], TILE):
        for column in range(0, level.shape[1], TILE):
            part = level[row : row + TILE, column : column + TILE]
            missing = [(0, TILE - n) for n in part.shape[:2]]
            yield np.pad(part, [*missing, (0, 0)], mode="edge")
        let_go(level)


def main() -> None:
    """Print what each way takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("texture", type=Path)
    parser.add_argument("--megapixels", type=float, default=1000)
    parser.add_argument("--section")
    parser.add_argument("--formats", nargs="+", default=["zarr", "tif"])
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    brain = Brain(given.results)
    section = brain.section(given.section) if given.section else list(brain)[len(brain) // 2]
    times = round((given.megapixels * 1e6 / np.prod(section.shape)) ** 0.5)
    shape = tuple(n * times for n in section.shape)
    pixel_mm = section.pixel_size_mm / times
    print(machine.heading(f"A slide of {shape[1]} x {shape[0]} pixels"), flush=True)
    source = given.work / "slide.tif"
    if not source.is_file():
        slide(source, section, shape, grain(given.texture))
    print(json.dumps({"slide_gb": round(source.stat().st_size / 1e9, 2)}), flush=True)
    way = ["apply", source, "--results", given.results, "--from", f"section:{section.id}"]
    way += ["--to", f"plane:{section.id}", "--pixel-mm", pixel_mm, "--force", "--out"]
    for ending in given.formats:
        target = given.work / f"plane.ome.{ending}"
        copied = run_measured(
            [sys.executable, "-c", _COPY, source, given.work / f"copy.ome.{ending}", pixel_mm]
        )
        done = measured(*way, target)
        n_px = np.prod(section.grid.at_spacing(pixel_mm).shape) / 1e6, np.prod(shape) / 1e6
        for what, figures, n in (("carried", done, n_px[0]), ("copied", copied, n_px[1])):
            speeds = {
                "mpixel": round(n),
                "mpixel_per_s": round(n / figures["seconds"], 2),
                "mpixel_per_processor_s": round(n / figures["processor_s"], 2),
            }
            print(json.dumps({"format": ending, "what": what} | figures | speeds), flush=True)


if __name__ == "__main__":
    main()
