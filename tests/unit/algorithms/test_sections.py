"""Sampling of section images: prefilter, look-up, area vote."""

import numpy as np
import pytest
from scipy import ndimage

from sbr_core import geometry
from sbr_core.algorithms.sections import (
    area_vote,
    grid_px,
    prefilter,
    resample_section,
    tissue_signal,
)


def test_grid_px_is_column_then_row():
    grid = grid_px((2, 3))
    assert grid.shape == (2, 3, 2)
    np.testing.assert_array_equal(grid[1, 2], [2, 1])


def test_no_blur_without_downsampling():
    image = np.random.default_rng(0).random((8, 9), np.float32)
    for scale in (0.3, 1.0):
        out = prefilter(image, scale)
        np.testing.assert_array_equal(out, image)
        assert out is not image


@pytest.mark.parametrize("scale", [2.0, 3.0, 5.5])
def test_a_point_becomes_as_wide_as_an_output_pixel(scale):
    image = np.zeros((101, 101), np.float32)
    image[50, 50] = 1.0
    blurred = prefilter(image, scale)
    assert blurred.sum() == pytest.approx(1.0, abs=1e-4)
    variance = (blurred[50] * (np.arange(101) - 50) ** 2).sum() / blurred[50].sum()
    # the blur's own width and the file pixel's add up to one output pixel
    assert 2.355**2 * variance + 1 == pytest.approx(scale**2, rel=0.02)


def test_stripes_finer_than_the_output_pixel_vanish_instead_of_aliasing():
    stripes = np.tile([0.0, 1.0], (60, 30)).astype(np.float32)
    matrix, shape = geometry.file_px_from_working_px(stripes.shape, 1.0, 5.0)
    coords = geometry.apply(matrix, grid_px(shape))
    out = resample_section(prefilter(stripes, 5.0, background=0.5), coords, background=0.5)
    np.testing.assert_allclose(out, 0.5, atol=0.03)


def test_a_plane_of_intensities_is_reproduced_between_pixels():
    rows, columns = np.mgrid[:10, :12].astype(np.float32)
    image = 2 * columns - 3 * rows + 1
    points = np.random.default_rng(1).uniform([0, 0], [11, 9], (40, 2))
    expected = 2 * points[:, 0] - 3 * points[:, 1] + 1
    np.testing.assert_allclose(resample_section(image, points), expected, atol=1e-4)


def test_pixels_have_area_and_beyond_is_background():
    image = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    points = np.array([[-0.4, 0.0], [1.4, 1.4], [-0.6, 0.0], [0.0, 1.6], [99.0, 0.0]])
    np.testing.assert_allclose(resample_section(image, points, background=-7.0), [1, 4, -7, -7, -7])


def test_nearest_keeps_labels_and_their_type():
    labels = np.array([[0, 300], [2, 7]], np.uint16)
    points = np.array([[0.6, 0.4], [0.2, 0.9], [1.4, 1.4], [5.0, 0.0]])
    out = resample_section(labels, points, order=0)
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(out, [300, 2, 7, 0])


def test_mode_of_one_call_does_not_leak_into_the_next():
    image = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    point = np.array([[0.3, 0.5]])
    before = resample_section(image, point)
    resample_section(image, point, order=0)
    np.testing.assert_array_equal(resample_section(image, point), before)


def test_area_vote_takes_the_label_with_most_area():
    # blocks of 3x3: five 7s win over four 2s, although the centre is a 2
    block = np.array([[7, 2, 7], [2, 2, 2], [7, 7, 7]], np.uint8)
    labels = np.block([[block, np.full((3, 3), 4)]]).astype(np.uint8)
    matrix, shape = geometry.file_px_from_working_px(labels.shape, 1.0, 3.0)
    np.testing.assert_array_equal(area_vote(labels, matrix, shape), [[7, 4]])


def test_area_vote_counts_the_outside_as_nothing():
    labels = np.full((4, 4), 9, np.uint8)
    shifted = geometry.translation(-2.2, 0.0) @ geometry.scaling(4.0)
    shifted[:2, 2] += 1.5
    # 55 % of the first output pixel lies to the left of the image
    np.testing.assert_array_equal(area_vote(labels, shifted, (1, 1)), [[0]])


def test_area_vote_keeps_area_and_agrees_with_nearest_when_upsampling():
    rng = np.random.default_rng(2)
    labels = (ndimage.gaussian_filter(rng.random((60, 80)), 4) > 0.5).astype(np.uint8)
    down, shape = geometry.file_px_from_working_px(labels.shape, 1.0, 2.0, "none", 30.0)
    assert area_vote(labels, down, shape).sum() * 4 == pytest.approx(labels.sum(), rel=0.03)
    up, shape = geometry.file_px_from_working_px(labels.shape, 1.0, 0.5)
    np.testing.assert_array_equal(area_vote(labels, up, shape), np.kron(labels, np.ones((2, 2))))


def test_area_vote_in_blocks_of_rows_is_the_same(monkeypatch):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, (30, 40)).astype(np.uint8)
    matrix, shape = geometry.file_px_from_working_px(labels.shape, 1.0, 2.3, "lr", 12.0)
    whole = area_vote(labels, matrix, shape)
    monkeypatch.setattr("sbr_core.algorithms.sections._SAMPLES_AT_ONCE", 1)
    np.testing.assert_array_equal(area_vote(labels, matrix, shape), whole)


def test_tissue_is_positive_whatever_the_polarity():
    glass = np.array([[1.0, 0.7]], np.float32)
    np.testing.assert_allclose(
        tissue_signal(glass, "bright_background", 1.0), [[0, 0.3]], atol=1e-6
    )
    np.testing.assert_allclose(
        tissue_signal(1 - glass, "dark_background", 0.0), [[0, 0.3]], atol=1e-6
    )
    with pytest.raises(ValueError, match="polarity"):
        tissue_signal(glass, "auto", 1.0)
