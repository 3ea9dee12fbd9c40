"""Images with a rim that mirrors them, in the type that they have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_LARGE = 100_000
"""Values from which on it is faster to fold four strips than to convert everything."""


def reflected(x: Tensor, width_px: int) -> Tensor:
    """(B, C, H, W) with a rim of `width_px` on each side that mirrors what is within."""
    if x.is_cpu and x.dtype in (torch.bfloat16, torch.float16):
        return _ReflectedHalf.apply(x, width_px)
    return F.pad(x, (width_px,) * 4, mode="reflect")


class _ReflectedHalf(torch.autograd.Function):
    """`reflected` in half precision on a CPU, where autocast takes it for arithmetic.

    Autocast computes it in float32: a conversion up and one down for what is only copied, both
    ways. Here only what adds up on the way back is in float32, the gradients of mirrored pixels.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, width_px: int) -> Tensor:
        """As `reflected`."""
        ctx.width_px, ctx.shape = width_px, x.shape
        with torch.autocast("cpu", enabled=False):
            return F.pad(x, (width_px,) * 4, mode="reflect")

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of the image within, in its type; the same bits as autocast's."""
        r, (rows, columns) = ctx.width_px, ctx.shape[2:]
        if gradient.numel() < _LARGE or min(rows, columns) < 2 * r + 3:
            return _folded(gradient, ctx.shape, (r, r, r, r)), None
        found = gradient[..., r:-r, r:-r].contiguous(memory_format=torch.channels_last)
        # rows 0 to r of the image come from rows 0 to 2 r of the gradient, and so on
        first, wide_first = slice(0, r + 1), slice(0, 2 * r + 1)
        middle, wide_middle = slice(r + 1, -r - 1), slice(2 * r + 1, -2 * r - 1)
        last, wide_last = slice(-r - 1, None), slice(-2 * r - 1, None)
        everything = slice(None)
        strips = (
            (first, everything, wide_first, everything, (r, r, r, 0)),
            (last, everything, wide_last, everything, (r, r, 0, r)),
            (middle, first, wide_middle, wide_first, (r, 0, 0, 0)),
            (middle, last, wide_middle, wide_last, (0, r, 0, 0)),
        )
        for at_rows, at_columns, from_rows, from_columns, padding in strips:
            into = found[..., at_rows, at_columns]
            into.copy_(_folded(gradient[..., from_rows, from_columns], into.shape, padding))
        return found, None


def _folded(gradient: Tensor, shape: torch.Size, padding: tuple[int, int, int, int]) -> Tensor:
    """Gradients of an image of `shape` from those of its mirrored one, added up in float32.

    Parameters
    ----------
    padding : pixels mirrored to the left, to the right, above and below.
    """
    # of the image only shape, type and layout are asked for
    image = torch.empty(shape, memory_format=torch.channels_last)
    found = torch.ops.aten.reflection_pad2d_backward(gradient.float(), image, padding)
    return found.to(gradient.dtype)
