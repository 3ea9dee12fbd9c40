"""Splitting a 3D fit between similarity and section affines; centring; scoring."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from sbr_core.algorithms.alignment import (
    _ants_fit,
    _Grid3,
    _Image3,
    centred_affine,
    nearest_orientation,
    normalised_mutual_information,
    section_in_world,
    smooth_stretch,
    split_affine,
)
from sbr_core.geometry import (
    apply,
    orientation_letters,
    orientation_matrix,
    similarity_scale,
)


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


def test_centring_takes_the_tissue_and_not_the_corner():
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True  # centroid at column 39.5, row 14.5
    working_from_plane = centred_affine(mask, 0.5, np.array([100.0, 80.0]))
    assert np.allclose(apply(working_from_plane, [100.0, 80.0]), [39.5 * 0.5, 14.5 * 0.5])
    assert np.array_equal(working_from_plane[:2, :2], np.eye(2))


@pytest.mark.parametrize("letters", ["RAS", "LIA", "PIR", "SAL"])
def test_the_nearest_orientation_is_that_of_a_turned_and_stretched_one(letters):
    turn = Rotation.from_rotvec([0.3, -0.2, 0.4]).as_matrix()  # 31 degrees
    pose = np.eye(4)
    pose[:3, :3] = 1.1 * turn @ orientation_matrix(letters) @ np.diag([1.0, 0.9, 1.1])
    pose[:3, 3] = 5.0, 6.0, 7.0
    assert np.array_equal(nearest_orientation(pose), orientation_matrix(letters))
    assert orientation_letters(nearest_orientation(pose)) == letters


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


def test_mutual_information_of_independent_equal_and_inverted_images():
    rng = np.random.default_rng(0)
    a, b = rng.random(200_000), rng.random(200_000)
    assert normalised_mutual_information(a, b) == pytest.approx(1, abs=2e-3)
    assert normalised_mutual_information(a, a) == pytest.approx(2)
    assert normalised_mutual_information(a, 3 - 2 * a) == pytest.approx(2, abs=0.02)


def test_a_point_goes_from_section_to_world_through_affine_position_and_similarity():
    working_from_plane = np.array([[1.0, 0, -3], [0, 1, 4], [0, 0, 1]])
    stack_from_world = np.diag([0.5, 0.5, 0.5, 1.0])
    found = section_in_world(np.array([[7.0, 9.0]]), 20.0, working_from_plane, stack_from_world)
    assert np.allclose(found, [[20.0, 10.0, 40.0]])


def test_the_volume_fit_is_the_same_twice():
    noise = gaussian_filter(np.random.default_rng(0).random((30, 30, 20)), 2)
    tissue = np.zeros(noise.shape, bool)
    tissue[5:25, 5:25, 4:16] = True
    images = [
        _Image3(_Grid3(noise.shape, 2.0, np.full(3, origin)), data * tissue, tissue, tissue)
        for origin, data in ((0.0, noise), (1.0, 1 - noise))
    ]
    fits = [_ants_fit(*images, np.eye(4), "Affine", (2, 1), 0) for _ in range(2)]
    assert np.array_equal(*fits)
