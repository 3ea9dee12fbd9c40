"""Figures of a comparison: they show what they are given, where and as large as it is."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.contour import ContourSet

from sbr_core.methods import METHODS
from sbr_core.report import figures


def lines_of(axes) -> list[np.ndarray]:
    """Vertices of every outline drawn in axes."""
    sets = [c for c in axes.get_children() if isinstance(c, ContourSet)]
    return [path.vertices for s in sets for path in s.get_paths() if len(path.vertices)]


def test_every_method_has_a_name_and_a_colour_of_its_own_and_a_fixed_place():
    names = {figures.name_of(method) for method in METHODS}
    colours = {figures.colour_of(method) for method in METHODS}
    assert len(names) == len(colours) == len(METHODS)
    assert figures.in_order(["sbr", "mine", "nmi", "linear"]) == ["linear", "nmi", "sbr", "mine"]
    assert figures.name_of("sbr_n") == "SbR-N" and figures.name_of("mine") == "mine"


def test_boxes_stand_at_the_values_of_their_method():
    values = {"sbr": np.array([1.0, 2.0, 6.0]), "linear": np.array([4.0, 5.0, 9.0])}
    figure = figures.box_plots(
        {"class 2": values, "class 3": {"linear": values["linear"]}},
        "error (mm)",
        {("class 2", "sbr"): "*"},
    )
    first, second = figure.axes
    assert [t.get_text() for t in first.get_xticklabels()] == ["Linear", "SbR"]
    assert first.get_title() == "class 2" and first.get_ylabel() == "error (mm)"
    medians = [line for line in first.lines if line.get_linewidth() == 1.2]
    assert [(line.get_xdata().mean(), line.get_ydata()[0]) for line in medians] == [
        (0.0, 5.0),
        (1.0, 2.0),
    ]
    points = [line for line in first.lines if line.get_marker() == "."]
    assert [sorted(line.get_ydata()) for line in points] == [[4.0, 5.0, 9.0], [1.0, 2.0, 6.0]]
    assert [t.get_text() for t in first.texts] == ["", "*"]
    # a method without values keeps its place
    assert len(second.get_xticklabels()) == 2
    assert len([line for line in second.lines if line.get_marker() == "."]) == 1


def disc(radius_mm: float, spacing_mm: float, centre_mm: float = 10.0) -> np.ndarray:
    points = np.stack(np.indices((int(20 / spacing_mm), int(20 / spacing_mm)))) * spacing_mm
    return (np.linalg.norm(points - centre_mm, axis=0) <= radius_mm).astype(np.uint8)


def test_outlines_lie_in_millimetres_where_the_class_ends_whatever_the_pixels():
    """Over a picture of another grid, whose outer edges its extent keeps."""
    outlines = figures.Outlines(disc(6, 0.2) * 3, 0.2)
    picture = figures.Picture(disc(6, 0.5).astype(float), 0.5)
    bands = [[figures.Panel("plain", picture)], [figures.Panel("outlined", picture, True)]]
    figure = figures.picture_grid(bands, (0, 20, 20, 0), outlines)
    plain, outlined = figure.axes[:2]
    assert not lines_of(plain)
    (line,) = lines_of(outlined)
    assert np.linalg.norm(line - 10.0, axis=1) == pytest.approx(6.0, abs=0.12)
    assert outlined.images[0].get_extent() == [-0.25, 19.75, 19.75, -0.25]
    assert outlined.get_xlim() == (0, 20) and outlined.get_ylim() == (20, 0)
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["class 3"]


def test_nested_outlines_go_around_a_class_and_all_above_it():
    classes = disc(8, 0.2) + disc(4, 0.2)
    for nested, radii in ((True, [8, 4]), (False, [4, 8, 4])):
        outlines = figures.Outlines(classes, 0.2, nested=nested)
        panel = figures.Panel("", figures.Picture(classes / 2, 0.2), True)
        figure = figures.picture_grid([[panel]], (0, 20, 20, 0), outlines)
        found = []
        for line in lines_of(figure.axes[0]):
            distance = np.linalg.norm(line - 10.0, axis=1)
            found += [radius for radius in (4, 8) if np.any(abs(distance - radius) < 0.15)]
        assert sorted(found) == sorted(radii)


def test_many_panels_stay_within_a_page_and_a_missing_picture_says_why():
    outlines = figures.Outlines(disc(6, 0.5), 0.5)
    picture = figures.Picture(disc(6, 0.5).astype(float), 0.5)
    below = figures.Panel("", picture)
    bands = [
        [figures.Panel(f"m{i}", picture if i != 4 else None, word="none"), below] for i in range(11)
    ]
    figure = figures.picture_grid(bands, (0, 20, 20, 0), outlines)
    assert figure.get_figwidth() <= 7.1 + 1e-9
    shown = [a for a in figure.axes if a.images]
    assert len(shown) == 2 * 11 - 1
    (empty,) = [a for a in figure.axes if "none" in [t.get_text() for t in a.texts]]
    assert empty.get_title() == "m4"
    # the bar of the first panel is as long as it says, at most a quarter of the width
    (bar,) = figure.axes[0].lines
    length = np.ptp(bar.get_xdata())
    assert f"{length:g} mm" in [t.get_text() for t in figure.axes[0].texts] and 1 <= length <= 5


def test_the_busiest_view_is_where_the_cortex_folds():
    rows, columns = np.indices((120, 100))
    classes = np.where((abs(rows - 60) < 55) & (abs(columns - 50) < 45), 1, 0)
    folds = (rows > 75) & (rows < 105) & (columns > 60) & (columns < 90)
    classes[folds & (columns % 6 < 3)] = 2
    deep = (abs(rows - 55) < 8) & (abs(columns - 48) < 8)
    classes[deep & ((rows + columns) % 2 == 0)] = 3  # busier still, but no cortex
    left, right, bottom, top = figures.busiest_view(classes, 0.5, 0.3)
    assert right - left == pytest.approx(bottom - top) == pytest.approx(0.3 * 109 * 0.5, abs=0.5)
    seen = (columns >= left / 0.5) & (columns <= right / 0.5)
    seen &= (rows >= top / 0.5) & (rows <= bottom / 0.5)
    assert seen[folds].mean() > 0.7 and not seen[deep].any()
    # anything goes, even nothing
    assert len(figures.busiest_view(np.zeros((8, 9), int), 1.0, 0.3)) == 4


def test_grey_levels_become_three_classes_within_the_mask():
    rng = np.random.default_rng(0)
    steps = np.repeat([0.2, 0.5, 0.9], 20)
    grey = np.tile(steps, (40, 1)) + rng.normal(0, 0.01, (40, 60))
    mask = np.zeros(grey.shape)
    mask[5:35] = 1
    classes = figures.classes_of_grey(grey, mask)
    assert not classes[:5].any() and not classes[35:].any()
    for class_, column in enumerate((10, 30, 50)):
        assert (classes[5:35, column - 5 : column + 5] == class_).all()
    assert (figures.classes_of_grey(np.ones((5, 5)), np.eye(5)) == np.eye(5)).all()


def test_extent_holds_the_mask_and_little_more():
    mask = np.zeros((50, 80))
    mask[10:31, 20:61] = 1
    left, right, bottom, top = figures.extent_of(mask, 0.5)
    assert (left, right) == pytest.approx((10 - 0.8, 30 + 0.8))
    assert (top, bottom) == pytest.approx((5 - 0.8, 15 + 0.8))
    assert figures.extent_of(np.zeros((4, 6)), 1.0) == (-0.5, 5.5, 3.5, -0.5)
