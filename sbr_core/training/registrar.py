"""Training of the registrar R on pairs of MRI planes of one stack (method, equation 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core.functional.losses import gradient_smoothness, lncc
from sbr_core.functional.masks import dilate
from sbr_core.functional.warp import warp
from sbr_core.nn.registrar import Registrar
from sbr_core.training import augment

if TYPE_CHECKING:
    from sbr_core.config import RegistrarOptions


def neighbour_pairs(positions_mm: Sequence[float], neighbours: int) -> Tensor:
    """All ordered pairs of planes at most `neighbours` apart along the stack.

    Apart by the order of their positions, whatever order the list is in. With 0 neighbours each
    plane is paired with itself, since the two are deformed independently: for stacks whose planes
    are too far apart to show the same anatomy.

    Returns
    -------
    (P, 2) int64, indices into `positions_mm`.
    """
    order = torch.argsort(torch.tensor(positions_mm, dtype=torch.float64), stable=True)
    rank = torch.argsort(order)
    apart = (rank[:, None] - rank[None, :]).abs()
    return torch.nonzero((apart <= neighbours) & ((apart > 0) | (neighbours == 0)))


class RegistrarTask:
    """Random neighbours, each deformed on its own, registered both ways.

    Parameters
    ----------
    registrar : the network to train, on the device of the data.
    planes : (N, 1, H, W), in [0, 1], background 0; N >= 2.
    masks : (N, 1, H, W), 0 or 1.
    positions_mm : N, any order.
    """

    name = "train_registrar"

    def __init__(
        self,
        registrar: Registrar,
        planes: Tensor,
        masks: Tensor,
        positions_mm: Sequence[float],
        options: RegistrarOptions,
    ) -> None:
        self.modules = {"registrar": registrar}
        self.registrar, self.options = registrar, options
        self.planes = planes
        # the rim around the tissue shows where the outline is
        self.masks = dilate(masks, options.mask_dilation_px)
        self.pairs = neighbour_pairs(positions_mm, options.neighbours)

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """-LNCC of both directions + smoothness of the velocity they share."""
        options = self.options
        chosen = torch.randint(len(self.pairs), (options.batch_size,), generator=rng)
        both = self.pairs[chosen].T.flatten()  # all fixed, then all moving
        deformation = augment.draw(len(both), options.augment, rng)
        deformation, both = deformation.on(self.planes.device, both)
        images, masks = augment.apply(self.planes[both], self.masks[both], deformation)
        fixed, moving = images.chunk(2)
        velocity_half_px = self.registrar(fixed, moving)
        disp_px = self.registrar.displacement(
            torch.cat((velocity_half_px, -velocity_half_px)), fixed.shape[-2:]
        )
        warped = warp(torch.cat((moving, fixed)), disp_px)
        likeness = lncc(images, warped, masks, options.lncc_window_px)
        roughness = gradient_smoothness(velocity_half_px.float())
        return {
            "loss": options.smoothness * roughness - likeness,
            "lncc": likeness,
            "roughness": roughness,
        }
