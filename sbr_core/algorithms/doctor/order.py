"""Which sections have changed places or lie elsewhere in the stack, and where some are missing.

Sections are numbers along the stack.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sbr_core.algorithms.doctor.evidence import MIN_SECTIONS, along_stack, confidence
from sbr_core.algorithms.doctor.pictures import StackPictures
from sbr_core.algorithms.doctor.poses import Poses, registered_neighbour
from sbr_core.algorithms.robust import median_and_spread

FLANKING = 2
"""Sections on either side that two neighbours are compared with; further ones hardly differ in how
well they fit the one and the other."""
_FINENESS = 2
"""Of the pictures that show an order: what parts neighbours is finer than what shows a
pose."""
_BEND_PX = 3
"""Pixels of that finer grid (one in forty of a section) that tissue may be bent by; the time grows
with the square."""
_WINDOW_PX = 15
"""Side of the neighbourhood that is compared about a point: a few gyri, which bend as one."""
_MIN_ENERGY = 1e-12
"""Keeps the correlation of two empty neighbourhoods at 0."""
_SAMPLED = 8
"""Sections in their places whose best fit elsewhere is measured; each costs as much as a
suspect."""
_MIN_PLACE_SPREAD = 0.03
"""Least spread of how much better sections fit elsewhere, of which few give a poor estimate."""
_REGULAR_WITHIN, _REGULAR_SHARE = 0.2, 0.6
"""A stack is regular if this share of its distances is this near to the median."""
_GAP_REGULAR, _GAP_UNEVEN = 1.5, 4.0
"""Medians of distance above which there is a gap: room for one more (half way between one distance
and two) in a regular stack; beyond what sparse sampling varies by in an uneven one, as of Allen's
sections 0.4 to 6.4 mm apart."""


# --------------------------------------------------------------------------------------------
# Neighbours that have changed places
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Swap:
    """Two neighbours that should change places."""

    first: int
    second: int
    confidence: float


def local_fits(pictures: StackPictures, scores: np.ndarray, poses: Poses) -> np.ndarray:
    """How alike sections and their next three neighbours are, bends of the tissue aside.

    The fine structure of both is compared about every point, after either has been moved by the
    few pixels that suit it there best, and averaged over the tissue: the difference between
    two neighbours and the next is finer than what the bending of each section moves.

    Parameters
    ----------
    scores, poses : of `poses`.

    Returns
    -------
    (n, n) symmetric, correlations; NaN where sections are not within `FLANKING` + 1 of each other.
    """
    n, furthest = len(pictures), min(FLANKING + 1, scores.shape[1] // 2)
    fit = np.full((n, n), np.nan)
    moves = range(-_BEND_PX, _BEND_PX + 1)

    def about(picture: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(picture, _WINDOW_PX)

    for i in range(n):
        here = pictures.of(i, pictures.step_px[i], _FINENESS)
        energy = np.sqrt(about(here.detail**2) + _MIN_ENERGY)
        for j in range(i + 1, min(n, i + furthest + 1)):
            other = registered_neighbour(pictures, scores, poses, i, j, _FINENESS)
            other_energy = np.sqrt(about(other.detail**2) + _MIN_ENERGY)
            best = np.full(energy.shape, -1.0, np.float32)
            for move in itertools.product(moves, moves):
                moved = np.roll(other.detail, move, (0, 1))
                alike = about(here.detail * moved) / (energy * np.roll(other_energy, move, (0, 1)))
                np.maximum(best, alike, out=best)
            tissue = (here.tissue > 0.5) | (other.tissue > 0.5)
            fit[i, j] = fit[j, i] = best[tissue].mean() if tissue.any() else np.nan
    return fit


def judge_order(fit: np.ndarray, reliable: np.ndarray, *, prior: float = 0.05) -> list[Swap]:
    """Neighbours that change places, the surest first; no section is in two of them.

    Each of two neighbours should fit the sections on its own side better than the other one does.
    What a section fits badly everywhere, since it is torn or odd, cancels in the difference.

    Parameters
    ----------
    fit : of `local_fits`.
    reliable : (n,) bool: sections that others may be compared with.
    prior : share of pairs that are expected to have changed places.
    """
    n = len(fit)
    if n < MIN_SECTIONS + 1:
        return []
    order = np.arange(n)
    swaps: list[Swap] = []
    while True:
        gain = np.array([_gain_of_swap(fit, order, p, reliable) for p in range(n - 1)])
        able = np.isfinite(gain)
        if not able.any():
            return swaps
        usual, spread = along_stack(gain, able)
        chance = np.where(able, confidence(gain, usual, spread, prior), 0.0)
        already_swapped = {i for swap in swaps for i in (swap.first, swap.second)}
        for p in range(n - 1):
            if already_swapped & {order[p], order[p + 1]}:
                chance[p] = 0.0
        p = int(np.argmax(chance))
        if chance[p] < 0.5:
            return swaps
        # once they are in order again, those beside them may be compared with them
        order[[p, p + 1]] = order[[p + 1, p]]
        first, second = sorted((int(order[p]), int(order[p + 1])))
        swaps.append(Swap(first, second, float(chance[p])))


def _gain_of_swap(fit: np.ndarray, order: np.ndarray, p: int, reliable: np.ndarray) -> float:
    """How much better the sections at p and p + 1 fit their sides once they change places.

    The mean over the flanking sections of each side; NaN where a side of the stack has none.
    """
    a, b = order[p], order[p + 1]
    sides = []
    before, after = order[max(0, p - FLANKING) : p], order[p + 2 : p + 2 + FLANKING]
    for flanking, sign in ((before, 1), (after, -1)):
        gains = [sign * (fit[b, q] - fit[a, q]) for q in flanking if reliable[q]]
        gains = [g for g in gains if math.isfinite(g)]
        if gains:
            sides.append(float(np.mean(gains)))
    return float(np.mean(sides)) if len(sides) == 2 else math.nan


# --------------------------------------------------------------------------------------------
# Sections that lie elsewhere
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A section that fits best between two others, far from where it lies."""

    section: int
    before: int
    after: int
    confidence: float


