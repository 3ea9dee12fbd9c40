"""cGAN: CycleGAN (Zhu et al. 2017), and the registration loss through the frozen registrar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core.functional.losses import l1
from sbr_core.functional.warp import warp
from sbr_core.nn.discriminator import Discriminator
from sbr_core.nn.generator import Generator, generator_architecture
from sbr_core.nn.registrar import Registrar
from sbr_core.training.adversaries import judge_loss, maker_loss
from sbr_core.training.pairs import Pairs
from sbr_core.training.tasks import Player
from sbr_core.training.through_registrar import ThroughRegistrar

if TYPE_CHECKING:
    from sbr_core.config import CganOptions


class CganTask(ThroughRegistrar):
    """Sections made to look like MRI and back; a discriminator for each of the two looks.

    Parameters
    ----------
    registrar, pairs : as of `ThroughRegistrar`.

    Attributes
    ----------
    generator : section to MRI; inference uses it.
    back_generator : MRI to section.
    discriminator, back_discriminator : of what the one and the other make.
    """

    name = "train cgan"
    watched = "l1"
    options: CganOptions

    def __init__(self, registrar: Registrar, pairs: Pairs, options: CganOptions) -> None:
        super().__init__(registrar, pairs, options)
        self.generator, self.back_generator = (
            Generator(**generator_architecture(options)).to(pairs.device) for _ in range(2)
        )
        self.discriminator, self.back_discriminator = (
            Discriminator(options.discriminator_channels).to(pairs.device) for _ in range(2)
        )
        self.modules = {
            "generator": self.generator,
            "back_generator": self.back_generator,
            "discriminator": self.discriminator,
            "back_discriminator": self.back_discriminator,
        }
        factor = options.discriminator_rate_factor
        self.players = (
            Player(("generator", "back_generator")),
            Player(("discriminator",), rate_factor=factor),
            Player(("back_discriminator",), rate_factor=factor),
        )

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """L1 of the registered synthesis, cycle, identity, and what all adversaries minimise."""
        options = self.options
        batch = self.pairs.draw(rng)
        section, plane = batch.section, batch.plane
        section_tissue, plane_tissue = batch.section_tissue, batch.plane_tissue
        same_wanted = options.identity_weight > 0

        # what a generator makes of its own kind comes out of the same pass
        to_mri = self.generator(torch.cat((section, plane)) if same_wanted else section)
        to_section = self.back_generator(torch.cat((plane, section)) if same_wanted else plane)
        n = options.batch_size
        made_plane = to_mri[:n] * batch.section_rim
        made_section = to_section[:n] * plane_tissue
        velocity_half_px = self.register(plane, made_plane, section)
        disp_px = self.registrar.displacement(velocity_half_px, plane.shape[-2:])
        losses = {
            "l1": l1(plane, warp(made_plane, disp_px), batch.plane_rim),
            "cycle": l1(section, self.back_generator(made_plane), section_tissue)
            + l1(plane, self.generator(made_section), plane_tissue),
            "adversarial": maker_loss(self.discriminator, made_plane, section_tissue)
            + maker_loss(self.back_discriminator, made_section, plane_tissue),
            "discriminator": judge_loss(
                self.discriminator, plane, plane_tissue, made_plane, section_tissue
            ),
            "back_discriminator": judge_loss(
                self.back_discriminator, section, section_tissue, made_section, plane_tissue
            ),
        }
        losses["loss"] = (
            losses["l1"]
            + options.cycle_weight * losses["cycle"]
            + options.adversarial_weight * losses["adversarial"]
            + losses["discriminator"]
            + losses["back_discriminator"]
        )
        if same_wanted:
            losses["identity"] = l1(plane, to_mri[n:], plane_tissue) + l1(
                section, to_section[n:], section_tissue
            )
            losses["loss"] = losses["loss"] + options.identity_weight * losses["identity"]
        return losses
