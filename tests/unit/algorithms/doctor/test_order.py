"""Sections out of order, by made-up similarities, and gaps."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core.algorithms.doctor import order
from sbr_core.algorithms.doctor.order import gaps, judge_order, judge_place, local_fits


def _fit(true_places, bad=()) -> np.ndarray:
    """Similarities that fall with the distance of true places; `bad` sections fit nothing well."""
    places = np.asarray(true_places, float)
    n = len(places)
    noise = np.random.default_rng(2).normal(0, 0.005, (n, n))
    fit = 0.8 * np.exp(-np.abs(places[:, None] - places) / 4) + noise + noise.T
    for i in bad:
        fit[i] *= 0.5
        fit[:, i] *= 0.5
    far = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return np.where((far > 0) & (far <= order.FLANKING + 1), fit, np.nan)


def _with_swaps(n: int, *firsts: int) -> list[int]:
    places = list(range(n))
    for p in firsts:
        places[p], places[p + 1] = places[p + 1], places[p]
    return places


def _pairs(fit, reliable=None):
    reliable = np.full(len(fit), True) if reliable is None else reliable
    swaps = judge_order(fit, reliable)
    assert all(0.5 <= swap.confidence < 1 for swap in swaps)
    confidences = [swap.confidence for swap in swaps]
    assert confidences == sorted(confidences, reverse=True) or len(swaps) > 1
    return sorted((swap.first, swap.second) for swap in swaps)


def test_a_smooth_stack_has_no_swap():
    assert _pairs(_fit(range(20))) == []


@pytest.mark.parametrize("firsts", [(5,), (5, 12), (5, 8), (2, 17)])
def test_swapped_neighbours_are_found_and_no_others(firsts):
    assert _pairs(_fit(_with_swaps(20, *firsts))) == [(p, p + 1) for p in firsts]


def test_a_torn_section_is_no_swap_and_hides_none_beside_it():
    reliable = np.full(20, True)
    reliable[9] = False
    assert _pairs(_fit(range(20), bad=[9]), reliable) == []
    assert _pairs(_fit(_with_swaps(20, 10), bad=[9]), reliable) == [(10, 11)]
    # what it fits badly everywhere cancels, even where it was not known to be torn
    assert _pairs(_fit(range(20), bad=[9])) == []


def test_nobody_is_judged_by_a_section_that_is_not_reliable():
    fit = _fit(range(20))
    fit[11, 9] = 1.6  # as 9 has it, 11 belongs beside it
    reliable = np.full(20, True)
    assert _pairs(fit, reliable) == [(10, 11)]
    reliable[9] = False
    assert _pairs(fit, reliable) == []


def test_the_ends_and_few_sections_are_not_judged():
    """On one side of them is nothing to compare with."""
    assert _pairs(_fit(_with_swaps(20, 0))) == []
    assert _pairs(_fit(_with_swaps(5, 2))) == []


def test_images_fit_the_side_that_they_come_from(stack, looked_at):
    sections = stack(7)
    sections[3], sections[4] = sections[4], sections[3]
    looked = looked_at(sections)
    fit = local_fits(looked.pictures, looked.scores, looked.poses)
    np.testing.assert_array_equal(fit, fit.T)
    assert np.isfinite(fit[0]).tolist() == [False, True, True, True, False, False, False]
    assert fit[2, 4] > fit[2, 3] and fit[5, 3] > fit[5, 4], "the two that were swapped"
    assert fit[0, 1] > fit[0, 2] and fit[6, 5] > fit[6, 3]


# --------------------------------------------------------------------------------------------
# Places
# --------------------------------------------------------------------------------------------


@pytest.fixture
def places(monkeypatch):
    """`judge_place` of a stack whose sections belong to these places, by made-up similarities."""

    def judged(true_places, suspects, reliable=None):
        true_places = np.asarray(true_places, float)
        n = len(true_places)

        def fits_to(_, section, others):
            noise = np.random.default_rng(section).normal(0, 0.01, len(others))
            return 0.8 * np.exp(-np.abs(true_places[others] - true_places[section]) / 4) + noise

        monkeypatch.setattr(order, "fits_to", fits_to)
        reliable = np.full(n, True) if reliable is None else reliable
        reliable[list(suspects)] = False
        return judge_place(None, suspects, reliable, 3)

    return judged


def test_a_section_that_belongs_elsewhere_is_placed_between_its_true_neighbours(places):
    true_places = list(range(30))
    true_places[20] = 5.5
    (place,) = places(true_places, [20])
    assert (place.section, place.before, place.after) == (20, 5, 6)
    assert place.confidence > 0.9


def test_a_damaged_section_in_its_place_is_left_there(places):
    assert places(range(30), [20]) == []
    assert places(range(30), []) == []


def test_too_few_sections_leave_no_elsewhere(places):
    true_places = list(range(10))
    true_places[8] = 0.5
    assert places(true_places, [8]) == []


# --------------------------------------------------------------------------------------------
# Gaps
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [1, 2, 5])
def test_missing_sections_of_a_regular_stack_are_counted(missing):
    positions = np.arange(20) * 1.5 + np.random.default_rng(0).normal(0, 0.05, 20)
    assert gaps(positions) == []
    positions[12:] += 1.5 * missing
    (gap,) = gaps(positions)
    assert (gap.before, gap.missing, gap.regular) == (11, missing, True)
    assert gap.distance_mm == pytest.approx(positions[12] - positions[11])


def test_an_uneven_stack_has_gaps_only_where_they_are_wide():
    distances = np.tile([0.4, 1.0, 2.0, 0.7], 5)
    assert gaps(np.cumsum(distances)) == []
    distances[7] = 9.0
    (gap,) = gaps(np.cumsum(np.r_[0, distances]))
    assert gap.before == 7 and not gap.regular


def test_the_unit_of_positions_makes_no_difference_and_few_have_no_gaps():
    positions = np.r_[0:10, 12:20].astype(float)
    assert [g.before for g in gaps(positions)] == [g.before for g in gaps(0.02 * positions)] == [9]
    assert gaps(np.array([0.0, 1.0, 2.0, 30.0])) == []
