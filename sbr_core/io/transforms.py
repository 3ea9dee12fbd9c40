"""ITK transform files: the 3D affine of the stack, the 2D composites of its sections.

A file ``from-A_to-B_mode-image`` resamples an image of A onto B, so it maps points of B to A.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.errors import ImageError
from sbr_core.geometry import LPS_FROM_RAS, similarity_scale
from sbr_core.io.files import atomic_path
from sbr_core.io.sums import check_sum, summed_path

_HDF5 = threading.Lock()
_ENDLESS_MM = 1e5
"""Thickness of the one layer of a field that moves points alike at every z."""


@dataclass(frozen=True)
class PlaneField:
    """A displacement field on a plane's grid: point p goes to p + disp(p), p outside stays.

    Attributes
    ----------
    disp_mm : (rows, columns, 2) displacement (x, y) in mm.
    spacing_mm : side of the square pixel.
    origin_mm : pixel (column, row) sits at origin_mm + (column, row) * spacing_mm.
    """

    disp_mm: np.ndarray
    spacing_mm: float
    origin_mm: tuple[float, float] = (0.0, 0.0)

    def map(self, points_mm: np.ndarray) -> np.ndarray:
        """Points (..., 2) in plane mm, displaced as ITK does it.

        Linear between pixel centres, the nearest value in the outer half pixel, zero beyond.
        """
        from scipy.ndimage import map_coordinates

        points_mm = np.asarray(points_mm, float)
        columns_rows = (points_mm - np.asarray(self.origin_mm)) / self.spacing_mm
        size = np.array(self.disp_mm.shape[1::-1])
        inside = np.all((columns_rows >= -0.5) & (columns_rows < size - 0.5), axis=-1)
        rows_columns = columns_rows.reshape(-1, 2).T[::-1]
        moved = [
            map_coordinates(self.disp_mm[..., c], rows_columns, order=1, mode="nearest")
            for c in (0, 1)
        ]
        disp_mm = np.stack(moved, axis=-1).reshape(points_mm.shape)
        return points_mm + np.where(inside[..., None], disp_mm, 0.0)


@dataclass(frozen=True)
class SectionTransform:
    """Steps applied in order to 2D points: a 3x3 affine (mm) or a `PlaneField`."""

    steps: tuple[np.ndarray | PlaneField, ...]

    def map(self, points_mm: np.ndarray) -> np.ndarray:
        """Map points (..., 2), mm on both sides."""
        for step in self.steps:
            points_mm = (
                step.map(points_mm) if isinstance(step, PlaneField) else _affine(step, points_mm)
            )
        return points_mm


def _affine(matrix: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    """`geometry.apply` in the plane, each sum written out.

    A matrix product may round differently with the number of points; here a point goes to the
    same place, to the last bit, whatever others it is mapped with.
    """
    matrix, points_mm = np.asarray(matrix, float), np.asarray(points_mm, float)
    x, y = points_mm[..., 0], points_mm[..., 1]
    return np.stack([m[0] * x + m[1] * y + m[2] for m in matrix[:2]], axis=-1)


def _itk_affine(matrix: np.ndarray):
    import SimpleITK as sitk

    d = matrix.shape[0] - 1
    transform = sitk.AffineTransform(d)
    transform.SetMatrix(matrix[:d, :d].ravel().tolist())
    transform.SetTranslation(matrix[:d, d].tolist())
    return transform


def _matrix(transform) -> np.ndarray:
    d = transform.GetDimension()
    linear = np.array(transform.GetMatrix()).reshape(d, d)
    centre = np.array(transform.GetCenter())
    matrix = np.eye(d + 1)
    matrix[:d, :d] = linear
    matrix[:d, d] = np.array(transform.GetTranslation()) + centre - linear @ centre
    return matrix


def write_section_transform(path: Path, transform: SectionTransform) -> None:
    """Write an ITK 2D composite (HDF5) that SimpleITK and ANTs open."""
    import SimpleITK as sitk

    composite = sitk.CompositeTransform(2)
    for step in reversed(transform.steps):  # ITK applies the transform added last first
        if isinstance(step, PlaneField):
            image = sitk.GetImageFromArray(np.asarray(step.disp_mm, np.float64), isVector=True)
            image.SetSpacing([step.spacing_mm] * 2)
            image.SetOrigin([float(o) for o in step.origin_mm])
            composite.AddTransform(sitk.DisplacementFieldTransform(image))
        else:
            composite.AddTransform(_itk_affine(np.asarray(step, float)))
    # ITK's HDF5 may be in one place at a time only
    with _HDF5, atomic_path(path) as temporary:
        sitk.WriteTransform(composite, str(temporary))


def write_space_transform(path: Path, steps: tuple[np.ndarray | PlaneField, ...]) -> None:
    """Write an ITK 3D composite (HDF5) of steps that are applied in order to points (x, y, z).

    Parameters
    ----------
    steps : (4, 4) affines, and fields of a plane, which move (x, y) alike at every z.
    """
    import SimpleITK as sitk

    composite = sitk.CompositeTransform(3)
    for step in reversed(steps):
        if isinstance(step, PlaneField):
            disp_mm = np.pad(np.asarray(step.disp_mm, np.float64), [(0, 0), (0, 0), (0, 1)])
            image = sitk.GetImageFromArray(disp_mm[None], isVector=True)
            image.SetSpacing([step.spacing_mm, step.spacing_mm, _ENDLESS_MM])
            image.SetOrigin([*map(float, step.origin_mm), 0.0])
            composite.AddTransform(sitk.DisplacementFieldTransform(image))
        else:
            composite.AddTransform(_itk_affine(np.asarray(step, float)))
    with _HDF5, atomic_path(path) as temporary:
        sitk.WriteTransform(composite, str(temporary))


def read_section_transform(path: Path) -> SectionTransform:
    """Read a composite written by `write_section_transform`; ImageError where it is none."""
    import SimpleITK as sitk

    transform = _read(path, 2)
    steps: list[np.ndarray | PlaneField] = []
    try:
        composite = sitk.CompositeTransform(transform)
        for index in reversed(range(composite.GetNumberOfTransforms())):
            part = composite.GetNthTransform(index)
            if part.GetTransformEnum() == sitk.sitkDisplacementField:
                field = sitk.DisplacementFieldTransform(part).GetDisplacementField()
                disp_mm = sitk.GetArrayFromImage(field)
                steps.append(PlaneField(disp_mm, field.GetSpacing()[0], field.GetOrigin()))
            else:
                steps.append(_matrix(sitk.AffineTransform(part)))
    except RuntimeError as error:
        raise ImageError(f"{path}: no affines and displacement fields: {error}") from None
    numbers = [step.disp_mm if isinstance(step, PlaneField) else step for step in steps]
    if not steps or not all(np.isfinite(array).all() for array in numbers):
        raise ImageError(f"{path}: has no numbers, or some that are not finite")
    return SectionTransform(tuple(steps))


def write_stack_from_world(path: Path, stack_from_world: np.ndarray) -> None:
    """Write ``from-stack_to-mri``: an ITK 3D affine, points MRI (LPS mm) -> stack mm.

    Parameters
    ----------
    stack_from_world : (4, 4), from RAS+ world mm to stack mm.
    """
    import SimpleITK as sitk

    with summed_path(path) as temporary:
        sitk.WriteTransform(_itk_affine(stack_from_world @ LPS_FROM_RAS), str(temporary))


def read_stack_from_world(path: Path) -> np.ndarray:
    """(4, 4) from RAS+ world mm to stack mm, of a file `write_stack_from_world` wrote.

    Raises
    ------
    ImageError
        Missing, unreadable, or no similarity: lengths must change alike in every direction.
    """
    import SimpleITK as sitk

    check_sum(path)
    transform = _read(path, 3)
    try:
        matrix = _matrix(sitk.AffineTransform(transform)) @ LPS_FROM_RAS
    except RuntimeError:
        raise ImageError(f"{path}: expected a 3D affine, found {transform.GetName()}") from None
    try:
        if not np.isfinite(matrix).all() or not similarity_scale(matrix) > 0:
            raise ValueError("its numbers are not finite, or its scale is 0")
    except ValueError as error:
        raise ImageError(f"{path}: expected a similarity: {error}") from None
    return matrix


def refuse_other_files(path: Path) -> None:
    """ImageError where a transform file names another one, from which ITK would read numbers.

    In HDF5 those are links that are not of the file itself, and data sets that lie elsewhere; in
    text, parts of a composite. What this package writes has neither.
    """
    import h5py

    if not h5py.is_hdf5(path):
        is_composite = path.suffix != ".h5" and b"ComponentTransformFile" in path.read_bytes()
        outside = "ComponentTransformFile" if is_composite else None
    else:
        try:
            with h5py.File(path, "r", locking=False) as file:
                # links first: an object is opened only when all of them are of the file
                outside = file.visititems_links(
                    lambda name, link: None if isinstance(link, h5py.HardLink) else name
                ) or file.visititems(lambda name, item: name if _is_elsewhere(item) else None)
        except Exception as error:  # damaged bytes; h5py raises whatever it likes
            raise ImageError(f"{path}: not readable as an ITK transform: {error}") from None
    if outside is not None:
        raise ImageError(
            f"{path}: {outside}: lies in another file, and a transform must be whole in its own"
        )


def _is_elsewhere(item: Any) -> bool:
    """Whether an object of an HDF5 file is a data set with its numbers in other files."""
    import h5py

    return isinstance(item, h5py.Dataset) and (item.external is not None or item.is_virtual)


def _read(path: Path, dimension: int):
    import SimpleITK as sitk

    if not Path(path).is_file():
        raise ImageError(f"{path}: no such file")
    refuse_other_files(Path(path))
    try:
        transform = sitk.ReadTransform(str(path))
    except (RuntimeError, UnicodeDecodeError) as error:  # SimpleITK quotes what it found
        raise ImageError(f"{path}: not readable as an ITK transform: {error}") from None
    if transform.GetDimension() != dimension:
        raise ImageError(f"{path}: expected a {dimension}D affine, found {transform.GetName()}")
    return transform
