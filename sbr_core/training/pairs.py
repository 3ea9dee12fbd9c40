"""Pairs of a section and its MRI plane, and the random batches that every method learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core.functional.masks import dilate, tissue_box, without_medium
from sbr_core.training import augment
from sbr_core.training.stacks import Reader, Stack, next_draw

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


def as_compared(
    section_mask: Tensor, plane: Tensor, plane_mask: Tensor, options: PairOptions
) -> tuple[Tensor, Tensor]:
    """A plane as a method learns from it, and the masks of a pair.

    Parameters
    ----------
    section_mask, plane, plane_mask : (1, 1, H, W).

    Returns
    -------
    plane : (1, 1, H, W), cut to the section's tissue where it shows medium (`without_medium`).
    masks : (2, 1, 2, H, W), of section and plane; channel 0: tissue; channel 1: a rim more.
    """
    plane, plane_mask, _ = without_medium(
        plane,
        plane_mask,
        section_mask,
        share=options.medium_share,
        margin_px=options.medium_margin_px,
    )
    plane_rim_px = options.mask_dilation_px
    section_rim_px = getattr(options, "synthesis_rim_px", plane_rim_px)
    masks = (
        torch.cat((mask, dilate(mask, rim_px)), 1)
        for mask, rim_px in ((section_mask, section_rim_px), (plane_mask, plane_rim_px))
    )
    return plane, torch.stack(tuple(masks))


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
        self.images = torch.stack((sections, planes))
        n, _, *shape = sections.shape
        self.masks = sections.new_zeros((2, n, 2, *shape), dtype=torch.uint8)
        # one by one: of all at once, what is made on the way would take more than the images
        for at in range(n):
            some = slice(at, at + 1)
            of_planes = planes[some], plane_masks[some].to(planes.dtype)
            compared = as_compared(section_masks[some].to(planes.dtype), *of_planes, options)
            self.images[1, some], self.masks[:, some] = compared
        self.labels = None
        if section_labels is not None and plane_labels is not None:
            self.labels = torch.stack((section_labels, plane_labels))
        numbers = torch.arange(1, n_classes + 1, device=sections.device)
        self.class_numbers = numbers.view(1, -1, 1, 1)

    @property
    def device(self) -> torch.device:
        """Of all tensors."""
        return self.images.device

    def __len__(self) -> int:
        """How many pairs there are."""
        return self.images.shape[1]

    def taken(self, chosen: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, masks and labels of pairs: (2 B, 1, H, W), (2 B, 2, H, W), (2 B, 1, H, W).

        Parameters
        ----------
        chosen, there : (B,), which; on the processor, and on the device.
        """
        labels = None if self.labels is None else self.labels[:, there].flatten(0, 1)
        return self.images[:, there].flatten(0, 1), self.masks[:, there].flatten(0, 1), labels

    def draw(self, rng: torch.Generator) -> Batch:
        """A random batch; everything random comes from `rng` (CPU).

        Section and plane are each deformed on their own or, with `augment_together`, alike, which
        leaves between them only what their alignment left.
        """
        options, batch_size = self.options, self.options.batch_size
        chosen = torch.randint(len(self), (batch_size,), generator=rng)
        if options.augment_together:
            deformation = augment.draw(batch_size, options.augment, rng).repeated(2)
        else:
            deformation = augment.draw(2 * batch_size, options.augment, rng)
        deformation, there = deformation.on(self.device, chosen)
        images, masks, labels = self.taken(chosen, there)
        masks = masks.to(images.dtype)
        if labels is not None:
            masks = torch.cat((masks, (labels == self.class_numbers).to(masks.dtype)), 1)
        images, masks = augment.apply(images, masks, deformation)
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


class FiledPairs(Pairs):
    """The same pairs in a file, each read when it is drawn.

    Parameters
    ----------
    stack : sections and planes, in this order.
    labels : (2, N, 1, H, W), of sections and planes, or None.
    options, n_classes : as of `Pairs`.
    """

    def __init__(
        self,
        stack: Stack,
        labels: Tensor | None,
        *,
        options: PairOptions,
        n_classes: int,
        device: torch.device,
    ) -> None:
        self.options, self.stack, self.labels = options, stack, labels
        self.class_numbers = torch.arange(1, n_classes + 1, device=device).view(1, -1, 1, 1)
        self.reader = Reader(self._read, device)

    @property
    def device(self) -> torch.device:
        """Of what is drawn."""
        return self.reader.device

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.stack)

    def _read(self, index: int) -> tuple[Tensor, ...]:
        """Images (2, 1, H, W), masks (2, 2, H, W) and, if there are any, labels of a pair."""
        images = torch.from_numpy(self.stack.images.of(index))[:, None]
        section_mask, plane_mask = torch.from_numpy(self.stack.masks.of(index)).float()[:, None]
        plane, masks = as_compared(section_mask[None], images[1:], plane_mask[None], self.options)
        read = torch.cat((images[:1], plane)), masks[:, 0].to(torch.uint8)
        return read if self.labels is None else (*read, self.labels[:, index])

    def taken(self, chosen: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As of `Pairs`."""
        read = self.reader.take(chosen.tolist())
        images, masks, *labels = (each.transpose(0, 1).flatten(0, 1) for each in read)
        return images, masks, labels[0] if labels else None

    def read_ahead(self, rng: torch.Generator) -> None:
        """Have the pairs read that will be drawn next."""
        self.reader.read_ahead(next_draw(rng, len(self), self.options.batch_size))


def pairs_of(
    stack: Stack,
    labels: Tensor | None,
    *,
    options: PairOptions,
    n_classes: int,
    device: torch.device,
) -> Pairs:
    """Pairs of a stack of sections and planes, where the stack is.

    Parameters
    ----------
    labels : (2 N, 1, H, W), number of the class of all sections, then of all planes, or None.
    """
    if not stack.in_memory:
        both = None if labels is None else torch.stack(labels.chunk(2))
        return FiledPairs(stack, both, options=options, n_classes=n_classes, device=device)
    tensors = [each.tensor(group) for group in (0, 1) for each in (stack.images, stack.masks)]
    if labels is not None:
        tensors += labels.chunk(2)
    return Pairs(*(t.to(device) for t in tensors), options=options, n_classes=n_classes)
