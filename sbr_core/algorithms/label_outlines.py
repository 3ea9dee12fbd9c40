"""Labels as polygons: outlines on the edges of pixels, with holes, valid, memory for the edges.

Every edge between two pixels with different labels belongs to the outline of each of them, with
its inside on the right (rows go down). Straight edges are joined, each is followed to the next one
of the same label, turning right where there is a choice, so that pixels which touch at a corner
only are not joined; what still touches itself at a corner is cut there. So every ring is simple,
and of the pixels of one label that are joined by their sides the outermost ring is the shell, the
others are its holes.

What is simplified is cut into arcs where three labels meet, and each arc is simplified by itself,
in the same way for both its sides, so that neighbours stay neighbours (as in topological vector
formats). Where such outlines cross each other, they are simplified less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import shapely

_STRIP_PIXELS = 1 << 24
"""Of an image that are looked at at once."""
_WITH_LESS = (0.5, 0.5, 0.5, 0.0)
"""Parts of the tolerance with which outlines that cross each other are tried again; all of a label
at the end with none."""


@dataclass(frozen=True)
class _Runs:
    """Straight pieces of outlines, inside on the right.

    Attributes
    ----------
    label, other : (n,) of the pixels inside, and of those outside.
    way : (n,) 0 to 3: right, down, left, up.
    line : (n,) the row (right, left) or column (down, up) that it runs along.
    low, high : (n,) where it lies along that, low < high.
    """

    label: np.ndarray
    other: np.ndarray
    way: np.ndarray
    line: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.way)

    @classmethod
    def joined(cls, parts: Iterable[_Runs]) -> _Runs:
        """Those of all parts, those in line with each other as one."""
        every = [np.concatenate(arrays) for arrays in zip(*map(cls._arrays, parts), strict=True)]
        label, other, way, line, low, high = every
        order = np.lexsort((low, line, other, way, label))
        label, other, way, line, low, high = (array[order] for array in every)
        same = np.ones(max(len(way) - 1, 0), bool)
        for array in (label, other, way, line):
            same &= array[1:] == array[:-1]
        starts = np.flatnonzero(np.r_[True, ~(same & (low[1:] == high[:-1]))][: len(way)])
        ends = np.r_[starts[1:], len(way)][: len(starts)] - 1
        return cls(label[starts], other[starts], way[starts], line[starts], low[starts], high[ends])

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.label, self.other, self.way, self.line, self.low, self.high

    def vertices(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, 2) each, (x, y) where they begin and where they end."""
        forward = self.way < 2
        first, last = np.where(forward, self.low, self.high), np.where(forward, self.high, self.low)
        across = self.way % 2 == 0
        begin = np.stack([np.where(across, first, self.line), np.where(across, self.line, first)])
        end = np.stack([np.where(across, last, self.line), np.where(across, self.line, last)])
        return begin.T, end.T


def outlines_of_labels(
    labels: np.ndarray, tolerance: float = 0.0
) -> dict[int, shapely.MultiPolygon]:
    """The pixels of each label but 0 as polygons.

    Parameters
    ----------
    labels : (rows, columns) of integers; it may lie on disk, and is read once, strip by strip.
    tolerance : how far simplified outlines may lie from those of the pixels, in pixels; 0 leaves
        them on the edges of these.

    Returns
    -------
    label -> its polygons, in order of labels, in (x, y) pixels from the upper left corner of the
    image. All are valid; without a tolerance their areas are the numbers of pixels.
    """
    runs = _Runs.joined([_no_runs(labels.dtype), *_strips(labels)])
    begin, end = runs.vertices()
    is_node = _nodes(runs, begin, end) if tolerance > 0 else None
    rings_of: dict[int, list[_Ring]] = {}
    for chain in _chains(runs, begin, end):
        ring = _Ring(begin[chain], None if is_node is None else is_node[chain])
        rings_of.setdefault(int(runs.label[chain[0]]), []).append(ring)
    return {label: _polygons(rings_of[label], tolerance) for label in sorted(rings_of)}


