"""The registration network R: two images in, a stationary velocity field out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbr_core.functional.warp import exponentiate, upsample_velocity


class Registrar(nn.Module):
    """U-Net whose last layer is a velocity at half resolution (method, table; Dalca et al. 2019).

    Each encoder level halves the image; the decoder starts at the coarsest level and doubles up to
    half resolution, taking the encoder's features of the same size along. 0.34 M parameters with
    the default channels. It starts near the identity: the velocity layer begins near zero.

    Parameters
    ----------
    encoder_channels : of the stride-2 convolutions, from fine to coarse.
    decoder_channels : as many, from coarse to fine.
    squaring_steps : of the integration of the velocity.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int] = (16, 32, 32, 64, 64, 64),
        decoder_channels: Sequence[int] = (64, 64, 64, 32, 32, 16),
        squaring_steps: int = 7,
    ) -> None:
        super().__init__()
        if len(encoder_channels) != len(decoder_channels) or not encoder_channels:
            raise ValueError(
                f"expected as many decoder as encoder levels, found {len(decoder_channels)}"
                f" and {len(encoder_channels)}"
            )
        self.squaring_steps = squaring_steps
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        channels = 2
        for out in encoder_channels:
            self.encoder.append(nn.Conv2d(channels, out, 3, stride=2, padding=1))
            channels = out
        skips = [0, *reversed(encoder_channels[:-1])]
        for skip, out in zip(skips, decoder_channels, strict=True):
            self.decoder.append(nn.Conv2d(channels + skip, out, 3, padding=1))
            channels = out
        self.velocity = nn.Conv2d(channels, 2, 3, padding=1)
        # torch's own initialisation fades with depth, and half the first hundred steps with it
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.velocity.weight, std=1e-5)
        self.to(memory_format=torch.channels_last)  # the faster layout on CPU and GPU

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """The velocity whose flow takes fixed pixels into the moving image.

        Parameters
        ----------
        fixed, moving : (B, 1, H, W), in [0, 1]; H and W even. The U-Net needs multiples of
            2^levels and adds zeros around for itself.

        Returns
        -------
        velocity_half_px : (B, 2, H/2, W/2), px of the half grid. Its negative gives the inverse.
        """
        rows, columns = fixed.shape[-2:]
        if fixed.shape != moving.shape or rows % 2 or columns % 2:
            raise ValueError(
                "expected two images of one shape with even sides, found"
                f" {tuple(fixed.shape)} and {tuple(moving.shape)}"
            )
        multiple = 2 ** len(self.encoder)
        # even numbers at the top and left, so that the half grid stays in its place
        top, left = (-n % multiple // 4 * 2 for n in (rows, columns))
        bottom, right = -rows % multiple - top, -columns % multiple - left
        pair = F.pad(torch.cat((fixed, moving), 1), (left, right, top, bottom))
        velocity = self._unet(pair.contiguous(memory_format=torch.channels_last))
        return velocity[..., top // 2 :, left // 2 :][..., : rows // 2, : columns // 2].contiguous()

    def _unet(self, x: Tensor) -> Tensor:
        levels = []
        for convolution in self.encoder:
            x = F.leaky_relu(convolution(x), 0.2)
            levels.append(x)
        levels.pop()  # the coarsest is where the decoder starts
        x = F.leaky_relu(self.decoder[0](x), 0.2)
        for convolution in self.decoder[1:]:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(convolution(torch.cat((x, levels.pop()), 1)), 0.2)
        return self.velocity(x)

    def displacement(self, velocity_half_px: Tensor, shape: tuple[int, int]) -> Tensor:
        """Integrate a velocity and bring it to full resolution.

        Parameters
        ----------
        velocity_half_px : (B, 2, H/2, W/2).
        shape : (H, W).

        Returns
        -------
        disp_fixed_to_moving_px : (B, 2, H, W); of the negative velocity: disp_moving_to_fixed_px.
        """
        # integrating in float32 whatever the network's precision: squaring doubles errors
        return upsample_velocity(exponentiate(velocity_half_px.float(), self.squaring_steps), shape)
