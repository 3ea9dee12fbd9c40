"""Whether landmarks are where they are said to be: units, axes, handedness.

A landmark is judged by other ways of reading it: were its numbers pixels or micrometres, would it
lie on the section? A reading is named where many more points make sense by it than as given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sbr_core import geometry
from sbr_core.algorithms.plausibility.finding import Finding
from sbr_core.algorithms.plausibility.outlines import in_tissue
from sbr_core.errors import some_of
from sbr_core.geometry import LPS_FROM_RAS, apply, orientation_matrix

if TYPE_CHECKING:
    from sbr_core.artifacts.rows import Looked
    from sbr_core.io.manifests import Landmark

SUBJECT = "landmarks"
_FEW = 3
"""Fewer points than these tell nothing about all."""
_BETTER = 0.3
"""By how much the share of points that make sense must grow by another reading."""
_MOST = 0.7
"""Share of the points that have to make sense by it."""
_BESIDE_TISSUE = 0.1
"""Share of the points that may lie on the image but beside the tissue: pieces are lost."""
_BESIDE_MM = 5.0
"""How far outside the brain of a human a point may lie: masks are tight, and skulls have points."""
_FAR = 3.0
"""Times as far outside, from which on a single point is named: others are those of a section that
lies badly, or of damaged tissue."""
_SPREAD = 0.1
"""Share of the brain's extent that points must spread over: by too small a unit all are in it."""
_HUMAN_MM = 107.0
"""Edge of the cube that holds what a human brain does."""
_ALIKE = 0.8
"""Correlation of coordinates from which on an axis is known; sections lie a few millimetres off."""
_AS_TOLD = 0.5
"""The same from which on it may run as the letters say: points along a diagonal run along every
axis, and other axes than those of the letters correlate a little better by chance."""
_REACH = 0.05
"""Share of the brain's extent along an axis that points must spread over to tell its direction."""

Reading = Callable[[np.ndarray], np.ndarray]
"""Points (n, d) as given -> as they would be, mm."""


@dataclass(frozen=True)
class OnSection:
    """One section, as far as a landmark's place on it is concerned."""

    looked: Looked

    def share(self, points_mm: np.ndarray) -> np.ndarray:
        """(n, 2) as shares of width and height, of points in section mm."""
        row = self.looked
        size = np.array([row.file_columns, row.file_rows])
        return (np.asarray(points_mm, float) / row.pixel_size_mm + 0.5) / size

    def readings(self) -> dict[str, Reading]:
        """In words -> what points (x, y) would be."""
        row = self.looked
        height_mm = (row.file_rows - 1) * row.pixel_size_mm
        return {
            "pixels: multiply them by pixel_size_mm": lambda p: p * row.pixel_size_mm,
            "micrometres: divide them by 1000": lambda p: p / 1000,
            "centimetres: multiply them by 10": lambda p: p * 10,
            "x and y swapped": lambda p: p[:, ::-1],
            "y counted from the lower edge": lambda p: np.column_stack(
                [p[:, 0], height_mm - p[:, 1]]
            ),
        }


def world_readings(world_from_voxel: np.ndarray) -> dict[str, Reading]:
    """What points in the MRI would be, RAS mm, by other conventions."""

    def of(matrix: np.ndarray) -> Reading:
        return lambda p: apply(matrix, p)

    return {
        "LPS (x and y mirrored): change the signs of mri_x_mm and mri_y_mm": of(LPS_FROM_RAS),
        "voxels: map them by the MRI's affine": of(world_from_voxel),
        "voxels counted from 1: map them by the MRI's affine": lambda p: apply(
            world_from_voxel, p - 1
        ),
        "micrometres: divide them by 1000": lambda p: p / 1000,
        "centimetres: multiply them by 10": lambda p: p * 10,
        "metres: multiply them by 1000": lambda p: p * 1000,
    }


