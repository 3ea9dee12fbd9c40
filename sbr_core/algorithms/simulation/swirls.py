"""Deformations that are known exactly: compositions of swirls.

A *swirl* turns and stretches a disc about its centre and leaves everything outside the disc alone,

    (r, angle) -> (r (1 + stretch * psi(r / R)), angle + twist * psi(r / R)),   psi(s) = (1 - s^2)^3

which is one-to-one for every twist and for -1 < stretch < 1.5, since d/ds [s psi(s)] lies between
-0.653 and 1. So a composition is a diffeomorphism by construction, and can be undone radius by
radius.
"""

from __future__ import annotations

import numpy as np

from sbr_core import geometry

FAMILY = "composed swirls, psi(s) = (1 - s^2)^3; plane mm = swirls(flat mm), first one first"
_BISECTIONS = 40
"""Halvings of the interval of a radius, which is 1 long: 2^-40 of some 50 mm is 1e-10 mm."""


def _psi(s: np.ndarray) -> np.ndarray:
    return np.clip(1.0 - s * s, 0.0, None) ** 3


def apply_swirls(points: np.ndarray, swirls: np.ndarray) -> np.ndarray:
    """Map points through swirls, the first one first.

    Parameters
    ----------
    points : (..., 2) x, y in mm.
    swirls : (n, 5) centre x, centre y, radius (mm), twist (rad), stretch (-1 < stretch < 1.5).
    """
    out = np.array(points, float)
    for cx, cy, radius, twist, stretch in np.asarray(swirls, float):
        dx, dy = out[..., 0] - cx, out[..., 1] - cy
        psi = _psi(np.sqrt(dx * dx + dy * dy) / radius)
        c, s = np.cos(twist * psi), np.sin(twist * psi)
        grow = 1.0 + stretch * psi
        out[..., 0] = cx + grow * (c * dx - s * dy)
        out[..., 1] = cy + grow * (s * dx + c * dy)
    return out


def undo_swirls(points: np.ndarray, swirls: np.ndarray) -> np.ndarray:
    """The inverse of `apply_swirls`, to about 1e-9 mm: each radius is found by bisection."""
    out = np.array(points, float)
    for cx, cy, radius, twist, stretch in np.asarray(swirls, float)[::-1]:
        dx, dy = out[..., 0] - cx, out[..., 1] - cy
        target = np.sqrt(dx * dx + dy * dy) / radius
        low, high = np.zeros_like(target), np.ones_like(target)
        for _ in range(_BISECTIONS):  # r (1 + stretch psi(r)) grows with r, from 0 at 0 to 1 at 1
            middle = (low + high) / 2
            below = middle * (1.0 + stretch * _psi(middle)) < target
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        inside = target < 1.0
        psi = np.where(inside, _psi((low + high) / 2), 0.0)
        c, s = np.cos(twist * psi), np.sin(twist * psi)
        shrink = 1.0 / (1.0 + stretch * psi)
        out[..., 0] = cx + shrink * (c * dx + s * dy)
        out[..., 1] = cy + shrink * (-s * dx + c * dy)
    return out


def swirl_determinant(points: np.ndarray, swirls: np.ndarray) -> np.ndarray:
    """det of the Jacobian of `apply_swirls` at `points` (..., 2); analytic, returns (...)."""
    here = np.array(points, float)
    det = np.ones(here.shape[:-1])
    for swirl in np.asarray(swirls, float):
        cx, cy, radius, _, stretch = swirl
        s2 = ((here[..., 0] - cx) ** 2 + (here[..., 1] - cy) ** 2) / radius**2
        inside = np.clip(1.0 - s2, 0.0, None)
        # stretch along the circle times stretch along the radius; a twist changes no area
        det *= (1.0 + stretch * inside**3) * (1.0 + stretch * inside**2 * (1.0 - 7.0 * s2))
        here = apply_swirls(here, swirl[None])
    return det


def best_affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """3x3 least-squares affine from points (n, 2) to points (n, 2), n >= 3."""
    homogeneous = np.column_stack([source, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(homogeneous, target, rcond=None)
    return np.vstack([solution.T, [0.0, 0.0, 1.0]])


def affine_residual_mm(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) distances that the best affine leaves between paired points (n, 2)."""
    fitted = geometry.apply(best_affine(source, target), source)
    return np.linalg.norm(fitted - target, axis=1)
