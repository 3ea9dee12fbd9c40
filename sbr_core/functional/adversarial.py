"""The least-squares adversarial loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def lsgan(scores: Tensor, goal: float, masks: Tensor) -> Tensor:
    """Mean squared distance of a discriminator's scores from a goal (Mao et al. 2017, equation 2).

    The discriminator wants 1 for real images and 0 for made ones, whoever makes them wants 1.

    Parameters
    ----------
    scores : (B, 1, h, w), one per patch.
    goal : 0 or 1.
    masks : (B, 1, H, W), tissue of the images; a patch counts by its share of tissue, since
        background has no information.

    Returns
    -------
    scalar >= 0; 0 when all scores are `goal`, or when there is no tissue.
    """
    weights = F.adaptive_avg_pool2d(masks, scores.shape[-2:])
    return (weights * (scores.float() - goal).square()).sum() / weights.sum().clamp_min(1e-6)
