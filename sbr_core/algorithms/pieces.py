"""Several sections in one picture: which pieces of tissue are one section, and where each lies.

A section may be of several pieces (hemispheres, temporal lobes), and sections on a slide lie
farther apart than the pieces of one. So pieces are joined over gaps, from the narrowest on, until
only gaps are left that are clearly wider than those that were closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import minimum_spanning_tree

_WHOLE = 0.08
"""A piece with less than this share of the largest one's area belongs to the nearest larger one."""
_CLEARLY_WIDER = 2.0
"""Between two sections lies a gap that is wider than those within them by this factor."""
_LEAST_GAP = 0.02
"""A gap narrower than this share of the pieces' mean extent lies within a section."""
_ALIKE_SIZE = 2.5
"""Sections of one picture differ in area by this factor at most, when their number is not given."""
_SAME_SHAPE = 0.6
"""Overlap (intersection over union) of two sections of the same brain laid on each other."""
_MIRRORED = 0.02
"""Halves of one section overlap so much better when one is mirrored."""
_LOOKED_AT, _MANY = 24, 0.4
"""How many sections of a stack are looked at, about, and the share of them that makes a doubt:
single ones, as frontal poles of two round halves, seem to be several as well."""
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True, eq=False)
class Piece:
    """The tissue of one section.

    Attributes
    ----------
    mask : (rows, columns) bool, of the whole picture.
    """

    mask: np.ndarray

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """First row, first column, and the row and column behind the last."""
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def find_sections(tissue: np.ndarray, count: int | None = None) -> list[Piece]:
    """The sections of a picture, from the upper left, line by line.

    Parameters
    ----------
    tissue : (rows, columns) bool.
    count : how many there are, if that is known.

    Returns
    -------
    one for a picture of one section, none without tissue; fewer than `count` where the tissue has
    fewer pieces.
    """
    labels, n_pieces = ndimage.label(tissue, _EIGHT)
    if n_pieces == 0:
        return []
    area_px = np.bincount(labels.ravel(), minlength=n_pieces + 1)
    area_px[0] = 0
    whole = np.flatnonzero(area_px >= _WHOLE * area_px.max())
    whole = whole[np.argsort(-area_px[whole])][:64]
    gap_px, nearest = _gaps(labels, whole)
    section_of_whole = _joined(gap_px, area_px[whole], count)
    section_of = np.zeros(n_pieces + 1, int)
    section_of[whole] = section_of_whole + 1
    for piece in range(1, n_pieces + 1):
        if section_of[piece] == 0:
            section_of[piece] = section_of_whole[nearest[piece]] + 1
    sections = section_of[labels]
    pieces = in_reading_order([Piece(sections == n) for n in range(1, section_of.max() + 1)])
    return pieces if count is not None else in_reading_order(_with_halves_joined(pieces))


