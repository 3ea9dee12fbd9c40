"""Regions in which cells are counted: labels of the MRI or an atlas, or drawn on each section.

Every kind answers the same two questions of a section: in which regions do points lie, and how
large is the tissue of each. Points and areas are looked up in the same way, so that what is counted
and what it is divided by belong together.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import shapely

from sbr_core.algorithms.label_outlines import outlines_of_labels
from sbr_core.artifacts.accuracy import nearest_elements
from sbr_core.artifacts.label_pairs import read_label_volume
from sbr_core.artifacts.names import section_of_name
from sbr_core.errors import ConfigError, ImageError, ManifestError, some_of
from sbr_core.geometry import apply
from sbr_core.io.geojson import is_geojson, read_geojson, region_of
from sbr_core.io.label_tables import NO_NAMES, Label, LabelTable
from sbr_core.io.volumes import Volume
from sbr_core.io.windows import Windows, open_windows
from sbr_core.mapping.brain import Brain, Section
from sbr_core.mapping.points import Route
from sbr_core.mapping.rasters import step_on_section
from sbr_core.mapping.spaces import Space

logger = logging.getLogger(__name__)

NO_REGION = 0
"""Id of what lies in the tissue and in no region, as labels have it."""
_VOLUMES = (".nii", ".nii.gz", ".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd")
_NO_ANNOTATIONS = ("detection", "cell", "tile", "root")
"""Kinds of QuPath's objects that are no regions."""
_POINTS_AT_ONCE = 1 << 19
_READ_SIDE = 4096
"""Of the squares that a label image is read in, px."""


class Regions(Protocol):
    """What `sbr count` counts in.

    Attributes
    ----------
    names : of their ids.
    known : all ids; None where only the files of all sections would tell.
    """

    names: LabelTable
    known: Sequence[int] | None

    def has(self, section: Section) -> bool:
        """Whether there are any for a section."""

    def ids(self, section: Section, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m,) numbers of points (n, 2), px, and the region of each; several where they overlap."""

    def areas_mm2(self, section: Section, tissue: Tissue) -> dict[int, float]:
        """Region -> its tissue on a section; that of `NO_REGION` too."""


@dataclass(frozen=True)
class Tissue:
    """The tissue of a section, in equal squares all over it.

    Attributes
    ----------
    n : squares along a side of a pixel of the mask that `prepare` made.
    """

    section: Section
    n: int

    @classmethod
    def of(cls, section: Section, side_mm: float | None) -> Tissue:
        """With squares of this side, at most, or a quarter of a working pixel."""
        if side_mm is None:
            return cls(section, 4)
        return cls(section, max(1, math.ceil(section.prepared.working_pixel_mm / side_mm - 1e-9)))

    @property
    def square_mm2(self) -> float:
        """Area of a square, on the section."""
        prepared = self.section.prepared
        scale = abs(np.linalg.det(prepared.section_mm_from_working_mm[:2, :2]))
        return float((prepared.working_pixel_mm / self.n) ** 2 * scale)

    @property
    def mm2(self) -> float:
        """All of it."""
        return np.count_nonzero(self.section.tissue) * self.n**2 * self.square_mm2

    def middles_px(self) -> Iterator[np.ndarray]:
        """(m, 2) px of the file, middles of squares, a part of them at a time."""
        prepared = self.section.prepared
        within = (np.arange(self.n) + 0.5) / self.n - 0.5
        down, across = np.meshgrid(within, within, indexing="ij")
        pixels = np.argwhere(self.section.tissue)
        at_once = max(1, _POINTS_AT_ONCE // self.n**2)
        for first in range(0, len(pixels), at_once):
            row, column = pixels[first : first + at_once].T[:, :, None, None]
            working_px = np.stack([column + across, row + down], axis=-1).reshape(-1, 2)
            working_mm = working_px * prepared.working_pixel_mm
            section_mm = apply(prepared.section_mm_from_working_mm, working_mm)
            yield section_mm / self.section.pixel_size_mm

    @cached_property
    def outline(self) -> shapely.MultiPolygon:
        """In px of the file, from its corner."""
        section, prepared = self.section, self.section.prepared
        corner = outlines_of_labels(section.tissue.astype(np.uint8))[1]

        def mapped(working_corner_px: np.ndarray) -> np.ndarray:
            working_mm = (working_corner_px - 0.5) * prepared.working_pixel_mm
            section_mm = apply(prepared.section_mm_from_working_mm, working_mm)
            return section_mm / section.pixel_size_mm + 0.5

        return shapely.transform(corner, mapped)


def regions_of(
    brain: Brain, paths: Sequence[Path], space: str, names: LabelTable, mend: bool
) -> Regions:
    """The regions of some files.

    Parameters
    ----------
    paths : one volume of labels; or GeoJSON or label images of sections, each named after its
        section, or a folder of them.
    space : of a volume: ``mri`` or ``atlas``.
    mend : make outlines valid that cross themselves.

    Raises
    ------
    ConfigError
        Neither of them, or two files for one section.
    ImageError
        A volume that has no labels.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        files += [file for file in inside if not file.name.startswith(".")]
    volumes = [file for file in files if file.name.lower().endswith(_VOLUMES)]
    if volumes and len(files) > 1:
        raise ConfigError(f"--regions: expected one volume alone, found {volumes[0]} and others")
    if volumes:
        brain.check(Space(space))
        volume = read_label_volume(volumes[0])
        for doubt in volume.doubts:
            logger.warning(f"count: WARNING: {volumes[0]}: {doubt}")
        return LabelVolume(Space(space), volume, names)
    of_section: dict[str, Path] = {}
    for file in files:
        section = section_of_name(file, brain.section_ids)
        if section is None and len(files) > 1:
            continue  # what else lies there
        if section is None:
            raise ConfigError(
                f"{file}: of which section? Expected a volume, or files named after their sections,"
                f" such as {brain.section_ids[0]}.geojson"
            )
        if section in of_section:
            raise ConfigError(f"--regions: {of_section[section]} and {file} are both of {section}")
        of_section[section] = file
    if not of_section:
        known = some_of(brain.section_ids)
        raise ConfigError(f"--regions: no file is named after a section; there are {known}")
    drawn = {section: file for section, file in of_section.items() if is_geojson(file)}
    if drawn and len(drawn) < len(of_section):
        raise ConfigError("--regions: expected GeoJSON or label images, found both")
    return Outlines(brain, drawn, mend) if drawn else LabelImages(brain, of_section, names)


