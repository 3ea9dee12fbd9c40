"""Volumes and planes as NIfTI; where they lie is judged in tests/laws."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from sbr_core.errors import ImageError
from sbr_core.io.volumes import (
    Volume,
    read_cuts,
    read_plane,
    read_volume,
    write_plane,
    write_volume,
)

DATA = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32) + 1


def _nifti(path, data, affine=None):
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def test_spacing_is_along_the_voxel_axes():
    affine = np.array([[0, 0, 3, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(Volume(DATA, affine).spacing_mm, [1, 2, 3])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_volumes_are_read_back(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    write_volume(path, Volume(DATA, np.diag([1.0, 2.0, 3.0, 1.0])))
    found = read_volume(path)
    np.testing.assert_array_equal(found.data, DATA)
    assert [f.name for f in tmp_path.iterdir()] == [path.name]


def test_a_trailing_axis_of_one_is_no_fourth_dimension(tmp_path):
    np.testing.assert_array_equal(
        read_volume(_nifti(tmp_path / "v.nii", DATA[..., None])).data, DATA
    )


def _rgb(path):
    rgb = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return _nifti(path, rgb)


def _cut(path):
    whole = _nifti(path.with_name("whole.nii.gz"), DATA).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def _text(path):
    path.write_text("no volume")
    return path


BAD = {
    "2D": (lambda p: _nifti(p, DATA[0]), "expected a 3D volume"),
    "flat": (lambda p: _nifti(p, DATA[:, :, :1]), "expected a 3D volume"),
    "4D": (lambda p: _nifti(p, np.stack([DATA] * 2, -1)), "expected a 3D volume"),
    "zero": (lambda p: _nifti(p, 0 * DATA), "all zero"),
    "NaN": (lambda p: _nifti(p, DATA * np.nan), "not finite"),
    "RGB": (_rgb, "one number per voxel"),
    "cut": (_cut, "not readable as NIfTI"),
    "text": (_text, "not readable as NIfTI"),
    "gone": (lambda p: p, "no such file"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_volumes_are_named_in_one_line(tmp_path, fault):
    make, message = BAD[fault]
    path = make(tmp_path / "bad.nii.gz")
    with pytest.raises(ImageError, match=message) as caught:
        read_volume(path)
    assert "bad.nii.gz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_singular_affine_is_refused(tmp_path):
    affine = np.diag([1.0, 1.0, 0.0, 1.0])
    image = nib.Nifti1Image(DATA, np.eye(4))
    image.set_qform(None, 0)
    image.set_sform(affine, 1)
    nib.save(image, tmp_path / "s.nii")
    with pytest.raises(ImageError, match="singular"):
        read_volume(tmp_path / "s.nii")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_planes_are_read_back_as_they_were(tmp_path, dtype):
    plane = (np.arange(24).reshape(4, 6) * 3).astype(dtype)
    write_plane(tmp_path / "p.nii.gz", plane, 0.25)
    found, spacing_mm = read_plane(tmp_path / "p.nii.gz")
    np.testing.assert_array_equal(found, plane)
    assert (found.dtype, spacing_mm) == (dtype, 0.25)


def test_a_vector_plane_is_a_vector_image_for_itk(tmp_path):
    field = np.random.default_rng(1).normal(size=(4, 6, 2)).astype(np.float32)
    write_plane(tmp_path / "v.nii.gz", field, 0.5)
    np.testing.assert_array_equal(read_plane(tmp_path / "v.nii.gz")[0], field)
    itk = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    assert itk.GetNumberOfComponentsPerPixel() == 2
    np.testing.assert_allclose(np.squeeze(sitk.GetArrayFromImage(itk)), field)


def test_a_plane_with_an_origin_lies_there_for_itk(tmp_path):
    write_plane(tmp_path / "p.nii.gz", np.ones((4, 6), np.float32), 0.5, (-1.0, 2.5))
    itk = sitk.ReadImage(str(tmp_path / "p.nii.gz"))
    np.testing.assert_allclose(itk.TransformIndexToPhysicalPoint([2, 1]), [0.0, 3.0])


def test_a_volume_is_no_plane(tmp_path):
    with pytest.raises(ImageError, match="expected a plane"):
        read_plane(_nifti(tmp_path / "v.nii", np.stack([DATA] * 2, -1)))


@pytest.mark.parametrize("letters", ["RAS", "LIA", "SPR"])
def test_cuts_show_up_as_up_and_right_as_right(tmp_path, letters):
    """The same lump, right, front and up of the middle, in any order of the axes."""
    axes = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, letter in enumerate(letters):
        world_axis, sign = axes[letter]
        affine[world_axis, voxel_axis] = sign * (1.0 + 0.5 * voxel_axis)
    affine[:3, 3] = -affine[:3, :3] @ [9.5, 9.5, 9.5]
    lump = (np.linalg.inv(affine) @ [4.0, 6.0, 3.0, 1.0])[:3]
    distance = np.linalg.norm(
        (np.stack(np.indices((20, 20, 20)), -1) - lump) @ affine[:3, :3].T, axis=-1
    )
    write_volume(tmp_path / "v.nii.gz", Volume(np.exp(-(distance**2) / 8).astype("f4"), affine))
    cuts = read_cuts(tmp_path / "v.nii.gz", np.array([4.0, 6.0, 3.0]))
    across_up = (
        (6.0, 3.0),
        (4.0, 3.0),
        (4.0, 6.0),
    )  # sagittal (A, S), coronal (R, S), axial (R, A)
    for cut, (across, up) in zip(cuts, across_up, strict=True):
        row, column = np.unravel_index(np.argmax(cut.image), cut.image.shape)
        height, width = cut.image.shape
        assert (column - (width - 1) / 2) * cut.pixel_mm[1] == pytest.approx(across, abs=1.0)
        assert ((height - 1) / 2 - row) * cut.pixel_mm[0] == pytest.approx(up, abs=1.0)


@pytest.mark.parametrize("read", [read_volume, read_plane])
def test_a_flipped_bit_in_a_compressed_file_is_noticed(tmp_path, read):
    """Its checksum is behind the last voxel, where nobody looks who only wants voxels."""
    path = tmp_path / "v.nii.gz"
    data = np.random.default_rng(0).integers(1, 9, (8, 9, 7) if read is read_volume else (30, 20))
    if read is read_volume:
        write_volume(path, Volume(data.astype(np.int16), np.eye(4)))
    else:
        write_plane(path, data.astype(np.float32), 0.5)
    right = str(read(path))
    whole = path.read_bytes()
    unnoticed = 0
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert str(read(path)) == right  # the time in its header, bits that fill a byte up
            unnoticed += 1
        except ImageError as error:
            assert "v.nii.gz" in str(error)
    assert unnoticed <= 3


def _compressed(path, data, **fields):
    """A small .nii.gz whose header says something else."""
    image = nib.Nifti1Image(data, np.eye(4))
    raw = bytearray(image.to_bytes())
    for offset, value in fields.values():
        raw[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dim": (42, struct.pack("<3h", 1500, 1500, 1500))}, "1500 x 1500 x 1500.*cannot hold"),
        ({"dim": (42, struct.pack("<3h", 0, 4, 4))}, r"shape \(0, 4, 4\)"),
        ({"offset": (108, struct.pack("<f", 2e9))}, "voxels begin at byte 2e\\+09"),
        ({"offset": (108, struct.pack("<f", float("nan")))}, "voxels begin at byte nan"),
    ],
)
def test_a_header_that_claims_more_than_its_file_is_refused_before_memory_is_given(
    tmp_path, fields, words
):
    path = tmp_path / "v.nii.gz"
    _compressed(path, np.ones((4, 4, 4), np.uint8), **fields)
    for read in (read_volume, read_plane, read_cuts):
        with pytest.raises(ImageError, match=words) as refused:
            read(path)
        assert str(path) in str(refused.value)


def test_volumes_are_refused_for_memory_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "v.nii.gz"
    write_volume(path, Volume(np.ones((40, 40, 40), np.uint8), np.eye(4)))
    assert read_volume(path).data.all()
    free = type("memory", (), {"available": 100_000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    with pytest.raises(ImageError, match="of memory"):
        read_volume(path)
