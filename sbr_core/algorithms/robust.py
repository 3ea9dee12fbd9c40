"""Statistics that a few odd values do not move."""

from __future__ import annotations

import math

import numpy as np

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def median_and_spread(values: np.ndarray, floor: float) -> tuple[float, float]:
    """(median, robust standard deviation of at least `floor`) of the finite values.

    (0, inf) if there is none: then no value is odd.
    """
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, math.inf
    middle = float(np.median(values))
    return middle, max(MAD_TO_SIGMA * float(np.median(np.abs(values - middle))), floor)
