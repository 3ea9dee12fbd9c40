"""Where a NIfTI says that its voxels lie: unit of length, sform and qform, and what is doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbr_core.geometry import apply

_MM_OF_UNIT = {"micron": 1e-3, "mm": 1.0, "meter": 1000.0}
"""Units of length that NIfTI knows, in mm."""
_SHORTEST_MM, _LONGEST_MM = 0.5, 1000.0
"""Lengths of a field of view. A fly's brain is 0.6 mm wide, and no scanner's bore is longer than
1 m. A thousand times apart at most twice, so that one unit at the most is within both."""
_APART_VOXELS = 0.5
"""Of the frames' corners, in voxels, from which on sform and qform disagree: what they differ by
otherwise is how precisely the quaternion of the qform is stored."""
_LEAST_VOLUME = 1e-6
"""Of a voxel, as a share of the box with its sides, below which an affine has no volume."""


@dataclass(frozen=True)
class Frame:
    """Where the voxels of a volume lie.

    Attributes
    ----------
    world_from_voxel : (4, 4) voxel index to RAS+ mm.
    unit_mm : what 1 in the header stands for; None where the header does not say it.
    doubts : what is to be said of the header, one sentence each; empty where all is well.
    """

    world_from_voxel: np.ndarray
    unit_mm: float | None
    doubts: tuple[str, ...] = ()


def stated_unit_mm(header: Any) -> float | None:
    """The header's unit of length in mm; None where it states none, or one that there is not."""
    try:
        return _MM_OF_UNIT.get(header.get_xyzt_units()[0])
    except (AttributeError, KeyError):  # of a format without units; a code without a meaning
        return None


def unit_of_lengths(header: Any, sides: Sequence[float]) -> tuple[float | None, str]:
    """What a header's lengths are in, mm, and what is doubtful about it.

    Millimetres are meant where only they give the length of something that was scanned: some
    programs write another unit beside them.

    Parameters
    ----------
    sides : of the field of view, in the header's lengths.

    Returns
    -------
    as of `stated_unit_mm`, and a sentence, or "".
    """
    unit_mm = stated_unit_mm(header)
    longest = float(max(sides))
    if unit_mm in (None, 1.0) or _is_length(unit_mm * longest) or not _is_length(longest):
        return unit_mm, ""
    name = header.get_xyzt_units()[0]
    return 1.0, (
        f"the header's unit of length is {name}, by which it is {unit_mm * longest:.3g} mm long:"
        f" taken as mm, {longest:.3g} mm long"
    )


def is_in_micrometres(world_from_voxel: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether a volume is too long for anything that was scanned, unless its mm are micrometres.

    So are labels that were written with the numbers of an MRI's header, and without its unit.
    """
    sides = np.linalg.norm(world_from_voxel[:3, :3], axis=0) * shape
    return sides.max() > _LONGEST_MM and _is_length(float(sides.max()) / 1000)


def _is_length(longest_mm: float) -> bool:
    """Whether a field of view may be so long."""
    return _SHORTEST_MM <= longest_mm <= _LONGEST_MM


def frame_of(image: Any) -> Frame:
    """The frame of a NIfTI, or of another volume that nibabel reads.

    The sform counts where one is declared that has a volume, then the qform, as for nibabel.

    Parameters
    ----------
    image : nibabel's; only its header is looked at.
    """
    header, shape = image.header, (*image.shape, 1, 1, 1)[:3]
    affine, doubts = np.asarray(image.affine, float), []
    forms: list[np.ndarray | None] = []
    if hasattr(header, "get_qform"):
        forms = [_declared(header, name) for name in ("sform", "qform")]
        if all(form is None for form in forms):
            doubts.append(
                "the header declares no frame (sform and qform have code 0): left and right cannot"
                " be known from it, and the volume may be mirrored"
            )
        elif not has_volume(affine) and (good := [f for f in forms if has_volume(f)]):
            doubts.append("its sform has no volume: the qform is used")
            affine = good[0]
    unit_mm, doubt = None, ""
    if has_volume(affine):
        unit_mm, doubt = unit_of_lengths(header, np.linalg.norm(affine[:3, :3], axis=0) * shape)
    mm = np.diag([*[unit_mm or 1.0] * 3, 1.0])
    if forms and all(has_volume(form) for form in forms):
        doubts += _disagreement(*(mm @ form for form in forms), shape)
    return Frame(mm @ affine, unit_mm, (*doubts, *[doubt] * bool(doubt)))


def has_volume(affine: np.ndarray | None) -> bool:
    """Whether an affine (4, 4) gives each voxel a place: finite, and no axis along the others."""
    if affine is None or not np.isfinite(affine).all():
        return False
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    # as a share of the box with the same sides, for voxels may be of micrometres
    return sides.min() > 0 and abs(np.linalg.det(affine[:3, :3] / sides)) >= _LEAST_VOLUME


def _declared(header: Any, name: str) -> np.ndarray | None:
    """(4, 4) sform or qform; None where its code is 0, or where it cannot be computed."""
    try:
        affine, code = getattr(header, f"get_{name}")(coded=True)
    except Exception:  # a quaternion that is none
        return None
    return affine if code else None


def _disagreement(sform: np.ndarray, qform: np.ndarray, shape: Sequence[int]) -> list[str]:
    """A sentence where two frames, in mm, place the volume differently."""
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    apart = np.linalg.norm(apply(sform, ends) - apply(qform, ends), axis=1).max()
    sides = np.linalg.norm(sform[:3, :3], axis=0)
    if apart <= _APART_VOXELS * sides.min():
        return []
    is_mirrored = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0
    how = ", and one is the MIRROR IMAGE of the other: left and right are doubtful"
    return [
        f"its sform and its qform disagree by up to {apart:.3g} mm"
        f"{how if is_mirrored else ''}; the sform is used. Where the qform is right, write it into"
        " the sform"
    ]
