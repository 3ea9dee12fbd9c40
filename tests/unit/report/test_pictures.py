"""Pictures say what the arrays say."""

from __future__ import annotations

import numpy as np

from sbr_core.report import pictures


def disc(radius, centre=(40, 50), shape=(80, 100)):
    rows, columns = np.indices(shape)
    return (np.hypot(rows - centre[0], columns - centre[1]) < radius).astype(np.float32)


def test_overlay_draws_the_fixed_edge_and_leaves_the_rest_grey():
    moving = 0.5 * disc(30)
    picture = pictures.overlay(moving, disc(20), colour=(255, 0, 0))
    assert picture.shape == (80, 100, 3) and picture.dtype == np.uint8
    red = (picture == [255, 0, 0]).all(axis=-1)
    rows, columns = np.nonzero(red)
    distance = np.hypot(rows - 40, columns - 50)
    assert red.sum() > 100 and distance.min() > 17 and distance.max() < 23
    assert (picture[~red] == pictures.rgb(moving)[~red]).all()


def test_nothing_to_see_draws_nothing():
    empty = np.zeros((30, 40), np.float32)
    assert not pictures.overlay(empty, empty).any()
    assert not pictures.window(empty).any()


def test_grid_of_no_deformation_is_straight_and_of_a_shift_is_shifted():
    dark = pictures.grid_lines(np.zeros((64, 64, 2)), spacing=16) == 1
    assert dark[32].all() and dark[:, 16].all() and not dark[8, 8] and not dark[24, 40]
    shift = np.zeros((64, 64, 2))
    shift[..., 0] = 4  # found 4 px to the right, so a line appears 4 px to the left
    moved = pictures.grid_lines(shift, spacing=16) == 1
    assert moved[:, 12].all() and not moved[8, 16]


def test_an_error_is_the_darker_the_larger_and_none_leaves_the_picture_free():
    shown = pictures.heat(np.array([[0.0, 0.1, 1.0, 2.0, 9.0, np.nan]]), top=2.0)[0].astype(int)
    assert list(shown[:, 3] > 0) == [False, True, True, True, True, False]
    lightness = shown[1:4, :3].sum(axis=1)
    assert (np.diff(lightness) < 0).all() and (shown[3] == shown[4]).all()


def test_window_and_size():
    image = np.linspace(0, 50, 1000)
    shown = pictures.window(image)
    assert shown[0] == 0 and shown.max() == 1 and np.mean(shown == 1) < 0.01
    inked = np.append(image, np.full(500, 400.0))
    tissue = np.append(np.ones(1000), np.zeros(500))
    np.testing.assert_allclose(pictures.window(inked, tissue)[:1000], shown)
    assert pictures.window(inked, 0 * tissue).max() == 1
    assert pictures.display_shape((100, 200), 320) == (160, 320)
    assert pictures.display_shape((50, 60), 320) == (150, 180)  # at most three times
    assert pictures.display_shape((100, 100), 300, (2.0, 1.0)) == (300, 150)
    assert pictures.resized(np.ones((10, 20)), (15, 30)).shape == (15, 30)


def test_a_sheet_has_its_pictures_in_rows_and_frames_those_with_marks():
    tiles = [
        pictures.Tile(np.full((20, 30, 3), grey, np.uint8), f"s{grey}", marks)
        for grey, marks in ((60, ()), (90, ("torn",)), (120, ()))
    ]
    page = pictures.sheet(tiles, side_px=30, columns=2)
    assert page.shape == (2 * 68, 2 * 40, 3)
    for grey, row, column in ((60, 0, 0), (90, 0, 40), (120, 68, 0)):
        rows, columns = np.nonzero((page == grey).all(axis=-1))
        inside = (rows >= row) & (rows < row + 34) & (columns >= column) & (columns < column + 40)
        assert inside.sum() >= 20 * 30 and (rows >= row).all()
    marked = (page == pictures.MARK_COLOUR).all(axis=-1)
    frame = np.argwhere(marked[:, 40:][:36])
    assert frame.min(axis=0).tolist() == [2, 3] and frame.max(axis=0).tolist() == [35, 36]
    assert not marked[:, :40].any()
    assert pictures.sheet([], side_px=30).shape[2] == 3
