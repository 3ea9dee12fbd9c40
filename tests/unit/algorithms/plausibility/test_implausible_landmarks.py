"""Landmarks in other units and axes than they should have: what is said of each."""

from dataclasses import replace

import numpy as np
import pytest

from sbr_core.algorithms.plausibility import landmarks, outlines
from sbr_core.artifacts.rows import Looked
from sbr_core.geometry import apply, orientation_matrix
from sbr_core.io.manifests import Landmark

PIXEL_MM, ROWS, COLUMNS = 0.25, 480, 640
LETTERS = "LIA"
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = -70, -90, -60
INDEX = np.stack(np.meshgrid(*map(np.arange, (70, 90, 60)), indexing="ij"), -1)
WORLD = apply(AFFINE, INDEX)
# a brain that is not centred at 0, as few are
BRAIN = np.linalg.norm((WORLD - [4, -18, 12]) / [52, 60, 40], axis=-1) < 1
EXTENT_MM = np.array([104.0, 120.0, 80.0])
SECTIONS = {f"s{i}": 15.0 * i for i in range(6)}  # positions


def looked(section):
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    tissue = ((rows - 230) / 165) ** 2 + ((columns - 330) / 220) ** 2 < 1
    return Looked(
        section=section,
        position_mm=SECTIONS[section],
        pixel_size_mm=PIXEL_MM,
        file_rows=ROWS,
        file_columns=COLUMNS,
        tissue_mm2=1.0,
        width_mm=110.0,
        height_mm=82.5,
        cells=outlines.cells_of(tissue),
    )


LOOKED = {section: looked(section) for section in SECTIONS}


def right_marks(n=24, seed=0):
    """Landmarks as they should be: section mm and RAS mm of points of one stack."""
    rng = np.random.default_rng(seed)
    marks = []
    for i in range(n):
        section = f"s{i % 6}"
        off = rng.uniform(-0.6, 0.6, 2) * [50, 37]
        at = np.array([330, 230]) * PIXEL_MM + off
        stack = np.array([*off, SECTIONS[section] - 37.5])
        world = orientation_matrix(LETTERS) @ stack * 0.95 + [4, -18, 12] + rng.normal(0, 1.5, 3)
        marks.append(Landmark(section, tuple(at), tuple(world)))
    return marks


def section_points(change):
    return [replace(m, section_mm=tuple(change(np.array(m.section_mm)))) for m in right_marks()]


def mri_points(change):
    return [replace(m, mri_mm=tuple(change(np.array(m.mri_mm)))) for m in right_marks()]


def test_right_landmarks_are_fine():
    marks = right_marks()
    assert landmarks.judge_on_sections(marks, LOOKED).verdict == "fine"
    assert landmarks.judge_in_mri(marks, BRAIN, AFFINE).verdict == "fine"
    assert landmarks.judge_directions(marks, LOOKED, LETTERS, EXTENT_MM) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p / PIXEL_MM, "pixels"),
        (lambda p: p * 1000, "micrometres"),
        (lambda p: p / 10, "centimetres"),
    ],
)
def test_another_unit_on_sections_is_refused_by_name(change, reason):
    found = landmarks.judge_on_sections(section_points(change), LOOKED)
    assert found.verdict != "fine" and reason in found.words


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: apply(np.linalg.inv(AFFINE), p), "voxels"),
        (lambda p: p * 1000, "micrometres"),
        (lambda p: p / 1000, "in the brain of the MRI"),  # all in one place, and in the brain
    ],
)
def test_another_unit_in_the_mri_is_named(change, reason):
    found = landmarks.judge_in_mri(mri_points(change), BRAIN, AFFINE)
    assert reason in found.words
    assert (found.verdict == "refused") == (reason != "in the brain of the MRI")


