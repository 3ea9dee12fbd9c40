import numpy as np
import pytest

from sbr_core.algorithms.plausibility import heads

INDEX = np.stack(np.meshgrid(*[np.arange(-28, 29) * 4.0] * 3, indexing="ij"), -1)


def radius(x_mm, y_mm, z_mm):
    return np.linalg.norm(INDEX / [x_mm, y_mm, z_mm], axis=-1)


def brain(grey, white, fluid=0.2):
    values = np.where(radius(68, 85, 60) < 1, grey, 0.0)
    values[radius(60, 76, 52) < 1] = white
    values[radius(12, 25, 10) < 1] = fluid
    return values


def head(values, fluid, bone, skin):
    inside = radius(68, 85, 60) < 1
    values = np.where((radius(92, 108, 84) < 1) & ~inside, skin, values)
    values = np.where((radius(84, 100, 76) < 1) & ~inside, bone, values)
    return np.where((radius(71, 88, 63) < 1) & ~inside, fluid, values)


CONTRASTS = pytest.mark.parametrize(
    ("grey", "white"), [(0.6, 0.9), (0.9, 0.6), (0.8, 0.8)], ids=["T1", "T2", "flat"]
)


@CONTRASTS
@pytest.mark.parametrize(("offset", "size"), [(0.0, 1.0), (-700.0, 0.08)])
def test_a_brain_alone_is_no_head(grey, white, offset, size):
    values = (brain(grey, white) * 500 + offset).astype(np.float32)
    assert not heads.is_head(heads.skull_darkness(values, np.full(3, 4.0 * size)))


@CONTRASTS
def test_a_brain_in_bright_medium_is_no_head(grey, white):
    """As of a block scanned in fluid: bright all around."""
    values = np.where(radius(68, 85, 60) < 1, brain(grey, white), 1.0)
    assert not heads.is_head(heads.skull_darkness(values, np.full(3, 4.0)))


@pytest.mark.parametrize(
    ("grey", "white", "offset"), [(0.6, 0.9, 0.0), (0.9, 0.6, -700.0), (0.8, 0.8, 3000.0)]
)
def test_a_skull_tells_a_head(grey, white, offset):
    values = head(brain(grey, white), fluid=0.3, bone=0.12, skin=0.9) * 500 + offset
    noise = np.abs(np.random.default_rng(0).normal(0, 10, values.shape))
    assert heads.is_head(heads.skull_darkness(values + noise, np.full(3, 4.0)))
    assert heads.is_head(heads.skull_darkness(values, np.full(3, 0.3))), "of a mouse"
    # cut at the neck and at the forehead, as most heads are
    cut = values[:, 6:, 8:]
    assert heads.is_head(heads.skull_darkness(cut, np.full(3, 4.0)))
