"""Which sections are torn, folded or incomplete: what their neighbours do not predict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sbr_core.algorithms.doctor.evidence import MIN_SECTIONS, excess_confidence, median_around
from sbr_core.algorithms.doctor.pictures import CoarsePicture, StackPictures
from sbr_core.algorithms.doctor.poses import Poses, registered_neighbour
from sbr_core.algorithms.robust import median_and_spread

_MISFIT = 0.07
"""Share of a section that must not fit its neighbours before it may count as damaged."""
_MISSING = 0.1
"""Share of its tissue that a section must lack; more than of the above, since masks differ too."""
_PREDICTING = 3
"""Neighbours on either side that predict a section: their median outvotes one that is odd."""
_ONE_SIDED = 2.0
"""Times farther that neighbours on one side only count as: a brain's end tapers off, and nothing
predicts it."""
_SPREADS, _TIMES_AROUND, _AROUND = 5.0, 3.0, 4
"""The limit is raised to this many spreads of the stack above its median, and to this many times
the median of so many sections about it: where sections fit badly anyway."""
_EXPECTED, _SURELY_EXPECTED, _ABSENT = 0.5, 0.7, 0.3
"""Shares of tissue in a grid pixel: where neighbours predict tissue; where they do beyond the
jitter of an edge; and where a section has none."""
_RESEMBLES = 0.3
"""Local correlation below which structure is not that of the neighbours."""
_ABOUT_PX = 3.0
"""Sigma of that local correlation, grid pixels: as coarse as the band, so it holds some of it."""
_MIN_ENERGY = 1e-12
"""Keeps the correlation of two empty places at 0."""


@dataclass(frozen=True)
class Damage:
    """What of each section is not as its neighbours predict, as shares of its tissue.

    Attributes
    ----------
    missing : (n,) in [0, 1]; the neighbours have tissue there, the section has none.
    misfit : (n,) in [0, 1]; structure is not where it should be, what is missing included.
    confidence : (n,) that this is more than sections of this stack differ anyway.
    """

    missing: np.ndarray
    misfit: np.ndarray
    confidence: np.ndarray


def judge_damage(
    pictures: StackPictures, scores: np.ndarray, poses: Poses, positions_mm: np.ndarray
) -> Damage:
    """Find torn, folded and incomplete sections.

    In two rounds: those that look damaged in the first predict nothing in the second.

    Parameters
    ----------
    scores, poses : of `poses`.
    positions_mm : (n,) along the stack; sections that lie further apart may differ by more.
    """
    n = len(pictures)
    missing, misfit, chance = np.zeros(n), np.zeros(n), np.zeros(n)
    if n < MIN_SECTIONS:
        return Damage(missing, misfit, chance)
    measured: dict[tuple[int, ...], tuple[float, float]] = {}
    for _ in range(2):
        whole = chance < 0.5
        distance = np.ones(n)
        for i in range(n):
            around = range(max(0, i - _PREDICTING), min(n, i + _PREDICTING + 1))
            near = [j for j in around if j != i and whole[j]]
            if len(near) < 2:
                missing[i], misfit[i] = 0.0, 0.0
                continue
            distance[i] = np.mean(np.sort(np.abs(positions_mm[near] - positions_mm[i]))[:2])
            if (i, *near) not in measured:
                others = [registered_neighbour(pictures, scores, poses, i, j) for j in near]
                here = pictures.of(i, pictures.step_px[i])
                measured[i, *near] = _missing_and_misfit(here, others, np.array(near) - i)
            missing[i], misfit[i] = measured[i, *near]
            if near[0] > i or near[-1] < i:
                distance[i] *= _ONE_SIDED
        farther = np.maximum(1.0, distance / max(float(np.median(distance)), 1e-9))
        chance = np.maximum(
            excess_confidence(misfit, _limit(misfit, _MISFIT) * farther),
            excess_confidence(missing, _limit(missing, _MISSING) * farther),
        )
    return Damage(missing, misfit, chance)


def _limit(share: np.ndarray, least: float) -> np.ndarray:
    """(n,) share from which damage is likely; higher where sections fit badly anyway."""
    middle, spread = median_and_spread(share, 1e-6)
    around = _TIMES_AROUND * median_around(share, _AROUND)
    return np.maximum(max(least, middle + _SPREADS * spread), around)


def _missing_and_misfit(
    here: CoarsePicture, others: list[CoarsePicture], offsets: np.ndarray
) -> tuple[float, float]:
    """Shares of the tissue that is missing and that does not fit, given the neighbours.

    Tissue is expected where the sections before and those after it have some.

    Parameters
    ----------
    offsets : of the neighbours along the stack, none of them 0.
    """
    every = np.array([other.tissue for other in others])
    before = offsets < 0
    sides = [every[side] for side in (before, ~before) if side.any()]
    tissue = np.min([np.median(side, axis=0) for side in sides], axis=0)
    weights = 1 / np.abs(offsets)
    detail = np.tensordot(weights, np.array([other.detail for other in others]), 1)
    expected = tissue > _EXPECTED
    if not expected.any():
        return 0.0, 0.0
    # a pixel to each side is what a rigid map leaves
    lacking = (tissue > _SURELY_EXPECTED) & (ndimage.maximum_filter(here.tissue, 3) < _ABSENT)

    def about(picture: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(picture, _ABOUT_PX)

    alike = about(here.detail * detail)
    alike = alike / np.sqrt(about(here.detail**2) * about(detail**2) + _MIN_ENERGY)
    either = expected | (here.tissue > _EXPECTED)
    return (
        np.count_nonzero(lacking) / np.count_nonzero(expected),
        np.count_nonzero(alike[either] < _RESEMBLES) / np.count_nonzero(either),
    )
