"""The rule for what stays empty, and that slabs, caches and thinning change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core.algorithms.reassembly import (
    BRIDGED_COVERAGE,
    EMPTY_COVERAGE,
    Level,
    LevelCache,
    Stack,
    fill_slab,
    local_gaps_mm,
    slabs,
)
from sbr_core.geometry import Box


def same(points):
    return points


def filled_between(positions_mm, max_gap_mm=0.0):
    """The z, in steps of 0.01 mm, that are filled, as a set of rounded numbers."""
    z = np.round(np.arange(-2.0, positions_mm[-1] + 2.0, 0.01), 2)
    return set(z[Stack.of(positions_mm, max_gap_mm).around(z)[2]])


def test_regular_stack_is_filled_half_a_gap_beyond_its_ends():
    filled = filled_between([0.0, 0.4, 0.8, 1.2, 1.6])
    assert (min(filled), max(filled)) == (-0.2, 1.8)
    assert len(filled) == 201


def test_missing_section_leaves_a_slab_as_wide_as_itself():
    whole, gapped = filled_between([0, 1, 2, 3, 4, 5]), filled_between([0, 1, 2, 4, 5])
    empty = sorted(whole - gapped)
    assert (empty[0], empty[-1]) == (2.51, 3.49)
    assert filled_between([0, 1, 2, 4, 5], max_gap_mm=0.5) >= whole


def test_jitter_of_positions_leaves_no_slits():
    positions = np.arange(30) * 0.4 + np.random.default_rng(0).uniform(-0.03, 0.03, 30)
    filled = filled_between(positions)
    z = np.round(np.arange(0.1, positions[-1], 0.01), 2)
    assert set(z) <= filled


def test_missing_section_next_to_the_end_does_not_widen_the_end():
    np.testing.assert_allclose(local_gaps_mm(np.array([0.0, 2, 3, 4, 5])), 1.0)


def test_single_section_is_as_thick_as_said():
    z = np.array([-0.6, -0.4, 0.0, 0.4, 0.6])
    assert Stack.of([0.0], 0.0, only_gap_mm=1.0).around(z)[2].tolist() == [
        False,
        *[True] * 3,
        False,
    ]


@pytest.fixture(scope="module")
def little_stack():
    """Six smooth sections, the third missing, one cropped; with labels."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:40, :50]
    levels = []
    for number in range(6):
        image = 0.5 + 0.4 * np.sin(columns / 7 + number / 2) * np.cos(rows / 5)
        shape = (40, 50 - 20 * (number == 4))
        labels = rng.choice([0, 2, 7], size=shape).astype(np.uint16)
        image = image[: shape[0], : shape[1]].astype(np.float32)
        levels.append(Level(image, 0.5, 0.5, same, labels))
    stack = Stack.of([0.0, 1, 3, 4, 5, 6], 0.0)
    turn = np.array([[0.45, 0.1, 0.05, 0.3], [-0.1, 0.45, 0.02, 2.1], [0.02, -0.06, 0.3, 0.1]])
    return stack, levels, np.vstack([turn, [0, 0, 0, 1]]), (44, 30, 22)


def fill(little_stack, slab_voxels, max_bytes=10**9, **more):
    stack, levels, stack_from_voxel, shape = little_stack
    cache = LevelCache(levels.__getitem__, max_bytes)
    out = [np.full(shape, np.nan) for _ in range(3)]
    for part in slabs(shape, stack_from_voxel, slab_voxels):
        found = fill_slab(part, shape, stack_from_voxel, stack, cache, with_labels=True, **more)
        for whole, some in zip(out, found, strict=True):
            whole[part] = some
    return out


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_slabs_and_cache_change_nothing_bit_for_bit(little_stack, interpolation):
    whole = fill(little_stack, 10**9, interpolation=interpolation)
    pieces = fill(little_stack, 700, max_bytes=1, interpolation=interpolation)
    for one, other in zip(whole, pieces, strict=True):
        assert np.array_equal(one, other)  # which NaN, a voxel nobody filled, would fail


def test_values_agree_with_a_direct_look_up(little_stack):
    stack, levels, stack_from_voxel, shape = little_stack
    histology, coverage, labels = fill(little_stack, 5000)
    rng = np.random.default_rng(2)
    seen = 0
    for voxel in rng.integers(0, shape, size=(400, 3)):
        x, y, z = (stack_from_voxel @ [*voxel, 1])[:3]
        point = np.array([[x, y]])
        upper = int(np.searchsorted(stack.positions_mm, z, side="right"))
        pair = [k for k in (upper - 1, upper) if 0 <= k < 6 and levels[k].inside(point)[0]]
        filled = stack.around(np.array([z]))[2][0]
        if not pair or not filled:
            assert coverage[tuple(voxel)] == EMPTY_COVERAGE and histology[tuple(voxel)] == 0
            continue
        seen += 1
        at = [stack.positions_mm[k] for k in pair]
        values = [float(levels[k].sample(point)[0]) for k in pair]
        assert histology[tuple(voxel)] == pytest.approx(np.interp(z, at, values), abs=1e-6)
        nearest = pair[int(np.argmin(np.abs(np.array(at) - z)))]
        assert coverage[tuple(voxel)] == pytest.approx(np.abs(np.array(at) - z).min(), abs=1e-6)
        assert labels[tuple(voxel)] == levels[nearest].sample_labels(point)[0]
    assert seen > 100


def test_labels_are_only_those_of_the_sections(little_stack):
    labels = fill(little_stack, 5000)[2]
    assert set(np.unique(labels)) == {0, 2, 7}


