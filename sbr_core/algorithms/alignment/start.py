"""Where a stack lies at first, and whether that is sure enough to build upon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.algorithms.alignment.order import spacing_of_order
from sbr_core.algorithms.alignment.pose_search import search
from sbr_core.algorithms.alignment.poses import letters_of
from sbr_core.algorithms.alignment.scenes import coarse_scenes
from sbr_core.algorithms.alignment.stack import Mri, Stack
from sbr_core.algorithms.alignment.verdict import Verdict, doubt, judge
from sbr_core.errors import AlignmentError, ConfigError
from sbr_core.geometry import orientation_matrix

if TYPE_CHECKING:
    from sbr_core.config import AlignOptions

AUTO = "auto"
"""`orientation` of a stack that is to be found in any."""


def orientation_asked(orientation: str) -> np.ndarray | None:
    """(3, 3) world from stack of three letters, None of ``auto``; else ConfigError."""
    if orientation == AUTO:
        return None
    try:
        return orientation_matrix(orientation)
    except ValueError as error:
        raise ConfigError(f"align: {error}, or {AUTO!r}") from None


def find_start(
    stack: Stack,
    mri: Mri,
    options: AlignOptions,
    orientation: str,
    progress: Callable[[str], None],
) -> Verdict:
    """The best pose and its rivals; `verdict.doubt` decides whether it is sure enough.

    Raises
    ------
    AlignmentError
        No pose near the letters.
    """
    progress("looking for the stack in the MRI at low resolution")
    poses = search(
        *coarse_scenes(stack, mri),
        near=orientation_asked(orientation),
        max_rotation_deg=options.max_rotation_deg,
        progress=progress,
    )
    if not poses:
        raise AlignmentError(
            f"align: no pose within {options.max_rotation_deg:g} degrees (max_rotation_deg) of"
            f" orientation {orientation}; check it, or write orientation {AUTO}"
        )
    verdict = judge(poses)
    progress(
        f"the stack lies {letters_of(verdict.best)}, explains {verdict.explained:.0%}; margin"
        f" {verdict.place_margin:.1f} over other places, {verdict.handedness_margin:.1f} over the"
        " other handedness"
    )
    return verdict


def mm_per_position(
    stack: Stack,
    mri: Mri,
    options: AlignOptions,
    orientation: str,
    progress: Callable[[str], None],
) -> float:
    """World mm of one unit of positions that are only an order.

    Raises
    ------
    AlignmentError
        No length of the stack fits, or none clearly better in one place than elsewhere.
    """
    progress("looking for the length of the stack")
    spacing = spacing_of_order(
        stack,
        mri,
        near=orientation_asked(orientation),
        max_rotation_deg=options.max_rotation_deg,
        progress=progress,
    )
    # handedness is for the run with millimetres to ask
    verdict = replace(judge(spacing.poses), handedness_margin=np.inf)
    why = doubt(verdict, options, orientation)
    if why:
        raise AlignmentError(f"align: positions: order: {why}")
    return spacing.mm_per_position