@pytest.mark.parametrize(
    ("signs", "reason"),
    [
        ([-1, -1, 1], "LPS"),
        ([-1, 1, 1], "x mirrored, or orientation is that of the mirror image"),
        ([1, -1, 1], "y mirrored"),
        ([1, 1, -1], "z mirrored"),
    ],
)
def test_mirrored_axes_are_told_by_the_letters(signs, reason):
    marks = mri_points(lambda p: p * signs)
    found = landmarks.judge_directions(marks, LOOKED, LETTERS, EXTENT_MM)
    assert found.verdict == "refused" and reason in found.words
    # nothing can be told without letters, or by a few points
    assert landmarks.judge_directions(marks, LOOKED, "auto", EXTENT_MM) is None
    assert landmarks.judge_directions(marks[:3], LOOKED, LETTERS, EXTENT_MM) is None


def test_points_along_a_diagonal_tell_no_axis_from_another():
    """Every coordinate grows with every other, so which goes with which is up to chance."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        marks = []
        for i, section in enumerate(SECTIONS):
            off = np.array([50, 37]) * (i - 2.5) / 4
            stack = np.array([*off, SECTIONS[section] - 37.5])
            world = orientation_matrix(LETTERS) @ stack + rng.normal(0, 3, 3)
            at = np.array([330, 230]) * PIXEL_MM + off
            marks.append(Landmark(section, tuple(at), tuple(world)))
        assert landmarks.judge_directions(marks, LOOKED, LETTERS, EXTENT_MM) is None


def test_mirrored_sections_are_seen_through_their_flip():
    """Points are on the file, which the manifest flips: so are their directions."""
    width_mm = (COLUMNS - 1) * PIXEL_MM
    marks = section_points(lambda p: np.array([width_mm - p[0], p[1]]))
    flipped = {name: replace(row, flip="lr") for name, row in LOOKED.items()}
    assert landmarks.judge_directions(marks, flipped, LETTERS, EXTENT_MM) is None
    assert landmarks.judge_directions(marks, LOOKED, LETTERS, EXTENT_MM).verdict == "refused"


def test_sections_of_one_picture_are_each_seen_in_their_box():
    """Where they lie on the slide says nothing of where they lie in the brain."""
    slide = {
        name: replace(row, file_columns=6 * COLUMNS, box_px=f"{i * COLUMNS} 0 {COLUMNS} {ROWS}")
        for i, (name, row) in enumerate(reversed(LOOKED.items()))
    }

    def on_slide(marks):
        return [
            replace(m, section_mm=(m.section_mm[0] + left * PIXEL_MM, m.section_mm[1]))
            for m in marks
            for left in [int(slide[m.section].box_px.split()[0])]
        ]

    assert landmarks.judge_directions(on_slide(right_marks()), slide, LETTERS, EXTENT_MM) is None
    mirrored = on_slide(mri_points(lambda p: p * [-1, 1, 1]))
    assert "x mirrored" in landmarks.judge_directions(mirrored, slide, LETTERS, EXTENT_MM).words


def test_swapped_axes_are_named():
    marks = mri_points(lambda p: p[[1, 0, 2]])
    found = landmarks.judge_directions(marks, LOOKED, LETTERS, EXTENT_MM)
    assert found.verdict == "refused" and "y, x, z" in found.words


def test_one_odd_landmark_is_a_doubt_with_its_row():
    marks = right_marks()
    marks[4] = replace(marks[4], section_mm=(400.0, 3.0), mri_mm=(900.0, 0.0, 0.0))
    on_section = landmarks.judge_on_sections(marks, LOOKED)
    in_mri = landmarks.judge_in_mri(marks, BRAIN, AFFINE)
    assert on_section.verdict == in_mri.verdict == "doubtful"
    assert "landmark 5 of section s4" in on_section.words and "landmark 5 (900" in in_mri.words


def test_points_of_planes_lie_near_those_of_sections():
    def with_planes(change):
        marks = right_marks()
        return [replace(m, plane_mm=tuple(change(np.array(m.section_mm) + 1.5))) for m in marks]

    assert landmarks.judge_in_plane(with_planes(lambda p: p), LOOKED).verdict == "fine"
    found = landmarks.judge_in_plane(with_planes(lambda p: p / PIXEL_MM), LOOKED)
    assert found.verdict == "refused" and "pixels" in found.words
