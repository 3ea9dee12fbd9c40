"""What counts as missing tissue: a wide part of the brain, of a section in its place."""

from __future__ import annotations

import numpy as np

from sbr_core.algorithms.alignment.missing_tissue import missing_tissue

PIXEL_MM = 2.0
ROWS, COLUMNS = np.indices((60, 80))
BRAIN = np.hypot((ROWS - 30) / 24, (COLUMNS - 40) / 32) < 1


def test_the_half_that_was_cut_away_is_missing():
    cut = COLUMNS > 42
    missing = missing_tissue(BRAIN & ~cut, BRAIN, PIXEL_MM)
    assert not (missing & ~cut).any()
    assert np.count_nonzero(missing) > 0.95 * np.count_nonzero(BRAIN & cut)


def test_gaps_narrower_than_a_centimetre_are_not_missing():
    sulci = COLUMNS % 8 < 4  # 8 mm wide, half of the brain
    assert not missing_tissue(BRAIN & ~sulci, BRAIN, PIXEL_MM).any()


def test_a_small_hole_is_not_missing():
    hole = np.hypot(ROWS - 30, COLUMNS - 40) < 6  # 2.4 cm, 5 % of the brain
    assert not missing_tissue(BRAIN & ~hole, BRAIN, PIXEL_MM).any()


def test_a_whole_section_off_its_place_lacks_nothing():
    assert not missing_tissue(np.roll(BRAIN, 3, axis=1), BRAIN, PIXEL_MM).any()
    # so far off that a third of it lies outside
    assert not missing_tissue(np.roll(BRAIN, 20, axis=1), BRAIN, PIXEL_MM).any()


def test_without_brain_or_tissue_nothing_is_missing():
    nothing = np.zeros_like(BRAIN)
    assert not missing_tissue(BRAIN, nothing, PIXEL_MM).any()
    assert not missing_tissue(nothing, nothing, PIXEL_MM).any()
