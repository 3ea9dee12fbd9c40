"""Descriptors of an image by its own repetitions: alike in images of different contrasts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_VARIANCE_RANGE = (1e-3, 1e3)
"""Limits of the local variance, as multiples of its mean over the mask: in flat tissue noise would
look like structure, and one bright edge would flatten all else (Heinrich et al. 2013 limit it
likewise)."""


def mind_ssc(images: Tensor, masks: Tensor, dilations_px: Sequence[int] = (1, 2)) -> Tensor:
    """Modality-independent self-similarity context of 2D images (MIND-SSC).

    Of the four neighbours of a pixel at a dilation, each pair of adjacent ones is compared by the
    mean squared difference D of the 3 x 3 patches around them. A descriptor is
    exp(-(D - min D) / V) with V the mean of D - min D at the pixel (Heinrich et al. 2012,
    equation 4, with the layout of Heinrich et al. 2013, section 2.2, in two dimensions). It does
    not change under an affine change of intensity, its sign included.

    Parameters
    ----------
    images : (B, 1, H, W).
    masks : (B, 1, H, W), 0 or 1: what counts for the usual variance, so that the amount of
        background does not.
    dilations_px : distances of the neighbours, px, each at least 1.

    Returns
    -------
    (B, 4 n, H, W) in (0, 1]; of the four of a dilation the largest is 1.
    """
    if images.ndim != 4 or images.shape[1] != 1 or images.shape != masks.shape:
        raise ValueError(
            "expected images and masks of one shape (B, 1, H, W), found"
            f" {tuple(images.shape)} and {tuple(masks.shape)}"
        )
    count = masks.sum((2, 3), keepdim=True).clamp_min(1.0)
    descriptors = []
    for reach in dilations_px:
        around = F.pad(images, (reach,) * 4, mode="replicate")
        rows, columns = images.shape[-2:]
        at = (
            (0, reach),
            (reach, 2 * reach),
            (2 * reach, reach),
            (reach, 0),
        )  # up, right, down, left
        neighbours = [around[..., r : r + rows, c : c + columns] for r, c in at]
        pairs = zip(neighbours, neighbours[1:] + neighbours[:1], strict=True)
        differences = torch.cat([(a - b).square() for a, b in pairs], 1)
        patches = _mean_of_patches(differences)
        patches = patches - patches.amin(1, keepdim=True)
        variance = patches.mean(1, keepdim=True)
        usual = (variance * masks).sum((2, 3), keepdim=True) / count
        usual = usual.clamp_min(torch.finfo(images.dtype).tiny)
        low, high = (usual * factor for factor in _VARIANCE_RANGE)
        descriptors.append(torch.exp(-patches / variance.clamp(low, high)))
    return torch.cat(descriptors, 1)


def _mean_of_patches(images: Tensor) -> Tensor:
    """Means over squares of 3 x 3 px; on a processor sums are four times as fast as pooling."""
    around = F.pad(images, (1,) * 4, mode="replicate")
    down = around[..., :-2, :] + around[..., 1:-1, :] + around[..., 2:, :]
    return (down[..., :-2] + down[..., 1:-1] + down[..., 2:]) / 9.0
