"""Training of the registrar R on pairs of MRI planes of one stack (method, equation 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core.functional.losses import gradient_smoothness, lncc
from sbr_core.functional.masks import dilate
from sbr_core.functional.warp import warp
from sbr_core.nn.registrar import Registrar
from sbr_core.training import augment
from sbr_core.training.stacks import Reader, Stack, next_draw

if TYPE_CHECKING:
    from sbr_core.config import RegistrarOptions


def neighbour_pairs(positions_mm: Sequence[float], neighbours: int) -> Tensor:
    """All ordered pairs of planes at most `neighbours` apart along the stack.

    Apart by the order of their positions, whatever order the list is in. With 0 neighbours each
    plane is paired with itself, since the two are deformed independently: for stacks whose planes
    are too far apart to show the same anatomy.

    Returns
    -------
    (P, 2) int64, indices into `positions_mm`.
    """
    order = torch.argsort(torch.tensor(positions_mm, dtype=torch.float64), stable=True)
    rank = torch.argsort(order)
    apart = (rank[:, None] - rank[None, :]).abs()
    return torch.nonzero((apart <= neighbours) & ((apart > 0) | (neighbours == 0)))


class RegistrarTask:
    """Random neighbours, each deformed on its own, registered both ways.

    Parameters
    ----------
    registrar : the network to train, on the device of the data.
    planes : (N, 1, H, W), in [0, 1], background 0; N >= 2.
    masks : (N, 1, H, W), 0 or 1.
    positions_mm : N, any order.
    """

    name = "train_registrar"

    def __init__(
        self,
        registrar: Registrar,
        planes: Tensor,
        masks: Tensor,
        positions_mm: Sequence[float],
        options: RegistrarOptions,
    ) -> None:
        self.modules = {"registrar": registrar}
        self.registrar, self.options = registrar, options
        self.device, self.planes = planes.device, planes
        # the rim around the tissue shows where the outline is; one by one, as in `Pairs`
        rims = (dilate(one.to(planes.dtype), options.mask_dilation_px) for one in masks.split(1))
        self.masks = torch.cat([rim.to(torch.uint8) for rim in rims])
        self.pairs = neighbour_pairs(positions_mm, options.neighbours)

    def taken(self, chosen: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Planes and their masks with a rim, (B, 1, H, W); `there` is `chosen` on the device."""
        return self.planes[there], self.masks[there]

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """-LNCC of both directions + smoothness of the velocity they share."""
        options = self.options
        chosen = torch.randint(len(self.pairs), (options.batch_size,), generator=rng)
        both = self.pairs[chosen].T.flatten()  # all fixed, then all moving
        deformation = augment.draw(len(both), options.augment, rng)
        deformation, there = deformation.on(self.device, both)
        images, masks = self.taken(both, there)
        images, masks = augment.apply(images, masks.to(images.dtype), deformation)
        fixed, moving = images.chunk(2)
        velocity_half_px = self.registrar(fixed, moving)
        disp_px = self.registrar.displacement(
            torch.cat((velocity_half_px, -velocity_half_px)), fixed.shape[-2:]
        )
        warped = warp(torch.cat((moving, fixed)), disp_px)
        likeness = lncc(images, warped, masks, options.lncc_window_px)
        roughness = gradient_smoothness(velocity_half_px.float())
        return {
            "loss": options.smoothness * roughness - likeness,
            "lncc": likeness,
            "roughness": roughness,
        }


class FiledRegistrarTask(RegistrarTask):
    """The same of planes in a file, each read when it is drawn.

    Parameters
    ----------
    stack : planes.
    registrar, positions_mm, options : as of `RegistrarTask`.
    """

    def __init__(
        self,
        registrar: Registrar,
        stack: Stack,
        positions_mm: Sequence[float],
        options: RegistrarOptions,
        device: torch.device,
    ) -> None:
        self.modules = {"registrar": registrar}
        self.registrar, self.options, self.device = registrar, options, device
        self.stack, self.pairs = stack, neighbour_pairs(positions_mm, options.neighbours)
        self.reader = Reader(self._read, device)

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        mask = torch.from_numpy(self.stack.masks.of(index)).float()
        rim = dilate(mask[None], self.options.mask_dilation_px)[0]
        return torch.from_numpy(self.stack.images.of(index)), rim.to(torch.uint8)

    def taken(self, chosen: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """As of `RegistrarTask`."""
        return tuple(self.reader.take(chosen.tolist()))

    def read_ahead(self, rng: torch.Generator) -> None:
        """Have the planes read that will be drawn next."""
        chosen = next_draw(rng, len(self.pairs), self.options.batch_size)
        self.reader.read_ahead(self.pairs[chosen].T.flatten().tolist())


def registrar_task(
    registrar: Registrar,
    stack: Stack,
    positions_mm: Sequence[float],
    options: RegistrarOptions,
    device: torch.device,
) -> RegistrarTask:
    """The training on a stack of planes, where the stack is; parameters as of the tasks."""
    if not stack.in_memory:
        return FiledRegistrarTask(registrar, stack, positions_mm, options, device)
    planes, masks = (each.tensor(0).to(device) for each in (stack.images, stack.masks))
    return RegistrarTask(registrar, planes, masks, positions_mm, options)
