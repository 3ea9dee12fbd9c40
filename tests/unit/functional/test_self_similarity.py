"""MIND-SSC: the same descriptors whatever the contrast, others where structure differs."""

import pytest
import torch

from sbr_core.functional.self_similarity import mind_ssc

SHAPE = (24, 30)


def images(seed=0):
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 1, 6, 7, generator=rng, dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse, SHAPE, mode="bicubic", align_corners=True)


def everywhere(of):
    return torch.ones_like(of)


@pytest.mark.parametrize(("gain", "offset"), [(3.0, 0.0), (1.0, -20.0), (-0.5, 1.0)])
def test_affine_changes_of_contrast_change_nothing(gain, offset):
    image = images()
    torch.testing.assert_close(
        mind_ssc(gain * image + offset, everywhere(image)),
        mind_ssc(image, everywhere(image)),
        atol=1e-9,
        rtol=0,
    )


def test_values_are_similarities_and_one_of_each_dilation_is_the_greatest():
    image = images()
    found = mind_ssc(image, everywhere(image), (1, 3))
    assert found.shape == (2, 8, *SHAPE)
    assert found.min() > 0 and found.max() == 1
    for of_dilation in found.split(4, dim=1):
        assert (of_dilation.amax(1) == 1).all()


def test_a_quarter_turn_turns_the_pairs_round():
    image = images()
    found = mind_ssc(image, everywhere(image), (2,))
    turned = image.rot90(dims=(2, 3))
    again = mind_ssc(turned, everywhere(turned), (2,))
    # counter-clockwise: what was up and right is now left and up
    torch.testing.assert_close(again, found.rot90(dims=(2, 3)).roll(-1, dims=1))


def test_an_edge_by_hand():
    """Where left is 0 and right is 1, the pairs up-right and right-down differ as the others do."""
    image = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    image[..., 5:] = 1.0
    at = mind_ssc(image, everywhere(image), (1,))[0, :, 4, 4]
    # up 0 - right 1 differ in the patch's columns: (0, 1, 0) against (1, 1, 1) with values 0/1
    # up's patch columns 3-5: 0 0 1; right's 4-6: 0 1 1: one column of three differs, D = 1/3;
    # left's 2-4: 0 0 0 against up's: one column, D = 1/3: all four alike, so all are 1
    assert torch.equal(at, torch.ones(4, dtype=torch.float64))


def test_the_amount_of_background_does_not_count():
    image = images()
    mask = everywhere(image)
    padded, padded_mask = (torch.nn.functional.pad(t, (9, 9, 9, 9)) for t in (image, mask))
    inner = (..., slice(3, -3), slice(3, -3))
    found = mind_ssc(padded, padded_mask)[..., 9:-9, 9:-9]
    more, more_mask = (torch.nn.functional.pad(t, (40, 40, 40, 40)) for t in (image, mask))
    torch.testing.assert_close(mind_ssc(more, more_mask)[..., 40:-40, 40:-40][inner], found[inner])


def test_flat_images_are_alike_everywhere_without_nan():
    flat = torch.full((1, 1, *SHAPE), 0.3)
    assert torch.equal(mind_ssc(flat, everywhere(flat)), torch.ones(1, 8, *SHAPE))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="images and masks of one shape"):
        mind_ssc(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))
