"""Adversaries on one loss: each learns from its own part of the sum only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


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


def judged(discriminator: nn.Module, images: Tensor) -> Tensor:
    """The discriminator's scores as whoever made the images sees them.

    Its parameters are detached: the gradient goes to the images and not to it, so that the losses
    of both adversaries can be added up and each still learns from its own.
    """
    fixed = {name: p.detach() for name, p in discriminator.named_parameters()}
    return functional_call(discriminator, fixed, (images,))


def maker_loss(discriminator: nn.Module, made: Tensor, masks: Tensor) -> Tensor:
    """What the maker of `made` (B, 1, H, W) minimises: that they pass as real."""
    return lsgan(judged(discriminator, made), 1.0, masks)


def judge_loss(
    discriminator: nn.Module, real: Tensor, real_masks: Tensor, made: Tensor, made_masks: Tensor
) -> Tensor:
    """What the discriminator minimises, to separate real from made ones, which are detached.

    Half the sum of both kinds (Mao et al. 2017, equation 9, a = 0, b = 1).

    Parameters
    ----------
    real, made : (B, 1, H, W).
    real_masks, made_masks : their tissue.
    """
    seen_real = lsgan(discriminator(real), 1.0, real_masks)
    return 0.5 * (seen_real + lsgan(discriminator(made.detach()), 0.0, made_masks))