@dataclass(frozen=True)
class _Ring:
    """A simple ring of the outline of a label.

    Attributes
    ----------
    points : (n, 2) (x, y), where one of its runs ends and the next begins.
    is_node : (n,) bool, at which of them more than two edges meet; None if it is not asked for.
    """

    points: np.ndarray
    is_node: np.ndarray | None

    @cached_property
    def corners(self) -> np.ndarray:
        """The points without those at which it goes straight on."""
        before = self.points - np.roll(self.points, 1, axis=0)
        behind = np.roll(before, -1, axis=0)
        return self.points[before[:, 0] * behind[:, 1] != before[:, 1] * behind[:, 0]]

    @cached_property
    def twice_area(self) -> float:
        """Above 0 of a shell, below of a hole."""
        return _twice_area(self.points)

    def simplified(self, tolerance: float) -> np.ndarray:
        """(m, 2) points; the corners where nothing would be left of the ring."""
        if tolerance <= 0:
            return self.corners
        points, nodes = self.points, np.flatnonzero(self.is_node)
        # without any it begins where the ring of the other side does
        first = nodes[0] if nodes.size else np.lexsort(points.T)[0]
        points, nodes = np.roll(points, -first, axis=0), nodes - first if nodes.size else [0]
        closed = np.vstack([points, points[:1]])
        pieces = []
        for low, high in pairwise([*nodes, len(points)]):
            arc = closed[low : high + 1]
            ends = tuple(arc[0]), tuple(arc[-1])
            is_backward = ends[0] > ends[1] or (ends[0] == ends[1] and _twice_area(arc[:-1]) < 0)
            line = shapely.linestrings(arc[::-1] if is_backward else arc)
            arc = shapely.get_coordinates(
                shapely.simplify(line, tolerance, preserve_topology=False)
            )
            pieces.append((arc[::-1] if is_backward else arc)[:-1])
        shown = np.vstack(pieces)
        keeps_its_side = len(shown) > 2 and _twice_area(shown) * self.twice_area > 0
        return shown if keeps_its_side else self.corners


def _no_runs(dtype: np.dtype) -> _Runs:
    none = np.zeros(0, np.int32)
    return _Runs(none.astype(dtype), none.astype(dtype), none.astype(np.int8), none, none, none)


