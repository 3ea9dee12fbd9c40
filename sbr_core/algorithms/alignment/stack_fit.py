"""Stack and MRI fitted to each other: rounds of ANTs, then joint steps of planes and sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from sbr_core.algorithms.alignment.poses import nearest_orientation
from sbr_core.algorithms.alignment.section_affine import (
    AffineLimits,
    MaskedImage,
    SectionFit,
    plane_equations,
)
from sbr_core.algorithms.alignment.section_fits import MriPlanes, fit_sections, refit_outliers
from sbr_core.algorithms.alignment.stack import Mri, Stack, StackAlignment, centred_affines
from sbr_core.algorithms.alignment.stretch import with_smooth_stretch
from sbr_core.algorithms.alignment.volume_fit import agreement, fit_affine
from sbr_core.algorithms.alignment.volumes import GridVolume, oriented_volume, stack_volume

_FIRST_SHRINK, _SHRINK = (3, 2, 1), (2, 1)
"""Levels of ANTs, in voxels of the volumes; after the first round it starts close."""
_FIRST_SIGMAS_MM, _SIGMAS_MM = (8.0, 4.0, 2.0), (3.0, 1.5)
"""Smoothing of the section fits, coarse to fine; the coarsest must see across a start that is some
8 mm off, the finest is about what is left of a gyrus at the doubled working pixel. Later rounds
and the joint steps start close, so coarse levels are left out."""
_FINAL_SIGMAS_MM = (3.0, 1.5, 0.8)
"""Of the last fit, down to about the working pixel of a human brain."""
_HELD_WEIGHT = 30.0
"""How much more a section's stretch costs in the last fit than before: it is held to that of its
neighbours, which is known better than any section's own."""
_STEPS = 10
"""Joint ones, at most; the demo takes eight."""
_SETTLED_MM = 0.05
"""Mean movement of tissue below which the steps end: far below what the fit can be exact to (the
error on sections drawn from the MRI itself is 0.18 mm, benchmarks/2026-11-25_alignment.md)."""
_SECTIONS = 32
"""How many sections the steps look at, evenly spread; the others go along. Time grows with their
number; with 24 of BigBrain's the error was larger, with 48 it was not smaller
(benchmarks/2026-11-30_alignment.md)."""
_STEP_SIGMA_MM = 1.5
"""At which a step is linearised, the finest of `_SIGMAS_MM`."""
_GAIN_GROWTH, _LARGEST_GAIN = 1.5, 4.0
"""A step that helps makes the next longer: the linear step falls short, since the section affines
answer to it once more. One that does not help is tried once more at its plain length."""
_LARGEST_SHIFT_MM, _LARGEST_SLOPE = 2.0, 0.05
"""Limits of one step's shift along z, and of its relative scale and tilts (5 % or 3 degrees): far
from the solution the linear step overshoots."""


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
    state = _Rounds(stack, mri, oriented, world_from_oriented, limits, progress)
    placement = state.split(np.linalg.inv(start) @ world_from_oriented, centred_affines(stack))
    for number in range(rounds):
        placement = _volume_round(state, placement, seed, first=number == 0)
    placement = _fit_planes_jointly(state, placement)
    placement, planes = state.planes_of(placement, stack.pixel_mm)
    held = replace(limits, prior_weight=_HELD_WEIGHT * limits.prior_weight)
    fits = fit_sections(stack, placement.affines, planes, held, _FINAL_SIGMAS_MM)
    placement = placement.with_fits(fits)
    grid, placement = on_plane_grid(stack, mri, placement)
    costs = [fit.cost for fit in fits]
    return StackAlignment(placement.stack_from_world, grid, placement.affines, state.figures, costs)


def _volume_round(state: _Rounds, before: Placement, seed: int, *, first: bool) -> Placement:
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
    placement = placement.with_fits(fits)
    state.record("ANTs affine, split", _mean_cost(fits), before, placement, True)
    return placement


@dataclass(frozen=True)
class _Rounds:
    """A fit's input, and the figures of its rounds so far.

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
        centre_mm = tissue_centre(self.stack, affines)
        try:
            similarity, in_plane = split_affine(stack_from_oriented, centre_mm)
        except ValueError as error:
            raise no_fit(error) from error
        pairs = zip(affines, self.stack.positions_mm, strict=True)
        return Placement(
            similarity @ self.world_from_oriented.T, [a @ in_plane(z_mm) for a, z_mm in pairs]
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
        cost : `_mean_cost` of its sections.
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


def _mean_cost(fits: Sequence[SectionFit]) -> float:
    """Of all sections that could be fitted."""
    return float(np.nanmean([f.cost for f in fits]))


@dataclass(frozen=True)
class _Step:
    """A step's result, and what its section fits were made with."""

    cost: float
    placement: Placement
    planes: MriPlanes
    fits: list[SectionFit]


