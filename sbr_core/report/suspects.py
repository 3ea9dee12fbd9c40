"""Which sections are probably wrong: by what was measured of them, and by what `trust` expects.

An expected error sees what images show. A mirrored section of a symmetric brain looks right, and
only landmarks or labels tell that it is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sbr_core.artifacts.rows import Trusted
from sbr_core.report.corrections import Corrected
from sbr_core.report.measures import Measured
from sbr_core.report.page import number

_TIMES = 5.0
"""Times the median from which a landmark error may be an outlier."""
_DEVIATIONS = 5.0
"""Robust standard deviations from the median from which a value may be one: more than a brain's
sections differ when all of them are right, also where some are many times better than others."""
_SD_OF_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_POOR_DICE = 0.5
"""Share of the median below which a section's Dice may be an outlier."""
_NOTHING = 1e-3
"""Times the median below which an error is as good as none."""
_FEWEST = 3
"""Sections that have a usual value."""
_MOST_NAMED = 3
"""Sections that are named as making most of a mean."""
_WHAT_TO_DO = "flip? turn? look at it, and at its {0}"


def suspects(
    trusts: Mapping[str, Trusted], corrected: Corrected, measured: Measured, method: str
) -> list[dict[str, Any]]:
    """Sections that are probably wrong, but those that were judged already.

    First those that were measured to be, the worst first, then those that `trust` says are.

    Parameters
    ----------
    trusts : section -> what is expected of it by the method.
    method : that the page shows first.

    Returns
    -------
    Of each ``section``, ``expected_error_mm`` (text; empty where none is expected), ``reason`` and
    ``next_step``.
    """
    said = measured_suspects(measured, method)
    doubted = [s for s, t in sorted(trusts.items(), key=lambda i: -i[1].likely_wrong) if t.reason]
    lines = []
    for section in dict.fromkeys([*said, *doubted]):
        if section in corrected.verdicts:
            continue
        reason, next_step = said.get(section, ("", ""))
        trust = trusts.get(section)
        if trust is not None and trust.reason:
            reason = f"{reason}; {trust.reason}" if reason else trust.reason
            next_step = trust.next_step
        expected = number(trust.expected_error_mm) if trust is not None else ""
        lines.append(
            {
                "section": section,
                "expected_error_mm": expected,
                "reason": reason,
                "next_step": next_step,
            }
        )
    return lines


def measured_suspects(measured: Measured, method: str) -> dict[str, tuple[str, str]]:
    """Section -> (reason, next step) of outliers of the landmark error, the worst first.

    Of the Dice of labels where there are no landmarks.
    """
    errors_mm = measured.by_section("in_plane_mm", method)
    if errors_mm:
        median_mm = float(np.median(list(errors_mm.values())))
        return {
            section: (
                f"landmark error {number(error_mm)} mm,"
                f" {error_mm / median_mm:.0f} times the median",
                _WHAT_TO_DO.format("landmarks"),
            )
            for section, error_mm in _far_off(errors_mm).items()
        }
    dice = measured.by_section("dice", method)
    return {
        section: (
            f"overlap of labels (Dice) {number(value)}, usually"
            f" {number(float(np.median(list(dice.values()))))}",
            _WHAT_TO_DO.format("labels"),
        )
        for section, value in _poorly_overlapping(dice).items()
    }


def most_of_the_mean(measured: Measured, method: str) -> str:
    """A sentence where one to three outliers make most of the mean landmark error; else empty."""
    errors_mm = measured.by_section("in_plane_mm", method)
    worst = _far_off(errors_mm)
    if not 1 <= len(worst) <= _MOST_NAMED or sum(worst.values()) <= sum(errors_mm.values()) / 2:
        return ""
    count = ("One section makes", "Two sections make", "Three sections make")[len(worst) - 1]
    named = ", ".join(f"{section} {number(error_mm)} mm" for section, error_mm in worst.items())
    others = [error_mm for section, error_mm in errors_mm.items() if section not in worst]
    them = "it" if len(worst) == 1 else "them"
    return (
        f"{count} most of the mean landmark error of {method}: {named}."
        f" Without {them} the mean is {number(float(np.mean(others)))} mm."
    )


def _far_off(errors_mm: Mapping[str, float]) -> dict[str, float]:
    """Those that are far above the median, the worst first."""
    median_mm = float(np.median(list(errors_mm.values()))) if errors_mm else 0.0
    if len(errors_mm) < _FEWEST or median_mm <= 0:
        return {}
    # an error of zero has no logarithm
    logs = {s: math.log(max(mm, _NOTHING * median_mm)) for s, mm in errors_mm.items()}
    median, deviation = _usual(logs)
    limit = median + max(math.log(_TIMES), _DEVIATIONS * deviation)
    found = [section for section, value in logs.items() if value > limit]
    return {s: errors_mm[s] for s in sorted(found, key=lambda s: -errors_mm[s])}


def _poorly_overlapping(dice: Mapping[str, float]) -> dict[str, float]:
    """Those that are far below the median, the worst first."""
    if len(dice) < _FEWEST:
        return {}
    median, deviation = _usual(dice)
    limit = min(_POOR_DICE * median, median - _DEVIATIONS * deviation)
    found = [section for section, value in dice.items() if value < limit]
    return {s: dice[s] for s in sorted(found, key=lambda s: dice[s])}


def _usual(values: Mapping[str, float]) -> tuple[float, float]:
    """(median, robust standard deviation)."""
    array = np.array(list(values.values()))
    median = float(np.median(array))
    return median, _SD_OF_MAD * float(np.median(np.abs(array - median)))
