"""Flips and turns, of an analytic stack and of made-up scores."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core.algorithms.doctor.pictures import N_ANGLES, STEP_DEG
from sbr_core.algorithms.doctor.poses import judge_poses, likeliest_poses, registered_neighbour


def _after(second: tuple[bool, float], first: tuple[bool, float]) -> tuple[bool, float]:
    """The pose of one after the other: a turn before a mirroring is the opposite one after it."""
    return first[0] != second[0], second[1] + (-first[1] if second[0] else first[1])


def _inverse(pose: tuple[bool, float]) -> tuple[bool, float]:
    return pose if pose[0] else (False, -pose[1])


def _apart_deg(a, b):
    return np.abs((np.asarray(a) - b + 180) % 360 - 180)


def _scores(lies, *, asymmetry: float = 0.3, reach: int = 3) -> np.ndarray:
    """Made-up scores of sections that lie in these poses and are otherwise alike.

    0.7 in the pose that brings a section onto its neighbour, less by `asymmetry` in its mirror
    image, falling to 0.2 within some 20° of either.
    """
    n, angles = len(lies), np.arange(N_ANGLES) * STEP_DEG
    rng = np.random.default_rng(3)
    scores = np.full((n, 2 * reach + 1, 2, N_ANGLES), np.nan, np.float32)
    for i in range(n):
        for j in range(max(0, i - reach), min(n, i + reach + 1)):
            mirrored, angle = _after(lies[j], _inverse(lies[i]))
            for m in (False, True) if j != i else ():
                height = 0.7 if m == mirrored else 0.7 - asymmetry
                peak = (height - 0.2) * np.exp(-((_apart_deg(angles, angle) / 20) ** 2))
                scores[i, j - i + reach, int(m)] = 0.2 + peak + rng.normal(0, 0.02, N_ANGLES)
    return scores


def _lies(n: int, **harmed: tuple[bool, float]) -> list[tuple[bool, float]]:
    """Poses of n sections, upright but for a few degrees and those named ``s7=(True, 30)``."""
    rng = np.random.default_rng(4)
    return [harmed.get(f"s{i}", (False, float(rng.normal(0, 2)))) for i in range(n)]


@pytest.mark.parametrize("pose", [(True, 0.0), (True, 180.0), (True, -40.0), (False, 70.0)])
def test_a_planted_pose_is_accused_and_its_correction_undoes_it(pose):
    poses = judge_poses(_scores(_lies(16, s6=pose)))
    assert np.flatnonzero(poses.wrong(0.5)).tolist() == [6]
    confidence = poses.flip_confidence if pose[0] else poses.turn_confidence
    assert confidence[6] > 0.9
    mirrored, angle = _after(poses.correction(6), pose)
    assert not mirrored and _apart_deg(angle, 0) < 6
    assert poses.correction(5) == (False, 0.0)


def test_nothing_planted_nothing_accused(whole):
    for poses in (judge_poses(_scores(_lies(16))), whole.poses):
        assert not poses.wrong(0.5).any()
        assert not poses.mirrored.any()


def test_neighbours_harmed_alike_do_not_vouch_for_each_other():
    alike = {"s5": (True, 20.0), "s6": (True, 25.0), "s7": (True, 15.0)}
    scores = _scores(_lies(16, **alike))
    mirrored, steps = likeliest_poses(scores, 0.05)
    assert np.flatnonzero(mirrored).tolist() == [5, 6, 7]
    assert (_apart_deg(steps[5:8] * STEP_DEG, np.array([20, 25, 15])) <= 15).all()
    assert not steps[~mirrored].any()
    assert np.flatnonzero(judge_poses(scores).wrong(0.5)).tolist() == [5, 6, 7]


def test_the_majority_is_right():
    most = {f"s{i}": (True, 0.0) for i in range(16) if i not in (4, 9)}
    assert np.flatnonzero(judge_poses(_scores(_lies(16, **most))).wrong(0.5)).tolist() == [4, 9]


def test_the_less_asymmetric_a_stack_the_less_sure_a_flip():
    flips = _lies(16, s6=(True, 0.0))
    sure = [
        float(judge_poses(_scores(flips, asymmetry=asymmetry)).flip_confidence[6])
        for asymmetry in (0.3, 0.1, 0.02, 0.0)
    ]
    assert sure == sorted(sure, reverse=True) and sure[0] > 0.9
    assert sure[-1] == pytest.approx(0.05, abs=0.03), "the prior"


def test_a_flip_whose_turn_is_ambiguous_is_no_sure_correction():
    """A section that looks alike upside down: mirrored, but which way round?"""
    scores = _scores(_lies(16, s6=(True, 0.0)))
    sure = judge_poses(scores).flip_confidence[6]
    half_turn = np.roll(scores, N_ANGLES // 2, axis=-1)
    scores[6] = np.maximum(scores[6], half_turn[6])
    assert judge_poses(scores).flip_confidence[6] < 0.6 < sure


def test_small_turns_are_left_alone():
    scores = _scores(_lies(16, s6=(False, 35.0)))
    assert judge_poses(scores, min_turn_deg=12).wrong(0.5)[6]
    assert not judge_poses(scores, min_turn_deg=50).wrong(0.5).any()


def test_few_sections_are_not_judged():
    assert not judge_poses(_scores(_lies(4, s1=(True, 0.0)))).wrong(1e-9).any()


def test_planted_poses_of_images_are_found(harmed):
    poses = harmed.poses
    wrong = [harmed.flipped, harmed.turned]
    assert np.flatnonzero(poses.wrong(0.5)).tolist() == wrong
    assert poses.mirrored[wrong].tolist() == [True, False]
    assert _apart_deg(poses.angle_deg[harmed.flipped], 0) < 8
    assert _apart_deg(poses.angle_deg[harmed.turned], -harmed.turn_deg) < 8


def test_a_flip_of_a_symmetric_stack_is_not_claimed(stack, looked_at):
    sections = stack(8, symmetric=True)
    sections[4] = sections[4][:, ::-1]
    assert not looked_at(sections).poses.flip_confidence.max() >= 0.5


def test_a_harmed_neighbour_is_brought_to_lie_as_the_section_does(whole, harmed):
    """As well as it fitted before it was harmed."""

    def fit(looked, i, j):
        here = looked.pictures.of(i, looked.pictures.step_px[i])
        other = registered_neighbour(looked.pictures, looked.scores, looked.poses, i, j)
        return float((here.detail * other.detail).sum())

    for i, j in ((4, harmed.flipped), (harmed.flipped, 4), (5, harmed.turned), (harmed.turned, 5)):
        assert fit(harmed, i, j) > 0.85 * fit(whole, i, j) > 0.3
