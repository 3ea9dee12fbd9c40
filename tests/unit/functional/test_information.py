"""Normalised mutual information: what it is of images whose relation is known."""

import math

import pytest
import torch

from sbr_core.functional.losses import nmi


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def levels(n, seed=0, batch=1, size=24):
    """Images (batch, 1, size, size) of `n` intensities, each at a bin's centre for n bins."""
    numbers = torch.randint(n, (batch, 1, size, size), generator=rng(seed), dtype=torch.float64)
    return numbers / (n - 1)


def entropy(*images):
    """Of the plain joint histogram of images of few intensities, in nats."""
    stacked = torch.stack([image.flatten() for image in images])
    counts = torch.unique(stacked, dim=1, return_counts=True)[1].double()
    p = counts / counts.sum()
    return float(-(p * p.log()).sum())


def test_it_is_studholmes_of_the_plain_histogram_when_intensities_are_bin_centres():
    a, noise = levels(6), levels(6, seed=1)
    b = torch.where(torch.rand(a.shape, generator=rng(2)) < 0.6, a, noise)
    expected = (entropy(a) + entropy(b)) / entropy(a, b) - 1
    assert 0.1 < expected < 0.9
    assert float(nmi(a, b, torch.ones_like(a), bins=6)) == pytest.approx(expected, abs=1e-12)


def test_identical_and_recoded_images_tell_everything_of_each_other():
    a = levels(20)
    recoded = torch.randperm(20, generator=rng(3)).double()[(a * 19).round().long()] / 19
    ones = torch.ones_like(a)
    for b in (a, 1 - a, recoded):
        assert float(nmi(a, b, ones)) == pytest.approx(1, abs=1e-12)
    # between the bins' centres too, nothing tells more of an image than itself
    smooth = torch.rand(1, 1, 24, 24, generator=rng(4))
    itself = nmi(smooth, smooth, torch.ones_like(smooth))
    torch.testing.assert_close(nmi(smooth, 1 - smooth, torch.ones_like(smooth)), itself)
    assert itself > nmi(smooth, smooth.roll(1, -1), torch.ones_like(smooth)) + 0.3


def test_independent_images_tell_nothing_and_flat_or_empty_ones_are_no_nan():
    column, row = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    a, b = (t[None, None].double() / 19 for t in (column, row))
    ones = torch.ones_like(a)
    assert float(nmi(a, b, ones)) == pytest.approx(0, abs=1e-12)
    assert float(nmi(a, torch.full_like(a, 0.37), ones)) == pytest.approx(0, abs=1e-9)
    image = a.clone().requires_grad_(True)
    for other, mask in ((b * 0, ones), (image * 0, ones), (b, ones * 0)):
        value = nmi(image, other, mask)
        value.backward()
        assert float(value.detach()) == pytest.approx(0, abs=1e-9)
        assert torch.isfinite(image.grad).all()


def test_what_lies_outside_the_mask_does_not_matter():
    a, b = levels(20), levels(20, seed=5)
    mask = torch.zeros_like(a)
    mask[..., 4:16, 3:20] = 1
    inside = nmi(a, b, mask)
    torch.testing.assert_close(
        nmi(a[..., 4:16, 3:20], b[..., 4:16, 3:20], mask[..., 4:16, 3:20]), inside
    )
    spoilt = torch.where(mask > 0, a, levels(20, seed=6))
    torch.testing.assert_close(nmi(spoilt, b, mask), inside)
    image = a.clone().requires_grad_(True)
    nmi(image, b, mask).backward()
    assert (image.grad[mask == 0] == 0).all()


def test_a_batch_is_a_loop_over_its_images():
    a, b = levels(20, batch=3), 1 - levels(20, seed=7, batch=3)
    b[1] = 1 - a[1]
    mask = (torch.rand(a.shape, generator=rng(8)) < 0.7).double()
    alone = [nmi(a[i : i + 1], b[i : i + 1], mask[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(nmi(a, b, mask), torch.stack(alone).mean())
    # pooled, the three images would be something else
    flat = [t.transpose(0, 2).reshape(1, 1, -1, 1) for t in (a, b, mask)]
    assert abs(float(nmi(*flat) - nmi(a, b, mask))) > 0.05


def test_gradient():
    a = torch.rand(2, 1, 5, 6, generator=rng(9), dtype=torch.float64)
    # away from the bins' centres, where the window has its kinks
    a = ((a * 6).floor() + 0.2 + 0.6 * torch.rand(a.shape, generator=rng(10)).double()) / 6
    b = (a.flip(-1) * 0.7 + 0.11).clone()
    mask = torch.ones_like(a)
    mask[..., 0] = 0
    assert torch.autograd.gradcheck(
        lambda x, y: nmi(x, y, mask, bins=7), (a.requires_grad_(True), b.requires_grad_(True))
    )


def test_it_grows_as_images_of_other_contrast_come_together():
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, 40),) * 2, indexing="ij")
    image = torch.exp(-4 * (x**2 + 2 * (y - 0.2) ** 2))[None, None]
    other = torch.cos(3 * image)
    ones = torch.ones_like(image)
    values = [float(nmi(image, other.roll(shift, -1), ones)) for shift in (6, 4, 2, 1, 0)]
    assert values == sorted(values)
    assert not math.isclose(values[0], values[-1], abs_tol=0.1)


def test_shapes_that_do_not_fit_are_named():
    image = torch.rand(1, 1, 4, 4)
    with pytest.raises(ValueError, match="one shape"):
        nmi(image, image, image[..., :3])
    with pytest.raises(ValueError, match="at least 2 bins"):
        nmi(image, image, image, bins=1)
