"""The plane of a section as QuickNII's anchoring, and what bends in it as VisuAlign's markers.

Both programs count from outer edges: an image of w by h pixels reaches from (0, 0), its upper left
corner, to (w, h), and voxel (i, j, k) of the volume from (i, j, k) to (i + 1, j + 1, k + 1). Point
(x, y) of the image lies at ``o + u * x / w + v * y / h`` of the volume: Tevemadar/VisuAlign,
slicer/Int32Slices.java, which rounds voxels down; NITRC's wiki of QuickNII, Image_coordinates.

VisuAlign makes v perpendicular to u when it opens a series (data/Slice.java, orthonormalize), so
they are that from the start, and markers contain the shear. A marker ``[x, y, nx, ny]`` says that
what the image shows at (nx, ny) belongs to (x, y) of the plane; points between markers are mapped
linearly in the triangles of their Delaunay triangulation over (nx, ny), with corners a tenth of
the image outside of it that stay (data/Slice.java, triangulate).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_N_SIDES = 12
"""Of the polygon of markers around the tissue."""
_MARGIN = 0.1
"""How far VisuAlign's own corners lie outside of the image, in widths and heights."""
_PER_ROUND = 6
"""Markers that are added at once."""


@dataclass(frozen=True)
class Anchoring:
    """Where the upper left corner and the edges of an image lie, in voxels of a volume.

    Attributes
    ----------
    o, u, v : (3,) the corner, and the vectors along its upper and its left edge; u and v are
        perpendicular in voxels.
    size : (width, height) of the image, px.
    """

    o: np.ndarray
    u: np.ndarray
    v: np.ndarray
    size: tuple[float, float]

    def from_volume(self, points_voxel: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the volume, dropped onto the plane, to px of the image (..., 2)."""
        behind = np.asarray(points_voxel, float) - self.o
        share = np.stack([behind @ edge / (edge @ edge) for edge in (self.u, self.v)], axis=-1)
        return share * self.size

    def off_plane(self, points_voxel: np.ndarray) -> np.ndarray:
        """(...) distance of points (..., 3) of the volume from the plane, voxels."""
        normal = np.cross(self.u, self.v)
        return np.abs((np.asarray(points_voxel) - self.o) @ (normal / np.linalg.norm(normal)))

    def numbers(self) -> list[float]:
        """ox, oy, oz, ux, uy, uz, vx, vy, vz."""
        return [float(x) for x in (*self.o, *self.u, *self.v)]


def fit_anchoring(
    points_px: np.ndarray, points_voxel: np.ndarray, size: tuple[float, float]
) -> Anchoring:
    """The anchoring that brings points of an image nearest to where they lie in the volume.

    Parameters
    ----------
    points_px : (n, 2) from the corner of the image, at least three that are not on a line.
    points_voxel : (n, 3) the same points, from the corner of the volume.
    """
    share = points_px / np.asarray(size)
    middle_2d, middle_3d = share.mean(axis=0), points_voxel.mean(axis=0)
    spread = share - middle_2d
    covariance = spread.T @ spread / len(share)
    # (3, 2): the edges, as free as an affine is
    edges = np.linalg.lstsq(spread, points_voxel - middle_3d, rcond=None)[0].T
    length = np.linalg.norm(edges, axis=0)
    for _ in range(200):
        # the directions that fit these lengths best, then the lengths that fit these directions
        left, _, right = np.linalg.svd(edges @ covariance * length, full_matrices=False)
        directions = left @ right
        before = length
        length = np.diag(directions.T @ edges @ covariance) / np.diag(covariance)
        if np.allclose(length, before, rtol=1e-13, atol=0.0):
            break
    u, v = (directions * length).T
    return Anchoring(middle_3d - middle_2d @ np.stack([u, v]), u, v, size)


@dataclass(frozen=True)
class Markers:
    """What VisuAlign bends a plane by.

    Attributes
    ----------
    pairs : (n, 4) x, y of the plane and nx, ny of the image, px from the corner of the image.
    left_px : (m) how far off the tissue's points still are.
    """

    pairs: np.ndarray
    left_px: np.ndarray


def fit_markers(
    points_px: np.ndarray,
    flatten: Callable[[np.ndarray], np.ndarray],
    size: tuple[float, float],
    *,
    within_px: float,
    most: int,
) -> Markers:
    """Markers where they are needed, until all points are right or there are enough of them.

    Parameters
    ----------
    points_px : (m, 2) of the tissue, from the corner of the image; in no regular grid, since
        triangulations of one are not unique.
    flatten : the mapping that markers imitate, image px (n, 2) to plane px (n, 2).
    size : (width, height), px.
    within_px : how near is right.
    most : number of markers.
    """
    flat_px = flatten(points_px)
    left_px = np.linalg.norm(flat_px - points_px, axis=-1)
    none = np.zeros((0, 4))
    if most < 1 or left_px.max() <= within_px:
        return Markers(none, left_px)
    around = _polygon(points_px, size)
    pairs = np.hstack([flatten(around), around])[:most]
    # VisuAlign looks the plane up without a look at its edge
    pairs = pairs[np.all((pairs[:, :2] > 0) & (pairs[:, :2] < size), axis=-1)]
    allowed = np.all((flat_px > 0) & (flat_px < size), axis=-1)
    apart_px = 0.02 * max(size)
    while True:
        left_px = np.linalg.norm(bent(pairs, points_px, size) - flat_px, axis=-1)
        worst = np.argsort(np.where(allowed, -left_px, 0.0))
        added: list[np.ndarray] = []
        for number in worst[: 50 * _PER_ROUND]:
            enough = len(added) >= min(_PER_ROUND, most - len(pairs))
            if enough or left_px[number] <= within_px or not allowed[number]:
                break
            others = np.vstack([pairs[:, 2:], *[p[None, 2:] for p in added]])
            if np.linalg.norm(others - points_px[number], axis=-1).min(initial=np.inf) > apart_px:
                added.append(np.hstack([flat_px[number], points_px[number]]))
        if not added:
            return Markers(pairs, left_px)
        pairs = np.vstack([pairs, added])


def bent(pairs: np.ndarray, points_px: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Points (m, 2) of the image to the plane (m, 2), as VisuAlign maps them by its markers."""
    from scipy.interpolate import LinearNDInterpolator

    low, high = -_MARGIN * np.asarray(size), (1 + _MARGIN) * np.asarray(size)
    corners = np.array([low, [high[0], low[1]], [low[0], high[1]], high])
    into = np.vstack([corners, pairs[:, :2]])
    return LinearNDInterpolator(np.vstack([corners, pairs[:, 2:]]), into)(points_px)


def _polygon(points_px: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """(n, 2): a polygon a little wider than points, within the image."""
    angle = 2 * np.pi * (np.arange(_N_SIDES) + 0.25) / _N_SIDES
    middle = points_px.mean(axis=0)
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    reach = 1.02 * np.max((points_px - middle) @ normal.T, axis=0)
    corners = [
        middle + np.linalg.solve(normal[[i - 1, i]], reach[[i - 1, i]]) for i in range(_N_SIDES)
    ]
    return np.clip(corners, 0.5, np.asarray(size) - 0.5)
