"""Synth-by-Reg: the generator trained through the frozen registrar (method, equations 3 to 7).

Its variants too: SbR-N without contrast, SbR-R with a registrar that learns at the end, SbR-G with
a discriminator beside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sbr_core.functional.losses import gradient_smoothness, l1, patch_nce
from sbr_core.functional.warp import warp
from sbr_core.nn.discriminator import Discriminator
from sbr_core.nn.generator import Generator, generator_architecture
from sbr_core.nn.projection import Projection
from sbr_core.nn.registrar import Registrar
from sbr_core.training.adversaries import judge_loss, maker_loss
from sbr_core.training.devices import upload
from sbr_core.training.pairs import Batch, Pairs
from sbr_core.training.tasks import Player
from sbr_core.training.through_registrar import ThroughRegistrar

if TYPE_CHECKING:
    from sbr_core.config import SbrGOptions, SbrOptions, SbrROptions


def draw_places(tissue: Tensor, stride: int, n: int, rng: torch.Generator) -> Tensor:
    """Random tissue pixels of a feature map, without repetition.

    Parameters
    ----------
    tissue : (B, 1, H, W), 0 or 1.
    stride : of the feature map, whose pixel (i, j) is centred on image pixel (stride i, stride j).

    Returns
    -------
    (B, M) int64, indices into the flattened (H / stride, W / stride); M is `n`, or the number of
    tissue pixels of the image that has fewest, if that is less.
    """
    inside = tissue[:, 0, ::stride, ::stride].flatten(1).cpu() > 0
    m = min(n, int(inside.sum(1).min()))
    # the places with the largest of random numbers, none of them outside the tissue
    return (torch.rand(inside.shape, generator=rng) - 2.0 * ~inside).topk(m, dim=1).indices


def features_at(features: Tensor, places: Tensor) -> Tensor:
    """Features (B, C, h, w) at places (B, M): (B, M, C)."""
    flat = features.flatten(2)
    index = places.to(features.device)[:, None].expand(-1, features.shape[1], -1)
    return flat.gather(2, index).transpose(1, 2)


@dataclass(frozen=True)
class Synthesis:
    """What a step made on its way.

    Attributes
    ----------
    image : (B, 1, h, w), G(S) within the rim of the section.
    velocity_half_px : (B, 2, h/2, w/2), of the registration of that image to the plane.
    """

    image: Tensor
    velocity_half_px: Tensor


class SbrTask(ThroughRegistrar):
    """One section and its MRI plane: synthesise, register by the frozen R, compare.

    Without a contrastive weight it is SbR-N.

    Parameters
    ----------
    registrar, pairs : as of `ThroughRegistrar`; generator and projection are new.
    """

    name = "train sbr"
    options: SbrOptions

    def __init__(self, registrar: Registrar, pairs: Pairs, options: SbrOptions) -> None:
        super().__init__(registrar, pairs, options)
        self.generator = Generator(**generator_architecture(options)).to(pairs.device)
        projection = Projection(self.generator.layer_channels, options.projection_channels)
        self.projection = projection.to(pairs.device)
        self.modules: dict[str, nn.Module] = {
            "generator": self.generator,
            "projection": self.projection,
        }

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """L1 of the registered synthesis + weighted contrast; equations as in the method."""
        batch = self.pairs.draw(rng)
        return self.losses_of(batch, rng)[0]

    def losses_of(self, batch: Batch, rng: torch.Generator) -> tuple[dict[str, Tensor], Synthesis]:
        """The losses of a batch, and what they were computed from."""
        options, generator = self.options, self.generator
        section, plane = batch.section, batch.plane
        contrast_wanted = options.contrastive_weight > 0

        # the descriptors of S come out of the pass that synthesises
        layers = range(generator.n_layers) if contrast_wanted else ()
        synthesised, of_section = generator.synthesise(section, layers)
        # R was trained on planes with nothing around the brain, so that is what it is given
        synthesised = synthesised * batch.section_rim
        velocity_half_px = self.register(plane, synthesised, section)
        disp_px = self.registrar.displacement(velocity_half_px, plane.shape[-2:])
        warped, warped_section = warp(torch.cat((synthesised, section), 1), disp_px).split(1, 1)
        losses = {"l1": l1(plane, warped, batch.plane_rim)}  # equation 3
        losses["loss"] = losses["l1"]
        made = Synthesis(synthesised, velocity_half_px)
        if not contrast_wanted:
            return losses, made

        at = options.batch_size
        of_images = self._contrast(batch, torch.cat((synthesised, warped_section)), of_section, rng)
        losses["nce_section"], losses["nce_plane"] = of_images.view(2, at).mean(1).unbind()
        contrast = losses["nce_section"] + losses["nce_plane"]
        losses["loss"] = losses["l1"] + options.contrastive_weight * contrast  # equation 7
        return losses, made

    def _contrast(
        self, batch: Batch, compared: Tensor, of_section: list[Tensor], rng: torch.Generator
    ) -> Tensor:
        """Equation 6: G(S) against S in the tissue of S, S∘φ against T in the tissue of T.

        Both at once: many small operations keep a graphics card waiting for the next.

        Parameters
        ----------
        compared : (2 B, 1, h, w): all G(S), then all S∘φ.
        of_section : features of S, layer by layer.

        Returns
        -------
        (2 B,), the contrastive loss of each image of `compared`.
        """
        layers, at = range(self.generator.n_layers), self.options.batch_size
        of_compared = self.generator.encode(compared, layers)
        places = self._draw_places(batch, rng)
        queries = [features_at(f, p) for f, p in zip(of_compared, places, strict=True)]
        described = self.projection(queries)
        with torch.no_grad():  # keys teach, they do not learn
            of_plane = self.generator.encode(batch.plane, layers)
            keys = [
                torch.cat((features_at(s, p[:at]), features_at(t, p[at:])))
                for s, t, p in zip(of_section, of_plane, places, strict=True)
            ]
            target = self.projection(keys)
        return patch_nce(described, target, self.options.temperature)

    def _draw_places(self, batch: Batch, rng: torch.Generator) -> list[Tensor]:
        """Places of descriptors, layer by layer, (2 B, M): in the tissue of sections, of planes.

        As many in either as the one that has fewest can give.
        """
        strides, n = self.generator.layer_strides, self.options.n_samples
        # down and up again in one transfer each
        tissue = (torch.cat((batch.section_tissue, batch.plane_tissue)) > 0).cpu()
        of_section, of_plane = (
            [draw_places(one, stride, n, rng) for stride in strides] for one in tissue.chunk(2)
        )
        places = []
        for pair in zip(of_section, of_plane, strict=True):
            fewest = min(one.shape[1] for one in pair)
            places.append(torch.cat([one[:, :fewest] for one in pair]))
        return upload(places, batch.section.device)


class SbrRTask(SbrTask):
    """SbR-R: towards the end the registrar learns too, held by the smoothness of its velocity."""

    name = "train sbr_r"
    watched = "l1"

    def __init__(self, registrar: Registrar, pairs: Pairs, options: SbrROptions) -> None:
        super().__init__(registrar, pairs, options)
        self.modules["registrar"] = registrar
        factor, start = options.registrar_rate_factor, 1.0 - options.finetune_fraction
        self.players = (
            Player(("generator", "projection")),
            Player(("registrar",), rate_factor=factor, starts_at=start),
        )

    def losses_of(self, batch: Batch, rng: torch.Generator) -> tuple[dict[str, Tensor], Synthesis]:
        """As SbR; the smoothness counts once R learns."""
        losses, made = super().losses_of(batch, rng)
        losses["roughness"] = gradient_smoothness(made.velocity_half_px.float())
        if any(p.requires_grad for p in self.registrar.parameters()):
            losses["loss"] = losses["loss"] + self.options.smoothness * losses["roughness"]
        return losses, made


class SbrGTask(SbrTask):
    """SbR-G: a discriminator separates synthesised sections from MRI planes, G learns to pass."""

    name = "train sbr_g"
    watched = "l1"

    def __init__(self, registrar: Registrar, pairs: Pairs, options: SbrGOptions) -> None:
        super().__init__(registrar, pairs, options)
        self.discriminator = Discriminator(options.discriminator_channels).to(pairs.device)
        self.modules["discriminator"] = self.discriminator
        self.players = (
            Player(("generator", "projection")),
            Player(("discriminator",), rate_factor=options.discriminator_rate_factor),
        )

    def losses_of(self, batch: Batch, rng: torch.Generator) -> tuple[dict[str, Tensor], Synthesis]:
        """As SbR, and what both adversaries minimise."""
        losses, made = super().losses_of(batch, rng)
        tissue = batch.section_tissue
        losses["adversarial"] = maker_loss(self.discriminator, made.image, tissue)
        losses["discriminator"] = judge_loss(
            self.discriminator, batch.plane, batch.plane_tissue, made.image, tissue
        )
        losses["loss"] = (
            losses["loss"]
            + self.options.adversarial_weight * losses["adversarial"]
            + losses["discriminator"]
        )
        return losses, made
