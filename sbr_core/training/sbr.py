"""Synth-by-Reg: the generator trained through the frozen registrar (method, equations 3 to 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core import augment
from sbr_core.functional.contrast import patch_nce
from sbr_core.functional.similarity import l1
from sbr_core.functional.warp import warp
from sbr_core.nn.generator import Generator
from sbr_core.nn.projection import Projection
from sbr_core.nn.registrar import Registrar
from sbr_core.training.predict import tissue_box
from sbr_core.training.registrar import dilate

if TYPE_CHECKING:
    from sbr_core.config import SbrOptions


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


def take(features: Tensor, places: Tensor) -> Tensor:
    """Features (B, C, h, w) at places (B, M): (B, M, C)."""
    flat = features.flatten(2)
    index = places.to(features.device)[:, None].expand(-1, features.shape[1], -1)
    return flat.gather(2, index).transpose(1, 2)


class SbrTask:
    """One section and its MRI plane: synthesise, register by the frozen R, compare.

    Parameters
    ----------
    generator, projection : trained.
    registrar : never changed; its parameters stop requiring gradients.
    sections, section_masks : (N, 1, H, W), through the section's affine, in [0, 1] and {0, 1}.
    planes, plane_masks : (N, 1, H, W), the MRI planes of the same positions.
    """

    name = "train_sbr"

    def __init__(
        self,
        generator: Generator,
        projection: Projection,
        registrar: Registrar,
        sections: Tensor,
        section_masks: Tensor,
        planes: Tensor,
        plane_masks: Tensor,
        options: SbrOptions,
    ) -> None:
        self.modules = {"generator": generator, "projection": projection}
        self.generator, self.projection = generator, projection
        self.registrar = registrar.requires_grad_(False).eval()
        self.images = torch.stack((sections, planes))
        # channel 0: tissue; channel 1: a rim more, where sections are synthesised, planes compared
        masks = torch.stack((section_masks, plane_masks))
        rims = (
            dilate(section_masks, options.synthesis_rim_px),
            dilate(plane_masks, options.mask_dilation_px),
        )
        self.masks = torch.cat((masks, torch.stack(rims)), 2)
        self.options = options

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """L1 of the registered synthesis + weighted contrast; equations as in the method."""
        options, generator = self.options, self.generator
        chosen = torch.randint(self.images.shape[1], (options.batch_size,), generator=rng)
        chosen = chosen.to(self.images.device)
        images, masks = augment.apply(
            self.images[:, chosen].flatten(0, 1),
            self.masks[:, chosen].flatten(0, 1),
            augment.draw(2 * options.batch_size, options.augment, rng),
        )
        # what lies outside costs time and teaches nothing
        rows, columns = tissue_box(masks, generator.multiple)
        images, masks = images[..., rows, columns], masks[..., rows, columns]
        section, plane = images.chunk(2)
        section_masks, plane_masks = masks.chunk(2)
        section_tissue, section_rim = section_masks.split(1, 1)
        plane_tissue, plane_rim = plane_masks.split(1, 1)
        contrast_wanted = options.contrastive_weight > 0

        # the descriptors of S come out of the pass that synthesises
        layers = range(generator.n_layers) if contrast_wanted else ()
        synthesised, of_section = generator.synthesise(section, layers)
        # R was trained on planes with nothing around the brain, so that is what it is given
        synthesised = synthesised * section_rim
        velocity_half_px = self.registrar(plane, synthesised)
        disp_px = self.registrar.displacement(velocity_half_px, plane.shape[-2:])
        warped, warped_section = warp(torch.cat((synthesised, section), 1), disp_px).split(1, 1)
        losses = {"l1": l1(plane, warped, plane_rim)}  # equation 3
        losses["loss"] = losses["l1"]
        if not contrast_wanted:
            return losses

        # equation 6: G(S) against S in the tissue of S, S∘φ against T in the tissue of T
        queries = generator.encode(torch.cat((synthesised, warped_section)), layers)
        with torch.no_grad():  # keys teach, they do not learn
            of_plane = generator.encode(plane, layers)
        losses["nce_section"] = losses["nce_plane"] = 0.0
        at = options.batch_size
        for name, query, key, tissue in (
            ("nce_section", [q[:at] for q in queries], of_section, section_tissue),
            ("nce_plane", [q[at:] for q in queries], of_plane, plane_tissue),
        ):
            places = [
                draw_places(tissue, stride, options.n_samples, rng)
                for stride in generator.layer_strides
            ]
            described = self.projection([take(f, p) for f, p in zip(query, places, strict=True)])
            with torch.no_grad():
                target = self.projection(
                    [take(f.detach(), p) for f, p in zip(key, places, strict=True)]
                )
            losses[name] = patch_nce(described, target, options.temperature)
        contrast = losses["nce_section"] + losses["nce_plane"]
        losses["loss"] = losses["l1"] + options.contrastive_weight * contrast  # equation 7
        return losses
