"""What all rounds of a fit have in common: images and limits, and the figures of each round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.alignment.placement import (
    Placement,
    moved_mm,
    no_fit,
    on_plane_grid,
    split_affine,
    tissue_centre,
)
from sbr_core.algorithms.alignment.section_affine import AffineLimits, SectionFit
from sbr_core.algorithms.alignment.section_fits import MriPlanes
from sbr_core.algorithms.alignment.stack import Mri, Stack
from sbr_core.algorithms.alignment.volume_fit import agreement
from sbr_core.algorithms.alignment.volumes import GridVolume, stack_volume


@dataclass(frozen=True)
class Rounds:
    """A fit's input, and the figures of the rounds so far.

    Attributes
    ----------
    oriented : the MRI as a volume along the oriented axes.
    world_from_oriented : (4, 4), a signed permutation that turns them.
    limits : of each section's stretch.
    progress : takes one line per round.
    figures : one dict per round, as `StackAlignment.rounds`.
    """

    stack: Stack
    mri: Mri
    oriented: GridVolume
    world_from_oriented: np.ndarray
    limits: AffineLimits
    progress: Callable[[str], None]
    figures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def spacing_mm(self) -> float:
        """Of the volumes that are compared."""
        return self.oriented.grid.spacing_mm

    def stack_from_oriented(self, placement: Placement) -> np.ndarray:
        """(4, 4)."""
        return placement.stack_from_world @ self.world_from_oriented

    def split(self, stack_from_oriented: np.ndarray, affines: Sequence[np.ndarray]) -> Placement:
        """A 3D affine as a placement: its similarity, and the rest given to the sections.

        Raises
        ------
        AlignmentError
            A reflection, or an affine without volume.
        """
        try:
            similarity, in_plane = split_affine(
                stack_from_oriented, tissue_centre(self.stack, affines)
            )
        except ValueError as error:
            raise no_fit(error) from error
        return Placement(
            similarity @ self.world_from_oriented.T,
            [
                a @ in_plane(s.position_mm)
                for a, s in zip(affines, self.stack.sections, strict=True)
            ],
        )

    def planes_of(self, placement: Placement, pixel_mm: float) -> tuple[Placement, MriPlanes]:
        """Moved to the plane grid that holds it now, and the MRI's planes on it."""
        grid, placement = on_plane_grid(self.stack, self.mri, placement)
        planes = MriPlanes(self.mri, placement.stack_from_world, grid.at_spacing(pixel_mm))
        return placement, planes

    def record(
        self, volume_fit: str, cost: float, before: Placement, after: Placement, kept: bool
    ) -> float:
        """Add a round's figures; returns how far it moved the tissue, mm.

        Parameters
        ----------
        volume_fit : what the round did.
        cost : `mean_cost` of its sections.
        kept : whether the next round starts from it.
        """
        volume = stack_volume(self.stack, after.affines, self.spacing_mm)
        stack_from_oriented = self.stack_from_oriented(after)
        information, dice = agreement(volume, self.oriented, stack_from_oriented)
        distance_mm = moved_mm(self.stack, before, after)
        self.figures.append(
            {
                "round": len(self.figures) + 1,
                "volume_fit": volume_fit,
                "mutual_information": information,
                "mask_dice": dice,
                "section_cost": cost,
                "moved_mm": distance_mm,
                "world_mm_per_stack_mm": 1 / geometry.similarity_scale(stack_from_oriented),
                "kept": kept,
            }
        )
        self.progress(
            f"round {len(self.figures)}: mutual information {information:.3f}, mask Dice"
            f" {dice:.3f}, section cost {cost:.4f}"
        )
        return distance_mm


def mean_cost(fits: Sequence[SectionFit]) -> float:
    """Of all sections that could be fitted."""
    return float(np.nanmean([f.cost for f in fits]))
