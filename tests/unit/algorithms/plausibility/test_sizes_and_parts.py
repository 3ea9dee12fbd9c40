"""Stacks beside the brain of an MRI: sizes, positions, halves."""

from dataclasses import replace

import numpy as np
import pytest

from sbr_core.algorithms.plausibility import halves, sizes
from sbr_core.artifacts.rows import Looked
from sbr_core.geometry import apply, orientation_matrix

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = -80, -100, -70
INDEX = np.stack(np.meshgrid(*map(np.arange, (41, 51, 36)), indexing="ij"), -1)
WORLD = apply(AFFINE, INDEX)
R = np.linalg.norm(WORLD / [68, 85, 60], axis=-1)
MASK = R < 1
BRAIN = sizes.Brain.of(MASK, AFFINE)


def stack(width_mm=136.0, height_mm=120.0, positions=tuple(range(-70, 75, 10)), **fields):
    """Sections of an ellipsoid; fewer tissue towards its ends."""
    rows = []
    for position in positions:
        share = float(np.sqrt(max(0.05, 1 - (position / 85) ** 2)))
        rows.append(
            Looked(
                section=f"s{len(rows)}",
                position_mm=float(position),
                pixel_size_mm=0.5,
                file_rows=400,
                file_columns=500,
                tissue_mm2=np.pi / 4 * width_mm * height_mm * share**2,
                width_mm=width_mm * share,
                height_mm=height_mm * share,
                cells="",
                **fields,
            )
        )
    return rows


def scaled(rows, factor):
    return [
        replace(row, width_mm=row.width_mm * factor, height_mm=row.height_mm * factor)
        for row in rows
    ]


def test_brain_of_a_mask_is_that_ellipsoid():
    assert BRAIN.volume_mm3 == pytest.approx(4 / 3 * np.pi * 68 * 85 * 60, rel=0.03)
    assert BRAIN.extent_mm == pytest.approx([136, 170, 120], rel=0.05)


@pytest.mark.parametrize("shrinkage", [0.75, 1.0, 1.1])
def test_whole_sections_are_fine(shrinkage):
    rows = scaled(stack(), shrinkage)
    assert sizes.judge_sizes(rows, BRAIN).verdict == "fine"
    assert halves.judge_part(rows, BRAIN, "LIA").verdict == "fine"
    assert halves.judge_part(rows, BRAIN, "auto").verdict == "fine"
    assert [f.verdict for f in sizes.judge_sections(rows)] == ["fine"]


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1000, "refused"), (1e-3, "refused"), (2, "doubtful"), (0.1, "refused"), (0.25, "doubtful")],
)
def test_both_directions_of_a_wrong_unit_are_seen(factor, verdict):
    assert sizes.judge_sizes(scaled(stack(), factor), BRAIN).verdict == verdict


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1, "fine"), (1000, "refused"), (3, "doubtful"), (1e-3, "doubtful")]
)
def test_positions_are_compared_with_the_brain(factor, verdict):
    rows = [replace(row, position_mm=row.position_mm * factor) for row in stack()]
    assert sizes.judge_positions(rows, BRAIN, in_order=False).verdict == verdict
    assert sizes.judge_positions(rows, BRAIN, in_order=True).verdict == "fine"


@pytest.mark.parametrize(
    ("n_several", "times", "poles"),
    [(1, 1.0, True), (2, 0.6, True), (1, 2.0, False), (4, 1, False)],
)
def test_pieces_at_poles_have_no_more_tissue_than_the_sections_beside(n_several, times, poles):
    rows, several = stack(), range(6, 6 + n_several)
    for index in several:
        area = rows[index].tissue_mm2 * times
        rows[index] = replace(rows[index], tissue_mm2=area, doubts={"pictures": "shows 2 pieces"})
    assert sizes.through_poles(rows) == ({f"s{i}" for i in several} if poles else set())


@pytest.mark.parametrize(
    ("name", "doubtful"),
    [
        ("slice_{:03g}", True),
        ("a2_{:g}b", True),  # the last number counts
        ("{:g}_1", False),
        ("s{:.2f}", False),  # millimetres: 80.50
        ("section", False),
    ],
)
def test_positions_that_are_the_numbers_in_the_names_are_doubtful(name, doubtful):
    rows = [
        replace(row, section=name.format(80 + 2 * at), position_mm=80.0 + 2 * at)
        for at, row in enumerate(stack())
    ]
    found = sizes.judge_positions(rows, BRAIN, in_order=False)
    assert (found.verdict == "doubtful") == doubtful
    if doubtful:
        assert "numbers of sections?" in found.words
        # a made stack at other distances
        apart = [replace(row, position_mm=row.position_mm * 0.4) for row in rows]
        assert sizes.judge_positions(apart, BRAIN, in_order=False).verdict == "fine"
    assert sizes.judge_positions(rows[:4], BRAIN, in_order=False).verdict == "fine"


