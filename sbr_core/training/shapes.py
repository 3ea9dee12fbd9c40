"""Synthetic brain-like shapes: what the registrar that ships is trained on, and nothing else.

No image of any brain is involved. A *label map* is made of smooth random fields: an outline, white
matter folded inside it, a ribbon of cortex around the white matter, nuclei, a finely folded
cerebellum-like part. A *pair* of images is then made of one label map: random intensities per label
(the two images nearly alike, as a plane and a good synthesis of it are), each deformed, one of them
by a known diffeomorphism against the other (after SynthMorph, Hoffmann et al. 2021, section III).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sbr_core.functional.losses import masked_mean
from sbr_core.functional.masks import dilate_octagon
from sbr_core.functional.warp import compose, exponentiate, identity_px, upsample_velocity, warp
from sbr_core.nn.registrar import Registrar
from sbr_core.training.devices import upload

if TYPE_CHECKING:
    from sbr_core.config import ShapesOptions

N_LABELS = 16
"""0 is nothing; 1 white matter, 2 and 3 outer and inner cortex, 4 fluid, the rest nuclei."""


def _uniform(rng: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def _chance(rng: torch.Generator, share: float) -> bool:
    return float(torch.rand((), generator=rng)) < share


def smooth_noise(
    shape: tuple[int, int], wavelength_px: float, rng: torch.Generator, channels: int = 1
) -> Tensor:
    """(1, channels, H, W): Gaussian nodes every `wavelength_px`, cubic in between, variance ~ 1."""
    nodes = [max(4, int(n / wavelength_px) + 4) for n in shape]
    grid = torch.randn(1, channels, *nodes, generator=rng)
    scaled = [max(n, int((m - 1) * wavelength_px) + 1) for n, m in zip(shape, nodes, strict=True)]
    field = F.interpolate(grid, size=scaled, mode="bicubic", align_corners=True)
    return field[..., : shape[0], : shape[1]] * 1.4


def draw_label_map(shape: tuple[int, int], rng: torch.Generator) -> Tensor:
    """One label map, (1, 1, H, W) int64 in [0, N_LABELS)."""
    rows, columns = shape
    if _chance(rng, 0.1):  # shapes of any kind, filling everything
        fields = smooth_noise(shape, _uniform(rng, 12, 60), rng, 8)
        return fields.argmax(1, keepdim=True) + 1

    y = (torch.arange(rows, dtype=torch.float32) - rows / 2)[:, None]
    x = (torch.arange(columns, dtype=torch.float32) - columns / 2)[None, :]
    a = columns * _uniform(rng, 0.32, 0.5)
    b = rows * _uniform(rng, 0.32, 0.5)
    outline = 1 - torch.sqrt((x / a) ** 2 + (y / b) ** 2)[None, None]
    outline = outline + 0.05 * smooth_noise(shape, _uniform(rng, 25, 80), rng)
    if _chance(rng, 0.4):  # one hemisphere
        outline = torch.minimum(outline, (x + a * _uniform(rng, 0.0, 0.8)).expand(shape) / a)
    depth_px = outline * min(a, b)

    # sulci run along the zero lines of a smooth field, some of them deep
    thickness_px = _uniform(rng, 2.5, 9.0)
    wavelength_px = thickness_px * _uniform(rng, 2.2, 4.0)
    field = smooth_noise(shape, wavelength_px, rng)
    valley = (1 - field.abs() / _uniform(rng, 0.5, 1.1)).clamp_min(0)
    reach_px = thickness_px * _uniform(rng, 1.5, 6.0)
    reach_px = reach_px * (1 + 0.5 * smooth_noise(shape, 4 * wavelength_px, rng))
    white = (depth_px > thickness_px + reach_px * valley).float()
    inner = dilate_octagon(white, max(1, round(thickness_px * _uniform(rng, 0.3, 0.6))))
    cortex = dilate_octagon(inner, max(1, round(thickness_px * 0.5)))
    tissue = cortex * (depth_px > 0)
    labels = torch.zeros(1, 1, *shape, dtype=torch.int64)
    labels[tissue > 0] = 2
    labels[(inner > 0) & (tissue > 0)] = 3
    labels[white > 0] = 1

    nuclei = int(torch.randint(0, 6, (), generator=rng))
    if nuclei:
        fields = smooth_noise(shape, _uniform(rng, 14, 45), rng, nuclei)
        strongest, which = fields.max(1, keepdim=True)
        deep = (strongest > _uniform(rng, 0.8, 1.6)) & (depth_px > 3 * thickness_px)
        labels[deep] = which[deep] + 5
    if _chance(rng, 0.35):  # a part with folds several times finer
        where = smooth_noise(shape, _uniform(rng, 40, 90), rng) > 0.9
        fine = smooth_noise(shape, _uniform(rng, 3.0, 6.0), rng)
        part = where & (depth_px > 0)
        labels[part] = 11 + (fine > 0).long()[part] + (fine > 1.0).long()[part]
    if _chance(rng, 0.4):  # sulci and ventricles filled with fluid instead of empty
        labels[(labels == 0) & (depth_px > 0)] = 4
    else:
        holes = smooth_noise(shape, _uniform(rng, 14, 40), rng) > 2.2
        labels[holes & (depth_px > 0)] = 0
    return labels


def _blur(image: Tensor, sigma_px: float) -> Tensor:
    if sigma_px < 0.2:
        return image
    radius = max(1, int(3 * sigma_px + 0.5))
    at = torch.arange(-radius, radius + 1, dtype=image.dtype)
    row = torch.exp(-0.5 * (at / sigma_px) ** 2)
    row = (row / row.sum()).view(1, 1, 1, -1)
    image = F.conv2d(F.pad(image, (radius, radius, 0, 0), mode="replicate"), row)
    return F.conv2d(F.pad(image, (0, 0, radius, radius), mode="replicate"), row.transpose(2, 3))


@dataclass(frozen=True)
class ShapePairs:
    """Pairs whose deformation is known.

    Attributes
    ----------
    fixed, moving : (B, 1, H, W) in [0, 1]: what the network sees.
    masks : (B, 1, H, W), 0 or 1: tissue of the fixed image.
    velocity_half_px : (B, 2, H/2, W/2): its flow takes fixed pixels into the moving image.
    """

    fixed: Tensor
    moving: Tensor
    masks: Tensor
    velocity_half_px: Tensor


def _appearance(labels: Tensor, means: Tensor, rng: torch.Generator, *, rough: bool) -> Tensor:
    """An image of a label map (1, 1, H, W): a mean per label, bias, texture, blur, noise."""
    shape = tuple(labels.shape[-2:])
    image = means[labels]
    tissue = (labels > 0).float()
    texture = smooth_noise(shape, _uniform(rng, 2.0, 12.0), rng) * _uniform(rng, 0.0, 0.05)
    bias = smooth_noise(shape, _uniform(rng, 30, 120), rng) * _uniform(rng, 0.0, 0.15)
    image = (image * (1 + bias) + texture) * tissue
    image = _blur(image, _uniform(rng, 0.3, 1.8 if rough else 0.9))
    image = image + torch.randn(image.shape, generator=rng) * _uniform(rng, 0.0, 0.04) * tissue
    if rough and _chance(rng, 0.3):  # a local change that the other image does not have
        image = image + smooth_noise(shape, _uniform(rng, 15, 60), rng) * 0.12 * tissue
    return image.clamp_min(0)


def _scaled(image: Tensor, tissue: Tensor) -> Tensor:
    """1 and 99 % quantiles of the tissue to 0 and 1."""
    values = image[tissue > 0]
    if values.numel() < 100:
        return image.clamp(0, 1)
    values = values[:: max(1, values.numel() // 4000)]
    low, high = torch.quantile(values, torch.tensor([0.01, 0.99]))
    return ((image - low) / (high - low).clamp_min(1e-3)).clamp(0, 1) * tissue


def draw_pairs(batch: int, shape: tuple[int, int], rng: torch.Generator) -> ShapePairs:
    """`batch` new pairs of (H, W) = `shape`, both even; two pairs share a label map."""
    maps = [draw_label_map(shape, rng) for _ in range((batch + 1) // 2)]
    half = tuple(n // 2 for n in shape)
    velocity = torch.cat([_draw_velocity(half, rng) for _ in range(batch)])
    disp = upsample_velocity(exponentiate(velocity, 6), shape)
    pose = torch.cat([_draw_pose(shape, rng) for _ in range(batch)])
    # a point p of the fixed image shows what phi(p) shows in the moving one
    fixed_pose = compose(pose, disp)
    fixed, moving, masks = [], [], []
    for i in range(batch):
        labels = maps[i // 2]
        if _chance(rng, 0.5):
            labels = labels.flip(3)
        first, second = _draw_means(rng)
        image = torch.cat(
            (
                _appearance(labels, first, rng, rough=False),
                _appearance(labels, second, rng, rough=True),
                (labels > 0).float(),
            ),
            1,
        )
        f, m = (warp(image, field[i : i + 1]) for field in (fixed_pose, pose))
        tissue = (f[:, 2:] > 0.5).float()
        seen_f, seen_m = tissue, (m[:, 2:] > 0.5).float()
        f, m = f[:, :1], m[:, 1:2]
        if _chance(rng, 0.3):  # medium around the brain, which the section does not have
            seen_f = dilate_octagon(tissue, int(torch.randint(1, 10, (), generator=rng)))
            f = f + (seen_f - tissue) * _uniform(rng, 0, 1.2)
        if _chance(rng, 0.2):  # pieces of the section are missing
            seen_m = seen_m * (smooth_noise(shape, _uniform(rng, 10, 40), rng) < 2.0)
        fixed.append(_scaled(f, seen_f))
        moving.append(_scaled(m, seen_m))
        masks.append(tissue)
    return ShapePairs(torch.cat(fixed), torch.cat(moving), torch.cat(masks), velocity)


def _draw_means(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean intensities of the labels in two images, (N_LABELS,) each: nearly alike, or not."""
    first = torch.rand(N_LABELS, generator=rng)
    if _chance(rng, 0.6):  # inner and outer cortex nearly alike
        first[3] = first[2] + 0.1 * torch.randn((), generator=rng)
    if _chance(rng, 0.35):  # contrasts that have nothing to do with each other
        second = torch.rand(N_LABELS, generator=rng)
        if _chance(rng, 0.6):
            second[3] = second[2] + 0.1 * torch.randn((), generator=rng)
    else:
        second = first + _uniform(rng, 0.0, 0.12) * torch.randn(N_LABELS, generator=rng)
    first[0] = second[0] = 0.0
    return first, second.clamp(0, 1.2)


