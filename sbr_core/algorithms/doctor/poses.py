"""Which sections are mirrored or turned, and how a neighbour lies on a section.

Poses are those of `pictures`: mirror, then turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from sbr_core.algorithms.doctor.evidence import MIN_SECTIONS, along_stack, confidence
from sbr_core.algorithms.doctor.pictures import (
    N_ANGLES,
    STEP_DEG,
    CoarsePicture,
    StackPictures,
    allowed_shifts,
    in_pose,
)

_UPRIGHT_STEPS = 2
"""A section within 10° of its neighbours lies as they do: they are cut and mounted by hand."""
_ROUNDS = 4
"""Of judging each section against the others in their poses, at most; it ends when none changes."""
_LOSS_UNIT = 0.1
"""Correlation that one pair of sections must lose for its pose to be e times less likely."""
_MAX_LOSS = 3.0
"""Of one pair, so that a single misleading one cannot outvote the others."""
_MIN_VOTES = 3
"""Neighbours that speak for a candidate; the others may themselves lie wrong."""
_FAR_DEG = 30.0
"""Further turned than this is another pose, beyond the peak of the correlation about the first."""


def pose_scores(pictures: StackPictures, reach: int) -> np.ndarray:
    """Correlation of every section, in every pose, with each of its neighbours as they lie.

    Returns
    -------
    (n, 2 reach + 1, 2, N_ANGLES) float32: section, neighbour (from −reach to reach), mirrored or
    not, angle; the best over all shifts of up to a quarter of the grid; NaN where there is no
    neighbour.
    """
    n = len(pictures)
    scores = np.full((n, 2 * reach + 1, 2, N_ANGLES), np.nan, np.float32)
    for i in range(n):
        near = [j for j in range(max(0, i - reach), min(n, i + reach + 1)) if j != i]
        for j, correlations in zip(near, pictures.correlations(i, near), strict=True):
            scores[i, j - i + reach] = correlations
    return scores


@dataclass(frozen=True)
class Poses:
    """How each section would have to be mirrored and turned to lie as the others do.

    Attributes
    ----------
    mirrored : (n,) bool
    angle_deg : (n,) float in (−180, 180], after the mirroring; of upright sections the few degrees
        they differ from their neighbours.
    flip_confidence, turn_confidence : (n,) that it is mirrored, or turned without being mirrored.
    """

    mirrored: np.ndarray
    angle_deg: np.ndarray
    flip_confidence: np.ndarray
    turn_confidence: np.ndarray

    def wrong(self, at_least: float) -> np.ndarray:
        """(n,) bool: sections that lie otherwise than they should."""
        return np.maximum(self.flip_confidence, self.turn_confidence) >= at_least

    def correction(self, section: int) -> tuple[bool, float]:
        """(mirrored, angle in degrees) to bring a section upright; none unless likely wrong."""
        if max(self.flip_confidence[section], self.turn_confidence[section]) < 0.5:
            return False, 0.0
        return bool(self.mirrored[section]), float(self.angle_deg[section])


def judge_poses(scores: np.ndarray, *, prior: float = 0.05, min_turn_deg: float = 12.0) -> Poses:
    """Find mirrored and turned sections; the majority is taken to be right.

    First the likeliest poses of all sections together, so that neighbours harmed alike do not
    vouch for each other; then each section is judged against its neighbours in those poses.

    Parameters
    ----------
    scores : of `pose_scores`.
    prior : share of sections that are expected to be mirrored, and to be turned.
    min_turn_deg : smaller turns are left as they are.
    """
    n, width = scores.shape[:2]
    none = np.zeros(n)
    if n < MIN_SECTIONS:
        return Poses(np.zeros(n, bool), none, none, none)
    # the nearer, the more two sections look alike, the more it counts
    weights = np.array([_usual_similarity(scores[:, k]) for k in range(width)])
    mirrored, steps = likeliest_poses(scores, prior)
    for _ in range(_ROUNDS):
        fits = np.array([_fit(scores[i], i, mirrored, steps, weights) for i in range(n)])
        poses = _with_confidence(fits, ~mirrored & (steps == 0), prior, min_turn_deg)
        wrong = poses.wrong(0.5)
        before = mirrored, steps
        mirrored = wrong & poses.mirrored
        steps = np.where(wrong, np.round(poses.angle_deg / STEP_DEG).astype(int) % N_ANGLES, 0)
        if np.array_equal(before[0], mirrored) and np.array_equal(before[1], steps):
            break
    return poses


def likeliest_poses(
    scores: np.ndarray, prior: float, *, candidates: int = 8, beam: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """The poses of all sections that explain all pairs of neighbours best.

    A search along the stack that keeps the best `beam` beginnings. What a pair loses against its
    own best pose counts, up to a limit; every section that is not upright costs what its rarity
    does.

    Parameters
    ----------
    scores : of `pose_scores`.
    prior : share of sections that are expected to lie wrong.
    candidates : poses of a section that are considered, besides upright.
    beam : more of either costs time, and finds the best poses more surely.

    Returns
    -------
    mirrored : (n,) bool
    steps : (n,) int, the angle in steps of 360° / N_ANGLES.
    """
    n, width = scores.shape[:2]
    reach = width // 2
    # natural turns of a few degrees are no loss
    blurred = ndimage.maximum_filter1d(scores, 2 * _UPRIGHT_STEPS + 1, axis=-1, mode="wrap")
    top = blurred.max(axis=(-2, -1), keepdims=True)
    loss = np.minimum((top - blurred) / _LOSS_UNIT, _MAX_LOSS)
    cost = -math.log(prior / (1 - prior))
    candidates_of = [_candidates(loss[i], candidates) for i in range(n)]
    paths = np.zeros((1, 0), int)  # index of the candidate of each section so far
    total = np.zeros(1)
    for i in range(n):
        m, a = candidates_of[i].T
        added = np.tile(np.where((m == 0) & (a == 0), 0.0, cost), (len(paths), 1))
        for j in range(max(0, i - reach), i):
            mj, aj = candidates_of[j][paths[:, j]].T
            turn = (a[None] - aj[:, None]) * np.where(mj, -1, 1)[:, None] % N_ANGLES
            added += loss[i, j - i + reach, m[None] ^ mj[:, None], turn]
        every = (total[:, None] + added).ravel()
        kept = np.argsort(every, kind="stable")[:beam]
        total = every[kept]
        paths = np.column_stack([paths[kept // len(m)], kept % len(m)])
    chosen = np.array([candidates_of[i][k] for i, k in enumerate(paths[0])])
    return chosen[:, 0].astype(bool), chosen[:, 1]


def _candidates(loss: np.ndarray, count: int) -> np.ndarray:
    """(k, 2) int: upright first, then the (mirrored, step) that some neighbours speak for.

    Parameters
    ----------
    loss : (2 reach + 1, 2, N_ANGLES) of one section.
    """
    for_some = np.nansum(np.sort(loss, axis=0)[:_MIN_VOTES], axis=0)
    candidates = [(0, 0)]
    for flat in np.argsort(for_some, axis=None, kind="stable"):
        m, step = divmod(int(flat), N_ANGLES)
        if len(candidates) > count:
            break
        near = [_steps_apart(step, other) <= _UPRIGHT_STEPS for mo, other in candidates if mo == m]
        if not any(near):
            candidates.append((m, step))
    return np.array(candidates)


def _steps_apart(step: int, other: int) -> int:
    """Steps between two angles, the shorter way."""
    difference = abs(step - other) % N_ANGLES
    return min(difference, N_ANGLES - difference)


def _usual_similarity(scores: np.ndarray) -> float:
    """Squared correlation with the neighbour at one distance, as it usually is."""
    best = scores[:, 0].max(axis=-1)
    best = best[np.isfinite(best)]
    return float(np.median(best)) ** 2 if best.size else 0.0


def _fit(
    scores: np.ndarray, i: int, mirrored: np.ndarray, steps: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """(2, N_ANGLES): how well section i in each pose fits its neighbours in theirs.

    R(b) Mᵐ turns the neighbour to where it belongs; relative to it, the pose R(a) M of the section
    is Mᵐ R(a − b) M, a turn the other way round if the neighbour is mirrored.
    """
    reach = len(weights) // 2
    neighbours = [j for j in range(i - reach, i + reach + 1) if 0 <= j < len(steps) and j != i]
    angles = np.arange(N_ANGLES)
    fits = np.empty((len(neighbours), 2, N_ANGLES))
    for at, j in enumerate(neighbours):
        index = (angles - steps[j]) * (-1 if mirrored[j] else 1) % N_ANGLES
        for m in (0, 1):
            fits[at, m] = scores[j - i + reach, m ^ int(mirrored[j]), index]
    return _weighted_median(fits, np.array([weights[j - i + reach] for j in neighbours]))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median along the first axis; values of weight 0 do not count, ties take the middle."""
    order = np.argsort(values, axis=0)
    ranked = np.take_along_axis(values, order, axis=0)
    share = np.cumsum(weights[order], axis=0)
    half = share[-1] / 2
    low = np.argmax(share >= half - 1e-9, axis=0)
    high = np.argmax(share > half + 1e-9, axis=0)
    pick = lambda index: np.take_along_axis(ranked, index[None], axis=0)[0]  # noqa: E731
    return (pick(low) + pick(high)) / 2