def test_thinned_level_keeps_pixels_in_place():
    rows, columns = np.mgrid[:203, :310]
    image = np.exp(-((columns - 151.0) ** 2 + (rows - 97.0) ** 2) / (2 * 30.0**2))
    level = Level(image, 0.01, 0.1, same)
    assert level.thinned == 5
    points_px = np.random.default_rng(0).uniform((-0.5, -0.5), (309.5, 202.5), size=(500, 2))
    x, y = points_px.T
    sigma2 = 30.0**2 + (10**2 - 1) / 2.355**2
    truth = 30.0**2 / sigma2 * np.exp(-((x - 151) ** 2 + (y - 97) ** 2) / (2 * sigma2))
    middle = (np.abs(x - 155) < 130) & (np.abs(y - 101) < 80)  # off the edge's background
    found = level.sample(points_px * 0.01)
    assert np.abs(found - truth)[middle].max() < 0.01
    assert level.inside(points_px * 0.01).all()
    assert not level.inside(np.array([[3.096, 0.0], [0.0, -0.0051]])).any()


def test_a_picture_read_coarsely_lies_where_the_whole_one_does():
    """Means over 4 x 4 pixels of a smooth picture, sampled at the same section mm."""
    rows, columns = np.mgrid[:160, :200].astype(np.float32)
    whole = np.sin(rows / 25) + np.cos(columns / 30)
    blocks = whole.reshape(40, 4, 50, 4).mean(axis=(1, 3))
    levels = [
        Level(whole, 0.01, 0.2, lambda p: p),
        Level(blocks, 0.01, 0.2, lambda p: p, None, Box.whole((160, 200)), (4.0, 4.0)),
    ]
    assert levels[1].thinned == 2 and levels[1].box.shape == (160, 200)
    section_mm = np.random.default_rng(0).uniform(0.4, 1.1, (500, 2))
    assert levels[1].inside(np.array([[1.99, 1.59], [2.0, 1.0]])).tolist() == [True, False]
    np.testing.assert_allclose(*(level.sample(section_mm) for level in levels), atol=0.03)


def test_a_level_ends_at_its_box():
    level = Level(np.ones((90, 80)), 0.1, 0.1, same, None, Box(20, 10, 30, 40))
    points = np.array([(2.0, 1.0), (4.94, 4.94), (1.94, 2.0), (4.96, 2.0), (3.0, 5.0), (7.0, 8.0)])
    assert level.inside(points).tolist() == [True, True, False, False, False, False]


def test_a_gap_that_other_stains_fill_is_bridged_and_one_where_sections_are_missing_is_not():
    """Every third section is of another stain; those at 16 and 18 mm are missing."""
    number = np.array([i for i in range(21) if i not in (8, 9)])
    every, own = 2.0 * number, 2.0 * number[number % 3 != 1]
    z = np.arange(0.0, 40.0, 0.1)
    alone, among = (Stack.of(own, 0.0, all_mm=a).around(z)[2] for a in ((), every))
    assert not alone[np.abs(z - 8) < 0.9].any(), "twice the local gap, as if one were missing"
    missing = (z > 14.1) & (z < 19.9)
    assert among[(z < 12) | (z > 22)].all() and not among[missing].any()
    of_one = [Stack.of(every, 0.0, all_mm=a).around(z)[2] for a in ((), every)]
    np.testing.assert_array_equal(*of_one)


def test_a_bridge_spans_up_to_two_missing_sections_and_changes_nothing_else():
    z = np.round(np.arange(-2.0, 14.0, 0.01), 2)
    positions = [0.0, 1, 2, 4, 5, 6, 9, 10, 11]  # 3, then 7 and 8 are missing
    plain = Stack.of(positions, 0.0).around(z)
    _, towards_upper, filled, bridged = Stack.of(positions, 0.0, bridge=True).around(z)
    np.testing.assert_array_equal(filled & ~bridged, plain[2])
    np.testing.assert_array_equal(towards_upper, plain[1])
    slabs = ((z > 2.5) & (z < 3.5)) | ((z > 6.5) & (z < 8.5))
    np.testing.assert_array_equal(bridged, slabs)
    assert not plain[3].any() and not filled[(z < -0.51) | (z > 11.51)].any()
    wide = Stack.of([0.0, 1, 2, 6, 7, 8], 0.0, bridge=True).around(z)
    assert not wide[3].any(), "three missing sections are more than their neighbours know of"


def test_a_bridged_gap_is_the_mean_of_its_sides_and_says_so(little_stack):
    positions = [0.0, 1, 3, 4, 5, 6]
    levels = little_stack[1]
    stack = Stack.of(positions, 0.0, bridge=True)
    grid = np.diag([0.5, 0.5, 1.0, 1.0])
    part = (slice(0, 20), slice(0, 30), slice(0, 6))
    histology, coverage, labels = fill_slab(
        part, (20, 30, 6), grid, stack, levels, with_labels=True
    )
    between = (levels[1].image[:30, :20].T + levels[2].image[:30, :20].T) / 2
    np.testing.assert_allclose(histology[..., 2], between, atol=1e-6)
    assert (coverage[..., 2] == BRIDGED_COVERAGE).all() and not labels[..., 2].any()
    plain = fill_slab(part, (20, 30, 6), grid, Stack.of(positions, 0.0), levels, with_labels=True)
    others = [0, 1, 3, 4, 5]
    for ours, theirs in zip((histology, coverage, labels), plain, strict=True):
        np.testing.assert_array_equal(ours[..., others], theirs[..., others])
    assert (plain[1][..., 2] == EMPTY_COVERAGE).all() and not plain[0][..., 2].any()
