"""Registration by optimisation: a section's own velocity, improved step by step.

Nothing is trained and nothing is random. Networks give the start, or nothing does: from zero
velocity this registers by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sbr_core.functional.local_correlation import LocalCorrelation
from sbr_core.functional.masks import dilate, tissue_box
from sbr_core.functional.self_similarity import mind_ssc
from sbr_core.functional.warp import warp
from sbr_core.nn.registrar import Registrar

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx

    from sbr_core.config import RefineOptions

_LAST_RATE = 1 / 3
"""Of the learning rate, at a level's last step, to which it falls linearly: large steps first, and
no trembling at the end."""


@dataclass(frozen=True)
class Views:
    """What is compared of each section and its MRI plane, all (N, C, H, W).

    Attributes
    ----------
    fixed, moving : the MRI planes and the sections themselves, in [0, 1].
    synthesised : the sections as the MRI would show them; None without a synthesis.
    mask : where planes and synthesised sections are compared: the tissue of the planes.
    wide_mask : the same with a rim, where what sticks out of the planes' outline counts too.
    """

    fixed: Tensor
    moving: Tensor
    synthesised: Tensor | None
    mask: Tensor
    wide_mask: Tensor

    def at(self, level: int) -> Views:
        """All of them at a pixel `level` times as large."""
        if level == 1:
            return self
        images = (self.fixed, self.moving, self.synthesised)
        masks = (F.avg_pool2d(m, level).round() for m in (self.mask, self.wide_mask))
        return Views(*(t if t is None else F.avg_pool2d(t, level) for t in images), *masks)

    def part(self, sections: slice) -> Views:
        """Those of some sections."""
        return self._each(lambda tensor: tensor[sections])

    def to(self, device: torch.device) -> Views:
        """All of them on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Views:
        values = (getattr(self, field.name) for field in fields(self))
        return Views(*(None if value is None else change(value) for value in values))


def widened(uncut: Tensor, masks: Tensor, compared: Tensor, rim_px: int) -> Tensor:
    """Masks of planes with a rim around; none where a plane was cut to its section's tissue.

    Parameters
    ----------
    uncut : (N, 1, H, W), the masks before `without_medium`.
    masks, compared : (N, 1, H, W) of `without_medium`.
    """
    cut = (uncut != masks).flatten(1).any(1).view(-1, 1, 1, 1)
    return torch.where(cut, compared, dilate(masks, rim_px))


def refine(
    registrar: Registrar, velocity_half_px: Tensor, views: Views, options: RefineOptions
) -> Tensor:
    """Adam steps on each velocity towards a smaller sum of these terms.

    - −LNCC of T and G(S)∘φ over the mask (method, equation 2), where there is a G(S);
    - `refine_l1_weight` times the mean |T − G(S)∘φ| over the wide mask (method, equation 3);
    - `refine_mind_weight` times the mean squared difference of the MIND-SSC of T and of S, the
      latter through φ, over the wide mask: it sees in the section itself what G has lost;
    - `refine_smoothness` times ‖∇v‖².

    Coarse to fine through `refine_levels`, `refine_steps` at each. Every section ends as if it were
    alone, whatever batch it comes in.

    Parameters
    ----------
    registrar : integrates velocities; its parameters are not used.
    velocity_half_px : (N, 2, H/2, W/2), px of the half grid.
    options : the `refine_` ones; 0 steps leave the velocities as they are.

    Returns
    -------
    (N, 2, H/2, W/2), a new tensor.
    """
    refined = velocity_half_px.detach().clone()
    together = sections_together(refined)
    for level in options.refine_levels if options.refine_steps else ():
        seen = views.at(level)
        for sections in torch.arange(len(refined)).split(together):
            some = slice(int(sections[0]), int(sections[-1]) + 1)
            start = F.avg_pool2d(refined[some], level) / level
            change = _improvement(registrar, start, seen.part(some), options)
            refined[some] += level * F.interpolate(
                change, scale_factor=float(level), mode="bilinear", align_corners=False
            )
    return refined


def sections_together(velocities: Tensor) -> int:
    """How many sections share a step: all on a graphics card; a processor gains nothing by it."""
    return len(velocities) if velocities.is_cuda else 1


