"""Whether sections are those of a whole brain, or of a part of what the MRI shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from sbr_core.algorithms.plausibility.finding import Finding
from sbr_core.algorithms.plausibility.sizes import Brain
from sbr_core.geometry import apply, orientation_matrix

if TYPE_CHECKING:
    from sbr_core.artifacts.rows import Looked

_PART = 0.7
"""Of two shares, of a brain's width and of its height, the smaller is less than this part of the
larger: tissue shrinks alike in both."""
_HALF_OF_AREA = 0.55
"""Share of the area of their planes that sections of a part have less than: whole ones have 0.8 and
more, and 0.6 where they shrank by 25 % both ways."""
_PART_OF_AREA = 0.75
"""The same of sections that are also less like their planes in shape than `_PART`."""
_CUT = 0.5
"""A side that was cut is less uneven than this part of the side across."""
_STRAIGHT = 0.02
"""And less than this share of the tissue."""
ADVICE = (
    "give mri_mask of that part (`sbr half-mask` makes one of a hemisphere;"
    " docs/checking_inputs.md)"
)


@dataclass(frozen=True)
class _Fit:
    """How sections fill the MRI's brain: shares of it along the columns' and rows' axis."""

    columns: float
    rows: float
    axes: tuple[int, int]

    @property
    def unlike(self) -> float:
        """The smaller share over the larger, 1 where the sections are of one shape with it."""
        return min(self.columns, self.rows) / max(self.columns, self.rows)


def judge_part(looked: Sequence[Looked], brain: Brain, orientation: str) -> Finding:
    """Outlines of the sections beside that of the MRI's brain, before anything is aligned.

    Parameters
    ----------
    orientation : three letters, or ``auto``: then any is tried.
    """
    size = np.quantile([[row.width_mm, row.height_mm] for row in looked], 0.95, axis=0)
    if orientation == "auto":
        pairs = list(permutations(range(3), 2))
    else:
        matrix = np.abs(orientation_matrix(orientation))
        pairs = [(int(np.argmax(matrix[:, 0])), int(np.argmax(matrix[:, 1])))]
    fits = [_Fit(*(size / brain.extent_mm[list(axes)]), axes) for axes in pairs]
    fit = max(fits, key=lambda fit: (fit.unlike > _PART, min(fit.columns, fit.rows)))
    words = f"sections reach {fit.columns:.0%} across and {fit.rows:.0%} down the brain in the MRI"
    smaller = min(fit.columns, fit.rows)
    if fit.unlike > _PART or smaller > 0.9:
        return Finding("part", "fine", words)
    axis = fit.axes[0] if fit.columns < fit.rows else fit.axes[1]
    if axis != 0 or orientation == "auto":
        return Finding("part", "doubtful", f"{words}: sections of a part of it? Then {ADVICE}")
    side = cut_off(looked, orientation)
    which = f"the {side} hemisphere" if side else "one hemisphere"
    return Finding("part", "doubtful", f"{words}: sections of {which} in a whole brain? {ADVICE}")


def cut_off(looked: Sequence[Looked], orientation: str) -> str:
    """The hemisphere whose midline was cut straight: ``left``, ``right``, or "" where none is.

    Parameters
    ----------
    orientation : three letters.
    """
    matrix = orientation_matrix(orientation)
    down = int(abs(matrix[0, 1]))  # whether rows run from side to side
    if not (abs(matrix[0, 0]) or down):
        return ""
    sides = np.array([row.unevenness for row in looked if row.unevenness])
    if not sides.size:
        return ""
    low, high = np.median(sides, axis=0)[2 * down : 2 * down + 2]
    if min(low, high) > _STRAIGHT or min(low, high) > _CUT * max(low, high):
        return ""
    # the midline lies on the cut side, the hemisphere beyond it
    right = matrix[0, down] * (1 if low < high else -1) > 0
    return "right" if right else "left"


@dataclass(frozen=True)
class Planes:
    """The MRI's brain in the planes of sections, in mm of the stack's positions.

    Attributes
    ----------
    area_mm2 : (n,).
    extent_mm : (n, 2) of the box around it, along columns and rows; 0 where there is none.
    """

    area_mm2: np.ndarray
    extent_mm: np.ndarray


def planes_of_brain(
    mask: np.ndarray,
    world_from_voxel: np.ndarray,
    stack_from_world: np.ndarray,
    positions_mm: np.ndarray,
) -> Planes:
    """What a pose shows of the MRI's brain at each position.

    Parameters
    ----------
    mask : (i, j, k) bool.
    stack_from_world : (4, 4); a stretch in the planes is taken out: the scale is the positions'.
    positions_mm : (n,), increasing.
    """
    stack_from_voxel = stack_from_world @ world_from_voxel
    points = apply(stack_from_voxel, np.argwhere(mask))
    points = points[np.argsort(points[:, 2])]
    z = points[:, 2]
    scale = float(np.linalg.norm(stack_from_world[2, :3]))
    step = np.linalg.norm(stack_from_voxel[2, :3])  # a voxel's reach along the stack
    voxel_mm3 = abs(np.linalg.det(world_from_voxel[:3, :3])) * scale**3
    half = max(float(step), float(np.median(np.diff(positions_mm))) / 2)
    # a voxel lies not at its centre alone
    at = positions_mm[:, None] + np.linspace(-step / 2, step / 2, 9)
    counts = np.searchsorted(z, at + half) - np.searchsorted(z, at - half)
    stretch = np.linalg.norm(np.linalg.inv(stack_from_world)[:3, :2], axis=0) * scale
    extent_mm = np.zeros((len(positions_mm), 2))
    for index, position in enumerate(positions_mm):
        near = points[np.searchsorted(z, position - half) : np.searchsorted(z, position + half), :2]
        if len(near):
            extent_mm[index] = np.ptp(near, axis=0) * stretch
    return Planes(counts.mean(axis=1) * voxel_mm3 / (2 * half), extent_mm)


