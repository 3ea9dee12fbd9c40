"""How much two maps of labels overlap, differentiably."""

from __future__ import annotations

import torch
from torch import Tensor


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
