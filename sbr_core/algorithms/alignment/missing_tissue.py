"""Where a section has lost tissue that its MRI plane has: what is missing says nothing."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

LEAST_SHARE = 0.1
"""Of a plane's brain, above which a section counts as incomplete. A section laid 7 mm off its place
lacks 6 % at most, one in its place none (benchmarks/2026-11-30_broken_sections.md)."""
PIXEL_MM = 2.0
"""Pixel at which it is looked for, if the plane's is finer."""
_RADIUS_MM = 5.0
"""Half the width of the narrowest part that may be missing: gyri that lie apart from those of the
MRI, and sulci, are narrower."""
_LEAST_INSIDE = 0.7
"""Share of a section's tissue that lies in the brain. Where less does, the section is out of its
place, and what it lacks there is not what was lost."""


def missing_tissue(tissue: np.ndarray, brain: np.ndarray, pixel_mm: float) -> np.ndarray:
    """The part of a plane's brain of which a section has nothing, where it is 1 cm wide or more.

    Parameters
    ----------
    tissue, brain : (rows, columns) bool, on the same grid.
    pixel_mm : of that grid, in a brain of human size.

    Returns
    -------
    (rows, columns) bool; all False where it is less than `LEAST_SHARE` of the brain, or where the
    section is out of its place.
    """
    nothing = np.zeros(brain.shape, bool)
    absent = brain & ~tissue
    least_px = LEAST_SHARE * np.count_nonzero(brain)
    inside = np.count_nonzero(tissue & brain) >= _LEAST_INSIDE * np.count_nonzero(tissue)
    if np.count_nonzero(absent) < least_px or not inside:
        return nothing
    # beyond the picture nothing is known to be missing
    core = distance_transform_edt(np.pad(absent, 1))[1:-1, 1:-1] * pixel_mm > _RADIUS_MM
    if not core.any():
        return nothing
    missing = absent & (distance_transform_edt(~core) * pixel_mm <= _RADIUS_MM)
    return missing if np.count_nonzero(missing) >= least_px else nothing
