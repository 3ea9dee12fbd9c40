"""Whether pixel sizes, positions and voxels give one brain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.algorithms.plausibility.finding import Finding
from sbr_core.algorithms.plausibility.lengths import (
    mri_doubt,
    mri_fault,
    stack_contradiction,
    width_contradiction,
)
from sbr_core.errors import some_of
from sbr_core.geometry import apply, extent_px

if TYPE_CHECKING:
    from sbr_core.artifacts.rows import Looked

_UNLIKE = 4.0
"""Times as wide as those beside it, or as narrow, that no section is: at the ends of a brain they
taper off from one to the next."""
_NEIGHBOURS = 5
"""Sections on either side whose median a section is compared with."""
_BEYOND = 1.5
"""Times as long as the MRI's brain that tissue may be: it shrinks, and swells little."""
_TOO_SMALL = 3.0
"""Times as long as the widest section is the MRI's shortest side, from which on one of them has
another unit or is another animal's; a half or a block of a brain is not that small."""
_GAP = 20.0
"""Times the usual step between positions that a gap is mentioned from."""
_MANY = 0.2
"""Share of pictures that show several pieces, from which on they are taken for sections."""
_MORE = 1.4
"""Times the tissue of its neighbours that a picture of two sections has at least."""
_FEW = 4
"""Sections up to which positions may be the numbers in their names by chance."""
_ASPECT = 0.02
"""By how much a pixel's height may differ from its width, as a share: rounding of resolutions."""


@dataclass(frozen=True)
class Brain:
    """The brain in an MRI.

    Attributes
    ----------
    volume_mm3 : of its mask.
    extent_mm : (3,) of the box around it along right, anterior and superior.
    spacing_mm : (3,) side of a voxel.
    """

    volume_mm3: float
    extent_mm: np.ndarray
    spacing_mm: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, world_from_voxel: np.ndarray) -> Brain:
        """That of a mask (i, j, k) bool, which is not empty."""
        points = apply(world_from_voxel, np.argwhere(mask)[::7])
        low, high = np.quantile(points, [0.001, 0.999], axis=0)
        voxel_mm3 = abs(float(np.linalg.det(world_from_voxel[:3, :3])))
        spacing_mm = np.linalg.norm(world_from_voxel[:3, :3], axis=0)
        return cls(np.count_nonzero(mask) * voxel_mm3, high - low + spacing_mm, spacing_mm)

    @property
    def longest_mm(self) -> float:
        """Diagonal of the box."""
        return float(np.linalg.norm(self.extent_mm))

    def words(self) -> str:
        """In millimetres and millilitres."""
        sides = " × ".join(f"{side:.3g}" for side in self.extent_mm)
        return f"brain of {self.volume_mm3 / 1000:.3g} ml, {sides} mm (right, anterior, superior)"


def length_of_brain(
    mask: np.ndarray, spacing_mm: np.ndarray, unit_mm: float | None
) -> tuple[str, str]:
    """Why no brain is as long as that of a mask, and what is doubtful about its length; "" for not.

    Parameters
    ----------
    mask : (i, j, k) bool, not empty.
    spacing_mm : (3,) sides of a voxel.
    unit_mm : that of the MRI's header, None where it states none.
    """
    longest_mm = float((extent_px(mask) * spacing_mm).max())
    fault = mri_fault(longest_mm, float(spacing_mm.max()), unit_mm)
    return fault, "" if fault else mri_doubt(longest_mm)


def widths_mm(looked: Sequence[Looked]) -> np.ndarray:
    """(n,) longer side of the box around each section's tissue."""
    return np.array([max(row.width_mm, row.height_mm) for row in looked])


def judge_sections(looked: Sequence[Looked]) -> list[Finding]:
    """Sections beside their neighbours, and pixels that are not square."""
    widths = widths_mm(looked)
    findings = []
    odd = []
    for index, row in enumerate(looked):
        beside = np.r_[
            widths[max(0, index - _NEIGHBOURS) : index],
            widths[index + 1 : index + 1 + _NEIGHBOURS],
        ]
        usual = float(np.median(beside)) if beside.size >= 3 else float(np.median(widths))
        if usual > 0 and not 1 / _UNLIKE < widths[index] / usual < _UNLIKE:
            odd.append(
                f"{row.section} ({widths[index]:.3g} mm, pixel_size_mm {row.pixel_size_mm:g})"
            )
    if odd:
        findings.append(
            Finding(
                "pixel sizes",
                "doubtful",
                f"sections far larger or smaller than those beside them, {np.median(widths):.3g} mm"
                f" wide in the median: {some_of(odd)}: another unit, or little tissue?",
            )
        )
    oblong = [
        f"{row.section} ({row.pixel_aspect:.3g} times as high as wide)"
        for row in looked
        if abs(row.pixel_aspect - 1) > _ASPECT
    ]
    if oblong:
        findings.append(
            Finding(
                "pixel sizes",
                "doubtful",
                f"pixels that are not square, by their files: section {some_of(oblong)};"
                " pixel_size_mm counts for both sides: resample the images to square pixels",
            )
        )
    if not findings:
        sizes = sorted({row.pixel_size_mm for row in looked})
        of = f"{sizes[0]:g}" if len(sizes) == 1 else f"{sizes[0]:g} to {sizes[-1]:g}"
        words = f"{of} mm; tissue {widths.min():.3g} to {widths.max():.3g} mm wide"
        findings.append(Finding("pixel sizes", "fine", words))
    return findings


