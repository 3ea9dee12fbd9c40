import numpy as np
import pytest

from sbr_core.algorithms.plausibility import outlines

ROWS, COLUMNS = np.mgrid[:90, :140]
ELLIPSE = ((ROWS - 40) / 30) ** 2 + ((COLUMNS - 80) / 50) ** 2 <= 1


def test_box_is_that_of_the_tissue():
    assert outlines.box_mm(ELLIPSE, 0.5) == (50.5, 30.5)
    assert outlines.box_mm(np.zeros((4, 4), bool), 1) == (0, 0)


def test_points_on_tissue_are_told_from_others():
    cells = outlines.cells_of(ELLIPSE)
    share = (np.array([[80, 40], [40, 40], [5, 5], [130, 85], [200, 40]]) + 0.5) / [140, 90]
    assert outlines.in_tissue(cells, share).tolist() == [True, True, False, False, False]
    assert not outlines.in_tissue(cells, np.array([[np.nan, 0.5], [-0.2, 0.5]])).any()


@pytest.mark.parametrize("side", range(4))
def test_a_side_that_was_cut_is_even(side):
    axis, low = (COLUMNS, ROWS)[side // 2], side % 2 == 0
    middle = (80, 40)[side // 2]
    cut = ELLIPSE & ((axis > middle) if low else (axis < middle))
    uneven = outlines.unevenness_of_sides(cut)
    assert uneven[side] < 1e-6 and np.argmin(uneven) == side
    assert min(outlines.unevenness_of_sides(ELLIPSE)) > 0.02
