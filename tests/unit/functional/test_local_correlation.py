"""Likeness to one fixed image: `lncc` of each image, and its gradient."""

import pytest
import torch

from sbr_core.functional.local_correlation import LocalCorrelation, means_in_blocks
from sbr_core.functional.losses import bands_of, lncc


def images(seed=0):
    """Two images and a mask that leaves corners and whole windows out, (2, 1, 24, 20)."""
    rng = torch.Generator().manual_seed(seed)
    fixed, moving = (torch.rand(2, 1, 24, 20, generator=rng, dtype=torch.float64) for _ in "12")
    mask = torch.zeros_like(fixed)
    mask[0, :, 3:20, 2:15] = 1
    mask[1, :, 8:24, 0:12] = 1
    moving[:, :, 10:16, 4:10] = 0.3  # flat: the floor of the variance decides
    return fixed, moving, mask


def test_the_likeness_of_each_image_is_its_lncc():
    fixed, moving, mask = images()
    found = LocalCorrelation(fixed, mask, 5).with_(moving)
    for at, one in enumerate(found):
        some = slice(at, at + 1)
        torch.testing.assert_close(one, lncc(fixed[some], moving[some], mask[some], 5))
    affine = LocalCorrelation(fixed, mask, 5).with_(0.3 - 0.2 * fixed)
    assert (affine > 0.99).all()


@pytest.mark.parametrize(("shape", "window_px"), [((200, 65), 13), ((64, 129), 21), ((9, 70), 5)])
def test_means_over_windows_are_the_same_in_blocks(shape, window_px):
    rng = torch.Generator().manual_seed(0)
    images = [torch.rand(2, 1, *shape, generator=rng, dtype=torch.float64) for _ in "12"]
    bands = bands_of(images[0], window_px)
    found = means_in_blocks(images, bands, window_px)
    torch.testing.assert_close(found, bands.means(images))


def test_its_gradient_is_that_of_lncc():
    fixed, moving, mask = images()
    here, there = (moving.clone().requires_grad_() for _ in "12")
    weights = torch.tensor([1.0, 1.0], dtype=torch.float64)
    (LocalCorrelation(fixed, mask, 5).with_(here) * weights).sum().backward()
    sum(lncc(fixed[s], there[s], mask[s], 5) for s in (slice(0, 1), slice(1, 2))).backward()
    torch.testing.assert_close(here.grad, there.grad)
    likeness = LocalCorrelation(fixed[..., :9, :8], mask[..., :9, :8], 3)
    check = {"atol": 1e-7, "rtol": 1e-5}
    small = moving[..., :9, :8].clone().requires_grad_()
    assert torch.autograd.gradcheck(likeness.with_, (small,), **check)


def test_what_shows_nothing_is_like_nothing_and_teaches_nothing():
    fixed, moving, mask = images()
    nothing = torch.zeros_like(mask)
    image = moving.clone().requires_grad_()
    likeness = LocalCorrelation(fixed, nothing, 5).with_(image)
    likeness.sum().backward()
    assert not likeness.any() and not image.grad.any()
    flat = torch.full_like(moving, 0.4).requires_grad_()
    likeness = LocalCorrelation(fixed, mask, 5).with_(flat)
    likeness.sum().backward()
    assert (likeness < 1e-6).all() and torch.isfinite(flat.grad).all()


def test_other_shapes_and_even_windows_are_refused():
    fixed, _, mask = images()
    with pytest.raises(ValueError, match="one shape"):
        LocalCorrelation(fixed, mask[..., 1:])
    with pytest.raises(ValueError, match="odd window"):
        LocalCorrelation(fixed, mask, 4)
