"""Uneven light and staining: known fields and known jumps, taken away again."""

import numpy as np
import pytest
from scipy import ndimage

from sbr_core.algorithms.evenness import (
    SmoothField,
    evening_gains,
    has_jumps,
    light_field,
    log_ratio,
    section_levels,
    staining_field,
    unit_square,
)

SHAPE = (180, 240)


def _xy(shape=SHAPE):
    rows, columns = np.indices(shape)
    return unit_square(np.stack([columns, rows], axis=-1), shape)


def _section(seed=0):
    """Cortex around white matter, with texture; and where it is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    angle = np.arctan2(rows - 90, columns - 125)
    radius = np.hypot((rows - 90) / 65, (columns - 125) / 95) * (1 + 0.08 * np.sin(7 * angle))
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.2) * 3
    signal = np.where(radius < 0.62, 0.14, 0.3) * (1 + 0.1 * texture)
    signal[np.hypot(rows - 85, columns - 95) < 16] = 0.4  # a nucleus off the middle
    return ndimage.gaussian_filter(np.where(radius < 1, signal, 0), 0.6), radius < 1


# --------------------------------------------------------------------------------------------
# Fields
# --------------------------------------------------------------------------------------------


def test_a_field_is_recovered_and_holds_at_every_resolution():
    xy = _xy().reshape(-1, 2)
    log = 0.2 * xy[:, 0] - 0.3 * xy[:, 1] ** 2 + 0.1 * xy[:, 0] * xy[:, 1]
    field = SmoothField.fit(xy, log, 2)
    np.testing.assert_allclose(np.log(field.over(SHAPE)).ravel(), log, atol=1e-5)
    np.testing.assert_allclose(field.log_at(xy), log, atol=1e-9)
    coarse = field.over((SHAPE[0] // 3, SHAPE[1] // 3))
    np.testing.assert_allclose(coarse, field.over(SHAPE)[1::3, 1::3], rtol=1e-5)
    assert SmoothField.of_cell(field.cell()) == field
    assert SmoothField.of_cell("") is None


def test_a_field_does_not_run_away_beyond_its_points():
    xy = np.random.default_rng(0).uniform(-0.2, 0.2, (200, 2))
    field = SmoothField.fit(xy, 3 * xy[:, 0] ** 3, 3)
    assert np.abs(np.log(field.over(SHAPE))).max() <= 3 * 0.2**3 + 1e-6


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.4, -0.3)])
def test_the_fall_off_of_the_light_is_taken_away(centre):
    signal, tissue = _section()
    xy = _xy()
    true = np.exp(-0.16 * ((xy[..., 0] - centre[0]) ** 2 + (xy[..., 1] - centre[1]) ** 2))
    image = (0.95 - signal) * true
    image += np.random.default_rng(1).normal(scale=0.003, size=SHAPE)
    field = light_field(image.astype(np.float32))
    ratio = field.over(SHAPE) / true
    assert true.max() / true.min() > 1.25
    assert np.quantile(ratio, 0.99) / np.quantile(ratio, 0.01) < 1.02
    even = image / field.over(SHAPE)
    assert np.std(even[~ndimage.binary_dilation(tissue, iterations=4)]) < 0.006


def test_even_light_is_left_alone_unless_asked_for():
    signal, _ = _section()
    image = (0.95 - signal + np.random.default_rng(1).normal(scale=0.003, size=SHAPE)).astype(
        np.float32
    )
    assert light_field(image) is None
    asked = light_field(image, always=True).over(SHAPE)
    assert asked.max() / asked.min() < 1.02


def test_light_is_not_guessed_where_tissue_fills_the_picture():
    rng = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 12) * 20
    assert light_field((0.5 + 0.15 * texture).astype(np.float32), always=True) is None


def test_uneven_staining_is_taken_away_and_even_staining_left():
    signal, tissue = _section()
    assert staining_field(signal, tissue, _xy()) is None
    xy = _xy()
    true = np.exp(0.5 * xy[..., 0] - 0.25 * xy[..., 1])
    field = staining_field(signal * true, tissue, xy)
    deep = ndimage.binary_erosion(tissue, iterations=3)
    before = np.log(true[deep] / np.median(true[deep]))
    left = np.log(true[deep] / field.over(SHAPE)[deep])
    left -= np.median(left)
    assert np.sqrt(np.mean(left**2)) < 0.3 * np.sqrt(np.mean(before**2))
    # a factor: of two places close to each other the darker one stays the darker
    assert (field.over(SHAPE) > 0).all()


def test_staining_of_hardly_any_tissue_is_not_judged():
    signal, tissue = _section()
    few = np.zeros_like(tissue)
    few[90:100, 60:90] = True
    assert staining_field(signal, few, _xy(), always=True) is None


# --------------------------------------------------------------------------------------------
# Along the stack
# --------------------------------------------------------------------------------------------


def _stack(n=24, seed=0):
    """Sections that change slowly, and known factors of staining, one of them 2.5."""
    rng = np.random.default_rng(seed)
    base, _ = _section(seed)
    base = base[::2, ::2]
    images = []
    for i in range(n):
        image = ndimage.zoom(base, (1 + 0.006 * i, 1), order=1)[: base.shape[0]]
        images.append(image * (1 + 0.1 * ndimage.gaussian_filter(rng.normal(size=image.shape), 1)))
    factors = np.exp(rng.normal(scale=0.12, size=n))
    factors[n // 2] = 2.5
    return images, factors, 0.4 * np.arange(n)


def _levels(images):
    links = [
        (i - back, i, *log_ratio(images[i - back], images[i]))
        for i in range(len(images))
        for back in (1, 2)
        if i >= back
    ]
    return section_levels(len(images), links)


def _jumps(values):
    return np.abs(np.diff(np.log(values)))


def test_jumps_of_staining_are_found_and_evened():
    images, factors, positions_mm = _stack()
    levels = _levels([image * factor for image, factor in zip(images, factors, strict=True)])
    np.testing.assert_allclose(
        levels - levels.mean(), np.log(factors) - np.log(factors).mean(), atol=0.03
    )
    assert has_jumps(levels)
    gains = evening_gains(levels, positions_mm)
    assert _jumps(factors).mean() > 0.15
    assert _jumps(factors * gains).mean() < 0.15 * _jumps(factors).mean()
    assert (gains > 0).all()  # a positive factor keeps the order of intensities


def test_a_torn_or_really_different_section_is_not_bent_to_its_neighbours():
    """Half is missing, a quarter is another kind of tissue: the rest tells its staining."""
    images, _, positions_mm = _stack()
    whole = _levels(images)
    torn = [image.copy() for image in images]
    torn[10][:, :60] = 0
    torn[10][60:, 60:] *= 3
    np.testing.assert_allclose(_levels(torn), whole, atol=0.05)
    assert evening_gains(_levels(torn), positions_mm)[10] == pytest.approx(1, abs=0.05)


def test_an_empty_section_has_no_say():
    images, factors, positions_mm = _stack()
    stained = [image * factor for image, factor in zip(images, factors, strict=True)]
    stained[7] = np.zeros_like(stained[7])
    levels = _levels(stained)
    others = np.arange(len(images)) != 7
    off = (levels - np.log(factors))[others]
    assert np.ptp(off) < 0.08
    assert np.isfinite(evening_gains(levels, positions_mm)).all()


def test_what_changes_slowly_or_for_good_stays():
    positions_mm = np.arange(40.0)
    slow = 0.6 * np.sin(positions_mm / 12)
    assert not has_jumps(slow)
    np.testing.assert_allclose(evening_gains(slow, positions_mm), 1, atol=0.06)
    line = 0.05 * positions_mm
    np.testing.assert_allclose(evening_gains(line, positions_mm), 1, atol=1e-9)


def test_gains_are_bounded_and_short_stacks_left_alone():
    levels = np.zeros(20)
    levels[9] = 5
    gains = evening_gains(levels, np.arange(20.0))
    assert gains[9] == pytest.approx(1 / 3)
    np.testing.assert_allclose(np.delete(gains, 9), 1, atol=1e-6)
    assert (evening_gains(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 1).all()
    assert not has_jumps(np.array([0.0, 1.0, 0.0]))


def test_sections_without_any_link_stay_as_they_are():
    assert (section_levels(3, []) == 0).all()
    assert (section_levels(3, [(0, 1, 0.5, np.inf)]) == 0).all()
