"""How sure the best pose is: blocks of the stack that agree."""

from __future__ import annotations

import numpy as np

from sbr_core.algorithms.alignment.poses import Pose
from sbr_core.algorithms.alignment.start import preference


def test_preference_counts_blocks_that_agree():
    rng = np.random.default_rng(0)
    left = np.full(40, 0.01)
    better = Pose(np.eye(4), left.sum(), left)
    alike = left + 0.002 * rng.standard_normal(40)
    assert abs(preference(better, Pose(np.eye(4), alike.sum(), alike))) < 2.5
    worse = alike + 0.003
    assert preference(better, Pose(np.eye(4), worse.sum(), worse)) > 6
    # one torn section, in two blocks, is no proof, and evidence in a part of the stack is
    torn = alike.copy()
    torn[3:5] += 0.2
    assert preference(better, Pose(np.eye(4), torn.sum(), torn)) < 2.5
    part = alike.copy()
    part[3:11] += 0.02
    assert preference(better, Pose(np.eye(4), part.sum(), part)) > 6
    assert preference(better, better) == 0
