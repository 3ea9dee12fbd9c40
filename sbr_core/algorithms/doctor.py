"""What is wrong with the sections of a stack, judged by their neighbours.

No section is judged by itself. Each is compared with the sections before and after it, in every
pose it could have been scanned in (turned by any angle, mirrored or not), and how much better
another pose, another place or an undamaged section would fit is measured against how that same
figure spreads over the whole stack. In a stack whose sections are nearly symmetric a mirrored one
hardly fits worse than an upright one; then the spread says so, and nothing is claimed.

Poses are written as ``mirror, then turn``: a pose (m, a) is the map that reverses the columns if m,
and then turns by a, counter-clockwise as displayed, which is how a manifest's ``flip`` and
``rotate_deg`` are applied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

SIZE_PX = 64
N_ANGLES = 72
_STEP_DEG = 360 / N_ANGLES
_FREEDOM = 4
_MAD_TO_SIGMA = 1.4826
_UPRIGHT_STEPS = 2
"""A section within 10° of its neighbours lies as they do."""
_MIN_SECTIONS = 5
_SCALE_STEP = 1.2
_SHIFTS_PX = np.r_[-(SIZE_PX // 4) : SIZE_PX // 4 + 1]
_ROUNDS = 4
WITNESSES = 2
"""Sections on either side that say in which order two neighbours lie."""
_FINENESS = 2
_BEND_PX = 3
_MISFIT = 0.07
"""Share of a section that must not fit its neighbours before it may count as damaged."""
_MISSING = 0.1
"""Share of its tissue that a section must lack."""
_ONE_SIDED = 2.0
_LOSS_UNIT = 0.1
"""Correlation that one pair of sections must lose for its pose to be e times less likely."""
_MAX_LOSS = 3.0


# --------------------------------------------------------------------------------------------
# How evidence becomes confidence
# --------------------------------------------------------------------------------------------


def _log_t(z: np.ndarray) -> np.ndarray:
    """Logarithm of Student's t density with `_FREEDOM` degrees, without its constant."""
    return -(_FREEDOM + 1) / 2 * np.log1p(np.asarray(z, float) ** 2 / _FREEDOM)


def confidence(
    value: np.ndarray, usual: np.ndarray, spread: np.ndarray, prior: float
) -> np.ndarray:
    """Probability that a section is harmed, from how much better the other hypothesis fits.

    If all is well, the figure lies about `usual` < 0; if the other hypothesis is the truth, the two
    change places, and it lies about −`usual`. Both with the same spread, and with tails as heavy as
    Student's t has them, so that a single odd section is not accused beyond doubt. Where `usual` is
    small against `spread`, that is where both hypotheses look alike, this is `prior`.

    Parameters
    ----------
    value : fit of the other hypothesis minus that of the given one.
    usual : its median over comparable sections.
    spread : its robust standard deviation over them, above 0.
    prior : probability before anything was looked at.
    """
    usual = np.minimum(usual, 0.0)
    well, harmed = _log_t((value - usual) / spread), _log_t((value + usual) / spread)
    return 1 / (1 + (1 - prior) / prior * np.exp(np.clip(well - harmed, -60, 60)))


def robust(values: np.ndarray, floor: float) -> tuple[float, float]:
    """(median, robust standard deviation of at least `floor`) of what is finite."""
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, math.inf
    middle = float(np.median(values))
    return middle, max(_MAD_TO_SIGMA * float(np.median(np.abs(values - middle))), floor)


