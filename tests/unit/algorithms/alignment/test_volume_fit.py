"""Mutual information, and the affine of two volumes by ANTs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sbr_core.algorithms.alignment.volume_fit import fit_affine, normalised_mutual_information
from sbr_core.algorithms.alignment.volumes import Grid, GridVolume


def test_mutual_information_of_independent_equal_and_inverted_images():
    rng = np.random.default_rng(0)
    a, b = rng.random(200_000), rng.random(200_000)
    assert normalised_mutual_information(a, b) == pytest.approx(1, abs=2e-3)
    assert normalised_mutual_information(a, a) == pytest.approx(2)
    assert normalised_mutual_information(a, 3 - 2 * a) == pytest.approx(2, abs=0.02)


def test_the_volume_fit_is_the_same_twice():
    noise = gaussian_filter(np.random.default_rng(0).random((30, 30, 20)), 2)
    tissue = np.zeros(noise.shape, bool)
    tissue[5:25, 5:25, 4:16] = True
    images = [
        GridVolume(Grid(noise.shape, 2.0, np.full(3, origin)), data * tissue, tissue, tissue)
        for origin, data in ((0.0, noise), (1.0, 1 - noise))
    ]
    fits = [fit_affine(*images, np.eye(4), (2, 1), 0) for _ in range(2)]
    assert np.array_equal(*fits)
