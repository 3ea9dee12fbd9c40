"""The search for a stack in an MRI: phantoms whose place is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sbr_core.algorithms.alignment.correlation_ratio import Level
from sbr_core.algorithms.alignment.pose_search import search
from sbr_core.algorithms.alignment.poses import (
    Pose,
    Scene,
    angle_deg,
    linear_about,
    mri_scene,
    tissue_points_mm,
)
from sbr_core.algorithms.alignment.stack import Mri
from sbr_core.algorithms.alignment.start import judge
from sbr_core.geometry import apply

_SPACING_MM = 3.0
_LETTERS = np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
# (centre mm, half axes mm, MRI intensity, section intensity)
_BODY = ((0.0, 0.0, 0.0), (48.0, 62.0, 40.0), 0.8, 1.0)
_STEM = ((0.0, -30.0, -34.0), (14.0, 16.0, 40.0), 0.8, 1.0)
_PARTS = (
    _STEM,
    ((0.0, 14.0, 4.0), (30.0, 40.0, 20.0), 1.3, 0.5),
    ((0.0, -40.0, -18.0), (34.0, 18.0, 16.0), 0.5, 1.4),
    ((0.0, 10.0, 6.0), (6.0, 18.0, 10.0), 0.1, 0.0),
)
_ONE_SIDE = (
    ((28.0, 8.0, 10.0), (12.0, 18.0, 12.0), 0.3, 1.6),
    ((-38.0, 30.0, 0.0), (20.0, 20.0, 14.0), 0.8, 1.0),
)


def _render(points: np.ndarray, contrast: int, symmetric: bool) -> np.ndarray:
    """Intensity at world points (..., 3)."""
    value = np.zeros(points.shape[:-1])
    parts = (_BODY, *_PARTS) if symmetric else (_BODY, _ONE_SIDE[1], *_PARTS, _ONE_SIDE[0])
    for centre, axes, *intensity in parts:
        inside = np.sum(((points - np.array(centre)) / axes) ** 2, axis=-1) < 1
        value[inside] = intensity[contrast]
    return value


def _tissue(points: np.ndarray, symmetric: bool) -> np.ndarray:
    bodies = (_BODY, _STEM) if symmetric else (_BODY, _STEM, _ONE_SIDE[1])
    return np.any(
        [np.sum(((points - np.array(c)) / a) ** 2, axis=-1) < 1 for c, a, *_ in bodies], axis=0
    )


def _mri(change: np.ndarray, symmetric: bool, y_mm: tuple[float, float] = (-90, 90)) -> Scene:
    """The phantom as an MRI, cut at two values of y, in a world that was changed."""
    low = np.array([-75.0, y_mm[0], -84.0])
    shape = np.ceil((np.array([75.0, y_mm[1], 66.0]) - low) / 2.0).astype(int) + 1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = low
    points = apply(affine, np.stack(np.indices(shape), axis=-1))
    noise = 0.02 * np.random.default_rng(0).standard_normal(shape)
    data = (500 * (_render(points, 0, symmetric) + noise)).astype(np.float32)
    return mri_scene(Mri(data, _tissue(points, symmetric), change @ affine), _SPACING_MM)


def _stack(world_from_stack: np.ndarray, symmetric: bool, z_mm: tuple[float, float]) -> Scene:
    """The phantom as a stack of planes."""
    low = np.array([-80.0, -80.0, z_mm[0]])
    shape = np.ceil((np.array([80.0, 80.0, z_mm[1]]) - low) / _SPACING_MM).astype(int) + 1
    matrix = np.diag([_SPACING_MM] * 3 + [1.0])
    matrix[:3, 3] = low
    points = apply(world_from_stack @ matrix, np.stack(np.indices(shape), axis=-1))
    tissue = _tissue(points, symmetric)
    data = _render(points, 1, symmetric)
    data += 0.05 * np.random.default_rng(1).standard_normal(shape) * tissue
    return Scene(data.astype(np.float32), tissue.astype(np.float32), np.ones(shape, bool), matrix)


def _true_pose() -> np.ndarray:
    """World from stack: positions along y, left-handed, oblique, 7 % larger."""
    pose = np.eye(4)
    pose[:3, :3] = 1.07 * Rotation.from_rotvec([0.1, -0.15, 0.1]).as_matrix() @ _LETTERS
    return pose


def _change(seed: int, mirrored: bool) -> np.ndarray:
    """A world turned by any angle, scaled by up to 15 %, shifted by up to 30 mm."""
    rng = np.random.default_rng(seed)
    change = np.eye(4)
    turn = Rotation.random(random_state=seed).as_matrix()
    change[:3, :3] = rng.uniform(0.87, 1.15) * turn @ np.diag([-1.0 if mirrored else 1.0, 1, 1])
    change[:3, 3] = rng.uniform(-30, 30, 3)
    return change


def _angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return angle_deg(a[:3, :3] @ np.linalg.inv(b[:3, :3]))


def _distance_mm(a: np.ndarray, b: np.ndarray, stack: Scene) -> float:
    """Mean distance, world mm, between where two poses (4, 4) put the stack's tissue."""
    points = tissue_points_mm(stack)
    return float(np.linalg.norm(apply(a, points) - apply(b, points), axis=1).mean())


