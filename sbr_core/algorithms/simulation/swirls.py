"""Deformations that are known exactly: compositions of swirls.

A *swirl* turns and stretches a disc about its centre and leaves everything outside the disc alone,

    (r, angle) -> (r (1 + stretch * psi(r / R)), angle + twist * psi(r / R)),   psi(s) = (1 - s^2)^3

which is one-to-one for every twist and for -1 < stretch < 1.5, since d/ds [s psi(s)] lies between
-0.653 and 1. So a composition is a diffeomorphism by construction, and can be undone radius by
radius.

Swirls whose discs do not meet can be applied in any order, and so at once. Neighbouring rows of
equal radius are, if each disc lies in its own cell of a square lattice: the disc that a point may
lie in is then that of the point's cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from sbr_core import geometry

FAMILY = "composed swirls, psi(s) = (1 - s^2)^3; plane mm = swirls(flat mm), first one first"
CELL_RADII = 2.5
"""Side of a lattice's cell, in radii of its discs: half of the plane lies in discs, and each disc
may lie up to a quarter of its radius off the middle of its cell along x and y."""
_TOLERANCE, _STEPS = 1e-12, 60
"""Newton's steps end where no radius, as a share of its disc's, is further off; about six are
needed, and halving the interval instead, which any step may fall back to, takes 40."""


def _psi(s: np.ndarray) -> np.ndarray:
    return np.clip(1.0 - s * s, 0.0, None) ** 3


@dataclass(frozen=True)
class _Layer:
    """Swirls of disjoint discs: each alone in its cell of a lattice around the first.

    Attributes
    ----------
    swirls : (n, 5), of equal radius.
    low : (2,) cell of the lowest x and y.
    numbers : (columns + 2, rows + 2) number of the swirl in each cell, -1 for none, also around.
    alone : whether each disc does lie in a cell of its own.
    """

    swirls: np.ndarray
    low: np.ndarray
    numbers: np.ndarray
    alone: bool

    @classmethod
    def of(cls, swirls: np.ndarray) -> _Layer:
        """The layer of swirls (n, 5)."""
        cells, off_mm = cls._cells(swirls[:, :2], swirls[0])
        low = cells.min(axis=0)
        numbers = np.full(np.ptp(cells, axis=0) + 3, -1)
        numbers[tuple((cells - low + 1).T)] = np.arange(len(swirls))
        room_mm = (CELL_RADII / 2 - 1) * swirls[0, 2]
        alone = np.abs(off_mm).max() <= room_mm and (numbers >= 0).sum() == len(swirls)
        return cls(swirls, low, numbers, bool(alone))

    @staticmethod
    def _cells(points: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cells of points (n, 2), the first swirl's being 0, 0, and how far off its middle, mm."""
        side = CELL_RADII * first[2]
        shifted = points - first[:2]
        cells = np.rint(shifted / side).astype(int)
        return cells, shifted - cells * side

    def inside(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which of the points (n, 2) lie in discs: indices, their swirls (m, 5), r / R (m,)."""
        cells, _ = self._cells(points, self.swirls[0])
        at = np.clip(cells - self.low + 1, 0, np.array(self.numbers.shape) - 1)
        numbers = self.numbers[at[:, 0], at[:, 1]]
        where = np.flatnonzero(numbers >= 0)
        swirls = self.swirls[numbers[where]]
        dx, dy = points[where, 0] - swirls[:, 0], points[where, 1] - swirls[:, 1]
        share = np.sqrt(dx * dx + dy * dy) / swirls[:, 2]
        near = share < 1.0
        return where[near], swirls[near], share[near]


def _layers(swirls: np.ndarray) -> Iterator[_Layer]:
    """Swirls (n, 5) in order, as many at a time as can be."""
    for _, rows in groupby(np.asarray(swirls, float).reshape(-1, 5), key=lambda row: row[2]):
        run = np.stack(list(rows))
        layer = _Layer.of(run)
        if layer.alone:
            yield layer
        else:
            yield from (_Layer.of(row[None]) for row in run)


def _turned(
    points: np.ndarray, swirls: np.ndarray, angle: np.ndarray, grow: np.ndarray
) -> np.ndarray:
    """Points (n, 2), each turned by an angle and stretched about the centre of its swirl."""
    dx, dy = points[:, 0] - swirls[:, 0], points[:, 1] - swirls[:, 1]
    c, s = grow * np.cos(angle), grow * np.sin(angle)
    return np.stack([swirls[:, 0] + c * dx - s * dy, swirls[:, 1] + s * dx + c * dy], axis=-1)


def apply_swirls(points: np.ndarray, swirls: np.ndarray) -> np.ndarray:
    """Map points through swirls, the first one first.

    Parameters
    ----------
    points : (..., 2) x, y in mm.
    swirls : (n, 5) centre x, centre y, radius (mm), twist (rad), stretch (-1 < stretch < 1.5).
    """
    out = np.array(points, float).reshape(-1, 2)
    for layer in _layers(swirls):
        where, of, share = layer.inside(out)
        psi = _psi(share)
        out[where] = _turned(out[where], of, of[:, 3] * psi, 1.0 + of[:, 4] * psi)
    return out.reshape(np.shape(points))


def undo_swirls(points: np.ndarray, swirls: np.ndarray) -> np.ndarray:
    """The inverse of `apply_swirls`, to about 1e-9 mm."""
    out = np.array(points, float).reshape(-1, 2)
    for layer in reversed(list(_layers(swirls))):
        where, of, share = layer.inside(out)
        psi = _psi(_radius_before(share, of[:, 4]))
        out[where] = _turned(out[where], of, -of[:, 3] * psi, 1.0 / (1.0 + of[:, 4] * psi))
    return out.reshape(np.shape(points))


def _radius_before(after: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """The s (n,) for which s (1 + stretch psi(s)) is `after`, both in 0 to 1.

    It grows with s, so Newton's steps that leave the interval known to hold s halve it instead.
    """
    s = after.copy()
    low, high = np.zeros_like(s), np.ones_like(s)
    for _ in range(_STEPS):
        inside = 1.0 - s * s
        excess = s * (1.0 + stretch * inside**3) - after
        high, low = np.where(excess > 0, s, high), np.where(excess > 0, low, s)
        step = excess / (1.0 + stretch * inside**2 * (1.0 - 7.0 * s * s))
        following = np.where((s - step < low) | (s - step > high), (low + high) / 2, s - step)
        moved = np.abs(following - s).max(initial=0.0)
        s = following
        if moved < _TOLERANCE:
            break
    return s


def swirl_determinant(points: np.ndarray, swirls: np.ndarray) -> np.ndarray:
    """det of the Jacobian of `apply_swirls` at `points` (..., 2); analytic, returns (...)."""
    here = np.array(points, float).reshape(-1, 2)
    det = np.ones(len(here))
    for layer in _layers(swirls):
        where, of, share = layer.inside(here)
        psi, stretch = _psi(share), of[:, 4]
        # stretch along the circle times stretch along the radius; a twist changes no area
        along = 1.0 + stretch * (1.0 - share**2) ** 2 * (1.0 - 7.0 * share**2)
        det[where] *= (1.0 + stretch * psi) * along
        here[where] = _turned(here[where], of, of[:, 3] * psi, 1.0 + stretch * psi)
    return det.reshape(np.shape(points)[:-1])


def best_affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """3x3 least-squares affine from points (n, 2) to points (n, 2), n >= 3."""
    homogeneous = np.column_stack([source, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(homogeneous, target, rcond=None)
    return np.vstack([solution.T, [0.0, 0.0, 1.0]])


def affine_residual_mm(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) distances that the best affine leaves between paired points (n, 2)."""
    fitted = geometry.apply(best_affine(source, target), source)
    return np.linalg.norm(fitted - target, axis=1)
