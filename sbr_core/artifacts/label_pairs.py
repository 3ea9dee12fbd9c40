"""Labels of a section beside those of its MRI plane, wherever the user keeps them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.planes import resample_plane
from sbr_core.algorithms.sections import area_vote, labels_on_grid
from sbr_core.artifacts.names import STACK_TRANSFORM
from sbr_core.artifacts.rows import Plane, Prepared
from sbr_core.errors import ImageError, some_of
from sbr_core.io.frames import is_in_micrometres
from sbr_core.io.images import read_labels
from sbr_core.io.manifests import SectionRow
from sbr_core.io.transforms import read_stack_from_world
from sbr_core.io.volumes import Volume, read_volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelPair:
    """Labels of one section in its file, and of its MRI plane on a grid of the plane."""

    section_labels: np.ndarray
    section_pixel_mm: float
    plane_labels: np.ndarray
    plane_grid: geometry.PlaneGrid

    def on_grid(
        self, grid: geometry.PlaneGrid, section_mm_from_plane_mm: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Both on one grid of the plane, (rows, columns): the section's and the plane's, by area.

        Parameters
        ----------
        section_mm_from_plane_mm : (3, 3), the section's affine.
        """
        file_px_from_plane_px = (
            geometry.scaling(1 / self.section_pixel_mm)
            @ section_mm_from_plane_mm
            @ grid.plane_mm_from_px
        )
        return (
            area_vote(self.section_labels, file_px_from_plane_px, grid.shape),
            labels_on_grid(self.plane_labels, self.plane_grid, grid),
        )


class LabelPairs:
    """The pairs of labels of a brain, by section.

    Labels that cannot be read, or of another shape than they should be, count as none: their
    section, or the MRI, is reported, and goes on without labels.

    Parameters
    ----------
    rows : the manifest's rows, whose ``mri_labels`` count where there is no 3D MRI.
    align_dir : folder of `align`; None for a prealigned brain.
    mri_labels : labels of the 3D MRI.
    stage : who reports.
    strict : let the first labels that cannot be used stop the stage instead (`ImageError`).

    Attributes
    ----------
    mri : labels of the 3D MRI, or None.
    stack_from_world : (4, 4); None for a prealigned brain.
    unusable : section -> what is wrong with its labels, of those asked for so far; "" -> with
        those of the 3D MRI.
    apart : section -> what `no_id_in_common` says of its labels, as far as somebody asked.

    Raises
    ------
    ImageError
        With `strict`, labels of a 3D MRI that cannot be used.
    """

    def __init__(
        self,
        rows: Sequence[SectionRow] | None,
        *,
        align_dir: Path | None,
        mri_labels: Path | None,
        stage: str,
        strict: bool = False,
    ) -> None:
        self.mri = self.stack_from_world = None
        self.plane_files = {r.section: r for r in rows or [] if r.mri_labels}
        self.stage, self.strict = stage, strict
        self.unusable: dict[str, str] = {}
        self.apart: dict[str, str] = {}
        if align_dir is not None:
            self.stack_from_world = read_stack_from_world(align_dir / STACK_TRANSFORM)
            self.mri = self._of_mri(mri_labels) if mri_labels is not None else None

    def of(self, prepared: Prepared, plane: Plane) -> LabelPair | None:
        """The labels of one section and its plane; None where either has none to use."""
        of_plane = self.of_plane(prepared, plane) if prepared.labels else None
        of_section = self._read(prepared, prepared.labels) if of_plane is not None else None
        if of_section is None:
            return None
        return LabelPair(of_section, prepared.pixel_size_mm, *of_plane)

    def _of_mri(self, path: Path) -> Volume | None:
        """The labels of the 3D MRI; None where they cannot be used."""
        try:
            labels = read_label_volume(path)
        except ImageError as error:
            if self.strict:
                raise
            self.unusable[""] = str(error)
            logger.warning(f"{self.stage}: WARNING: labels of the MRI left out: {error}")
            return None
        for doubt in labels.doubts:
            logger.warning(f"{self.stage}: WARNING: {path}: {doubt}")
        return labels

    def _read(self, prepared: Prepared, path: str) -> np.ndarray | None:
        """A label image on the grid of the section's file; None once it was found unusable."""
        section = prepared.section
        if section in self.unusable:
            return None
        try:
            return geometry.in_box(read_labels(Path(path), prepared.file_shape), prepared.box)
        except ImageError as error:
            if self.strict:
                raise
            self.unusable[section] = str(error)
            logger.warning(f"{self.stage}: section {section}: labels left out: {error}")
            return None

    def of_plane(
        self, prepared: Prepared, plane: Plane
    ) -> tuple[np.ndarray, geometry.PlaneGrid] | None:
        """The labels of a section's MRI plane and their grid; None where it has none to use."""
        if self.mri is not None:
            # as fine as the MRI labels are, whatever resolution training worked at
            scale = geometry.similarity_scale(self.stack_from_world)
            grid = plane.grid.at_spacing(float(self.mri.spacing_mm.min()) * scale)
            labels = resample_plane(
                self.mri.data,
                self.mri.world_from_voxel,
                self.stack_from_world,
                grid,
                prepared.position_mm,
                order=0,
            )
            return labels, grid
        if prepared.section not in self.plane_files:
            return None
        row = self.plane_files[prepared.section]
        labels = self._read(prepared, row.mri_labels)
        if labels is None:
            return None
        return labels, geometry.PlaneGrid(labels.shape, float(row.pixel_size_mm))


def read_label_volume(path: Path) -> Volume:
    """Labels of a 3D MRI as int32, or int64 where an id is larger.

    Lengths that only micrometres make those of a brain are taken for such, which is a doubt.

    Raises
    ------
    ImageError
        Not readable, or not whole numbers that were kept exactly.
    """
    volume = read_volume(path)
    data = volume.data
    if data.dtype.kind == "f":
        if not np.array_equal(np.rint(data), data):
            raise ImageError(f"{path}: expected whole numbers as labels, found fractions")
        exact = 2.0 ** (np.finfo(data.dtype).nmant + 1)
        if np.abs(data).max() > exact:
            raise ImageError(
                f"{path}: expected labels as integers: {data.dtype} rounds ids above {exact:.0f} to"
                " others"
            )
    low, high = int(data.min()), int(data.max())
    if high > np.iinfo(np.int64).max:
        raise ImageError(f"{path}: expected labels up to 2^63 - 1, found {high}")
    fits = np.iinfo(np.int32).min <= low and high <= np.iinfo(np.int32).max
    labels = replace(volume, data=data.astype(np.int32 if fits else np.int64))
    if is_in_micrometres(volume.world_from_voxel, data.shape):
        labels = replace(
            labels,
            world_from_voxel=np.diag([1e-3, 1e-3, 1e-3, 1.0]) @ volume.world_from_voxel,
            doubts=(*labels.doubts, "its lengths, of metres, are taken for micrometres"),
        )
    return labels


def no_id_in_common(pair: LabelPair) -> str:
    """That a section's labels and its plane's have no id in common, with some of each; or ""."""
    ours, theirs = (
        sorted({int(i) for i in np.unique(labels)} - {0})
        for labels in (pair.section_labels, pair.plane_labels)
    )
    if not ours or not theirs or set(ours) & set(theirs):
        return ""
    of_section, of_mri = (some_of([str(i) for i in ids]) for ids in (ours, theirs))
    return (
        f"labels of sections have the ids {of_section}, those of the MRI {of_mri}: none in common,"
        " so their overlap is not measured; give both the ids of one atlas"
    )
