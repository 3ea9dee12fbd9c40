"""Where the pixels of an image are looked up, and what is made of labels."""

from dataclasses import dataclass

import numpy as np
import pytest
from mapped_brain import GRID
from scipy.ndimage import map_coordinates

from sbr_core import Brain
from sbr_core.io.windows import Windows
from sbr_core.mapping.lookup import Lookup, Places, most_common
from sbr_core.mapping.points import Route
from sbr_core.mapping.rasters import PlaneTarget, SectionImage, grid_of
from sbr_core.mapping.spaces import Space


class _NoPixels:
    step, shape = (1.0, 1.0), (400, 420)


@dataclass
class _Pixels:
    samples: np.ndarray
    step: tuple[float, float] = (1.0, 1.0)

    @property
    def shape(self):
        return self.samples.shape[:2]

    def read(self, top, left, bottom, right):
        return self.samples[top:bottom, left:right]


@pytest.mark.parametrize(
    ("source", "target", "within_px"), [("section", "plane", 1e-3), ("plane", "section", 1.0)]
)
def test_places_between_nodes_are_those_of_the_transform(truth, source, target, within_px):
    """On a plane they are so but for rounding; on a section within a hundredth working pixel."""
    route = Route(Brain(truth.results), Space(source, "both"), Space(target, "both"))
    windows = Windows((_NoPixels(),), 1, np.dtype("u1"), "minisblack")
    image = SectionImage(route, route.source, windows, (1.0, 1.0), np.zeros(1, np.uint8))
    grid = PlaneTarget.of(route, 0.01)
    # the last one goes as far as the plane does
    for first, block in (((2000, 2300), (301, 257)), ((4800, 5790), (131, 141)), ((9, 9), (1, 1))):
        places, sides = grid_of(grid, image).places(first, block)
        rows, columns = (a + np.arange(n) for a, n in zip(first, block, strict=True))
        exact = image.place(grid.stack_mm(rows, columns).reshape(-1, 3))
        px_mm = route.pixel_size_mm(route.source)
        assert places.all().shape == exact.shape == (block[0] * block[1], 2)
        assert np.abs(places.all() - exact).max() * px_mm < 0.01 * within_px * GRID.spacing_mm
        if block[0] > 1:
            across = np.diff(exact.reshape(*block, 2), axis=1)
            nearly = 0.05 * np.abs(sides[0]).max()
            assert np.allclose(sides[0], across.mean(axis=(0, 1)), atol=nearly)


def test_what_is_looked_up_is_linear_between_pixels():
    """Against SciPy in double precision, of a large image, to the accuracy of its samples."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60000, (700, 1900, 3), np.uint16)
    windows = Windows((_Pixels(image),), 3, image.dtype, "rgb")
    places = rng.uniform([-3, -3], [1902, 702], (5000, 2))
    found = Lookup(windows, np.array([7, 8, 9], np.uint16)).sample(Places.of(places), np.eye(2))
    outside = np.any((places < -0.5) | (places > [1899.5, 699.5]), axis=1)
    assert (found[outside] == [7, 8, 9]).all() and outside.any()
    exact = [
        map_coordinates(c, places.T[::-1], float, 1, "nearest") for c in image.T.swapaxes(1, 2)
    ]
    # a hundredth of a pixel is 600 of noise like this
    assert np.abs(found - np.stack(exact, axis=-1))[~outside].max() < 20


def test_the_most_common_label_wins_and_of_several_the_lowest():
    samples = np.array([[3, 3, 9, 9, 1], [5, 5, 5, 0, 0], [7, 7, 7, 7, 7], [4, 2, 8, 6, 1]]).T
    most = most_common([row[:, None] for row in samples.astype(np.uint16)])
    assert most.ravel().tolist() == [3, 5, 7, 1] and most.dtype == np.uint16
