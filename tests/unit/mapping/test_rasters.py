"""Where the pixels of an image are looked up, and what is made of labels."""

import numpy as np
import pytest
from mapped_brain import GRID

from sbr_core import Brain
from sbr_core.io.windows import Windows
from sbr_core.mapping.points import Route
from sbr_core.mapping.rasters import PlaneTarget, SectionImage, _most_common, _places
from sbr_core.mapping.spaces import Space


class _NoPixels:
    step, shape = (1.0, 1.0), (400, 420)


@pytest.mark.parametrize(("source", "target"), [("section", "plane"), ("plane", "section")])
def test_places_between_nodes_are_those_of_the_transform(truth, source, target):
    """Fine pixels are placed by interpolation: within a hundredth of a working pixel."""
    route = Route(Brain(truth.results), Space(source, "both"), Space(target, "both"))
    windows = Windows((_NoPixels(),), 1, np.dtype("u1"), "minisblack")
    image = SectionImage(route, route.source, windows, (1.0, 1.0), np.zeros(1, np.uint8))
    grid = PlaneTarget.of(route, 0.01)
    first, block = (2000, 2300), (301, 257)
    places, sides = _places(grid, image, first, block)
    rows, columns = (a + np.arange(n) for a, n in zip(first, block, strict=True))
    exact = image.place(grid.stack_mm(rows, columns).reshape(-1, 3))
    px_mm = route.pixel_size_mm(route.source)
    assert places.shape == exact.shape == (301 * 257, 2)
    assert np.abs(places - exact).max() * px_mm < 0.01 * GRID.spacing_mm
    across = exact.reshape(301, 257, 2)[:, 1:] - exact.reshape(301, 257, 2)[:, :-1]
    assert np.allclose(sides[0], across.mean(axis=(0, 1)), atol=0.05 * np.abs(sides[0]).max())


def test_the_most_common_label_wins_and_of_several_the_lowest():
    samples = np.array([[3, 3, 9, 9, 1], [5, 5, 5, 0, 0], [7, 7, 7, 7, 7], [4, 2, 8, 6, 1]]).T
    most = _most_common([row[:, None] for row in samples.astype(np.uint16)])
    assert most.ravel().tolist() == [3, 5, 7, 1] and most.dtype == np.uint16
