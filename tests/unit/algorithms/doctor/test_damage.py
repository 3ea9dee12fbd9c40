"""What is missing or does not fit is measured, and only so where it was made so."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core.algorithms.doctor.damage import judge_damage


def _damage(looked, positions_mm=None):
    positions_mm = np.arange(len(looked.sections)) if positions_mm is None else positions_mm
    return judge_damage(looked.pictures, looked.scores, looked.poses, positions_mm)


def test_a_whole_stack_has_no_damage(whole):
    damage = _damage(whole)
    assert (damage.confidence < 0.5).all()
    assert damage.missing.max() < 0.05


def test_a_piece_cut_away_is_measured(harmed):
    damage = _damage(harmed)
    assert np.flatnonzero(damage.confidence >= 0.5).tolist() == [harmed.cut]
    # a grid pixel along every edge does not count
    assert damage.missing[harmed.cut] == pytest.approx(harmed.cut_share - 0.05, abs=0.05)
    assert damage.misfit[harmed.cut] >= damage.missing[harmed.cut] - 0.05
    others = np.arange(len(harmed.sections)) != harmed.cut
    assert damage.missing[others].max() < 0.05, "flipped and turned ones are whole"


def test_a_wider_gap_takes_more_to_accuse(harmed):
    positions_mm = np.arange(12.0)
    positions_mm[harmed.cut :] += 5
    positions_mm[harmed.cut + 1 :] += 5
    near, far = _damage(harmed), _damage(harmed, positions_mm)
    assert near.missing[harmed.cut] == far.missing[harmed.cut]
    assert far.confidence[harmed.cut] < near.confidence[harmed.cut]


def test_few_sections_are_not_judged(stack, looked_at):
    damage = _damage(looked_at(stack(4)))
    assert not damage.confidence.any() and not damage.missing.any()
