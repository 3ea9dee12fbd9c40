"""Displacement by scale: the measure, and that what is drawn has that of real sections."""

import numpy as np
import pytest

from sbr_core.algorithms.simulation import pairs
from sbr_core.algorithms.simulation.damage import extent_of
from sbr_core.algorithms.simulation.roughness import (
    EDGES_MM,
    REAL_EXTENT_MM,
    REAL_MEAN_MM,
    REAL_MM,
    expected_by_scale_mm,
    power_by_scale,
)


def _ellipses(size: float) -> list[tuple[np.ndarray, float]]:
    """Tissue of some sections of a brain, and the pixel, mm."""
    y, x = np.indices((140, 120))
    shapes = [(46, 62), (50, 66), (40, 52), (48, 64), (44, 60), (50, 60)]
    return [(((y - 70) / b) ** 2 + ((x - 60) / a) ** 2 < 1, 0.65 * size) for a, b in shapes]


def _displaced(size: float, mean_mm: float, seed: int) -> tuple[np.ndarray, float]:
    """Displacement in each band, mm, of deformations drawn for a brain, and its mean."""
    sections = _ellipses(size)
    tissue_mm = {
        f"s{n}": np.column_stack(np.nonzero(mask)[::-1])[::7] * pixel
        for n, (mask, pixel) in enumerate(sections)
    }
    extents = {name: extent_of(points) for name, points in tissue_mm.items()}
    extent = pairs.brain_extent(extents)
    wanted = pairs.displacements_mm(extents, mean_mm, seed)
    powers, means = [], []
    for order, (mask, pixel) in enumerate(sections):
        drawn = pairs.draw_deformation(
            tissue_mm[f"s{order}"], extent, wanted[f"s{order}"], 0.15,
            np.random.default_rng([seed, 3, order]),
        )  # fmt: skip
        at = np.stack(np.indices(mask.shape)[::-1], axis=-1) * pixel
        moved = drawn.plane_from_section(at) - at
        assert drawn.determinant(at).min() > 0
        powers.append(power_by_scale(moved, mask, pixel, extent))
        means.append(np.linalg.norm(moved[mask], axis=-1).mean())
    return np.sqrt(np.mean(powers, axis=0)), float(np.mean(means))


@pytest.mark.parametrize("size", [1.0, 0.1])
def test_every_band_is_within_a_fifth_of_reality_in_brains_of_any_size(size):
    mean_mm = REAL_MEAN_MM * size
    by_scale, mean = _displaced(size, mean_mm, seed=1)
    assert mean == pytest.approx(mean_mm, rel=0.02)
    np.testing.assert_allclose(by_scale, expected_by_scale_mm(mean_mm), rtol=0.2)


def test_each_scale_follows_the_deformation_asked_for():
    by_scale, _ = _displaced(1.0, 0.6 * REAL_MEAN_MM, seed=2)
    np.testing.assert_allclose(by_scale, 0.6 * np.array(REAL_MM), rtol=0.2)


def test_a_shift_lies_in_the_last_band_and_a_ripple_in_its_own():
    tissue = np.ones((160, 160), bool)
    shift = np.full((160, 160, 2), (0.3, -0.4))
    np.testing.assert_allclose(
        np.sqrt(power_by_scale(shift, tissue, 0.5, REAL_EXTENT_MM)), [0, 0, 0, 0, 0, 0.5], atol=1e-9
    )
    for band in (1, 2, 3):
        wavelength = 2 * np.pi * np.sqrt(EDGES_MM[band - 1] * EDGES_MM[band])
        ripple = np.zeros((160, 160, 2))
        ripple[..., 0] = np.sin(2 * np.pi * np.arange(160) * 0.5 / wavelength)
        assert np.argmax(power_by_scale(ripple, tissue, 0.5, REAL_EXTENT_MM)) == band


def test_what_lies_outside_tissue_does_not_count():
    tissue = np.zeros((90, 90), bool)
    tissue[20:70, 25:60] = True
    field = np.random.default_rng(0).normal(size=(90, 90, 2))
    other = np.where(tissue[..., None], field, 50.0)
    np.testing.assert_allclose(
        power_by_scale(field, tissue, 0.5, 40.0), power_by_scale(other, tissue, 0.5, 40.0)
    )
