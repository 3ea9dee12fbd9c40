"""Laws of transforms as they stand in files, checked with SimpleITK beside our own reading."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from sbr_core import geometry
from sbr_core.algorithms.deformation import integrate
from sbr_core.algorithms.sections import grid_px, resample_section
from sbr_core.artifacts.names import SECTION_TO_STACK, STACK_TO_SECTION
from sbr_core.geometry import PlaneGrid
from sbr_core.io.transforms import (
    PlaneField,
    SectionTransform,
    read_section_transform,
    write_section_transform,
)

GRID = PlaneGrid((80, 100), 0.4)
AFFINE = np.array([[0.95, 0.2, 3.0], [-0.15, 1.05, -2.0], [0.0, 0.0, 1.0]])


def written(folder, velocity_px):
    """Both composites of a deformation and AFFINE, written and read again."""
    found = integrate(velocity_px, GRID)
    mm, origin_mm = GRID.spacing_mm, found.canvas.origin_mm
    paths = folder / f"s{SECTION_TO_STACK}", folder / f"s{STACK_TO_SECTION}"
    forward = PlaneField(found.disp_px * mm, mm, origin_mm)
    backward = PlaneField(found.inverse_disp_px * mm, mm, origin_mm)
    write_section_transform(paths[0], SectionTransform((forward, AFFINE)))
    write_section_transform(paths[1], SectionTransform((np.linalg.inv(AFFINE), backward)))
    return paths


def random_velocity(seed, largest_px=10.0):
    rng = np.random.default_rng(seed)
    field = np.stack([gaussian_filter(rng.normal(size=GRID.shape), 14) for _ in "xy"], axis=-1)
    return field * largest_px / np.linalg.norm(field, axis=-1).max()


@pytest.mark.parametrize("seed", range(3))
def test_there_and_back_through_the_files(tmp_path, seed):
    paths = written(tmp_path, random_velocity(seed))
    there, back = (read_section_transform(path) for path in paths)
    plane_mm = geometry.apply(GRID.plane_mm_from_px, grid_px(GRID.shape))
    away_px = np.linalg.norm(back.map(there.map(plane_mm)) - plane_mm, axis=-1) / GRID.spacing_mm
    assert away_px.mean() <= 0.02 and np.percentile(away_px, 99) <= 0.1

    inside = there.map(plane_mm[10:-10, 10:-10])
    away_px = np.linalg.norm(there.map(back.map(inside)) - inside, axis=-1) / GRID.spacing_mm
    assert away_px.mean() <= 0.02 and np.percentile(away_px, 99) <= 0.1


def test_identity_velocity_leaves_the_affine(tmp_path):
    there = read_section_transform(written(tmp_path, np.zeros((*GRID.shape, 2)))[0])
    points = np.random.default_rng(0).uniform(-5, 45, size=(50, 2))
    np.testing.assert_allclose(there.map(points), geometry.apply(AFFINE, points), atol=1e-12)


def test_constant_velocity_is_a_shift_through_the_files(tmp_path):
    paths = written(tmp_path, np.broadcast_to([2.5, -5.0], (*GRID.shape, 2)))
    points = np.random.default_rng(0).uniform((6, 6), (32, 24), size=(50, 2))
    there = read_section_transform(paths[0]).map(points)
    shifted = geometry.apply(AFFINE, points + np.array([1.0, -2.0]))
    np.testing.assert_allclose(there, shifted, atol=1e-3)


def test_composition_order_and_sitk_agree(tmp_path):
    """Deformation first, then affine; SimpleITK maps every point to the same place."""
    path = written(tmp_path, random_velocity(4))[0]
    ours = read_section_transform(path)
    theirs = sitk.ReadTransform(str(path))
    points = np.random.default_rng(0).uniform((-8, -8), (48, 40), size=(200, 2))
    expected = np.array([theirs.TransformPoint(p.tolist()) for p in points])
    np.testing.assert_allclose(ours.map(points), expected, atol=1e-9)
    field, affine = ours.steps
    np.testing.assert_allclose(geometry.apply(affine, field.map(points)), expected, atol=1e-9)
    assert np.linalg.norm(ours.map(points) - geometry.apply(affine, points), axis=-1).max() > 1


def test_border_of_the_plane_can_move_and_far_away_stays(tmp_path):
    there = read_section_transform(written(tmp_path, np.full((*GRID.shape, 2), 4.0))[0])
    undo = np.linalg.inv(AFFINE)
    corner = np.array([[0.0, 0.0], [39.6, 31.6]])
    moved = geometry.apply(undo, there.map(corner)) - corner
    assert (moved[0] > 1.2).all()
    far = np.array([[-30.0, 10.0], [100.0, 80.0]])
    np.testing.assert_allclose(geometry.apply(undo, there.map(far)), far, atol=1e-9)


def test_our_resampling_is_sitks_through_the_file(tmp_path):
    """Half a pixel off anywhere would show at the sharp noise of this image."""
    path = written(tmp_path, random_velocity(5))[0]
    pixel_mm = 0.3
    image = np.random.default_rng(1).uniform(size=(150, 170)).astype(np.float32)
    moving = sitk.GetImageFromArray(image)
    moving.SetSpacing([pixel_mm] * 2)
    reference = sitk.Image(GRID.shape[1], GRID.shape[0], sitk.sitkFloat32)
    reference.SetSpacing([GRID.spacing_mm] * 2)
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(moving, reference, sitk.ReadTransform(str(path)), sitk.sitkLinear, 0.0)
    )
    plane_mm = geometry.apply(GRID.plane_mm_from_px, grid_px(GRID.shape))
    ours = resample_section(image, read_section_transform(path).map(plane_mm) / pixel_mm)
    assert (ours > 0).mean() > 0.7
    assert np.abs(ours - theirs).max() < 1e-4


def test_a_point_maps_alike_alone_and_among_others(tmp_path):
    """To the last bit, so that slabs of a volume do not depend on their size."""
    there = read_section_transform(written(tmp_path, random_velocity(6))[0])
    points = np.random.default_rng(0).uniform(0, 40, size=(1001, 2))
    together = there.map(points)
    alone = np.concatenate([there.map(points[i : i + 1]) for i in range(0, 1001, 50)])
    assert np.array_equal(together[::50], alone)
