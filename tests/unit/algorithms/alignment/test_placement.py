"""A 3D affine split between similarity and section affines; points followed through both."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core.algorithms.alignment.placement import section_in_world, split_affine
from sbr_core.geometry import apply, similarity_scale


def _random_affine(rng: np.random.Generator) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] += 0.2 * rng.standard_normal((3, 3))
    matrix[:3, 3] = 20 * rng.standard_normal(3)
    return matrix


@pytest.mark.parametrize("seed", range(5))
def test_similarity_and_section_affines_together_are_the_affine(seed):
    rng = np.random.default_rng(seed)
    affine, centre = _random_affine(rng), 30 * rng.standard_normal(3)
    similarity, in_plane = split_affine(affine, centre)
    points = 50 * rng.standard_normal((20, 3))
    for straight, split in zip(apply(affine, points), apply(similarity, points), strict=True):
        assert np.isclose(split[2], straight[2])  # z belongs to the similarity alone
        assert np.allclose(apply(in_plane(split[2]), split[:2]), straight[:2])


def test_split_gives_a_similarity_that_keeps_handedness_and_the_scale_along_z():
    affine = _random_affine(np.random.default_rng(1))
    similarity, in_plane = split_affine(affine, np.zeros(3))
    assert np.isclose(similarity_scale(similarity), np.linalg.norm(affine[2, :3]))
    assert np.linalg.det(similarity[:3, :3]) > 0
    stretch = in_plane(7.0)[:2, :2]
    assert np.allclose(stretch, stretch.T)  # common rotation is the similarity's


def test_a_similarity_is_left_as_it_is():
    angle = 0.3
    turn = np.eye(4)
    turn[:3, :3] = 1.07 * np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    similarity, in_plane = split_affine(turn, np.array([5.0, 6.0, 7.0]))
    assert np.allclose(similarity, turn)
    assert np.allclose(in_plane(-30.0), np.eye(3))


def test_split_refuses_a_reflection():
    with pytest.raises(ValueError, match="determinant"):
        split_affine(np.diag([-1.0, 1.0, 1.0, 1.0]), np.zeros(3))


def test_a_point_goes_from_section_to_world_through_affine_position_and_similarity():
    working_from_plane = np.array([[1.0, 0, -3], [0, 1, 4], [0, 0, 1]])
    stack_from_world = np.diag([0.5, 0.5, 0.5, 1.0])
    found = section_in_world(np.array([[7.0, 9.0]]), 20.0, working_from_plane, stack_from_world)
    assert np.allclose(found, [[20.0, 10.0, 40.0]])
