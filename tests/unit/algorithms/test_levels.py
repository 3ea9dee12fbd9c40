"""Nothing depends on where the values of an MRI begin, or on their sign."""

import numpy as np
import pytest

from sbr_core.algorithms.levels import level_of, plane_mask
from sbr_core.algorithms.masks import brain_mask

SHAPE = (40, 44, 36)
GRID = np.stack(np.indices(SHAPE)) - (np.array(SHAPE) / 2).reshape(3, 1, 1, 1)
RADIUS = np.sqrt((GRID**2).sum(axis=0))
BRAIN = RADIUS <= 14
RNG = np.random.default_rng(0)
TISSUE = np.where(RADIUS < 8, 900, np.where(RADIUS < 11, 500, 120)) + RNG.normal(0, 20, SHAPE)
STRIPPED = np.where(BRAIN, TISSUE, 0)
AIR = np.abs(RNG.normal(0, 10, SHAPE))
WHOLE = np.where(BRAIN, TISSUE, AIR)
Z = (TISSUE - TISSUE[BRAIN].mean()) / TISSUE[BRAIN].std()
SHIFTED = {
    "as it is": STRIPPED,
    "noisy air": WHOLE,
    "z-scores in 0": np.where(BRAIN, Z, 0),
    "z-scores of the whole image": (STRIPPED - STRIPPED.mean()) / STRIPPED.std(),
    "negative": -STRIPPED,
    "negative, with noisy air": -WHOLE,
    "from -1 to 1": 2 * STRIPPED / STRIPPED.max() - 1,
    "unsigned for signed": WHOLE + 32768,
    "a large number in the mask only": np.where(BRAIN, TISSUE + 50_000, 0),
    "negative in -1024": np.where(BRAIN, -TISSUE, 0) - 1024,
    "Hounsfield": np.where(BRAIN, TISSUE / 20, -1000),
    "tiny": STRIPPED * 1e-9,
    "far from 0 and narrow": (1e7 + STRIPPED).astype(np.float64),
}


@pytest.mark.parametrize("name", SHIFTED)
def test_tissue_stands_above_a_background_of_zero_with_its_contrast(name):
    data = SHIFTED[name]
    out = level_of(data, BRAIN).applied(data, BRAIN)
    assert out.dtype == np.float32
    top = np.quantile(out[BRAIN], 0.99)
    assert np.quantile(np.abs(out[~BRAIN]), 0.95) < 0.1 * top
    assert (out[BRAIN] >= 0).all() and np.quantile(out[BRAIN], 0.02) >= 0
    inner, middle, rim = (
        np.median(out[w]) for w in (RADIUS < 7, (RADIUS < 11) & (RADIUS > 8), BRAIN)
    )
    assert inner - middle > 0.13 * top  # a third of the contrast at least
    assert abs(np.corrcoef(out[BRAIN], TISSUE[BRAIN])[0, 1]) > 0.999
    assert rim > 0 and top > 1e-3


@pytest.mark.parametrize("name", ["as it is", "noisy air"])
def test_an_mri_whose_background_is_zero_keeps_its_values(name):
    data = SHIFTED[name].astype(np.float32)
    np.testing.assert_array_equal(level_of(data, BRAIN).applied(data, BRAIN), data)


def test_bright_medium_around_a_brain_and_one_single_value_stay_as_they_are():
    medium = np.where(BRAIN, TISSUE, 2000).astype(np.float32)
    np.testing.assert_array_equal(level_of(medium, BRAIN).applied(medium, BRAIN), medium)
    flat = BRAIN.astype(np.float32)
    np.testing.assert_array_equal(level_of(flat, BRAIN).applied(flat, BRAIN), flat)


@pytest.mark.parametrize("name", SHIFTED)
def test_the_mask_of_an_mri_is_the_same_wherever_its_values_begin(name):
    has_air = name in ("noisy air", "negative, with noisy air", "unsigned for signed")
    truth = brain_mask(WHOLE) if has_air else BRAIN
    assert np.mean(truth == BRAIN) > 0.9
    mask = brain_mask(SHIFTED[name])
    assert 2 * np.sum(mask & truth) / (mask.sum() + truth.sum()) > 0.99


PLANE, PLANE_BRAIN = SHIFTED["as it is"][20], BRAIN[20]


@pytest.mark.parametrize(
    "plane",
    [
        PLANE,
        np.where(PLANE_BRAIN, Z[20], 0),
        -PLANE,
        PLANE / 500 - 1,
        PLANE + 1000,
        np.where(PLANE_BRAIN, Z[20], 0)[8:30, 2:34],  # cut so that tissue reaches the border
    ],
)
def test_the_mask_of_a_plane_is_what_is_not_background(plane):
    truth = PLANE_BRAIN if plane.shape == PLANE.shape else PLANE_BRAIN[8:30, 2:34]
    assert np.mean(plane_mask(plane) == truth) > 0.99


def test_a_plane_that_rings_has_its_mask_above_zero():
    ringing = np.where(PLANE_BRAIN, PLANE, RNG.normal(0, 2, PLANE.shape))
    ringing[:3] = 0
    np.testing.assert_array_equal(plane_mask(ringing), ringing > 0)


def test_where_the_background_of_a_plane_is_cannot_be_known_of_noise_about_zero():
    assert plane_mask(RNG.normal(size=(30, 40))) is None
