"""How far outlines jump from section to section, in the planes across the sections.

    python benchmarks/outline_jitter.py results/BRAIN mind coherent

Of each registered section, in every fourth column and row of its plane, the first and the last
pixel with tissue are looked up, to a fraction of a pixel. A jump is the second difference of such a
place along the stack, |y[i-1] - 2 y[i] + y[i+1]|, which a smooth surface has little of. The MRI's
own planes, through the same, are what would be left if all were perfect. The last figure is of the
inside: the mean absolute second difference of grey levels along the stack, as a share of their
standard deviation in the tissue.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes, gaussian_filter
from skimage.filters import threshold_otsu
from skimage.measure import label

from sbr_core.artifacts.names import MRI, MRI_MASK, REGISTERED
from sbr_core.artifacts.rows import Inferred, Plane, read_rows
from sbr_core.io.volumes import read_plane

EVERY = 4
"""Columns and rows that are looked at."""


def ends(tissue: np.ndarray) -> np.ndarray:
    """First and last crossing of 0.5 down every fourth column of (rows, columns); NaN for none."""
    found = []
    for column in tissue.T[::EVERY]:
        inside = np.flatnonzero(column > 0.5)
        if not inside.size or inside[0] == 0 or inside[-1] == len(column) - 1:
            found.append((np.nan, np.nan))
            continue
        first, last = inside[0], inside[-1]
        rise = (0.5 - column[first - 1]) / (column[first] - column[first - 1])
        fall = (column[last] - 0.5) / (column[last] - column[last + 1])
        found.append((first - 1 + rise, last + fall))
    return np.array(found)


def tissue_of(images: list[np.ndarray]) -> list[np.ndarray]:
    """The largest bright piece of each image, filled; one threshold for all."""
    smooth = [gaussian_filter(image, 1.0) for image in images]
    threshold = threshold_otsu(np.concatenate([image[::4, ::4].ravel() for image in smooth]))
    masks = []
    for image in smooth:
        pieces = label(image > threshold)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        masks.append(binary_fill_holes(pieces == sizes.argmax()))
    return masks


def jitter(images: list[np.ndarray], masks: list[np.ndarray], pixel_mm: float) -> tuple[float, ...]:
    """Median jump of outlines, mm; their 90th percentile; and that of grey levels."""
    smooth = [gaussian_filter(mask.astype(float), 1.0) for mask in masks]
    places = np.stack([np.concatenate([ends(m), ends(m.T)]) for m in smooth])
    jumps = np.abs(places[:-2] - 2 * places[1:-1] + places[2:]) * pixel_mm
    jumps = jumps[np.isfinite(jumps)]
    rough = []
    for before, here, after, *inside in zip(
        images, images[1:], images[2:], masks, masks[1:], masks[2:], strict=False
    ):
        tissue = np.logical_and.reduce(inside)
        if tissue.any():
            second = np.abs(before - 2 * here + after)[tissue].mean()
            rough.append(second / here[tissue].std())
    return float(np.median(jumps)), float(np.percentile(jumps, 90)), float(np.mean(rough))


def main() -> None:
    """Print a line for each method, and one for the MRI."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("methods", nargs="+")
    arguments = parser.parse_args()
    print("| | outlines, median mm | 90th percentile mm | grey levels |")
    print("|---|---|---|---|")
    rows: list[Inferred] = []
    for method in arguments.methods:
        rows = read_rows(arguments.results / method / "sections.tsv", Inferred, verify=False)
        rows.sort(key=lambda row: row.position_mm)
        images = [read_plane(row.file(REGISTERED))[0].astype(float) for row in rows]
        masks = tissue_of(images)
        shown = jitter(images, masks, rows[0].grid.spacing_mm)
        print(f"| {method} | " + " | ".join(f"{value:.3f}" for value in shown) + " |")
    planes = read_rows(arguments.results / "resample" / "sections.tsv", Plane, verify=False)
    planes.sort(key=lambda row: row.position_mm)
    images = [read_plane(row.file(MRI))[0].astype(float) for row in planes]
    masks = [read_plane(row.file(MRI_MASK))[0] > 0 for row in planes]
    shown = jitter(images, masks, planes[0].grid.spacing_mm)
    print("| MRI | " + " | ".join(f"{value:.3f}" for value in shown) + " |")


if __name__ == "__main__":
    main()
