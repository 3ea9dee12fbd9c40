"""Deformations that bring landmarks to where they belong, and stay diffeomorphisms.

A section's velocity v is given a smooth correction w, a sum of Gaussians about the landmarks, such
that exp(v + w) maps each landmark's point of the plane to within a tolerance of its place; where
there is no velocity, exp(w) follows the deformation. Both are flows: neither folds. w is found by
solving for the Gaussians' weights again and again, since displacements do not add up as velocities
do. The Gaussians are wide, so that w says as little as it can between landmarks, and wider where
more is asked. A landmark that would stretch the tissue as no tissue is stretched is left out.

Points are (n, 2), (x, y) in px of the plane's grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import map_coordinates

from sbr_core.algorithms.deformation import (
    Canvas,
    Deformation,
    centred_between_pixels,
    followed_by,
    integrate,
    invert,
)

_NARROWEST = 0.05
"""Standard deviation of the Gaussians, in extents of the tissue: 7 mm in a human brain; narrower, a
landmark would say nothing of the gyrus that it lies on, wider, more than of that."""
_PER_DISTANCE = 3.0
"""And at least so many times the way a landmark is moved, which bounds the slope to 0.2."""
_FARTHEST = 0.12
"""A landmark that is to move farther than this, in extents of the tissue, after the affine has done
what it can, is no deformation of a section."""
_STRETCH = 5.0
"""Change of area that no tissue undergoes, in either direction, where it was less before."""
_SLACK, _MORE = 0.2, 1.25
"""By how much the least and the largest change of area may become more extreme where they were
beyond that before."""
_FASTEST = 4.0
"""Times as fast as the farthest landmark moves, a correction no longer serves them."""
_ROUNDS = 12
_GOAL = 0.5
"""Of the tolerance, at which rounds end."""
_RIDGE = 1e-3
"""Of the weights' equations, which landmarks in one place leave undetermined."""


@dataclass(frozen=True)
class Held:
    """Result of `hold`.

    Attributes
    ----------
    kept : indices of the landmarks that are obeyed.
    apart_px : (n,) how far each, obeyed or not, is from its place.
    """

    deformation: Deformation
    kept: tuple[int, ...]
    apart_px: np.ndarray


def hold(
    deformation: Deformation,
    points_px: np.ndarray,
    places_px: np.ndarray,
    tolerance_px: float,
    tissue: np.ndarray,
) -> Held:
    """Correct a deformation until it maps points to their places.

    Parameters
    ----------
    points_px, places_px : (n, 2), n >= 1, on the fixed plane, and where each is in the section
        through its affine.
    tissue : (rows, columns) of the plane.
    """
    extent_px = _extent_px(tissue)
    apart = places_px - _mapped(deformation, points_px)
    distance = np.linalg.norm(apart, axis=1)
    kept = np.flatnonzero(distance <= _FARTHEST * extent_px)
    smallest, largest = _areas(deformation, tissue)
    # what is found may be stretched far already, where it is torn, say: that is not the landmarks'
    limit = min(1 / _STRETCH, smallest - _SLACK * abs(smallest)), max(_STRETCH, _MORE * largest)
    while len(kept):
        asked = _Asked(points_px[kept], places_px[kept], tolerance_px)
        if (distance[kept] <= tolerance_px).all():
            found = deformation
        else:
            found = _corrected(deformation, asked, _NARROWEST * extent_px)
        ends = np.linalg.norm(_mapped(found, points_px) - places_px, axis=1)
        smallest, largest = _areas(found, tissue)
        if (ends[kept] <= tolerance_px).all() and limit[0] <= smallest and largest <= limit[1]:
            return Held(found, tuple(kept.tolist()), ends)
        kept = np.delete(kept, _strangest(points_px[kept], apart[kept], _NARROWEST * extent_px))
    return Held(deformation, (), distance)


@dataclass(frozen=True)
class _Asked:
    points_px: np.ndarray
    places_px: np.ndarray
    tolerance_px: float


