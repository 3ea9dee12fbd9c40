"""Rotation and stretch of a section's affine, and stretches that change smoothly along a stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sbr_core.algorithms.alignment.stack import Stack, tissue_centre_mm
from sbr_core.geometry import apply

_REACH_MM = 5.0
_REACH_SECTIONS = 5
"""Standard deviation of the weights along the stack: `_REACH_MM`, or this many sections where that
is more. Narrower, a torn section would have too few neighbours to be told by; wider, stretch that
changes along the stack would be smoothed away."""
_SLOPE_RIDGE = 0.5
"""Share of the total weight by which the slope is held back, so that few sections (and the ends of
a stack, which have neighbours on one side only) do not extrapolate."""
_PASSES = 4
"""Of reweighting, from the median of all on."""
_USUAL = 2.5
"""Distance, in medians of all distances, at which a stretch begins to count little."""


def stretch_of(linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polar decomposition of a 2x2 matrix: linear = rotation @ expm(log_stretch).

    Returns
    -------
    rotation : (2, 2) orthogonal.
    log_stretch : (2, 2) symmetric, the logarithm of the stretch.
    """
    u, s, vt = np.linalg.svd(linear)
    return u @ vt, vt.T @ np.diag(np.log(s)) @ vt


def with_stretch(rotation: np.ndarray, log_stretch: np.ndarray) -> np.ndarray:
    """The inverse of `stretch_of`."""
    w, v = np.linalg.eigh(log_stretch)
    return rotation @ (v * np.exp(w)) @ v.T


def smooth_stretch(
    positions_mm: np.ndarray, log_stretch: np.ndarray, at_mm: np.ndarray
) -> np.ndarray:
    """Stretches as they change along the stack, without those that stand alone.

    A straight line is fitted around each position (Gaussian weights, 5 mm or five sections wide,
    whichever is more); stretches far from it count little (Geman and McClure, four passes).

    Parameters
    ----------
    positions_mm : (n,), increasing.
    log_stretch : (n, 2, 2), symmetric.
    at_mm : (m,) where it is asked for.

    Returns
    -------
    (m, 2, 2).
    """
    z = np.asarray(positions_mm, float)
    values = log_stretch.reshape(len(z), 4)
    reach = _REACH_MM
    if len(z) > 1:
        reach = max(reach, _REACH_SECTIONS * float(np.median(np.diff(z))))

    def fitted(trust: np.ndarray, at: np.ndarray) -> np.ndarray:
        out = np.empty((len(at), 4))
        for k, here in enumerate(at):
            apart = (z - here) / reach
            weight = np.exp(-0.5 * apart**2) * trust + 1e-9
            base = np.stack([np.ones(len(z)), apart], axis=1)
            ridge = np.diag([0.0, _SLOPE_RIDGE * weight.sum() + 1e-9])
            normal = (base * weight[:, None]).T @ base + ridge
            out[k] = np.linalg.solve(normal, (base * weight[:, None]).T @ values)[0]
        return out

    smooth = np.tile(np.median(values, axis=0), (len(z), 1))
    for _ in range(_PASSES):
        distance = np.linalg.norm(values - smooth, axis=1)
        scale = max(_USUAL * float(np.median(distance)), 1e-4)
        trust = 1 / (1 + (distance / scale) ** 2) ** 2
        smooth = fitted(trust, z)
    return fitted(trust, np.asarray(at_mm, float)).reshape(-1, 2, 2)


def with_smooth_stretch(
    stack: Stack, affines: Sequence[np.ndarray], every: int = 1
) -> list[np.ndarray]:
    """Each affine with its own rotation and place of the tissue, and its neighbours' stretch.

    Parameters
    ----------
    affines : (3, 3) working_from_plane_mm of each section.
    every : the stretches come from every `every`-th section.
    """
    parts = [stretch_of(a[:2, :2]) for a in affines]
    positions = stack.positions_mm
    logs = np.array([log for _, log in parts[::every]])
    common = smooth_stretch(positions[::every], logs, positions)
    out = []
    for section, affine, (rotation, _), log in zip(
        stack.sections, affines, parts, common, strict=True
    ):
        at_working = tissue_centre_mm(section.mask, stack.pixel_mm)
        at_plane = apply(np.linalg.inv(affine), at_working)
        matrix = np.eye(3)
        matrix[:2, :2] = with_stretch(rotation, log)
        matrix[:2, 2] = at_working - matrix[:2, :2] @ at_plane
        out.append(matrix)
    return out
