"""The conventions of space, in one place: pixel, section, plane, stack and world coordinates.

Points are column vectors in the order (x, y[, z]); images are indexed ``[row, column]``, so
x = column and y = row. A matrix named ``b_from_a`` maps the coordinates of a point in a to those
of the same point in b. Homogeneous matrices are float64, 3x3 in the plane and 4x4 in space.

==============  ==================================================================================
file px         (column, row) of the stored image file, pixel centres at integers
section mm      file px * pixel_size_mm: origin at the centre of file pixel (0, 0), before ``flip``
                and ``rotate_deg``
working px      (column, row) of the image ``prepare`` writes: flipped, rotated, downsampled
working mm      working px * working_pixel_mm
plane px        (column, row) on the working grid of the stack's planes
plane mm        plane px * spacing_mm; the (x, y) of stack mm
stack mm        (x, y, position_mm); exactly what ITK reads from the files
world mm        the MRI's RAS+ millimetres, as NIfTI means them; LPS only in ITK files
==============  ==================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""(4, 4): NIfTI's axes point right, anterior, superior; those of ITK left, posterior, superior."""


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels of a stored file.

    Attributes
    ----------
    left, top : column and row of its first pixel.
    columns, rows : its extent.
    """

    left: int
    top: int
    columns: int
    rows: int

    @classmethod
    def of(cls, text: str) -> Box | None:
        """That of ``left top columns rows``; None of an empty text.

        ValueError where these are not four whole numbers, the last two above 0.
        """
        if not text:
            return None
        words = text.replace(",", " ").split()
        if len(words) != 4 or not all(word.isascii() and word.isdigit() for word in words):
            raise ValueError("expected four whole numbers: left, top, columns, rows")
        box = cls(*(int(word) for word in words))
        if not (box.columns and box.rows):
            raise ValueError("expected columns and rows above 0")
        return box

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> Box:
        """All of a file of (rows, columns)."""
        return cls(0, 0, shape[1], shape[0])

    def __str__(self) -> str:
        return f"{self.left} {self.top} {self.columns} {self.rows}"

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns

    def is_within(self, shape: tuple[int, int]) -> bool:
        """Whether it lies in a file of (rows, columns)."""
        return self.top + self.rows <= shape[0] and self.left + self.columns <= shape[1]

    def has(self, px: np.ndarray) -> np.ndarray:
        """(...) bool: which points (..., 2), file px, lie in it, up to its pixels' outer edges."""
        low = np.array([self.left, self.top]) - 0.5
        high = low + np.array([self.columns, self.rows])
        return np.all((px >= low - 1e-6) & (px <= high + 1e-6), axis=-1)


def in_box(array: np.ndarray, box: Box | None) -> np.ndarray:
    """An array (rows, columns) of a file with 0 outside a box; None changes nothing."""
    if box is None:
        return array
    inside = slice(box.top, box.top + box.rows), slice(box.left, box.left + box.columns)
    result = np.zeros_like(array)
    result[inside] = array[inside]
    return result


_AXIS_OF_LETTER = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
FLIPS = ("none", "lr", "ud")
"""Of the manifest: not at all, columns reversed (left to right), rows reversed (upside down)."""


@dataclass(frozen=True)
class PlaneGrid:
    """The working grid that every plane of a stack shares.

    Attributes
    ----------
    shape : (rows, columns)
    spacing_mm : side of the square pixel; plane mm = plane px * spacing_mm, no offset.
    """

    shape: tuple[int, int]
    spacing_mm: float

    @property
    def plane_mm_from_px(self) -> np.ndarray:
        """3x3 matrix from plane px (column, row) to plane mm."""
        return scaling(self.spacing_mm)

    def at_spacing(self, spacing_mm: float) -> PlaneGrid:
        """The grid of another pixel size whose first pixel CENTRE stays at plane mm (0, 0).

        It reaches at least as far as this one.
        """
        ratio = self.spacing_mm / spacing_mm
        return PlaneGrid(
            tuple(int(math.ceil((n - 1) * ratio - 1e-9)) + 1 for n in self.shape), spacing_mm
        )