def _along_stack(
    values: np.ndarray, good: np.ndarray, floor: float, reach: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Median and spread about each section, of the good sections within `reach` of it.

    The spread is that of the whole stack where that is larger, so that few equal neighbours do not
    make a usual value look odd.
    """
    n = len(values)
    middle, spread = np.zeros(n), np.zeros(n)
    whole = robust(values[good], floor)
    for i in range(n):
        near = np.arange(max(0, i - reach), min(n, i + reach + 1))
        near = near[good[near] & (near != i)]
        middle[i], spread[i] = robust(values[near], floor) if near.size >= 8 else whole
    residual = robust((values - middle)[good], floor)[1]
    return middle, np.maximum(spread, residual)


# --------------------------------------------------------------------------------------------
# Coarse pictures
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coarse:
    """A section on a coarse square grid, centred on its tissue.

    Attributes
    ----------
    detail : (size, size) float32, band-passed tissue signal of unit norm.
    tissue : (size, size) float32 in [0, 1], share of tissue.
    """

    detail: np.ndarray
    tissue: np.ndarray


def coarse_picture(
    image: np.ndarray, mask: np.ndarray, step_px: float, centre: np.ndarray, size: int = SIZE_PX
) -> Coarse:
    """Bring a prepared section to a square grid.

    What is finer than a grid pixel and coarser than a few of them is taken away: the former is
    noise here, the latter is staining and bulk shape, which every pose shares.

    Parameters
    ----------
    image : (rows, columns), tissue above a background of 0.
    mask : (rows, columns) bool, some of it True.
    step_px : grid pixel in pixels of the image.
    centre : (row, column) that comes to the middle.
    """
    axis = (np.arange(size) - (size - 1) / 2) * step_px
    at = np.stack(np.meshgrid(axis + centre[0], axis + centre[1], indexing="ij"))
    level = max(float(np.median(image[mask])), 1e-6)
    signal = np.clip(image / level, 0, 2).astype(np.float32) * mask
    signal = ndimage.gaussian_filter(signal, 0.5 * step_px)
    signal = ndimage.map_coordinates(signal, at, order=1)
    band = ndimage.gaussian_filter(signal, 0.7) - ndimage.gaussian_filter(signal, 3.0)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.5 * step_px)
    tissue = ndimage.map_coordinates(soft, at, order=1)
    return Coarse(band / max(float(np.linalg.norm(band)), 1e-6), tissue)


class Pictures:
    """Coarse pictures of a stack, at the scale of the sections about each.

    A section is compared with its neighbours on a grid as fine as the largest of them allows, so
    that the small sections at the end of a brain show as much as those of its middle.
    """

    def __init__(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], reach: int
    ) -> None:
        """Images and masks as of `coarse_picture`; `reach` neighbours on either side."""
        self._images, self._masks = images, masks
        self._centres, radii = [], []
        for mask in masks:
            tissue = np.argwhere(mask)
            self._centres.append(tissue.mean(axis=0))
            radius = np.quantile(np.hypot(*(tissue - self._centres[-1]).T), 0.995)
            radii.append(max(float(radius), 1.0))
        # an odd huge section is cut rather than all others shrunk
        usual = ndimage.median_filter(np.array(radii), 3, mode="nearest")
        largest = ndimage.maximum_filter1d(usual, 2 * reach + 1, mode="nearest")
        # few different scales, so that few pictures are made; 0.4 of the grid to each side
        level = np.ceil(np.log(largest) / math.log(_SCALE_STEP))
        self.step_px = _SCALE_STEP**level / (0.4 * SIZE_PX)
        self._made: dict[tuple[int, float, int], Coarse] = {}

    def __len__(self) -> int:
        return len(self._images)

    def of(self, section: int, step_px: float, fineness: int = 1) -> Coarse:
        """Picture of one section at the scale of another, `fineness` times as fine; kept."""
        key = section, float(step_px), fineness
        if key not in self._made:
            self._made[key] = coarse_picture(
                self._images[section],
                self._masks[section],
                step_px / fineness,
                self._centres[section],
                SIZE_PX * fineness,
            )
        return self._made[key]


def posed(
    picture: np.ndarray,
    mirrored: bool,
    angle_deg: float,
    shift_px: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """A square picture mirrored, then turned about its centre, then moved.

    Parameters
    ----------
    picture : (size, size).
    angle_deg : counter-clockwise as displayed.
    shift_px : (rows, columns) that the result is moved by.
    """
    if mirrored:
        picture = picture[:, ::-1]
    middle = (picture.shape[0] - 1) / 2
    axis = np.arange(picture.shape[0]) - middle
    y, x = np.meshgrid(axis - shift_px[0], axis - shift_px[1], indexing="ij")
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    # the point that comes to (x, y), y growing downwards
    at = np.stack([s * x + c * y + middle, c * x - s * y + middle])
    return ndimage.map_coordinates(np.asarray(picture, np.float32), at, order=1)


def pose_scores(pictures: Pictures, reach: int) -> np.ndarray:
    """Correlation of every section, in every pose, with each of its neighbours as they lie.

    Returns
    -------
    (n, 2 reach + 1, 2, N_ANGLES) float32: section, neighbour (from −reach to reach), mirrored or
    not, angle; the best over all shifts of up to a quarter of the grid; NaN where there is no
    neighbour.
    """
    n = len(pictures)
    scores = np.full((n, 2 * reach + 1, 2, N_ANGLES), np.nan, np.float32)
    for i, step_px in enumerate(pictures.step_px):
        turned = _all_poses(pictures.of(i, step_px).detail)
        for j in range(max(0, i - reach), min(n, i + reach + 1)):
            if j != i:
                best = _best_shift(turned, pictures.of(j, step_px).detail)
                scores[i, j - i + reach] = best
    return scores


def _all_poses(detail: np.ndarray) -> np.ndarray:
    """Spectra of a picture in every pose, (2 N_ANGLES, size, size // 2 + 1)."""
    turned = [posed(detail, m, k * _STEP_DEG) for m in (False, True) for k in range(N_ANGLES)]
    return fft.rfft2(np.array(turned, np.float32))


def _best_shift(turned: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(2, N_ANGLES): best correlation with another picture over the shifts that are allowed."""
    correlation = fft.irfft2(turned * np.conj(fft.rfft2(other)), s=(SIZE_PX, SIZE_PX))
    near = correlation[:, _SHIFTS_PX][:, :, _SHIFTS_PX]
    return near.reshape(2, N_ANGLES, -1).max(axis=-1)


# --------------------------------------------------------------------------------------------
# Flips and turns
# --------------------------------------------------------------------------------------------


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

    def taken(self, section: int) -> tuple[bool, float]:
        """(mirrored, angle) to reckon with: upright unless more likely wrong than not."""
        if max(self.flip_confidence[section], self.turn_confidence[section]) < 0.5:
            return False, 0.0
        return bool(self.mirrored[section]), float(self.angle_deg[section])


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
    if n < _MIN_SECTIONS:
        return Poses(np.zeros(n, bool), none, none, none)
    # the nearer, the more two sections look alike, the more it counts
    alike = np.array([_typical(scores[:, k]) for k in range(width)])
    mirrored, steps = likeliest_poses(scores, prior)
    for _ in range(_ROUNDS):
        fits = np.array([_fit(scores[i], i, mirrored, steps, alike) for i in range(n)])
        good = ~mirrored & (steps == 0)
        poses = _judged(fits, good, prior, min_turn_deg)
        wrong = poses.wrong(0.5)
        before = mirrored, steps
        mirrored = wrong & poses.mirrored
        steps = np.where(wrong, np.round(poses.angle_deg / _STEP_DEG).astype(int) % N_ANGLES, 0)
        if np.array_equal(before[0], mirrored) and np.array_equal(before[1], steps):
            break
    return poses


def likeliest_poses(
    scores: np.ndarray, prior: float, *, candidates: int = 8, beam: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """The poses of all sections that explain all pairs of neighbours best.

    A search along the stack that keeps the best `beam` beginnings. What a pair loses against its
    own best pose counts, up to a limit, so that one misleading pair cannot outvote the others;
    every section that is not upright costs what its rarity does.

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
    found = [_candidates(loss[i], candidates) for i in range(n)]
    paths = np.zeros((1, 0), int)  # index of the candidate of each section so far
    total = np.zeros(1)
    for i in range(n):
        m, a = found[i].T
        added = np.tile(np.where((m == 0) & (a == 0), 0.0, cost), (len(paths), 1))
        for j in range(max(0, i - reach), i):
            mj, aj = found[j][paths[:, j]].T
            turn = (a[None] - aj[:, None]) * np.where(mj, -1, 1)[:, None] % N_ANGLES
            added += loss[i, j - i + reach, m[None] ^ mj[:, None], turn]
        every = (total[:, None] + added).ravel()
        kept = np.argsort(every, kind="stable")[:beam]
        total = every[kept]
        paths = np.column_stack([paths[kept // len(m)], kept % len(m)])
    chosen = np.array([found[i][k] for i, k in enumerate(paths[0])])
    return chosen[:, 0].astype(bool), chosen[:, 1]


def _candidates(loss: np.ndarray, count: int) -> np.ndarray:
    """(k, 2) int: upright first, then the (mirrored, step) that some neighbours speak for.

    Parameters
    ----------
    loss : (2 reach + 1, 2, N_ANGLES) of one section.
    """
    for_some = np.nansum(np.sort(loss, axis=0)[:3], axis=0)  # the three neighbours it fits best
    found = [(0, 0)]
    for flat in np.argsort(for_some, axis=None, kind="stable"):
        m, step = divmod(int(flat), N_ANGLES)
        if len(found) > count:
            break
        near = [_apart(step, other) <= _UPRIGHT_STEPS for mo, other in found if mo == m]
        if not any(near):
            found.append((m, step))
    return np.array(found)


def _apart(step: int, other: int) -> int:
    """Steps between two angles, the shorter way."""
    difference = abs(step - other) % N_ANGLES
    return min(difference, N_ANGLES - difference)


def _typical(scores: np.ndarray) -> float:
    """Squared correlation with the neighbour at one distance, as it usually is."""
    best = scores[:, 0].max(axis=-1)
    best = best[np.isfinite(best)]
    return float(np.median(best)) ** 2 if best.size else 0.0


def _fit(
    scores: np.ndarray, i: int, mirrored: np.ndarray, steps: np.ndarray, alike: np.ndarray
) -> np.ndarray:
    """(2, N_ANGLES): how well section i in each pose fits its neighbours in theirs.

    R(b) Mᵐ turns the neighbour to where it belongs; relative to it, the pose R(a) M of the section
    is Mᵐ R(a − b) M, a turn the other way round if the neighbour is mirrored.
    """
    reach = len(alike) // 2
    there = [j for j in range(i - reach, i + reach + 1) if 0 <= j < len(steps) and j != i]
    angles = np.arange(N_ANGLES)
    fits = np.empty((len(there), 2, N_ANGLES))
    for at, j in enumerate(there):
        index = (angles - steps[j]) * (-1 if mirrored[j] else 1) % N_ANGLES
        for m in (0, 1):
            fits[at, m] = scores[j - i + reach, m ^ int(mirrored[j]), index]
    weights = np.array([alike[j - i + reach] for j in there])
    return _weighted_median(fits, weights)


def _judged(fits: np.ndarray, good: np.ndarray, prior: float, min_turn_deg: float) -> Poses:
    """Confidences from each section's fit in every pose, (n, 2, N_ANGLES)."""
    n = len(fits)
    upright = np.r_[-_UPRIGHT_STEPS : _UPRIGHT_STEPS + 1]
    best = fits.max(axis=-1)
    asymmetry = best[:, 1] - best[:, 0]
    flipped = confidence(asymmetry, *_along_stack(asymmetry, good, 0.01), prior)
    mirrored = flipped >= 0.5
    angle = np.zeros(n)
    for i in range(n):
        angle[i] = _peak_deg(fits[i, int(mirrored[i])])

    # a turn against lying upright, and (of mirrored sections) one turn against all others
    nearest = fits[:, 0, upright].max(axis=-1)
    turned = np.zeros(n)
    resolved = np.ones(n)
    far = np.abs((np.arange(N_ANGLES) + N_ANGLES // 2) % N_ANGLES - N_ANGLES // 2) * _STEP_DEG > 30
    elsewhere = fits[:, 0, far].max(axis=-1) - nearest
    usual, spread = _along_stack(elsewhere, good, 0.01)
    for i in range(n):
        step = int(round(angle[i] / _STEP_DEG)) % N_ANGLES
        if mirrored[i]:
            here = fits[i, 1, np.roll(np.arange(N_ANGLES), -step)[upright]].max()
            other = np.roll(fits[i, 1], -step)[far].max()
            resolved[i] = 1 - confidence(other - here, usual[i], spread[i], 0.5)
        elif abs(angle[i]) >= min_turn_deg:
            margin = fits[:, 0, step] - nearest
            of_this = _along_stack(margin, good, 0.01)
            turned[i] = confidence(margin[i], of_this[0][i], of_this[1][i], prior)
            turned[i] *= 1 - flipped[i]
    return Poses(mirrored, angle, flipped * resolved, turned)


def _peak_deg(fit: np.ndarray) -> float:
    """Angle of the best fit, between the steps by a parabola, in (−180, 180]."""
    k = int(np.argmax(fit))
    left, middle, right = fit[k - 1], fit[k], fit[(k + 1) % N_ANGLES]
    bend = left - 2 * middle + right
    offset = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return 180 - (180 - (k + offset) * _STEP_DEG) % 360


# --------------------------------------------------------------------------------------------
# One section onto another
# --------------------------------------------------------------------------------------------


def onto(
    pictures: Pictures,
    scores: np.ndarray,
    poses: Poses,
    section: int,
    other: int,
    fineness: int = 1,
) -> Coarse:
    """Another section's picture as it lies on this one: mirrored, turned, moved, not deformed.

    Parameters
    ----------
    scores : of `pose_scores`, within whose reach both lie.
    poses : both sections are taken to lie as these say, but for a few degrees.
    fineness : of the picture, as of `Pictures.of`.
    """
    reach = scores.shape[1] // 2
    mirrored_here, angle_here = poses.taken(section)
    mirrored_there, angle_there = poses.taken(other)
    turn = angle_there - angle_here
    step = round((-turn if mirrored_here else turn) / _STEP_DEG) % N_ANGLES
    mirrored = mirrored_here != mirrored_there
    fit = scores[other, section - other + reach, int(mirrored)].astype(float)
    near = [_apart(k, step) <= _UPRIGHT_STEPS + 1 for k in range(N_ANGLES)]
    angle = _peak_deg(np.where(near, fit, -1.0))
    here = pictures.of(section, pictures.step_px[section], fineness).detail
    there = pictures.of(other, pictures.step_px[section], fineness)
    turned = posed(there.detail, mirrored, angle)
    size = SIZE_PX * fineness
    correlation = fft.irfft2(np.conj(fft.rfft2(here)) * fft.rfft2(turned), s=(size, size))
    shifts = np.r_[-(size // 4) : size // 4 + 1]
    correlation = correlation[shifts][:, shifts]
    row, column = np.unravel_index(np.argmax(correlation), correlation.shape)
    shift = -float(shifts[row]), -float(shifts[column])
    return Coarse(
        posed(there.detail, mirrored, angle, shift), posed(there.tissue, mirrored, angle, shift)
    )


# --------------------------------------------------------------------------------------------
# Order
# --------------------------------------------------------------------------------------------


def local_fits(pictures: Pictures, scores: np.ndarray, poses: Poses) -> np.ndarray:
    """How alike sections and their next three neighbours are, bends of the tissue aside.

    The fine structure of both is compared about every point, after either has been moved by the
    few pixels that suit it there best, and averaged over the tissue: what tells two neighbours from
    the next is finer than what the bending of each section moves.

    Returns
    -------
    (n, n) symmetric; NaN where sections are not within `WITNESSES` + 1 of each other.
    """
    n, furthest = len(pictures), min(WITNESSES + 1, scores.shape[1] // 2)
    fit = np.full((n, n), np.nan)
    moves = range(-_BEND_PX, _BEND_PX + 1)

    def about(picture: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(picture, 15)

    for i in range(n):
        here = pictures.of(i, pictures.step_px[i], _FINENESS)
        energy = np.sqrt(about(here.detail**2) + 1e-12)
        for j in range(i + 1, min(n, i + furthest + 1)):
            other = onto(pictures, scores, poses, i, j, _FINENESS)
            other_energy = np.sqrt(about(other.detail**2) + 1e-12)
            best = np.full(energy.shape, -1.0, np.float32)
            for move in itertools.product(moves, moves):
                moved = np.roll(other.detail, move, (0, 1))
                alike = about(here.detail * moved) / (energy * np.roll(other_energy, move, (0, 1)))
                np.maximum(best, alike, out=best)
            tissue = (here.tissue > 0.5) | (other.tissue > 0.5)
            fit[i, j] = fit[j, i] = best[tissue].mean() if tissue.any() else np.nan
    return fit


def judge_order(fit: np.ndarray, good: np.ndarray, *, prior: float = 0.05) -> list[Swap]:
    """Neighbours that change places, the surest first; no section is in two of them.

    Each of two neighbours should fit the sections on its own side better than the other one does.
    What a section fits badly everywhere, since it is torn or odd, cancels in the difference.

    Parameters
    ----------
    fit : of `local_fits`.
    good : (n,) bool: sections whose fit says something; the others are no witnesses.
    """
    n = len(fit)
    if n < _MIN_SECTIONS + 1:
        return []
    order = np.arange(n)
    found: list[Swap] = []
    while True:
        gain = np.array([_gain_of_swap(fit, order, p, good) for p in range(n - 1)])
        able = np.isfinite(gain)
        if not able.any():
            return found
        usual, spread = _along_stack(gain, able, 0.01)
        chance = np.where(able, confidence(gain, usual, spread, prior), 0.0)
        taken = {i for swap in found for i in (swap.first, swap.second)}
        for p in range(n - 1):
            if taken & {order[p], order[p + 1]}:
                chance[p] = 0.0
        p = int(np.argmax(chance))
        if chance[p] < 0.5:
            return found
        # once they are in order again, they are good witnesses for those beside them
        order[[p, p + 1]] = order[[p + 1, p]]
        first, second = sorted((int(order[p]), int(order[p + 1])))
        found.append(Swap(first, second, float(chance[p])))


@dataclass(frozen=True)
class Swap:
    """Two neighbours, as numbers along the stack, that should change places."""

    first: int
    second: int
    confidence: float


def _gain_of_swap(fit: np.ndarray, order: np.ndarray, p: int, good: np.ndarray) -> float:
    """How much better the sections at p and p + 1 fit their sides once they change places.

    The mean over the witnesses on each side; NaN where a side of the stack has none.
    """
    a, b = order[p], order[p + 1]
    sides = []
    before, after = order[max(0, p - WITNESSES) : p], order[p + 2 : p + 2 + WITNESSES]
    for witnesses, sign in ((before, 1), (after, -1)):
        gains = [sign * (fit[b, q] - fit[a, q]) for q in witnesses if good[q]]
        gains = [g for g in gains if math.isfinite(g)]
        if gains:
            sides.append(float(np.mean(gains)))
    return float(np.mean(sides)) if len(sides) == 2 else math.nan


@dataclass(frozen=True)
class Place:
    """A section that fits best between two others, as numbers along the stack."""

    section: int
    before: int
    after: int
    confidence: float


def judge_place(
    pictures: Pictures,
    suspects: Sequence[int],
    good: np.ndarray,
    reach: int,
    *,
    prior: float = 0.05,
) -> list[Place]:
    """Sections that fit far better elsewhere in the stack than where they lie.

    Parameters
    ----------
    suspects : sections that fit badly where they lie.
    good : (n,) bool: sections in their right places and poses, which the suspects are held to.
    """
    n = len(pictures)
    where = np.flatnonzero(good)
    if not suspects or len(where) < 4 * reach:
        return []
    # how much worse a section fits elsewhere is seen on some that lie where they should
    sample = where[np.unique(np.linspace(0, len(where) - 1, 8).round().astype(int))]
    usual, spread = robust(
        np.array([_elsewhere(pictures, i, where, reach)[0] for i in sample]), 0.03
    )
    found = []
    for i in suspects:
        gain, before, after = _elsewhere(pictures, i, where, reach)
        chance = float(confidence(np.array(gain), usual, spread, prior))
        if chance >= 0.5 and 0 <= before < after < n:
            found.append(Place(int(i), before, after, chance))
    return found


def _elsewhere(
    pictures: Pictures, section: int, where: np.ndarray, reach: int
) -> tuple[float, int, int]:
    """(best fit elsewhere minus fit where it lies, the two sections it then lies between)."""
    others = where[where != section]
    profile = fits_to(pictures, section, others)
    # of two neighbours both must agree
    pairs = np.minimum(profile[:-1], profile[1:])
    away = np.minimum(np.abs(others[:-1] - section), np.abs(others[1:] - section)) > reach
    near = np.sort(profile[np.abs(others - section) <= reach])[-2:]
    if not away.any() or near.size == 0:
        return -math.inf, -1, -1
    best = int(np.argmax(np.where(away, pairs, -np.inf)))
    return float(pairs[best] - near.min()), int(others[best]), int(others[best + 1])


def fits_to(pictures: Pictures, section: int, others: np.ndarray) -> np.ndarray:
    """Best correlation of a section, over all poses and shifts, with each of the others."""
    step_px = pictures.step_px[section]
    turned = _all_poses(pictures.of(section, step_px).detail)
    return np.array(
        [_best_shift(turned, pictures.of(int(j), step_px).detail).max() for j in others]
    )


# --------------------------------------------------------------------------------------------
# Damage
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """What of each section is not as its neighbours foretell, as shares of its tissue.

    Attributes
    ----------
    missing : (n,) the neighbours have tissue there, the section has none.
    misfit : (n,) structure is not where it should be, what is missing included.
    confidence : (n,) that this is more than sections of this stack differ anyway.
    """

    missing: np.ndarray
    misfit: np.ndarray
    confidence: np.ndarray


def judge_damage(
    pictures: Pictures, scores: np.ndarray, poses: Poses, positions_mm: np.ndarray
) -> Damage:
    """Find torn, folded and incomplete sections.

    In two rounds: those that look damaged in the first are no witnesses in the second.

    Parameters
    ----------
    positions_mm : (n,) along the stack; sections that lie further apart may differ by more.
    """
    n = len(pictures)
    missing, misfit, chance = np.zeros(n), np.zeros(n), np.zeros(n)
    if n < _MIN_SECTIONS:
        return Damage(missing, misfit, chance)
    seen: dict[tuple[int, ...], tuple[float, float]] = {}
    for _ in range(2):
        whole = chance < 0.5
        distance = np.ones(n)
        for i in range(n):
            near = [j for j in range(max(0, i - 3), min(n, i + 4)) if j != i and whole[j]]
            if len(near) < 2:
                missing[i], misfit[i] = 0.0, 0.0
                continue
            distance[i] = np.mean(np.sort(np.abs(positions_mm[near] - positions_mm[i]))[:2])
            weights = 1 / np.abs(np.array(near) - i)
            here = pictures.of(i, pictures.step_px[i])
            if (i, *near) not in seen:
                others = [onto(pictures, scores, poses, i, j) for j in near]
                before = np.array(near) < i
                seen[i, *near] = _unforeseen(here, others, weights, before)
            missing[i], misfit[i] = seen[i, *near]
            if near[0] > i or near[-1] < i:  # a brain's end tapers off: nothing foretells it
                distance[i] *= _ONE_SIDED
        farther = np.maximum(1.0, distance / max(float(np.median(distance)), 1e-9))
        chance = np.maximum(
            _conspicuous(misfit, _MISFIT, farther), _conspicuous(missing, _MISSING, farther)
        )
    return Damage(missing, misfit, chance)


def _conspicuous(share: np.ndarray, least: float, farther: np.ndarray) -> np.ndarray:
    """Confidence that a share is more than chance: one half at a limit, steeply more above it.

    Where sections of the stack, or those about it, fit badly anyway, the limit is higher.
    """
    n = len(share)
    middle, spread = robust(share, 1e-6)
    about = [np.median(np.delete(share[max(0, i - 4) : i + 5], min(i, 4))) for i in range(n)]
    limit = np.maximum(max(least, middle + 5 * spread), 3 * np.array(about)) * farther
    return 1 / (1 + np.exp(-np.clip(6 * (share - limit) / limit, -60, 60)))


def _unforeseen(
    here: Coarse, others: list[Coarse], weights: np.ndarray, before: np.ndarray
) -> tuple[float, float]:
    """Shares of the tissue that is missing and that does not fit, given the neighbours.

    Tissue is expected where the sections before and those after it have some.
    """
    every = np.array([other.tissue for other in others])
    sides = [every[side] for side in (before, ~before) if side.any()]
    tissue = np.min([np.median(side, axis=0) for side in sides], axis=0)
    detail = np.tensordot(weights, np.array([other.detail for other in others]), 1)
    expected = tissue > 0.5
    # a pixel to each side is what a rigid map leaves
    lacking = (tissue > 0.7) & (ndimage.maximum_filter(here.tissue, 3) < 0.3)

    def about(picture: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(picture, 3.0)

    alike = about(here.detail * detail)
    alike = alike / np.sqrt(about(here.detail**2) * about(detail**2) + 1e-12)
    either = expected | (here.tissue > 0.5)
    if not expected.any():
        return 0.0, 0.0
    return (
        np.count_nonzero(lacking) / np.count_nonzero(expected),
        np.count_nonzero(alike[either] < 0.3) / np.count_nonzero(either),
    )


# --------------------------------------------------------------------------------------------
# Look
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """How a section was stained and how sharp it is, as logarithms that differences are taken of.

    Attributes
    ----------
    level : of the tissue's median.
    contrast : of its spread (from the 10th to the 90th percentile) over the median.
    sharpness : of the energy of the finest structure over that of the next coarser one.
    """

    level: float
    contrast: float
    sharpness: float


def look_of(image: np.ndarray, mask: np.ndarray) -> Look:
    """Measure one prepared section; image and mask as of `coarse_picture`."""
    low, middle, high = np.maximum(np.quantile(image[mask], [0.1, 0.5, 0.9]), 1e-6)
    inside = ndimage.binary_erosion(mask, iterations=2)
    inside = inside if inside.any() else mask
    fine, coarse = ndimage.gaussian_filter(image, 1.0), ndimage.gaussian_filter(image, 3.0)
    finest, next_coarser = np.std((image - fine)[inside]), np.std((fine - coarse)[inside])
    return Look(
        level=math.log(middle),
        contrast=math.log(max(high - low, 1e-6) / middle),
        sharpness=math.log(max(float(finest), 1e-9) / max(float(next_coarser), 1e-9)),
    )


def outliers(values: np.ndarray, least: float, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """How far each value is from those about it, and how sure it is that this is no chance.

    Parameters
    ----------
    values : (n,) along the stack.
    least : a difference that is of no interest, whatever the spread.

    Returns
    -------
    difference : (n,) from the median of up to `reach` neighbours on either side.
    confidence : (n,) one half where the difference is five spreads of the stack, and `least`.
    """
    n = len(values)
    if n < _MIN_SECTIONS:
        return np.zeros(n), np.zeros(n)
    difference = np.array(
        [
            values[i]
            - np.median(np.delete(values[max(0, i - reach) : i + reach + 1], min(i, reach)))
            for i in range(n)
        ]
    )
    limit = max(least, 5 * robust(difference, 1e-6)[1])
    return difference, 1 / (1 + np.exp(-np.clip(6 * (np.abs(difference) - limit) / limit, -60, 60)))


# --------------------------------------------------------------------------------------------
# Gaps
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """More room between a section and the next than the stack has elsewhere.

    Attributes
    ----------
    before : number of the section along the stack after which there is room.
    missing : sections that would fit in.
    regular : whether the stack's sections are otherwise equally far apart.
    """

    before: int
    distance_mm: float
    missing: int
    regular: bool


def gaps(positions_mm: np.ndarray) -> list[Gap]:
    """Places where sections seem to be missing.

    In a stack of equal distances every place with room for one more counts; in an uneven one, only
    what is more than four times the median.

    Parameters
    ----------
    positions_mm : (n,) ascending.
    """
    distances = np.diff(positions_mm)
    if len(distances) < 4:
        return []
    usual = float(np.median(distances))
    regular = float(np.mean(np.abs(distances - usual) <= 0.2 * usual)) >= 0.6
    limit = 1.5 if regular else 4.0
    return [
        Gap(int(i), float(distances[i]), max(1, round(distances[i] / usual) - 1), regular)
        for i in np.flatnonzero(distances > limit * usual)
    ]
