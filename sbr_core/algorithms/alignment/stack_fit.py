"""Stack and MRI fitted to each other, from a rough pose to the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sbr_core.algorithms.alignment.joint_fit import fit_planes_jointly
from sbr_core.algorithms.alignment.placement import Placement, on_plane_grid
from sbr_core.algorithms.alignment.poses import nearest_orientation
from sbr_core.algorithms.alignment.rounds import Rounds, mean_cost
from sbr_core.algorithms.alignment.section_affine import AffineLimits
from sbr_core.algorithms.alignment.section_fits import fit_sections, refit_outliers
from sbr_core.algorithms.alignment.stack import Mri, Stack, StackAlignment, centred_affines
from sbr_core.algorithms.alignment.stretch import with_smooth_stretch
from sbr_core.algorithms.alignment.volume_fit import fit_affine
from sbr_core.algorithms.alignment.volumes import oriented_volume, stack_volume

_FIRST_SHRINK, _SHRINK = (3, 2, 1), (2, 1)
"""Levels of ANTs, in voxels of the volumes; after the first round it starts close."""
_FIRST_SIGMAS_MM, _SIGMAS_MM = (8.0, 4.0, 2.0), (3.0, 1.5)
"""Smoothing of the section fits, coarse to fine; the coarsest must see across a start that is some
8 mm off, the finest is about what is left of a gyrus at the doubled working pixel."""
_FINAL_SIGMAS_MM = (3.0, 1.5, 0.8)
"""Of the last fit, down to about the working pixel of a human brain."""
_HELD_WEIGHT = 30.0
"""How much more a section's stretch costs in the last fit than before: it is held to that of its
neighbours, which is known better than any section's own."""


def align_stack(
    stack: Stack,
    mri: Mri,
    start: np.ndarray,
    *,
    spacing_mm: float,
    rounds: int,
    limits: AffineLimits,
    seed: int,
    progress: Callable[[str], None] = lambda line: None,
) -> StackAlignment:
    """Fit stack and MRI to each other: similarity and one affine per section.

    Parameters
    ----------
    stack : of at least three sections.
    start : (4, 4) affine, world from the stack as `centred_affines` lay it out, that is near
        the truth; `pose_search.search` finds one. Its handedness stays as it is.
    spacing_mm : voxel of the volumes that ANTs compares.
    rounds : how often the 3D fit and the section fits alternate.
    limits : of each section's stretch, against the stack's median one.
    seed : of ANTs' sampling. ANTs runs on one thread, so equal input gives equal output on one
        machine and build; another processor may round differently in the last digits.

    Raises
    ------
    AlignmentError
        A fit that ends in nonsense.
    """
    world_from_oriented = np.eye(4)
    world_from_oriented[:3, :3] = nearest_orientation(start)
    oriented = oriented_volume(mri, world_from_oriented, spacing_mm)
    state = Rounds(stack, mri, oriented, world_from_oriented, limits, progress)
    placement = state.split(np.linalg.inv(start) @ world_from_oriented, centred_affines(stack))
    for number in range(rounds):
        placement = _volume_round(state, placement, seed, first=number == 0)
    placement = fit_planes_jointly(state, placement)
    placement, planes = state.planes_of(placement, stack.pixel_mm)
    held = replace(limits, prior_weight=_HELD_WEIGHT * limits.prior_weight)
    fits = fit_sections(stack, placement.affines, planes, held, _FINAL_SIGMAS_MM)
    placement = placement.with_affines([f.working_from_plane_mm for f in fits])
    grid, placement = on_plane_grid(stack, mri, placement)
    return StackAlignment(placement.stack_from_world, grid, placement.affines, state.figures)


def _volume_round(state: Rounds, before: Placement, seed: int, *, first: bool) -> Placement:
    """An affine of the whole stack, split; then one of each section."""
    fitted = fit_affine(
        stack_volume(state.stack, before.affines, state.spacing_mm),
        state.oriented,
        state.stack_from_oriented(before),
        _FIRST_SHRINK if first else _SHRINK,
        seed,
    )
    placement = state.split(fitted, before.affines)
    if not first:
        placement = placement.with_affines(with_smooth_stretch(state.stack, placement.affines))
    placement, planes = state.planes_of(placement, 2 * state.stack.pixel_mm)
    sigmas_mm = _FIRST_SIGMAS_MM if first else _SIGMAS_MM
    fits = fit_sections(state.stack, placement.affines, planes, state.limits, sigmas_mm)
    fits = refit_outliers(state.stack, fits, planes, state.limits, sigmas_mm)
    placement = placement.with_affines([f.working_from_plane_mm for f in fits])
    state.record("ANTs affine, split", mean_cost(fits), before, placement, True)
    return placement
