"""NMI and NMIw: a registrar trained on the pairs themselves, without any synthesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core.functional.losses import dice_loss, gradient_smoothness, nmi
from sbr_core.functional.warp import warp
from sbr_core.nn.registrar import Registrar
from sbr_core.training.pairs import Batch, Pairs

if TYPE_CHECKING:
    from sbr_core.config import NmiOptions, NmiwOptions


class NmiTask:
    """A section and its MRI plane, registered both ways by the information they share.

    Parameters
    ----------
    registrar : trained; it sees the plane and the section as they are.
    pairs : compared where the tissue of both overlaps; their rims are not used.
    """

    name = "train nmi"

    def __init__(self, registrar: Registrar, pairs: Pairs, options: NmiOptions) -> None:
        self.modules = {"registrar": registrar}
        self.registrar, self.pairs, self.options = registrar, pairs, options

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """-NMI of both directions + smoothness of the velocity they share."""
        options = self.options
        batch = self.pairs.draw(rng)
        velocity_half_px = self.registrar(batch.plane, batch.section)
        disp_px = self.registrar.displacement(
            torch.cat((velocity_half_px, -velocity_half_px)), batch.plane.shape[-2:]
        )
        fixed = torch.cat((batch.plane, batch.section))
        moving = torch.cat((batch.section, batch.plane))
        moving_tissue = torch.cat((batch.section_tissue, batch.plane_tissue))
        warped, warped_tissue = warp(torch.cat((moving, moving_tissue), 1), disp_px).split(1, 1)
        # where both show tissue: an outline has more information than all anatomy within, and that
        # of an MRI with fluid or medium around the brain is another one
        overlap = torch.cat((batch.plane_tissue, batch.section_tissue)) * (warped_tissue >= 0.5)
        losses = {
            "nmi": nmi(fixed, warped, overlap, options.bins),
            "roughness": gradient_smoothness(velocity_half_px.float()),
        }
        losses["loss"] = options.smoothness * losses["roughness"] - losses["nmi"]
        return losses | self.label_losses(losses["loss"], batch, disp_px)

    def label_losses(self, loss: Tensor, batch: Batch, disp_px: Tensor) -> dict[str, Tensor]:
        """What labels add: nothing to NMI.

        Parameters
        ----------
        loss : of the images.
        disp_px : (2 B, 2, h, w), plane to section of all pairs, then section to plane.
        """
        return {}


class NmiwTask(NmiTask):
    """NMIw: the overlap of labels beside, for the pairs that have some."""

    name = "train nmiw"
    options: NmiwOptions

    def label_losses(self, loss: Tensor, batch: Batch, disp_px: Tensor) -> dict[str, Tensor]:
        """The soft Dice of both directions, and the loss with it."""
        warped = warp(torch.cat((batch.section_labels, batch.plane_labels)), disp_px)
        dice = dice_loss(torch.cat((batch.plane_labels, batch.section_labels)), warped)
        return {"dice": dice, "loss": loss + self.options.label_weight * dice}
