"""`sbr resample`: planes of a prealigned brain, whatever their values are."""

import nibabel as nib
import numpy as np
import pytest

from sbr_core.config import ResampleOptions
from sbr_core.errors import ImageError
from sbr_core.io.manifests import SectionRow
from sbr_core.io.volumes import read_plane
from sbr_core.stages import resample

ROWS, COLUMNS = np.mgrid[:60, :80]
TISSUE = ((ROWS - 27) / 20) ** 2 + ((COLUMNS - 35) / 28) ** 2 < 1
INNER = ((ROWS - 22) / 7) ** 2 + ((COLUMNS - 25) / 9) ** 2 < 1
GREY = np.where(INNER, 150.0, 80.0) * (1 + np.random.default_rng(0).normal(0, 0.05, ROWS.shape))


def _planes(tmp_path, values):
    """(image, mask) of one section whose MRI plane has these values."""
    path = tmp_path / "m.nii.gz"
    nib.save(nib.Nifti1Image(values.T[:, :, None].astype(np.float32), np.eye(4)), path)
    row = SectionRow("s", "s.png", 0.0, 1.0, mri_image=str(path))
    resample.run(
        ResampleOptions(), rows=[row], working_pixel_mm=1.0, out_dir=tmp_path,
        receipt=tmp_path / "chunks" / "0.tsv", strict=True,
    )  # fmt: skip
    files = (tmp_path / "sections" / f"s_{kind}.nii.gz" for kind in ("mri", "mrimask"))
    return [read_plane(file)[0] for file in files]


@pytest.mark.parametrize(
    "values",
    [
        np.where(TISSUE, GREY, 0),
        np.where(TISSUE, (GREY - 90) / 25, 0),  # z-scores
        np.where(TISSUE, -GREY, 0),
        np.where(TISSUE, GREY, 0) + 1000,
        np.where(TISSUE, GREY, 0) / 75 - 1,
    ],
)
def test_a_plane_is_its_tissue_above_zero_wherever_its_values_begin(tmp_path, values):
    image, mask = _planes(tmp_path, values)
    np.testing.assert_array_equal(mask > 0, TISSUE)
    assert not image[~TISSUE].any()
    assert np.corrcoef(image[TISSUE], GREY[TISSUE])[0, 1] > 0.999
    assert np.median(image[INNER]) > 1.3 * np.median(image[TISSUE & ~INNER])


def test_a_plane_of_both_signs_in_noise_is_asked_for_its_mask(tmp_path):
    noisy = np.where(TISSUE, GREY, 0) - 60 + np.random.default_rng(1).normal(0, 3, ROWS.shape)
    with pytest.raises(ImageError, match="section 's': .*mri_mask"):
        _planes(tmp_path, noisy)