def judge_on_sections(marks: Sequence[Landmark], looked: Mapping[str, Looked]) -> Finding:
    """Points on sections: are they on the image, and on its tissue?"""
    known = [mark for mark in marks if mark.section in looked]
    if not known:
        return Finding(SUBJECT, "doubtful", "none of a section that can be used")
    points = np.array([mark.section_mm for mark in known])
    sections = [OnSection(looked[mark.section]) for mark in known]
    on_tissue, on_image = _hits(sections, points)
    n = len(known)
    words = f"{np.count_nonzero(on_tissue)} of {n} on the tissue of their section"
    readings: dict[str, list[bool]] = {}
    for section, point in zip(sections, points, strict=True):
        for name, reading in section.readings().items():
            hit = _hits([section], reading(point[None]))[0][0]
            readings.setdefault(name, []).append(bool(hit))
    named = _better(on_tissue, {name: np.array(hits) for name, hits in readings.items()})
    outside = [f"{_row(m, marks)}" for m, on in zip(known, on_image, strict=True) if not on]
    if named:
        reading, share = named
        words += f"; {share:.0%} would be, were x_section_mm and y_section_mm {reading}"
        certain = np.mean(on_image) < 0.5
        return Finding(SUBJECT, "refused" if certain else "doubtful", words)
    if outside:
        words += f"; outside their image: {some_of(outside)}: x_section_mm and y_section_mm are mm"
        words += " from the centre of the file's first pixel"
        certain = np.mean(on_image) < 0.5 and n >= _FEW
        return Finding(SUBJECT, "refused" if certain else "doubtful", words)
    off = [_row(m, marks) for m, on in zip(known, on_tissue, strict=True) if not on]
    if len(off) > _BESIDE_TISSUE * n:
        return Finding(SUBJECT, "doubtful", f"{words}; beside it: {some_of(off)}")
    return Finding(SUBJECT, "fine", words)


def _row(mark: Landmark, marks: Sequence[Landmark]) -> str:
    """A landmark as its table counts it."""
    point = ", ".join(f"{v:.4g}" for v in mark.section_mm)
    number = next(i for i, other in enumerate(marks, 1) if other is mark)
    return f"landmark {number} of section {mark.section} ({point})"


