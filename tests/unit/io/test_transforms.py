"""Transform files; that ITK maps the same points is judged in tests/laws."""

import numpy as np
import pytest
import SimpleITK as sitk

from sbr_core.artifacts.names import SECTION_TO_STACK, STACK_TO_SECTION
from sbr_core.errors import ImageError
from sbr_core.io import transforms


def test_names_say_what_is_resampled_onto_what(tmp_path):
    to_stack = tmp_path / f"012{SECTION_TO_STACK}"
    assert to_stack.name == "012_from-section_to-stack_mode-image_xfm.h5"
    to_section = tmp_path / f"012{STACK_TO_SECTION}"
    assert to_section.name == "012_from-stack_to-section_mode-image_xfm.h5"


def test_a_field_is_linear_between_pixels_for_one_point_or_many():
    disp_mm = np.zeros((3, 4, 2))
    disp_mm[1, 2] = 1.0, -2.0
    field = transforms.PlaneField(disp_mm, 0.5)
    np.testing.assert_allclose(field.map(np.array([1.0, 0.5])), [2.0, -1.5])
    np.testing.assert_allclose(field.map(np.array([1.25, 0.5])), [1.75, -0.5])
    grid = np.random.default_rng(0).uniform(0, 1, (5, 6, 2))
    assert field.map(grid).shape == (5, 6, 2)
    np.testing.assert_allclose(field.map(grid)[2, 3], field.map(grid[2, 3]))


def test_mapping_changes_neither_its_input_nor_the_transform():
    field = transforms.PlaneField(np.ones((4, 4, 2)), 1.0)
    chain = transforms.SectionTransform((field, np.diag([2.0, 2.0, 1.0])))
    points = np.ones((3, 2))
    first = chain.map(points)
    np.testing.assert_array_equal(points, 1.0)
    np.testing.assert_array_equal(chain.map(points), first)


def test_a_read_composite_has_the_steps_that_were_written(tmp_path):
    field = transforms.PlaneField(np.random.default_rng(1).normal(size=(4, 5, 2)), 0.3, (1.0, 2.0))
    affine = np.array([[1.0, 0.2, 3.0], [-0.1, 0.9, 4.0], [0, 0, 1]])
    path = tmp_path / "t.h5"
    transforms.write_section_transform(path, transforms.SectionTransform((affine, field)))
    first, second = transforms.read_section_transform(path).steps
    np.testing.assert_allclose(first, affine)
    np.testing.assert_allclose(second.disp_mm, field.disp_mm)
    assert (second.spacing_mm, tuple(second.origin_mm)) == (0.3, (1.0, 2.0))
    assert [f.name for f in tmp_path.iterdir()] == ["t.h5"]


def test_files_that_are_no_transforms_are_refused(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        transforms.read_section_transform(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("no transform")
    with pytest.raises(ImageError, match=r"text.h5: not readable as an ITK transform"):
        transforms.read_section_transform(tmp_path / "text.h5")
    sitk.WriteTransform(sitk.AffineTransform(2), str(tmp_path / "flat.txt"))
    with pytest.raises(ImageError, match="expected a 3D affine"):
        transforms.read_stack_from_world(tmp_path / "flat.txt")


@pytest.mark.parametrize(
    "damage", ["0.9 0 0 0 1 0 0 0 1", "0 0 0 0 0 0 0 0 0", "nan 0 0 0 1 0 0 0 1"]
)
def test_an_affine_that_is_no_similarity_is_refused(tmp_path, damage):
    path = tmp_path / "x.txt"
    transforms.write_stack_from_world(path, np.eye(4))
    (tmp_path / ".sums" / "x.txt.json").unlink()
    head, _, tail = path.read_text().partition("Parameters: ")
    path.write_text(f"{head}Parameters: {damage} 0 0 0\n" + tail.partition("\n")[2])
    with pytest.raises(ImageError, match="x.txt: (expected a similarity|not readable)"):
        transforms.read_stack_from_world(path)
