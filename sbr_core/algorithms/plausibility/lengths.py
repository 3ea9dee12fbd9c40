"""Lengths of a brain, its sections and its MRI that cannot be right, or cannot belong together.

Only numbers are looked at, so that all that compares them asks here.
"""

from __future__ import annotations

LARGEST_MM, SMALLEST_MM = 500.0, 1.0
"""No brain, and no section of one, is longer; of a mouse's in micrometres it would be. Hardly any
is shorter."""
MOST_TIMES = 10.0
"""How many times as long as the MRI's brain, which may be a piece, sections and stack may be; and
how many times as long as sections are wide, which may be of a piece, that brain may be. Of whole
ones it is 1.5 to 2 times as long as they are wide."""


def mri_fault(longest_mm: float, voxel_mm: float, unit_mm: float | None) -> str:
    """Why no brain is as long as the one in an MRI; "" where one may be.

    Parameters
    ----------
    longest_mm : longest side of the box around its mask.
    voxel_mm : longest side of a voxel.
    unit_mm : that of the header, None where it states none.
    """
    if longest_mm <= LARGEST_MM:
        return ""
    micrometres = unit_mm is None or unit_mm == 1
    hint = (
        f"a voxel size of {voxel_mm:.4g} in micrometres? Then state that unit in its header, or"
        " write millimetres"
        if micrometres
        else f"is 1 in its header really {unit_mm:g} mm, the unit that it states?"
    )
    return f"the brain in it is {longest_mm:.4g} mm long, and none is over {LARGEST_MM:g}: {hint}"


def mri_doubt(longest_mm: float) -> str:
    """What is to be said of a brain in an MRI that is very small; "" of any other."""
    if longest_mm >= SMALLEST_MM:
        return ""
    return (
        f"the brain in it is {longest_mm:.3g} mm long, and hardly any is below {SMALLEST_MM:g}: is"
        " its voxel size in metres, or divided by 1000 twice?"
    )


def width_contradiction(width_mm: float, mri_mm: float) -> str:
    """Why sections and an MRI cannot be of one brain; "" where they may be.

    Parameters
    ----------
    width_mm : longer side of the box around a section's tissue, the median of all sections.
    mri_mm : diagonal of the box around the MRI's mask.
    """
    times = max(width_mm, mri_mm) / min(width_mm, mri_mm)
    if times <= MOST_TIMES:
        return ""
    larger, of_part = "sections", ""
    if mri_mm > width_mm:
        larger, of_part = "the MRI", "; sections of a block of a brain need mri_mask of that block"
    return (
        f"sections are {width_mm:.4g} mm wide and the brain in the MRI is {mri_mm:.4g} mm long:"
        f" {larger} {times:.3g} times as long; check pixel_size_mm and the MRI's voxel size"
        f"{of_part}"
    )


def stack_contradiction(stack_mm: float, mri_mm: float) -> str:
    """Why a stack and an MRI cannot be of one brain; "" where they may be.

    Parameters
    ----------
    stack_mm : from the first position to the last.
    mri_mm : diagonal of the box around the MRI's mask.
    """
    if stack_mm <= MOST_TIMES * mri_mm:
        return ""
    return (
        f"the stack is {stack_mm:.4g} mm long and the brain in the MRI {mri_mm:.4g} mm; check"
        " position_mm (millimetres, or micrometres or numbers of sections?) and the MRI's voxel"
        " size"
    )
