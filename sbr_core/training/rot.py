"""RoT: translation and registration trained together until they commute (Arar et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core.functional.losses import gradient_smoothness, l1
from sbr_core.functional.warp import warp
from sbr_core.nn.discriminator import Discriminator
from sbr_core.nn.generator import Generator, generator_architecture
from sbr_core.nn.registrar import Registrar
from sbr_core.training.adversaries import judge_loss, maker_loss
from sbr_core.training.pairs import Pairs
from sbr_core.training.tasks import Player

if TYPE_CHECKING:
    from sbr_core.config import RotOptions


class RotTask:
    """A section translated then registered, and registered then translated: both are the plane.

    Parameters
    ----------
    registrar : trained, beside a new generator and discriminator; it sees the plane and the section
        as they are, so that inference needs no synthesis.
    pairs : rim of a section: where it is synthesised; of a plane: where it is compared.
    """

    name = "train rot"
    watched = "l1"

    def __init__(self, registrar: Registrar, pairs: Pairs, options: RotOptions) -> None:
        self.registrar, self.pairs, self.options = registrar, pairs, options
        self.generator = Generator(**generator_architecture(options)).to(pairs.device)
        self.discriminator = Discriminator(options.discriminator_channels).to(pairs.device)
        self.modules = {
            "generator": self.generator,
            "registrar": registrar,
            "discriminator": self.discriminator,
        }
        self.players = (
            Player(("generator",)),
            Player(("registrar",), rate_factor=options.registrar_rate_factor),
            Player(("discriminator",), rate_factor=options.discriminator_rate_factor),
        )

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """L1 of both orders (equation 3), smoothness (6), and what both adversaries minimise."""
        options = self.options
        batch = self.pairs.draw(rng)
        section, plane, rim = batch.section, batch.plane, batch.section_rim
        velocity_half_px = self.registrar(plane, section)
        disp_px = self.registrar.displacement(velocity_half_px, plane.shape[-2:])
        warped_section, warped_rim = warp(torch.cat((section, rim), 1), disp_px).split(1, 1)
        warped_rim = (warped_rim >= 0.5).to(rim.dtype)

        translated, translated_after = self.generator(torch.cat((section, warped_section))).chunk(2)
        made = torch.cat((warp(translated * rim, disp_px), translated_after * warped_rim))
        registered_after, translated_after = made.chunk(2)
        made_masks = torch.cat((warped_rim, warped_rim))
        losses = {
            "l1": l1(plane, registered_after, batch.plane_rim)
            + l1(plane, translated_after, batch.plane_rim),
            "roughness": gradient_smoothness(velocity_half_px.float()),
            "adversarial": maker_loss(self.discriminator, made, made_masks),
            "discriminator": judge_loss(
                self.discriminator, plane, batch.plane_tissue, made, made_masks
            ),
        }
        losses["loss"] = (
            losses["l1"]
            + options.smoothness * losses["roughness"]
            + options.adversarial_weight * losses["adversarial"]
            + losses["discriminator"]
        )
        return losses
