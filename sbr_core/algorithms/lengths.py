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
_USUAL_TIMES = 4.0
"""From which on either is worth a word."""
_LONG_STACK = 1.5
"""The same of a stack, which shrinks less along its positions than it is cut from the brain."""
_MANY, _FLATTEST = 10, 50.0
"""A stack of so many sections is no flatter than this: ten serial sections of 50 µm of a mouse, 10
mm wide, are twice as thick for their width."""


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


def contradiction(width_mm: float, stack_mm: float | None, mri_mm: float) -> str:
    """Why sections, stack and MRI cannot be of one brain; "" where they may be.

    Parameters
    ----------
    width_mm : longer side of the box around a section's tissue, the median of all sections.
    stack_mm : from the first position to the last; None where positions are no millimetres.
    mri_mm : diagonal of the box around the MRI's mask.
    """
    if width_mm > MOST_TIMES * mri_mm or mri_mm > MOST_TIMES * width_mm:
        times = max(width_mm / mri_mm, mri_mm / width_mm)
        larger = "sections" if width_mm > mri_mm else "the MRI"
        return (
            f"sections are {width_mm:.4g} mm wide and the brain in the MRI is {mri_mm:.4g} mm long:"
            f" {larger} {times:.3g} times as long; check pixel_size_mm and the MRI's voxel size"
        )
    if stack_mm is not None and stack_mm > MOST_TIMES * mri_mm:
        return (
            f"the stack is {stack_mm:.4g} mm long and the brain in the MRI {mri_mm:.4g} mm; check"
            " position_mm (millimetres?) and the MRI's voxel size"
        )
    return ""


def doubt(width_mm: float, stack_mm: float | None, mri_mm: float, n_sections: int) -> str:
    """What is to be said of lengths that hardly belong together; "" where nothing is.

    Parameters
    ----------
    width_mm, stack_mm, mri_mm : as of `contradiction`.
    n_sections : in the stack.
    """
    if mri_mm > _USUAL_TIMES * width_mm:
        return (
            f"the brain in the MRI ({mri_mm:.4g} mm) is {mri_mm / width_mm:.2g} times as long as"
            f" sections are wide ({width_mm:.4g} mm): is the MRI's voxel size right? Sections of a"
            " piece are aligned with an MRI of that piece"
        )
    if width_mm > mri_mm:
        return (
            f"sections are {width_mm:.4g} mm wide and the brain in the MRI only {mri_mm:.4g} mm"
            " long: are pixel_size_mm and the MRI's voxel size right?"
        )
    if stack_mm is not None and stack_mm > _LONG_STACK * mri_mm:
        return (
            f"the stack is {stack_mm:.4g} mm long and the brain in the MRI {mri_mm:.4g} mm: is"
            " position_mm in millimetres?"
        )
    if stack_mm is not None and n_sections >= _MANY and stack_mm < width_mm / _FLATTEST:
        return (
            f"the stack of {n_sections} sections is {stack_mm:.3g} mm long and {width_mm:.4g} mm"
            " wide: is position_mm in millimetres?"
        )
    return ""
