"""The result of a brain, to map points with: `Brain` and its sections.

    from sbr_core import Brain

    brain = Brain("results/demo")
    mri_mm = brain.section("s012").to_mri([[120.0, 85.5]])

Everything goes through the published files, those that `evaluate` measures and that ITK reads, and
each is read when it is first needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sbr_core.algorithms.reassembly import Stack
from sbr_core.artifacts import names
from sbr_core.artifacts.accuracy import nearest_elements
from sbr_core.artifacts.rows import Inferred, Prepared, Row, Trusted, read_rows
from sbr_core.errors import ConfigError, ReceiptError, some_of
from sbr_core.geometry import PlaneGrid, apply
from sbr_core.io.atlas_transforms import AtlasTransform, read_atlas_transform
from sbr_core.io.transforms import (
    SectionTransform,
    read_section_transform,
    read_stack_from_world,
)
from sbr_core.io.volumes import read_plane, read_volume
from sbr_core.mapping.spaces import Space
from sbr_core.methods import METHODS, REGISTRY

BY_DEFAULT = tuple(
    sorted(
        METHODS,
        key=lambda name: (not REGISTRY[name].follows, name != "sbr", -METHODS.index(name)),
    )
)
"""Methods in the order in which the first that is finished is taken where none is named:
`coherent`, `sbr`, other trained ones, then those without training, `linear` at the end."""
_ROUNDING_MM = 1e-9
"""What is further away than a limit by less is within it, however it was rounded."""


class OnPlane(NamedTuple):
    """Points of space, seen from one section.

    Attributes
    ----------
    points : (..., 2); NaN where a point is further from the plane than was asked for.
    distance_to_plane_mm : (...) not negative; in stack mm, as ``through_plane_mm`` of `evaluate`.
    """

    points: np.ndarray
    distance_to_plane_mm: np.ndarray


@dataclass(frozen=True, eq=False)
class Section:
    """A section of a `Brain`.

    Points on it are (column, row) of the stored image file at full resolution, as it is stored
    (before ``flip`` and ``rotate_deg``), with pixel centres at integers. A point outside the image
    is mapped as well.

    Attributes
    ----------
    id : of the manifest.
    reach_mm : how far it stands for the tissue around it, towards lower and towards higher
        positions, stack mm: half the way to its neighbours, as far as `reassemble` fills the
        volume from it where ``max_gap_mm`` is 0.
    """

    brain: Brain
    id: str
    prepared: Prepared
    row: Inferred
    reach_mm: tuple[float, float]

    def __repr__(self) -> str:
        return f"Section({self.id!r}, position_mm={self.position_mm:g})"

    @property
    def position_mm(self) -> float:
        """Along the stack."""
        return self.prepared.position_mm

    @property
    def pixel_size_mm(self) -> float:
        """Side of a pixel of the file."""
        return self.prepared.pixel_size_mm

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the file."""
        return self.prepared.file_shape

    @property
    def grid(self) -> PlaneGrid:
        """The working grid of its MRI plane."""
        return self.row.grid

    @cached_property
    def plane_from_section(self) -> SectionTransform:
        """Section mm to plane mm; ReceiptError where the file is not the one that was written."""
        return read_section_transform(self.row.intact(names.STACK_TO_SECTION))

    @cached_property
    def section_from_plane(self) -> SectionTransform:
        """Plane mm to section mm; errors as of `plane_from_section`."""
        return read_section_transform(self.row.intact(names.SECTION_TO_STACK))

    def to_plane(self, points_px: ArrayLike) -> np.ndarray:
        """Points (..., 2), px of the file, to plane mm."""
        return self.plane_from_section.map(as_points(points_px, 2) * self.pixel_size_mm)

    def from_plane(self, points_mm: ArrayLike) -> np.ndarray:
        """Points (..., 2), plane mm, to px of the file."""
        return self.section_from_plane.map(as_points(points_mm, 2)) / self.pixel_size_mm

    def to_stack(self, points_px: ArrayLike) -> np.ndarray:
        """Points (..., 2), px of the file, to stack mm (..., 3)."""
        return self.lifted(self.to_plane(points_px))

    def to_mri(self, points_px: ArrayLike) -> np.ndarray:
        """Points (..., 2), px of the file, to the MRI: (..., 3) RAS mm.

        Raises
        ------
        ConfigError
            The brain is prealigned and has no 3D MRI.
        """
        return apply(self.brain.mri_from_stack, self.to_stack(points_px))

    def to_atlas(self, points_px: ArrayLike) -> np.ndarray:
        """Points (..., 2), px of the file, to the template: (..., 3) RAS mm.

        Raises
        ------
        ConfigError
            As of `to_mri`, or the brain was made without its `atlas_xfm`.
        """
        return self.brain.atlas.from_mri(self.to_mri(points_px))

    def from_stack(self, points_mm: ArrayLike, within_mm: float | None = None) -> OnPlane:
        """Points (..., 3), stack mm, to px of the file, along the normal of the section.

        Parameters
        ----------
        within_mm : how far from the section a point may be, stack mm (default: as far as the
            section reaches, `reach_mm`).
        """
        plane_mm, distance_mm = self.dropped(points_mm, within_mm)
        return OnPlane(self.from_plane(plane_mm), distance_mm)

    def from_mri(self, points_mm: ArrayLike, within_mm: float | None = None) -> OnPlane:
        """Points (..., 3) of the MRI, RAS mm, to px of the file; otherwise as `from_stack`."""
        return self.from_stack(apply(self.brain.stack_from_mri, as_points(points_mm, 3)), within_mm)

    def lifted(self, plane_mm: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the plane as points (..., 3) of the stack, mm."""
        z_mm = np.full((*plane_mm.shape[:-1], 1), self.position_mm)
        return np.concatenate([plane_mm, z_mm], axis=-1)

    def dropped(self, stack_mm: ArrayLike, within_mm: float | None = None) -> OnPlane:
        """Points (..., 3), stack mm, to plane mm; `within_mm` as of `from_stack`."""
        stack_mm = as_points(stack_mm, 3)
        behind_mm = stack_mm[..., 2] - self.position_mm
        lower, higher = self.reach_mm if within_mm is None else (within_mm, within_mm)
        near = (behind_mm >= -lower - _ROUNDING_MM) & (behind_mm <= higher + _ROUNDING_MM)
        plane_mm = np.where(near[..., None], stack_mm[..., :2], np.nan)
        return OnPlane(plane_mm, np.abs(behind_mm))

    def in_tissue(self, points_px: ArrayLike) -> np.ndarray:
        """(...) bool: which points (..., 2), px of the file, lie in the tissue `prepare` found."""
        section_mm = as_points(points_px, 2) * self.pixel_size_mm
        working_from_section = np.linalg.inv(self.prepared.section_mm_from_working_mm)
        working_px = apply(working_from_section, section_mm) / self.prepared.working_pixel_mm
        return nearest_elements(self.tissue, working_px[..., ::-1])

    def expected_error_mm(self, plane_mm: ArrayLike) -> np.ndarray:
        """(...): the error that `trust` expects where points (..., 2) of the plane lie, mm.

        NaN outside the plane's tissue, and everywhere where nothing was estimated, as in results of
        before there was `trust`.
        """
        plane_mm = as_points(plane_mm, 2)
        if (field := self._errors) is None:
            return np.full(plane_mm.shape[:-1], np.nan)
        errors_mm, size_mm = field
        cells = plane_mm / size_mm - (1 - self.grid.spacing_mm / size_mm) / 2
        found = nearest_elements(errors_mm, cells[..., ::-1])
        return np.where(found > 0, found, np.nan)

    @cached_property
    def _errors(self) -> tuple[np.ndarray, float] | None:
        """The expected error of the plane's cells, mm, and their size, mm."""
        row = self.brain.trusted.get(self.id)
        return read_plane(row.intact(names.ERROR)) if row is not None else None

    @cached_property
    def tissue(self) -> np.ndarray:
        """(rows, columns) bool: the mask that `prepare` made, in its working pixels."""
        return read_plane(self.prepared.intact(names.MASK))[0] > 0


class Brain:
    """The finished result of one brain by one method.

    Iterating over it gives its sections, sorted by position.

    Parameters
    ----------
    results : folder of the brain, ``results/BRAIN``.
    method : folder of a method in it (default: the first of `BY_DEFAULT` that is finished);
        the attribute is the one that was taken.
    atlas_xfm : files of the transform between its MRI and a template, see `read_atlas_transform`.

    Raises
    ------
    ReceiptError
        No such folder, or no finished result of that method in it.

    Examples
    --------
    >>> brain = Brain("results/demo")  # doctest: +SKIP
    >>> brain.section("s012").to_mri([[120.0, 85.5], [121.0, 85.5]])  # doctest: +SKIP
    """

    def __init__(
        self, results: Path | str, method: str | None = None, atlas_xfm: Sequence[Path | str] = ()
    ) -> None:
        self.results = Path(results)
        self._atlas_xfm = tuple(Path(path) for path in atlas_xfm)
        if not self.results.is_dir():
            raise ReceiptError(f"{results}: no such folder; expected results of a brain")
        finished = [name for name in BY_DEFAULT if (self.results / name / names.TABLE).is_file()]
        if method is None and not finished:
            raise ReceiptError(f"{results}: no finished results of any method")
        self.method = finished[0] if method is None else method
        if not self._table.is_file():
            what = f"there are: {', '.join(finished)}" if finished else "of no method are there any"
            raise ReceiptError(f"{results}: no finished results of the method {method!r}; {what}")

    def __repr__(self) -> str:
        return f"Brain({str(self.results)!r}, method={self.method!r})"

    def __iter__(self) -> Iterator[Section]:
        return iter(self._sections.values())

    def __len__(self) -> int:
        return len(self._sections)

    @property
    def section_ids(self) -> tuple[str, ...]:
        """Ids of the sections that were registered, sorted by position."""
        return tuple(self._sections)

    @cached_property
    def known_ids(self) -> frozenset[str]:
        """Ids of all sections, those that failed too."""
        rows = read_rows(self._table, Row, only_ok=False, verify=False)
        return frozenset(row.section for row in rows)

    def section(self, section: str) -> Section:
        """A section by its id.

        Raises
        ------
        ConfigError
            There is none, or it failed.
        """
        if section in self._sections:
            return self._sections[section]
        for row in read_rows(self._table, Row, only_ok=False, verify=False):
            if row.section == section and not row.ok:
                raise ConfigError(f"section {section!r} of {self._table} failed: {row.message}")
        known = some_of(self.section_ids)
        raise ConfigError(f"no section {section!r} in {self._table}; there are {known}")

    @property
    def has_mri(self) -> bool:
        """Whether there is a 3D MRI; a prealigned brain has none."""
        return self._stack_transform.is_file()

    @cached_property
    def stack_from_mri(self) -> np.ndarray:
        """(4, 4), RAS mm of the MRI to stack mm; ConfigError of a prealigned brain."""
        if not self.has_mri:
            raise ConfigError(
                f"{self.results}: has no {self._stack_transform.name}: a prealigned brain has no"
                " 3D MRI; its spaces are section:ID, plane:ID and stack"
            )
        return read_stack_from_world(self._stack_transform)

    @cached_property
    def mri_from_stack(self) -> np.ndarray:
        """(4, 4), stack mm to RAS mm of the MRI; ConfigError of a prealigned brain."""
        return np.linalg.inv(self.stack_from_mri)

    @cached_property
    def atlas(self) -> AtlasTransform:
        """The way between the MRI and a template; ConfigError where none was given."""
        if not self._atlas_xfm:
            raise ConfigError(
                f"{self.results}: the way to the atlas is not known: --atlas-xfm, or the column"
                " atlas_xfm of the sheet of brains, names the transform between MRI and template"
            )
        return read_atlas_transform(self._atlas_xfm)

    def check(self, space: Space) -> None:
        """Refuse a space that there is not: of an unknown section, without an MRI or an atlas.

        Raises
        ------
        ConfigError
        """
        if space.section is not None:
            self.section(space.section)
        if space.kind in ("mri", "atlas"):
            _ = self.stack_from_mri
        if space.kind == "atlas":
            _ = self.atlas

    def to_stack(self, space: Space, points_mm: ArrayLike) -> np.ndarray:
        """Points of a space, mm, to stack mm (..., 3).

        Parameters
        ----------
        space : of a given section, where it is one of the plane.
        points_mm : (..., 2) or (..., 3), as the space has it.
        """
        points_mm = as_points(points_mm, space.n_axes)
        if space.kind == "stack":
            return points_mm
        if space.kind == "atlas":
            points_mm = self.atlas.to_mri(points_mm)
        if space.n_axes == 3:
            return apply(self.stack_from_mri, points_mm)
        section = self.section(space.section)
        if space.kind == "section":
            points_mm = section.plane_from_section.map(points_mm)
        return section.lifted(points_mm)

    def from_stack(
        self, space: Space, stack_mm: ArrayLike, within_mm: float | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Points (..., 3), stack mm, to mm of a space.

        Parameters
        ----------
        within_mm : as of `Section.from_stack`.

        Returns
        -------
        points : (..., 2) or (..., 3), as the space has it; NaN in the atlas where its field of
            displacements has no inverse.
        distance_to_plane_mm : as of `OnPlane`; None of a space of three axes.
        """
        if space.kind == "stack":
            return as_points(stack_mm, 3), None
        if space.n_axes == 3:
            points_mm = apply(self.mri_from_stack, as_points(stack_mm, 3))
            return (self.atlas.from_mri(points_mm) if space.kind == "atlas" else points_mm), None
        section = self.section(space.section)
        points_mm, distance_mm = section.dropped(stack_mm, within_mm)
        if space.kind == "section":
            points_mm = section.section_from_plane.map(points_mm)
        return points_mm, distance_mm

    def nearest(self, stack_mm: ArrayLike) -> np.ndarray:
        """(...) int: numbers in `section_ids` of the sections nearest to stack mm (..., 3)."""
        z_mm = as_points(stack_mm, 3)[..., 2]
        if len(self) == 1:
            return np.zeros(z_mm.shape, int)
        upper = np.clip(np.searchsorted(self._positions_mm, z_mm), 1, len(self) - 1)
        is_lower = z_mm - self._positions_mm[upper - 1] <= self._positions_mm[upper] - z_mm
        return np.where(is_lower, upper - 1, upper)

    def in_brain(self, stack_mm: ArrayLike) -> np.ndarray:
        """(...) bool: which points (..., 3), stack mm, lie in the mask of the MRI."""
        mask, stack_from_voxel = self._mri_mask
        return nearest_elements(
            mask, apply(np.linalg.inv(stack_from_voxel), as_points(stack_mm, 3))
        )

    @cached_property
    def trusted(self) -> dict[str, Trusted]:
        """Section -> how far it can be trusted; empty where nothing was estimated."""
        table = self.results / self.method / names.TRUST / names.TABLE
        rows = read_rows(table, Trusted, verify=False) if table.is_file() else []
        return {row.section: row for row in rows}

    @property
    def _table(self) -> Path:
        return self.results / self.method / names.TABLE

    @property
    def _stack_transform(self) -> Path:
        return self.results / "align" / names.STACK_TRANSFORM

    @cached_property
    def _mri_mask(self) -> tuple[np.ndarray, np.ndarray]:
        """The mask of the MRI, and (4, 4) from its voxels to stack mm."""
        volume = read_volume(self.results / "prepare" / names.MRI_MASK_VOLUME)
        return volume.data > 0, self.stack_from_mri @ volume.world_from_voxel

    @cached_property
    def _sections(self) -> dict[str, Section]:
        """Id -> section, sorted by position."""
        table = self.results / "prepare" / names.TABLE
        prepared = {row.section: row for row in read_rows(table, Prepared, verify=False)}
        rows = read_rows(self._table, Inferred, verify=False)
        if not rows:
            raise ReceiptError(f"{self._table}: no section was registered")
        if lost := [row.section for row in rows if row.section not in prepared]:
            raise ReceiptError(f"{table}: section {lost[0]!r} is not in it")
        rows = sorted(rows, key=lambda row: row.position_mm)
        positions_mm = [row.position_mm for row in rows]
        stack = Stack.of(positions_mm, max_gap_mm=0.0, only_gap_mm=rows[0].grid.spacing_mm)
        reach_mm = zip(stack.reach_before_mm.tolist(), stack.reach_behind_mm.tolist(), strict=True)
        return {
            row.section: Section(self, row.section, prepared[row.section], row, reach)
            for row, reach in zip(rows, reach_mm, strict=True)
        }

    @cached_property
    def _positions_mm(self) -> np.ndarray:
        return np.array([section.position_mm for section in self])


def as_points(points: ArrayLike, n_axes: int) -> np.ndarray:
    """(..., n_axes) float64; ValueError where the last axis has another length."""
    array = np.asarray(points, float)
    if array.ndim < 1 or array.shape[-1] != n_axes:
        raise ValueError(f"expected points of shape (..., {n_axes}), found {array.shape}")
    return array
