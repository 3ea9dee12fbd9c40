"""Likeness to one image that many others are compared with, and its gradient written out.

An optimisation compares the same fixed image at every step. What of its local cross-correlation
depends on that image alone is computed once, and the gradient takes a third of the operations that
torch needs to go back through those of `lncc_map`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sbr_core.functional.losses import Bands, bands_of

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx


_BLOCK_PX = 64
"""Side of the blocks in which a processor multiplies with a band: far fewer are all zeros then."""


def means_in_blocks(images: list[Tensor], bands: Bands, window_px: int) -> Tensor:
    """`Bands.means`, block by block: (B, n, H, W), of images (B, 1, H, W).

    A band is narrow, and the larger an image the more of a whole product are zeros: on a processor
    this takes 0.6 of the time at 200 px, a third at 700 px. A card is better off with few kernels.
    """
    stacked = torch.cat(images, 1)
    if stacked.is_cuda:
        return bands.means(images)
    reach, (rows, columns) = window_px // 2, stacked.shape[-2:]
    parts = []
    for at in range(0, columns, _BLOCK_PX):
        end = min(at + _BLOCK_PX, columns)
        near = slice(max(at - reach, 0), min(end + reach, columns))
        parts.append(stacked[..., near] @ bands.across[near, at:end])
    across, parts = torch.cat(parts, 3), []
    for at in range(0, rows, _BLOCK_PX):
        end = min(at + _BLOCK_PX, rows)
        near = slice(max(at - reach, 0), min(end + reach, rows))
        parts.append(bands.down[at:end, near] @ across[:, :, near])
    return torch.cat(parts, 2)


class LocalCorrelation:
    """`lncc_map` of a fixed image with others, averaged over the mask, image by image.

    Parameters
    ----------
    fixed : (B, 1, H, W).
    mask : (B, 1, H, W), 0 or 1. What lies outside is not looked at.
    window_px, flatness : as of `lncc_map`.
    """

    def __init__(
        self, fixed: Tensor, mask: Tensor, window_px: int = 9, flatness: float = 1e-4
    ) -> None:
        if fixed.ndim != 4 or fixed.shape[1] != 1 or fixed.shape != mask.shape:
            raise ValueError(
                "expected an image and a mask of one shape (B, 1, H, W), found"
                f" {tuple(fixed.shape)} and {tuple(mask.shape)}"
            )
        if window_px % 2 == 0:
            raise ValueError(f"expected an odd window, found {window_px}")
        self.mask, self.flatness = mask, flatness
        self.means = partial(means_in_blocks, bands=bands_of(mask, window_px), window_px=window_px)
        self.count = mask.sum((2, 3), keepdim=True).clamp_min(1.0)
        self.fixed, floor = self.centred(fixed)
        sums = self.means([mask, self.fixed, self.fixed.square()])
        weight, mean, square = sums.split(1, 1)
        # where there is no pixel of the mask all sums are 0 as well
        self.per_weight = 1.0 / weight.clamp_min(0.5 / window_px**2)
        self.mean = mean * self.per_weight
        self.per_variance = 1.0 / (
            (square * self.per_weight - self.mean.square()).clamp_min(0.0) + floor
        )
        self.share = mask / self.count
        """Of each pixel in the mean over the mask."""

    def centred(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Zero mean in the mask, which keeps float32 precise, and the floor of its variances."""
        mean = (image * self.mask).sum((2, 3), keepdim=True) / self.count
        image = (image - mean) * self.mask
        variance = image.square().sum((2, 3), keepdim=True) / self.count
        # of an image that is flat everywhere, the variance is what rounding left
        info = torch.finfo(image.dtype)
        rounding = (16 * info.eps) ** 2 * (variance + mean.square())
        return image, self.flatness * variance + rounding + info.tiny**0.5

    def with_(self, moving: Tensor) -> Tensor:
        """(B,) in [0, 1], of images (B, 1, H, W) with the fixed ones."""
        return _Likeness.apply(moving, self)


class _Likeness(torch.autograd.Function):
    """The mean of cov(f, m)^2 / (var(f) var(m)) over the mask, and its gradient to m."""

    @staticmethod
    def forward(ctx: FunctionCtx, moving: Tensor, fixed: LocalCorrelation) -> Tensor:
        """As `LocalCorrelation.with_`."""
        m, floor = fixed.centred(moving)
        sums = fixed.means([m, m.square(), fixed.fixed * m])
        mean, square, product = (sums * fixed.per_weight).split(1, 1)
        cov = product - fixed.mean * mean
        variance = square - mean.square()
        per_variance = 1.0 / (variance.clamp_min(0.0) + floor)
        ratio = cov * fixed.per_variance * per_variance  # cov / (var(f) var(m))
        ctx.save_for_backward(m, mean, cov, ratio, per_variance * (variance > 0), per_variance)
        ctx.fixed = fixed
        return (cov * ratio * fixed.share).sum((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        """To the moving image; through its own mean and floor too."""
        m, mean, cov, ratio, varies, per_variance = ctx.saved_tensors
        fixed: LocalCorrelation = ctx.fixed
        weighted = fixed.share * ratio * gradient.view(-1, 1, 1, 1)
        of_cov = 2.0 * weighted
        of_variance = -weighted * cov  # times 1 / var(m), which is 0 where rounding left nothing
        of_floor = (of_variance * per_variance).sum((2, 3), keepdim=True)
        of_variance = of_variance * varies
        of_mean = -of_cov * fixed.mean - 2.0 * mean * of_variance
        # windows are symmetric: what a sum looked at is what looks at it
        sums = [t * fixed.per_weight for t in (of_mean, of_variance, of_cov)]
        by_mean, by_square, by_product = fixed.means(sums).split(1, 1)
        of_m = by_mean + 2.0 * m * (by_square + fixed.flatness / fixed.count * of_floor)
        of_m = (of_m + fixed.fixed * by_product) * fixed.mask
        return of_m - fixed.mask * (of_m.sum((2, 3), keepdim=True) / fixed.count), None