def _draw_velocity(half: tuple[int, int], rng: torch.Generator) -> Tensor:
    """A smooth velocity, (1, 2, H/2, W/2) px of the half grid; its flow reaches about 15 px."""
    field = 0.4 * torch.randn(1, 2, 1, 1, generator=rng)
    for wavelength_px, weight in ((48, 0.42), (24, 0.48), (12, 0.21)):
        wavelength_px *= _uniform(rng, 0.7, 1.4)
        field = field + weight * _uniform(rng, 0.2, 1.0) * smooth_noise(half, wavelength_px, rng, 2)
    return field * 4.5 * _uniform(rng, 0.1, 1.0) ** 1.5


def _draw_pose(shape: tuple[int, int], rng: torch.Generator) -> Tensor:
    """A turn, a scale and a mild bend of a label map, (1, 2, H, W) px."""
    here = identity_px(shape)
    centre = here.mean((2, 3), keepdim=True)
    turn, scale = _uniform(rng, -0.5, 0.5), _uniform(rng, 0.8, 1.25)
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    x, y = (here - centre).unbind(1)
    turned = torch.stack((cos * x - sin * y, sin * x + cos * y), 1)
    bend = smooth_noise(shape, _uniform(rng, 30, 80), rng, 2) * _uniform(rng, 0, 3)
    return turned + centre + bend - here


