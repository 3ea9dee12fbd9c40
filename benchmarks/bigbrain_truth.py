"""Where the images say that the true positions of a brain are, measured along the truth itself.

    python benchmarks/bigbrain_truth.py DATA WORK [--working-pixel-mm 0.8] [--drawn]

Every fourth section of bigbrain_anterior is laid on the MRI's plane by the dataset's own
alignment (``truth.json``), nothing is fitted, and then

* the MRI's plane is taken from further up or down the stack, and
* the section is drawn larger or smaller about the centre of the MRI's brain.

Four measures say how well the two agree: the squared local correlation (5 mm), the correlation
ratio (12 bins) and normalised mutual information, all three of the inside alone, 3 mm and more from
any outline and over the same pixels whatever the shift; and the Dice overlap of tissue and brain,
which is of the outlines alone. Along the stack, a fifth is what the fit of ``align`` counts as
explained (1 - its cost, at 1.5 mm), outlines and inside together.
A measure whose best value is not at 0 mm (or at 1) says that the truth is off by as much, or that
something on the way from the files to the planes is. With ``--drawn`` the second is put to the test
instead: sections are *drawn from the MRI itself* where the truth says that they lie, in their own
files' size and another contrast, and go through ``prepare`` → ``align`` → ``resample`` →
``align-sections``. What is then left of the alignment error is what this package adds to it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from any_start import Case, prepare, take_through
from bigbrain_alignment import section_errors, tell
from machine import heading
from scipy.ndimage import binary_erosion, gaussian_filter

from sbr_core.algorithms.alignment.section_affine import (
    AffineLimits,
    MaskedImage,
    fit_section_affine,
)
from sbr_core.algorithms.alignment.volume_fit import normalised_mutual_information
from sbr_core.algorithms.planes import prefiltered_volume, resample_plane, sample_volume
from sbr_core.algorithms.sections import grid_px, prefilter, resample_section
from sbr_core.geometry import PlaneGrid, apply, scaling, similarity_scale
from sbr_core.io.images import image_shape, write_png
from sbr_core.io.manifests import read_manifest
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import read_volume
from sbr_core.stages.align import read_mri, read_stack

_INSIDE_MM = 3.0
_WINDOW_MM = 2.5
_BINS = 12
_SHIFTS_MM = np.arange(-3.0, 3.01, 0.5)
_SIZES = np.arange(0.95, 1.051, 0.0125)
_FIT_SIGMA_MM = 1.5
_MEASURES = ("local correlation", "correlation ratio", "mutual information", "Dice of outlines")


def correlation_ratio(section: np.ndarray, mri: np.ndarray) -> float:
    """Share of the section's variance that bins of the MRI's intensity explain."""
    edges = np.quantile(mri, np.linspace(0, 1, _BINS + 1)[1:-1])
    at = np.digitize(mri, edges)
    n = np.bincount(at, minlength=_BINS)
    mean = np.bincount(at, section, _BINS) / np.maximum(n, 1)
    return float(1 - np.mean((section - mean[at]) ** 2) / np.var(section))


def local_correlation(a: np.ndarray, b: np.ndarray, where: np.ndarray, sigma_px: float) -> float:
    """Mean squared correlation in Gaussian windows."""
    weight = where.astype(float)
    total = np.maximum(gaussian_filter(weight, sigma_px), 1e-3)

    def mean(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image * weight, sigma_px) / total

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    shared = mean(a * b) - mean_a * mean_b
    return float((shared**2 / np.maximum(var_a * var_b, 1e-8))[where].mean())


def agreement(
    sections: list[np.ndarray],
    tissues: list[np.ndarray],
    planes: list[np.ndarray],
    brains: list[np.ndarray],
    pixel_mm: float,
) -> np.ndarray | None:
    """(settings, measures) of one section at several settings, over the same inside; or None."""
    depth = int(_INSIDE_MM / pixel_mm)
    inside = np.all([binary_erosion(m, iterations=depth) for m in (*tissues, *brains)], axis=0)
    if inside.sum() < 100:
        return None
    return np.array(
        [
            (
                local_correlation(section, plane, inside, _WINDOW_MM / pixel_mm),
                correlation_ratio(section[inside], plane[inside]),
                normalised_mutual_information(section[inside], plane[inside]),
                2 * (tissue & brain).sum() / (tissue.sum() + brain.sum()),
            )
            for section, tissue, plane, brain in zip(sections, tissues, planes, brains, strict=True)
        ]
    )


def peak(at: np.ndarray, value: np.ndarray) -> float:
    """Where a parabola through the best value and its two neighbours is highest."""
    k = int(np.clip(np.argmax(value), 1, len(at) - 2))
    low, middle, high = value[k - 1 : k + 2]
    return float(at[k] + (at[1] - at[0]) * 0.5 * (low - high) / (low - 2 * middle + high))


def table(
    name: str,
    at: np.ndarray,
    values: list[np.ndarray],
    sections: list[str],
    measures: tuple[str, ...] = _MEASURES,
) -> None:
    """Means over sections, and the best value, also of each quarter of the stack."""
    every = np.array(values)
    columns = len(measures)
    print(f"\n| {name} | " + " | ".join(measures) + " |\n" + "|---" * (columns + 1) + "|")
    for k, setting in enumerate(at):
        print(
            f"| {setting:+.4g} | " + " | ".join(f"{v:.4f}" for v in every[:, k].mean(axis=0)) + " |"
        )
    for part in [np.arange(len(every)), *np.array_split(np.arange(len(every)), 4)]:
        best = [peak(at, every[part].mean(axis=0)[:, m]) for m in range(columns)]
        which = f"sections {sections[part[0]]} to {sections[part[-1]]}"
        print(f"| best, {which} | " + " | ".join(f"{b:+.3f}" for b in best) + " |")


def draw(data: Path, folder: Path) -> None:
    """`data` once more, its sections drawn from its MRI at their true places."""
    truth = json.loads((data / "truth.json").read_text(encoding="utf-8"))
    mri = read_volume(data / "mri.nii.gz")
    voxel_from_stack = np.linalg.inv(mri.world_from_voxel) @ np.array(truth["world_from_stack"])
    intensity = mri.data.astype(np.float32) / np.quantile(mri.data[mri.data > 0], 0.99)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for row in read_manifest(data / "sections.tsv"):
        section_from_plane_px = np.eye(3)
        section_from_plane_px[:2] = truth["section_from_plane_px"][row.section]
        shape = image_shape(Path(row.image))
        plane_px = apply(np.linalg.inv(section_from_plane_px), grid_px(shape))
        z = np.full((*shape, 1), row.position_mm)
        stack_mm = np.concatenate([truth["pixel_mm"] * plane_px, z], axis=-1)
        found = sample_volume(intensity, apply(voxel_from_stack, stack_mm))
        # dark grey matter and paler white on glass white, which no straight line makes of the MRI
        ink = np.interp(found, (0.0, 0.1, 0.3, 0.5, 0.75, 1.0), (0.0, 0.15, 0.5, 0.75, 0.5, 0.35))
        path = folder / f"{row.section}.png"
        write_png(path, (250 - 200 * ink).astype(np.uint8))
        place = {"position_mm": row.position_mm, "pixel_size_mm": row.pixel_size_mm}
        drawn.append({"section": row.section, "image": path.name, **place})
    write_tsv(folder / "sections.tsv", drawn)
    for name in ("mri.nii.gz", "truth.json"):
        shutil.copyfile(data / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--working-pixel-mm", type=float, default=0.8)
    parser.add_argument("--drawn", action="store_true", help="align sections drawn from the MRI")
    asked = parser.parse_args()
    pixel_mm = asked.working_pixel_mm
    if asked.drawn:
        draw(asked.data, asked.work / "drawn")
        asked.data = asked.work / "drawn"
        truth = json.loads((asked.data / "truth.json").read_text(encoding="utf-8"))
        print(heading("Sections drawn from the MRI at their true places"))
        prepared = prepare(asked.data, asked.work, pixel_mm)
        still = Case("drawn", np.eye(4))
        take_through(still, asked.data, asked.work, prepared, truth, pixel_mm)
        tell(section_errors(asked.work / "full" / "drawn", truth, None), truth)
        return
    prepared = prepare(asked.data, asked.work, pixel_mm)
    rows, stack = read_stack(prepared / "sections.tsv", pixel_mm)
    brain = read_mri(prepared / "mri.nii.gz", prepared / "mri_mask.nii.gz")
    truth = json.loads((asked.data / "truth.json").read_text(encoding="utf-8"))
    stack_from_world = np.linalg.inv(np.array(truth["world_from_stack"]))
    grid = PlaneGrid((303, 348), truth["pixel_mm"]).at_spacing(pixel_mm)
    spacing_world_mm = pixel_mm / similarity_scale(stack_from_world)
    data = prefiltered_volume(np.where(brain.mask, brain.data, 0), brain.voxel_mm, spacing_world_mm)
    where = brain.world_from_voxel, stack_from_world, grid

    def mri_at(position_mm: float) -> tuple[np.ndarray, np.ndarray]:
        mask = resample_plane(brain.mask.astype(np.uint8), *where, position_mm, order=0) > 0
        return resample_plane(data, *where, position_mm), mask

    def smooth(pairs: list[tuple]) -> tuple[list, list]:
        return [gaussian_filter(a, 1.0) for a, _ in pairs], [b for _, b in pairs]

    along, sizes, names, names_of_sizes = [], [], [], []
    for row, section in list(zip(rows, stack.sections, strict=True))[::4]:
        section_from_plane_px = np.eye(3)
        section_from_plane_px[:2] = truth["section_from_plane_px"][row.section]
        # plane mm -> section mm -> working mm
        section_from_plane = (
            scaling(row.pixel_size_mm) @ section_from_plane_px @ scaling(1 / truth["pixel_mm"])
        )
        working_from_plane = np.linalg.inv(row.section_mm_from_working_mm) @ section_from_plane
        image = np.minimum(section.image / np.median(section.image[section.mask]), 3)

        def drawn(matrix: np.ndarray, image=image, mask=section.mask) -> tuple:
            px = apply(scaling(1 / pixel_mm) @ matrix, grid_px(grid.shape) * pixel_mm)
            ratio = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
            found = resample_section(prefilter(image, ratio), px)
            return found, resample_section(mask.astype(float), px) > 0.5

        still = drawn(working_from_plane)
        planes = [mri_at(row.position_mm + shift) for shift in _SHIFTS_MM]
        found = agreement(*smooth([still] * len(planes)), *smooth(planes), pixel_mm)
        if found is not None:
            explained = [
                1
                - fit_section_affine(
                    MaskedImage(section.image, section.mask, pixel_mm),
                    MaskedImage(*plane, pixel_mm),
                    working_from_plane,
                    limits=AffineLimits(),
                    sigmas_mm=(_FIT_SIGMA_MM,),
                ).prior_cost
                for plane in planes
            ]
            along.append(np.column_stack([found, explained]))
            names.append(row.section)
        # sizes at the place along the stack that the inside says
        here = mri_at(row.position_mm + 1.1)
        if not here[1].any():
            continue
        centre = np.argwhere(here[1])[:, ::-1].mean(axis=0) * pixel_mm
        drawings = []
        for size in _SIZES:
            change = scaling(1 / size)
            change[:2, 2] = centre * (1 - 1 / size)
            drawings.append(drawn(working_from_plane @ change))
        found = agreement(*smooth(drawings), *smooth([here] * len(_SIZES)), pixel_mm)
        if found is not None:
            sizes.append(found)
            names_of_sizes.append(row.section)
    print(heading(f"The truth of {asked.data.name}, {len(names)} sections"))
    table(
        "MRI plane from further up the stack, stack mm",
        _SHIFTS_MM,
        along,
        names,
        (*_MEASURES, "fit"),
    )
    table("section drawn larger, factor; 1.1 mm further up", _SIZES, sizes, names_of_sizes)


if __name__ == "__main__":
    main()
