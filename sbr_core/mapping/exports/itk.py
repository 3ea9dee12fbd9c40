"""Transforms between the MRI and each section in space, for ITK, ANTs and 3D Slicer.

The programs know no points of a plane in a volume. So a section becomes a volume of one layer: its
(x, y) are section mm, and its z is how far behind the section a point lies, in stack mm; all LPS,
as ITK counts. As everywhere, ``from-A_to-B_mode-image`` resamples an image of A onto B and maps
points of B to A.

- ``_xfm.h5`` is an ITK composite, right at any distance from the section.
- ``_xfm.nii.gz`` is the same as a field of displacements (NIfTI of five dimensions, intent 1007,
  vectors LPS in mm, as `antsApplyTransforms` reads it): of two layers, between which it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sbr_core.artifacts import names
from sbr_core.geometry import LPS_FROM_RAS, apply
from sbr_core.io.transforms import PlaneField, SectionTransform, write_space_transform
from sbr_core.io.volumes import Volume, read_plane, write_field, write_volume
from sbr_core.mapping.brain import Brain, Section
from sbr_core.mapping.exports.files import Export

TO_SECTION = "_from-mri_to-section_mode-image_xfm"
TO_MRI = "_from-section_to-mri_mode-image_xfm"
IMAGE = "_section.nii.gz"


def itk(brain: Brain, sections: Sequence[Section]) -> Export:
    """A composite and a field in each direction, and the image, of every section."""
    _ = brain.stack_from_mri  # a prealigned brain is refused before anything is written
    files: dict[str, Callable[[Path], object]] = {}
    for section in sections:
        name = section.id
        files[f"{name}{IMAGE}"] = partial(_write_image, section)
        for ending, steps in ((TO_SECTION, to_mri_steps), (TO_MRI, to_section_steps)):
            files[f"{name}{ending}.h5"] = partial(write_composite, section, steps)
        files[f"{name}{TO_SECTION}.nii.gz"] = partial(_write_field_on_section, section)
        files[f"{name}{TO_MRI}.nii.gz"] = partial(_write_field_on_plane, section)
    return Export(files)


Steps = tuple[np.ndarray | PlaneField, ...]


def to_mri_steps(section: Section) -> Steps:
    """Section mm and z, to LPS mm of the MRI: affines (4, 4) and fields of the plane, in order."""
    return (*_lifted(section.plane_from_section), _mri_from_plane(section))


def to_section_steps(section: Section) -> Steps:
    """LPS mm of the MRI to section mm and z, likewise."""
    plane_from_mri = np.linalg.inv(_mri_from_plane(section))
    return (plane_from_mri, *_lifted(section.section_from_plane))


def _lifted(transform: SectionTransform) -> Steps:
    """Steps of a plane as ones of space, which leave z as it is."""
    steps: list[np.ndarray | PlaneField] = []
    for step in transform.steps:
        if not isinstance(step, PlaneField):
            matrix = np.eye(4)
            matrix[np.ix_([0, 1, 3], [0, 1, 3])] = step
            step = matrix
        steps.append(step)
    return tuple(steps)


def _mri_from_plane(section: Section) -> np.ndarray:
    """(4, 4), plane mm and z of a section to LPS mm of the MRI."""
    stack_from_plane = np.eye(4)
    stack_from_plane[2, 3] = section.position_mm
    return LPS_FROM_RAS @ section.brain.mri_from_stack @ stack_from_plane


def mapped(steps: Steps, points_mm: np.ndarray) -> np.ndarray:
    """Points (..., 3) through steps."""
    for step in steps:
        if isinstance(step, PlaneField):
            points_mm = np.concatenate([step.map(points_mm[..., :2]), points_mm[..., 2:]], -1)
        else:
            points_mm = apply(step, points_mm)
    return points_mm


def write_composite(section: Section, steps: Callable[[Section], Steps], path: Path) -> None:
    """Write `to_mri_steps` or `to_section_steps` of a section."""
    write_space_transform(path, steps(section))


def _thickness_mm(section: Section) -> float:
    """Of its layer: as far as the section stands for the tissue around it."""
    return float(sum(section.reach_mm)) or section.row.grid.spacing_mm


def _section_from_working(section: Section) -> np.ndarray:
    """(4, 4), working px and a layer's number to section mm and z."""
    prepared = section.prepared
    matrix = np.eye(4)
    plane = prepared.section_mm_from_working_mm.copy()
    plane[:, :2] *= prepared.working_pixel_mm
    matrix[np.ix_([0, 1, 3], [0, 1, 3])] = plane
    matrix[2, 2] = _thickness_mm(section)
    return matrix


def _write_image(section: Section, path: Path) -> None:
    """The section as `prepare` left it, where it lies in section mm."""
    image, _ = read_plane(section.prepared.intact(names.IMAGE))
    layer = image.astype(np.float32).T[..., None]
    write_volume(path, Volume(layer, LPS_FROM_RAS @ _section_from_working(section)))


def _write_field_on_section(section: Section, path: Path) -> None:
    rows, columns = section.tissue.shape
    nodes = _two_layers(_section_from_working(section))
    _write_field(path, to_mri_steps(section), nodes, (columns, rows))


def _write_field_on_plane(section: Section, path: Path) -> None:
    grid = section.grid
    plane_from_px = np.diag([grid.spacing_mm, grid.spacing_mm, _thickness_mm(section), 1.0])
    nodes = _mri_from_plane(section) @ _two_layers(plane_from_px)
    _write_field(path, to_section_steps(section), nodes, grid.shape[::-1])


def _two_layers(from_voxel: np.ndarray) -> np.ndarray:
    """The grid of a layer for one in front of it and one behind, a thickness away each.

    Between these z changes linearly, as it does in the steps; so nothing is lost.
    """
    spread = np.diag([1.0, 1.0, 2.0, 1.0])
    spread[2, 3] = -1.0
    return from_voxel @ spread


def _write_field(
    path: Path, steps: Steps, lps_from_voxel: np.ndarray, shape: tuple[int, int]
) -> None:
    voxels = np.stack(np.indices((*shape, 2)), axis=-1)
    points_mm = apply(lps_from_voxel, voxels)
    write_field(path, mapped(steps, points_mm) - points_mm, LPS_FROM_RAS @ lps_from_voxel)
