"""Masks of tissue: growing them, boxes around them, planes cut to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BOX_MARGIN_PX = 8
"""Background that a network is given around the tissue, as wide as the generator's multiple. More
costs time and moves the mean of instance normalisation; with less, tissue lies at the edge of what
is convolved."""


def dilate(masks: Tensor, radius_px: int) -> Tensor:
    """Masks grown by a square of side 2 r + 1.

    Parameters
    ----------
    masks : (B, C, H, W), 0 or 1.

    Returns
    -------
    (B, C, H, W), 0 or 1; `masks` itself for a radius of 0.
    """
    if radius_px == 0:
        return masks
    side, r = 2 * radius_px + 1, radius_px
    # a square is rows, then columns; for a wide rim that is hundreds of times faster
    along_rows = F.max_pool2d(masks, (1, side), stride=1, padding=(0, r))
    return F.max_pool2d(along_rows, (side, 1), stride=1, padding=(r, 0))


def dilate_octagon(masks: Tensor, radius_px: int) -> Tensor:
    """Masks grown by an octagon, the nearest to a disc: by crosses and squares of 3 px in turn.

    Parameters and result as of `dilate`.
    """
    for step in range(radius_px):
        if step % 2:
            masks = F.max_pool2d(masks, 3, 1, 1)
        else:
            masks = torch.maximum(
                F.max_pool2d(masks, (3, 1), 1, (1, 0)), F.max_pool2d(masks, (1, 3), 1, (0, 1))
            )
    return masks


def tissue_box(
    masks: Tensor, multiple: int = 8, margin_px: int = BOX_MARGIN_PX
) -> tuple[slice, slice]:
    """The part of an image that a network is given: all tissue, and a margin.

    Empty background costs as much as tissue does, and its amount would shift the mean of instance
    normalisation.

    Parameters
    ----------
    masks : (B, M, H, W), tissue where nonzero in any of B and M.

    Returns
    -------
    (rows, columns), lengths multiples of `multiple`, at least twice that, or a whole side that has
    no room for so much; everything if there is no tissue.
    """
    tissue = (masks > 0).flatten(0, 1).any(0)
    shape = tuple(masks.shape[-2:])
    # rows and columns in one transfer: a graphics card is waited for once
    occupied = torch.cat((tissue.any(1), tissue.any(0))).cpu()
    if not occupied.any():
        return tuple(slice(0, n) for n in shape)
    box = []
    for n, along in zip(shape, occupied.split(shape), strict=True):
        places = along.nonzero()
        first = max(int(places[0]) - margin_px, 0)
        length = min(int(places[-1]) + 1 + margin_px, n) - first
        length = min(max(-(-length // multiple), 2) * multiple, n)
        first = min(first, n - length)
        box.append(slice(first, first + length))
    return tuple(box)


def without_medium(
    planes: Tensor,
    plane_masks: Tensor,
    section_masks: Tensor,
    *,
    share: float,
    margin_px: int,
    edge_px: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Planes that show medium or fluid around the brain, cut to the tissue of their section.

    What an MRI shows around a brain is in no section, and a registrar draws the tissue out to
    fill it where it is bright; dark fluid is as good as background. Such a plane is recognised by
    its mask, which reaches beyond the section's tissue, and by what it shows there, which is
    brighter than the median of the tissue; any other plane stays as it is.

    Parameters
    ----------
    planes, plane_masks : (N, 1, H, W), background 0.
    section_masks : (N, 1, H, W), tissue of the sections, roughly aligned.
    share : of the plane's mask that may be bright and farther than `margin_px` from the tissue,
        in [0, 1].
    edge_px : width of a cut plane's outermost tissue that is not to be compared: its edge was put
        there by the cut, and a loss would hold the section's own edge to it.

    Returns
    -------
    planes, plane_masks : new tensors.
    compared : (N, 1, H, W), the masks without the edges of the cut ones.
    """
    tissue = torch.where(plane_masks * section_masks > 0, planes, torch.nan)
    bright = planes > tissue.flatten(1).nanmedian(1).values.view(-1, 1, 1, 1)  # NaN: none
    beyond = bright * plane_masks * (1 - dilate(section_masks, margin_px))
    cut = (beyond.sum((1, 2, 3)) > share * plane_masks.sum((1, 2, 3))).view(-1, 1, 1, 1)
    kept = torch.where(cut, section_masks, torch.ones_like(section_masks))
    masks = plane_masks * kept
    inner = 1 - dilate(1 - masks, edge_px)
    return planes * kept, masks, torch.where(cut, inner, masks)