@pytest.mark.parametrize(("seed", "mirrored"), [(1, False), (2, True)])
def test_a_stack_is_found_in_any_world_and_so_is_its_handedness(seed, mirrored):
    change = _change(seed, mirrored)
    stack = _stack(_true_pose(), False, (-62.0, 62.0))
    verdict = judge(search(stack, _mri(change, False)))
    true = change @ _true_pose()
    assert verdict.best.mirrored == (np.linalg.det(true[:3, :3]) < 0) == (not mirrored)
    assert _distance_mm(verdict.best.world_from_stack, true, stack) < 3
    assert _angle_deg(verdict.best.world_from_stack, true) < 2
    assert verdict.explained > 0.9
    assert min(verdict.place_margin, verdict.handedness_margin) > 3


def test_of_a_symmetric_brain_the_place_is_found_and_the_handedness_is_not():
    stack = _stack(_true_pose(), True, (-62.0, 62.0))
    verdict = judge(search(stack, _mri(np.eye(4), True)))
    assert verdict.place_margin > 3
    assert verdict.handedness_margin < 3
    poses = [verdict.best, verdict.mirror]
    (right,) = (p for p in poses if p.mirrored)
    assert _distance_mm(right.world_from_stack, _true_pose(), stack) < 3


def test_a_part_of_a_stack_is_found_in_a_whole_mri():
    stack = _stack(_true_pose(), False, (-5.0, 45.0))
    mri = _mri(np.eye(4), False)
    assert not mri.cuts
    _assert_found(stack, search(stack, mri)[0])


def test_a_whole_stack_is_found_in_an_mri_that_was_cut_off():
    """Anywhere, but turned by no more than 60 degrees, since a cut makes each rotation dear."""
    stack = _stack(_true_pose(), False, (-62.0, 62.0))
    mri = _mri(np.eye(4), False, (-20, 90))
    assert len(mri.cuts) == 1
    _assert_found(stack, search(stack, mri, near=_LETTERS, max_rotation_deg=60)[0])


def _assert_found(stack: Scene, best: Pose) -> None:
    assert best.mirrored
    assert _distance_mm(best.world_from_stack, _true_pose(), stack) < 3
    assert _angle_deg(best.world_from_stack, _true_pose()) < 3


def test_letters_keep_their_handedness_and_their_neighbourhood():
    stack = _stack(_true_pose(), False, (-62.0, 62.0))
    mri = _mri(np.eye(4), False)
    (best, *others) = search(stack, mri, near=_LETTERS, max_rotation_deg=45)
    assert _distance_mm(best.world_from_stack, _true_pose(), stack) < 3
    for pose in (best, *others):
        assert pose.mirrored
        assert _angle_deg(pose.world_from_stack, _LETTERS) <= 45
    wrong_handed = search(stack, mri, near=_LETTERS @ np.diag([-1.0, 1, 1]), max_rotation_deg=45)
    assert not any(p.mirrored for p in wrong_handed)
    assert all(p.cost > best.cost + 0.02 for p in wrong_handed)


def test_a_step_downhill_is_the_one_that_differences_give():
    """Gauss-Newton's gradient against finite differences of the cost."""
    stack, mri = _stack(_true_pose(), False, (-40.0, 40.0)), _mri(np.eye(4), False)
    level = Level(stack, mri, 8.0)
    pose = _true_pose() @ linear_about(
        np.array([1.0, 2.0, 3.0]), Rotation.from_rotvec([0.05, -0.04, 0.06]).as_matrix()
    )
    gradient, _ = level._equations(level.evaluate(pose[None]), np.zeros((1, 6)), affine=True)
    for k in range(12):
        step = np.zeros((2, 12))
        size = 0.2 if k >= 9 else 0.004
        step[:, k] = size, -size
        there = level.evaluate(level._moved(np.stack([pose, pose]), step)).cost
        # half the cost; edges of tissue make it rough
        assert (there[0] - there[1]) / (4 * size) == pytest.approx(
            gradient[0, k], rel=0.25, abs=0.05 * np.abs(gradient).max()
        )
