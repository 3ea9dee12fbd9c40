"""A small analytic stack, whole and harmed, looked at once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from sbr_core.algorithms.doctor.pictures import StackPictures
from sbr_core.algorithms.doctor.poses import Poses, judge_poses, pose_scores

REACH = 3


@dataclass
class Looked:
    """A stack, what is known of its poses, and which of its sections were harmed."""

    sections: list[np.ndarray]
    pictures: StackPictures
    scores: np.ndarray
    poses: Poses
    flipped: int = -1
    turned: int = -1
    turn_deg: float = 0.0
    cut: int = -1
    cut_share: float = 0.0


def _stack(n: int, symmetric: bool = False) -> list[np.ndarray]:
    """Sections of an ellipsoid whose structure changes slowly along it, each a little askew."""
    rng = np.random.default_rng(7)
    shape = (n, 60, 72)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), (2.5, 2.0, 2.0))
    if symmetric:
        texture = texture + texture[:, :, ::-1]
    texture /= texture.std()
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]].astype(float)
    inside = ((x - 35.5) / 27) ** 2 + ((y - 29.5) / 22) ** 2 < 1 - ((z - n / 2) / (0.9 * n)) ** 2
    sections = []
    for brain in np.where(inside, 0.55 + 0.12 * np.clip(texture, -2, 2), 0.0):
        askew = ndimage.rotate(brain, rng.normal(scale=2), reshape=False, order=1)
        askew = ndimage.shift(askew, rng.normal(scale=1.5, size=2), order=1)
        sections.append(np.clip(askew, 0, 1))
    return sections


def _looked_at(sections: list[np.ndarray], **harm: float) -> Looked:
    pictures = StackPictures(sections, [image > 0.2 for image in sections], REACH)
    scores = pose_scores(pictures, REACH)
    return Looked(sections, pictures, scores, judge_poses(scores), **harm)


@pytest.fixture(scope="session")
def stack():
    """The sections of the analytic stack, as a function of their number and symmetry."""
    return _stack


@pytest.fixture(scope="session")
def looked_at():
    return _looked_at


@pytest.fixture(scope="session")
def whole() -> Looked:
    return _looked_at(_stack(12))


@pytest.fixture(scope="session")
def harmed() -> Looked:
    """One section flipped, one turned, one without the right third of its tissue."""
    sections = _stack(12)
    sections[3] = sections[3][:, ::-1]
    sections[6] = ndimage.rotate(sections[6], 70, order=1)  # counter-clockwise as displayed
    cut = sections[9].copy()
    cut[:, int(np.quantile(np.nonzero(cut > 0.2)[1], 1 - 0.33)) :] = 0
    sections[9] = cut
    return _looked_at(sections, flipped=3, turned=6, turn_deg=70.0, cut=9, cut_share=0.33)
