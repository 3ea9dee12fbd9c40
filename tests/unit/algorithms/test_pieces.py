"""Pieces of tissue become sections: as many as there are, in reading order, halves together."""

import numpy as np
import pytest
from scipy import ndimage

from sbr_core.algorithms.pieces import find_sections, shows_several


def _section(seed=0, side=70, turn_deg=0.0):
    """A section without symmetry: a lobed body, and a small piece apart from it."""
    rows, columns = (np.mgrid[:side, :side] - side / 2) / (side / 2)
    angle = np.arctan2(rows, columns)
    reach = 0.62 + 0.1 * np.sin(2 * angle + 1) + 0.05 * np.sin(3 * angle + seed)
    mask = np.hypot(rows / 0.8, columns) < reach
    mask |= np.hypot(rows - 0.72, columns - 0.3) < 0.13
    return ndimage.rotate(mask.astype(float), turn_deg, reshape=False, order=1) > 0.5


def _hemispheres(side=70, gap=6):
    """A section of two separate halves, each other's mirror image."""
    rows, columns = np.mgrid[:side, : side // 2]
    inner = columns > gap / 2
    half = inner & (((rows - 35) / 28) ** 2 + ((columns - 3) / 28) ** 2 < 1) & (rows + columns > 22)
    return np.hstack([half[:, ::-1], half])


def _slide(sections, n_columns, gap=10):
    side = sections[0].shape[0] + gap
    n_rows = -(-len(sections) // n_columns)
    slide = np.zeros((n_rows * side + gap, n_columns * side + gap), bool)
    for i, section in enumerate(sections):
        y, x = gap + (i // n_columns) * side, gap + (i % n_columns) * side + 3 * (i % 2)
        slide[y : y + section.shape[0], x : x + section.shape[1]] |= section[
            :, : slide.shape[1] - x
        ]
    return slide


@pytest.mark.parametrize(("n", "n_columns"), [(2, 2), (2, 1), (3, 3), (4, 2), (6, 3)])
@pytest.mark.parametrize("turn_deg", [0, 12])
def test_sections_of_a_slide_are_found_in_reading_order(n, n_columns, turn_deg):
    sections = [_section(i, turn_deg=turn_deg * (-1) ** i) for i in range(n)]
    slide = _slide(sections, n_columns)
    pieces = find_sections(slide)
    assert len(pieces) == n and shows_several(slide) == n
    assert (sum(piece.mask.astype(int) for piece in pieces) == slide).all()  # each pixel once
    for i, piece in enumerate(pieces):
        top, left, _, _ = piece.bounds
        assert abs(top // 80 - i // n_columns) == 0 and abs(left // 80 - i % n_columns) == 0
        assert piece.mask.sum() == pytest.approx(sections[i].sum(), rel=0.02)


@pytest.mark.parametrize("gap", [2, 6, 14])
def test_two_halves_are_one_section(gap):
    assert len(find_sections(_hemispheres(gap=gap))) == 1
    assert shows_several(_hemispheres(gap=gap)) == 1
    slide = _slide([_hemispheres(gap=gap)] * 4, 2)
    assert len(find_sections(slide)) == 4


def test_one_section_stays_whole_and_none_is_none():
    assert len(find_sections(_section())) == 1
    assert find_sections(np.zeros((20, 20), bool)) == []
    assert shows_several(np.zeros((20, 20), bool)) == 1


def test_a_number_that_is_known_counts():
    slide = _slide([_hemispheres(gap=14)] * 2, 2)
    assert [len(find_sections(slide, n)) for n in (1, 2, 4)] == [1, 2, 4]


def test_pieces_of_unlike_size_are_one_section():
    """A torn-off lobe, far away, is not another section."""
    slide = np.zeros((80, 200), bool)
    slide[5:75, 5:75] = _section()
    slide[30:50, 150:170] = True
    assert len(find_sections(slide)) == 1 and shows_several(slide) == 1
