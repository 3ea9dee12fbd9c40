"""A section's own velocity, improved a little after the networks: no training, nothing random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core.functional.losses import gradient_smoothness, lncc
from sbr_core.functional.masks import tissue_box
from sbr_core.functional.warp import warp
from sbr_core.nn.registrar import Registrar

if TYPE_CHECKING:
    from sbr_core.config import InferOptions


def refine(
    registrar: Registrar,
    velocity_half_px: Tensor,
    fixed: Tensor,
    moving: Tensor,
    fixed_masks: Tensor,
    options: InferOptions,
) -> Tensor:
    """Adam steps on each velocity towards -LNCC(T, G(S)∘φ) + smoothness · ‖∇v‖².

    The loss is the registrar's own (method, equation 2) of one pair of images, in one direction.
    The networks' answer is the start; what they get wrong for this section is corrected. Each
    image is refined by itself, whatever batch it comes in.

    Parameters
    ----------
    registrar : integrates velocities; its parameters are not used.
    velocity_half_px : (N, 2, H/2, W/2), px of the half grid.
    fixed, moving : (N, 1, H, W), the MRI planes and the synthesised sections, in [0, 1].
    fixed_masks : (N, 1, H, W), 0 or 1: the tissue of the MRI planes.
    options : the `refine_` ones; 0 steps leave the velocities as they are.

    Returns
    -------
    (N, 2, H/2, W/2), a new tensor.
    """
    window_px = options.refine_window_px
    refined = velocity_half_px.detach().clone()
    for whole, target, image, mask in zip(
        *(t.split(1) for t in (refined, fixed, moving, fixed_masks)),
        strict=True,
    ):
        # what lies outside costs time and changes nothing
        rows, columns = tissue_box(torch.cat((mask, image), 1), margin_px=2 * window_px)
        rows, columns = (slice(s.start // 2 * 2, -(-s.stop // 2) * 2) for s in (rows, columns))
        target, image, mask = (t[..., rows, columns] for t in (target, image, mask))
        part = whole[..., rows.start // 2 : rows.stop // 2, columns.start // 2 : columns.stop // 2]
        fading = _fading(tuple(part.shape[-2:]), window_px).to(part)
        start, change = part.clone(), torch.zeros_like(part, requires_grad=True)
        optimiser = torch.optim.Adam([change], lr=options.refine_learning_rate)
        for _ in range(options.refine_steps):
            velocity = start + fading * change
            warped = warp(image, registrar.displacement(velocity, target.shape[-2:]))
            roughness = gradient_smoothness(velocity)
            likeness = lncc(target, warped, mask, window_px)
            loss = options.refine_smoothness * roughness - likeness
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        part.copy_((start + fading * change).detach())
    return refined


def _fading(shape: tuple[int, int], width: int) -> Tensor:
    """(h, w), 1 inside and falling to 0 at the edges over `width`: no crease where a box ends."""
    sides = []
    for n in shape:
        at = torch.arange(n)
        sides.append(((torch.minimum(at, n - 1 - at) + 0.5) / width).clamp(max=1))
    return sides[0][:, None] * sides[1][None, :]
