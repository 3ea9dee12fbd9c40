"""One section's affine by landmarks and image together, and which landmarks contradict the others.

A landmark is a pair of points, one of the section and one of its MRI plane. People set a few of
them where an automatic fit has gone wrong, and now and then one on the wrong gyrus or under a wrong
name. So a section is turned and shifted by the landmarks first, wherever it lay, and then
fitted to its plane with the landmarks pulling (`motion.LandmarkPull`). Two things speak against a
landmark: what the others say of its place, and that without it the image fits far better.

All lengths are those of a human brain (`brain_size`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sbr_core.algorithms.alignment.motion import LandmarkPull
from sbr_core.algorithms.alignment.section_affine import SectionFit
from sbr_core.geometry import apply

_CONTRADICTS_MM = 6.0
"""Farther than this from where the others put it, a landmark contradicts them. What the best affine
of a section leaves between true points is 2 to 3 mm in the demo and in real sections."""
_SPREADS = 3.0
"""Or farther than so many times what the others disagree among themselves."""
_LARGEST_MM = 25.0
_STRETCHED = 0.25
"""Change of the distance of two landmarks that no section has, as a share."""
_FITS_BETTER = 1.25
"""Times as large a misfit with a landmark as without it speaks against it. Whole sections of a
brain differ by up to 1.3 among themselves (`trust`); one section in two places hardly does."""
_TURNS_DEG = (0.0, -12.0, 12.0, -24.0, 24.0)
"""About a single landmark, from which a section is fitted: a fit finds back from 6°."""
_MOST_DOUBTED = 5
"""Landmarks of which each is left out in turn, to see whether the image fits better without it."""
_NEAR_MM = 5.0
"""Landmarks nearer to each other than this tell little about a turn."""


@dataclass(frozen=True)
class LandmarkFit:
    """Result of `fit_by_landmarks`.

    Attributes
    ----------
    kept : indices of the landmarks that are obeyed.
    apart_mm : (n,) how far each landmark, obeyed or not, is from its place after the fit; section
        mm.
    """

    fit: SectionFit
    kept: tuple[int, ...]
    apart_mm: np.ndarray


def fit_by_landmarks(
    plane_mm: np.ndarray,
    section_mm: np.ndarray,
    prior: np.ndarray,
    fit: Callable[[np.ndarray, LandmarkPull], SectionFit],
) -> LandmarkFit:
    """The affine by the landmarks that agree, and by the image.

    Parameters
    ----------
    plane_mm, section_mm : (n, 2), n >= 1: the same points on the plane and on the section.
    prior : (3, 3) section_from_plane_mm, whose stretch is kept to start from.
    fit : of a section from a start (3, 3), with landmarks that pull.
    """
    best: tuple[SectionFit, tuple[int, ...]] | None = None
    for candidates in _candidates(apply(prior, plane_mm), section_mm):
        fits = []
        for kept in candidates:
            plane, section = plane_mm[list(kept)], section_mm[list(kept)]
            for angle_deg in _TURNS_DEG if len(kept) == 1 else (0.0,):
                start = _turned(laid_by(plane, section, prior), section[0], angle_deg)
                fits.append((fit(start, LandmarkPull(plane, section)), kept))
        # what cannot be compared has no cost, and then the first counts
        here = min(fits, key=lambda each: np.nan_to_num(each[0].cost))
        if best is None or here[0].cost * _FITS_BETTER < best[0].cost:
            best = here
    found, kept = best
    apart = apply(found.working_from_plane_mm, plane_mm) - section_mm
    return LandmarkFit(found, kept, np.linalg.norm(apart, axis=1))


def fits_worse(cost: float, without: float) -> bool:
    """Whether a section fits far worse where its landmarks put it than where it fits by itself."""
    return bool(cost > _FITS_BETTER * without)


def laid_by(plane_mm: np.ndarray, section_mm: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(3, 3) `prior` shifted by one landmark, turned and shifted by more.

    The least-squares turn about the centroids (Kabsch 1976), drawn to none where the landmarks lie
    close together.
    """
    laid = apply(prior, plane_mm)
    centre, target = laid.mean(axis=0), section_mm.mean(axis=0)
    (a, b), (c, d) = (laid - centre).T @ (section_mm - target)
    angle = np.arctan2(b - c, a + d + _NEAR_MM**2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    motion = np.eye(3)
    motion[:2, :2], motion[:2, 2] = turn, target - turn @ centre
    return motion @ prior


def _turned(affine: np.ndarray, centre: np.ndarray, angle_deg: float) -> np.ndarray:
    """(3, 3) an affine, then a turn about a point (2,)."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    turn[:2, 2] = centre - turn[:2, :2] @ centre
    return turn @ affine


def _candidates(laid_mm: np.ndarray, section_mm: np.ndarray) -> list[list[tuple[int, ...]]]:
    """Sets of landmarks that agree: the best of the first list, or where it fits far better of the
    next.

    Parameters
    ----------
    laid_mm, section_mm : (n, 2), where the prior lays the points of the plane, and where they
        belong.
    """
    kept = tuple(range(len(laid_mm)))
    while len(kept) > 2:
        chosen = list(kept)
        excess = _contradiction(laid_mm[chosen], section_mm[chosen])
        if excess.max() <= 1:
            but_one = list(combinations(kept, len(kept) - 1))
            return [[kept], but_one] if len(kept) <= _MOST_DOUBTED else [[kept]]
        if len(kept) == 3:
            pairs = [p for p in combinations(kept, 2) if _agree(laid_mm, section_mm, p)]
            return [pairs or [(i,) for i in kept]]
        kept = tuple(np.delete(kept, excess.argmax()).tolist())
    alone = [(i,) for i in kept]
    if len(kept) < 2:
        return [alone]
    return [[kept], alone] if _agree(laid_mm, section_mm, kept) else [alone]


def _agree(laid_mm: np.ndarray, section_mm: np.ndarray, pair: Sequence[int]) -> bool:
    """Whether two landmarks are as far apart on the section as on the plane, nearly."""
    first, second = pair
    lengths = [
        float(np.hypot(*(points[first] - points[second]))) for points in (laid_mm, section_mm)
    ]
    return abs(lengths[0] - lengths[1]) <= max(_CONTRADICTS_MM, _STRETCHED * np.mean(lengths))


def _contradiction(laid_mm: np.ndarray, section_mm: np.ndarray) -> np.ndarray:
    """(n,) distance of each landmark from where the others put it, in those that are allowed."""
    excess = []
    for i in range(len(laid_mm)):
        others = np.arange(len(laid_mm)) != i
        motion = laid_by(laid_mm[others], section_mm[others], np.eye(3))
        apart = np.linalg.norm(apply(motion, laid_mm) - section_mm, axis=1)
        around = laid_mm[others] - laid_mm[others].mean(axis=0)
        spread = max(float(np.sqrt((around**2).sum(axis=1).mean())), _NEAR_MM)
        away = float(np.hypot(*(laid_mm[i] - laid_mm[others].mean(axis=0))))
        usual = float(np.sqrt((apart[others] ** 2).mean()))
        allowed = max(_CONTRADICTS_MM, _SPREADS * usual) * np.hypot(1.0, away / spread)
        excess.append(apart[i] / min(allowed, _LARGEST_MM))
    return np.array(excess)
