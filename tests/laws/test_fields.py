"""Laws of displacement fields: identity, composition, turns, flows and their inverses."""

import numpy as np
import torch
from scipy import ndimage

from sbr_core.functional.warp import compose, exponentiate, identity_px, sample, warp


def smooth_field(shape, amplitude_px, seed=0, dtype=torch.float64):
    """A smooth random field (1, 2, H, W) that fades out towards the edges."""
    rng = np.random.default_rng(seed)
    field = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 10) for _ in range(2)])
    window = np.outer(np.hanning(shape[0]), np.hanning(shape[1]))
    field = field * window
    return torch.tensor(field / np.abs(field).max() * amplitude_px, dtype=dtype)[None]


def test_no_displacement_is_the_identity():
    image = torch.rand(2, 3, 7, 12)
    for mode in ("bilinear", "nearest"):
        torch.testing.assert_close(warp(image, torch.zeros(2, 2, 7, 12), mode), image)


def test_a_quarter_turn_on_a_grid_that_is_not_square():
    image = torch.rand(1, 1, 5, 8, dtype=torch.float64)
    # counter-clockwise as displayed: row r of the turned image is column 7 - r of the image
    turned = sample(image, _quarter_turn((5, 8)))
    np.testing.assert_allclose(turned[0, 0].numpy(), np.rot90(image[0, 0].numpy()), atol=1e-12)


def _quarter_turn(shape):
    xy = identity_px((shape[1], shape[0]), dtype=torch.float64)
    return torch.stack((shape[1] - 1 - xy[:, 1], xy[:, 0]), 1)


def test_compose_is_b_first_then_a():
    shape = (40, 50)
    shift = torch.zeros(1, 2, *shape, dtype=torch.float64)
    shift[:, 0] = 3
    stretch = torch.zeros_like(shift)
    stretch[:, 0] = 0.1 * torch.arange(50)
    # p -> b(p) = p + 3, then a: (p + 3) * 1.1
    x = torch.arange(50, dtype=torch.float64)
    expected = 1.1 * (x + 3) - x
    torch.testing.assert_close(compose(stretch, shift)[0, 0, 0, :46], expected[:46])
    # and of images: warping by a, then by b
    image = torch.tensor(ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), 4))
    a, b = smooth_field(shape, 2.0, 1), smooth_field(shape, 2.0, 2)
    once, twice = warp(image[None, None], compose(a, b)), warp(warp(image[None, None], a), b)
    assert (once - twice).abs().max() < 0.02 * image.abs().max()


def test_the_flow_of_a_constant_velocity_is_a_shift():
    velocity = torch.zeros(1, 2, 12, 17, dtype=torch.float64)
    velocity[:, 0], velocity[:, 1] = 1.7, -4.2
    torch.testing.assert_close(exponentiate(velocity, 7), velocity)


def test_minus_the_velocity_is_the_inverse_of_a_10_px_field():
    velocity = smooth_field((128, 160), 10.0, dtype=torch.float32)
    there, back = exponentiate(velocity, 7), exponentiate(-velocity, 7)
    rest = compose(there, back).norm(dim=1)
    assert there.abs().max() > 8
    assert rest.mean() <= 0.02
    assert rest.quantile(0.99) <= 0.1
