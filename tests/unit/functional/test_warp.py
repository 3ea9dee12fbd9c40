"""Warping: what a displacement means, and the algebra of fields."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from sbr_core.functional.warp import (
    exponentiate,
    identity_px,
    jacobian_determinant,
    sample,
    upsample_velocity,
    warp,
)


def smooth_field(shape, amplitude_px, seed=0, dtype=torch.float64):
    """A smooth random field (1, 2, H, W) that fades out towards the edges."""
    rng = np.random.default_rng(seed)
    field = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 10) for _ in range(2)])
    window = np.outer(np.hanning(shape[0]), np.hanning(shape[1]))
    field = field * window
    return torch.tensor(field / np.abs(field).max() * amplitude_px, dtype=dtype)[None]


def test_one_whole_pixel_is_a_shift():
    image = torch.rand(1, 1, 6, 9, dtype=torch.float64)
    disp = torch.zeros(1, 2, 6, 9, dtype=torch.float64)
    disp[:, 0] = 1  # looks one column to the right
    torch.testing.assert_close(warp(image, disp)[..., :-1], image[..., 1:])
    disp[:] = 0
    disp[:, 1] = 2  # looks two rows down
    torch.testing.assert_close(warp(image, disp)[..., :-2, :], image[..., 2:, :])


def test_labels_stay_labels_and_no_mode_is_remembered():
    labels = torch.tensor([[0.0, 5.0, 5.0, 9.0]]).repeat(4, 1)[None, None]
    disp = torch.full((1, 2, 4, 4), 0.3)
    before = warp(labels, disp)
    assert set(warp(labels, disp, "nearest").unique().tolist()) <= {0.0, 5.0, 9.0}
    torch.testing.assert_close(warp(labels, disp), before)


def test_bilinear_agrees_with_scipy():
    image = torch.rand(1, 1, 20, 31, dtype=torch.float64)
    disp = smooth_field((20, 31), 3.0)
    x, y = (identity_px((20, 31), dtype=torch.float64) + disp)[0].numpy()
    expected = ndimage.map_coordinates(image[0, 0].numpy(), [y, x], order=1, mode="grid-constant")
    np.testing.assert_allclose(warp(image, disp)[0, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 7), (448, 320), (123, 457)])
def test_a_whole_pixel_is_found_exactly_at_every_size(shape):
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    found = sample(image, identity_px(shape), padding="border")
    torch.testing.assert_close(found, image, atol=1e-4, rtol=0)


def test_the_flow_of_a_linear_velocity_is_the_matrix_exponential():
    shape = (41, 41)
    rate = torch.tensor([[0.02, -0.3], [0.25, -0.01]], dtype=torch.float64)
    here = identity_px(shape, dtype=torch.float64) - 20
    velocity = torch.einsum("ij,bjhw->bihw", rate, here)
    expected = torch.einsum("ij,bjhw->bihw", torch.matrix_exp(rate), here) - here
    middle = (..., slice(12, 29), slice(12, 29))  # whose paths stay inside the grid
    found = exponentiate(velocity, 10)
    assert (found - expected)[middle].abs().max() < 0.01


def test_half_pixel_h_is_full_pixel_2h_and_a_half():
    half = identity_px((6, 8), dtype=torch.float64)  # position as a field
    full = upsample_velocity(half, (12, 16))
    inner = (2 * (identity_px((12, 16), dtype=torch.float64) - 0.5) / 2)[..., 1:-1, 1:-1]
    torch.testing.assert_close(full[..., 1:-1, 1:-1], inner)
    with pytest.raises(ValueError, match="not half"):
        upsample_velocity(half, (13, 16))


def test_the_jacobian_of_a_stretch_and_of_a_fold():
    disp = torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    disp[:, 0] = 0.5 * torch.arange(6)
    disp[:, 1] = 0.2 * torch.arange(5)[:, None]
    torch.testing.assert_close(
        jacobian_determinant(disp), torch.full((1, 4, 5), 1.5 * 1.2, dtype=torch.float64)
    )
    disp[:, 0] = -1.5 * torch.arange(6)
    assert (jacobian_determinant(disp) < 0).all()


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    # away from pixel centres, where bilinear interpolation has a kink
    disp = 0.2 + 0.5 * torch.rand(1, 2, 6, 5, generator=generator, dtype=torch.float64)
    disp.requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, disp), atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradcheck(
        lambda v: exponentiate(v, 3), (disp.detach().requires_grad_(),), atol=1e-8, rtol=1e-6
    )
    assert torch.autograd.gradcheck(
        lambda v: upsample_velocity(v, (12, 10)), (disp,), atol=1e-8, rtol=1e-6
    )


def test_wrong_shapes_and_modes_are_named():
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 4\)"):
        sample(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="cubic"):
        sample(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), "cubic")
