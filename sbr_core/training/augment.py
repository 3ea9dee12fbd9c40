"""Random deformation of training images: `draw` the parameters, then `apply` them.

Everything random comes from the one `torch.Generator` given to `draw`; it lives on the CPU, so the
same seed draws the same augmentation on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sbr_core.functional.warp import identity_px, warp
from sbr_core.training.devices import upload

if TYPE_CHECKING:
    from sbr_core.config import AugmentOptions


@dataclass(frozen=True)
class Augmentation:
    """Parameters of a batch of B deformations.

    Attributes
    ----------
    angle_rad, scale : (B,), the similarity about the image centre.
    translation_px : (B, 2), (x, y).
    nodes_px : (B, 2, n, n), displacements (x, y) at the nodes of a coarse grid over the image.
    """

    angle_rad: Tensor
    scale: Tensor
    translation_px: Tensor
    nodes_px: Tensor

    def repeated(self, times: int) -> Augmentation:
        """The same B deformations `times` over, (times B) of them."""
        return Augmentation(**{k: torch.cat([each] * times) for k, each in vars(self).items()})

    def on(self, device: torch.device, *others: Tensor) -> tuple[Augmentation, *tuple[Tensor, ...]]:
        """The same on a device, and other small tensors brought there with it."""
        own = list(vars(self).values())
        moved = upload([*own, *others], device)
        return Augmentation(*moved[: len(own)]), *moved[len(own) :]


def draw(batch: int, options: AugmentOptions, generator: torch.Generator) -> Augmentation:
    """Draw `batch` independent deformations (method, table: augmentation).

    Angle, scale and translation are uniform within their limits; the nodes are Gaussian, their
    standard deviation drawn per image from `options.field_sigma_px`.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    angle_rad = math.radians(1.0) * uniform(-options.rotation_deg, options.rotation_deg)
    scale = 1.0 + uniform(-options.scale, options.scale)
    translation_px = uniform(-options.translation_px, options.translation_px, 2)
    sigma_px = uniform(*options.field_sigma_px, 1, 1, 1)
    n = options.field_grid
    nodes_px = sigma_px * torch.randn(batch, 2, n, n, generator=generator)
    return Augmentation(angle_rad, scale, translation_px, nodes_px)


def displacement_px(
    augmentation: Augmentation,
    shape: tuple[int, int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """The deformation as one field: the smooth field first, then the similarity.

    Parameters
    ----------
    shape : (H, W).
    device : where the field is computed; only the parameters, which are few, travel there.

    Returns
    -------
    (B, 2, H, W), px.
    """
    angle_rad, scale, translation_px, nodes_px = upload(list(vars(augmentation).values()), device)
    # cubic between the nodes, so the field bends without creases at the grid lines
    field = F.interpolate(nodes_px, size=shape, mode="bicubic", align_corners=True)
    here = identity_px(shape, device=device)
    centre = here.mean((2, 3), keepdim=True)
    x, y = (here + field - centre).unbind(1)
    cos = (scale * torch.cos(angle_rad)).view(-1, 1, 1)
    sin = (scale * torch.sin(angle_rad)).view(-1, 1, 1)
    turned = torch.stack((cos * x - sin * y, sin * x + cos * y), 1)
    return turned + centre + translation_px[:, :, None, None] - here


def apply(images: Tensor, masks: Tensor, augmentation: Augmentation) -> tuple[Tensor, Tensor]:
    """Deform images and their masks alike.

    Parameters
    ----------
    images : (B, 1, H, W), interpolated linearly, 0 outside.
    masks : (B, M, H, W), 0 or 1, interpolated linearly and cut at one half.

    Returns
    -------
    (B, 1, H, W) and (B, M, H, W), new tensors; the masks are again 0 or 1.
    """
    disp_px = displacement_px(augmentation, images.shape[-2:], images.device)
    both = warp(torch.cat((images, masks), 1), disp_px)
    return both[:, :1], (both[:, 1:] >= 0.5).to(images.dtype)
