"""Pairs of a section and its MRI plane, and the random batches that every method learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core.functional.masks import dilate, tissue_box, without_medium
from sbr_core.training import augment

if TYPE_CHECKING:
    from sbr_core.config import PairOptions


@dataclass(frozen=True)
class Batch:
    """Sections and planes, deformed at random and cut to the tissue of both.

    Attributes
    ----------
    section, plane : (B, 1, h, w), in [0, 1].
    section_tissue, plane_tissue : (B, 1, h, w), 0 or 1.
    section_rim, plane_rim : the tissue and a rim around it.
    section_labels, plane_labels : (B, K, h, w), 0 or 1, one channel per class; K may be 0, and a
        pair without labels has zeros in both.
    """

    section: Tensor
    plane: Tensor
    section_tissue: Tensor
    plane_tissue: Tensor
    section_rim: Tensor
    plane_rim: Tensor
    section_labels: Tensor
    plane_labels: Tensor


class Pairs:
    """What a method on pairs is trained with.

    Parameters
    ----------
    sections, section_masks : (N, 1, H, W), through the section's affine, in [0, 1] and {0, 1}.
    planes, plane_masks : (N, 1, H, W), the MRI planes of the same positions.
    section_labels, plane_labels : (N, 1, H, W), number of the class from 1 to `n_classes`, 0
        where there is none.
    options : of the method: how wide the rims are in which a section is synthesised and a plane is
        compared (of methods that synthesise nothing both alike), which planes are cut
        (`without_medium`), and how batches are drawn.
    """

    def __init__(
        self,
        sections: Tensor,
        section_masks: Tensor,
        planes: Tensor,
        plane_masks: Tensor,
        section_labels: Tensor | None = None,
        plane_labels: Tensor | None = None,
        *,
        options: PairOptions,
        n_classes: int = 0,
    ) -> None:
        self.options = options
        planes, plane_masks, _ = without_medium(
            planes,
            plane_masks,
            section_masks,
            share=options.medium_share,
            margin_px=options.medium_margin_px,
        )
        self.images = torch.stack((sections, planes))
        # channel 0: tissue; channel 1: a rim more
        masks = torch.stack((section_masks, plane_masks))
        plane_rim_px = options.mask_dilation_px
        section_rim_px = getattr(options, "synthesis_rim_px", plane_rim_px)
        rims = dilate(section_masks, section_rim_px), dilate(plane_masks, plane_rim_px)
        self.masks = torch.cat((masks, torch.stack(rims)), 2)
        self.labels = None
        if section_labels is not None and plane_labels is not None:
            self.labels = torch.stack((section_labels, plane_labels))
        numbers = torch.arange(1, n_classes + 1, device=sections.device)
        self.class_numbers = numbers.view(1, -1, 1, 1)

    @property
    def device(self) -> torch.device:
        """Of all tensors."""
        return self.images.device

    def draw(self, rng: torch.Generator) -> Batch:
        """A random batch; everything random comes from `rng` (CPU).

        Section and plane are each deformed on their own or, with `augment_together`, alike, which
        leaves between them only what their alignment left.
        """
        options, batch_size = self.options, self.options.batch_size
        chosen = torch.randint(self.images.shape[1], (batch_size,), generator=rng)
        if options.augment_together:
            deformation = augment.draw(batch_size, options.augment, rng).repeated(2)
        else:
            deformation = augment.draw(2 * batch_size, options.augment, rng)
        deformation, chosen = deformation.on(self.device, chosen)
        masks = self.masks[:, chosen].flatten(0, 1)
        if self.labels is not None:
            labels = self.labels[:, chosen].flatten(0, 1) == self.class_numbers
            masks = torch.cat((masks, labels.to(masks.dtype)), 1)
        images, masks = augment.apply(self.images[:, chosen].flatten(0, 1), masks, deformation)
        # what lies outside costs time and teaches nothing
        rows, columns = tissue_box(masks[:, :2], options.box_step_px)
        section, plane = images[..., rows, columns].chunk(2)
        of_section, of_plane = masks[..., rows, columns].chunk(2)
        return Batch(
            section=section,
            plane=plane,
            section_tissue=of_section[:, :1],
            plane_tissue=of_plane[:, :1],
            section_rim=of_section[:, 1:2],
            plane_rim=of_plane[:, 1:2],
            section_labels=of_section[:, 2:],
            plane_labels=of_plane[:, 2:],
        )