def _strips(labels: np.ndarray) -> Iterator[_Runs]:
    """The runs of some rows at a time."""
    rows, columns = labels.shape
    n = max(1, _STRIP_PIXELS // max(columns, 1))
    for top in range(0, rows, n):
        bottom = min(rows, top + n)
        # with a margin of one pixel, of the label 0 outside of the image
        part = np.zeros((bottom - top + 2, columns + 2), labels.dtype)
        first, last = max(top - 1, 0), min(bottom + 1, rows)
        part[first - top + 1 : last - top + 1, 1:-1] = labels[first:last]
        yield _runs_of(part, top)


def _runs_of(part: np.ndarray, top: int) -> _Runs:
    """The runs around the pixels of a strip with a margin, whose first row is `top`."""
    inner = part[1:-1, 1:-1]
    found = []
    neighbours = (part[:-2, 1:-1], part[1:-1, 2:], part[2:, 1:-1], part[1:-1, :-2])
    for way, outer in enumerate(neighbours):  # of upper, right, lower and left edges
        row, column = np.nonzero((inner != outer) & (inner != 0))
        label, other = inner[row, column], outer[row, column]
        row, column = row.astype(np.int32) + np.int32(top), column.astype(np.int32)
        along, line = (column, row) if way % 2 == 0 else (row, column)
        line = line + np.int32(way in (1, 2))
        ways = np.full(len(row), way, np.int8)
        found.append(_Runs.joined([_Runs(label, other, ways, line, along, along + np.int32(1))]))
    return _Runs.joined(found)


def _chains(runs: _Runs, begin: np.ndarray, end: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers of the runs of each simple ring, in order."""
    if not len(runs):
        return
    width = int(begin[:, 0].max()) + 2
    _, label = np.unique(runs.label, return_inverse=True)

    def key(vertex: np.ndarray, way: np.ndarray) -> np.ndarray:
        place = vertex[:, 1].astype(np.int64) * width + vertex[:, 0]
        return (label * ((int(begin[:, 1].max()) + 2) * width) + place) * 4 + way

    keys = key(begin, runs.way)
    order = np.argsort(keys)
    keys = keys[order]
    following = np.full(len(runs), -1)
    for turn in (1, 0, 3):  # right, straight on, left
        wanted = key(end, (runs.way + turn) % 4)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        take = (following < 0) & (keys[place] == wanted)
        following[take] = order[place[take]]
    # where a ring may touch itself: more than one run of the label begins there
    vertices = keys // 4
    n_here = np.diff(np.r_[np.flatnonzero(np.r_[True, vertices[1:] != vertices[:-1]]), len(keys)])
    shared = np.zeros(len(runs), bool)
    shared[order] = np.repeat(n_here > 1, n_here)
    place_of = begin[:, 1].astype(np.int64) * width + begin[:, 0]
    following, shared, place_of = following.tolist(), shared.tolist(), place_of.tolist()
    done = bytearray(len(runs))
    for first in range(len(runs)):
        if done[first]:
            continue
        path: list[int] = []
        at: dict[int, int] = {}  # shared vertex -> where in the path it is
        run = first
        while not done[run]:
            done[run] = 1
            if shared[run]:
                vertex = place_of[run]
                if vertex in at:
                    cut = at[vertex]
                    yield np.array(path[cut:])
                    for left in path[cut:]:
                        at.pop(place_of[left], None)
                    del path[cut:]
                at[vertex] = len(path)
            path.append(run)
            run = following[run]
        yield np.array(path)


def _nodes(runs: _Runs, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(n,) bool: whether more than two edges meet where a run begins."""
    if not len(runs):
        return np.zeros(0, bool)
    width = int(begin[:, 0].max()) + 2
    places = [vertex[:, 1].astype(np.int64) * width + vertex[:, 0] for vertex in (begin, end)]
    # the same edge is a run of both its sides
    edges = np.unique(np.r_[places[0] * 4 + runs.way, places[1] * 4 + (runs.way + 2) % 4])
    vertices, n_edges = np.unique(edges // 4, return_counts=True)
    return n_edges[np.searchsorted(vertices, places[0])] > 2


def _polygons(rings: list[_Ring], tolerance: float) -> shapely.MultiPolygon:
    """The polygons of one label."""
    owned = _holes_of_shells(rings)
    tolerances = np.full(len(rings), tolerance)
    polygons = np.array([_polygon(rings, tolerances, of_shell) for of_shell in owned])
    # what is simplified may cross itself, or another outline of the label
    for factor in _WITH_LESS:
        crossed = _crossed(polygons) if tolerance > 0 else []
        if factor == 0 and len(crossed):
            crossed = range(len(owned))
        for i in crossed:
            tolerances[owned[i]] *= factor
            polygons[i] = _polygon(rings, tolerances, owned[i])
    return shapely.multipolygons(polygons)


def _holes_of_shells(rings: list[_Ring]) -> list[list[int]]:
    """Numbers of rings: a shell and its holes, for every shell."""
    areas = np.array([ring.twice_area for ring in rings])
    shells, holes = np.flatnonzero(areas > 0), np.flatnonzero(areas < 0)
    owned = [[shell] for shell in shells.tolist()]
    if not holes.size:
        return owned
    outer = shapely.polygons([shapely.linearrings(rings[i].corners) for i in shells])
    # the middle of the pixel on the inner side of the first edge of a hole is of its shell
    middles = shapely.points([_inner_pixel(rings[i].points) for i in holes])
    point, shell = shapely.STRtree(outer).query(middles, predicate="within")
    order = np.lexsort((areas[shells][shell], point))
    point, shell = point[order], shell[order]
    first = np.flatnonzero(np.r_[True, point[1:] != point[:-1]])
    for hole, owner in zip(point[first].tolist(), shell[first].tolist(), strict=True):
        owned[owner].append(int(holes[hole]))
    return owned


def _polygon(rings: list[_Ring], tolerances: np.ndarray, numbers: list[int]) -> shapely.Polygon:
    shell, *holes = (
        shapely.linearrings(rings[i].simplified(float(tolerances[i]))) for i in numbers
    )
    return shapely.polygons(shell, holes or None)


def _crossed(polygons: np.ndarray) -> np.ndarray:
    """Numbers of polygons that are not valid, and, of two that cross each other, of the smaller."""
    valid = shapely.is_valid(polygons)
    if not valid.all():
        return np.flatnonzero(~valid)
    if shapely.multipolygons(polygons).is_valid:
        return np.zeros(0, int)
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    one, other = one[one < other], other[one < other]
    # parts of a label may touch each other in points
    share = ~shapely.touches(polygons[one], polygons[other])
    share |= shapely.get_dimensions(shapely.intersection(polygons[one], polygons[other])) > 0
    one, other = one[share], other[share]
    areas = shapely.area(polygons)
    return np.unique(np.where(areas[one] < areas[other], one, other))


def _inner_pixel(ring: np.ndarray) -> np.ndarray:
    """The middle of the pixel to the right of the first edge of a ring, at its beginning."""
    along = np.sign(ring[1] - ring[0])
    right = np.array([-along[1], along[0]])
    return ring[0] + 0.5 * (along + right)


def _twice_area(ring: np.ndarray) -> float:
    """Of a ring; above 0 where its inside is on the right, as rows go down."""
    x, y = (ring - ring[0]).astype(float).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
