"""Rotations all over, and the anatomical letters of a pose."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sbr_core.algorithms.alignment.poses import nearest_orientation, rotations
from sbr_core.geometry import orientation_letters, orientation_matrix


def test_rotations_leave_none_far_away():
    every = rotations(600)
    assert np.allclose(every @ every.transpose(0, 2, 1), np.eye(3))
    assert np.allclose(np.linalg.det(every), 1)
    wanted = Rotation.random(200, random_state=0).as_matrix()
    traces = np.einsum("aij,bij->ab", wanted, every).max(axis=1)
    assert np.rad2deg(np.arccos((traces - 1) / 2)).max() < 25


@pytest.mark.parametrize("letters", ["RAS", "LIA", "PIR", "SAL"])
def test_the_nearest_orientation_is_that_of_a_turned_and_stretched_one(letters):
    turn = Rotation.from_rotvec([0.3, -0.2, 0.4]).as_matrix()  # 31 degrees
    pose = np.eye(4)
    pose[:3, :3] = 1.1 * turn @ orientation_matrix(letters) @ np.diag([1.0, 0.9, 1.1])
    pose[:3, 3] = 5.0, 6.0, 7.0
    assert np.array_equal(nearest_orientation(pose), orientation_matrix(letters))
    assert orientation_letters(nearest_orientation(pose)) == letters