def test_one_row_of_another_unit_is_named():
    rows = stack()
    rows[5] = replace(rows[5], width_mm=rows[5].width_mm * 10, pixel_size_mm=5.0)
    (found,) = sizes.judge_sections(rows)
    assert found.verdict == "doubtful" and "s5" in found.words and "s4" not in found.words


def test_oblong_pixels_are_named():
    rows = [replace(row, pixel_aspect=2.0) for row in stack()]
    (found,) = sizes.judge_sections(rows)
    assert found.verdict == "doubtful" and "not square" in found.words


@pytest.mark.parametrize(
    ("letters", "cut_left", "side"),
    [
        ("LIA", True, "left"),
        ("LIA", False, "right"),
        ("RIA", True, "right"),
        ("RSP", False, "left"),
    ],
)
def test_one_hemisphere_is_recognised_and_named(letters, cut_left, side):
    """The midline is where it was cut: columns of LIA run to the left, away from it."""
    uneven = (0.002, 0.03, 0.04, 0.04) if cut_left else (0.03, 0.002, 0.04, 0.04)
    found = halves.judge_part(stack(width_mm=68.0, unevenness=uneven), BRAIN, letters)
    assert found.verdict == "doubtful" and f"the {side} hemisphere" in found.words
    assert "sbr half-mask" in found.words
    round_sides = stack(width_mm=68.0, unevenness=(0.03,) * 4)
    assert "one hemisphere" in halves.judge_part(round_sides, BRAIN, letters).words


def test_without_letters_only_what_fits_no_way_round_is_doubtful():
    """Half a coronal section is shaped like a whole one in another direction."""
    assert halves.judge_part(stack(width_mm=66.0), BRAIN, "auto").verdict == "fine"
    assert halves.judge_part(stack(width_mm=40.0), BRAIN, "auto").verdict == "doubtful"


def test_a_slab_of_whole_sections_is_no_part():
    """A few sections of the middle, or of one end."""
    assert halves.judge_part(stack(positions=range(-20, 25, 5)), BRAIN, "LIA").verdict == "fine"
    assert halves.judge_part(stack(positions=range(55, 80, 5)), BRAIN, "LIA").verdict == "fine"


@pytest.mark.parametrize("letters", ["LIA", "RSP", "LAS"])
@pytest.mark.parametrize("stretch", [1.0, 1.5])
def test_planes_are_those_of_the_ellipsoid_however_the_pose_is_stretched(letters, stretch):
    pose = np.eye(4)
    pose[:3, :3] = orientation_matrix(letters) @ np.diag([stretch, 1, 1])
    axes = {"LIA": (68, 60, 85), "RSP": (68, 60, 85), "LAS": (68, 85, 60)}[letters]
    positions = np.arange(-40.0, 41.0, 10.0)
    planes = halves.planes_of_brain(MASK, AFFINE, np.linalg.inv(pose), positions)
    share = 1 - (positions / axes[2]) ** 2
    assert planes.area_mm2 == pytest.approx(np.pi * axes[0] * axes[1] * share, rel=0.06)
    expected = 2 * np.array(axes[:2]) * np.sqrt(share)[:, None]
    assert planes.extent_mm == pytest.approx(expected, rel=0.07)


def test_part_of_the_planes_is_said_and_shrunken_tissue_is_not():
    area = np.array([100.0, 400, 500, 400, 100])
    box = np.column_stack([np.sqrt(area), np.sqrt(area)])
    planes = halves.Planes(area, box)
    share, words = halves.doubt_of_planes(area / 2, planes, box * [0.5, 1])
    assert share == pytest.approx(0.5) and "half-mask" in words
    assert halves.doubt_of_planes(area * 0.65, planes, box * [0.65, 1])[1], "a block"
    assert halves.doubt_of_planes(area * 0.6, planes, box * 0.78)[1] == "", "shrunken"
    assert halves.doubt_of_planes(area * 0.9, planes, box)[1] == "", "torn"
    assert halves.doubt_of_planes(area, halves.Planes(area * 0, box))[1] == ""


@pytest.mark.parametrize(("side", "turn_deg"), [("left", 8), ("right", -5)])
def test_half_mask_is_cut_at_the_midline(side, turn_deg):
    """Of a head that lies askew and off the middle, alike on both sides."""
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    local = (WORLD - [6, 3, -2]) @ turn
    x, y, z = np.moveaxis(local, -1, 0)
    mask = np.linalg.norm(local / [55, 75, 50], axis=-1) < 1
    values = 1 + (np.hypot(np.abs(x) - 25, z) < 15) - 0.5 * (np.hypot(np.abs(x) - 12, y - 30) < 9)
    half = halves.half_mask(mask, values.astype(np.float32), AFFINE, side)
    truth = mask & ((x > 0) if side == "right" else (x < 0))
    assert np.count_nonzero(half & truth) > 0.97 * np.count_nonzero(truth)
    assert np.count_nonzero(half & ~truth) < 0.03 * np.count_nonzero(truth)
