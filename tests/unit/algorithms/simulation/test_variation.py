"""Anatomy that differs from a section's plane: boundaries shifted as asked for, and no truth."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sbr_core.algorithms.simulation import variation

SHAPE, SPACING_MM, EXTENT_MM = (150, 180), 0.25, 40.0


def _look() -> tuple[np.ndarray, np.ndarray]:
    """A disc of tissue, dark inside, with a sulcus two pixels wide."""
    y, x = np.indices(SHAPE)
    away = np.hypot(y - 75, x - 90)
    tissue = (away < 60) & ~((np.abs(x - 90) < 1.5) & (y < 60))
    cover = gaussian_filter(tissue.astype(np.float32), 0.6)
    return np.where(away < 30, 0.5, 1.0).astype(np.float32), cover


def _shifts(value: float) -> tuple[np.ndarray, np.ndarray]:
    return np.full(SHAPE, value), np.zeros(SHAPE)


def test_without_it_a_look_is_as_it_was():
    signal, cover = _look()
    same = variation.varied(signal, cover, SPACING_MM, _shifts(0.0), 0.0, EXTENT_MM)
    np.testing.assert_array_equal(same.signal, signal)
    np.testing.assert_array_equal(same.cover, cover)
    assert not same.from_px.any()
    labels = (cover > 0.5).astype(np.uint16)
    np.testing.assert_array_equal(variation.shifted(labels, same.from_px, order=0), labels)


@pytest.mark.parametrize("shift_mm", [-0.3, 0.3])
def test_the_outline_moves_by_the_shift_and_labels_with_it(shift_mm):
    signal, cover = _look()
    made = variation.varied(signal, cover, SPACING_MM, _shifts(shift_mm), 0.3, EXTENT_MM)
    below = slice(100, None)  # away from the sulcus
    wider_px = made.cover[below].sum(axis=1) - cover[below].sum(axis=1)
    y = np.arange(100, 134)
    slanted = 60 / np.sqrt(60**2 - (y - 75) ** 2)  # a row meets the outline at a slant, twice
    moved = np.mean(wider_px[: len(y)] / slanted) / 2 * SPACING_MM
    assert moved == pytest.approx(shift_mm, rel=0.3)
    carried = variation.shifted((cover > 0.5).astype(np.uint16), made.from_px, order=0)
    assert ((carried > 0) == (made.cover > 0.5))[below].mean() > 0.99


def test_narrow_sulci_close_where_the_cortex_is_thick():
    signal, cover = _look()
    assert cover[40, 90] < 0.5
    thick = variation.varied(signal, cover, SPACING_MM, _shifts(0.3), 0.15, EXTENT_MM)
    thin = variation.varied(signal, cover, SPACING_MM, _shifts(-0.05), 0.15, EXTENT_MM)
    assert thick.cover[40, 90] > 0.5 > thin.cover[40, 90]


def test_shifts_have_the_size_asked_for_and_half_is_shared_along_the_stack():
    points = np.random.default_rng(0).uniform(0, 79, (4000, 3))
    pial, white = (
        np.array(fields)
        for fields in zip(
            *(
                variation.boundary_shifts(points, 0.3, 79.0, seed, section)
                for seed in range(12)
                for section in (1, 2)
            ),
            strict=True,
        )
    )
    for fields in (pial, white):
        assert np.sqrt(np.mean(fields**2)) == pytest.approx(0.3, rel=0.15)
        shared = np.mean([np.corrcoef(a, b)[0, 1] for a, b in fields.reshape(12, 2, -1)])
        assert 0.3 < shared < 0.7
    assert abs(np.corrcoef(pial.ravel(), white.ravel())[0, 1]) < 0.15
