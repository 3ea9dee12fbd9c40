"""Metrics in cases whose answer is known."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

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


def discs(*discs_: tuple[float, float, float], shape=(200, 200)) -> np.ndarray:
    """Label 1 in discs (centre row, centre column, radius), px."""
    rows, columns = np.indices(shape)
    inside = [np.hypot(rows - r, columns - c) <= radius for r, c, radius in discs_]
    return np.any(inside, axis=0).astype(np.uint8)


def test_surface_distance_of_equal_maps_is_nought_and_it_has_no_direction():
    a, b = discs((100, 90, 40)), discs((96, 100, 35))
    assert metrics.surface_distances(a, a) == {1: (0.0, 0.0)}
    there, back = (metrics.surface_distances(*pair)[1] for pair in ((a, b), (b, a)))
    assert there == pytest.approx(back) and min(there) > 0


@pytest.mark.parametrize(("axis", "spacing"), [(0, (2.0, 0.5)), (1, (2.0, 0.5)), (1, 0.25)])
def test_surface_distance_of_a_shifted_edge_is_its_shift(axis, spacing):
    """A half plane: every boundary pixel is 3 px from the other boundary, along one axis."""
    a, b = np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8)
    np.moveaxis(a, axis, 0)[:10] = 7
    np.moveaxis(b, axis, 0)[:13] = 7
    shift = 3 * np.broadcast_to(spacing, 2)[axis]
    # the edge of the image, where the half plane is cut off, is no boundary
    assert metrics.surface_distances(a, b, spacing) == {7: pytest.approx((shift, shift))}


def test_surface_distance_of_discs_is_that_of_circles():
    inner, outer = discs((100, 100, 50)), discs((100, 100, 62))
    assert metrics.surface_distances(inner, outer)[1] == pytest.approx((12.0, 12.0), abs=0.5)
    # a disc moved by d: the distance at angle t is |d cos t|
    moved = discs((100, 104, 50))
    mean, p95 = metrics.surface_distances(inner, moved, 0.5)[1]
    assert mean == pytest.approx(0.5 * 4 * 2 / math.pi, abs=0.08)
    assert p95 == pytest.approx(0.5 * 4 * math.cos(0.05 * math.pi / 2), abs=0.1)


def test_surface_distance_takes_the_worse_direction_and_each_class_by_itself():
    a = discs((50, 50, 20))
    stray = discs((50, 50, 20), (150, 150, 8))
    mean, p95 = metrics.surface_distances(a, stray)[1]
    assert p95 > 100  # of the stray's boundary, although all of a's lies on the other's
    assert 0 < mean < p95
    b = np.where(discs((150, 60, 20)) > 0, 2, a)
    assert metrics.surface_distances(b, b * (b == 1)) == {1: (0.0, 0.0)}
    full = np.ones((9, 9), int)
    assert metrics.surface_distances(full, full) == {}  # it has no boundary within the image
    with pytest.raises(ValueError, match="shapes"):
        metrics.surface_distances(full, full[1:])


def numbered(values) -> dict[str, float]:
    return {f"s{i}": float(v) for i, v in enumerate(values)}


def test_wilcoxon_by_hand():
    test = metrics.paired_wilcoxon(numbered([1, 2, -3, 4, 5]), numbered([0] * 5))
    # ranks of the positive differences sum to 12, of the negative to 3; 5 of the 32 ways to give
    # signs leave a sum of 3 or less
    assert (test.n, test.median_difference) == (5, 2.0)
    assert test.rank_biserial == pytest.approx(9 / 15)
    assert test.p == pytest.approx(2 * 5 / 32)


def test_a_method_that_is_better_in_every_section_is_significant_and_has_a_sign():
    rng = np.random.default_rng(0)
    linear = numbered(rng.uniform(1, 3, 12))
    better = {section: value - rng.uniform(0.01, 0.3) for section, value in linear.items()}
    test = metrics.paired_wilcoxon(better, linear)
    assert test.rank_biserial == -1.0 and test.median_difference < 0
    assert test.p == pytest.approx(2 / 2**12)
    back = metrics.paired_wilcoxon(linear, better)
    assert (back.rank_biserial, back.p) == (1.0, test.p)


def test_pairs_are_by_section_and_what_one_side_lacks_is_left_out():
    values = numbered([5.0, 6.0, 7.0, 8.5])
    reference = {"s3": 8.0, "s1": 7.0, "s0": 5.25, "other": 1.0, "s2": math.nan}
    test = metrics.paired_wilcoxon(values, reference)
    alone = metrics.paired_wilcoxon(numbered([5.0, 6.0, 8.5]), numbered([5.25, 7.0, 8.0]))
    assert test == alone and test.n == 3
    assert metrics.paired_wilcoxon(values, {"other": 1.0}) is None


def test_sections_without_a_difference_count_against_one():
    reference = numbered([0] * 30)
    differences = np.r_[np.linspace(0.1, 1, 20), np.zeros(10)]
    test = metrics.paired_wilcoxon(numbered(differences), reference)
    assert test.p == pytest.approx(stats.wilcoxon(differences, zero_method="pratt").pvalue)
    assert test.p > metrics.paired_wilcoxon(numbered(differences[:20]), reference).p
    same = metrics.paired_wilcoxon(reference, reference)
    assert (same.n, same.rank_biserial, same.p) == (30, 0.0, 1.0)


def test_ties_and_zeros_up_to_13_pairs_are_counted_out():
    differences = [0, 0, 1, 1, -1, 2, 3, 3, 4]
    test = metrics.paired_wilcoxon(numbered(differences), numbered([0] * 9))
    ranks = np.array([4, 4, 4, 6, 7.5, 7.5, 9])  # the zeros have had 1 and 2; ties share
    sums = [np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=7)]
    at_least = np.mean(np.array(sums) >= ranks.sum() - 4)
    assert test.p == pytest.approx(2 * at_least)
    assert test.rank_biserial == pytest.approx((ranks.sum() - 8) / ranks.sum())


def test_ties_and_zeros_of_more_pairs_go_by_the_normal_approximation():
    differences = np.array([0, 0, 1, 1, 1, -1, -2, 3, 4, 5, 6, 7, 8, 9, 10], float)
    test = metrics.paired_wilcoxon(numbered(differences), numbered([0] * 15))
    above = 3 * 4.5 + sum(range(8, 16))
    mean = (15 * 16 - 2 * 3) / 4
    # the variances of what ties and zeros take are subtracted: one tie of four, two zeros
    variance = (15 * 16 * 31 - 2 * 3 * 5) / 24 - (4**3 - 4) / 48
    assert test.p == pytest.approx(2 * stats.norm.sf((above - mean) / math.sqrt(variance)))


def test_holm_by_hand():
    assert metrics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert metrics.holm([0.5, 0.6]) == [1.0, 1.0]
    assert metrics.holm([]) == []
