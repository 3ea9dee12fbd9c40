"""The information that two images share, whatever their contrasts."""

from __future__ import annotations

import torch
from torch import Tensor

_FLAT = 1e-6
"""Entropy below which an image counts as flat: what rounding leaves."""
_RAREST = 1e-12
"""Floor of a probability in its logarithm: far below one pixel of any image, so that it changes no
entropy and keeps the gradient finite where a bin is empty."""


def nmi(fixed: Tensor, moving: Tensor, mask: Tensor, bins: int = 20) -> Tensor:
    """Normalised mutual information of two images inside a mask, image by image.

    (H(f) + H(m)) / H(f, m) - 1, with the entropies of the histograms of the masked pixels: the
    overlap-invariant measure of Studholme et al. 1999 (Pattern Recognition 32, equation 14), less
    the 1 that independent images have. Each pixel counts in the two bins beside its intensity, in
    shares that vary linearly (a Parzen window that is a B-spline of order 1), so the histogram is
    differentiable, and that of intensities at bin centres is the plain one.

    Parameters
    ----------
    fixed, moving : (B, 1, H, W), in [0, 1]; beyond, an intensity counts as the nearest of these.
    mask : (B, 1, H, W), 0 or 1, or weights. What lies outside is not looked at.
    bins : of each image; their centres are evenly spaced, the first at 0 and the last at 1.

    Returns
    -------
    scalar in [0, 1], the mean over the images of the batch: 0 for independent ones, 1 when each
    determines the other; 0 for a flat image or an empty mask.
    """
    if fixed.ndim != 4 or fixed.shape[1] != 1 or not (fixed.shape == moving.shape == mask.shape):
        raise ValueError(
            "expected two images and a mask of one shape (B, 1, H, W), found"
            f" {tuple(fixed.shape)}, {tuple(moving.shape)} and {tuple(mask.shape)}"
        )
    if bins < 2:
        raise ValueError(f"expected at least 2 bins, found {bins}")
    # sums over many pixels must not be rounded to half precision
    with torch.autocast(fixed.device.type, enabled=False):
        weights = mask.flatten(2) / mask.sum((2, 3)).clamp_min(1.0)[:, None]
        f, m = (_shares(image.to(weights.dtype), bins) for image in (fixed, moving))
        joint = (f * weights) @ m.transpose(1, 2)
    of_fixed, of_moving = _entropy(joint.sum(2)), _entropy(joint.sum(1))
    of_both = _entropy(joint.flatten(1))
    known = of_both > _FLAT
    shared = (of_fixed + of_moving) / torch.where(known, of_both, 1.0) - 1.0
    return torch.where(known, shared, 0.0).mean()


def _shares(image: Tensor, bins: int) -> Tensor:
    """(B, bins, H W): how much of each pixel falls into each bin; sums to 1 over the bins."""
    at = image.flatten(2).clamp(0.0, 1.0) * (bins - 1)
    centres = torch.arange(bins, dtype=at.dtype, device=at.device)[None, :, None]
    return (1.0 - (at - centres).abs()).clamp_min(0.0)


def _entropy(p: Tensor) -> Tensor:
    """(B,) entropies of distributions (B, n), in nats; its gradient is finite where p is 0."""
    return -(p * p.clamp_min(_RAREST).log()).sum(1)
