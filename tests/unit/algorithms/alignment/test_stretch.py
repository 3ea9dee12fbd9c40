"""Stretch of an affine, and stretches that change smoothly along a stack."""

from __future__ import annotations

import numpy as np

from sbr_core.algorithms.alignment.stretch import smooth_stretch, stretch_of, with_stretch


def test_stretch_and_rotation_make_the_matrix_again():
    matrix = np.array([[0.9, 0.3], [-0.2, 1.1]])
    rotation, log = stretch_of(matrix)
    assert np.allclose(rotation @ rotation.T, np.eye(2))
    assert np.allclose(log, log.T)
    assert np.allclose(with_stretch(rotation, log), matrix)


def test_stretch_is_smoothed_along_the_stack_and_one_torn_section_does_not_count():
    rng = np.random.default_rng(0)
    z = np.cumsum(rng.uniform(0.5, 1.5, 40))
    true = np.zeros((40, 2, 2))
    true[:, 0, 0] = -0.1 + 0.002 * z
    true[:, 0, 1] = true[:, 1, 0] = 0.05
    noise = 0.005 * rng.standard_normal((40, 2, 2))
    seen = true + noise + noise.transpose(0, 2, 1)
    seen[17] += [[0.3, 0.1], [0.1, -0.3]]
    smooth = smooth_stretch(z, seen, z)
    assert np.abs(smooth - true).max() < 0.01
    # also where there is no section, and not wildly beyond the ends
    assert np.abs(smooth_stretch(z, seen, [z[-1] + 5]) - true[-1]).max() < 0.02


def test_one_stretch_stays_as_it_is():
    log = np.array([[[0.1, 0.02], [0.02, -0.1]]])
    assert np.allclose(smooth_stretch(np.array([3.0]), log, [3.0, 9.0]), log)
