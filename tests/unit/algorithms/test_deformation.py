"""Flows of known velocities, their inverses, and the canvas they live on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from sbr_core.algorithms.deformation import (
    Canvas,
    centred_between_pixels,
    forward_folding_percent,
    integrate,
    on_canvas,
    resample_velocity,
    there_and_back_px,
)
from sbr_core.geometry import PlaneGrid

SHAPE = (96, 120)
GRID = PlaneGrid(SHAPE, 0.5)


def random_velocity(seed, largest_px=10.0, sigma_px=14.0):
    rng = np.random.default_rng(seed)
    field = np.stack([gaussian_filter(rng.normal(size=SHAPE), sigma_px) for _ in "xy"], axis=-1)
    return field * largest_px / np.linalg.norm(field, axis=-1).max()


def test_zero_velocity_is_the_identity():
    found = integrate(np.zeros((*SHAPE, 2)), GRID)
    assert not found.disp_px.any() and not found.inverse_disp_px.any()


def test_constant_velocity_is_a_shift_within_the_plane():
    found = integrate(np.broadcast_to([3.0, -1.5], (*SHAPE, 2)), GRID)
    # off the border, where what leaves the plane has come into the fading margin
    middle = (slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(found.canvas.crop(found.disp_px)[middle] - [3.0, -1.5], 0, atol=1e-3)
    np.testing.assert_allclose(
        found.canvas.crop(found.inverse_disp_px)[middle] + [3.0, -1.5], 0, atol=1e-3
    )
    edge = found.disp_px[[0, -1]], found.disp_px[:, [0, -1]]
    assert max(np.abs(e).max() for e in edge) < 1e-3
    assert forward_folding_percent(found, np.ones(SHAPE)) == 0


def test_rotation_is_the_flow_of_its_generator():
    """v(p) = w J (p - c) flows to a turn by w about c."""
    angle, centre = 0.2, np.array([60.0, 48.0])
    rows, columns = np.indices(SHAPE)
    offset = np.stack([columns, rows], axis=-1) - centre
    velocity = angle * np.stack([-offset[..., 1], offset[..., 0]], axis=-1)
    found = integrate(velocity, GRID)
    c, s = np.cos(angle), np.sin(angle)
    truth = offset @ np.array([[c, s], [-s, c]]) - offset
    near = np.linalg.norm(offset, axis=-1) < 40
    assert np.abs(found.canvas.crop(found.disp_px) - truth)[near].max() < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_there_and_back_of_ten_pixels(seed):
    found = integrate(random_velocity(seed), GRID)
    assert np.linalg.norm(found.disp_px, axis=-1).max() > 8
    everywhere = np.ones(SHAPE)
    for away in there_and_back_px(found, everywhere, everywhere):
        assert away.size == everywhere.size
        assert away.mean() <= 0.02 and np.percentile(away, 99) <= 0.1
    assert forward_folding_percent(found, everywhere) == 0


def test_there_and_back_sees_an_inverse_that_is_none():
    found = integrate(random_velocity(0), GRID)
    wrong = type(found)(found.canvas, found.velocity_px, found.disp_px, -found.disp_px)
    everywhere = np.ones(SHAPE)
    assert all(way.mean() > 0.2 for way in there_and_back_px(wrong, everywhere, everywhere))


def test_interpolation_of_a_parabola_is_right_in_the_mean():
    x = np.arange(40.0)
    field = np.zeros((12, 40, 2))
    field[..., 0] = x**2 / 10
    centred = centred_between_pixels(field)[6, :, 0]
    between = np.linspace(5, 30, 2501)
    error = np.interp(between, x, centred) - between**2 / 10
    plain = np.interp(between, x, field[6, :, 0]) - between**2 / 10
    assert abs(error.mean()) < 1e-4 < 0.1 * plain.mean()
    assert np.abs(error).mean() < 0.5 * np.abs(plain).mean()
    line = np.stack([field[..., 0] * 0 + x, field[..., 0] * 0 - 3 * x], axis=-1)
    np.testing.assert_allclose(centred_between_pixels(line)[:, 1:-1], line[:, 1:-1], atol=1e-12)


def test_folding_is_counted():
    found = integrate(np.zeros((*SHAPE, 2)), GRID)
    found.disp_px[found.canvas.margin_px + 40 :, :, 1] = 3.0
    found.disp_px[found.canvas.margin_px + 45 :, :, 1] = -3.0
    mask = np.zeros(SHAPE)
    mask[30:60] = 1
    assert forward_folding_percent(found, mask) == pytest.approx(100 / 30)
    assert forward_folding_percent(found, np.zeros(SHAPE)) == 0


def test_canvas_pads_and_crops_and_fades():
    velocity = random_velocity(1, largest_px=6.0)
    padded, canvas = on_canvas(velocity, GRID)
    np.testing.assert_array_equal(canvas.crop(padded), velocity)
    assert padded.shape[:2] == canvas.shape
    for edge in (padded[0], padded[-1], padded[:, 0], padded[:, -1]):
        assert np.abs(edge).max() < 1e-12
    assert canvas.origin_mm == (-canvas.margin_px * 0.5,) * 2
    window = Canvas(GRID, 10).window()
    assert window[60, 60] == 1 and np.abs(np.diff(window, axis=0)).max() < 0.17


def test_velocity_on_another_grid_moves_the_same_millimetres():
    fine, coarse = PlaneGrid(SHAPE, 0.5), PlaneGrid(SHAPE, 0.5).at_spacing(1.25)
    velocity = random_velocity(2)
    there = resample_velocity(velocity, fine, coarse)
    assert there.shape == (*coarse.shape, 2)
    rows, columns = np.indices(coarse.shape) * 2.5
    for c in (0, 1):
        truth_mm = 0.5 * map_coordinates(velocity[..., c], [rows, columns], order=1, mode="nearest")
        np.testing.assert_allclose(1.25 * there[..., c], truth_mm, atol=1e-9)
    with pytest.raises(ValueError, match="is not on a grid"):
        resample_velocity(velocity[:-1], fine, coarse)
