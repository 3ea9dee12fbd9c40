"""Mirrored rims: what torch's own padding gives, both ways, without its conversions."""

import pytest
import torch
import torch.nn.functional as F

from sbr_core.nn import reflection
from sbr_core.nn.reflection import reflected


def padded(x, width_px):
    return F.pad(x, (width_px,) * 4, mode="reflect")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_type_and_layout_stay_under_autocast(dtype):
    x = torch.randn(1, 4, 6, 5).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = reflected(x, 2)
    assert out.dtype == dtype and out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out.float(), padded(x.float(), 2))


@pytest.mark.parametrize("large", [1, 10**9], ids=["in strips", "as a whole"])
@pytest.mark.parametrize("width_px", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 4, 9, 16), (1, 3, 7, 4), (1, 8, 40, 30)])
def test_the_gradient_is_that_of_padding_in_float32_to_the_bit(monkeypatch, large, width_px, shape):
    monkeypatch.setattr(reflection, "_LARGE", large)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=rng).bfloat16().contiguous(memory_format=torch.channels_last)
    rim = (*shape[:2], *(n + 2 * width_px for n in shape[2:]))
    weights = torch.randn(rim, generator=rng).bfloat16()
    gradients = []
    for function in (reflected, padded):
        image = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = function(image, width_px)
        out.backward(weights.to(out.dtype))
        gradients.append(image.grad)
    assert torch.equal(*gradients)
