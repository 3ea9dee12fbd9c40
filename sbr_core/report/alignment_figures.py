"""Pictures of an alignment: orthogonal cuts through MRI and stack, one above the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.algorithms.alignment.placement import tissue_centre
from sbr_core.algorithms.alignment.poses import letters_of
from sbr_core.algorithms.alignment.stack import Mri, Stack, StackAlignment, centred_affines
from sbr_core.algorithms.alignment.start import Verdict
from sbr_core.algorithms.alignment.volumes import stack_volume
from sbr_core.algorithms.planes import sample_volume
from sbr_core.geometry import PlaneGrid, apply
from sbr_core.io.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE = "outline of the MRI's brain: cyan; of the sections' tissue: orange"
_FINEST_MM = 0.5
"""Spacing of the cuts, unless pixels are larger: finer than a figure of 13 inches can show of a
brain 150 mm long, and memory grows with its third power."""


def draw_overview(
    path: Path, stack: Stack, mri: Mri, alignment: StackAlignment, enlargement: float
) -> None:
    """Three orthogonal cuts in stack space: MRI above, stack below, each with both outlines.

    Parameters
    ----------
    enlargement : how many times too large all lengths are; those shown are not.
    """
    cuts = _orthogonal_cuts(stack, mri, alignment, enlargement)
    figure = _figure((4.5 * len(cuts), 7.5))
    for column, cut in enumerate(cuts):
        for line, name in enumerate(("mri", "stack")):
            axes = figure.add_subplot(2, len(cuts), line * len(cuts) + column + 1)
            _draw_cut(axes, cut, name, f"{name}: {cut.title}")
    _save(figure, path, dpi=90)


def draw_candidates(
    path: Path, stack: Stack, mri: Mri, verdict: Verdict, enlargement: float
) -> None:
    """The best pose and its rivals below each other: the MRI as each has it, and the stack.

    Parameters
    ----------
    enlargement : how many times too large all lengths are; those shown are not.
    """
    affines = centred_affines(stack)
    shown = [("best", verdict.best)]
    shown += [("elsewhere", verdict.rival)] if verdict.rival else []
    shown += [("mirrored", verdict.mirror)] if verdict.mirror else []
    figure = _figure((13.5, 4 * (len(shown) + 1)))
    for line, (name, pose) in enumerate(shown):
        alignment = StackAlignment(
            np.linalg.inv(pose.world_from_stack), PlaneGrid((1, 1), stack.pixel_mm), affines
        )
        caption = f"{name}: {letters_of(pose)}, explains {1 - pose.cost:.1%}"
        for column, cut in enumerate(_orthogonal_cuts(stack, mri, alignment, enlargement), 1):
            axes = figure.add_subplot(len(shown) + 1, 3, line * 3 + column)
            _draw_cut(axes, cut, "mri", f"{caption}; {cut.title}")
            if line == 0:
                axes = figure.add_subplot(len(shown) + 1, 3, len(shown) * 3 + column)
                _draw_cut(axes, cut, "stack", f"stack; {cut.title}")
    _save(figure, path, dpi=80)


def _figure(size_inch: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size_inch, layout="constrained")


def _draw_cut(axes: Axes, cut: _Cut, name: str, title: str) -> None:
    """The cut's image `name` (``mri`` or ``stack``) with both outlines."""
    axes.imshow(getattr(cut, name), cmap="gray", extent=cut.extent_mm, vmin=0)
    for mask, colour in ((cut.mri_mask, "tab:cyan"), (cut.stack_mask, "tab:orange")):
        if mask.any() and not mask.all():
            axes.contour(
                mask.astype(float), [0.5], colors=colour, linewidths=0.7,
                extent=cut.extent_mm, origin="upper",
            )  # fmt: skip
    axes.set(xlabel=cut.x, ylabel=cut.y, title=title)


def _save(figure: Figure, path: Path, dpi: int) -> None:
    figure.suptitle(_TITLE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


@dataclass(frozen=True)
class _Cut:
    """One cut; images are (rows, columns).

    Attributes
    ----------
    mri, stack : intensities.
    mri_mask, stack_mask : bool, brain and tissue.
    title : which axis is cut, and where.
    x, y : names of the axes of the picture.
    extent_mm : left, right, bottom, top.
    """

    mri: np.ndarray
    stack: np.ndarray
    mri_mask: np.ndarray
    stack_mask: np.ndarray
    title: str
    x: str
    y: str
    extent_mm: tuple[float, float, float, float]


def _orthogonal_cuts(
    stack: Stack, mri: Mri, alignment: StackAlignment, enlargement: float = 1.0
) -> list[_Cut]:
    """Three orthogonal cuts through the middle of the tissue, across z, y and x of the stack.

    Parameters
    ----------
    enlargement : how many times too large all lengths are; those returned are not.
    """
    spacing_mm = max(stack.pixel_mm, _FINEST_MM)
    volume = stack_volume(stack, alignment.working_from_plane_mm, spacing_mm)
    grid = volume.grid
    points = grid.points()
    voxel_from_stack = np.linalg.inv(alignment.stack_from_world @ mri.world_from_voxel)
    centre = tissue_centre(stack, alignment.working_from_plane_mm)
    middle = np.round((centre - grid.origin_mm) / spacing_mm).astype(int)
    names = "x", "y", "position"
    lows = (grid.origin_mm - grid.spacing_mm / 2) / enlargement
    highs = lows + np.array(grid.shape) * grid.spacing_mm / enlargement
    cuts = []
    for across in (2, 1, 0):
        index: list[Any] = [slice(None)] * 3
        index[across] = int(np.clip(middle[across], 0, grid.shape[across] - 1))
        key = tuple(index)
        voxels = apply(voxel_from_stack, points[key])
        # the first remaining axis runs along the picture's columns, the second along its rows
        x, y = (a for a in range(3) if a != across)
        cuts.append(
            _Cut(
                mri=sample_volume(mri.data, voxels).T,
                stack=volume.data[key].T,
                mri_mask=sample_volume(mri.mask.astype(np.uint8), voxels, 0).T > 0,
                stack_mask=(volume.tissue & volume.known)[key].T,
                title=f"{names[across]} = {points[key][0, 0, across] / enlargement:.3g} mm",
                x=f"{names[x]}, mm",
                y=f"{names[y]}, mm",
                extent_mm=(lows[x], highs[x], highs[y], lows[y]),
            )
        )
    return cuts