def _with_confidence(
    fits: np.ndarray, upright: np.ndarray, prior: float, min_turn_deg: float
) -> Poses:
    """Best poses and confidences from each section's fit in every pose, (n, 2, N_ANGLES).

    Parameters
    ----------
    upright : (n,) bool, the sections that usual values are taken of.
    """
    n = len(fits)
    about = np.r_[-_UPRIGHT_STEPS : _UPRIGHT_STEPS + 1]
    best = fits.max(axis=-1)
    asymmetry = best[:, 1] - best[:, 0]
    flipped = confidence(asymmetry, *along_stack(asymmetry, upright), prior)
    mirrored = flipped >= 0.5
    angle = np.array([_peak_deg(fit[int(m)]) for fit, m in zip(fits, mirrored, strict=True)])

    # a turn against lying upright, and (of mirrored sections) one turn against all others
    nearest = fits[:, 0, about].max(axis=-1)
    turned = np.zeros(n)
    resolved = np.ones(n)
    half = N_ANGLES // 2
    far = np.abs((np.arange(N_ANGLES) + half) % N_ANGLES - half) * STEP_DEG > _FAR_DEG
    elsewhere = fits[:, 0, far].max(axis=-1) - nearest
    usual, spread = along_stack(elsewhere, upright)
    for i in range(n):
        step = int(round(angle[i] / STEP_DEG)) % N_ANGLES
        if mirrored[i]:
            here = fits[i, 1, np.roll(np.arange(N_ANGLES), -step)[about]].max()
            other = np.roll(fits[i, 1], -step)[far].max()
            resolved[i] = 1 - confidence(other - here, usual[i], spread[i], 0.5)
        elif abs(angle[i]) >= min_turn_deg:
            margin = fits[:, 0, step] - nearest
            of_this_turn = along_stack(margin, upright)
            turned[i] = confidence(margin[i], of_this_turn[0][i], of_this_turn[1][i], prior)
            turned[i] *= 1 - flipped[i]
    return Poses(mirrored, angle, flipped * resolved, turned)


