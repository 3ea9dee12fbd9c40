"""Deformations of neighbouring sections, made to agree by corrections in log space.

Each section is registered to the MRI by itself, with an error of its own. Two neighbours know more:
registering one registered section to the next, histology to histology, gives a velocity h_i; the
same of their MRI planes gives m_i. Were both sections registered without error, the two would be
equal, however much the anatomy changes from one to the next. With small corrections c_i, added to
each section's velocity, to first order (Baker, Campbell and Hausdorff)

    c_{i+1} - c_i = d_i,   d_i = h_i - m_i,

so the corrections are the minimiser, at each point of the plane, of

    hold * sum_i rho(|c_i|) + sum_i w_i rho(|c_{i+1} - c_i - d_i|)

with Huber's rho: a section or a pair that contradicts all others, torn or unlike, counts less.
Velocities between neighbours and robust least squares in log space are after Casamitjana et al.
2022 (robust joint registration of stacks); the MRI's own velocities between planes are ours.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

_ROUNDS = 8
"""Of reweighting; the weights change by less than 1 % after five."""
_NOTHING = 1e-3
"""Residuals below this share of the largest are those of background, and of no scale."""
_SAMPLE = 2000
"""Points that the residuals' scales are estimated on: more change them by less than 1 %."""
_BLOCK = 20_000
"""Points that are solved at a time, of all sections: 7,404 of them take about 5 GB."""


def pair_weight(mri_velocity: np.ndarray, difference: np.ndarray, reach_px: float) -> np.ndarray:
    """How far a pair of neighbours is to be believed, point by point.

    The further anatomy moves from plane to plane, the less the registration of one to the other
    can be relied on: w = 1 / (1 + |m|^2 / <|d|^2>), |m|^2 averaged around the point.

    Parameters
    ----------
    mri_velocity, difference : m and d, (rows, columns, 2), in one unit.
    reach_px : standard deviation of the average around a point.

    Returns
    -------
    (rows, columns), in (0, 1].
    """
    squared = (difference**2).sum(-1)
    moves = squared > 0
    if not moves.any():
        return np.ones(squared.shape)
    around = gaussian_filter((mri_velocity**2).sum(-1), reach_px)
    return 1.0 / (1.0 + around / squared[moves].mean())


def reconcile(
    differences: np.ndarray, weights: np.ndarray, *, hold: float, outlier: float
) -> np.ndarray:
    """Corrections of the sections of a chain, from the differences of its pairs.

    Parameters
    ----------
    differences : (n - 1, rows, columns, 2), d of each pair of neighbours, in order.
    weights : (n - 1, rows, columns), w of each pair; 0 where two sections are not compared.
    hold : how strongly a section is held to its own registration.
    outlier : residuals beyond this many times their median count less.

    Returns
    -------
    (n, rows, columns, 2), in the unit of the differences.
    """
    pairs, rows, columns, _ = differences.shape
    if not pairs:
        return np.zeros((1, rows, columns, 2), np.float32)
    flat = differences.reshape(pairs, -1, 2)
    beside = weights.reshape(pairs, -1)
    every = max(1, flat.shape[1] // _SAMPLE)
    scales = _solve(flat[:, ::every], beside[:, ::every], hold, outlier, None)[1]
    out = np.empty((pairs + 1, flat.shape[1], 2), np.float32)
    for start in range(0, flat.shape[1], _BLOCK):
        some = slice(start, start + _BLOCK)
        out[:, some] = _solve(flat[:, some], beside[:, some], hold, outlier, scales)[0]
    return out.reshape(pairs + 1, rows, columns, 2)


Scales = list[tuple[float, float]]
"""Of each round, the median residual of sections and of pairs."""


def _solve(
    differences: np.ndarray,
    weights: np.ndarray,
    hold: float,
    outlier: float,
    scales: Scales | None,
) -> tuple[np.ndarray, Scales]:
    """`reconcile` at points (n - 1, points, 2), by iteratively reweighted least squares."""
    of_pairs = weights.astype(float)
    of_sections = np.ones((len(weights) + 1, weights.shape[1]))
    used: Scales = []
    for step in range(_ROUNDS):
        change = _chain(differences, hold * of_sections, of_pairs)
        apart = np.linalg.norm(np.diff(change, axis=0) - differences, axis=-1)
        moved = np.linalg.norm(change, axis=-1)
        used.append(scales[step] if scales is not None else (_scale(moved), _scale(apart)))
        limits = [outlier * scale for scale in used[-1]]
        of_sections = np.minimum(1.0, limits[0] / np.maximum(moved, 1e-12))
        of_pairs = weights * np.minimum(1.0, limits[1] / np.maximum(apart, 1e-12))
    return change, used


def _scale(lengths: np.ndarray) -> float:
    """Their median, of those that are more than nothing; infinite where none is."""
    some = lengths[lengths > _NOTHING * lengths.max(initial=0.0)]
    return float(np.median(some)) if some.size else np.inf


def _chain(differences: np.ndarray, hold: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The least-squares corrections for given weights: a tridiagonal system at each point.

    Gaussian elimination without exchanges, which a diagonally dominant matrix does not need.

    Parameters
    ----------
    differences : (n - 1, points, 2).
    hold : (n, points), positive.
    weights : (n - 1, points), not negative.

    Returns
    -------
    (n, points, 2).
    """
    diagonal = hold.copy()
    diagonal[:-1] += weights
    diagonal[1:] += weights
    pull = weights[..., None] * differences
    right = np.zeros((len(hold), *differences.shape[1:]))
    right[1:] += pull
    right[:-1] -= pull
    for i in range(1, len(hold)):
        share = weights[i - 1] / diagonal[i - 1]
        diagonal[i] -= share * weights[i - 1]
        right[i] += share[:, None] * right[i - 1]
    right[-1] /= diagonal[-1][:, None]
    for i in range(len(hold) - 2, -1, -1):
        right[i] = (right[i] + weights[i][:, None] * right[i + 1]) / diagonal[i][:, None]
    return right
