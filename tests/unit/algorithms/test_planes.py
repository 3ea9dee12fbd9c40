"""Cutting planes out of a volume agrees with nibabel and SimpleITK."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from sbr_core.algorithms.planes import (
    plane_points_mm,
    prefiltered_volume,
    resample_plane,
    sample_volume,
)
from sbr_core.geometry import PlaneGrid, apply
from sbr_core.io.transforms import write_stack_from_world
from sbr_core.io.volumes import Volume, write_plane, write_volume

OBLIQUE = np.array(
    [[-1.1, 0.2, 0.1, 30.0], [0.15, 0.1, 1.3, -20.0], [0.1, -1.2, 0.2, 25.0], [0, 0, 0, 1]]
)


def _similarity() -> np.ndarray:
    """A left-handed stack_from_world: letters LIA, turned by 20 degrees, scale 0.9."""
    c, s = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    letters = np.array([[-1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] = 0.9 * letters @ turn
    matrix[:3, 3] = 20.0, 22.0, 30.0
    return matrix


@pytest.fixture(scope="module")
def volume() -> Volume:
    # orthogonal columns of unequal length, as scanners store them
    q, _ = np.linalg.qr(OBLIQUE[:3, :3])
    affine = np.eye(4)
    affine[:3, :3] = q * [1.1, 1.2, 1.3]
    data = gaussian_filter(np.random.default_rng(0).random((30, 34, 28)), 1.5)
    data = (data - data.min()).astype(np.float32)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(data.shape) / 2)
    return Volume(data, affine)


@pytest.mark.parametrize("position_mm", [24.0, 30.3])
def test_plane_equals_simpleitk_through_the_written_files(tmp_path, volume, position_mm):
    grid, stack_from_world = PlaneGrid((40, 46), 0.9), _similarity()
    ours = resample_plane(volume.data, volume.world_from_voxel, stack_from_world, grid, position_mm)
    assert np.count_nonzero(ours) > 500

    write_volume(tmp_path / "mri.nii.gz", volume)
    write_plane(tmp_path / "plane.nii.gz", ours, grid.spacing_mm)
    write_stack_from_world(tmp_path / "xfm.txt", stack_from_world)
    plane = sitk.ReadImage(str(tmp_path / "plane.nii.gz"))
    # the 2D file has x and y; z comes from the table
    reference = sitk.Image(plane.GetWidth(), plane.GetHeight(), 1, sitk.sitkFloat32)
    reference.SetSpacing([*plane.GetSpacing()[:2], 1.0])
    reference.SetOrigin([*plane.GetOrigin()[:2], position_mm])
    # resampling needs points stack -> MRI, the inverse of the file
    transform = sitk.ReadTransform(str(tmp_path / "xfm.txt")).GetInverse()
    mri = sitk.ReadImage(str(tmp_path / "mri.nii.gz"))
    theirs = sitk.Resample(mri, reference, transform, sitk.sitkLinear, 0.0)
    assert np.allclose(sitk.GetArrayFromImage(theirs)[0], ours, atol=2e-4)


def test_a_plane_pixel_lands_on_the_voxel_that_nibabel_says(volume):
    grid, stack_from_world = PlaneGrid((40, 46), 0.9), _similarity()
    world = apply(np.linalg.inv(stack_from_world), plane_points_mm(grid, 30.0)[20, 23])
    voxel = nib.affines.apply_affine(np.linalg.inv(volume.world_from_voxel), world)
    dot = np.zeros_like(volume.data)
    dot[tuple(np.round(voxel).astype(int))] = 1.0
    plane = resample_plane(dot, volume.world_from_voxel, stack_from_world, grid, 30.0, order=0)
    assert plane[20, 23] == 1.0


def test_volume_reaches_half_a_voxel_beyond_its_centres():
    data = np.ones((4, 5, 6), np.float32)
    points = np.array([[-0.49, 0, 0], [-0.51, 0, 0], [3.49, 4.4, 5.4], [3, 4.6, 5]])
    assert sample_volume(data, points).tolist() == [1, 0, 1, 0]


def test_nearest_keeps_labels_and_their_type():
    labels = np.array([[[1, 300]], [[7, 9]]], np.uint16).reshape(2, 1, 2)
    found = sample_volume(labels, np.array([[0.0, 0, 0.6], [0.6, 0, 0.4]]), order=0)
    assert found.dtype == np.uint16
    assert found.tolist() == [300, 7]


def test_nearest_keeps_ids_of_64_bits():
    ids = np.array([3_000_000_000, 2**53 + 1, 614_454_277, 2**62 + 1]).reshape(1, 2, 2)
    voxels = np.stack(np.indices(ids.shape), axis=-1) + 0.3
    np.testing.assert_array_equal(sample_volume(ids, voxels, order=0), ids)


def test_prefiltering_leaves_coarse_axes_alone():
    data = np.zeros((21, 21, 21), np.float32)
    data[10, 10, 10] = 1
    blurred = prefiltered_volume(data, np.array([0.5, 2.0, 2.0]), 1.5)
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    assert blurred[10, 9, 10] == blurred[10, 10, 9] == 0
    assert 0 < blurred[8, 10, 10] < blurred[9, 10, 10] < blurred[10, 10, 10] < 1