class ShapesTask:
    """A registrar that learns to find known deformations of shapes.

    The loss is the distance between the estimated and the true displacement in the tissue, and that
    between their derivatives everywhere. Where the images do not tell, the best guess is a small
    deformation, so the network stays put before a section that is still badly synthesised.

    Parameters
    ----------
    registrar : the network to train.
    options : sizes of the images, weight of the derivatives.
    """

    name = "train_shapes"

    def __init__(self, registrar: Registrar, options: ShapesOptions, device: torch.device) -> None:
        self.modules = {"registrar": registrar}
        self.registrar, self.options, self.device = registrar, options, device

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """Mean distance in px (`left_px`) and its derivative, of a batch of one image size."""
        sizes = self.options.sizes_px
        rows, columns = sizes[int(torch.randint(len(sizes), (), generator=rng))]
        largest = max(h * w for h, w in sizes)
        # as many pixels per batch whatever the size
        batch = max(1, self.options.batch_size * largest // (rows * columns))
        pairs = draw_pairs(batch, (rows, columns), rng)
        fixed, moving, masks, true_half_px = upload(list(vars(pairs).values()), self.device)
        velocity_half_px = self.registrar(fixed, moving)
        wrong_px = self.registrar.displacement(
            velocity_half_px, fixed.shape[-2:]
        ) - self.registrar.displacement(true_half_px, fixed.shape[-2:])
        # smooth at zero, a tenth of a pixel
        distance = (wrong_px.square().sum(1, keepdim=True) + 0.01).sqrt()
        left_px = masked_mean(distance, masks)
        bent = sum(wrong_px.diff(dim=axis).abs().mean() for axis in (2, 3))
        return {
            "loss": left_px + self.options.derivative_weight * bent,
            "left_px": left_px,
        }
