"""What networks are trained on: images and masks of sections and planes, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

from sbr_core.algorithms.sections import image_on_grid, mask_on_grid
from sbr_core.artifacts.label_pairs import LabelPairs
from sbr_core.artifacts.names import LINEAR, LINEAR_MASK, MRI, MRI_MASK
from sbr_core.artifacts.networks import PADDING_MULTIPLE
from sbr_core.artifacts.rows import Affine, Plane, Prepared, Row, read_rows
from sbr_core.config import IntensityOptions
from sbr_core.errors import TrainingError
from sbr_core.functional.intensity import normalise
from sbr_core.geometry import PlaneGrid, extent_px
from sbr_core.io.volumes import read_plane
from sbr_core.training.predict import as_batch

R = TypeVar("R", bound=Row)

_LEAST_PX = 16
"""Pixels across tissue, of which networks make one or none in their coarsest layers: a rat's at the
demo's pixel would have 13."""


@dataclass(frozen=True, eq=False)
class Images(Generic[R]):
    """Images of the rows of a table that show something, normalised.

    Attributes
    ----------
    rows : n of them.
    images : n of (H, W) float32 in [0, 1], background 0.
    masks : n of (H, W) float32, 0 or 1.
    left_out : a line for each row that has nothing to show, because its mask is empty.
    """

    rows: list[R]
    images: list[np.ndarray]
    masks: list[np.ndarray]
    left_out: list[str]


def read_images(
    rows: Sequence[R],
    image: str,
    mask: str,
    rule: IntensityOptions,
    pixel_factor: int = 1,
) -> Images[R]:
    """Images of a table's rows.

    Parameters
    ----------
    image, mask : endings of the names of the files (`artifacts.names`).
    pixel_factor : pixels of the files per pixel of the images.
    """
    read: Images[R] = Images([], [], [], [])
    for row in rows:
        pixels, spacing_mm = read_plane(row.file(image))
        source = PlaneGrid(pixels.shape, spacing_mm)
        target = coarser(source, pixel_factor)
        pixels = image_on_grid(pixels, source, target)
        inside = mask_on_grid(read_plane(row.file(mask))[0], source, target)
        try:
            read.images.append(normalise(pixels, inside, rule.low_quantile, rule.high_quantile))
        except ValueError as error:
            read.left_out.append(f"section {row.section} left out: {error}")
            continue
        read.masks.append(inside.astype(np.float32))
        read.rows.append(row)
    return read


@dataclass(frozen=True, eq=False)
class SectionPairs:
    """Sections and their MRI planes, both with tissue, in one order.

    Attributes
    ----------
    planes, sections : the rows of the n pairs.
    with_plane : the rows of all sections whose plane shows tissue, these included.
    tensors : sections, their masks, planes, their masks: (n, 1, H, W) each, padded together, so
        that sections and planes stay on one grid.
    left_out : a line for each section or plane without tissue.
    """

    planes: list[Plane]
    sections: list[Affine]
    with_plane: list[Affine]
    tensors: tuple[Tensor, ...]
    left_out: list[str]


def check_tissue_px(masks: Sequence[np.ndarray], pixel_factor: int, table: Path) -> None:
    """Refuse a `pixel_factor` that leaves of sections too little to learn from.

    Parameters
    ----------
    masks : n of (H, W), at the networks' pixel.
    table : of the images, for the message.

    Raises
    ------
    TrainingError
        Half of the sections are smaller; a factor of 1 leaves them to `align`.
    """
    if pixel_factor == 1:
        return
    across_px = float(np.median([extent_px(mask > 0).max() for mask in masks]))
    if across_px < _LEAST_PX:
        raise TrainingError(
            f"{table}: tissue is {across_px:g} pixels across at pixel_factor {pixel_factor}, and"
            f" networks need {_LEAST_PX}: choose a finer prepare.working_pixel_mm, or pixel_factor:"
            " 1 for train_registrar and the methods"
        )


def coarser(grid: PlaneGrid, pixel_factor: int) -> PlaneGrid:
    """The grid of pixels that are `pixel_factor` times as large."""
    return grid if pixel_factor == 1 else grid.at_spacing(grid.spacing_mm * pixel_factor)


