"""The discriminator of the adversarial methods: is each patch of an image real?"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbr_core.nn.generator import instance_norm


class Discriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, section 6.1.2): a score for each patch of 70 px.

    Three stride-2 convolutions and two more, 4x4 each; instance normalisation but in the first
    layer, leaky ReLU. Scores are not bounded, as the least-squares loss wants them.

    Parameters
    ----------
    channels : of the first layer; doubled by each of the next three.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = (1, channels, 2 * channels, 4 * channels, 8 * channels, 1)
        self.layers = nn.ModuleList(
            nn.Conv2d(n, out, 4, stride=2 if level < 3 else 1, padding=1)
            for level, (n, out) in enumerate(itertools.pairwise(widths))
        )
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)  # the faster layout on CPU and GPU

    def forward(self, image: Tensor) -> Tensor:
        """Scores.

        Parameters
        ----------
        image : (B, 1, H, W) in [0, 1]; H and W multiples of 8. Sides below 32 are padded by
            zeros to 32.

        Returns
        -------
        (B, 1, h, w), h and w about H / 8 and W / 8.
        """
        down, across = (max(32 - n, 0) for n in image.shape[-2:])
        x = F.pad(image, (across // 2, across - across // 2, down // 2, down - down // 2))
        x = x.contiguous(memory_format=torch.channels_last)
        for level, layer in enumerate(self.layers):
            x = layer(x)
            if level == 0:
                x = F.leaky_relu(x, 0.2)
            elif level < len(self.layers) - 1:
                x = F.leaky_relu(instance_norm(x), 0.2)
        return x
