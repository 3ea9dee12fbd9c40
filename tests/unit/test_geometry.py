"""Conventions of space: checked against numpy, nibabel and by hand."""

import math

import nibabel as nib
import numpy as np
import pytest

from sbr_core import geometry


@pytest.mark.parametrize(
    ("letters", "determinant"), [("LIA", -1), ("RAS", 1), ("LPS", 1), ("RSA", -1), ("PIR", 1)]
)
def test_orientation_has_the_right_handedness(letters, determinant):
    matrix = geometry.orientation_matrix(letters)
    assert round(np.linalg.det(matrix)) == determinant
    affine = np.eye(4)
    affine[:3, :3] = matrix
    assert "".join(nib.aff2axcodes(affine)) == letters


@pytest.mark.parametrize("letters", ["", "LI", "LRA", "XYZ", "LIAS", "auto"])
def test_orientation_refuses_what_names_no_three_axes(letters):
    with pytest.raises(ValueError, match="three letters"):
        geometry.orientation_matrix(letters)


def _moved(image, flip, rotate_deg):
    """The image turned by `upright_from_file`, for maps that send pixels to pixels."""
    matrix, shape = geometry.upright_from_file(image.shape, flip, rotate_deg)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    to = geometry.apply(matrix, np.stack([columns, rows], -1).astype(float))
    assert np.array_equal(to, np.round(to))
    moved = np.full(shape, -1)
    moved[to[..., 1].astype(int), to[..., 0].astype(int)] = image
    return moved


@pytest.mark.parametrize("quarter_turns", [-1, 0, 1, 2, 3, 5])
@pytest.mark.parametrize("flip", ["none", "lr", "ud"])
def test_flips_and_quarter_turns_are_numpys(flip, quarter_turns):
    image = np.arange(15).reshape(3, 5)  # not square, so rows and columns cannot be mistaken
    flipped = {"none": image, "lr": np.fliplr(image), "ud": np.flipud(image)}[flip]
    turned = np.rot90(flipped, quarter_turns)  # numpy turns counter-clockwise as displayed
    np.testing.assert_array_equal(_moved(image, flip, 90.0 * quarter_turns), turned)


def test_a_free_turn_keeps_the_centre_and_holds_the_whole_image():
    matrix, shape = geometry.upright_from_file((30, 50), "lr", 33.0)
    centre = geometry.apply(matrix, np.array([24.5, 14.5]))
    np.testing.assert_allclose(centre, [(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    edges = np.array([[-0.5, -0.5], [49.5, -0.5], [-0.5, 29.5], [49.5, 29.5]])
    corners = geometry.apply(matrix, edges)
    assert corners.min() >= -0.5 - 1e-9
    assert (corners <= np.array([shape[1], shape[0]]) - 0.5 + 1e-9).all()


def test_a_turn_by_45_degrees_lifts_the_right_side():
    matrix, shape = geometry.upright_from_file((11, 11), "none", 45.0)
    right_end = geometry.apply(matrix, np.array([10.0, 5.0]))
    centre = (np.array(shape[::-1]) - 1) / 2
    along = 5 / math.sqrt(2)
    np.testing.assert_allclose(right_end - centre, [along, -along])  # up is towards row 0


def test_unknown_flip_is_refused():
    with pytest.raises(ValueError, match="flip 'x'"):
        geometry.upright_from_file((2, 2), "x")


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0, 2.5, 0.5])
def test_downsampling_keeps_the_outer_edge(scale):
    matrix, shape = geometry.file_px_from_working_px((12, 18), 0.1, 0.1 * scale)
    np.testing.assert_allclose(geometry.apply(matrix, np.zeros(2)), (scale - 1) / 2)
    np.testing.assert_allclose(geometry.apply(matrix, np.full(2, -0.5)), -0.5, atol=1e-12)
    assert shape == (math.ceil(12 / scale - 1e-6), math.ceil(18 / scale - 1e-6))


def test_section_mm_is_the_same_map_in_millimetres():
    in_px, _ = geometry.file_px_from_working_px((40, 60), 0.2, 0.7, "ud", 20.0)
    in_mm = geometry.section_mm_from_working_mm(in_px, 0.2, 0.7)
    working_px = np.array([[3.0, 4.0], [0.0, 0.0], [7.5, 2.25]])
    np.testing.assert_allclose(
        geometry.apply(in_mm, 0.7 * working_px), 0.2 * geometry.apply(in_px, working_px)
    )
    assert np.isclose(abs(np.linalg.det(in_mm)), 1.0)  # millimetres stay millimetres


def test_apply_refuses_points_of_another_dimension():
    with pytest.raises(ValueError, match="does not map"):
        geometry.apply(np.eye(3), np.zeros((5, 3)))


def test_plane_grid_reaches_as_far_at_another_spacing():
    grid = geometry.PlaneGrid((31, 41), 0.5)
    np.testing.assert_allclose(
        geometry.apply(grid.plane_mm_from_px, np.array([40, 30])), [20.0, 15.0]
    )
    for spacing in (0.1, 0.3, 0.5, 0.7):
        other = grid.at_spacing(spacing)
        for ours, theirs in zip(grid.shape, other.shape, strict=True):
            assert (theirs - 1) * spacing >= (ours - 1) * 0.5 - 1e-9
            assert (theirs - 2) * spacing < (ours - 1) * 0.5
    assert grid.at_spacing(0.5) == grid


def test_similarity_scale_takes_reflections_and_refuses_shear():
    turn = np.eye(4)
    turn[:3, :3] = 1.3 * geometry.orientation_matrix("LIA")
    assert np.isclose(geometry.similarity_scale(turn), 1.3)
    turn[0, 1] = 0.2
    with pytest.raises(ValueError, match="not a similarity"):
        geometry.similarity_scale(turn)
