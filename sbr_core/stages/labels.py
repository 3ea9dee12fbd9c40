"""Labels of a section beside those of its MRI plane, wherever the user keeps them."""

from __future__ import annotations

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

    Parameters
    ----------
    mri : labels of the 3D MRI, or None.
    stack_from_world : (4, 4); None for a prealigned brain.
    rows : the manifest's rows, whose ``mri_labels`` count where there is no 3D MRI.
    """

    def __init__(
        self,
        mri: Volume | None,
        stack_from_world: np.ndarray | None,
        rows: Sequence[SectionRow] | None,
    ) -> None:
        self.mri, self.stack_from_world = mri, stack_from_world
        self.plane_files = {r.section: r for r in rows or [] if r.mri_labels}

    def of(self, prepared_row: Mapping[str, Any], plane_row: Mapping[str, Any]) -> LabelPair | None:
        """The labels of one section and its plane; None where either has none.

        Parameters
        ----------
        prepared_row, plane_row : of the tables of `prepare` and `resample`.

        Raises
        ------
        ImageError
            Labels that cannot be read, or of another shape than they should be.
        """
        found = self.of_plane(prepared_row, plane_row) if prepared_row.get("labels") else None
        if found is None:
            return None
        return LabelPair(
            read_labels(Path(prepared_row["labels"])), float(prepared_row["pixel_size_mm"]), *found
        )

    def of_plane(
        self, prepared_row: Mapping[str, Any], plane_row: Mapping[str, Any]
    ) -> tuple[np.ndarray, geometry.PlaneGrid] | None:
        """The labels of a section's MRI plane and their grid; None where it has none.

        Parameters and errors as of `of`.
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
        if section in self.plane_files:
            shape = int(prepared_row["file_rows"]), int(prepared_row["file_columns"])
            labels = read_labels(Path(self.plane_files[section].mri_labels), shape)
            pixel_mm = float(self.plane_files[section].pixel_size_mm)
            return labels, geometry.PlaneGrid(labels.shape, pixel_mm)
        return None


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
