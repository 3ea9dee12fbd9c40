"""A difference becomes a confidence by how it compares with its spread over the stack."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sbr_core.algorithms.doctor.evidence import (
    along_stack,
    confidence,
    excess_confidence,
    median_around,
)
from sbr_core.algorithms.robust import median_and_spread

USUAL, SPREAD = -0.3, 0.1


def _confidence(value, usual=USUAL, spread=SPREAD, prior=0.05):
    return confidence(*(np.asarray(v, float) for v in (value, usual, spread)), prior)


@pytest.mark.parametrize("prior", [0.01, 0.05, 0.4])
def test_what_both_hypotheses_explain_alike_leaves_the_prior(prior):
    assert _confidence(0.0, prior=prior) == pytest.approx(prior)
    # a section as symmetric as all others
    np.testing.assert_allclose(_confidence([-1, 0, 1], usual=0.0, prior=prior), prior)
    # a stack of which no spread is known
    np.testing.assert_allclose(_confidence([-1, 0, 1], spread=math.inf, prior=prior), prior)


def test_more_evidence_never_lowers_confidence():
    towards_the_other = _confidence(np.linspace(USUAL, -USUAL, 101))
    assert (np.diff(towards_the_other) > 0).all()
    farther_apart = _confidence(-np.linspace(-1, 0, 50), usual=np.linspace(-1, 0, 50))
    assert (np.diff(farther_apart) < 0).all()
    sharper = _confidence(-USUAL, spread=np.linspace(0.05, 1, 50))
    assert (np.diff(sharper) < 0).all()
    likelier = [float(_confidence(0.1, prior=prior)) for prior in (0.01, 0.1, 0.3)]
    assert likelier == sorted(likelier)


def test_both_hypotheses_are_treated_alike():
    values = np.linspace(-2, 2, 41)
    both_ways = _confidence(values, prior=0.5) + _confidence(-values, prior=0.5)
    np.testing.assert_allclose(both_ways, 1)


def test_odd_values_are_no_certainty():
    """Beyond either hypothesis a value is odd under both, and says ever less."""
    odd = _confidence(np.array([0.3, 1.0, 10.0, 1e6]))
    assert (np.diff(odd) < 0).all() and odd[-1] == pytest.approx(0.05, abs=1e-3)
    assert 0 < _confidence(USUAL) < 0.05 < 0.5 < odd[0] < 1


def test_a_usual_value_above_zero_accuses_nobody():
    """Where most sections fit better mirrored, the figure means something else."""
    np.testing.assert_allclose(_confidence([-0.5, 0, 0.5], usual=0.2), 0.05)


def test_excess_is_one_half_at_its_limit_and_grows():
    chance = excess_confidence(np.array([0, 0.1, 0.2, 0.3, 5.0]), np.array(0.2))
    assert chance[2] == 0.5
    assert (np.diff(chance) > 0).all() and chance[0] < 0.01 and chance[3] > 0.9


def test_robust_spread_is_that_of_a_normal_distribution_and_ignores_few_odd_values():
    values = np.random.default_rng(0).normal(3, 2, 20_000)
    assert median_and_spread(values, 0.01) == pytest.approx((3, 2), abs=0.05)
    values[:500] = 1e6
    values[500:600] = np.nan
    assert median_and_spread(values, 0.01) == pytest.approx((3, 2), abs=0.15)
    assert median_and_spread(np.ones(10), 0.01) == (1, 0.01)
    assert median_and_spread(np.array([np.nan]), 0.01) == (0, math.inf)


def test_usual_values_follow_the_stack_and_no_section_vouches_for_itself():
    values = np.linspace(0, 1, 60)
    reliable = np.full(60, True)
    middle, spread = along_stack(values, reliable)
    np.testing.assert_allclose(middle[20:40], values[20:40], atol=0.01)
    odd = values.copy()
    odd[30] = 50
    np.testing.assert_allclose(along_stack(odd, reliable)[0][30], middle[30], atol=0.02)
    # one that is not reliable does not count for others either
    reliable[30] = False
    without, spread_without = along_stack(odd, reliable)
    np.testing.assert_allclose(without, middle, atol=0.04)
    np.testing.assert_allclose(spread_without, spread, rtol=0.2)


def test_neighbours_do_not_include_the_section():
    values = np.arange(10)
    assert median_around(values, 2).tolist() == [1.5, 2, 2, 3, 4, 5, 6, 7, 7, 7.5]
