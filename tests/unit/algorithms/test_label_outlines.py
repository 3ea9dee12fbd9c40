"""Labels as polygons: the same pixels, in as many parts, valid, however they touch."""

import numpy as np
import pytest
import shapely
from scipy import ndimage

from sbr_core.algorithms import label_outlines
from sbr_core.algorithms.label_outlines import outlines_of_labels


def noise(seed, n_labels=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, n_labels, rng.integers(1, 15, 2)).astype(np.uint8)


def blobs(seed, shape=(120, 150)):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 6)
    return np.digitize(smooth, np.quantile(smooth, [0.4, 0.7, 0.9])).astype(np.int32)


@pytest.mark.parametrize("strip", [1 << 24, 20], ids=["whole", "row by row"])
def test_a_polygon_contains_the_pixels_of_its_label_and_no_others(monkeypatch, strip):
    """Holes, islands in holes, pixels that touch at corners, the edge of the image."""
    monkeypatch.setattr(label_outlines, "_STRIP_PIXELS", strip)
    for seed in range(40):
        labels = noise(seed)
        rows, columns = (index.ravel() + 0.5 for index in np.indices(labels.shape))
        outlines = outlines_of_labels(labels)
        assert list(outlines) == [i for i in np.unique(labels).tolist() if i]
        for label, outline in outlines.items():
            there = labels == label
            assert outline.is_valid and outline.area == there.sum()
            inside = shapely.contains_xy(outline, columns, rows).reshape(labels.shape)
            assert np.array_equal(inside, there)
            assert len(outline.geoms) == ndimage.label(there)[1]


def test_a_ring_has_no_more_points_than_corners():
    labels = np.zeros((50, 60), np.uint16)
    labels[5:45, 10:40] = 700
    labels[20:30, 20:30] = 3
    outlines = outlines_of_labels(labels)
    assert shapely.get_num_coordinates(outlines[3]) == 5
    assert shapely.get_num_coordinates(outlines[700]) == 10
    assert outlines[700].bounds == (10, 5, 40, 45)
    assert outlines_of_labels(np.zeros((4, 4), np.uint8)) == {}


@pytest.mark.parametrize("labels", [blobs(0), blobs(1), noise(3), noise(8)])
def test_simplified_outlines_are_near_and_neighbours_stay_neighbours(labels):
    exact, tolerance = outlines_of_labels(labels), 1.2
    simple = outlines_of_labels(labels, tolerance)
    for label, outline in simple.items():
        assert outline.is_valid and not outline.is_empty
        apart = shapely.hausdorff_distance(outline.boundary, exact[label].boundary)
        assert apart < tolerance + 1e-9
    if labels.size > 1000:
        points = [sum(map(shapely.get_num_coordinates, o.values())) for o in (simple, exact)]
        assert points[0] < points[1] / 4
        together = shapely.union_all(list(simple.values()))
        overlap = sum(map(shapely.area, simple.values())) - together.area
        assert abs(overlap) < 1e-3 * together.area
        gaps = together.symmetric_difference(shapely.union_all(list(exact.values())))
        assert gaps.area < 0.04 * together.area
        assert abs(simple[3].area / exact[3].area - 1) < 0.05