@dataclass(frozen=True)
class NoRegions:
    """All tissue is one."""

    names: LabelTable = NO_NAMES
    known: tuple[int, ...] = ()

    def has(self, section: Section) -> bool:
        return True

    def ids(self, section: Section, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(points_px)), np.full(len(points_px), NO_REGION)

    def areas_mm2(self, section: Section, tissue: Tissue) -> dict[int, float]:
        return {NO_REGION: tissue.mm2}


class _Labels:
    """Regions of which every point has one at most."""

    def ids(self, section: Section, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(points_px)), self._look_up(section, points_px)

    def areas_mm2(self, section: Section, tissue: Tissue) -> dict[int, float]:
        areas: Counter = Counter()
        for points_px in tissue.middles_px():
            found, counts = np.unique(self.ids(section, points_px)[1], return_counts=True)
            areas.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        return {label: n * tissue.square_mm2 for label, n in areas.items()}


@dataclass(frozen=True)
class LabelVolume(_Labels):
    """Labels of the MRI or of the atlas."""

    space: Space
    volume: Volume
    names: LabelTable

    def has(self, section: Section) -> bool:
        return True

    @cached_property
    def known(self) -> list[int]:
        """Ids that it has."""
        return [label for label in np.unique(self.volume.data).tolist() if label != NO_REGION]

    def _look_up(self, section: Section, points_px: np.ndarray) -> np.ndarray:
        brain = section.brain
        world_mm, _ = brain.from_stack(self.space, section.to_stack(points_px))
        voxels = apply(np.linalg.inv(self.volume.world_from_voxel), world_mm)
        return nearest_elements(self.volume.data, voxels)


@dataclass(frozen=True)
class LabelImages(_Labels):
    """Label images of sections, of any resolution."""

    brain: Brain
    files: Mapping[str, Path]
    names: LabelTable
    known: None = None

    def has(self, section: Section) -> bool:
        return section.id in self.files

    def _look_up(self, section: Section, points_px: np.ndarray) -> np.ndarray:
        path = self.files[section.id]
        ids = np.zeros(len(points_px), np.int64)
        with open_windows(path, palette_is_labels=True) as windows:
            if windows.channels > 1 or windows.is_colour or windows.dtype.kind not in "uib":
                what = "colours" if windows.is_colour else f"{windows.channels} of {windows.dtype}"
                raise ImageError(f"{path}: expected one plane of integer labels, found {what}")
            space = Space("section", section.id)
            route = Route(self.brain, space, space)
            step = np.array(step_on_section(route, windows.shape, str(path)))
            at = np.floor((points_px + 0.5) / step).astype(int)
            for here, top, left, bottom, right in _squares(at, windows):
                samples = windows.levels[0].read(top, left, bottom, right)
                ids[here] = samples[at[here, 1] - top, at[here, 0] - left, 0]
        return ids


