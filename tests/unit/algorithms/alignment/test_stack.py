"""Sections as they are centred on one another before they are aligned."""

from __future__ import annotations

import numpy as np

from sbr_core.algorithms.alignment.stack import centred_affine
from sbr_core.geometry import apply


def test_centring_takes_the_tissue_and_not_the_corner():
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True  # centroid at column 39.5, row 14.5
    working_from_plane = centred_affine(mask, 0.5, np.array([100.0, 80.0]))
    assert np.allclose(apply(working_from_plane, [100.0, 80.0]), [39.5 * 0.5, 14.5 * 0.5])
    assert np.array_equal(working_from_plane[:2, :2], np.eye(2))
