"""Background of a section: polarity, level and noise, and padding around a slide."""

import numpy as np
import pytest
from scipy import ndimage

from sbr_core.algorithms.background import (
    find_background,
    frame_mask,
    padding_value,
    rectangularity,
)

SHAPE = (160, 220)


def _disc(row, column, radius):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def _section(glass, tissue, noise=0.004):
    """Two levels of tissue on a background."""
    rng = np.random.default_rng(0)
    image = np.full(SHAPE, glass)
    image[_disc(80, 70, 45) | _disc(85, 170, 20)] = tissue
    image[_disc(80, 70, 25)] = (glass + tissue) / 2
    image = ndimage.gaussian_filter(image, 0.7) + rng.normal(scale=noise, size=SHAPE)
    return image.astype(np.float32)


@pytest.mark.parametrize(
    ("glass", "tissue", "polarity"),
    [(0.98, 0.75, "bright_background"), (0.02, 0.5, "dark_background")],
)
def test_the_border_tells_glass_from_black(glass, tissue, polarity):
    background = find_background(_section(glass, tissue))
    assert background.polarity == polarity
    assert background.level == pytest.approx(glass, abs=0.005)
    assert background.padding is None


def test_sparse_bright_cells_on_black_are_fluorescence():
    """Hardly anything shines, and the tissue is hardly brighter than the slide."""
    rng = np.random.default_rng(1)
    image = np.where(_disc(80, 110, 60), 0.06, 0.02) + rng.normal(scale=0.004, size=SHAPE)
    image[_disc(80, 110, 60) & (rng.random(SHAPE) > 0.985)] = 0.9
    background = find_background(image.astype(np.float32))
    assert (background.polarity, background.padding) == ("dark_background", None)
    assert background.level == pytest.approx(0.02, abs=0.005)


def test_a_cut_out_background_is_black():
    image = _section(0.0, 0.6, noise=0.0)
    background = find_background(np.where(image > 0.1, image, 0).astype(np.float32))
    assert (background.polarity, background.level) == ("dark_background", 0.0)
    assert background.padding is None


def test_the_level_is_the_glass_not_the_ink_or_tissue_at_the_border():
    image = _section(0.98, 0.75)
    image[:, :60] = 0.5  # tissue cut by the left border
    image[:12, 150:] = 0.05
    background = find_background(image)
    assert background.polarity == "bright_background"
    assert background.level == pytest.approx(0.98, abs=0.005)
    assert 0.003 < background.noise < 0.008


def test_polarity_can_be_forced():
    assert find_background(_section(0.98, 0.7), "dark_background").polarity == "dark_background"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_padding_is_the_value_around_a_slide(value):
    slide = _section(0.9, 0.5) if value == 0 else _section(0.1, 0.5)
    assert padding_value(slide) is None
    padded = np.pad(slide, ((0, 0), (30, 45)), constant_values=value)
    assert padding_value(padded) == value
    background = find_background(padded)
    assert background.polarity == ("bright_background" if value == 0 else "dark_background")
    assert background.level == pytest.approx(0.9 if value == 0 else 0.1, abs=0.01)


def test_a_block_of_tissue_that_is_a_rectangle_is_no_slide():
    image = np.zeros(SHAPE, np.float32)
    image[30:130, 40:180] = 0.5
    image[50:110, 60:160] = 0.8  # cortex is darker than what it encloses
    assert padding_value(image) is None


@pytest.mark.parametrize("angle_deg", [0, 11, 45, 80])
def test_rectangularity_of_rectangles_and_discs(angle_deg):
    rectangle = np.zeros((240, 240))
    rectangle[80:150, 60:190] = 1
    turned = ndimage.rotate(rectangle, angle_deg, reshape=False, order=1) > 0.5
    assert rectangularity(turned) > 0.95
    assert rectangularity(_disc(80, 110, 60)) == pytest.approx(np.pi / 4, abs=0.03)
    ring = turned & ~ndimage.binary_erosion(turned, iterations=5)
    assert rectangularity(ring) > 0.95


@pytest.mark.parametrize("offset", [10_000.0, -10_000.0, 32_768.0, -32_768.0])
@pytest.mark.parametrize("polarity", ["bright_background", "dark_background"])
def test_level_and_noise_are_the_same_above_any_offset(offset, polarity):
    glass, tissue = (0.9, 0.3) if polarity == "bright_background" else (0.05, 0.6)
    image = 200 * _section(glass, tissue)
    plain, shifted = find_background(image), find_background(image + offset)
    assert plain.polarity == shifted.polarity == polarity
    assert shifted.level - offset == pytest.approx(plain.level, abs=0.1)
    assert shifted.noise == pytest.approx(plain.noise, rel=0.2)


def test_signed_numbers_stored_as_unsigned_ones_are_seen_by_their_contrast():
    image = _section(0.05, 0.6) * 1000 / 65535
    assert find_background(image + 0.5).noise == pytest.approx(
        find_background(image).noise, rel=0.2
    )
    # glass alone has as little contrast, and no tissue
    assert find_background(0.98 - image).noise > 4 * find_background(image).noise


def _with_dark_edges(image, sides, level=0.2, seed=3):
    """A picture with ragged, slanting dark edges on some sides, and where they are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(image.shape)
    from_side = {
        "top": (rows, columns), "bottom": (image.shape[0] - 1 - rows, columns),
        "left": (columns, rows), "right": (image.shape[1] - 1 - columns, rows),
    }  # fmt: skip
    frame = np.zeros(image.shape, bool)
    for side in sides.split():
        depth, along = from_side[side]
        frame |= depth < 13 + 0.02 * along + np.sin(along / 9) + rng.normal()
    uneven = level + 0.05 * np.sin(columns / 15)
    framed = np.where(frame, uneven, image)
    return ndimage.gaussian_filter(framed, 0.8).astype(np.float32), frame


@pytest.mark.parametrize("sides", ["left", "top right", "top left bottom", "top left bottom right"])
def test_dark_edges_of_a_slide_are_no_dark_background(sides):
    image, frame = _with_dark_edges(np.pad(_section(0.98, 0.7), 20, constant_values=0.98), sides)
    background = find_background(image)
    assert background.polarity == "bright_background"
    assert background.level == pytest.approx(0.98, abs=0.01)
    found = frame_mask(background.level - image, background.noise)
    assert not (frame & ~found).any()
    assert not (found & ~ndimage.binary_dilation(frame, iterations=6)).any()


def test_tissue_that_touches_a_dark_edge_is_not_part_of_it():
    image, frame = _with_dark_edges(_section(0.98, 0.7), "left bottom")
    image[60:100, 5:40] = np.where(frame[60:100, 5:40], image[60:100, 5:40], 0.6)
    found = frame_mask(0.98 - image, 0.004)
    assert not found[65:95, 24:].any()


def test_tissue_cut_by_the_picture_is_no_dark_edge():
    image = _section(0.98, 0.75)
    image[:, :60] = 0.5
    image[120:] = 0.5
    assert not frame_mask(0.98 - image, 0.004).any()
    assert not frame_mask(0.98 - _section(0.98, 0.75), 0.004).any()


def test_a_cut_out_section_beside_black_stays_on_black():
    image = np.zeros(SHAPE, np.float32)
    image[_disc(80, 25, 90)] = 0.9  # half a brain, cut at its middle
    image[_disc(80, 70, 20)] = 0.6
    image[:, :25] = 0
    assert frame_mask(0.9 - image).any()
    assert find_background(image).polarity == "dark_background"
