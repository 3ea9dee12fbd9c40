"""The registration networks R: two images in, a stationary velocity field out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from sbr_core.functional.warp import exponentiate, upsample_velocity, warp

if TYPE_CHECKING:
    from sbr_core.config import RegistrarNetwork


class Registrar(nn.Module, ABC):
    """What every registration network shares: its call, its padding, its integration.

    A network is a subclass with `levels` halvings and `_velocity`, the field of a padded pair.

    Parameters
    ----------
    levels : how often the network halves the image.
    squaring_steps : of the integration of the velocity.
    """

    def __init__(self, levels: int, squaring_steps: int) -> None:
        super().__init__()
        self.levels, self.squaring_steps = levels, squaring_steps

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """The velocity whose flow takes fixed pixels into the moving image.

        Parameters
        ----------
        fixed, moving : (B, 1, H, W), in [0, 1]; H and W even. The network needs multiples of
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
        multiple = 2**self.levels
        # even numbers at the top and left, so that the half grid stays in its place
        top, left = (-n % multiple // 4 * 2 for n in (rows, columns))
        bottom, right = -rows % multiple - top, -columns % multiple - left
        velocity = self._velocity(
            *(F.pad(image, (left, right, top, bottom)) for image in (fixed, moving))
        )
        return velocity[..., top // 2 :, left // 2 :][..., : rows // 2, : columns // 2].contiguous()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile in place what trainings call: the network, and the integration of its answer."""
        super().compile(*args, **kwargs)
        self.displacement = torch.compile(self.displacement, *args, **kwargs)

    @abstractmethod
    def _velocity(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """`forward` of a pair whose sides are multiples of 2^levels."""

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

    def _initialise(self, velocity_layers: Sequence[nn.Conv2d]) -> None:
        """Near the identity; and the faster memory layout on CPU and GPU."""
        # torch's own initialisation fades with depth, and half the first hundred steps with it
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                nn.init.zeros_(module.bias)
        for layer in velocity_layers:
            nn.init.normal_(layer.weight, std=1e-5)
        self.to(memory_format=torch.channels_last)


class UNetRegistrar(Registrar):
    """The paper's network: a U-Net of both images (method, table; Dalca et al. 2019).

    Each encoder level halves the image; the decoder starts at the coarsest level and doubles up to
    half resolution, taking the encoder's features of the same size along. 0.34 M parameters with
    the default channels.

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
        super().__init__(len(encoder_channels), squaring_steps)
        if len(encoder_channels) != len(decoder_channels) or not encoder_channels:
            raise ValueError(
                f"expected as many decoder as encoder levels, found {len(decoder_channels)}"
                f" and {len(encoder_channels)}"
            )
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
        self._initialise([self.velocity])

    def _velocity(self, fixed: Tensor, moving: Tensor) -> Tensor:
        pair = torch.cat((fixed, moving), 1)
        x, levels = pair.contiguous(memory_format=torch.channels_last), []
        for convolution in self.encoder:
            x = F.leaky_relu(convolution(x), 0.2)
            levels.append(x)
        levels.pop()  # the coarsest is where the decoder starts
        x = F.leaky_relu(self.decoder[0](x), 0.2)
        for convolution in self.decoder[1:]:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(convolution(torch.cat((x, levels.pop()), 1)), 0.2)
        return self.velocity(x)


class PyramidRegistrar(Registrar):
    """Features of each image by itself, compared from coarse to fine.

    One encoder sees both images. At each level the moving features are warped by the velocity found
    so far, correlated with the fixed ones within `radius_px`, and a small network adds to the
    velocity (a stationary-velocity version of Sun et al. 2018, PWC-Net). What remains to be found
    is small at every level, so it recovers large deformations with few parameters: 0.8 M with the
    default channels.

    Parameters
    ----------
    encoder_channels : of the levels, from fine (half resolution) to coarse.
    estimator_channels : of the network that adds to the velocity, from fine to coarse.
    radius_px : of the correlation, px of its level; the finest level has none.
    squaring_steps : of the integration of the velocity.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int] = (16, 32, 48, 64, 64, 64),
        estimator_channels: Sequence[int] = (24, 48, 64, 64, 64, 64),
        radius_px: int = 2,
        squaring_steps: int = 7,
    ) -> None:
        super().__init__(len(encoder_channels), squaring_steps)
        if len(encoder_channels) != len(estimator_channels) or not encoder_channels:
            raise ValueError(
                f"expected as many estimators as encoder levels, found {len(estimator_channels)}"
                f" and {len(encoder_channels)}"
            )
        self.radius_px = radius_px
        self.encoder, self.estimators = nn.ModuleList(), nn.ModuleList()
        channels = 1
        for level, (out, width) in enumerate(
            zip(encoder_channels, estimator_channels, strict=True)
        ):
            self.encoder.append(
                nn.Sequential(
                    nn.Conv2d(channels, out, 3, stride=2, padding=1),
                    nn.LeakyReLU(0.2),
                    nn.Conv2d(out, out, 3, padding=1),
                    nn.LeakyReLU(0.2),
                )
            )
            offsets = (2 * radius_px + 1) ** 2 if level else 0
            self.estimators.append(
                nn.Sequential(
                    nn.Conv2d(2 * out + offsets + 2, width, 3, padding=1),
                    nn.LeakyReLU(0.2),
                    nn.Conv2d(width, width, 3, padding=1),
                    nn.LeakyReLU(0.2),
                    nn.Conv2d(width, 2, 3, padding=1),
                )
            )
            channels = out
        self._initialise([estimator[-1] for estimator in self.estimators])

    def _velocity(self, fixed: Tensor, moving: Tensor) -> Tensor:
        x = torch.cat((fixed, moving)).contiguous(memory_format=torch.channels_last)
        pyramid = []
        for convolutions in self.encoder:
            x = convolutions(x)
            pyramid.append(x.chunk(2))
        # where only the moving image is learnt from, the way back through the other leads nowhere
        learnt_from = fixed.requires_grad or any(p.requires_grad for p in self.encoder.parameters())
        coarsest = pyramid[-1][0]
        velocity = coarsest.new_zeros(len(fixed), 2, *coarsest.shape[-2:], dtype=torch.float32)
        for level in reversed(range(self.levels)):
            of_fixed, of_moving = pyramid[level]
            if not learnt_from:
                of_fixed = of_fixed.detach()
            if level < self.levels - 1:
                velocity = upsample_velocity(velocity, of_fixed.shape[-2:])
                # four squarings are enough to look features up
                disp_px = exponentiate(velocity, 4)
                of_moving = warp(of_moving.float(), disp_px).to(of_moving.dtype)
            seen = [of_fixed, of_moving, velocity.to(of_fixed.dtype)]
            if level:
                seen.append(correlation(of_fixed, of_moving, self.radius_px))
            velocity = velocity + self.estimators[level](torch.cat(seen, 1)).float()
        return velocity


def correlation(a: Tensor, b: Tensor, radius_px: int) -> Tensor:
    """Cosine between the features of each pixel of `a` and those of `b` around the same pixel.

    Parameters
    ----------
    a, b : (B, C, H, W).
    radius_px : r.

    Returns
    -------
    (B, (2 r + 1)^2, H, W) in [-1, 1], offsets in row-major order, dy from -r then dx from -r; 0
    beyond the edge.
    """
    return _Products.apply(F.normalize(a, dim=1), F.normalize(b, dim=1), radius_px)


class _Products(torch.autograd.Function):
    """Scalar products of each pixel's channels with those of the other image's pixels around it.

    A card is given all offsets at once, which is a few kernels instead of hundreds. A processor
    takes them one by one, which keeps in its caches what it works on. Its gradient is written out
    because torch's own way back makes a whole image of zeros for each offset; it is the same to the
    last bit: added up from the last offset to the first, in the type of the features.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor, radius_px: int) -> Tensor:
        """As `correlation`, of features that are of unit length already."""
        # in one layout with `a`: what is warped comes in another, and reading both is slow
        padded = F.pad(b, (radius_px,) * 4).contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(a, padded)
        ctx.radius_px = radius_px
        if a.is_cuda:
            return (a[:, :, None, None] * _windows(padded, a.shape)).sum(1).flatten(1, 2)
        places = _offsets(a.shape, radius_px)
        return torch.cat([(a * padded[place]).sum(1, keepdim=True) for place in places], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of the features, as far as they are wanted."""
        a, padded = ctx.saved_tensors
        wanted_a, wanted_b, _ = ctx.needs_input_grad
        r, (rows, columns) = ctx.radius_px, a.shape[2:]
        if a.is_cuda:
            return *_gradient_at_once(a, padded, gradient, (wanted_a, wanted_b)), None
        of_a = torch.zeros_like(a) if wanted_a else None
        of_padded = torch.zeros_like(padded) if wanted_b else None
        offsets = zip(gradient.split(1, 1), _offsets(a.shape, r), strict=True)
        for of_offset, place in reversed(list(offsets)):
            if of_a is not None:
                of_a += of_offset * padded[place]
            if of_padded is not None:
                of_padded[place] += of_offset * a
        of_b = None
        if of_padded is not None:  # in torch's layout, in which the channels are then added up
            of_b = of_padded[..., r : r + rows, r : r + columns].contiguous()
        return of_a, of_b, None


def _windows(padded: Tensor, shape: Sequence[int]) -> Tensor:
    """Per offset (dy, dx), what lies there of an image with a rim: a view (B, C, n, n, H, W)."""
    return padded.unfold(2, shape[2], 1).unfold(3, shape[3], 1)


def _gradient_at_once(
    a: Tensor, padded: Tensor, gradient: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of both images of `_Products`, from few operations on large tensors."""
    side = padded.shape[2] - a.shape[2] + 1
    of_offsets = gradient.unflatten(1, (1, side, side))
    of_a = of_b = None
    if wanted[0]:
        of_a = (of_offsets * _windows(padded, a.shape)).sum((2, 3)).to(a.dtype)
    if wanted[1]:
        columns = (of_offsets * a[:, :, None, None]).flatten(1, 3).flatten(2)
        of_padded = F.fold(columns, padded.shape[2:], (side, side))
        r = side // 2
        of_b = of_padded[..., r:-r, r:-r].to(a.dtype)
    return of_a, of_b


def _offsets(shape: Sequence[int], radius_px: int) -> list[tuple[slice, ...]]:
    """Per offset, where an image (B, C, H, W) lies within another with `radius_px` around it."""
    side, (rows, columns) = range(2 * radius_px + 1), shape[-2:]
    everything = slice(None)
    return [
        (everything, everything, slice(dy, dy + rows), slice(dx, dx + columns))
        for dy in side
        for dx in side
    ]


NETWORKS: dict[str, type[Registrar]] = {"unet": UNetRegistrar, "pyramid": PyramidRegistrar}


def build_registrar(network: str = "unet", **architecture: Any) -> Registrar:
    """The registrar of a weights file's `architecture`; without `network`, a U-Net.

    Raises
    ------
    ValueError, TypeError
        No such network, or arguments that it does not take.
    """
    if network not in NETWORKS:
        raise ValueError(f"expected one of {', '.join(NETWORKS)}, found {network!r}")
    return NETWORKS[network](**architecture)


def registrar_architecture(options: RegistrarNetwork) -> dict[str, Any]:
    """Keyword arguments of `build_registrar` that options describe."""
    names = {
        "unet": ("encoder_channels", "decoder_channels", "squaring_steps"),
        "pyramid": ("encoder_channels", "estimator_channels", "radius_px", "squaring_steps"),
    }
    keys = ("network", *names[options.network])
    return {key: getattr(options, key) for key in keys}
