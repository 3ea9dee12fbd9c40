"""What a run takes, against runs that were made."""

from dataclasses import replace

import pytest

from sbr_core.algorithms.plausibility.work import Plan, judge_work

# grids of 129 x 124 px and 115 x 161 px, of which the margin is a fifth
DEMO = Plan(48, 124 * 1.25 / 1.2, 129 * 1.25 / 1.2, 1.25, 3_180_000, 2, 1, 1400, 60)
ALLEN = Plan(93, 161 * 0.7 / 1.2, 115 * 0.7 / 1.2, 0.7, 0, 2, 1, 800, 0)


def test_disk_of_finished_runs_is_told_to_a_fifth():
    assert DEMO.disk_bytes == pytest.approx(102e6, rel=0.2)
    assert ALLEN.disk_bytes == pytest.approx(243e6, rel=0.2)


def test_time_and_memory_of_the_demo_are_told_to_a_factor_of_two():
    """903 s of the processor, 0.68 GB."""
    assert 450 < DEMO.core_s < 1800
    assert 0.5e9 < DEMO.memory_bytes < 1.4e9


def test_a_disk_that_is_too_small_is_doubtful():
    assert judge_work(DEMO, 1e12, 1e11).verdict == "fine"
    assert "too small" in judge_work(DEMO, 5e7, 1e11).words
    large = replace(DEMO, n_voxels=2_000_000_000)
    assert judge_work(large, 1e12, 16e9).verdict == "doubtful"
    assert judge_work(large, 1e12, 1e11).verdict == "fine"
