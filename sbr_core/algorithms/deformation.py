"""From a stationary velocity field to a deformation and its exact inverse on a plane's canvas.

The canvas is the plane's grid with a margin on every side. Velocities are carried on into the
margin and fall smoothly to zero at its edge, so that tissue at the plane's border can still move
although ITK takes a field to be zero outside its grid.

Numpy fields are (rows, columns, 2), components (x, y), in px of the plane's grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from sbr_core.functional.warp import compose, exponentiate, jacobian_determinant
from sbr_core.geometry import PlaneGrid

MIN_MARGIN_PX = 8
"""Least width of the rim on which a velocity fades out; that of 2 px per unit time at a border."""
_MARGIN_PER_PX = 4.0
"""Margin per px of velocity at the border. A velocity v that fades over a margin m has a slope of
at most (pi/2) v/m: 0.4 at this ratio."""
_FINEST_STEP_PX = 0.05
"""Longest first step of scaling and squaring, which is taken straight: x + v(x). Its error is half
of it times the slope of v there."""


@dataclass(frozen=True)
class Canvas:
    """A plane's grid with `margin_px` more pixels on every side.

    Canvas pixel (row, column) is plane pixel (row - margin_px, column - margin_px).
    """

    grid: PlaneGrid
    margin_px: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) with the margins."""
        return tuple(n + 2 * self.margin_px for n in self.grid.shape)

    @property
    def origin_mm(self) -> tuple[float, float]:
        """Plane mm (x, y) of canvas pixel (0, 0)."""
        return (-self.margin_px * self.grid.spacing_mm,) * 2

    def crop(self, array: np.ndarray) -> np.ndarray:
        """The part of (rows, columns, ...) of the canvas that is the plane's grid."""
        m, (rows, columns) = self.margin_px, self.grid.shape
        return array[m : m + rows, m : m + columns]

    def pad(self, array: np.ndarray, mode: str = "constant") -> np.ndarray:
        """(rows, columns, ...) of the plane's grid on the canvas: zeros, or ``edge`` values."""
        widths = [(self.margin_px,) * 2] * 2 + [(0, 0)] * (array.ndim - 2)
        return np.pad(array, widths, mode=mode)

    def window(self) -> np.ndarray:
        """(rows, columns), 1 on the plane's grid, falling as cos² to 0 at the canvas's edge."""
        sides = []
        for n in self.grid.shape:
            outside = np.pad(np.zeros(n), self.margin_px, "linear_ramp", end_values=self.margin_px)
            sides.append(np.cos(0.5 * np.pi * outside / max(self.margin_px, 1)) ** 2)
        return np.outer(*sides)


@dataclass(frozen=True)
class Deformation:
    """A deformation of a canvas and its inverse, both ways as displacements.

    Attributes
    ----------
    canvas : their grid.
    velocity_px : (rows, columns, 2), what they are the flow of, faded out at the edge; None
        where they were made without one.
    disp_px : (rows, columns, 2), disp_fixed_to_moving: p of the plane comes from p + disp(p).
    inverse_disp_px : (rows, columns, 2), disp_moving_to_fixed.
    """

    canvas: Canvas
    velocity_px: np.ndarray | None
    disp_px: np.ndarray
    inverse_disp_px: np.ndarray


def resample_velocity(velocity_px: np.ndarray, source: PlaneGrid, target: PlaneGrid) -> np.ndarray:
    """A velocity on another grid of the same plane, in that grid's px; edge values kept outside.

    Both grids have their pixel (0, 0) at plane mm (0, 0), as `PlaneGrid.at_spacing` makes them.

    Parameters
    ----------
    velocity_px : (rows, columns, 2) on `source`, in its px.

    Returns
    -------
    (rows, columns, 2) on `target`, float64, in its px.
    """
    if velocity_px.shape != (*source.shape, 2):
        raise ValueError(f"velocity {velocity_px.shape} is not on a grid {source.shape}")
    if source == target:
        return velocity_px.astype(np.float64)
    ratio = target.spacing_mm / source.spacing_mm
    at = np.indices(target.shape) * ratio
    moved = [
        map_coordinates(velocity_px[..., c].astype(float), at, order=1, mode="nearest")
        for c in (0, 1)
    ]
    return np.stack(moved, axis=-1) / ratio


def on_canvas(velocity_px: np.ndarray, grid: PlaneGrid) -> tuple[np.ndarray, Canvas]:
    """A plane's velocity carried on into a margin wide enough for what moves at its border.

    Parameters
    ----------
    velocity_px : (rows, columns, 2) on `grid`.

    Returns
    -------
    (rows, columns, 2) on the canvas, float64, zero at its edge; and the canvas.
    """
    speed = np.linalg.norm(velocity_px, axis=-1)
    border = max(speed[0].max(), speed[-1].max(), speed[:, 0].max(), speed[:, -1].max())
    canvas = Canvas(grid, max(MIN_MARGIN_PX, math.ceil(_MARGIN_PER_PX * border)))
    return canvas.pad(velocity_px.astype(float), "edge") * canvas.window()[..., None], canvas


