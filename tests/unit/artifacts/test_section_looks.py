"""What `check` sees of one section: side inputs that fail cost themselves only."""

import nibabel as nib
import numpy as np
import pytest
import tifffile

from sbr_core.artifacts.section_looks import look_at_section
from sbr_core.config import PrepareOptions
from sbr_core.io.images import write_png
from sbr_core.io.manifests import SectionRow

ROWS, COLUMNS = np.mgrid[:120, :160]
TISSUE = ((ROWS - 55) / 40) ** 2 + ((COLUMNS - 70) / 56) ** 2 < 1
IMAGE = np.where(TISSUE, 150 - COLUMNS / 3, 250).astype(np.uint8)


def _look(tmp_path, **fields):
    write_png(tmp_path / "s.png", IMAGE)
    row = {"section": "s", "image": str(tmp_path / "s.png"), "position_mm": 0.0}
    row |= {"pixel_size_mm": 0.5, **fields}
    return look_at_section(SectionRow(**row), PrepareOptions(working_pixel_mm=1.0))


def test_labels_that_cannot_be_used_are_a_doubt(tmp_path):
    write_png(tmp_path / "l.png", np.ones((30, 40), np.uint8))
    looked = _look(tmp_path, labels=str(tmp_path / "l.png"))
    assert not looked.refusals
    assert any("left out: " in words and "(30, 40)" in words for words in looked.doubts.values())


def test_metadata_that_are_not_clean_are_a_doubt(tmp_path):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, IMAGE, description="Aperio|MPP = 0,5", metadata=None)
    looked = _look(tmp_path, image=str(path))
    assert not looked.refusals and "MPP is not clean" in looked.doubts["metadata"]


@pytest.mark.parametrize("shift", [lambda v: v, lambda v: v - 80, lambda v: -v])
def test_the_tissue_of_a_plane_is_found_wherever_its_values_begin(tmp_path, shift):
    values = np.where(TISSUE, shift(np.where(COLUMNS > 60, 60.0, 120.0)), 0)
    nib.save(nib.Nifti1Image(values.T[..., None].astype("f4"), np.eye(4)), tmp_path / "m.nii.gz")
    looked = _look(tmp_path, mri_image=str(tmp_path / "m.nii.gz"))
    assert not looked.refusals and looked.plane_dice > 0.95