def doubt_of_planes(
    tissue_mm2: np.ndarray, planes: Planes, extent_mm: np.ndarray | None = None
) -> tuple[float, str]:
    """Sections beside the planes that they were fitted to.

    Parameters
    ----------
    tissue_mm2 : (n,) area of the sections' tissue.
    extent_mm : (n, 2) of the box around it, along columns and rows; None where it is not known.

    Returns
    -------
    share : median of tissue over plane, of planes that are not near the end of the brain.
    words : what is to be said of it; "" where nothing is.
    """
    plane_mm2 = planes.area_mm2
    middle = plane_mm2 > 0.3 * plane_mm2.max(initial=0.0)
    if not middle.any():
        return float("nan"), ""
    share = float(np.median(np.asarray(tissue_mm2, float)[middle] / plane_mm2[middle]))
    unlike = 1.0
    if extent_mm is not None:
        shares = extent_mm[middle] / np.maximum(planes.extent_mm[middle], 1e-9)
        along = np.median(shares, axis=0)
        unlike = float(along.min() / along.max())
    if share >= _HALF_OF_AREA and (share >= _PART_OF_AREA or unlike >= _PART):
        return share, ""
    return share, (
        f"sections have {share:.0%} of the area of the brain in their planes of the MRI: sections"
        " of one hemisphere or of a block, or a head that is not stripped? Then the place found is"
        f" wrong: {ADVICE}"
    )


def midline(volume: np.ndarray, world_from_voxel: np.ndarray) -> np.ndarray:
    """The plane that a brain is most symmetric about.

    Parameters
    ----------
    volume : (i, j, k), brain above 0, nothing around.

    Returns
    -------
    (4,) normal to the right, of length 1, and offset: 0 at points on the plane, above 0 to their
    right, mm.
    """
    step = [max(1, n // 64) for n in volume.shape]
    index = np.stack(
        np.meshgrid(
            *(np.arange(0, n, s) for n, s in zip(volume.shape, step, strict=True)), indexing="ij"
        ),
        -1,
    )
    values = np.asarray(volume[:: step[0], :: step[1], :: step[2]], float).ravel()
    world = apply(world_from_voxel, index.reshape(-1, 3))
    inside = values > 0
    points, values = world[inside], values[inside]
    centre = points.mean(axis=0)
    return _best_mirror(volume, world_from_voxel, points, values, centre)


def _best_mirror(
    volume: np.ndarray,
    world_from_voxel: np.ndarray,
    points: np.ndarray,
    values: np.ndarray,
    centre: np.ndarray,
) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    index_from_world = np.linalg.inv(world_from_voxel)

    def plane(parameters: np.ndarray) -> np.ndarray:
        normal = np.array([1.0, parameters[0], parameters[1]])
        normal /= np.linalg.norm(normal)
        return np.r_[normal, -normal @ centre - parameters[2]]

    def unlike(parameters: np.ndarray) -> float:
        *normal, offset = plane(parameters)
        distance = points @ normal + offset
        mirrored = points - 2 * distance[:, None] * normal
        there = map_coordinates(
            volume, apply(index_from_world, mirrored).T, order=1, output=np.float32
        )
        return float(np.mean((there - values) ** 2))

    width = float(np.ptp(points[:, 0]))
    simplex = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, width / 20]], float)
    found = minimize(
        unlike,
        np.zeros(3),
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-9, "maxiter": 200},
    )
    return plane(found.x)


def half_mask(
    mask: np.ndarray, volume: np.ndarray, world_from_voxel: np.ndarray, side: str
) -> np.ndarray:
    """The half of a brain's mask on one side of its midline.

    Parameters
    ----------
    mask, volume : (i, j, k) bool, and the MRI.
    side : ``left`` or ``right``.
    """
    inside = np.asarray(volume, np.float32) - np.float32(volume[mask].min())
    normal_and_offset = midline(np.where(mask, inside + 1e-3, 0), world_from_voxel)
    index = np.argwhere(mask)
    distance = apply(world_from_voxel, index) @ normal_and_offset[:3] + normal_and_offset[3]
    kept = index[distance > 0 if side == "right" else distance < 0]
    half = np.zeros_like(mask)
    half[tuple(kept.T)] = True
    return half
