"""Coarse pictures in every pose."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core.algorithms.doctor.pictures import (
    N_ANGLES,
    SIZE_PX,
    STEP_DEG,
    StackPictures,
    best_correlations,
    in_pose,
    spectra_of_poses,
)


def _letter() -> np.ndarray:
    """An F, which no turn and no mirroring brings to itself; mean 0, unit norm."""
    picture = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    picture[18:46, 24:30] = picture[18:24, 24:42] = picture[30:35, 24:38] = 1
    picture -= picture.mean()
    return picture / np.linalg.norm(picture)


def test_a_pose_mirrors_columns_then_turns_counter_clockwise_then_moves():
    picture = np.random.default_rng(1).random((32, 32))
    picture[[0, -1]] = picture[:, [0, -1]] = 0  # the outermost may fall outside by rounding
    close = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(in_pose(picture, True, 0), picture[:, ::-1], **close)
    np.testing.assert_allclose(in_pose(picture, False, 90), np.rot90(picture), **close)
    np.testing.assert_allclose(in_pose(picture, True, 90), np.rot90(picture[:, ::-1]), **close)
    moved = in_pose(picture, False, 0, (3, -2))
    np.testing.assert_allclose(moved[3:, :-2], picture[:-3, 2:], **close)
    assert not moved[:2].any() and not moved[:, -1:].any()


@pytest.mark.parametrize("degrees", [0, 35, 90, -140])
def test_a_mirroring_pose_is_its_own_inverse(degrees):
    picture = _letter() - _letter().min()
    there = in_pose(picture, True, degrees)
    back = in_pose(there, True, degrees)
    # interpolated twice
    assert np.corrcoef(back[8:-8, 8:-8].ravel(), picture[8:-8, 8:-8].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 35, -120])
def test_the_best_pose_is_the_one_that_was_planted(mirrored, degrees):
    picture = _letter()
    other = in_pose(picture, mirrored, degrees, (5, -4))
    scores = best_correlations(spectra_of_poses(picture), other)
    assert scores.shape == (2, N_ANGLES)
    flip, step = np.unravel_index(scores.argmax(), scores.shape)
    assert (bool(flip), step * STEP_DEG) == (mirrored, degrees % 360)
    assert scores.max() > 0.9 > scores[1 - flip].max() + 0.1


def test_grids_hold_the_tissue_and_are_as_fine_as_the_largest_neighbour_allows():
    y, x = np.mgrid[:101, :141]
    discs = [(y - 45) ** 2 + (x - 80) ** 2 < r**2 for r in (40, 40, 40, *[10] * 9)]
    pictures = StackPictures([disc.astype(float) for disc in discs], discs, reach=2)
    assert len(pictures) == 12
    np.testing.assert_allclose(pictures.step_px[0], pictures.step_px[4])
    assert 2 < pictures.step_px[0] / pictures.step_px[-1] < 6
    for section, step_px in enumerate(pictures.step_px):
        picture = pictures.of(section, step_px)
        assert picture.tissue[[0, -1]].max() == picture.tissue[:, [0, -1]].max() == 0
        assert np.linalg.norm(picture.detail) == pytest.approx(1, abs=1e-5)
        # centred on its tissue
        assert np.argwhere(picture.tissue > 0.5).mean(axis=0) == pytest.approx([31.5] * 2, abs=0.6)
    finer = pictures.of(0, pictures.step_px[0], fineness=2)
    area = np.count_nonzero(pictures.of(0, pictures.step_px[0]).tissue > 0.5)
    assert np.count_nonzero(finer.tissue > 0.5) == pytest.approx(4 * area, rel=0.05)
