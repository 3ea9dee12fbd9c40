"""How many threads of a processor a training takes.

More are not always faster: small images leave little to share, and on cores that others use too,
each thread waits for the one that is kept waiting. Sums are split differently among them, so that
results differ in their last digits: the number is chosen once and kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

MEASURED_FROM_STEPS = 100
"""A training of fewer steps is over before it would win anything by a choice."""
_TURNS, _STEPS = 3, 3
"""Each number is timed in so many turns among the others, since the load changes, of so many steps;
the first step of a turn, in which threads start and memory is laid out anew, does not count."""
_GAIN = 1.1
"""Times as fast that more threads must be, to be taken from others who may use them."""


def candidates(most: int) -> list[int]:
    """1, 2, 4, … and `most`."""
    powers = [2**n for n in range(most.bit_length()) if 2**n < most]
    return [*powers, most]


def choose(step: Callable[[], object], most: int) -> tuple[int, dict[int, float]]:
    """The number of threads that makes steps fast; the fewest, where more gain little.

    Parameters
    ----------
    step : one step of the training, or of one like it.
    most : threads that there are.

    Returns
    -------
    The number; and number -> seconds of a step, the median. Torch is left with any of them.
    """
    seconds: dict[int, list[float]] = {number: [] for number in candidates(most)}
    for _ in range(_TURNS):
        for number, taken in seconds.items():
            torch.set_num_threads(number)
            for at in range(_STEPS):
                began = time.perf_counter()
                step()
                if at:
                    taken.append(time.perf_counter() - began)
    medians = {number: statistics.median(taken) for number, taken in seconds.items()}
    return fewest_of(medians), medians


def fewest_of(seconds: dict[int, float]) -> int:
    """The fewest threads that no others are clearly faster than.

    Parameters
    ----------
    seconds : number of threads -> seconds of a step.
    """
    shortest = min(seconds.values())
    return min(number for number, taken in seconds.items() if taken <= _GAIN * shortest)
