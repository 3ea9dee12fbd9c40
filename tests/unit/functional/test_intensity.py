"""Normalisation of intensities."""

import numpy as np
import pytest

from sbr_core.functional.intensity import normalise


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0, 1, (30, 40)).astype(np.float32)


@pytest.fixture
def mask():
    mask = np.zeros((30, 40), np.uint8)
    mask[5:25, 5:35] = 1
    return mask


def test_quantiles_become_zero_and_one_and_the_background_zero(image, mask):
    out = normalise(image, mask, 0.1, 0.9)
    assert out.dtype == np.float32
    assert (out[mask == 0] == 0).all()
    inside = out[mask > 0]
    assert inside.min() == 0
    assert inside.max() == 1
    assert np.mean(inside == 0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(inside == 1) == pytest.approx(0.1, abs=0.01)


def test_unit_and_offset_of_the_intensities_do_not_matter(image, mask):
    np.testing.assert_allclose(
        normalise(image * 65535 + 7, mask, 0.01, 0.99),
        normalise(image, mask, 0.01, 0.99),
        atol=1e-4,
    )


def test_what_lies_outside_the_mask_does_not_matter(image, mask):
    other = np.where(mask > 0, image, 1e6)
    np.testing.assert_array_equal(
        normalise(other, mask, 0.01, 0.99), normalise(image, mask, 0.01, 0.99)
    )


def test_a_flat_image_gives_zeros(mask):
    assert not normalise(np.full(mask.shape, 0.7), mask, 0.01, 0.99).any()


def test_an_empty_mask_is_refused(image, mask):
    with pytest.raises(ValueError, match="empty mask"):
        normalise(image, np.zeros_like(mask), 0.01, 0.99)


def test_a_mask_of_another_shape_and_swapped_quantiles_are_refused(image, mask):
    with pytest.raises(ValueError, match="differ in shape"):
        normalise(image, mask[1:], 0.01, 0.99)
    with pytest.raises(ValueError, match="not in order"):
        normalise(image, mask, 0.99, 0.01)
