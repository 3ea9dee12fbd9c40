"""How evidence becomes confidence: a difference measured against its spread over the stack."""

from __future__ import annotations

import numpy as np

from sbr_core.algorithms.robust import median_and_spread

MIN_SECTIONS = 5
"""Fewer have no usual value and no spread about it: nothing is claimed."""
MIN_SPREAD = 0.01
"""Differences of correlation below this are chance, however equal the sections are."""
_FREEDOM = 4
"""Degrees of freedom of Student's t: tails heavy enough that a single odd section is not accused
beyond doubt, and a spread that is finite."""
_ENOUGH_NEIGHBOURS = 8
"""Fewer values have no median absolute deviation worth the name; the whole stack's is taken."""
_MOST_EXPONENT = 60.0
"""Keeps exp() finite; a probability of e⁻⁶⁰ prints as 0 all the same."""
_STEEPNESS = 6.0
"""Of `excess_confidence`: 0.05 at half the limit, 0.95 at one and a half."""


def _log_t(z: np.ndarray) -> np.ndarray:
    """Logarithm of Student's t density with `_FREEDOM` degrees, without its constant."""
    return -(_FREEDOM + 1) / 2 * np.log1p(np.asarray(z, float) ** 2 / _FREEDOM)


def _bounded_exp(exponent: np.ndarray) -> np.ndarray:
    return np.exp(np.clip(exponent, -_MOST_EXPONENT, _MOST_EXPONENT))


def confidence(
    value: np.ndarray, usual: np.ndarray, spread: np.ndarray, prior: float
) -> np.ndarray:
    """Probability that a section is harmed, from how much better the other hypothesis fits.

    If all is well, the difference lies about `usual` < 0; if the other hypothesis is the truth, the
    two change places, and it lies about −`usual`. Both with the same spread, and with tails as
    heavy as Student's t has them. Where `usual` is small against `spread`, both hypotheses look
    alike and this is `prior`.

    Parameters
    ----------
    value : fit of the other hypothesis minus that of the given one.
    usual : its median over comparable sections.
    spread : its robust standard deviation over them, above 0.
    prior : probability before anything was looked at, in (0, 1).

    Returns
    -------
    in (0, 1), of the shape that the arguments broadcast to.
    """
    usual = np.minimum(usual, 0.0)
    well, harmed = _log_t((value - usual) / spread), _log_t((value + usual) / spread)
    return 1 / (1 + (1 - prior) / prior * _bounded_exp(well - harmed))


def excess_confidence(value: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Confidence that a value is more than chance: one half at its limit, steeply more above it.

    Parameters
    ----------
    value : at least 0.
    limit : above 0.
    """
    return 1 / (1 + _bounded_exp(-_STEEPNESS * (value - limit) / limit))


def along_stack(
    values: np.ndarray, reliable: np.ndarray, floor: float = MIN_SPREAD, reach: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Median and spread about each section, of the reliable sections within `reach` of it.

    The spread is that of the whole stack where that is larger, so that few equal neighbours do not
    make a usual value look odd.

    Parameters
    ----------
    values : (n,) along the stack.
    reliable : (n,) bool, which of them count.
    floor : least spread.
    reach : sections on either side; the anatomy of a brain changes over more.

    Returns
    -------
    (n,) medians, (n,) robust standard deviations.
    """
    n = len(values)
    middle, spread = np.zeros(n), np.zeros(n)
    whole = median_and_spread(values[reliable], floor)
    for i in range(n):
        near = np.arange(max(0, i - reach), min(n, i + reach + 1))
        near = near[reliable[near] & (near != i)]
        enough = near.size >= _ENOUGH_NEIGHBOURS
        middle[i], spread[i] = median_and_spread(values[near], floor) if enough else whole
    residual = median_and_spread((values - middle)[reliable], floor)[1]
    return middle, np.maximum(spread, residual)


def median_around(values: np.ndarray, reach: int) -> np.ndarray:
    """(n,) median of the values of up to `reach` sections on either side, without the own one."""
    around = [
        np.delete(values[max(0, i - reach) : i + reach + 1], min(i, reach))
        for i in range(len(values))
    ]
    return np.array([np.median(some) for some in around])