def stack_grid(
    grids: Sequence[PlaneGrid], positions_mm: Sequence[float], spacing_mm: float | None
) -> tuple[tuple[int, int, int], np.ndarray]:
    """(shape, stack_from_voxel) of a volume in the stack, indexed [column, row, position].

    Parameters
    ----------
    grids, positions_mm : of its sections, sorted by position.
    spacing_mm : in the plane; None keeps the planes' grid.
    """
    rows, columns = (max(grid.shape[axis] for grid in grids) for axis in (0, 1))
    grid = PlaneGrid((rows, columns), grids[0].spacing_mm)
    if spacing_mm is not None:
        grid = grid.at_spacing(spacing_mm)
    gap_mm = float(np.median(np.diff(positions_mm))) if len(grids) > 1 else grid.spacing_mm
    layers = round((positions_mm[-1] - positions_mm[0]) / gap_mm) + 1
    stack_from_voxel = np.diag([grid.spacing_mm, grid.spacing_mm, gap_mm, 1.0])
    stack_from_voxel[2, 3] = positions_mm[0]
    return (grid.shape[1], grid.shape[0], max(2, layers)), stack_from_voxel


def extent_px(mask: np.ndarray) -> np.ndarray:
    """Sides of the box around what is set in a mask, one per axis; the mask must not be empty."""
    return np.ptp(np.argwhere(mask), axis=0) + 1


def scaling(factor: float) -> np.ndarray:
    """3x3 matrix that multiplies (x, y) by `factor`."""
    return np.diag([factor, factor, 1.0]).astype(float)


