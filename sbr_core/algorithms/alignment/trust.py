"""How far a section's affine can be trusted, from what is missing and how it fits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DOUBTFUL = 0.5
"""Trust below which a section is pointed out."""
_DOUBTFUL_TIMES = 1.5
"""Misfit, in those usual around a section, at which it is trusted by half. Whole sections of a
brain stay below 1.3; with a quarter or more of the tissue moved it is 1.4 and more
(benchmarks/2026-11-30_broken_sections.md)."""
_STEEPNESS = 12.0
"""Of the fall about that misfit: 0.98 at 1, 0.02 at 2."""
_NEIGHBOURS = 12
_LEAST_NEIGHBOURS = 3
"""Sections whose median misfit is the usual one, and below which number there is none."""


def usual_cost(
    position_mm: float, positions_mm: Sequence[float], costs: Sequence[float]
) -> float | None:
    """Median misfit of the twelve sections nearest in position; None where fewer than three are.

    Parameters
    ----------
    positions_mm, costs : of the other sections; costs that are not known are NaN.
    """
    known = np.isfinite(np.asarray(costs, float))
    at_mm, values = np.asarray(positions_mm, float)[known], np.asarray(costs, float)[known]
    if len(values) < _LEAST_NEIGHBOURS:
        return None
    nearest = np.argsort(np.abs(at_mm - position_mm), kind="stable")[:_NEIGHBOURS]
    return float(np.median(values[nearest]))


def trust(cost: float, usual: float | None, missing: float) -> float:
    """How far a section's affine can be trusted, from 0 to 1.

    The share of the plane's tissue that there is, times what the misfit leaves of it: nearly all at
    that of the neighbours, half at one and a half times as much.

    Parameters
    ----------
    cost, missing : of the section's fit; a cost of NaN, where nothing could be compared, is 0.
    usual : misfit of its neighbours, see `usual_cost`; None leaves the misfit out.
    """
    if not math.isfinite(cost):
        return 0.0
    times = 1.0 if usual is None else cost / max(usual, 1e-6)
    exponent = min(_STEEPNESS * (times - _DOUBTFUL_TIMES) / _DOUBTFUL_TIMES, 50.0)
    return (1 - missing) / (1 + math.exp(exponent))


def doubt(cost: float, usual: float | None, missing: float) -> str:
    """Why a section is trusted little; "" where it is not."""
    value = trust(cost, usual, missing)
    if value >= DOUBTFUL:
        return ""
    if not math.isfinite(cost):
        return "its affine is not to be trusted: there was nothing to compare"
    why = []
    if missing > 0:
        why.append(f"{100 * missing:.0f} % of its MRI plane's tissue is missing in it")
    if usual is not None and cost > usual:
        why.append(
            f"it fits its plane {cost / max(usual, 1e-6):.1f} times as badly as its neighbours"
        )
    return f"its affine is to be trusted little ({value:.2f} of 1): {'; '.join(why)}"
