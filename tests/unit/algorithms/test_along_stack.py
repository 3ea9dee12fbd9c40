"""Corrections along the stack: least squares in closed form, outliers, gaps."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core.algorithms import along_stack
from sbr_core.algorithms.along_stack import pair_weight, reconcile

LEAST_SQUARES = 1e9  # an `outlier` that no residual reaches


def errors_of(seed: int, sections: int = 30, shape: tuple[int, int] = (5, 7)) -> np.ndarray:
    """An error of each section's own, (sections, rows, columns, 2)."""
    return np.random.default_rng(seed).normal(size=(sections, *shape, 2))


def differences_of(errors: np.ndarray) -> np.ndarray:
    """What neighbours would show of them: corrections are the errors' negatives."""
    return -np.diff(errors, axis=0)


@pytest.mark.parametrize("hold", [0.1, 0.7, 5.0])
def test_corrections_solve_the_normal_equations(hold):
    """Against a dense solver, with weights that differ from pair to pair and point to point."""
    rng = np.random.default_rng(1)
    differences = rng.normal(size=(6, 2, 3, 2))
    weights = rng.uniform(0, 1, size=(6, 2, 3))
    found = reconcile(differences, weights, hold=hold, outlier=LEAST_SQUARES)
    between = np.diff(np.eye(7), axis=0)
    for row, column in np.ndindex(2, 3):
        w = weights[:, row, column, None]
        wanted = np.linalg.solve(
            hold * np.eye(7) + between.T @ (w * between),
            between.T @ (w * differences[:, row, column]),
        )
        np.testing.assert_allclose(found[:, row, column], wanted, atol=1e-6)


def test_errors_of_single_sections_are_mostly_taken_back():
    errors = errors_of(2)
    weights = np.ones((29, 5, 7))
    change = reconcile(differences_of(errors), weights, hold=0.3, outlier=3.0)
    assert (
        np.linalg.norm(errors + change, axis=-1).mean()
        < 0.65 * np.linalg.norm(errors, axis=-1).mean()
    )


def test_what_all_sections_share_stays():
    """Neighbours know nothing of it, and it is the MRI's to say."""
    shared = np.broadcast_to(errors_of(3, sections=1), (12, 5, 7, 2))
    change = reconcile(differences_of(shared), np.ones((11, 5, 7)), hold=0.5, outlier=3.0)
    np.testing.assert_array_equal(change, 0)


def test_a_pair_that_contradicts_all_others_hardly_counts():
    errors = 0.1 * errors_of(4)
    differences = differences_of(errors)
    weights = np.ones((29, 5, 7))
    calm = reconcile(differences, weights, hold=0.7, outlier=3.0)
    differences[14] += 20.0  # a torn section
    squares = reconcile(differences, weights, hold=0.7, outlier=LEAST_SQUARES) - calm
    robust = reconcile(differences, weights, hold=0.7, outlier=3.0) - calm
    assert np.abs(squares).max() > 4
    assert np.abs(robust).max() < 0.5


def test_sections_that_are_not_compared_do_not_know_of_each_other():
    differences = differences_of(errors_of(5, sections=9))
    weights = np.ones((8, 5, 7))
    weights[3] = 0
    whole = reconcile(differences, weights, hold=0.7, outlier=LEAST_SQUARES)
    before = reconcile(differences[:3], weights[:3], hold=0.7, outlier=LEAST_SQUARES)
    after = reconcile(differences[4:], weights[4:], hold=0.7, outlier=LEAST_SQUARES)
    np.testing.assert_allclose(whole, np.concatenate([before, after]), atol=1e-6)


def test_one_section_alone_stays_where_it_is():
    alone = reconcile(np.zeros((0, 5, 7, 2)), np.zeros((0, 5, 7)), hold=0.7, outlier=3.0)
    np.testing.assert_array_equal(alone, np.zeros((1, 5, 7, 2)))


def test_blocks_change_nothing(monkeypatch):
    """However many points are solved at a time; the scales are those of a sample."""
    differences, weights = differences_of(errors_of(6)), np.ones((29, 5, 7))
    whole = reconcile(differences, weights, hold=0.7, outlier=2.0)
    monkeypatch.setattr(along_stack, "_BLOCK", 4)
    np.testing.assert_array_equal(reconcile(differences, weights, hold=0.7, outlier=2.0), whole)


def test_the_more_anatomy_moves_the_less_a_pair_is_believed():
    difference = np.full((20, 20, 2), 0.5)
    still = pair_weight(np.zeros((20, 20, 2)), difference, 2.0)
    np.testing.assert_array_equal(still, 1)
    # as far as the two disagree: half
    equal = pair_weight(np.full((20, 20, 2), 0.5), difference, 2.0)
    np.testing.assert_allclose(equal, 0.5)
    moving = np.zeros((20, 20, 2))
    moving[:, 10:] = 3.0
    weight = pair_weight(moving, difference, 2.0)
    assert weight[:, 0].min() > 0.95 and weight[:, -1].max() < 0.05
    assert (pair_weight(moving, np.zeros((20, 20, 2)), 2.0) == 1).all()
