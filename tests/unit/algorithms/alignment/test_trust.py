"""How far a section's affine can be trusted."""

from __future__ import annotations

import math

import pytest

from sbr_core.algorithms.alignment.trust import DOUBTFUL, doubt, trust, usual_cost


def test_the_usual_misfit_is_that_of_the_nearest():
    positions_mm = [float(z) for z in range(40)]
    costs = [0.3 if z < 20 else 0.6 for z in positions_mm]
    assert usual_cost(5.5, positions_mm, costs) == pytest.approx(0.3)
    assert usual_cost(35.5, positions_mm, costs) == pytest.approx(0.6)
    costs[4:7] = [math.nan] * 3
    assert usual_cost(5.5, positions_mm, costs) == pytest.approx(0.3)


def test_two_neighbours_have_no_usual_misfit():
    assert usual_cost(1.0, [0.0, 2.0, 3.0], [0.3, 0.3, math.nan]) is None
    assert trust(0.9, None, 0.0) > 0.9


def test_trust_falls_with_misfit_and_with_missing_tissue():
    assert trust(0.3, 0.3, 0.0) > 0.95
    assert trust(0.45, 0.3, 0.0) == pytest.approx(0.5)
    assert trust(0.6, 0.3, 0.0) < 0.05
    assert trust(0.3, 0.3, 0.6) == pytest.approx(0.4 * trust(0.3, 0.3, 0.0))
    assert trust(1.0, 1e-9, 0.0) == pytest.approx(0.0, abs=1e-9)


def test_nothing_to_compare_is_no_trust():
    assert trust(math.nan, 0.3, 0.0) == 0
    assert "nothing to compare" in doubt(math.nan, 0.3, 0.0)


def test_doubt_names_its_reasons():
    assert doubt(0.3, 0.3, 0.2) == ""
    assert trust(0.3, 0.3, 0.2) >= DOUBTFUL
    both = doubt(0.6, 0.3, 0.55)
    assert "55 % of its MRI plane's tissue is missing" in both
    assert "2.0 times as badly" in both
    assert "badly" not in doubt(0.29, 0.3, 0.6)