def read_pairs(
    planes: Sequence[Plane], sections: Path, rule: IntensityOptions, pixel_factor: int = 1
) -> SectionPairs:
    """Pairs to train on.

    Parameters
    ----------
    planes : rows of the table of `resample`.
    sections : table of `align-sections`; sections that are in one of both only are left out.
    pixel_factor : pixels of the files per pixel of the images.
    """
    affines = {
        row.section: row for row in read_rows(sections, Affine, verify=(LINEAR, LINEAR_MASK))
    }
    with_section = [row for row in planes if row.section in affines]
    shown = read_images(with_section, MRI, MRI_MASK, rule, pixel_factor)
    partners = [affines[row.section] for row in shown.rows]
    linear = read_images(partners, LINEAR, LINEAR_MASK, rule, pixel_factor)
    usable_sections = {row.section for row in linear.rows}
    usable = [index for index, row in enumerate(partners) if row.section in usable_sections]
    arrays = (
        *linear.images,
        *linear.masks,
        *(shown.images[i] for i in usable),
        *(shown.masks[i] for i in usable),
    )
    return SectionPairs(
        [shown.rows[i] for i in usable],
        linear.rows,
        partners,
        stacked(arrays).chunk(4) if arrays else (),
        shown.left_out + linear.left_out,
    )


def read_label_maps(
    labels: LabelPairs, prepared: Path, pixel_factor: int, pairs: SectionPairs
) -> tuple[Tensor, int]:
    """Labels of sections and planes on the grids of the images, numbered from 1.

    Parameters
    ----------
    labels : of the brain.
    prepared : table of `prepare`.
    pixel_factor : as of `read_pairs`.

    Returns
    -------
    maps : (2 n, 1, H, W) float32, of all sections, then of all planes; zeros where a section or
        its plane has no labels to use, so that a pair has both or none. Classes that only sections
        or only planes have are left out.
    n_classes : how many are left.

    Raises
    ------
    TrainingError
        No section has labels that its plane has too.
    """
    if labels.mri is None and "" in labels.unusable:
        raise TrainingError(
            f"{prepared}: the labels of the MRI are left out: {labels.unusable['']}"
        )
    if labels.mri is None and not labels.plane_files:
        raise TrainingError(
            f"{prepared}: the MRI has no labels: expected `mri_labels` in the sheet of brains, or"
            " in the manifest of a prealigned brain"
        )
    rows = {row.section: row for row in read_rows(prepared, Prepared, verify=False)}
    if not any(row.labels for row in rows.values()):
        raise TrainingError(
            f"{prepared}: no section has labels: expected `labels` in some rows of the manifest"
        )
    of_sections, of_planes = [], []
    for plane, affine in zip(pairs.planes, pairs.sections, strict=True):
        row = rows.get(plane.section)
        pair = labels.of(row, plane) if row is not None else None
        grid = coarser(plane.grid, pixel_factor)
        maps = np.zeros(grid.shape, np.int32), np.zeros(grid.shape, np.int32)
        if pair is not None:
            section_mm_from_plane_mm = (
                row.section_mm_from_working_mm @ affine.working_mm_from_plane_mm
            )
            maps = pair.on_grid(grid, section_mm_from_plane_mm)
        of_sections.append(maps[0])
        of_planes.append(maps[1])
    classes = _classes(of_sections) & _classes(of_planes)
    if not classes:
        left_out = [f"; section {s} was left out: {why}" for s, why in labels.unusable.items()]
        raise TrainingError(
            f"{prepared}: the labels of the sections and those of the MRI have no class in"
            f" common{''.join(left_out[:1])}"
        )
    numbered = [_numbered(each, sorted(classes)) for each in (*of_sections, *of_planes)]
    return stacked(numbered), len(classes)


def stacked(arrays: Sequence[np.ndarray]) -> Tensor:
    """Arrays (H, W), of different shapes if need be, as one padded tensor (N, 1, H', W')."""
    shape = np.max([a.shape for a in arrays], axis=0)
    same = [np.pad(a, [(0, n - m) for n, m in zip(shape, a.shape, strict=True)]) for a in arrays]
    return as_batch(same, PADDING_MULTIPLE)


def _classes(maps: Sequence[np.ndarray]) -> set[int]:
    return {int(class_) for labels in maps for class_ in np.unique(labels)} - {0}


def _numbered(labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """(H, W) float32: the number of each class from 1 on, 0 for all others."""
    numbers = np.zeros(labels.shape, np.float32)
    for number, class_ in enumerate(classes, 1):
        numbers[labels == class_] = number
    return numbers
