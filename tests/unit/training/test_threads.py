"""The number of threads, by steps of known length."""

import time

import pytest
import torch

from sbr_core.training import threads


@pytest.mark.parametrize(
    ("most", "numbers"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])]
)
def test_numbers_that_are_tried(most, numbers):
    assert threads.candidates(most) == numbers


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        ({1: 0.40, 2: 0.60}, 1),  # shared cores
        ({1: 0.40, 2: 0.38}, 1),  # no gain to speak of
        ({1: 0.40, 2: 0.25}, 2),
        ({1: 0.40, 2: 0.25, 4: 0.24, 8: 0.30}, 2),  # saturated
    ],
)
def test_the_fewest_that_are_as_fast_as_any(seconds, number):
    assert threads.fewest_of(seconds) == number


@pytest.mark.parametrize(("slower_with_two", "number"), [(True, 1), (False, 2)])
def test_steps_are_timed_with_each_number(slower_with_two, number):
    """The first step of each turn, which is slow here, does not count."""
    before, used = torch.get_num_threads(), []

    def step():
        now = torch.get_num_threads()
        warm = bool(used) and used[-1] == now
        used.append(now)
        time.sleep(0.02 if not warm or (now == 2) == slower_with_two else 0.002)

    try:
        assert threads.choose(step, 2)[0] == number
    finally:
        torch.set_num_threads(before)
    assert set(used) == {1, 2}
