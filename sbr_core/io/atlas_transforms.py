"""Transforms between an MRI and a template, as registration programs write them, for points.

- ITK and ANTs (``.mat``, ``.txt``, ``.tfm``, ``.h5``; fields of displacement as ``.nii.gz``,
  ``.nrrd``, ``.mha``): those that resample the MRI onto the template, in the order in which
  ``antsApplyTransforms -t`` takes them. They map points of the template to the MRI, in LPS mm, the
  first of the list first.
- LTA of FreeSurfer: from the MRI (its ``src``) to the template (its ``dst``), points likewise; of
  the types VOX_TO_VOX and RAS_TO_RAS (``transform.h``, ``LTAread``).

Points are RAS mm on both sides here. The inverse of a field is found point by point.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.errors import ImageError
from sbr_core.geometry import LPS_FROM_RAS, apply
from sbr_core.io.detached import detached_files
from sbr_core.io.files import check_is_file
from sbr_core.io.transforms import refuse_other_files

logger = logging.getLogger(__name__)

_FIELDS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_MOST_ROUNDS = 100
"""Of the search for the inverse of a field; some ten are needed where it is smooth."""
_FOUND_MM, _LOST_MM = 1e-5, 0.1
"""A point whose way back ends closer than the first is found, one further than the second lost."""
_VOX_TO_VOX, _RAS_TO_RAS = 0, 1


@dataclass(frozen=True)
class _Field:
    """Displacements in LPS mm on a grid; none outside, as ITK has it.

    Attributes
    ----------
    disp_mm : (3, i, j, k).
    index_from_lps : (4, 4).
    """

    disp_mm: np.ndarray
    index_from_lps: np.ndarray

    def map(self, points_mm: np.ndarray) -> np.ndarray:
        from scipy.ndimage import map_coordinates

        index = apply(self.index_from_lps, points_mm)
        size = np.array(self.disp_mm.shape[1:])
        inside = np.all((index >= -0.5) & (index < size - 0.5), axis=-1)
        moved = [map_coordinates(d, index.T, order=1, mode="nearest") for d in self.disp_mm]
        return points_mm + np.where(inside[:, None], np.stack(moved, axis=-1), 0.0)

    def undo(self, points_mm: np.ndarray) -> np.ndarray:
        """Where points come from; NaN for those for which none is found.

        Half a step is taken where a whole one leads further away, as where the field is steep.
        """
        found, step = points_mm.copy(), np.ones(len(points_mm))
        off = self.map(found) - points_mm
        length = np.linalg.norm(off, axis=1)
        for _ in range(_MOST_ROUNDS):
            going = np.flatnonzero((length > _FOUND_MM) & (step > 1e-3))
            if not going.size:
                break
            tried = found[going] - step[going, None] * off[going]
            off_tried = self.map(tried) - points_mm[going]
            length_tried = np.linalg.norm(off_tried, axis=1)
            closer = length_tried < length[going]
            better = going[closer]
            found[better], off[better] = tried[closer], off_tried[closer]
            length[better] = length_tried[closer]
            step[going[~closer]] /= 2
        return np.where(length[:, None] <= _LOST_MM, found, np.nan)


@dataclass(frozen=True)
class AtlasTransform:
    """The way between an MRI and a template.

    Attributes
    ----------
    steps : from the template to the MRI, the first one first: matrices (4, 4) or fields, LPS mm.
    """

    steps: tuple[np.ndarray | _Field, ...]

    def to_mri(self, points_mm: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the template to the MRI, RAS mm."""
        return self._through(points_mm, self.steps, back=False)

    def from_mri(self, points_mm: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the MRI to the template, RAS mm; NaN where a field has no inverse."""
        return self._through(points_mm, self.steps[::-1], back=True)

    @staticmethod
    def _through(
        points_mm: np.ndarray, steps: Sequence[np.ndarray | _Field], *, back: bool
    ) -> np.ndarray:
        points_mm = np.asarray(points_mm, float)
        lps = apply(LPS_FROM_RAS, points_mm.reshape(-1, 3))
        for step in steps:
            if isinstance(step, _Field):
                lps = step.undo(lps) if back else step.map(lps)
            else:
                lps = apply(np.linalg.inv(step) if back else step, lps)
        return apply(LPS_FROM_RAS, lps).reshape(points_mm.shape)


def read_atlas_transform(paths: Sequence[Path]) -> AtlasTransform:
    """The way that files state, see the module.

    Raises
    ------
    ImageError
        A file that is missing, not readable, or of a kind that is not known, or that takes numbers
        from others elsewhere.
    """
    steps: list[np.ndarray | _Field] = []
    for path in map(Path, paths):
        check_is_file(path)
        if path.name.lower().endswith(".lta"):
            steps.append(_of_lta(path))
        else:
            steps += _of_itk(path)
    return AtlasTransform(tuple(steps))


def _of_itk(path: Path) -> list[np.ndarray | _Field]:
    import SimpleITK as sitk

    name = path.name.lower()
    if not name.endswith(_FIELDS):
        refuse_other_files(path)
    elif not name.endswith((".nii", ".nii.gz")):
        detached_files(path)  # refuses voxels that are not beside it
    try:
        if name.endswith(_FIELDS):
            image = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
            if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 3:
                raise ImageError(f"{path}: expected a 3D field of displacements, found an image")
            steps = [_field(image)]
        else:
            steps = _steps(sitk.ReadTransform(str(path)), path)
    except (RuntimeError, UnicodeDecodeError) as error:  # SimpleITK quotes what it found
        raise ImageError(f"{path}: not readable as a transform of ITK: {error}") from None
    for step in steps:
        numbers = step.disp_mm if isinstance(step, _Field) else step
        if not np.isfinite(numbers).all():
            raise ImageError(f"{path}: has numbers that are not finite")
        if not isinstance(step, _Field) and not np.linalg.det(step):
            raise ImageError(f"{path}: has no inverse")
    return steps


def _steps(transform: Any, path: Path) -> list[np.ndarray | _Field]:
    """Those of a transform of SimpleITK, the first one first."""
    import SimpleITK as sitk

    if transform.GetDimension() != 3:
        raise ImageError(f"{path}: expected a 3D transform, found {transform.GetName()}")
    kind = transform.GetTransformEnum()
    if kind == sitk.sitkComposite:
        parts = sitk.CompositeTransform(transform)
        numbers = reversed(range(parts.GetNumberOfTransforms()))  # the one added last comes first
        return [step for i in numbers for step in _steps(parts.GetNthTransform(i), path)]
    if kind == sitk.sitkDisplacementField:
        return [_field(sitk.DisplacementFieldTransform(transform).GetDisplacementField())]
    if not transform.IsLinear():
        raise ImageError(
            f"{path}: {transform.GetName()}: expected affine transforms and fields of displacements"
        )
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.transpose([transform.TransformPoint(e) - origin for e in np.eye(3)])
    matrix[:3, 3] = origin
    return [matrix]


def _field(image: Any) -> _Field:
    import SimpleITK as sitk

    lps_from_index = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    lps_from_index[:3, :3] = direction * image.GetSpacing()
    lps_from_index[:3, 3] = image.GetOrigin()
    disp_mm = np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(3, 2, 1, 0))
    return _Field(disp_mm, np.linalg.inv(lps_from_index))


def _of_lta(path: Path) -> np.ndarray:
    """(4, 4) from LPS of the template to LPS of the MRI."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        facts, volumes, rows = _facts_of_lta(lines)
        matrix = np.array(rows, float)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.linalg.det(matrix):
            raise ValueError("expected a matrix of four rows of four numbers with an inverse")
        kind = int(facts["type"].split()[0])
        if kind == _VOX_TO_VOX:
            source, target = (_ras_from_voxel(volumes[name]) for name in ("src", "dst"))
            matrix = target @ matrix @ np.linalg.inv(source)
        elif kind != _RAS_TO_RAS:
            raise ValueError(f"expected the type 0 (VOX_TO_VOX) or 1 (RAS_TO_RAS), found {kind}")
    except (ValueError, KeyError, IndexError, OSError, np.linalg.LinAlgError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ImageError(f"{path}: not readable as an LTA: {what}") from None
    return LPS_FROM_RAS @ np.linalg.inv(matrix) @ LPS_FROM_RAS


def _facts_of_lta(
    lines: Sequence[str],
) -> tuple[dict[str, str], dict[str, dict[str, str]], list[list[str]]]:
    """``key = value`` lines, those of the volumes ``src`` and ``dst``, and rows of the matrix."""
    facts: dict[str, str] = {}
    volumes: dict[str, dict[str, str]] = {"src": {}, "dst": {}}
    rows: list[list[str]] = []
    here, left = facts, 0
    for line in (line.partition("#")[0].strip() for line in lines):
        words = line.split()
        if left and len(words) == 4:
            rows.append(words)
            left -= 1
        elif words == ["1", "4", "4"]:
            left = 4
        elif line.endswith("volume info") and words[0] in volumes:
            here = volumes[words[0]]
        elif "=" in line:
            key, _, value = line.partition("=")
            here[key.strip()] = value.strip()
    return facts, volumes, rows


def _ras_from_voxel(volume: dict[str, str]) -> np.ndarray:
    """(4, 4) of a volume in an LTA: its size, voxels, directions and centre."""

    def three(key: str) -> np.ndarray:
        numbers = np.array(volume[key].split(), float)
        if numbers.shape != (3,):
            raise ValueError(f"{key}: expected three numbers")
        return numbers

    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([three(f"{axis}ras") for axis in "xyz"]) * three("voxelsize")
    matrix[:3, 3] = three("cras") - matrix[:3, :3] @ (three("volume") / 2)
    return matrix
