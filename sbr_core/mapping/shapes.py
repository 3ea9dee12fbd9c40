"""Outlines, lines and points of GeoJSON from one space of a brain to another.

A straight edge bends where the deformation does. So edges are divided before they go through it,
into pieces no longer than a pixel of the working grid, on which the deformation is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import shapely

from sbr_core.errors import ManifestError
from sbr_core.io.geojson import Shapes
from sbr_core.mapping.brain import Section
from sbr_core.mapping.points import Route
from sbr_core.mapping.volume_grids import VolumeGrid


def map_shapes(route: Route, shapes: Shapes, *, mend: bool = False) -> tuple[Shapes, int]:
    """Shapes in the target of a route.

    On a section or a plane coordinates are px from the upper left corner of its image; in the
    stack and the MRI (x, y, z) mm, in RAS of the MRI.

    Parameters
    ----------
    mend : make outlines valid that cross themselves, instead of refusing them.

    Returns
    -------
    shapes : geometries None where a feature is too far from the plane of the target, or where
        there is no way to the atlas.
    n_lost : how many features these are.

    Raises
    ------
    ManifestError
        An outline crosses itself; naming file and feature.
    """
    source, target = route.source, route.target
    geometries = shapes.geometries
    far = np.zeros(len(geometries), bool)
    if source.n_axes == 2:
        section = route.brain.section(source.section)
        geometries = shapes_on_plane(route, shapes, mend=mend)
        if target.n_axes == 3 or target.section != source.section:
            stack = shapely.force_3d(geometries, section.position_mm)
    else:
        stack = shapely.transform(
            geometries, lambda mm: route.brain.to_stack(source, mm), include_z=True
        )
    if target.n_axes == 3:
        mapped = shapely.transform(
            stack, lambda mm: route.brain.from_stack(target, mm)[0], include_z=True
        )
        points_mm, owners = shapely.get_coordinates(mapped, include_z=True, return_index=True)
        lost = np.bincount(owners, np.isnan(points_mm).any(axis=1), len(mapped)) > 0
        mapped[lost] = None  # where the way to the atlas has no inverse
        return replace(shapes, geometries=mapped), _n_features(shapes, lost)
    section = route.brain.section(target.section)
    if source.n_axes == 3 or target.section != source.section:
        far = _far(section, stack, route.within_mm)
        geometries = shapely.force_2d(stack)
        if source.n_axes == 3:
            geometries = _valid(shapes, geometries, mend, ~far)
    geometries = _from_plane(route, section, geometries)
    geometries[far] = None
    return replace(shapes, geometries=geometries), _n_features(shapes, far)


def _n_features(shapes: Shapes, which: np.ndarray) -> int:
    """How many features these geometries (n,) are of."""
    return int(np.unique(shapes.owners[which]).size)


def shapes_on_plane(route: Route, shapes: Shapes, *, mend: bool = False) -> np.ndarray:
    """Geometries (n,) of a section or a plane, in plane mm; otherwise as `map_shapes`."""
    section = route.brain.section(route.source.section)
    geometries = _valid(shapes, shapely.force_2d(shapes.geometries), mend)
    return _to_plane(route, section, geometries)


def label_voxels(
    route: Route, geometries: np.ndarray, ids: np.ndarray, grid: VolumeGrid, out: np.ndarray
) -> Iterator[tuple[float, int]]:
    """Give the voxels around a section the ids of the outlines that they lie in.

    Where several do, the later one counts, as it is drawn over the others. Yields the share
    that is done, and how many voxels of the layer got an id.

    Parameters
    ----------
    geometries : (n,) in plane mm, of `shapes_on_plane`.
    ids : (n,) of their regions.
    out : [i, j, k] volume on the grid.
    """
    section = route.brain.section(route.source.section)
    tree = shapely.STRtree(geometries)
    for share, voxels in grid.layers():
        plane_mm, _ = section.dropped(grid.stack_mm(voxels), route.within_mm)
        near = np.flatnonzero(np.isfinite(plane_mm[:, 0]))
        hit = near[:0]
        if near.size:
            point, outline = tree.query(shapely.points(plane_mm[near]), predicate="within")
            last = np.full(len(near), -1)
            np.maximum.at(last, point, outline)
            hit = near[last >= 0]
            i, j, k = voxels[hit].T
            out[i, j, k] = ids[last[last >= 0]]
        yield share, hit.size


def _to_plane(route: Route, section: Section, geometries: np.ndarray) -> np.ndarray:
    """Valid geometries in px of the source, from its corner, as valid ones in plane mm."""
    pixel_size_mm = route.pixel_size_mm(route.source)
    is_section = route.source.kind == "section"

    def mapped(corner_px: np.ndarray) -> np.ndarray:
        points_mm = route.centre_px(corner_px, from_corner=True) * pixel_size_mm
        return section.plane_from_section.map(points_mm) if is_section else points_mm

    longest_px = section.grid.spacing_mm / pixel_size_mm / route.scale
    return _through(mapped, geometries, longest_px if is_section else None)


def _from_plane(route: Route, section: Section, geometries: np.ndarray) -> np.ndarray:
    """Valid geometries in plane mm as valid ones in px of the target, from its corner."""
    pixel_size_mm = route.pixel_size_mm(route.target)
    is_section = route.target.kind == "section"

    def mapped(plane_mm: np.ndarray) -> np.ndarray:
        points_mm = section.section_from_plane.map(plane_mm) if is_section else plane_mm
        return points_mm / pixel_size_mm + 0.5

    return _through(mapped, geometries, section.grid.spacing_mm if is_section else None)


def _through(mapped, geometries: np.ndarray, longest: float | None) -> np.ndarray:
    """Geometries with their points mapped, edges divided before; valid where they were.

    Where the outline of a shape thinner than the pieces crosses itself afterwards, it is mended.
    """
    if longest is not None:
        geometries = shapely.segmentize(geometries, longest)
    geometries = shapely.transform(geometries, mapped)
    return _mended(geometries, ~shapely.is_valid(geometries))


def _valid(
    shapes: Shapes, geometries: np.ndarray, mend: bool, which: np.ndarray | None = None
) -> np.ndarray:
    """Geometries, mended where asked; ManifestError of the first that is not valid otherwise.

    Parameters
    ----------
    which : (n,) bool, those that are looked at; None for all.
    """
    bad = ~shapely.is_valid(geometries) & (True if which is None else which)
    if bad.any() and not mend:
        first = int(np.flatnonzero(bad)[0])
        more = f" ({bad.sum()} such outlines)" if bad.sum() > 1 else ""
        raise ManifestError(
            f"{shapes.where(first)}: not a valid outline:"
            f" {shapely.is_valid_reason(geometries[first])}{more}; mend it, or have it mended by"
            " --mend"
        )
    return _mended(geometries, bad)


def _mended(geometries: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Geometries, those of `which` made valid: without what collapsed to lines."""
    geometries = geometries.copy()
    if which.any():
        geometries[which] = shapely.make_valid(
            geometries[which], method="structure", keep_collapsed=False
        )
    return geometries


def _far(section: Section, stack: np.ndarray, within_mm: float | None) -> np.ndarray:
    """(n,) bool: which geometries, stack mm, have a point that is too far from a section."""
    points_mm, owners = shapely.get_coordinates(stack, include_z=True, return_index=True)
    is_far = np.isnan(section.dropped(points_mm, within_mm).points[:, 0])
    return np.bincount(owners, weights=is_far, minlength=len(stack)) > 0