def _peak_deg(fit: np.ndarray) -> float:
    """Angle of the best fit, between the steps by a parabola, in (−180, 180]."""
    k = int(np.argmax(fit))
    left, middle, right = fit[k - 1], fit[k], fit[(k + 1) % N_ANGLES]
    bend = left - 2 * middle + right
    offset = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return 180 - (180 - (k + offset) * STEP_DEG) % 360


def registered_neighbour(
    pictures: StackPictures,
    scores: np.ndarray,
    poses: Poses,
    section: int,
    neighbour: int,
    fineness: int = 1,
) -> CoarsePicture:
    """A neighbour's picture as it lies on a section: mirrored, turned, moved, not deformed.

    Parameters
    ----------
    scores : of `pose_scores`, within whose reach both lie.
    poses : both sections are taken to lie in these, but for a few degrees.
    fineness : of the picture, as of `StackPictures.of`.
    """
    reach = scores.shape[1] // 2
    mirrored_here, angle_here = poses.correction(section)
    mirrored_there, angle_there = poses.correction(neighbour)
    turn = angle_there - angle_here
    step = round((-turn if mirrored_here else turn) / STEP_DEG) % N_ANGLES
    mirrored = mirrored_here != mirrored_there
    fit = scores[neighbour, section - neighbour + reach, int(mirrored)].astype(float)
    near = [_steps_apart(k, step) <= _UPRIGHT_STEPS + 1 for k in range(N_ANGLES)]
    angle = _peak_deg(np.where(near, fit, -1.0))
    here = pictures.of(section, pictures.step_px[section], fineness).detail
    there = pictures.of(neighbour, pictures.step_px[section], fineness)
    turned = in_pose(there.detail, mirrored, angle)
    correlation = fft.irfft2(np.conj(fft.rfft2(here)) * fft.rfft2(turned), s=here.shape)
    shifts = allowed_shifts(len(here))
    correlation = correlation[shifts][:, shifts]
    row, column = np.unravel_index(np.argmax(correlation), correlation.shape)
    shift = -float(shifts[row]), -float(shifts[column])
    return CoarsePicture(
        in_pose(there.detail, mirrored, angle, shift), in_pose(there.tissue, mirrored, angle, shift)
    )
