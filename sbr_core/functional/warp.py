"""Moving images and fields: the only place in the project that calls ``grid_sample``.

Coordinates and displacements are in pixels of the tensor's own grid, channel 0 = x (columns),
channel 1 = y (rows), pixel centres at integers (``align_corners=True``). A displacement is a
pull-back: ``disp_fixed_to_moving_px`` looks fixed pixel p up in the moving image at p + disp(p).

Velocities live at half resolution. Half pixel h is full pixel 2 h + 0.5, so the outer edges of the
two grids agree.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def identity_px(
    shape: tuple[int, int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Every pixel's own coordinates.

    Parameters
    ----------
    shape : (rows, columns).

    Returns
    -------
    (1, 2, rows, columns), px; channel 0 = x, channel 1 = y.
    """
    y = torch.arange(shape[0], dtype=dtype, device=device)
    x = torch.arange(shape[1], dtype=dtype, device=device)
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((xx, yy))[None]


def sample(
    image: Tensor, coords_px: Tensor, mode: str = "bilinear", padding: str = "zeros"
) -> Tensor:
    """Look an image up at given coordinates.

    Parameters
    ----------
    image : (B, C, H, W).
    coords_px : (B or 1, 2, h, w), (x, y) in px of `image`.
    mode : ``bilinear`` or ``nearest``; asked for at every call, remembered by nothing.
    padding : ``zeros`` outside the image, or ``border``: the value at the nearest edge.

    Returns
    -------
    (B, C, h, w) in the type of `image`.

    Raises
    ------
    ValueError
        If a shape, the mode or the padding is something else.
    """
    if image.ndim != 4 or coords_px.ndim != 4 or coords_px.shape[1] != 2:
        raise ValueError(
            f"expected an image (B, C, H, W) and coordinates (B, 2, h, w), found"
            f" {tuple(image.shape)} and {tuple(coords_px.shape)}"
        )
    if mode not in ("bilinear", "nearest") or padding not in ("zeros", "border"):
        raise ValueError(f"unknown mode {mode!r} or padding {padding!r}")
    rows, columns = image.shape[-2:]
    # grid_sample's own units: -1 and 1 at the centres of the first and last pixel. The two numbers
    # are made where they are used: bringing them to a graphics card would wait for it
    per_px = torch.linspace(
        2.0 / max(columns - 1, 1),
        2.0 / max(rows - 1, 1),
        2,
        dtype=coords_px.dtype,
        device=coords_px.device,
    )
    grid = coords_px.permute(0, 2, 3, 1) * per_px - 1.0
    grid = grid.expand(image.shape[0], -1, -1, -1)
    return F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=True)


def warp(image: Tensor, disp_px: Tensor, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
    """Image at p + disp(p): the moving image on the fixed grid.

    Parameters
    ----------
    image : (B, C, H, W), the moving image.
    disp_px : (B or 1, 2, H, W), disp_fixed_to_moving in px.
    mode, padding : as in `sample`.
    """
    here = identity_px(disp_px.shape[-2:], dtype=disp_px.dtype, device=disp_px.device)
    return sample(image, here + disp_px, mode, padding)


def compose(disp_a_px: Tensor, disp_b_px: Tensor) -> Tensor:
    """The displacement of p -> a(b(p)): b first, then a.

    p + b(p) + a(p + b(p)), so that ``warp(image, compose(a, b))`` is ``warp(warp(image, a), b)``.
    Outside the grid a field keeps the value at its edge.

    Parameters
    ----------
    disp_a_px, disp_b_px : (B, 2, H, W), px.
    """
    return disp_b_px + warp(disp_a_px, disp_b_px, padding="border")


def exponentiate(velocity_px: Tensor, steps: int) -> Tensor:
    """Flow of a stationary velocity over unit time, by scaling and squaring.

    exp(v) = exp(v / 2^n) composed n times with itself (Arsigny et al. 2006, section 3;
    Dalca et al. 2019). exp(-v) is its inverse.

    Parameters
    ----------
    velocity_px : (B, 2, H, W), px per unit time of its own grid.
    steps : number of squarings n.

    Returns
    -------
    (B, 2, H, W), displacement in px.
    """
    if steps < 0:
        raise ValueError(f"expected steps >= 0, found {steps}")
    here = identity_px(velocity_px.shape[-2:], dtype=velocity_px.dtype, device=velocity_px.device)
    disp_px = velocity_px / 2**steps
    for _ in range(steps):
        disp_px = disp_px + sample(disp_px, here + disp_px, padding="border")
    return disp_px


def upsample_velocity(half_px: Tensor, shape: tuple[int, int]) -> Tensor:
    """A field (velocity or displacement) of the half grid on the full grid.

    Interpolated bilinearly at (p - 0.5)/2, edge values kept, and doubled, since a half pixel is
    two pixels long.

    Parameters
    ----------
    half_px : (B, 2, H/2, W/2), px of the half grid.
    shape : (H, W), both even.

    Returns
    -------
    (B, 2, H, W), px of the full grid.
    """
    if tuple(shape) != tuple(2 * n for n in half_px.shape[-2:]):
        raise ValueError(f"{tuple(half_px.shape[-2:])} is not half of {tuple(shape)}")
    # align_corners=False is exactly the (p - 0.5)/2 of two grids that share their outer edges
    return 2.0 * F.interpolate(half_px, scale_factor=2, mode="bilinear", align_corners=False)


def jacobian_determinant(disp_px: Tensor) -> Tensor:
    """det of the derivative of p + disp(p), by forward differences.

    Parameters
    ----------
    disp_px : (B, 2, H, W), px.

    Returns
    -------
    (B, H - 1, W - 1); <= 0 where the map folds.
    """
    ddx = (disp_px[:, :, :, 1:] - disp_px[:, :, :, :-1])[:, :, :-1, :]
    ddy = (disp_px[:, :, 1:, :] - disp_px[:, :, :-1, :])[:, :, :, :-1]
    return (1 + ddx[:, 0]) * (1 + ddy[:, 1]) - ddy[:, 0] * ddx[:, 1]
