"""Labels of a section beside those of its MRI plane, wherever the user keeps them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.planes import resample_plane
from sbr_core.algorithms.sections import area_vote
from sbr_core.errors import ImageError
from sbr_core.io.images import read_labels
from sbr_core.io.manifests import SectionRow
from sbr_core.io.volumes import Volume, read_volume


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
            on_grid_of_plane(self.plane_labels, self.plane_grid, grid),
        )


class LabelPairs:
    """The pairs of labels of a brain, by section.

    Labels that cannot be read, or of another shape than they should be, count as none: their
    section is reported, and goes on without labels.

    Parameters
    ----------
    mri : labels of the 3D MRI, or None.
    stack_from_world : (4, 4); None for a prealigned brain.
    rows : the manifest's rows, whose ``mri_labels`` count where there is no 3D MRI.
    stage : who reports.
    strict : let the first labels that cannot be used stop the stage instead (`ImageError`).

    Attributes
    ----------
    unusable : section -> what is wrong with its labels, of those asked for so far.
    """

    def __init__(
        self,
        mri: Volume | None,
        stack_from_world: np.ndarray | None,
        rows: Sequence[SectionRow] | None,
        *,
        stage: str,
        strict: bool = False,
    ) -> None:
        self.mri, self.stack_from_world = mri, stack_from_world
        self.plane_files = {r.section: r for r in rows or [] if r.mri_labels}
        self.stage, self.strict = stage, strict
        self.unusable: dict[str, str] = {}

    def of(self, prepared_row: Mapping[str, Any], plane_row: Mapping[str, Any]) -> LabelPair | None:
        """The labels of one section and its plane; None where either has none to use.

        Parameters
        ----------
        prepared_row, plane_row : of the tables of `prepare` and `resample`.
        """
        path = prepared_row.get("labels")
        of_plane = self.of_plane(prepared_row, plane_row) if path else None
        of_section = self._read(prepared_row, path) if of_plane is not None else None
        if of_section is None:
            return None
        return LabelPair(of_section, float(prepared_row["pixel_size_mm"]), *of_plane)

    def _read(self, prepared_row: Mapping[str, Any], path: str) -> np.ndarray | None:
        """A label image on the grid of the section's file; None once it was found unusable."""
        section = prepared_row["section"]
        if section in self.unusable:
            return None
        try:
            shape = int(prepared_row["file_rows"]), int(prepared_row["file_columns"])
            return read_labels(Path(path), shape)
        except ImageError as error:
            if self.strict:
                raise
            self.unusable[section] = str(error)
            print(f"{self.stage}: section {section}: labels left out: {error}", file=sys.stderr)
            return None

    def of_plane(
        self, prepared_row: Mapping[str, Any], plane_row: Mapping[str, Any]
    ) -> tuple[np.ndarray, geometry.PlaneGrid] | None:
        """The labels of a section's MRI plane and their grid; None where it has none to use.

        Parameters as of `of`.
        """
        section = prepared_row["section"]
        if self.mri is not None:
            grid = _label_grid(plane_row, self.mri, self.stack_from_world)
            labels = resample_plane(
                self.mri.data,
                self.mri.world_from_voxel,
                self.stack_from_world,
                grid,
                float(prepared_row["position_mm"]),
                order=0,
            )
            return labels, grid
        if section not in self.plane_files:
            return None
        row = self.plane_files[section]
        labels = self._read(prepared_row, row.mri_labels)
        if labels is None:
            return None
        return labels, geometry.PlaneGrid(labels.shape, float(row.pixel_size_mm))


def on_grid_of_plane(
    labels: np.ndarray, labels_grid: geometry.PlaneGrid, grid: geometry.PlaneGrid
) -> np.ndarray:
    """Labels of a plane on another grid of it, (rows, columns), by area."""
    return area_vote(labels, geometry.scaling(grid.spacing_mm / labels_grid.spacing_mm), grid.shape)


def read_label_volume(path: Path) -> Volume:
    """Labels of a 3D MRI as int32.

    Raises
    ------
    ImageError
        Not readable, or not whole numbers.
    """
    volume = read_volume(path)
    rounded = np.rint(volume.data)
    if not np.array_equal(rounded, volume.data):
        raise ImageError(f"{path}: expected whole numbers as labels, found fractions")
    return Volume(rounded.astype(np.int32), volume.world_from_voxel)


def _label_grid(
    plane: Mapping[str, Any], mri: Volume, stack_from_world: np.ndarray
) -> geometry.PlaneGrid:
    """The plane's grid as fine as the MRI labels are, whatever resolution training worked at."""
    working = geometry.PlaneGrid(
        (int(plane["rows"]), int(plane["columns"])), float(plane["spacing_mm"])
    )
    scale = geometry.similarity_scale(stack_from_world)
    return working.at_spacing(float(mri.spacing_mm.min()) * scale)