def _fit_planes_jointly(rounds: _Rounds, start: Placement) -> Placement:
    """Steps until they move tissue by less than 0.05 mm, or help no more.

    Returns
    -------
    The best, all its sections (those the steps did not look at too) with smooth stretch.
    """
    stack = rounds.stack
    every = int(np.ceil(len(stack.sections) / _SECTIONS))
    some = stack.thinned(every)
    best: _Step | None = None
    gain = 1.0
    for _ in range(_STEPS + 1):
        before = trial = start if best is None else best.placement
        if best is not None:
            centre_mm = tissue_centre(stack, before.affines)
            step = _plane_step(some, best.fits, best.planes, centre_mm, rounds.limits, gain)
            trial = rounds.split(step @ rounds.stack_from_oriented(before), before.affines)
        trial = trial.with_affines(with_smooth_stretch(some, trial.affines[::every]), every)
        trial, planes = rounds.planes_of(trial, stack.pixel_mm)
        fits = fit_sections(some, trial.affines[::every], planes, rounds.limits, _SIGMAS_MM)
        trial = trial.with_fits(fits, every)
        cost = _mean_cost(fits)
        better = best is None or cost < best.cost
        moved_mm = rounds.record("joint step of planes and sections", cost, before, trial, better)
        if better:
            settled = best is not None and moved_mm < _SETTLED_MM
            best = _Step(cost, trial, planes, fits)
            gain = min(gain * _GAIN_GROWTH, _LARGEST_GAIN)
            if settled:
                break
        elif gain > 1:
            gain = 1.0  # too far: once more from the best, by the plain step
        else:
            break
    affines = with_smooth_stretch(stack, best.placement.affines, every)
    return best.placement.with_affines(affines)


def _plane_step(
    stack: Stack,
    fits: list[SectionFit],
    planes: MriPlanes,
    centre_mm: np.ndarray,
    limits: AffineLimits,
    gain: float,
) -> np.ndarray:
    """One Gauss-Newton step of all planes together, section affines answering to it.

    Unknowns are what section affines cannot do: the stack's offset and scale along z and its two
    tilts, u = (o, s, a, b). The planes move along z by o + s (z − z0) + a (x − x0) + b (y − y0).

    Parameters
    ----------
    fits : of each section, to `planes`.
    centre_mm : (3,) (x0, y0, z0), stack mm.
    gain : length of the step, 1 the plain one.

    Returns
    -------
    (4, 4), new stack mm from old: only z changes.
    """
    hessian, gradient = np.zeros((4, 4)), np.zeros(4)
    half = planes.grid.spacing_mm / 2
    for section, fit in zip(stack.sections, fits, strict=True):
        z = section.position_mm
        equations = plane_equations(
            MaskedImage(section.image, section.mask, stack.pixel_mm),
            planes.masked(z),
            (planes.image(z - half), planes.image(z + half)),
            2 * half,
            fit.working_from_plane_mm,
            limits=limits,
            sigma_mm=_STEP_SIGMA_MM,
        )
        if equations is None:
            continue
        # (q0, q1, q2) of this section from the stack's u
        from_stack = np.eye(3, 4, k=1)
        from_stack[0] = 1.0, z - centre_mm[2], -centre_mm[0], -centre_mm[1]
        hessian += from_stack.T @ equations[0] @ from_stack
        gradient += from_stack.T @ equations[1]
    plain = np.linalg.solve(hessian + 1e-9 * np.diag(np.diag(hessian) + 1e-9), gradient)
    o, s, a, b = -gain * plain
    shrink = min(
        1.0,
        _LARGEST_SHIFT_MM / max(abs(o), 1e-9),
        _LARGEST_SLOPE / max(abs(s), abs(a), abs(b), 1e-9),
    )
    o, s, a, b = np.array([o, s, a, b]) * shrink
    # z_old = z + o + s (z - z0) + a (x - x0) + b (y - y0), solved for z
    step = np.eye(4)
    step[2, :3] = np.array([-a, -b, 1.0]) / (1 + s)
    step[2, 3] = (s * centre_mm[2] - o + a * centre_mm[0] + b * centre_mm[1]) / (1 + s)
    return step