def translation(dx: float, dy: float) -> np.ndarray:
    """3x3 matrix that adds (dx, dy)."""
    matrix = np.eye(3)
    matrix[:2, 2] = dx, dy
    return matrix


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., d) by a homogeneous (d+1, d+1) matrix."""
    matrix = np.asarray(matrix, float)
    points = np.asarray(points, float)
    d = matrix.shape[0] - 1
    if matrix.shape != (d + 1, d + 1) or points.shape[-1] != d:
        raise ValueError(f"matrix {matrix.shape} does not map points {points.shape}")
    return points @ matrix[:d, :d].T + matrix[:d, d]


def orientation_matrix(letters: str) -> np.ndarray:
    """3x3 signed permutation: RAS direction of increasing (column, row, position).

    Parameters
    ----------
    letters : three of R/L, A/P, S/I, one of each pair, e.g. ``"LIA"``: columns run to the left,
        rows to inferior, positions to anterior. Its determinant may be -1 (LIA's is).

    Raises
    ------
    ValueError
        If the letters do not name three different axes.
    """
    try:
        axes = [_AXIS_OF_LETTER[c] for c in str(letters).upper()]
    except KeyError:
        axes = []
    if len(axes) != 3 or {a for a, _ in axes} != {0, 1, 2}:
        raise ValueError(
            f"orientation {letters!r}: expected three letters, one each of R/L, A/P and S/I"
        )
    matrix = np.zeros((3, 3))
    for column, (axis, sign) in enumerate(axes):
        matrix[axis, column] = sign
    return matrix


def orientation_letters(matrix: np.ndarray) -> str:
    """The inverse of `orientation_matrix`: letters of a (3, 3) signed permutation."""
    names = {place: letter for letter, place in _AXIS_OF_LETTER.items()}
    axes = np.argmax(np.abs(matrix), axis=0)
    return "".join(
        names[int(axis), int(np.sign(matrix[axis, column]))] for column, axis in enumerate(axes)
    )


def upright_from_file(
    shape: tuple[int, int], flip: str = "none", rotate_deg: float = 0.0
) -> tuple[np.ndarray, tuple[int, int]]:
    """Flip, then turn an image about its centre, on a canvas that holds all of it.

    Parameters
    ----------
    shape : (rows, columns) of the file.
    flip : ``none``, ``lr`` (columns reversed) or ``ud`` (rows reversed).
    rotate_deg : counter-clockwise as displayed (rows growing downwards), after the flip.

    Returns
    -------
    upright_px_from_file_px : (3, 3)
    upright_shape : (rows, columns); exact for multiples of 90 degrees.
    """
    if flip not in FLIPS:
        raise ValueError(f"flip {flip!r}: expected one of {', '.join(FLIPS)}")
    rows, columns = shape
    mirror = np.diag([-1.0 if flip == "lr" else 1.0, -1.0 if flip == "ud" else 1.0, 1.0])
    theta = math.radians(rotate_deg % 360.0)
    c, s = math.cos(theta), math.sin(theta)
    if rotate_deg % 90 == 0:  # no rounding for the exact turns
        c, s = round(c), round(s)
    # y grows downwards, so counter-clockwise on the screen is (x, y) -> (cx + sy, -sx + cy)
    turn = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    width = abs(c) * columns + abs(s) * rows
    height = abs(s) * columns + abs(c) * rows
    new_shape = int(math.ceil(height - 1e-6)), int(math.ceil(width - 1e-6))
    to_centre = translation(-(columns - 1) / 2, -(rows - 1) / 2)
    from_centre = translation((new_shape[1] - 1) / 2, (new_shape[0] - 1) / 2)
    return from_centre @ turn @ mirror @ to_centre, new_shape


def turned_further(
    flip: str, rotate_deg: float, then_flip: str, then_rotate_deg: float
) -> tuple[str, float]:
    """(flip, rotate_deg) that do at once what two such steps do one after the other.

    A flip turns the sense of a turn before it; both flips together are a half turn.

    Returns
    -------
    flip : of `FLIPS`.
    rotate_deg : above -180, up to 180.
    """
    before_deg = rotate_deg if then_flip == "none" else -rotate_deg
    flips = {flip, then_flip} - {"none"}
    if len(flips) == 2:
        both, half_turn_deg = "none", 180.0
    else:
        both, half_turn_deg = ("none" if flip == then_flip else flips.pop()), 0.0
    turn_deg = (before_deg + then_rotate_deg + half_turn_deg) % 360.0
    return both, turn_deg - 360.0 if turn_deg > 180 else turn_deg


def file_px_from_working_px(
    shape: tuple[int, int],
    pixel_size_mm: float,
    working_pixel_mm: float,
    flip: str = "none",
    rotate_deg: float = 0.0,
) -> tuple[np.ndarray, tuple[int, int]]:
    """From a pixel of the image `prepare` writes to the pixel of the stored file.

    Downsampling by s = working/file pixel size keeps the outer edges: the centre of working
    pixel 0 is (s - 1)/2 upright pixels.

    Returns
    -------
    file_px_from_working_px : (3, 3)
    working_shape : (rows, columns), enough to hold the whole image.
    """
    upright, upright_shape = upright_from_file(shape, flip, rotate_deg)
    s = working_pixel_mm / pixel_size_mm
    upright_from_working = translation((s - 1) / 2, (s - 1) / 2) @ scaling(s)
    working_shape = tuple(max(1, int(math.ceil(n / s - 1e-6))) for n in upright_shape)
    return np.linalg.inv(upright) @ upright_from_working, working_shape


def section_mm_from_working_mm(
    file_px_from_working: np.ndarray, pixel_size_mm: float, working_pixel_mm: float
) -> np.ndarray:
    """The same map as `file_px_from_working`, in millimetres on both sides."""
    return scaling(pixel_size_mm) @ file_px_from_working @ scaling(1.0 / working_pixel_mm)


def nifti_affine_of_plane(spacing_mm: float) -> np.ndarray:
    """diag(-s, -s, 1, 1): the NIfTI affine of a plane, so that ITK reads (x, y) = plane mm."""
    return np.diag([-spacing_mm, -spacing_mm, 1.0, 1.0])


def similarity_scale(matrix: np.ndarray, tolerance: float = 1e-4) -> float:
    """Scale of a 4x4 similarity (possibly a reflection); ValueError if it is none."""
    singular = np.linalg.svd(np.asarray(matrix, float)[:3, :3], compute_uv=False)
    if singular[0] - singular[-1] > tolerance * singular[0]:
        raise ValueError(f"not a similarity: singular values {singular}")
    return float(singular.mean())


def with_right_angles(world_from_voxel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine of right angles that is nearest to one of a volume: (4, 4), without shear.

    Spacing and centre of the volume stay; its axes are those of the nearest rotation, or of the
    nearest reflection where it has one.

    Parameters
    ----------
    world_from_voxel : (4, 4), of a volume that is not flat.
    shape : of the volume.
    """
    linear = np.asarray(world_from_voxel, float)[:3, :3]
    spacing = np.linalg.norm(linear, axis=0)
    u, _, vt = np.linalg.svd(linear / spacing)
    middle = (np.array(shape[:3]) - 1) / 2
    matrix = np.eye(4)
    matrix[:3, :3] = u @ vt * spacing
    matrix[:3, 3] = apply(world_from_voxel, middle) - matrix[:3, :3] @ middle
    return matrix


def shear_voxels(world_from_voxel: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far, at most, shear moves a voxel of a volume: its corner, in the smallest voxel side."""
    straight = with_right_angles(world_from_voxel, shape)
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij"), -1)
    apart = np.linalg.norm(apply(world_from_voxel, ends) - apply(straight, ends), axis=-1)
    return float(apart.max() / np.linalg.norm(straight[:3, :3], axis=0).min())
