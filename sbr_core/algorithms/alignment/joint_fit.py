"""Gauss-Newton steps of all planes together, every section's affine answering to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sbr_core.algorithms.alignment.placement import Placement, tissue_centre
from sbr_core.algorithms.alignment.rounds import Rounds, mean_cost
from sbr_core.algorithms.alignment.section_affine import (
    AffineLimits,
    MaskedImage,
    SectionFit,
    plane_equations,
)
from sbr_core.algorithms.alignment.section_fits import MriPlanes, fit_sections
from sbr_core.algorithms.alignment.stack import Stack
from sbr_core.algorithms.alignment.stretch import with_smooth_stretch

_STEPS = 10
"""At most; the demo takes seven."""
_SETTLED_MM = 0.03
"""Mean movement of tissue below which the steps end: far below what the fit can be exact to (the
error on sections drawn from the MRI itself is 0.18 mm, benchmarks/2026-11-25_alignment.md)."""
_SECTIONS = 48
"""How many sections the steps look at, evenly spread; the others go along. Four unknowns are
determined by far fewer; time grows with their number."""
_SIGMAS_MM = (3.0, 1.5)
"""Of the section fits that answer each step: they start close, so coarse levels are left out."""
_STEP_SIGMA_MM = 1.5
"""At which a step is linearised, the finest of `_SIGMAS_MM`."""
_GAIN_GROWTH, _LARGEST_GAIN = 1.5, 4.0
"""A step that helps makes the next longer: the linear step falls short, since the section affines
answer to it once more. One that does not help is tried once more at its plain length."""
_LARGEST_SHIFT_MM, _LARGEST_SLOPE = 2.0, 0.05
"""Limits of one step's shift along z, and of its relative scale and tilts (5 % or 3 degrees): far
from the solution the linear step overshoots."""


@dataclass(frozen=True)
class _Step:
    """A step's result, and what its section fits were made with."""

    cost: float
    placement: Placement
    planes: MriPlanes
    fits: list[SectionFit]


def fit_planes_jointly(rounds: Rounds, start: Placement) -> Placement:
    """Steps until they move tissue by less than 0.03 mm, or help no more.

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
        before = start if best is None else best.placement
        trial = before if best is None else _stepped(rounds, some, best, gain)
        trial = trial.with_affines(with_smooth_stretch(some, trial.affines[::every]), every)
        trial, planes = rounds.planes_of(trial, stack.pixel_mm)
        fits = fit_sections(some, trial.affines[::every], planes, rounds.limits, _SIGMAS_MM)
        trial = trial.with_affines([f.working_from_plane_mm for f in fits], every)
        step = _Step(mean_cost(fits), trial, planes, fits)
        better = best is None or step.cost < best.cost
        moved_mm = rounds.record(
            "joint step of planes and sections", step.cost, before, trial, better
        )
        if better:
            settled = best is not None and moved_mm < _SETTLED_MM
            best, gain = step, min(gain * _GAIN_GROWTH, _LARGEST_GAIN)
            if settled:
                break
        elif gain > 1:
            gain = 1.0  # too far: once more from the best, by the plain step
        else:
            break
    affines = with_smooth_stretch(stack, best.placement.affines, every)
    return best.placement.with_affines(affines)


def _stepped(rounds: Rounds, some: Stack, best: _Step, gain: float) -> Placement:
    """The best placement, one step further."""
    affines = best.placement.affines
    centre = tissue_centre(rounds.stack, affines)
    step = plane_step(some, best.fits, best.planes, centre, rounds.limits, gain)
    return rounds.split(step @ rounds.stack_from_oriented(best.placement), affines)


def plane_step(
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
        from_stack = np.array(
            [
                [1.0, z - centre_mm[2], -centre_mm[0], -centre_mm[1]],
                [0, 0, 1.0, 0],
                [0, 0, 0, 1.0],
            ]
        )
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