def _hits(sections: Sequence[OnSection], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(on the tissue, on the image) of points, each on its section."""
    shares = [s.share(p[None]) for s, p in zip(sections, points, strict=True)]
    tissue = [in_tissue(s.looked.cells, x)[0] for s, x in zip(sections, shares, strict=True)]
    # a point set at the very edge may lie outside by rounding
    image = [bool(np.all((x >= -0.02) & (x <= 1.02))) for x in shares]
    return np.array(tissue), np.array(image)


def _better(given: np.ndarray, readings: Mapping[str, np.ndarray]) -> tuple[str, float] | None:
    """The reading by which clearly more points make sense, and their share; None for none."""
    if given.size < _FEW or not readings:
        return None
    name, hits = max(readings.items(), key=lambda item: np.mean(item[1]))
    share = float(np.mean(hits))
    return (name, share) if share >= _MOST and share > np.mean(given) + _BETTER else None


def judge_in_mri(
    marks: Sequence[Landmark], mask: np.ndarray, world_from_voxel: np.ndarray
) -> Finding:
    """Points in the MRI: are they in the image, and in the brain?

    Parameters
    ----------
    mask : (i, j, k) bool, the brain.
    """
    points = np.array([mark.mri_mm for mark in marks])
    spacing_mm = np.linalg.norm(world_from_voxel[:3, :3], axis=0)
    size_mm = float(np.cbrt(np.count_nonzero(mask) * np.prod(spacing_mm)))
    outside_mm = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    beside_mm = _BESIDE_MM * size_mm / _HUMAN_MM + spacing_mm.max()
    index_from_world = np.linalg.inv(world_from_voxel)

    def away_mm(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = np.rint(apply(index_from_world, p))
        image = np.all((index >= -1) & (index <= np.array(mask.shape)), axis=1)
        index = np.clip(index, 0, np.array(mask.shape) - 1).astype(int)
        return np.where(image, outside_mm[tuple(index.T)], np.inf), image

    def hits(p: np.ndarray) -> np.ndarray:
        spread = np.ptp(p, axis=0).max() > _SPREAD * size_mm
        return (away_mm(p)[0] <= beside_mm) & spread

    far_mm, in_image = away_mm(points)
    in_brain = far_mm <= beside_mm
    words = f"{np.count_nonzero(in_brain)} of {len(marks)} in the brain of the MRI"
    readings = {name: hits(f(points)) for name, f in world_readings(world_from_voxel).items()}
    if named := _better(in_brain, readings):
        reading, share = named
        words += f"; {share:.0%} would be, were mri_x_mm, mri_y_mm and mri_z_mm {reading}"
        return Finding(SUBJECT, "refused" if np.mean(in_brain) < 0.5 else "doubtful", words)
    off = [
        f"{number} ({', '.join(f'{v:.4g}' for v in points[number - 1])})"
        for number in 1 + np.flatnonzero(far_mm > _FAR * beside_mm)
    ]
    if off:
        certain = np.mean(in_image) < 0.5 and len(marks) >= _FEW
        words += f"; not landmark {some_of(off)}: expected RAS mm of the MRI's header"
        return Finding(SUBJECT, "refused" if certain else "doubtful", words)
    return Finding(SUBJECT, "fine", words)


def judge_directions(
    marks: Sequence[Landmark],
    looked: Mapping[str, Looked],
    orientation: str,
    extent_mm: np.ndarray,
) -> Finding | None:
    """Do points run right, anterior and superior as the letters say of their sections?

    Parameters
    ----------
    orientation : three letters; of ``auto`` nothing is known, and None returned.
    extent_mm : (3,) of the brain along right, anterior and superior.
    """
    known = [mark for mark in marks if mark.section in looked]
    if orientation == "auto" or len(known) < _FEW + 1:
        return None
    stack = np.array([_upright(mark, looked[mark.section]) for mark in known])
    expected = (stack - stack.mean(axis=0)) @ orientation_matrix(orientation).T
    found = np.array([mark.mri_mm for mark in known])
    found = found - found.mean(axis=0)
    told = (np.ptp(expected, axis=0) > _REACH * extent_mm) & (np.ptp(found, axis=0) > 0)
    if np.count_nonzero(told) < 2:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        alike = np.nan_to_num(np.corrcoef(expected.T, found.T)[:3, 3:])
    best = max(_signed_permutations(), key=lambda m: float(np.sum(m * alike * told[:, None])))
    if np.array_equal(best, np.eye(3)):
        return None
    moved = [k for k in range(3) if told[k] and best[k, k] != 1]
    if not moved or min(float(alike[k] @ best[k]) for k in moved) < _ALIKE:
        return None
    if max(float(alike[k, k]) for k in moved) >= _AS_TOLD:
        return None
    axes = np.array(["x", "y", "z"])
    if np.count_nonzero(np.diag(best)) == 3:
        what = " and ".join(axes[np.diag(best) < 0]) + " mirrored"
        if np.array_equal(np.diag(best)[told], np.array([-1, -1, 1])[told]):
            what = "x and y mirrored: LPS?"
        if np.count_nonzero(np.diag(best) < 0) % 2:
            what += ", or orientation is that of the mirror image"
    else:
        what = "axes in the order " + ", ".join(axes[np.argmax(np.abs(best), axis=1)])
    return Finding(
        SUBJECT,
        "refused",
        f"points in the MRI run against the sections and orientation {orientation}: {what}"
        " (mri_x_mm, mri_y_mm, mri_z_mm are RAS)",
    )


def _upright(mark: Landmark, row: Looked) -> np.ndarray:
    """(3,) of a landmark's section point, flipped and turned as the manifest states, stack mm."""
    whole = geometry.Box.whole((row.file_rows, row.file_columns))
    box = geometry.Box.of(row.box_px) or whole  # sections of one picture lie apart in it only
    upright, upright_shape = geometry.upright_from_file(box.shape, row.flip, row.rotate_deg)
    centre = np.array([upright_shape[1] - 1, upright_shape[0] - 1]) / 2
    in_box = np.array(mark.section_mm) / row.pixel_size_mm - [box.left, box.top]
    point = apply(upright, in_box) - centre
    return np.r_[point * row.pixel_size_mm, row.position_mm]


def _signed_permutations() -> list[np.ndarray]:
    """All 48; the identity first, so that it is taken where others are as good."""
    matrices = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            matrices.append(matrix)
    return matrices


def judge_in_plane(marks: Sequence[Landmark], looked: Mapping[str, Looked]) -> Finding:
    """Of a prealigned brain: points of planes lie near those of their sections, on one grid."""
    known = [mark for mark in marks if mark.section in looked]
    if not known:
        return Finding(SUBJECT, "doubtful", "none of a section that can be used")
    planes = np.array([mark.plane_mm for mark in known])
    rows = [looked[mark.section] for mark in known]
    on_section = np.array([mark.section_mm for mark in known])
    widths = np.array([max(row.width_mm, row.height_mm) for row in rows])
    pixels = np.array([[row.pixel_size_mm] for row in rows])
    near = np.linalg.norm(planes - on_section, axis=1) < 0.2 * widths
    readings = {
        "pixels: multiply them by pixel_size_mm": planes * pixels,
        "micrometres: divide them by 1000": planes / 1000,
        "x and y swapped": planes[:, ::-1],
    }
    hits = {
        name: np.linalg.norm(points - on_section, axis=1) < 0.2 * widths
        for name, points in readings.items()
    }
    words = f"{np.count_nonzero(near)} of {len(known)} near their point in the MRI's plane"
    if named := _better(near, hits):
        words += f"; {named[1]:.0%} would be, were x_plane_mm and y_plane_mm {named[0]}"
        return Finding(SUBJECT, "refused" if np.mean(near) < 0.5 else "doubtful", words)
    far = [_row(mark, marks) for mark, is_near in zip(known, near, strict=True) if not is_near]
    if far:
        return Finding(SUBJECT, "doubtful", f"{words}; far from it: {some_of(far)}")
    return Finding(SUBJECT, "fine", words)
