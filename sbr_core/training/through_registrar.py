"""Trainings through the registrar R: what their tasks share, and how R takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbr_core.nn.registrar import Registrar
from sbr_core.training.pairs import Pairs

if TYPE_CHECKING:
    from sbr_core.config import ThroughRegistrarOptions


class ThroughRegistrar:
    """A task whose synthesis is registered to the plane by R.

    Parameters
    ----------
    registrar : frozen: its parameters stop requiring gradients.
    pairs : rim of a section: where it is synthesised; of a plane: where it is compared.
    """

    options: ThroughRegistrarOptions

    def __init__(
        self, registrar: Registrar, pairs: Pairs, options: ThroughRegistrarOptions
    ) -> None:
        self.registrar = registrar.requires_grad_(False).eval()
        self.pairs, self.options = pairs, options
        self.done = 0.0

    def register(self, plane: Tensor, synthesised: Tensor, section: Tensor) -> Tensor:
        """R(T, G(S)), (B, 2, h/2, w/2); while the synthesis warms up, less of it.

        Over the first half of `warmup_fraction` the section is left where its affine put it or,
        with `warmup_start: section`, where R puts the section itself, which a registrar that was
        trained on different contrasts estimates roughly; over the second half R(T, G(S)) takes
        over.
        Without `registrar_gradient` R's answer is taken as given: G learns to look like T where it
        was put, not to steer R.
        """
        options = self.options
        share = 1.0
        if self.done < options.warmup_fraction:
            share = max(0.0, 2 * self.done / options.warmup_fraction - 1)
        rows, columns = plane.shape[-2:]
        velocity_half_px = plane.new_zeros(len(plane), 2, rows // 2, columns // 2)
        if share < 1 and options.warmup_start == "section":
            with torch.no_grad():
                velocity_half_px = (1 - share) * self.registrar(plane, section)
        if share > 0:
            learns = any(p.requires_grad for p in self.registrar.parameters())
            if not options.registrar_gradient:
                synthesised = synthesised.detach()
            with torch.set_grad_enabled(options.registrar_gradient or learns):
                velocity_half_px = velocity_half_px + share * self.registrar(plane, synthesised)
        return velocity_half_px
