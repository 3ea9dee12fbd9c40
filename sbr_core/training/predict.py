"""Registration and synthesis with trained networks: no augmentation, nothing random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sbr_core.nn.generator import Generator
from sbr_core.nn.registrar import Registrar
from sbr_core.training.registrar import dilate


def padding_px(shape: tuple[int, int], multiple: int) -> tuple[int, int, int, int]:
    """Zeros to add around an image until its sides are multiples of `multiple`.

    Split between both ends, the first an even number, so that the half-resolution grid keeps its
    place: pixel (r, c) of the image is pixel (r + top, c + left) of the padded one.

    Parameters
    ----------
    shape : (H, W).
    multiple : even.

    Returns
    -------
    (top, bottom, left, right), px.
    """
    if multiple % 2:
        raise ValueError(f"expected an even multiple, found {multiple}")
    sides = []
    for n in shape:
        extra = -n % multiple
        first = extra // 4 * 2
        sides += [first, extra - first]
    return tuple(sides)


def pad(images: Tensor, multiple: int) -> Tensor:
    """(N, C, H, W) with zeros around it, sides multiples of `multiple`."""
    top, bottom, left, right = padding_px(tuple(images.shape[-2:]), multiple)
    return F.pad(images, (left, right, top, bottom))


def crop(images: Tensor, shape: tuple[int, int], multiple: int) -> Tensor:
    """Undo `pad` of images (N, C, ...) that had `shape`."""
    top, _, left, _ = padding_px(shape, multiple)
    return images[..., top : top + shape[0], left : left + shape[1]]


def as_batch(arrays: Sequence[np.ndarray], multiple: int) -> Tensor:
    """Arrays (H, W) of one shape as a padded float32 tensor (N, 1, H', W')."""
    return pad(torch.from_numpy(np.stack(arrays).astype(np.float32))[:, None], multiple)


def tissue_box(masks: Tensor, multiple: int = 8, margin_px: int = 8) -> tuple[slice, slice]:
    """The part of an image that a generator looks at: all tissue, and a margin.

    Empty background costs as much to synthesise as tissue does, and its amount would shift what
    instance normalisation takes for the mean.

    Parameters
    ----------
    masks : (B, M, H, W), tissue where nonzero in any of B and M; H, W multiples of `multiple`.

    Returns
    -------
    (rows, columns), as long as a multiple of `multiple`, at least 2; everything if there is none.
    """
    tissue = (masks > 0).flatten(0, 1).any(0)
    if not tissue.any():
        return slice(0, masks.shape[-2]), slice(0, masks.shape[-1])
    box = []
    for n, occupied in zip(masks.shape[-2:], (tissue.any(1), tissue.any(0)), strict=True):
        places = occupied.nonzero()
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
    fill it where it is bright; dark fluid is as good as background. Such a plane is told by its
    mask, which reaches beyond the section's tissue, and by what it shows there, which is brighter
    than most of the tissue; any other plane stays as it is.

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


@torch.no_grad()
def predict(
    registrar: Registrar,
    generator: Generator | None,
    fixed: Tensor,
    moving: Tensor,
    moving_masks: Tensor | None = None,
    *,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    registers: Literal["synthesised", "section"] = "synthesised",
    symmetric: bool = False,
) -> tuple[Tensor, Tensor]:
    """Velocities that take each fixed image into its moving one.

    Parameters
    ----------
    generator : synthesises the moving images first; None when they are of the fixed ones' kind.
    fixed, moving : (N, 1, H, W) in [0, 1], padded (`pad`, `as_batch`) to the networks' multiple.
    moving_masks : (N, 1, H, W), 0 or 1: the tissue of the moving images, which the synthesised
        ones are limited to, as in training. Needed with a generator.
    registers : what the registrar is given with the fixed image: what the generator made, or the
        moving image itself, for a registrar trained on pairs of different kinds.
    symmetric : register both ways, (R(T, S) − R(S, T)) / 2: the registration of S to T then is
        the inverse of that of T to S, and half of what the network gets wrong in one of them only
        is gone.

    Returns
    -------
    velocity_half_px : (N, 2, H/2, W/2), of the padded grid; integrate it with
        ``registrar.displacement(velocity, (H, W))`` and its negative for the inverse.
    synthesised : (N, 1, H, W); `moving` itself without a generator. Both on the CPU.
    """
    if generator is not None and moving_masks is None:
        raise ValueError("synthesis needs the masks of the moving images")
    registrar = registrar.to(device).eval()
    if generator is not None:
        generator = generator.to(device).eval()
    velocities, images = [], []
    for start in range(0, len(fixed), batch_size):
        target = fixed[start : start + batch_size].to(device)
        section = image = moving[start : start + batch_size].to(device)
        if generator is not None:
            tissue = moving_masks[start : start + batch_size].to(device)
            image = torch.cat(
                [
                    _synthesise(generator, *one)
                    for one in zip(target.split(1), image.split(1), tissue.split(1), strict=True)
                ]
            )
        seen = image if registers == "synthesised" else section
        velocity = registrar(target, seen)
        if symmetric:
            velocity = (velocity - registrar(seen, target)) / 2
        velocities.append(velocity.cpu())
        images.append(image.cpu())
    return torch.cat(velocities), torch.cat(images)


def _synthesise(generator: Generator, target: Tensor, image: Tensor, tissue: Tensor) -> Tensor:
    """G of one image within the box of both images, as in training, and nothing elsewhere."""
    rows, columns = tissue_box(torch.cat((tissue, target), 1), generator.multiple)
    out = torch.zeros_like(image)
    out[..., rows, columns] = generator(image[..., rows, columns])
    return out * tissue