def _corrected(deformation: Deformation, asked: _Asked, narrowest_px: float) -> Deformation:
    """The deformation with the correction after some rounds, exact or not."""
    grid = deformation.canvas.grid
    rows, columns = np.indices(grid.shape)
    pixels = np.stack([columns, rows], axis=-1).astype(float)
    correction = np.zeros((*grid.shape, 2))
    first = _mapped(deformation, asked.points_px)
    # a Gaussian about the middle of the way that the flow takes a landmark
    middle = (asked.points_px if deformation.velocity_px is not None else first) + asked.places_px
    centres = middle / 2
    farthest = float(np.linalg.norm(asked.places_px - first, axis=1).max())
    width = max(narrowest_px, _PER_DISTANCE * farthest)
    kernel = _gaussian(centres[:, None] - centres, width) + _RIDGE * np.eye(len(centres))
    spread = _gaussian(pixels[:, :, None] - centres, width)
    found = deformation
    for _ in range(_ROUNDS):
        left = asked.places_px - _mapped(found, asked.points_px)
        if np.linalg.norm(left, axis=1).max() <= _GOAL * asked.tolerance_px:
            break
        correction += spread @ np.linalg.solve(kernel, left)
        if np.linalg.norm(correction, axis=-1).max() > _FASTEST * farthest:
            break  # landmarks that ask for opposite ways side by side
        found = _with(deformation, correction)
    return found


def _with(deformation: Deformation, correction_px: np.ndarray) -> Deformation:
    """exp(v + w), or exp(w) after what has no velocity."""
    canvas = deformation.canvas
    if deformation.velocity_px is not None:
        return integrate(canvas.crop(deformation.velocity_px) + correction_px, canvas.grid)
    then = integrate(correction_px, canvas.grid)
    common = Canvas(canvas.grid, max(canvas.margin_px, then.canvas.margin_px))
    one, other = (_on(each, common) for each in (deformation, then))
    disp_px = followed_by(one.disp_px, other.disp_px)
    guess_px = followed_by(other.inverse_disp_px, one.inverse_disp_px)
    inverse_px = centred_between_pixels(invert(disp_px, guess_px))
    return replace(one, disp_px=disp_px, inverse_disp_px=inverse_px)


def _on(deformation: Deformation, canvas: Canvas) -> Deformation:
    """A deformation on a canvas of a wider margin, where it moves nothing."""
    more = canvas.margin_px - deformation.canvas.margin_px
    widths = [(more, more), (more, more), (0, 0)]
    fields = (deformation.disp_px, deformation.inverse_disp_px)
    return Deformation(canvas, None, *(np.pad(field, widths) for field in fields))


def _mapped(deformation: Deformation, points_px: np.ndarray) -> np.ndarray:
    """Points (n, 2) of the plane where the deformation takes them."""
    at = (points_px + deformation.canvas.margin_px).T[::-1]
    moved = [
        map_coordinates(deformation.disp_px[..., c], at, order=1, mode="nearest") for c in (0, 1)
    ]
    return points_px + np.stack(moved, axis=1)


def _gaussian(offset: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-(offset**2).sum(axis=-1) / (2 * width**2))


def _extent_px(tissue: np.ndarray) -> float:
    """Diagonal of the tissue's box; of the plane where there is none."""
    at = np.argwhere(np.asarray(tissue) > 0)
    sides = at.max(axis=0) - at.min(axis=0) + 1 if len(at) else tissue.shape
    return math.hypot(*sides)


def _areas(deformation: Deformation, tissue: np.ndarray) -> tuple[float, float]:
    """Least and largest change of area by forward differences in the tissue; 1 and 1 in none."""
    disp = deformation.canvas.crop(deformation.disp_px)
    by_x, by_y = np.diff(disp, axis=1)[:-1], np.diff(disp, axis=0)[:, :-1]
    areas = (1 + by_x[..., 0]) * (1 + by_y[..., 1]) - by_y[..., 0] * by_x[..., 1]
    inside = areas[np.asarray(tissue)[:-1, :-1] > 0]
    return (float(inside.min()), float(inside.max())) if inside.size else (1.0, 1.0)


def _strangest(points_px: np.ndarray, apart_px: np.ndarray, width: float) -> int:
    """Which landmark is moved least as those around it are; where it has none around, the farthest.

    Parameters
    ----------
    apart_px : (n, 2), how each is to be moved.
    """
    near = _gaussian(points_px[:, None] - points_px, 2 * width)
    np.fill_diagonal(near, 0.0)
    foretold = near @ apart_px / (near.sum(axis=1, keepdims=True) + 0.1)
    return int(np.linalg.norm(apart_px - foretold, axis=1).argmax())