def judge_place(
    pictures: StackPictures,
    suspects: Sequence[int],
    reliable: np.ndarray,
    reach: int,
    *,
    prior: float = 0.05,
) -> list[Place]:
    """Sections that fit far better elsewhere in the stack than where they lie.

    Parameters
    ----------
    suspects : sections that fit badly where they lie.
    reliable : (n,) bool: sections in their right places and poses, which suspects are compared
        with.
    reach : neighbours on either side; what is nearer is not elsewhere.
    prior : share of suspects that are expected to be misplaced.
    """
    where = np.flatnonzero(reliable)
    if not suspects or len(where) < 4 * reach:  # elsewhere would hardly be another part
        return []
    # how much worse a section fits elsewhere is seen on some that lie where they should
    sample = where[np.unique(np.linspace(0, len(where) - 1, _SAMPLED).round().astype(int))]
    gains = np.array([_best_elsewhere(pictures, i, where, reach)[0] for i in sample])
    usual, spread = median_and_spread(gains, _MIN_PLACE_SPREAD)
    places = []
    for i in suspects:
        gain, before, after = _best_elsewhere(pictures, i, where, reach)
        chance = float(confidence(np.array(gain), usual, spread, prior))
        if chance >= 0.5 and 0 <= before < after:
            places.append(Place(int(i), before, after, chance))
    return places


def _best_elsewhere(
    pictures: StackPictures, section: int, where: np.ndarray, reach: int
) -> tuple[float, int, int]:
    """(best fit elsewhere minus fit where it lies, the two sections it then lies between).

    (−inf, −1, −1) where there is no elsewhere, or nothing to compare with where it lies.
    """
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


def fits_to(pictures: StackPictures, section: int, others: np.ndarray) -> np.ndarray:
    """Best correlation of a section, over all poses and shifts, with each of the others."""
    return pictures.correlations(section, others.tolist()).max(axis=(1, 2))


# --------------------------------------------------------------------------------------------
# Missing sections
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """More room between a section and the next than the stack has elsewhere.

    Attributes
    ----------
    before : the section after which there is room.
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
    if len(distances) < MIN_SECTIONS - 1:
        return []
    usual = float(np.median(distances))
    regular = float(np.mean(np.abs(distances - usual) <= _REGULAR_WITHIN * usual)) >= _REGULAR_SHARE
    limit = _GAP_REGULAR if regular else _GAP_UNEVEN
    return [
        Gap(int(i), float(distances[i]), max(1, round(distances[i] / usual) - 1), regular)
        for i in np.flatnonzero(distances > limit * usual)
    ]