def _squares(at: np.ndarray, windows: Windows) -> Iterator[tuple[np.ndarray, int, int, int, int]]:
    """Numbers of the pixels (n, 2), (column, row), on an image, by squares of it, and the square:
    top, left, bottom and right of what is needed."""
    inside = np.flatnonzero(np.all((at >= 0) & (at < windows.shape[::-1]), axis=1))
    column, row = at[inside].T // _READ_SIDE
    squares = row * (windows.shape[1] // _READ_SIDE + 1) + column
    for square in np.unique(squares):
        here = inside[squares == square]
        left, top = at[here].min(axis=0)
        right, bottom = at[here].max(axis=0) + 1
        yield here, int(top), int(left), int(bottom), int(right)


class Outlines:
    """Annotations in GeoJSON; of one name, or class, is one region, and they may overlap.

    Parameters
    ----------
    files : section -> its file.
    """

    def __init__(self, brain: Brain, files: Mapping[str, Path], mend: bool) -> None:
        found: dict[str, dict[str, list[shapely.Geometry]]] = {}
        colours: dict[str, tuple[int, int, int] | None] = {}
        for section, path in files.items():
            shapes, outlines = read_geojson(path, 2), found.setdefault(section, {})
            for number, (owner, member) in enumerate(
                zip(shapes.owners.tolist(), shapes.members, strict=True)
            ):
                feature, geometry = shapes.features[owner], shapes.geometries[number]
                of_feature = feature.get("properties")
                kind = of_feature.get("objectType") if isinstance(of_feature, dict) else None
                is_area = geometry.geom_type in ("Polygon", "MultiPolygon")
                if member != "geometry" or kind in _NO_ANNOTATIONS or not is_area:
                    continue
                if not geometry.is_valid:
                    if not mend:
                        raise ManifestError(
                            f"{shapes.where(number)}: not a valid outline:"
                            f" {shapely.is_valid_reason(geometry)}; mend it, or have it mended by"
                            " --mend"
                        )
                    geometry = shapely.make_valid(geometry, method="structure")
                name, colour = region_of(feature)
                name = name or "unnamed"
                outlines.setdefault(name, []).append(shapely.force_2d(geometry))
                colours[name] = colours.get(name) or colour
        if not colours:
            raise ManifestError(f"{next(iter(files.values()))}: has no annotation with an area")
        ids = {name: number for number, name in enumerate(sorted(colours), 1)}
        self.known = list(ids.values())
        self.names = LabelTable(None, {i: Label(i, n, colours[n]) for n, i in ids.items()})
        self._of_section = {
            section: (
                np.array([ids[name] for name in outlines], int),
                np.array([shapely.union_all(parts) for parts in outlines.values()], object),
            )
            for section, outlines in found.items()
        }

    def has(self, section: Section) -> bool:
        return section.id in self._of_section

    def ids(self, section: Section, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, outlines = self._of_section[section.id]
        # a tree of the points, so that each outline is looked at once and made ready for many
        tree = shapely.STRtree(shapely.points(points_px + 0.5))
        outline, point = tree.query(outlines, predicate="contains")
        without = np.setdiff1d(np.arange(len(points_px)), point)
        numbers = np.concatenate([point, without])
        return numbers, np.concatenate([ids[outline], np.full(len(without), NO_REGION)])

    def areas_mm2(self, section: Section, tissue: Tissue) -> dict[int, float]:
        ids, outlines = self._of_section[section.id]
        px_mm2, whole = section.pixel_size_mm**2, tissue.outline
        areas = shapely.area(shapely.intersection(outlines, whole)) * px_mm2
        of_any = shapely.intersection(shapely.union_all(outlines), whole).area * px_mm2
        of_each = dict(zip(ids.tolist(), areas.tolist(), strict=True))
        return {**of_each, NO_REGION: max(0.0, whole.area * px_mm2 - of_any)}
