"""Where a NIfTI lies: its unit of length, and frames that are missing, empty or at odds."""

import nibabel as nib
import numpy as np
import pytest

from sbr_core.io.frames import frame_of
from sbr_core.io.volumes import Volume, read_volume, write_volume

SHAPE = (40, 50, 30)
AFFINE = np.array([[0, 0, 1.5, 3], [0.6, 0.8, 0, -7], [0.8, -0.6, 0, 2], [0, 0, 0, 1.0]])


def _image(affine=AFFINE, codes=(1, 1), qform=None, units="mm"):
    image = nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine if qform is None else qform, codes[1])
    image.header.set_xyzt_units(units)
    return image


def _scaled(times):
    return np.diag([times, times, times, 1.0]) @ AFFINE


@pytest.mark.parametrize(
    ("units", "times", "is_doubtful"),
    [
        ("mm", 1, False),
        ("micron", 1000, False),
        ("meter", 1e-3, False),
        ("unknown", 1, False),
        ("micron", 1, True),  # 50 µm long: millimetres, whatever is written beside them
        ("meter", 1, True),
        ("micron", 40, False),  # a brain of 3 mm
    ],
)
def test_lengths_are_in_the_headers_unit_if_anything_is_so_long(units, times, is_doubtful):
    frame = frame_of(_image(_scaled(times), units=units))
    true = _scaled(0.04) if times == 40 else AFFINE
    np.testing.assert_allclose(frame.world_from_voxel, true, rtol=1e-4)
    assert bool(frame.doubts) is is_doubtful


def test_a_unit_that_there_is_not_is_none():
    image = _image()
    image.header["xyzt_units"] = 5
    frame = frame_of(image)
    assert frame.unit_mm is None and not frame.doubts


def _turned(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ AFFINE


@pytest.mark.parametrize(
    ("codes", "qform", "words"),
    [
        ((1, 1), AFFINE, None),
        ((0, 1), AFFINE, None),
        ((2, 0), _turned(90), None),  # a qform that is not declared says nothing
        ((2, 1), _turned(0.1), None),
        ((2, 1), np.diag([-1, 1, 1, 1]) @ AFFINE, "MIRROR IMAGE"),
        ((4, 1), _turned(90), "disagree by up to 103"),
        ((1, 1), AFFINE + np.eye(4)[:, [3, 3, 3, 0]] * 9, "disagree"),
        ((0, 0), AFFINE, "declares no frame"),
    ],
)
def test_frames_that_disagree_or_are_missing_are_said(codes, qform, words):
    frame = frame_of(_image(codes=codes, qform=qform))
    assert bool(frame.doubts) == (words is not None)
    assert words is None or words in frame.doubts[0]


def test_disagreement_is_in_millimetres_whatever_the_unit():
    frame = frame_of(_image(_scaled(1000), (2, 1), 1000 * _turned(90), "micron"))
    assert "by up to 103" in frame.doubts[0]


def test_an_sform_without_volume_gives_way_to_the_qform(tmp_path):
    nib.save(_image(), tmp_path / "v.nii")
    content = bytearray((tmp_path / "v.nii").read_bytes())
    content[280:296] = bytes(16)  # srow_x
    (tmp_path / "v.nii").write_bytes(content)
    volume = read_volume(tmp_path / "v.nii")
    np.testing.assert_allclose(volume.world_from_voxel, AFFINE, atol=1e-5)
    assert "the qform is used" in volume.doubts[0]


def test_what_is_written_has_no_doubts_and_no_false_qform(tmp_path):
    data = np.ones(SHAPE, np.uint8)
    write_volume(tmp_path / "v.nii", Volume(data, AFFINE))
    assert read_volume(tmp_path / "v.nii").doubts == ()
    sheared = AFFINE.copy()
    sheared[0, 1] += 0.05
    write_volume(tmp_path / "s.nii", Volume(data, sheared))
    header = nib.load(tmp_path / "s.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(read_volume(tmp_path / "s.nii").world_from_voxel, sheared, atol=1e-6)
