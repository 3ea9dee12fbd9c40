"""Laws of space: what any tool that reads our files must find.

Independent readers (SimpleITK, nibabel) judge the files; closed forms judge the sampling.
"""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from sbr_core import geometry
from sbr_core.algorithms.sections import area_vote, grid_px, prefilter, resample_section
from sbr_core.artifacts.names import SECTION_TO_STACK
from sbr_core.io import transforms
from sbr_core.io.volumes import Volume, read_plane, read_volume, write_plane, write_volume


def _rotation(*degrees):
    """3x3 rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        a, b = [i for i in range(3) if i != axis]
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        matrix = turn @ matrix
    return matrix


def _affine(linear, origin):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, origin
    return affine


WORLDS = {
    "RAS": _affine(np.diag([1.0, 1.2, 0.8]), [-10, 5, 3]),
    "LAS": _affine(np.diag([-1.0, 1.2, 0.8]), [10, 5, 3]),
    "LPS": _affine(np.diag([-1.0, -1.2, 0.8]), [10, -5, 3]),
    "LIA": _affine(geometry.orientation_matrix("LIA") * 0.5, [1, 2, 3]),
    "oblique": _affine(_rotation(20, -15, 35) @ np.diag([0.5, 0.7, 2.0]), [-40, 12.5, 7]),
    "oblique LIA": _affine(_rotation(12, 8, -9) @ geometry.orientation_matrix("LIA"), [9, -8, 7]),
}


@pytest.mark.parametrize("name", WORLDS)
def test_a_voxel_has_one_place_in_the_world_for_nibabel_simpleitk_and_us(name, tmp_path):
    world_from_voxel = WORLDS[name]
    data = np.random.default_rng(0).random((5, 6, 7), np.float32)
    path = tmp_path / "volume.nii.gz"
    write_volume(path, Volume(data, world_from_voxel))

    ours = read_volume(path)
    np.testing.assert_array_equal(ours.data, data)
    np.testing.assert_allclose(ours.world_from_voxel, world_from_voxel, atol=1e-5)
    header = nib.load(path).header
    np.testing.assert_allclose(header.get_qform(), world_from_voxel, atol=1e-5)
    np.testing.assert_allclose(header.get_sform(), world_from_voxel, atol=1e-5)

    itk = sitk.ReadImage(str(path))
    for voxel in ([0, 0, 0], [4, 0, 0], [1, 5, 0], [2, 3, 6]):
        ras = geometry.apply(world_from_voxel, np.array(voxel, float))
        lps = np.array(itk.TransformIndexToPhysicalPoint(voxel))
        np.testing.assert_allclose(lps * [-1, -1, 1], ras, atol=1e-4)
        assert itk[tuple(voxel)] == pytest.approx(float(data[tuple(voxel)]))


@pytest.mark.parametrize("letters", ["LIA", "RAS"])
def test_stack_from_world_maps_the_same_points_in_simpleitk(letters, tmp_path):
    world_from_stack = _affine(
        1.07 * _rotation(10, -20, 5) @ geometry.orientation_matrix(letters), [4, 5, -6]
    )
    stack_from_world = np.linalg.inv(world_from_stack)
    path = tmp_path / "from-stack_to-mri_mode-image_xfm.txt"
    transforms.write_stack_from_world(path, stack_from_world)

    itk = sitk.ReadTransform(str(path))
    for world in np.random.default_rng(1).normal(size=(5, 3)) * 40:
        expected = geometry.apply(stack_from_world, world)
        found = itk.TransformPoint((world * [-1, -1, 1]).tolist())  # MRI side is LPS
        np.testing.assert_allclose(found, expected, atol=1e-9)  # stack side is ITK's own
    again = transforms.read_stack_from_world(path)
    np.testing.assert_allclose(again, stack_from_world, atol=1e-12)
    sign = -1 if letters == "LIA" else 1  # a left-handed stack stays left-handed
    assert np.sign(np.linalg.det(again)) == sign
    assert np.isclose(geometry.similarity_scale(again), 1 / 1.07)


def _smooth_field_mm(shape, size_mm, seed=0):
    """(rows, columns, 2) smooth displacement that is zero at the edge of the grid."""
    rng = np.random.default_rng(seed)
    field = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 5) for _ in (0, 1)], -1)
    taper = np.minimum.outer(*(np.sin(np.linspace(0, np.pi, n)) for n in shape))
    field *= taper[..., None]
    return field * size_mm / np.abs(field).max()


def _section_transform(shape=(40, 50), spacing_mm=0.7, **kwargs):
    angle = np.radians(25)
    affine = np.array(
        [
            [1.1 * np.cos(angle), -0.9 * np.sin(angle), 3.0],
            [1.05 * np.sin(angle), np.cos(angle), -2.0],
            [0, 0, 1],
        ]
    )
    flip = np.diag([-1.0, 1.0, 1.0])
    field = transforms.PlaneField(_smooth_field_mm(shape, 2.0), spacing_mm, **kwargs)
    return transforms.SectionTransform((field, affine, flip))


@pytest.mark.parametrize("origin_mm", [(0.0, 0.0), (-3.0, 4.5)])
def test_a_composite_maps_the_same_points_in_simpleitk_and_after_reading(origin_mm, tmp_path):
    transform = _section_transform(origin_mm=origin_mm)
    path = tmp_path / f"s1{SECTION_TO_STACK}"
    transforms.write_section_transform(path, transform)
    rng = np.random.default_rng(2)
    points = rng.uniform([0, 0], [49 * 0.7, 39 * 0.7], (50, 2)) + origin_mm
    expected = transform.map(points)

    itk = sitk.ReadTransform(str(path))
    found = [itk.TransformPoint(p.tolist()) for p in points]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(
        transforms.read_section_transform(path).map(points), expected, atol=1e-9
    )


def test_steps_apply_in_order_and_the_order_matters():
    move, grow = geometry.translation(10.0, 0.0), geometry.scaling(2.0)
    point = np.array([1.0, 1.0])
    np.testing.assert_allclose(transforms.SectionTransform((move, grow)).map(point), [22, 2])
    np.testing.assert_allclose(transforms.SectionTransform((grow, move)).map(point), [12, 2])
    composed = transforms.SectionTransform((grow @ move,)).map(point)
    np.testing.assert_allclose(composed, [22, 2])


def test_a_field_ends_where_itks_ends(tmp_path):
    field = transforms.PlaneField(np.full((5, 5, 2), 3.0), 1.0)
    path = tmp_path / "field.h5"
    transforms.write_section_transform(path, transforms.SectionTransform((field,)))
    itk = sitk.ReadTransform(str(path))
    for point in ([2.0, 2.0], [-0.4, 2.0], [1.0, 4.4], [-0.6, 2.0], [4.5, 1.0], [2.0, 7.0]):
        np.testing.assert_allclose(itk.TransformPoint(point), field.map(np.array(point)))


def test_the_identity_changes_no_pixel():
    image = np.random.default_rng(3).random((9, 13), np.float32)
    np.testing.assert_allclose(resample_section(image, grid_px(image.shape)), image, atol=1e-7)


def test_an_affine_there_and_back_returns_every_point():
    matrix, shape = geometry.file_px_from_working_px((90, 70), 0.2, 0.5, "ud", 77.0)
    back = geometry.apply(np.linalg.inv(matrix), geometry.apply(matrix, grid_px(shape)))
    np.testing.assert_allclose(back, grid_px(shape), atol=1e-9)


def test_our_resampling_is_simpleitks_through_the_written_files(tmp_path):
    """A section plane resampled through its composite: one chain, two implementations."""
    rng = np.random.default_rng(4)
    section_mm_per_px, plane_shape, plane_spacing_mm = 0.4, (40, 50), 0.7
    section = ndimage.gaussian_filter(rng.random((70, 90)), 2).astype(np.float32)
    write_plane(tmp_path / "section.nii.gz", section, section_mm_per_px)
    transform = _section_transform(plane_shape, plane_spacing_mm)
    # the affine step of the sample flips x; bring the result back into the section
    shift = geometry.translation(32.0, 0.0)
    transform = transforms.SectionTransform((*transform.steps, shift))
    path = tmp_path / f"s1{SECTION_TO_STACK}"
    transforms.write_section_transform(path, transform)

    plane_mm = grid_px(plane_shape) * plane_spacing_mm
    file_px = transform.map(plane_mm) / section_mm_per_px
    ours = resample_section(section, file_px)

    write_plane(tmp_path / "plane.nii.gz", np.zeros(plane_shape, np.float32), plane_spacing_mm)
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(
            sitk.ReadImage(str(tmp_path / "section.nii.gz")),
            sitk.ReadImage(str(tmp_path / "plane.nii.gz")),
            sitk.ReadTransform(str(path)),
            sitk.sitkLinear,
            0.0,
        )
    )
    last = np.array(section.shape[::-1]) - 1
    inside = np.all((file_px > 0) & (file_px < last), axis=-1)
    assert inside.mean() > 0.4
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-5)
    outside = np.any((file_px < -0.5) | (file_px > last + 0.5), axis=-1)
    assert outside.any()
    assert not ours[outside].any()
    assert not theirs[outside].any()


def test_itk_reads_a_plane_in_plane_millimetres(tmp_path):
    plane = np.random.default_rng(5).random((6, 9), np.float32)
    write_plane(tmp_path / "plane.nii.gz", plane, 0.3)
    itk = sitk.ReadImage(str(tmp_path / "plane.nii.gz"))
    assert itk.GetDimension() == 2
    assert itk.GetSize() == (9, 6)
    np.testing.assert_allclose(itk.TransformIndexToPhysicalPoint([4, 2]), [1.2, 0.6], atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk), plane)
    again, spacing_mm = read_plane(tmp_path / "plane.nii.gz")
    np.testing.assert_array_equal(again, plane)
    assert spacing_mm == pytest.approx(0.3)


def _dot(shape, column, row, sigma):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize("flip", ["none", "lr", "ud"])
@pytest.mark.parametrize("rotate_deg", [0.0, 90.0, 180.0, 30.0, -77.0])
@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_a_dot_in_a_flipped_turned_downsampled_section_lands_where_it_belongs(
    flip, rotate_deg, sigma
):
    """Within 0.1 working px, even for a dot much smaller than a working pixel."""
    shape, column, row = (91, 140), 84.0, 37.0
    image = _dot(shape, column, row, sigma)
    matrix, working_shape = geometry.file_px_from_working_px(shape, 0.1, 0.3, flip, rotate_deg)
    file_px = geometry.apply(matrix, grid_px(working_shape))
    working = resample_section(prefilter(image, 3.0), file_px)
    found = np.array(ndimage.center_of_mass(working))[::-1]
    expected = geometry.apply(np.linalg.inv(matrix), np.array([column, row]))
    assert np.abs(found - expected).max() < 0.1
    # and back in the millimetres of the file
    section_mm = geometry.apply(geometry.section_mm_from_working_mm(matrix, 0.1, 0.3), found * 0.3)
    np.testing.assert_allclose(section_mm, [8.4, 3.7], atol=0.03)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
@pytest.mark.parametrize("flip", ["none", "lr", "ud"])
def test_a_picture_stored_turned_and_described_so_gives_the_same_working_image(flip, quarter_turns):
    rng = np.random.default_rng(6)
    upright = ndimage.gaussian_filter(rng.random((30, 47)), 1).astype(np.float32)
    labels = (upright > np.median(upright)).astype(np.uint8)

    def stored(image):
        """Undo the turn, then the flip, as someone scanned it."""
        image = np.rot90(image, -quarter_turns)
        return {"none": image, "lr": np.fliplr(image), "ud": np.flipud(image)}[flip]

    def working(image, labels, *described):
        matrix, shape = geometry.file_px_from_working_px(image.shape, 0.2, 0.5, *described)
        file_px = geometry.apply(matrix, grid_px(shape))
        return resample_section(prefilter(image, 2.5), file_px), area_vote(labels, matrix, shape)

    expected = working(upright, labels)
    found = working(stored(upright), stored(labels), flip, 90.0 * quarter_turns)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    assert found[1].shape == expected[1].shape
    assert (found[1] != expected[1]).mean() < 0.01  # ties in the vote may fall either way
