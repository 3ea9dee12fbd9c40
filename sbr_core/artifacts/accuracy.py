"""How well published transforms and volumes align: landmarks, labels, folding, there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sbr_core import geometry, metrics
from sbr_core.artifacts.label_pairs import LabelPair, read_label_volume
from sbr_core.artifacts.names import volume_file, volume_groups
from sbr_core.errors import ReceiptError
from sbr_core.io.manifests import Landmark
from sbr_core.io.transforms import PlaneField, SectionTransform
from sbr_core.io.volumes import Volume, read_volume


def unit_of(metric: str) -> str:
    """Unit of a metric's values: mm, or 1 for shares and overlaps."""
    return "mm" if metric.endswith("_mm") else "1"


def landmark_errors_mm(
    marks: Sequence[Landmark],
    plane_from_section: SectionTransform,
    stack_from_world: np.ndarray | None,
    position_mm: float,
) -> tuple[np.ndarray, np.ndarray | None]:
    """How far a section's landmarks are from where they belong.

    Parameters
    ----------
    marks : landmarks of one section.
    plane_from_section : maps section mm to plane mm.
    stack_from_world : (4, 4), or None when the landmarks are in plane mm already.
    position_mm : of the section.

    Returns
    -------
    in_plane_mm : (n,).
    through_plane_mm : (n,) distances along the stack, not negative; None without a stack.
    """
    mapped = plane_from_section.map(np.array([m.section_mm for m in marks], float))
    if stack_from_world is None:
        target = np.array([m.plane_mm for m in marks], float)
        return np.linalg.norm(mapped - target, axis=1), None
    stack = geometry.apply(stack_from_world, np.array([m.mri_mm for m in marks], float))
    return np.linalg.norm(mapped - stack[:, :2], axis=1), np.abs(stack[:, 2] - position_mm)


def labels_on_plane(pair: LabelPair, section_from_plane: SectionTransform) -> np.ndarray:
    """The section's labels on the grid of its plane's, nearest neighbour in the section's file."""
    rows, columns = np.indices(pair.plane_grid.shape)
    plane_mm = np.stack([columns, rows], axis=-1) * pair.plane_grid.spacing_mm
    file_px = section_from_plane.map(plane_mm) / pair.section_pixel_mm
    return nearest_elements(pair.section_labels, file_px[..., ::-1])


def folding(section_from_plane: SectionTransform, mask: np.ndarray, spacing_mm: float) -> float:
    """Share of the plane's tissue where a displacement field of the transform folds."""
    share = 0.0  # an affine folds nothing
    for step in section_from_plane.steps:
        if isinstance(step, PlaneField):
            field_px = np.stack(np.indices(step.disp_mm.shape[:2]), axis=-1)  # row, column
            plane_mm = np.array(step.origin_mm)[::-1] + field_px * step.spacing_mm
            inside = nearest_elements(mask, plane_mm / spacing_mm)
            share = max(share, metrics.folding(step.disp_mm, inside, step.spacing_mm))
    return share


def there_and_back_mm(
    section_from_plane: SectionTransform,
    plane_from_section: SectionTransform,
    mask: np.ndarray,
    spacing_mm: float,
) -> float:
    """How far from where they started points of a plane's tissue end, mean; mm.

    Parameters
    ----------
    mask : (rows, columns) of the plane, not empty.
    """
    rows, columns = np.nonzero(mask)
    tissue_mm = np.column_stack([columns, rows]) * spacing_mm
    back_mm = plane_from_section.map(section_from_plane.map(tissue_mm))
    return float(np.linalg.norm(back_mm - tissue_mm, axis=1).mean())


def volume_dice(folder: Path, brain: str, mri: Volume) -> tuple[dict[int, float], int]:
    """Dice of the reassembled labels against the MRI's, over the voxels that sections cover.

    Where stain groups have volumes of their own, each voxel is that of the nearest section of any.

    Parameters
    ----------
    folder : of the volumes.
    mri : labels.

    Returns
    -------
    class -> Dice, and the number of voxels; empty where the sections have no labels.

    Raises
    ------
    ReceiptError
        The coverage is not of the volume of labels.
    """
    groups = volume_groups(folder, brain, "mri", "_labels.nii.gz")
    if not groups:
        return {}, 0
    labels, nearest_mm = _labels_and_distance(folder, brain, groups[0])
    for group in groups[1:]:
        other, distance_mm = _labels_and_distance(folder, brain, group)
        nearer = distance_mm < nearest_mm
        labels = replace(labels, data=np.where(nearer, other.data, labels.data))
        nearest_mm = np.minimum(nearest_mm, distance_mm)
    covered = np.isfinite(nearest_mm)
    indices = np.argwhere(covered)
    voxel_from_voxel = np.linalg.inv(mri.world_from_voxel) @ labels.world_from_voxel
    truth = nearest_elements(mri.data, geometry.apply(voxel_from_voxel, indices))
    return metrics.dice(labels.data[covered], truth), len(indices)


def _labels_and_distance(folder: Path, brain: str, group: str) -> tuple[Volume, np.ndarray]:
    """Reassembled labels, and how far the nearest section is, mm; infinite where none reaches."""
    labels = read_label_volume(volume_file(folder, brain, "mri", "labels", group))
    coverage = volume_file(folder, brain, "mri", "coverage", group)
    distance_mm = read_volume(coverage).data
    if distance_mm.shape != labels.data.shape:
        raise ReceiptError(
            f"{coverage}: shape {distance_mm.shape}, but the labels beside it have"
            f" {labels.data.shape}: remove the volumes, and the workflow makes them anew"
        )
    return labels, np.where(distance_mm >= 0, distance_mm, np.inf)


def nearest_elements(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Elements of an (n1, ..., nd) array at fractional indices (..., d); 0 outside, and of NaN."""
    nearest = np.floor(np.where(np.isnan(indices), -1.0, indices) + 0.5).astype(np.int64)
    limit = np.array(array.shape)
    inside = np.all((nearest >= 0) & (nearest < limit), axis=-1)
    values = array[tuple(np.moveaxis(np.clip(nearest, 0, limit - 1), -1, 0))]
    return np.where(inside, values, np.zeros((), array.dtype))
