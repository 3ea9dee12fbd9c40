"""The terms of losses: likeness of images, overlap of labels, contrast, smoothness of fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_FLAT = 1e-6
"""Entropy below which an image counts as flat: what rounding leaves."""
_RAREST = 1e-12
"""Floor of a probability in its logarithm: far below one pixel of any image, so that it changes no
entropy and keeps the gradient finite where a bin is empty."""


def _check(fixed: Tensor, moving: Tensor, mask: Tensor) -> None:
    if fixed.ndim != 4 or fixed.shape[1] != 1 or not (fixed.shape == moving.shape == mask.shape):
        raise ValueError(
            "expected two images and a mask of one shape (B, 1, H, W), found"
            f" {tuple(fixed.shape)}, {tuple(moving.shape)} and {tuple(mask.shape)}"
        )


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` weighted by `mask`, over everything; 0 (not NaN) when the mask is empty."""
    return (values * mask).sum() / mask.sum().clamp_min(1.0)


def l1(fixed: Tensor, moving: Tensor, mask: Tensor) -> Tensor:
    """Mean |fixed - moving| over the mask (method, equation 3).

    Parameters
    ----------
    fixed, moving : (B, 1, H, W).
    mask : (B, 1, H, W), 0 or 1.

    Returns
    -------
    scalar >= 0; 0 when the mask is empty.
    """
    _check(fixed, moving, mask)
    return masked_mean((fixed - moving).abs(), mask)


def lncc(
    fixed: Tensor, moving: Tensor, mask: Tensor, window_px: int = 9, flatness: float = 1e-4
) -> Tensor:
    """`lncc_map`, averaged over the mask: a scalar in [0, 1]; its parameters."""
    return masked_mean(lncc_map(fixed, moving, mask, window_px, flatness), mask)


def lncc_map(
    fixed: Tensor, moving: Tensor, mask: Tensor, window_px: int = 9, flatness: float = 1e-4
) -> Tensor:
    """Local normalised cross-correlation, squared, around each pixel.

    In a window around each pixel, cov(f, m)^2 / (var(f) var(m)) over the window's pixels inside
    the mask (Avants et al. 2008, equation 6). Each variance gets a floor of `flatness` times the
    image's own variance in the mask, so a flat window counts 0 instead of the quotient of two
    rounding errors, and the value does not change under an affine change of intensity.

    Parameters
    ----------
    fixed, moving : (B, 1, H, W).
    mask : (B, 1, H, W), 0 or 1. What lies outside is not looked at.
    window_px : side of the square window, odd.
    flatness : floor of the variances, relative.

    Returns
    -------
    (B, 1, H, W) in [0, 1]; 1 where each image is locally an affine function of the other.
    """
    _check(fixed, moving, mask)
    if window_px % 2 == 0:
        raise ValueError(f"expected an odd window, found {window_px}")
    count = mask.sum((2, 3), keepdim=True).clamp_min(1.0)

    def centred(image: Tensor) -> tuple[Tensor, Tensor]:
        """Zero mean in the mask (which keeps float32 precise), and the floor of its variances."""
        mean = (image * mask).sum((2, 3), keepdim=True) / count
        image = (image - mean) * mask
        variance = (image * image).sum((2, 3), keepdim=True) / count
        # of an image that is flat everywhere, the variance is what rounding left
        rounding = (16 * torch.finfo(image.dtype).eps) ** 2 * (variance + mean.square())
        return image, flatness * variance + rounding + torch.finfo(image.dtype).tiny ** 0.5

    f, f_floor = centred(fixed)
    m, m_floor = centred(moving)
    sums = window_means([mask, f, m, f * f, m * m, f * m], window_px)
    weight, f_mean, m_mean, ff, mm, fm = sums.unbind(1)
    inside = weight.clamp_min(0.5 / window_px**2)  # no pixel of the mask: all sums are 0 as well
    f_mean, m_mean = f_mean / inside, m_mean / inside
    cov = fm / inside - f_mean * m_mean
    f_var = (ff / inside - f_mean**2).clamp_min(0.0) + f_floor[:, 0]
    m_var = (mm / inside - m_mean**2).clamp_min(0.0) + m_floor[:, 0]
    return (cov * cov / (f_var * m_var))[:, None]


def window_means(images: list[Tensor], window_px: int) -> Tensor:
    """Means over square windows, zeros outside, of (B, 1, H, W) images: (B, n, H, W)."""
    return bands_of(images[0], window_px).means(images)


