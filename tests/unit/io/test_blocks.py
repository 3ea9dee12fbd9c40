"""Images made smaller."""

import numpy as np
import pytest

from sbr_core.io.blocks import halved


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (0, 1, 2)])
def test_halved_is_the_rounded_mean_and_keeps_what_is_left_over(kind, axes):
    array = (np.random.default_rng(0).normal(size=(7, 8, 5)) * 90).astype(kind)
    mean = array.astype(float)
    for axis in axes:
        mean = np.pad(mean, [(0, mean.shape[i] % 2 * (i == axis)) for i in range(3)], mode="edge")
        even, odd = (np.take(mean, range(i, mean.shape[axis], 2), axis) for i in (0, 1))
        mean = (even + odd) / 2
    half = halved(array, axes)
    assert half.dtype == array.dtype
    assert np.allclose(half, mean if kind.startswith("f") else np.rint(mean))


def test_halved_labels_are_labels():
    ids = np.arange(35, dtype=np.uint16).reshape(5, 7)
    assert halved(ids, (0, 1), labels=True).tolist() == ids[::2, ::2].tolist()
    assert halved(ids, ()).tolist() == ids.tolist()
