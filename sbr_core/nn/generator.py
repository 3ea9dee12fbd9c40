"""The synthesis network G: a section in, what the MRI of it would look like out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbr_core.nn.reflection import reflected

if TYPE_CHECKING:
    from sbr_core.config import GeneratorNetwork


_FEW_IMAGES = 2
"""A card normalises up to this many images one by one."""


def instance_norm(x: Tensor) -> Tensor:
    """Zero mean, unit variance per image and channel.

    Each image goes through batch normalisation of a batch of one: the same numbers from kernels
    that take channels-last memory as it is. torch's own instance normalisation copies it into
    another layout, and every convolution after it copies back; on a graphics card that is still
    better than a kernel for each image of a large batch.
    """
    if x.is_cuda and len(x) > _FEW_IMAGES:
        return F.instance_norm(x)
    images = [F.batch_norm(one, None, None, training=True) for one in x.split(1)]
    return images[0] if len(images) == 1 else torch.cat(images)


class Blur(nn.Module):
    """Binomial 3x3 low-pass filter, which keeps sampling at half rate free of aliasing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # a list of all, neither multiplied nor copied: on "meta", on which shapes are checked,
        # torch would import its compiler for that, which takes two seconds
        edge, middle = (0.0625, 0.125, 0.0625), (0.125, 0.25, 0.125)
        kernel = torch.tensor([[[edge, middle, edge]]] * channels)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor, pad_px: int = 1) -> Tensor:
        """(B, C, H, W) to (B, C, H, W), or larger by what `pad_px` is above 1, reflected."""
        x = reflected(x, pad_px)
        return F.conv2d(x, self.kernel.to(x.dtype), groups=x.shape[1])


class Down(nn.Module):
    """Blur, then a stride-2 convolution.

    The same family of functions as convolving at full rate, blurring and dropping every other
    pixel (Zhang 2019), since the two filters commute, at a quarter of the cost.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.blur = Blur(channels)
        self.convolution = nn.Conv2d(channels, out, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.blur(x, pad_px=2))  # reflected once for both


class Up(nn.Module):
    """Stride-2 transposed convolution, then blur: interpolation and convolution at a quarter."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(
            channels, out, 3, stride=2, padding=1, output_padding=1
        )
        self.blur = Blur(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.blur(self.convolution(x))


class Residual(nn.Module):
    """x + two convolutions of it (Johnson et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3)
        self.second = nn.Conv2d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(instance_norm(self.first(reflected(x, 1))))
        return x + instance_norm(self.second(reflected(y, 1)))


class Generator(nn.Module):
    """ResNet generator (method, table; Johnson et al. 2016, Park et al. 2020).

    7x7 stem, three anti-aliased downsamplings, residual blocks, three upsamplings, 7x7 output;
    instance normalisation, reflection padding, sigmoid. 7.86 M parameters with 32 channels.

    Its encoder has `n_layers` layers to take descriptors from: 0 the input, 1 to 3 the downsampling
    convolutions (before normalisation), 4 the first and 5 the last residual block.

    Parameters
    ----------
    channels : of the stem; doubled at each downsampling.
    residual_blocks : at an eighth of the resolution, at least 1.
    skips : add the encoder's features to the decoder's of the same size. Not in the paper: fine
        structure need not pass through an eighth of the resolution, and is learnt sooner.
    """

    n_layers = 6
    multiple = 8
    """Rows and columns must be a multiple of this."""

    def __init__(self, channels: int = 32, residual_blocks: int = 6, skips: bool = False) -> None:
        super().__init__()
        self.skips = skips
        if residual_blocks < 1:
            raise ValueError(f"expected at least one residual block, found {residual_blocks}")
        c = channels
        self.stem = nn.Conv2d(1, c, 7)
        self.down = nn.ModuleList([Down(c, 2 * c), Down(2 * c, 4 * c), Down(4 * c, 8 * c)])
        self.blocks = nn.ModuleList([Residual(8 * c) for _ in range(residual_blocks)])
        self.up = nn.ModuleList([Up(8 * c, 4 * c), Up(4 * c, 2 * c), Up(2 * c, c)])
        self.out = nn.Conv2d(c, 1, 7)
        self.layer_channels = (1, 2 * c, 4 * c, 8 * c, 8 * c, 8 * c)
        self.layer_strides = (1, 2, 4, 8, 8, 8)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)  # the faster layout on CPU and GPU

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile in place what trainings call, which is not `forward`."""
        self.synthesise = torch.compile(self.synthesise, *args, **kwargs)
        self.encode = torch.compile(self.encode, *args, **kwargs)

    def forward(self, image: Tensor) -> Tensor:
        """Synthesise.

        Parameters
        ----------
        image : (B, 1, H, W) in [0, 1]; H and W multiples of 8.

        Returns
        -------
        (B, 1, H, W) in [0, 1].
        """
        return self.synthesise(image, ())[0]

    def encode(self, image: Tensor, layers: Sequence[int] = range(n_layers)) -> list[Tensor]:
        """Features of the encoder, without the decoder.

        Parameters
        ----------
        image : (B, 1, H, W).
        layers : which of the `n_layers`; nothing beyond the last one asked for is computed.

        Returns
        -------
        per layer, in the order asked for, (B, layer_channels[l], H / stride, W / stride) with
        stride = layer_strides[l]; feature (i, j) is centred on pixel (stride * i, stride * j).
        """
        return self._encoder(image, layers, stop_early=True)[1]

    def synthesise(
        self, image: Tensor, layers: Sequence[int] = range(n_layers)
    ) -> tuple[Tensor, list[Tensor]]:
        """`forward` and `encode` of the same image in one pass."""
        x, features, levels = self._encoder(image, layers, stop_early=False)
        for up, level in zip(self.up, reversed(levels), strict=True):
            x = F.relu(instance_norm(up(x)))
            if self.skips:
                x = x + level
        return torch.sigmoid(self.out(reflected(x, 3))), features

    def _encoder(
        self, image: Tensor, layers: Sequence[int], stop_early: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Its output, the features asked for, and what skips take: full to quarter resolution."""
        if image.ndim != 4 or image.shape[1] != 1 or any(n % 8 for n in image.shape[-2:]):
            raise ValueError(
                f"expected (B, 1, H, W), sides multiples of 8, found {tuple(image.shape)}"
            )
        features, levels = {0: image}, []
        last = max(layers, default=0) if stop_early else self.n_layers
        if last == 0:
            return image, [features[layer] for layer in layers], levels
        x = self.stem(reflected(image, 3))
        x = F.relu(instance_norm(x.contiguous(memory_format=torch.channels_last)))
        for number, down in enumerate(self.down, 1):
            levels.append(x)
            x = features[number] = down(x)
            if number == last:
                return x, [features[layer] for layer in layers], levels
            x = F.relu(instance_norm(x))
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number == 0:
                features[4] = x
                if last == 4:
                    break
        features[5] = x
        return x, [features[layer] for layer in layers], levels


def generator_architecture(options: GeneratorNetwork) -> dict[str, Any]:
    """Keyword arguments of the `Generator` that options describe."""
    return {
        "channels": options.generator_channels,
        "residual_blocks": options.residual_blocks,
        "skips": options.generator_skips,
    }
