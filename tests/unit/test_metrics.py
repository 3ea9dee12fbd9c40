"""Metrics in cases whose answer is known."""

import math

import numpy as np
import pytest

from sbr_core import metrics


def test_mean_weighs_sections_and_rmse_weighs_landmarks():
    errors = {"a": np.array([1.0, 1.0, 1.0]), "b": np.array([5.0]), "c": np.array([])}
    summary = metrics.landmark_summary(errors, (50, 100))
    assert summary["mean"] == (3.0, 2)
    assert summary["rmse"] == (pytest.approx(math.sqrt(28 / 4)), 4)
    assert summary["p50"] == (1.0, 4)
    assert summary["p100"] == (5.0, 4)
    assert metrics.landmark_summary({"a": np.array([])}, (50,)) == {}


def test_dice_of_shifted_squares():
    a, b = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    a[2:12, 2:12] = 3
    b[2:12, 7:17] = 3  # half of each square is shared
    assert metrics.dice(a, b) == {3: 0.5}
    assert metrics.dice(a, a) == {3: 1.0}
    assert metrics.dice(a, np.roll(a, 10, axis=(0, 1)) * 0 + 0) == {}


def test_dice_leaves_out_classes_that_one_map_lacks():
    a, b = np.array([[0, 1, 1, 2]]), np.array([[0, 1, 3, 3]], np.uint16)
    assert metrics.dice(a, b) == {1: pytest.approx(2 / 3)}
    assert metrics.dice(a, b) == metrics.dice(b, a)
    with pytest.raises(ValueError, match="shapes"):
        metrics.dice(a, b.T)


def _linear_field(matrix: np.ndarray, shape=(9, 11)) -> np.ndarray:
    rows, columns = np.indices(shape)
    points = np.stack([columns, rows], axis=-1).astype(float)
    return points @ np.asarray(matrix, float).T - points


@pytest.mark.parametrize(
    "matrix", [np.eye(2), [[1.2, 0.3], [-0.1, 0.8]], [[0, -1], [1, 0]], [[1, 0], [0, -1]]]
)
def test_determinant_of_a_linear_map_is_the_matrix_s(matrix):
    least = metrics.least_determinant(_linear_field(matrix))
    np.testing.assert_allclose(least, np.linalg.det(np.asarray(matrix, float)), atol=1e-12)
    in_mm = metrics.least_determinant(_linear_field(matrix) * 0.3, spacing=0.3)
    np.testing.assert_allclose(in_mm, least, atol=1e-12)


def test_one_pixel_thrown_over_its_neighbour_is_seen():
    disp = np.zeros((11, 11, 2))
    disp[5, 5, 0] = 1.5  # central differences at (5, 5) see nothing
    folded = metrics.least_determinant(disp) <= 0
    assert folded[5, 5] and folded[5, 6]
    mask = np.zeros((11, 11))
    mask[5] = 1
    assert metrics.folding(disp, mask) == pytest.approx(2 / 11)
    mask[:] = 0
    mask[8:] = 1
    assert metrics.folding(disp, mask) == 0.0
    assert math.isnan(metrics.folding(disp, np.zeros((11, 11))))


def test_it_is_at_least_as_strict_as_the_tensor_version():
    torch = pytest.importorskip("torch")
    from sbr_core.functional.warp import jacobian_determinant

    disp = np.random.default_rng(0).normal(0, 0.4, (16, 17, 2))
    tensor = torch.from_numpy(np.moveaxis(disp, -1, 0)[None])
    forward = jacobian_determinant(tensor)[0].numpy()
    least = metrics.least_determinant(disp)
    assert forward.shape == (15, 16)
    assert (least[:-1, :-1] <= forward + 1e-12).all()
