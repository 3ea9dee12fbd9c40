"""Landmarks are held, nothing folds, and one that no tissue could follow is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sbr_core.algorithms import deformation as flow
from sbr_core.algorithms.landmark_hold import hold
from sbr_core.geometry import PlaneGrid

GRID = PlaneGrid((80, 100), 1.0)
ROWS, COLUMNS = np.indices(GRID.shape)
TISSUE = np.hypot((COLUMNS - 50) / 42, (ROWS - 40) / 32) < 1
POINTS = np.array([[25.0, 38.0], [52.5, 18.25], [71.0, 50.0], [45.0, 60.5]])


def field(seed: int, size_px: float) -> np.ndarray:
    """A smooth random velocity."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(*GRID.shape, 2))
    smooth = np.stack([gaussian_filter(noise[..., c], 9) for c in (0, 1)], axis=-1)
    return smooth * (size_px / np.abs(smooth).max())


def mapped(deformation, points_px):
    return points_px + sampled(deformation.disp_px, deformation.canvas, points_px)


def sampled(disp_px, canvas, points_px):
    from sbr_core.io.transforms import PlaneField

    margin = float(canvas.margin_px)
    return PlaneField(disp_px, 1.0, (-margin, -margin)).map(points_px) - points_px


@pytest.fixture(scope="module")
def found():
    return flow.integrate(field(0, 3.0), GRID)


@pytest.mark.parametrize("has_velocity", [True, False])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_landmarks_are_held_within_their_tolerance_without_folds(found, has_velocity, number):
    if not has_velocity:
        found = replace(found, velocity_px=None)
    points = POINTS[:number]
    places = mapped(found, points) + np.random.default_rng(number).normal(0, 2.0, (number, 2))
    held = hold(found, points, places, 0.4, TISSUE)
    ends = mapped(held.deformation, points)
    assert held.kept == tuple(range(number))
    assert np.linalg.norm(ends - places, axis=1).max() <= 0.4
    np.testing.assert_allclose(np.linalg.norm(ends - places, axis=1), held.apart_px, atol=1e-9)
    assert flow.forward_folding_percent(held.deformation, TISSUE) == 0
    there_and_back = flow.there_and_back_px(held.deformation, TISSUE, TISSUE)
    assert max(way.mean() for way in there_and_back) < 0.02
    assert (held.deformation.velocity_px is not None) == has_velocity
    # what is far from all landmarks stays, but for the tails of the Gaussians
    far = np.min(np.hypot(*(np.stack([COLUMNS, ROWS])[..., None] - points.T[:, None, None])), -1)
    moved = held.deformation.canvas.crop(held.deformation.disp_px)
    moved = np.linalg.norm(moved - found.canvas.crop(found.disp_px), axis=-1)
    assert moved[far > 45].size == 0 or moved[far > 45].max() < 0.1 * moved.max()


def test_a_truth_that_the_registration_missed_is_nearer_everywhere(found):
    """A lump of 6 px that is not in the deformation found; a landmark in its middle."""
    middle = np.array([60.0, 35.0])
    lump = np.exp(-((COLUMNS - 60) ** 2 + (ROWS - 35) ** 2) / (2 * 12.0**2))[..., None]
    truth = flow.integrate(field(0, 3.0) + lump * [5.0, -3.0], GRID)
    held = hold(found, middle[None], mapped(truth, middle[None]), 0.4, TISSUE)

    def error(deformation):
        both = (d.canvas.crop(d.disp_px) for d in (deformation, truth))
        return np.linalg.norm(np.subtract(*both), axis=-1)[TISSUE].mean()

    assert error(held.deformation) < 0.65 * error(found)


def test_landmarks_where_they_belong_change_nothing(found):
    held = hold(found, POINTS, mapped(found, POINTS) + 0.2, 0.4, TISSUE)
    assert held.deformation is found and held.kept == (0, 1, 2, 3)


@pytest.mark.parametrize("has_velocity", [True, False])
def test_one_that_would_tear_the_tissue_is_left_out_and_the_others_held(found, has_velocity):
    if not has_velocity:
        found = replace(found, velocity_px=None)
    places = mapped(found, POINTS) + np.array([1.5, -1.0])
    near = np.concatenate([POINTS, POINTS[:1] + np.array([1.5, 0.0])])
    opposite = np.concatenate([places, places[:1] + np.array([-7.0, 5.0])])
    held = hold(found, near, opposite, 0.4, TISSUE)
    assert held.kept == (0, 1, 2, 3) and held.apart_px[4] > 4
    assert held.apart_px[:4].max() <= 0.4
    far = places.copy()
    far[2] += [25.0, 0.0]
    held = hold(found, POINTS, far, 0.4, TISSUE)
    assert held.kept == (0, 1, 3) and held.apart_px[2] > 20


def test_nothing_to_hold_leaves_the_deformation(found):
    alone = hold(found, POINTS[:1], POINTS[:1] + 50.0, 0.4, TISSUE)
    assert alone.kept == () and alone.deformation is found


def test_a_deformation_that_is_extreme_elsewhere_still_takes_a_landmark():
    """What is far from the landmark is not held against it."""
    pinch = np.exp(-((COLUMNS - 75) ** 2 + (ROWS - 45) ** 2) / (2 * 6.0**2))[..., None]
    toward = np.stack([75.0 - COLUMNS, 45.0 - ROWS], axis=-1)
    found = flow.integrate(1.6 * pinch * toward, GRID)
    areas = np.diff(found.canvas.crop(found.disp_px)[..., 0], axis=1)
    assert (1 + areas).min() < 0.3
    points = np.array([[50.0, 40.0]])
    held = hold(found, points, mapped(found, points) + np.array([1.0, 0.5]), 0.4, TISSUE)
    assert held.kept == (0,) and held.apart_px[0] <= 0.4