def _with_halves_joined(pieces: list[Piece]) -> list[Piece]:
    """Pairs of pieces that are mirror images joined to one section, where all pieces are such."""
    if len(pieces) % 2:
        return pieces
    middles = np.array([ndimage.center_of_mass(piece.mask) for piece in pieces])
    apart = np.linalg.norm(middles[:, None] - middles[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    partner = apart.argmin(axis=1)
    if np.any(partner[partner] != np.arange(len(pieces))):
        return pieces
    pairs = [(i, int(j)) for i, j in enumerate(partner) if i < j]
    shapes = [_upright(piece) for piece in pieces]
    is_mirrored = [
        (mirrored := _overlap(shapes[i], shapes[j][:, ::-1])) > _SAME_SHAPE
        and mirrored > _overlap(shapes[i], shapes[j]) + _MIRRORED
        for i, j in pairs
    ]
    # where some are too round to tell, the others do
    if sum(is_mirrored) * 2 <= len(pairs):
        return pieces
    return [Piece(pieces[i].mask | pieces[j].mask) for i, j in pairs]


def _gaps(labels: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(gaps between the large pieces (n, n), px; the large piece nearest to each label)."""
    gap_px = np.zeros((len(whole), len(whole)))
    every = np.arange(labels.max() + 1)
    to_large = np.zeros((len(whole), len(every)))
    for i, piece in enumerate(whole):
        away = ndimage.distance_transform_edt(labels != piece)
        to_large[i] = ndimage.minimum(away, labels, every)
        gap_px[i] = to_large[i, whole]
    return np.maximum(gap_px, gap_px.T), to_large.argmin(axis=0)


def _joined(gap_px: np.ndarray, area_px: np.ndarray, count: int | None) -> np.ndarray:
    """Number of the section that each large piece belongs to, from 0."""
    n = len(area_px)
    if n == 1:
        return np.zeros(1, int)
    tree = minimum_spanning_tree(gap_px).tocoo()
    order = np.argsort(tree.data, kind="stable")
    edges = [(tree.data[i], int(tree.row[i]), int(tree.col[i])) for i in order]
    if count is not None:
        return _components(n, edges[: max(0, n - count)])
    extent_px = float(np.sqrt(area_px).mean())
    widths = np.array([width for width, _, _ in edges])
    closed = int(np.count_nonzero(widths < _LEAST_GAP * extent_px))
    best: np.ndarray | None = None
    for n_closed in range(closed, len(edges)):
        inside = widths[n_closed - 1] if n_closed else 0.0
        if widths[n_closed] < _CLEARLY_WIDER * max(inside, _LEAST_GAP * extent_px / 2):
            continue
        sections = _components(n, edges[:n_closed])
        areas = np.bincount(sections, area_px)
        if areas.max() <= _ALIKE_SIZE * areas.min():
            best = sections  # the fewest sections for which it holds
    return np.zeros(n, int) if best is None else best


def _components(n: int, edges: Sequence[tuple[float, int, int]]) -> np.ndarray:
    """(n,) number of the connected part that each of n nodes is in, from 0."""
    part = np.arange(n)
    for _, a, b in edges:
        part[part == part[b]] = part[a]
    return np.unique(part, return_inverse=True)[1]


def in_reading_order(pieces: Sequence[Piece]) -> list[Piece]:
    """From the upper left: lines from the top, within each from the left.

    Pieces are in one line if the middle of each is within the height of the first.
    """
    left = sorted(pieces, key=lambda piece: piece.bounds[0] + piece.bounds[2])
    ordered: list[Piece] = []
    while left:
        last = left[0].bounds[2]
        line = [p for p in left if (p.bounds[0] + p.bounds[2]) / 2 <= last]
        ordered += sorted(line, key=lambda piece: piece.bounds[1] + piece.bounds[3])
        left = [p for p in left if not any(p is other for other in line)]
    return ordered


def shows_several(tissue: np.ndarray) -> int:
    """How many sections of like size and shape a picture shows; 1 where nothing speaks for more."""
    pieces = find_sections(tissue)
    shapes = [_upright(piece) for piece in pieces]
    is_alike = [_overlap(a, b) >= _SAME_SHAPE for a, b in pairwise(shapes)]
    return len(pieces) if pieces and all(is_alike) else 1


def doubt_of_pictures(tissue: Sequence[np.ndarray]) -> str:
    """Whether the pictures of a stack show several sections each, in words; "" where they do not.

    Parameters
    ----------
    tissue : (rows, columns) bool of each section; of a long stack some are looked at.
    """
    looked = tissue[:: max(1, len(tissue) // _LOOKED_AT)]
    n_several = sum(shows_several(mask) > 1 for mask in looked)
    if n_several < _MANY * len(looked):
        return ""
    return (
        f"{n_several} of {len(looked)} pictures show several pieces of tissue of like size and"
        " shape: a picture of several sections needs a row with box_px for each, which"
        " `sbr manifest --split` writes"
    )


def _upright(piece: Piece, side: int = 64) -> np.ndarray:
    """(side, side) mask of a piece about its middle, scaled to one area."""
    rows, columns = np.nonzero(piece.mask)
    scale = np.sqrt(rows.size) / (0.45 * side)
    at = (np.mgrid[:side, :side] - (side - 1) / 2) * scale
    at += np.array([rows.mean(), columns.mean()])[:, None, None]
    return ndimage.map_coordinates(piece.mask.astype(np.float32), at, order=1) > 0.5


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union, the best of small turns."""
    best = 0.0
    for turn_deg in (-20, -10, 0, 10, 20):
        turned = ndimage.rotate(other.astype(np.float32), turn_deg, reshape=False, order=1) > 0.5
        best = max(best, np.count_nonzero(one & turned) / max(1, np.count_nonzero(one | turned)))
    return float(best)
