"""Registration and synthesis with trained networks: no augmentation, nothing random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sbr_core.functional.masks import tissue_box
from sbr_core.nn.generator import Generator
from sbr_core.nn.registrar import Registrar


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


@torch.no_grad()
def predict(
    registrar: Registrar,
    generator: Generator | None,
    fixed: Tensor,
    moving: Tensor,
    moving_masks: Tensor | None = None,
    *,
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
    fixed, moving = fixed.to(device), moving.to(device)
    image = moving
    if generator is not None:
        batch = (t.split(1) for t in (fixed, moving, moving_masks.to(device)))
        image = torch.cat([_synthesise(generator, *one) for one in zip(*batch, strict=True)])
    given = image if registers == "synthesised" else moving
    velocity = registrar(fixed, given)
    if symmetric:
        velocity = (velocity - registrar(given, fixed)) / 2
    return velocity.cpu(), image.cpu()


def _synthesise(generator: Generator, target: Tensor, image: Tensor, tissue: Tensor) -> Tensor:
    """G of one image within the box of both images, as in training, and nothing elsewhere."""
    rows, columns = tissue_box(torch.cat((tissue, target), 1), generator.multiple)
    out = torch.zeros_like(image)
    out[..., rows, columns] = generator(image[..., rows, columns])
    return out * tissue