def through_poles(looked: Sequence[Looked]) -> set[str]:
    """Sections that show several pieces and no more tissue than those beside them.

    A cut through both frontal or occipital poles does; a picture of two sections has twice the
    tissue of its neighbours, unless most pictures of the stack have several.
    """
    several = [index for index, row in enumerate(looked) if "pictures" in row.doubts]
    if len(several) > _MANY * len(looked):
        return set()
    areas = np.array([row.tissue_mm2 for row in looked])
    found = set()
    for index in several:
        beside = np.r_[
            areas[max(0, index - _NEIGHBOURS) : index], areas[index + 1 : index + 1 + _NEIGHBOURS]
        ]
        if beside.size and areas[index] < _MORE * np.median(beside):
            found.add(looked[index].section)
    return found


def judge_positions(looked: Sequence[Looked], brain: Brain | None, *, in_order: bool) -> Finding:
    """The positions, which are millimetres unless they are `in_order` only."""
    positions = np.array([row.position_mm for row in looked])
    if positions.size < 2 or in_order:
        return Finding("positions", "fine", f"{positions.size} of them")
    steps = np.diff(positions)
    length_mm = float(np.ptp(positions))
    words = f"{positions[0]:g} to {positions[-1]:g} mm, {np.median(steps):.3g} mm apart"
    if brain is not None:
        longest = float(brain.extent_mm.max())
        if fault := stack_contradiction(length_mm, brain.longest_mm):
            return Finding("positions", "refused", f"{words}: {fault}")
        if length_mm > _BEYOND * longest:
            return Finding(
                "positions",
                "doubtful",
                f"{words}: the brain in the MRI is {longest:.3g} mm long: numbers of sections?",
            )
        if length_mm < longest / 50 and positions.size >= 10:
            return Finding(
                "positions",
                "doubtful",
                f"{words}: {positions.size} sections in {length_mm:.3g} mm of a brain of"
                f" {longest:.3g} mm: divided by 1000?",
            )
    if _are_the_numbers_of(looked):
        return Finding(
            "positions",
            "doubtful",
            f"{words}: each is the number in its section's name: numbers of sections? Right if"
            " successive ones are 1 mm apart, else multiply them by their distance in mm",
        )
    wide = np.flatnonzero(steps > _GAP * np.median(steps))
    if wide.size:
        gaps = [
            f"{looked[i].section} and {looked[i + 1].section} ({steps[i]:.3g} mm)" for i in wide
        ]
        words += f"; far apart: {some_of(gaps)}"
    return Finding("positions", "fine", words)


def _are_the_numbers_of(looked: Sequence[Looked]) -> bool:
    """Whether positions are the last whole numbers in the names of their sections."""
    if len(looked) <= _FEW:
        return False
    numbers = [re.findall(r"\d+", row.section) for row in looked]
    return all(
        found and row.position_mm == float(found[-1])
        for row, found in zip(looked, numbers, strict=True)
    )


def judge_sizes(looked: Sequence[Looked], brain: Brain) -> Finding:
    """The sections beside the brain in the MRI."""
    widest = float(np.quantile(widths_mm(looked), 0.95))
    words = f"sections are {widest:.3g} mm wide, the {brain.words()}"
    if fault := width_contradiction(float(np.median(widths_mm(looked))), brain.longest_mm):
        return Finding("sizes", "refused", fault)
    if widest > _BEYOND * brain.extent_mm.max():
        return Finding(
            "sizes", "doubtful", f"{words}: check pixel_size_mm and the MRI's voxel size"
        )
    if brain.extent_mm.min() > _TOO_SMALL * widest:
        return Finding(
            "sizes",
            "doubtful",
            f"{words}: check pixel_size_mm and the MRI's voxel size, or give mri_mask of the part"
            " that was cut",
        )
    return Finding("sizes", "fine", words)