def integrate(velocity_px: np.ndarray, grid: PlaneGrid, min_steps: int = 7) -> Deformation:
    """exp(v) and its inverse, from one velocity, at full resolution in float64.

    The inverse starts as exp(-v). Scaling and squaring interpolates, so the two are inverse to
    each other only roughly; `invert` then makes one the inverse of the other as it is stored, and
    `centred_between_pixels` spreads what is left evenly.

    Parameters
    ----------
    velocity_px : (rows, columns, 2) on `grid`, px per unit time.
    min_steps : squarings at least; more where the first step would be longer than 0.05 px.
    """
    velocity_px, canvas = on_canvas(velocity_px, grid)
    fastest = float(np.abs(velocity_px).max())
    steps = max(min_steps, math.ceil(math.log2(max(fastest, 1e-6) / _FINEST_STEP_PX)))
    velocity = _tensor(velocity_px)
    disp_px = _array(exponentiate(velocity, steps))
    inverse_px = _array(exponentiate(-velocity, steps))
    inverse_px = centred_between_pixels(invert(disp_px, inverse_px))
    return Deformation(canvas, velocity_px, disp_px, inverse_px)


def followed_by(first_px: np.ndarray, second_px: np.ndarray) -> np.ndarray:
    """The displacement of one deformation and then another of the same canvas.

    Parameters
    ----------
    first_px, second_px : (rows, columns, 2).
    """
    return _array(compose(_tensor(second_px), _tensor(first_px)))


def invert(
    disp_px: np.ndarray, guess_px: np.ndarray, tolerance_px: float = 1e-4, max_rounds: int = 20
) -> np.ndarray:
    """Refine an inverse displacement until it undoes `disp_px` as interpolated linearly.

    With r(x) = w(x) + u(x + w(x)), the distance from x to where going back and there again
    ends, the fixed point of w <- w - r has no residual (Chen et al. 2008, Med. Phys. 35).
    That converges only where u stretches by less than two, so the step is turned by the
    inverse's own derivative, (I + dw/dx) r, which is Newton's method, and is taken only where
    it helps.

    Parameters
    ----------
    disp_px : u, (rows, columns, 2), float64.
    guess_px : w to start from, same shape.
    tolerance_px : stop when the largest residual is below it.

    Returns
    -------
    (rows, columns, 2), float64.
    """
    forward, inverse = _tensor(disp_px), _tensor(guess_px)
    residual = compose(forward, inverse)
    for _ in range(max_rounds):
        length = _length(residual)
        if float(length.max()) < tolerance_px:
            break
        by_y, by_x = torch.gradient(inverse, dim=(2, 3))
        step = residual + by_x * residual[:, :1] + by_y * residual[:, 1:]
        candidate = inverse - step
        new_residual = compose(forward, candidate)
        better = _length(new_residual) < length
        if not better.any():
            break
        inverse = torch.where(better, candidate, inverse)
        residual = torch.where(better, new_residual, residual)
    return _array(inverse)


def centred_between_pixels(disp_px: np.ndarray) -> np.ndarray:
    """A field whose linear interpolation is right in the mean, not at the pixels only.

    Between two pixels linear interpolation of a curved w misses by f (1 - f) w''/2 at fraction
    f: never on one side at the pixels, always on the other between them, w''/12 in the mean.
    Taking that off makes the error at fixed pixels, which look the inverse up between its
    pixels, about half as large.

    Parameters
    ----------
    disp_px : (rows, columns, 2).
    """
    around = np.pad(disp_px, ((1, 1), (1, 1), (0, 0)), mode="edge")
    second = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
    return disp_px - (second - 4 * disp_px) / 12


def there_and_back_px(
    deformation: Deformation, fixed_mask: np.ndarray, moving_mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far pixels of tissue end from where they began, going there and back, both ways.

    Parameters
    ----------
    fixed_mask, moving_mask : (rows, columns) of the plane's grid: where the MRI's and the
        section's tissue is.

    Returns
    -------
    distances in px: (n,) of the fixed pixels through phi, then its inverse; (m,) of the moving
    pixels through the inverse, then phi.
    """
    forward, backward = _tensor(deformation.disp_px), _tensor(deformation.inverse_disp_px)
    distances = []
    for outer, inner, mask in ((backward, forward, fixed_mask), (forward, backward, moving_mask)):
        error = np.linalg.norm(_array(compose(outer, inner)), axis=-1)
        distances.append(deformation.canvas.crop(error)[np.asarray(mask) > 0])
    return tuple(distances)


def forward_folding_percent(deformation: Deformation, mask: np.ndarray) -> float:
    """Share of the tissue's pixels that fold by forward differences, in percent.

    Each pixel is compared with its right and its lower neighbour. `metrics.folding`, which methods
    are compared by, takes the least over both neighbours of either axis, and is stricter.

    Parameters
    ----------
    mask : (rows, columns) of the plane's grid. An empty one gives 0.
    """
    determinant = jacobian_determinant(_tensor(deformation.disp_px))[0].numpy()
    folded = deformation.canvas.crop(np.pad(determinant, ((0, 1), (0, 1)), "edge")) <= 0
    inside = np.asarray(mask) > 0
    return 100.0 * float(folded[inside].mean()) if inside.any() else 0.0


def _length(field: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W), of vectors (B, 2, H, W); `norm` across channels takes many times as long."""
    return torch.hypot(field[:, :1], field[:, 1:])


def _tensor(field: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(np.asarray(field, float), -1, 0).copy())[None]


def _array(field: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(field[0].numpy(), 0, -1))