@dataclass(frozen=True)
class Bands:
    """The products with two banded matrices, rows and columns, that are means over windows.

    On the CPU several times faster than pooling, forwards and backwards.
    """

    down: Tensor
    across: Tensor

    def means(self, images: list[Tensor]) -> Tensor:
        """As `window_means`."""
        stacked = torch.cat(images, 1)
        # sums of squares must not be rounded to half precision
        with torch.autocast(stacked.device.type, enabled=False):
            return self.down @ stacked @ self.across


def bands_of(image: Tensor, window_px: int) -> Bands:
    """Those of images like this one, (B, C, H, W)."""
    return Bands(*(_band(n, window_px, image) for n in image.shape[-2:]))


def _band(n: int, window_px: int, like: Tensor) -> Tensor:
    """(n, n), 1 / window_px where row and column differ by at most half a window."""
    at = torch.arange(n, device=like.device)
    inside = (at[:, None] - at[None, :]).abs() <= window_px // 2
    return inside.to(like.dtype) / window_px


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
    _check(fixed, moving, mask)
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


def dice_loss(fixed: Tensor, moving: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, averaged over the classes that are there.

    1 - 2 sum(f m) / (sum(f) + sum(m)) per image and class (Milletari et al. 2016, without the
    squares). A class that an image pair shows on neither side is left out, so it can give no NaN
    and no reward for nothing.

    Parameters
    ----------
    fixed, moving : (B, K, H, W), one-hot maps of K classes without the background, warped
        linearly or not.

    Returns
    -------
    scalar in [0, 1], the mean over all classes of all pairs that are there; 0 when none is.
    """
    if fixed.ndim != 4 or fixed.shape != moving.shape:
        raise ValueError(
            "expected two maps of one shape (B, K, H, W), found"
            f" {tuple(fixed.shape)} and {tuple(moving.shape)}"
        )
    both = (fixed * moving).sum((2, 3))
    either = fixed.sum((2, 3)) + moving.sum((2, 3))
    there = either > 0
    loss = 1.0 - 2.0 * both / torch.where(there, either, 1.0)
    return torch.where(there, loss, 0.0).sum() / there.sum().clamp_min(1)


def patch_nce(
    queries: Sequence[Tensor], keys: Sequence[Tensor], temperature: float = 0.05
) -> Tensor:
    """Each query should resemble the key of its own place more than those of other places.

    -mean over layers l and places n of log [exp(q_n.k_n / t) / sum_m exp(q_n.k_m / t)]
    (method, equation 5; Park et al. 2020, equation 3, with all negatives from the same image).

    Parameters
    ----------
    queries, keys : one (B, N_l, C) tensor per layer, unit length along C, float32; row n of
        both is the same place. Keys are detached: only the query learns. N_l may differ between
        layers; those that have as many are compared together.
    temperature : t.

    Returns
    -------
    (B,), of each image, >= 0; log N for descriptors that tell nothing. 0 when no layer has a place.
    """
    if len(queries) != len(keys) or any(
        q.shape != k.shape for q, k in zip(queries, keys, strict=True)
    ):
        raise ValueError("queries and keys differ in their number of layers or their shapes")
    alike: dict[tuple[int, ...], list[int]] = {}
    for layer, query in enumerate(queries):
        if query.shape[1]:
            alike.setdefault(tuple(query.shape), []).append(layer)
    total = queries[0].new_zeros(len(queries[0])) if queries else torch.zeros(0)
    for (batch, places, _), layers in alike.items():
        query = torch.cat([queries[layer] for layer in layers])
        key = torch.cat([keys[layer] for layer in layers]).detach()
        # divided by t, the rounding of half precision would be as large as the differences
        with torch.autocast(query.device.type, enabled=False):
            logits = query @ key.transpose(1, 2) / temperature
        own_place = torch.arange(places, device=query.device).expand(len(query), -1)
        unlike = F.cross_entropy(logits.flatten(0, 1), own_place.flatten(), reduction="none")
        total = total + unlike.view(len(layers), batch, places).mean(2).sum(0)
    return total / max(sum(map(len, alike.values())), 1)


def gradient_smoothness(field_px: Tensor) -> Tensor:
    """Mean squared gradient of a field (the ||grad v||^2 of method, equation 2).

    The mean over pixels and both components of the squared forward difference, averaged over the
    two directions. Pixel over pixel, so it has no unit.

    Parameters
    ----------
    field_px : (B, 2, H, W), px of its own grid.

    Returns
    -------
    scalar >= 0; 0 for a constant field.
    """
    if field_px.ndim != 4 or field_px.shape[1] != 2:
        raise ValueError(f"expected a field (B, 2, H, W), found {tuple(field_px.shape)}")
    ddx = field_px[..., :, 1:] - field_px[..., :, :-1]
    ddy = field_px[..., 1:, :] - field_px[..., :-1, :]
    return 0.5 * ((ddx * ddx).mean() + (ddy * ddy).mean())
