"""Labels of an MRI lie where its voxels do."""

import nibabel as nib
import numpy as np
import pytest

from sbr_core.artifacts.label_pairs import read_label_volume
from sbr_core.io.volumes import read_volume

LABELS = np.arange(1, 1 + 6 * 7 * 8).reshape(6, 7, 8).astype(np.int16)
MICROMETRES = np.diag([-1500.0, 1000.0, 2000.0, 1.0])
MICROMETRES[:3, 3] = 4000, -3000, 500


@pytest.mark.parametrize("unit", ["micron", "unknown", "mm"])
def test_labels_lie_on_an_mri_in_micrometres_whether_they_state_the_unit_or_not(tmp_path, unit):
    """Programs hand on the numbers of the MRI's header and not its unit."""
    for name, stated in (("mri", "micron"), ("labels", unit)):
        image = nib.Nifti1Image(LABELS, MICROMETRES)
        image.header.set_xyzt_units(stated)
        nib.save(image, tmp_path / f"{name}.nii")
    labels = read_label_volume(tmp_path / "labels.nii")
    mri = read_volume(tmp_path / "mri.nii")
    np.testing.assert_allclose(labels.world_from_voxel, mri.world_from_voxel, rtol=1e-6)
    assert bool(labels.doubts) == (unit != "micron")


@pytest.mark.parametrize("side_mm", [0.02, 1.0, 30.0])
def test_labels_in_millimetres_stay_where_they_are(tmp_path, side_mm):
    affine = np.diag([side_mm, side_mm, side_mm, 1.0])
    nib.save(nib.Nifti1Image(LABELS, affine), tmp_path / "labels.nii")
    labels = read_label_volume(tmp_path / "labels.nii")
    np.testing.assert_allclose(labels.world_from_voxel, affine, rtol=1e-6)
    assert not labels.doubts
