"""`sbr prepare-mri`: a checked MRI, its mask, and the facts about it."""

import json

import nibabel as nib
import numpy as np
import pytest

from sbr_core.config import PrepareOptions
from sbr_core.errors import ImageError
from sbr_core.io.volumes import Volume, read_volume, write_volume
from sbr_core.stages import prepare_mri

AFFINE = np.array([[0, 0, 1.5, 3], [0.6, 0.8, 0, -7], [0.8, -0.6, 0, 2], [0, 0, 0, 1.0]])


@pytest.fixture
def mri(tmp_path):
    """A stripped ball in an oblique grid, stored as 16-bit integers."""
    grid = np.stack(np.indices((24, 20, 22))) - np.array([12, 10, 11]).reshape(3, 1, 1, 1)
    ball = (grid**2).sum(axis=0) <= 64
    data = np.where(ball, 700 + 20 * grid[0], 0).astype(np.int16)
    write_volume(tmp_path / "in.nii.gz", Volume(data, AFFINE))
    return tmp_path / "in.nii.gz", data


def _run(mri, tmp_path, mask=None):
    prepare_mri.run(PrepareOptions(), mri=mri, mri_mask=mask, out_dir=tmp_path / "out")
    return tmp_path / "out"


def test_values_and_place_are_kept(mri, tmp_path):
    path, data = mri
    out = _run(path, tmp_path)
    found = read_volume(out / "mri.nii.gz")
    assert found.data.dtype == np.float32
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_allclose(found.world_from_voxel, AFFINE, atol=1e-6)
    mask = read_volume(out / "mri_mask.nii.gz")
    np.testing.assert_array_equal(mask.data > 0, data != 0)
    np.testing.assert_allclose(mask.world_from_voxel, AFFINE, atol=1e-6)


def test_the_facts_are_written_beside_it(mri, tmp_path):
    path, data = mri
    facts = json.loads((_run(path, tmp_path) / "mri.json").read_text())
    assert facts["shape"] == [24, 20, 22]
    np.testing.assert_allclose(facts["spacing_mm"], [1, 1, 1.5], atol=1e-6)
    assert facts["orientation"] == "".join(nib.aff2axcodes(AFFINE))
    assert facts["mask"] == "found"
    assert facts["mask_mm3"] == pytest.approx(1.5 * np.count_nonzero(data), rel=1e-5)
    assert facts["quantiles_in_mask"]["0.5"] == pytest.approx(np.median(data[data > 0]))
    assert set(facts["inputs"]) == {"mri"}


def test_a_given_mask_wins(mri, tmp_path):
    path, data = mri
    half = (data != 0).astype(np.uint8)
    half[:, :10] = 0
    write_volume(tmp_path / "half.nii.gz", Volume(half * 255, AFFINE))
    out = _run(path, tmp_path, tmp_path / "half.nii.gz")
    np.testing.assert_array_equal(read_volume(out / "mri_mask.nii.gz").data, half)
    facts = json.loads((out / "mri.json").read_text())
    assert facts["mask"] == "given"
    assert set(facts["inputs"]) == {"mri", "mri_mask"}


@pytest.mark.parametrize("fault", ["shape", "affine"])
def test_a_mask_on_another_grid_is_refused(mri, tmp_path, fault):
    path, data = mri
    mask, affine = (data != 0).astype(np.uint8), AFFINE.copy()
    if fault == "shape":
        mask = mask[:-1]
    else:
        affine[:3, 3] += 0.5
    write_volume(tmp_path / "mask.nii.gz", Volume(mask, affine))
    with pytest.raises(ImageError, match=rf"mask.nii.gz: .*{fault}"):
        _run(path, tmp_path, tmp_path / "mask.nii.gz")
    assert not (tmp_path / "out").exists()


def test_a_mask_that_differs_by_rounding_is_taken(mri, tmp_path):
    path, data = mri
    affine = AFFINE.copy()
    affine[:3, 3] += 1e-4
    write_volume(tmp_path / "mask.nii.gz", Volume((data != 0).astype(np.uint8), affine))
    assert (_run(path, tmp_path, tmp_path / "mask.nii.gz") / "mri.nii.gz").is_file()
