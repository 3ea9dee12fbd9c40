"""Tissue that is torn or missing, and stains that are uneven."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from sbr_core.algorithms.simulation.waves import Waves

TEAR, MISSING_PIECE = "tear", "missing piece"
"""Kinds of damage, as a manifest's notes name them."""
_SLIDE_ANGLES = {TEAR: -0.6, MISSING_PIECE: 3.6}
"""Where on the rim of the demo's sections the damage is, radians: one upper, one lower side."""

_CLEFT_LENGTH, _CLEFT_HALF_WIDTH = (0.05, 0.13), (0.0015, 0.004)
"""Of clefts across gyri, as shares of the brain's extent: in a human hemisphere 4 to 10 mm, about
the depth of a sulcus, and 0.2 to 0.6 mm wide, chosen by eye after cracks in Nissl sections."""


def _from_rim(
    points_mm: np.ndarray, tissue_mm: np.ndarray, inward: np.ndarray, width_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (...) of points (..., 2): inwards from the tissue's rim, and across.

    Parameters
    ----------
    tissue_mm : (n, 2) points all over the tissue.
    inward : (2,) unit vector from the rim to the tissue's centre.
    width_mm : half the width of the strip that decides where the rim is.
    """
    sideways = np.array([-inward[1], inward[0]])
    centre = tissue_mm.mean(axis=0)
    spokes = tissue_mm - centre
    near = spokes[np.abs(spokes @ sideways) < width_mm]
    rim = centre + inward * (near @ inward).min(initial=0.0)
    return (points_mm - rim) @ inward, (points_mm - rim) @ sideways


def lost_on_slide(
    flat_mm: np.ndarray, kind: str, tissue_flat_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Where tissue of the demo is torn or missing, bool (...), at points of the slide (..., 2).

    Parameters
    ----------
    kind : `TEAR`, `MISSING_PIECE`, or anything else where nothing is lost.
    tissue_flat_mm : (n, 2) points all over the tissue.
    """
    if kind not in _SLIDE_ANGLES:
        return np.zeros(flat_mm.shape[:-1], bool)
    angle = _SLIDE_ANGLES[kind]
    inward = -np.array([math.cos(angle), math.sin(angle)])
    along, across = _from_rim(flat_mm, tissue_flat_mm, inward, 6.0)
    if kind == TEAR:  # a winding cleft that narrows inwards
        middle = 2.5 * np.sin(along / 6.0)
        half_width = 2.2 * np.clip(1 - along / 38.0, 0, None)
        return np.abs(across - middle) < half_width
    ragged = 1.2 * Waves(rng, 2, (6.0, 20.0))(flat_mm)
    return np.hypot(along, across) < 18.0 + ragged


def extent_of(tissue_mm: np.ndarray) -> float:
    """Side of the square as large as the box around points (n, 2), mm."""
    return float(np.sqrt(np.prod(np.maximum(np.ptp(tissue_mm, axis=0), 1e-6))))


def draw_damage(
    sections: Sequence[str], tears: float, missing_pieces: float, seed: int
) -> dict[str, str]:
    """Which sections are damaged, and how: ``tear``, ``missing piece`` or an empty text.

    Parameters
    ----------
    tears, missing_pieces : shares of the sections; no section gets both.
    """
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(len(sections))
    n_torn = round(tears * len(sections))
    n_missing = min(round(missing_pieces * len(sections)), len(sections) - n_torn)
    kinds = dict.fromkeys(sections, "")
    for place, index in enumerate(order[: n_torn + n_missing]):
        kinds[sections[index]] = TEAR if place < n_torn else MISSING_PIECE
    return kinds


def lost_tissue(
    plane_mm: np.ndarray, tissue_mm: np.ndarray, kind: str, rng: np.random.Generator
) -> np.ndarray:
    """Where tissue is torn or missing, bool (...), at points of the plane (..., 2).

    A tear winds inwards from the rim and narrows; a missing piece has a ragged outline.

    Parameters
    ----------
    tissue_mm : (n, 2) points all over the tissue.
    kind : of `draw_damage`.
    """
    extent = extent_of(tissue_mm)
    angle = rng.uniform(-math.pi, math.pi)
    inward = np.array([math.cos(angle), math.sin(angle)])
    along, across = _from_rim(plane_mm, tissue_mm, inward, 0.05 * extent)
    ragged = Waves(rng, 2, (0.04 * extent, 0.2 * extent))(plane_mm)
    if kind == TEAR:
        length = rng.uniform(0.25, 0.45) * extent
        middle = 0.02 * extent * np.sin(along / (0.05 * extent)) + 0.004 * extent * ragged
        half_width = rng.uniform(0.008, 0.018) * extent * np.clip(1 - along / length, 0, None)
        return np.abs(across - middle) < half_width
    if kind == MISSING_PIECE:
        radius = rng.uniform(0.1, 0.17) * extent
        return np.hypot(along, across) < radius + 0.012 * extent * ragged
    return np.zeros(plane_mm.shape[:-1], bool)


def gyral_tears(
    plane_mm: np.ndarray,
    tissue_mm: np.ndarray,
    brain_extent_mm: float,
    mean_number: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Where tissue is torn, bool (...), by narrow clefts into the gyri at points (..., 2).

    They are edges in a section that its plane does not have.

    Parameters
    ----------
    tissue_mm : (n, 2) points all over the tissue.
    mean_number : of the clefts, whose number is drawn (Poisson).
    """
    lost = np.zeros(plane_mm.shape[:-1], bool)
    for _ in range(rng.poisson(mean_number)):
        angle, slant = rng.uniform(-math.pi, math.pi), rng.uniform(-0.5, 0.5)
        inward = np.array([math.cos(angle), math.sin(angle)])
        along, across = _from_rim(plane_mm, tissue_mm, inward, 0.02 * brain_extent_mm)
        length = rng.uniform(*_CLEFT_LENGTH) * brain_extent_mm
        phase, wave_mm = rng.uniform(0, 2 * math.pi), 0.04 * brain_extent_mm
        middle = slant * along + 0.1 * wave_mm * np.sin(2 * math.pi * along / wave_mm + phase)
        half_width = rng.uniform(*_CLEFT_HALF_WIDTH) * brain_extent_mm
        lost |= np.abs(across - middle) < half_width * np.clip(1 - along / length, 0, 1.5)
    return lost


def staining_field(
    plane_mm: np.ndarray, tissue_mm: np.ndarray, unevenness: float, rng: np.random.Generator
) -> np.ndarray:
    """A smooth positive factor (...), at points of the plane (..., 2): uneven staining.

    A slope across the section and blotches, whose logarithm has a standard deviation of about
    `unevenness`.
    """
    extent = extent_of(tissue_mm)
    slope = rng.normal(0, 1, 2)
    centred = (plane_mm - tissue_mm.mean(axis=0)) / (0.5 * extent)
    blotches = Waves(rng, 2, (0.35 * extent, 1.1 * extent), 6)(plane_mm)
    return np.exp(unevenness * (0.7 * centred @ slope + 0.6 * blotches))


def stained_and_damaged(
    signal: np.ndarray,
    cover: np.ndarray,
    spacing_mm: float,
    tissue_mm: np.ndarray,
    damage: str,
    unevenness: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A look on its plane, stained stronger here and weaker there, torn or with a piece missing.

    Strength and contrast of the stain (a factor and an exponent) differ from section to section.

    Parameters
    ----------
    signal, cover : (rows, columns), the look and where it is tissue.
    damage : of `draw_damage`.

    Returns
    -------
    signal and cover, new arrays.
    """
    y, x = np.indices(signal.shape)
    plane_mm = np.stack([x, y], axis=-1) * spacing_mm
    gain, exponent = np.exp(0.6 * unevenness * rng.normal(size=2))
    field = staining_field(plane_mm, tissue_mm, unevenness, rng)
    lost = lost_tissue(plane_mm, tissue_mm, damage, rng)
    present = gaussian_filter((~lost).astype(np.float32), 0.6)
    return (gain * field * signal**exponent).astype(np.float32), cover * present
