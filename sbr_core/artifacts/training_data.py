"""What networks are trained on: images and masks of sections and planes, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
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
from sbr_core.training.stacks import IN_MEMORY, Layout, Place, Stack

_LEAST_PX = 16
"""Pixels across tissue, of which networks make one or none in their coarsest layers: a rat's at the
demo's pixel would have 13."""


@dataclass(frozen=True, eq=False)
class Images:
    """MRI planes that show something, normalised.

    Attributes
    ----------
    rows : n of them.
    stack : n images in [0, 1], background 0, and their masks, padded.
    across_px : n lengths of the longer side of the tissue's box.
    left_out : a line for each row that has nothing to show, because its mask is empty.
    """

    rows: list[Plane]
    stack: Stack
    across_px: list[float]
    left_out: list[str]

    @property
    def images(self) -> list[np.ndarray]:
        """n of (H, W) float32, without the padding."""
        return list(self.stack.images.unpadded(0))

    @property
    def masks(self) -> list[np.ndarray]:
        """n of (H, W) float32, 0 or 1, without the padding."""
        return [mask.astype(np.float32) for mask in self.stack.masks.unpadded(0)]


@dataclass(frozen=True)
class _Reading:
    """How the files of images are read.

    Attributes
    ----------
    image, mask : endings of their names (`artifacts.names`).
    rule : how their intensities become those of the networks.
    pixel_factor : pixels of the files per pixel of the images.
    """

    image: str
    mask: str
    rule: IntensityOptions
    pixel_factor: int

    def of(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) in [0, 1], and bool, where there is tissue; ValueError where is none."""
        pixels, spacing_mm = read_plane(row.file(self.image))
        source = PlaneGrid(pixels.shape, spacing_mm)
        target = coarser(source, self.pixel_factor)
        pixels = image_on_grid(pixels, source, target)
        inside = mask_on_grid(read_plane(row.file(self.mask))[0], source, target)
        return normalise(pixels, inside, self.rule.low_quantile, self.rule.high_quantile), inside


def read_images(
    rows: Sequence[Plane],
    image: str,
    mask: str,
    rule: IntensityOptions,
    pixel_factor: int = 1,
    place: Place = IN_MEMORY,
) -> Images:
    """MRI planes of a table's rows.

    Parameters
    ----------
    image, mask : endings of the names of the files (`artifacts.names`).
    pixel_factor : pixels of the files per pixel of the images.
    place : where they may be.
    """
    reading = _Reading(image, mask, rule, pixel_factor)
    stack = Stack.empty(len(rows), 1, _layout([(row,) for row in rows], (reading,)), place)
    used, across_px, left_out = [], [], []
    for row in rows:
        try:
            pixels, inside = reading.of(row)
        except ValueError as error:
            left_out.append(f"section {row.section} left out: {error}")
            continue
        stack.put(len(used), 0, pixels, inside)
        across_px.append(float(extent_px(inside).max()))
        used.append(row)
    return Images(used, stack.first(len(used)), across_px, left_out)


def _layout(rows: Sequence[tuple[Row, ...]], readings: Sequence[_Reading]) -> Layout:
    """Room for the largest image that shows something.

    Parameters
    ----------
    rows : per section, a row for each of `readings`, the first one of the plane.
    """
    shapes = {coarser(each[0].grid, readings[0].pixel_factor).shape for each in rows}
    if len(shapes) > 1:  # the largest may show nothing
        shapes = {shape for each in rows if (shape := _shape(each, readings)) is not None}
    return Layout(tuple(np.max(list(shapes or {(1, 1)}), axis=0).tolist()), PADDING_MULTIPLE)


def _shape(rows: tuple[Row, ...], readings: Sequence[_Reading]) -> tuple[int, int] | None:
    """Of a section's images; None where one shows nothing."""
    try:
        images = [reading.of(row)[0] for row, reading in zip(rows, readings, strict=True)]
        return images[0].shape
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class SectionPairs:
    """Sections and their MRI planes, both with tissue, in one order.

    Attributes
    ----------
    planes, sections : the rows of the n pairs.
    with_plane : the rows of all sections whose plane shows tissue, these included.
    stack : sections and planes, and their masks, padded together, so that they stay on one grid;
        None once a training has taken it over.
    across_px : n lengths of the longer side of the box of a section's tissue.
    left_out : a line for each section or plane without tissue.
    """

    planes: list[Plane]
    sections: list[Affine]
    with_plane: list[Affine]
    stack: Stack | None
    across_px: list[float]
    left_out: list[str]


def check_tissue_px(lengths_px: Sequence[float], pixel_factor: int, table: Path) -> None:
    """Refuse a `pixel_factor` that leaves of sections too little to learn from.

    Parameters
    ----------
    lengths_px : of the longer side of the box of each section's tissue, at the networks' pixel.
    table : of the images, for the message.

    Raises
    ------
    TrainingError
        Half of the sections are smaller; a factor of 1 leaves them to `align`.
    """
    if pixel_factor == 1:
        return
    across_px = float(np.median(lengths_px))
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
    planes: Sequence[Plane],
    sections: Path,
    rule: IntensityOptions,
    pixel_factor: int = 1,
    place: Place = IN_MEMORY,
) -> SectionPairs:
    """Pairs to train on.

    Parameters
    ----------
    planes : rows of the table of `resample`.
    sections : table of `align-sections`; sections that are in one of both only are left out.
    pixel_factor : pixels of the files per pixel of the images.
    place : where they may be.
    """
    affines = {
        row.section: row for row in read_rows(sections, Affine, verify=(LINEAR, LINEAR_MASK))
    }
    both = [(row, affines[row.section]) for row in planes if row.section in affines]
    readings = [
        _Reading(image, mask, rule, pixel_factor)
        for image, mask in ((MRI, MRI_MASK), (LINEAR, LINEAR_MASK))
    ]
    stack = Stack.empty(len(both), 2, _layout(both, readings), place)
    read = SectionPairs([], [], [], stack, [], [])
    without_tissue = []
    for plane, affine in both:
        try:
            of_plane = readings[0].of(plane)
        except ValueError as error:
            read.left_out.append(f"section {plane.section} left out: {error}")
            continue
        read.with_plane.append(affine)
        try:
            of_section = readings[1].of(affine)
        except ValueError as error:
            without_tissue.append(f"section {affine.section} left out: {error}")
            continue
        for group, images in enumerate((of_section, of_plane)):
            stack.put(len(read.planes), group, *images)
        read.across_px.append(float(extent_px(of_section[1]).max()))
        read.planes.append(plane)
        read.sections.append(affine)
    read.left_out.extend(without_tissue)
    return replace(read, stack=stack.first(len(read.planes)))


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
    maps : (2 n, 1, H, W) int16, of all sections, then of all planes; zeros where a section or
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
    return stacked(numbered).to(torch.int16), len(classes)


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
