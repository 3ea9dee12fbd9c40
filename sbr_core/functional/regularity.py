"""How smooth a field is."""

from __future__ import annotations

from torch import Tensor


def gradient_smoothness(field_px: Tensor) -> Tensor:
    """Mean squared gradient of a field (the ||grad v||^2 of method, equation 2).

    The mean over pixels and both components of the squared forward difference, averaged over the
    two directions. Pixel over pixel, so it has no unit.

    Parameters
    ----------
    field_px : (B, 2, H, W), px of its own grid.

    Returns
    -------
    scalar >= 0; 0 for a constant field.
    """
    if field_px.ndim != 4 or field_px.shape[1] != 2:
        raise ValueError(f"expected a field (B, 2, H, W), found {tuple(field_px.shape)}")
    ddx = field_px[..., :, 1:] - field_px[..., :, :-1]
    ddy = field_px[..., 1:, :] - field_px[..., :-1, :]
    return 0.5 * ((ddx * ddx).mean() + (ddy * ddy).mean())
