"""SyN against a known deformation, and against ANTs' own use of its files."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from sbr_core.algorithms import deformation as flow
from sbr_core.algorithms.syn import register_syn
from sbr_core.config import SynOptions
from sbr_core.geometry import PlaneGrid

GRID = PlaneGrid((56, 72), 0.8)
OPTIONS = SynOptions(iterations=(40, 30, 20))


def smooth_noise(rng, sigma_px):
    noise = gaussian_filter(rng.normal(size=GRID.shape), sigma_px)
    return (noise - noise.min()) / np.ptp(noise)


@pytest.fixture(scope="module")
def toy():
    """(fixed, moving, tissue, true displacement in px): two contrasts and a smooth field."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices(GRID.shape).astype(float)
    tissue = ((rows - 28) / 20) ** 2 + ((columns - 36) / 27) ** 2 < 1
    image = (0.3 + 0.7 * smooth_noise(rng, 3.0)) * tissue
    velocity_px = np.stack([smooth_noise(rng, 8.0) - 0.5 for _ in "xy"], axis=-1)
    velocity_px = gaussian_filter(velocity_px * tissue[..., None], (3, 3, 0))
    velocity_px *= 2.5 / np.linalg.norm(velocity_px, axis=-1).max()
    truth = flow.integrate(velocity_px, GRID)
    true_px = truth.canvas.crop(truth.disp_px)
    at = [rows + true_px[..., 1], columns + true_px[..., 0]]
    return map_coordinates(image, at, order=1), (1.2 - image) * tissue, tissue, true_px


@pytest.fixture(scope="module")
def found(toy):
    return register_syn(*toy[:2], GRID, OPTIONS)


def test_a_known_deformation_between_two_contrasts_is_mostly_found(toy, found):
    tissue, true_px = toy[2:]
    left_px = np.linalg.norm(found.disp_px - true_px, axis=-1)[tissue].mean()
    assert left_px < 0.6 * np.linalg.norm(true_px, axis=-1)[tissue].mean()
    assert flow.forward_folding_percent(found, tissue) == 0
    assert found.velocity_px is None
    assert found.disp_px.shape == (*GRID.shape, 2) == (*found.canvas.shape, 2)


def test_there_and_back(toy, found):
    for way_px in flow.there_and_back_px(found, toy[2], toy[2]):
        assert way_px.mean() <= 0.02 and np.percentile(way_px, 99) <= 0.1


def test_the_border_stays(found):
    for disp_px in (found.disp_px, found.inverse_disp_px):
        edges = [disp_px[0], disp_px[-1], disp_px[:, 0], disp_px[:, -1]]
        assert np.abs(np.concatenate(edges)).max() < 0.02


def test_nothing_is_random(toy, found):
    again = register_syn(*toy[:2], GRID, OPTIONS)
    assert np.array_equal(again.disp_px, found.disp_px)
    assert np.array_equal(again.inverse_disp_px, found.inverse_disp_px)
