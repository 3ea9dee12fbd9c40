"""Staining and focus beside the neighbours'."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from sbr_core.algorithms.doctor.look import look_of, outliers


@pytest.fixture(scope="module")
def section():
    """(image, mask) of a disc with fine and coarse structure."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:80, :80] - 39.5
    mask = x**2 + y**2 < 30**2
    texture = rng.normal(0, 0.1, mask.shape) + ndimage.gaussian_filter(
        rng.normal(0, 1, (80, 80)), 3
    )
    return np.where(mask, 1 + 0.2 * texture, 0.0), mask


def test_level_and_sharpness_measure_one_thing_each(section):
    image, mask = section
    plain, twice = look_of(image, mask), look_of(2 * image, mask)
    assert twice.level - plain.level == pytest.approx(math.log(2))
    assert twice.sharpness == pytest.approx(plain.sharpness)
    blurred = np.where(mask, ndimage.gaussian_filter(image, 1.5), 0)
    assert look_of(blurred, mask).sharpness < plain.sharpness - 0.3
    assert look_of(blurred, mask).level == pytest.approx(plain.level, abs=0.05)


def test_flat_and_tiny_sections_have_a_look():
    for side in (1, 3, 9):
        mask = np.pad(np.full((side, side), True), 5)
        look = look_of(mask * 0.5, mask)
        assert look.level == pytest.approx(math.log(0.5)) and math.isfinite(look.sharpness)
        assert math.isfinite(look_of(np.zeros(mask.shape), mask).level)


def test_an_outlier_is_found_and_a_slow_change_is_none():
    rng = np.random.default_rng(1)
    values = np.linspace(0, 2, 40) + rng.normal(0, 0.03, 40)
    assert (outliers(values, 0.35, 4)[1] < 0.5).all()
    values[13] -= 0.8
    difference, confidence = outliers(values, 0.35, 4)
    assert np.flatnonzero(confidence >= 0.5).tolist() == [13]
    assert difference[13] == pytest.approx(-0.8, abs=0.15)


def test_small_and_usual_differences_are_of_no_interest():
    values = np.zeros(30)
    values[7] = 0.3
    assert (outliers(values, 0.35, 4)[1] < 0.5).all()
    assert outliers(values, 0.2, 4)[1][7] > 0.5
    # where all sections differ by as much, none is odd
    uneven = np.random.default_rng(2).normal(0, 0.5, 30)
    uneven[7] = 1.0
    assert (outliers(uneven, 0.2, 4)[1] < 0.5).all()
    assert not outliers(np.array([0, 0, 9, 0.0]), 0.2, 4)[1].any()
