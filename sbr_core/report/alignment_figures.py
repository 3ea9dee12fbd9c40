"""Pictures of an alignment: orthogonal cuts through MRI and stack, one above the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.algorithms.alignment.cuts import Cut, orthogonal_cuts
from sbr_core.algorithms.alignment.poses import letters_of
from sbr_core.algorithms.alignment.stack import Mri, Stack, StackAlignment, centred_affines
from sbr_core.algorithms.alignment.verdict import Verdict
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE = "outline of the MRI's brain: cyan; of the sections' tissue: orange"


def draw_overview(
    path: Path, stack: Stack, mri: Mri, alignment: StackAlignment, enlargement: float
) -> None:
    """Three orthogonal cuts in stack space: MRI above, stack below, each with both outlines.

    Parameters
    ----------
    enlargement : how many times too large all lengths are; those shown are not.
    """
    cuts = orthogonal_cuts(stack, mri, alignment, enlargement)
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
        for column, cut in enumerate(orthogonal_cuts(stack, mri, alignment, enlargement), 1):
            axes = figure.add_subplot(len(shown) + 1, 3, line * 3 + column)
            _draw_cut(axes, cut, "mri", f"{caption}; {cut.title}")
            if line == 0:
                axes = figure.add_subplot(len(shown) + 1, 3, len(shown) * 3 + column)
                _draw_cut(axes, cut, "stack", f"stack; {cut.title}")
    _save(figure, path, dpi=80)


def _figure(size_inch: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size_inch, layout="constrained")


def _draw_cut(axes: Axes, cut: Cut, name: str, title: str) -> None:
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
