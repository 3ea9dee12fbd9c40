"""Pictures from arrays, (rows, columns, 3) uint8, without matplotlib: a brain has hundreds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MRI_COLOUR = (255, 150, 0)
"""Orange, which stands out from grey levels of any brightness."""
GRID_COLOUR = (40, 90, 200)
"""Blue, so that the grid and the edges of the MRI are not mistaken for each other."""
HEAT_COLOURS = ((255, 245, 190), (254, 190, 75), (230, 95, 40), (130, 10, 40))
"""Of small to large errors: lightness falls all the way, so that it can be told without colours."""
MARK_COLOUR = (200, 30, 30)
"""Red, for what a reader should look at first."""


def window(
    image: np.ndarray, within: np.ndarray | None = None, high_quantile: float = 0.995
) -> np.ndarray:
    """Grey levels for the eye: 0 to 0, a high quantile of what is above 0 to 1.

    Parameters
    ----------
    image : any shape, background 0.
    within : where to take the quantile, same shape, so that ink beside the tissue does not
        darken it; everywhere if there is nothing above 0.

    Returns
    -------
    float32 in [0, 1]; zeros where there is nothing above 0.
    """
    image = np.asarray(image, np.float32)
    above = image[(image > 0) & (np.asarray(within) > 0)] if within is not None else image[:0]
    above = above if above.size else image[image > 0]
    top = float(np.quantile(above, high_quantile)) if above.size else 0.0
    return np.clip(image / top, 0, 1) if top > 0 else np.zeros_like(image)


def resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(rows, columns) float32 at another size: bicubic where it grows, area-averaged where not."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def display_shape(
    shape: tuple[int, int], max_width_px: int, pixel_mm: tuple[float, float] = (1.0, 1.0)
) -> tuple[int, int]:
    """(rows, columns) to show an image at: at most `max_width_px` wide or high, at most 3 times.

    Parameters
    ----------
    pixel_mm : (height, width) of a pixel; the picture's pixels are square.
    """
    height, width = shape[0] * pixel_mm[0], shape[1] * pixel_mm[1]
    factor = min(max_width_px / max(height, width), 3 / min(pixel_mm))
    return max(1, round(height * factor)), max(1, round(width * factor))


def rgb(grey: np.ndarray) -> np.ndarray:
    """Grey levels (rows, columns) in [0, 1] as a picture."""
    levels = np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=-1)


def painted(picture: np.ndarray, where: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    """A copy of a picture with a colour laid over it.

    Parameters
    ----------
    picture : (rows, columns, 3) uint8.
    where : (rows, columns) bool, or opacity in [0, 1].
    """
    opacity = np.asarray(where, np.float32)[..., None]
    mixed = picture * (1 - opacity) + np.asarray(colour, np.float32) * opacity
    return np.round(mixed).astype(np.uint8)


def edges(image: np.ndarray, sigma_px: float = 2.0) -> np.ndarray:
    """Where an image's strong edges run, (rows, columns) bool (Canny 1986).

    Parameters
    ----------
    image : in [0, 1]. Hysteresis is between gradients of 0.04 and 0.1 of that range per px:
        below, texture of the tissue is drawn too; above, the inner border of the cortex is lost.
    """
    from skimage.feature import canny

    return canny(
        np.asarray(image, np.float32), sigma=sigma_px, low_threshold=0.04, high_threshold=0.1
    )


def overlay(
    moving: np.ndarray, fixed: np.ndarray, colour: Sequence[int] = MRI_COLOUR
) -> np.ndarray:
    """The moving image in grey with the edges of the fixed one over it.

    Parameters
    ----------
    moving, fixed : (rows, columns) in [0, 1], on one grid.
    """
    return painted(rgb(moving), edges(fixed), colour)


def grid_lines(disp: np.ndarray, spacing: float = 8.0) -> np.ndarray:
    """The regular grid of the moving image as the deformation carries it onto the fixed one.

    A line runs where x + u(x) or y + v(y) is a multiple of `spacing`, one pixel wide whatever
    the stretch.

    Parameters
    ----------
    disp : (rows, columns, 2), disp_fixed_to_moving, px of this picture.
    spacing : between lines, px of this picture.

    Returns
    -------
    (rows, columns) float32, opacity of the lines in [0, 1].
    """
    shape = disp.shape[:2]
    rows, columns = np.indices(shape, dtype=np.float32)
    lines = np.zeros(shape, np.float32)
    for coordinate in (columns + disp[..., 0], rows + disp[..., 1]):
        by_row, by_column = np.gradient(coordinate)
        steepness = np.maximum(np.hypot(by_row, by_column), 1e-3)
        off = np.abs((coordinate / spacing + 0.5) % 1 - 0.5) * spacing
        lines = np.maximum(lines, np.clip(1.25 - off / steepness, 0, 1))
    return lines


def heat(values: np.ndarray, top: float) -> np.ndarray:
    """Values above 0 as colours to lay over a picture: yellow, orange, red, the dark red of `top`.

    Returns
    -------
    (rows, columns, 4) uint8; nothing where the value is 0 or none.
    """
    values = np.asarray(values, np.float32)
    known = np.isfinite(values) & (values > 0)
    share = np.clip(np.where(known, values, 0) / top, 0, 1)
    at = np.linspace(0, 1, len(HEAT_COLOURS))
    parts = [np.interp(share, at, [colour[i] for colour in HEAT_COLOURS]) for i in range(3)]
    alpha = np.where(known, 90 + 120 * share, 0)
    return np.round(np.stack([*parts, alpha], axis=-1)).astype(np.uint8)


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet: (rows, columns, 3) uint8, its name, and marks that frame it."""

    picture: np.ndarray
    name: str
    marks: tuple[str, ...] = ()


def sheet(tiles: Sequence[Tile], side_px: int, columns: int = 12) -> np.ndarray:
    """Many small pictures on one, row after row, each with its name and its marks below.

    Parameters
    ----------
    side_px : largest side of the pictures.

    Returns
    -------
    (rows, columns, 3) uint8, white between the pictures; marked ones are framed.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(11)
    columns = min(columns, max(1, len(tiles)))
    width, height = side_px + 10, side_px + 38
    rows = -(-len(tiles) // columns)
    page = Image.new("RGB", (columns * width, max(1, rows * height)), "white")
    draw = ImageDraw.Draw(page)
    for number, tile in enumerate(tiles):
        x, y = number % columns * width + 5, number // columns * height + 4
        high, wide = tile.picture.shape[:2]
        page.paste(
            Image.fromarray(tile.picture), (x + (side_px - wide) // 2, y + (side_px - high) // 2)
        )
        if tile.marks:
            draw.rectangle(
                (x - 2, y - 2, x + side_px + 1, y + side_px + 1), outline=MARK_COLOUR, width=2
            )
        draw.text((x, y + side_px + 2), tile.name, fill="black", font=font)
        draw.text((x, y + side_px + 16), ", ".join(tile.marks), fill=MARK_COLOUR, font=font)
    return np.asarray(page)