def _improvement(
    registrar: Registrar, start: Tensor, views: Views, options: RefineOptions
) -> Tensor:
    """What the steps at one level add to velocities, (B, 2, h, w) as `start`."""
    if options.refine_mind_weight:
        images = (views.fixed, views.moving)
        dilations_px = options.refine_mind_dilations_px
        # unlikeness, which is 0 in background, as what is looked up beyond the image is
        likes = [1 - mind_ssc(t, views.wide_mask, dilations_px) for t in images]
    else:
        likes = [torch.zeros_like(views.fixed[:, :0])] * 2
    weights, (rows, columns) = _fading(views, options.refine_window_px)
    half = tuple(slice(s.start // 2, s.stop // 2) for s in (rows, columns))
    box = [t[..., rows, columns] for t in (*likes, views.fixed, views.mask, views.wide_mask)]
    fixed_likes, moving_likes, fixed, mask, wide = box
    # one look-up for all that is warped
    moving = [moving_likes]
    if views.synthesised is not None:
        moving.append(views.synthesised[..., rows, columns])
    moving = torch.cat(moving, 1)
    around = wide.sum((1, 2, 3)).clamp_min(1.0)
    weights = weights[..., half[0], half[1]]
    own = (weights > 0).to(weights)  # each section's own box
    spread = own.sum((1, 2, 3))
    begin = start[..., half[0], half[1]]
    change = torch.zeros_like(begin, requires_grad=True)
    adam = _Adam(change)
    likeness = None
    if views.synthesised is not None:
        likeness = LocalCorrelation(fixed, mask, options.refine_window_px)
    # mean over the pixels of the wide mask and the channels
    n_likes = fixed_likes.shape[1]
    mind_share = wide * (options.refine_mind_weight / max(n_likes, 1))
    mind_share = mind_share / around.view(-1, 1, 1, 1)
    last = max(options.refine_steps - 1, 1)
    for step in range(options.refine_steps):
        velocity = begin + weights * change
        warped = warp(moving, registrar.displacement(velocity, mask.shape[-2:]))
        # split, since the way back through a slice fills a whole tensor with zeros
        warped_likes, image = warped.split((n_likes, warped.shape[1] - n_likes), 1)
        loss = options.refine_smoothness * (_roughness(velocity, own) / spread).sum()
        if options.refine_mind_weight:
            loss = loss + _Squares.apply(warped_likes, fixed_likes, mind_share)
        if likeness is not None:
            loss = loss - likeness.with_(image).sum()
            if options.refine_l1_weight:
                l1 = ((fixed - image).abs() * wide).sum((1, 2, 3)) / around
                loss = loss + options.refine_l1_weight * l1.sum()
        (gradient,) = torch.autograd.grad(loss, change)
        adam.step(gradient, options.refine_learning_rate * (1 - (1 - _LAST_RATE) * step / last))
    out = torch.zeros_like(start)
    out[..., half[0], half[1]] = (weights * change).detach()
    return out


class _Adam:
    """Adam (Kingma and Ba 2015) of one tensor, with the usual decays.

    torch's own would import its compiler first, which takes longer than a chunk's steps may.

    Parameters
    ----------
    parameter : changed in place.
    """

    _DECAYS = 0.9, 0.999
    _EPSILON = 1e-8

    def __init__(self, parameter: Tensor) -> None:
        self.parameter, self.steps = parameter, 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, gradient: Tensor, rate: float) -> None:
        """One step against a gradient."""
        first, second = self._DECAYS
        self.steps += 1
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        unbiased = math.sqrt(1 - second**self.steps)
        length = (self.square.sqrt() / unbiased).add_(self._EPSILON)
        self.parameter.addcdiv_(self.mean, length, value=-rate / (1 - first**self.steps))


class _Squares(torch.autograd.Function):
    """The weighted sum of squared differences, in few passes over many channels."""

    @staticmethod
    def forward(ctx: FunctionCtx, found: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
        """Sum of weights (found - wanted)^2; (B, C, H, W), the weights (B, 1, H, W)."""
        apart = found - wanted
        weighted = apart * weights
        ctx.save_for_backward(weighted)
        return torch.dot(apart.flatten(), weighted.flatten())

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """To what was found."""
        (weighted,) = ctx.saved_tensors
        return weighted * (2.0 * gradient), None, None


def _roughness(velocity: Tensor, own: Tensor) -> Tensor:
    """Per section the sum of the squared gradient, as `gradient_smoothness` means it.

    Parameters
    ----------
    own : (B, 1, h, w), 1 in each section's own box, in which differences count.
    """
    by_x = (velocity[..., :, 1:] - velocity[..., :, :-1]).square()
    by_y = (velocity[..., 1:, :] - velocity[..., :-1, :]).square()
    by_x = (by_x * own[..., :, 1:] * own[..., :, :-1]).sum((1, 2, 3))
    by_y = (by_y * own[..., 1:, :] * own[..., :-1, :]).sum((1, 2, 3))
    return 0.25 * (by_x + by_y)


def _fading(views: Views, width_px: int) -> tuple[Tensor, tuple[slice, slice]]:
    """How far each section's velocity may change, and the box that has all that may.

    What lies farther from all tissue costs time and changes nothing; where its box ends, a change
    fades to 0 over `width_px` half pixels, so that there is no crease. Tissue that the image's own
    border cuts moves less there for the same reason.

    Returns
    -------
    weights : (B, 1, H/2, W/2) in [0, 1], 0 outside each section's own box.
    box : rows and columns of the full grid, even.
    """
    moving = views.moving if views.synthesised is None else views.synthesised
    tissue = torch.cat((views.wide_mask, moving), 1)
    weights = torch.zeros_like(F.avg_pool2d(views.mask, 2))
    boxes = []
    for section, one in zip(weights, tissue.split(1), strict=True):
        box = tissue_box(one, multiple=2, margin_px=2 * width_px)
        boxes.append(tuple(slice(s.start // 2 * 2, -(-s.stop // 2) * 2) for s in box))
        rows, columns = (slice(s.start // 2, s.stop // 2) for s in boxes[-1])
        sides = []
        for n in (rows.stop - rows.start, columns.stop - columns.start):
            at = torch.arange(n, device=weights.device)
            sides.append(((torch.minimum(at, n - 1 - at) + 0.5) / width_px).clamp(max=1))
        section[0, rows, columns] = sides[0][:, None] * sides[1][None, :]
    return weights, tuple(
        slice(min(b[i].start for b in boxes), max(b[i].stop for b in boxes)) for i in (0, 1)
    )
