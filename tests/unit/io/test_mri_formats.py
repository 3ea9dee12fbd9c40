"""An MRI of another format than NIfTI lies where it lay, or is refused with what to do."""

import locale

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from sbr_core.cli import main
from sbr_core.errors import ImageError
from sbr_core.io.volumes import read_volume

SHAPE = (9, 8, 7)


def _affine(spacing_mm=(1.0, 1.2, 1.5)):
    """Turned by 12 degrees, mirrored along its first axis."""
    c, s = np.cos(0.2), np.sin(0.2)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-1, 1, 1])
    affine[:3, :3] *= spacing_mm
    affine[:3, 3] = [10, -20, 5]
    return affine


LPS = b"space: left-posterior-superior"
DATA = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)


@pytest.fixture
def image(tmp_path):
    """The MRI as SimpleITK reads its NIfTI."""
    nifti = nib.Nifti1Image(DATA, _affine())
    nifti.header.set_xyzt_units("mm")
    nib.save(nifti, tmp_path / "m.nii")
    return sitk.ReadImage(str(tmp_path / "m.nii"))


def _value_at(volume, world_mm):
    """The voxel nearest to a point."""
    voxel = np.linalg.inv(volume.world_from_voxel) @ [*world_mm, 1]
    return volume.data[tuple(np.round(voxel[:3]).astype(int))]


def _same(volume):
    assert sorted(volume.data.shape) == sorted(SHAPE)
    for voxel in ((0, 0, 0), (8, 1, 2), (3, 7, 6)):
        world = (_affine() @ [*voxel, 1])[:3]
        assert _value_at(volume, world) == DATA[voxel]
    return True


def _dicom(folder, image, *, without=(), series="1.2.826.0.1.3680043.2.1125.1"):
    before = locale.setlocale(locale.LC_ALL)
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    d = image.GetDirection()
    for i in range(image.GetDepth()):
        if i in without:
            continue
        layer = image[:, :, i]
        for key in layer.GetMetaDataKeys():
            layer.EraseMetaData(key)
        place = image.TransformIndexToPhysicalPoint((0, 0, i))
        for key, value in {
            "0008|0060": "MR",
            "0008|0018": f"{series}.{i + 1}",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0020|000e": series,
            "0020|0013": str(i),
            "0020|0032": "\\".join(f"{x:.6f}" for x in place),
            "0020|0037": "\\".join(f"{d[j]:.9f}" for j in (0, 3, 6, 1, 4, 7)),
        }.items():
            layer.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{series[-1]}_{i:03d}.dcm"))
        writer.Execute(layer)
    # GDCM writes in the locale C and leaves it, in which Python would read text files as ASCII
    locale.setlocale(locale.LC_ALL, before)
    return folder


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd", "mgz"])
def test_other_formats_lie_where_they_lay(tmp_path, image, ending):
    path = tmp_path / f"other.{ending}"
    if ending == "mgz":
        nib.save(nib.MGHImage(DATA, _affine().astype(np.float32)), path)
    else:
        for key in image.GetMetaDataKeys():
            image.EraseMetaData(key)
        sitk.WriteImage(image, str(path))
    assert _same(read_volume(path))


def test_pairs_and_files_compressed_otherwise_are_held_by_what_has_their_voxels(tmp_path):
    """A header of 348 bytes holds no voxel, and bzip2 makes of any number of zeros next to none."""
    blank = np.zeros((80, 80, 80), np.uint8)
    blank[40:] = 1
    nib.save(nib.Nifti1Pair(blank, _affine()), tmp_path / "pair.hdr")
    nib.save(nib.Spm2AnalyzeImage(blank, _affine()), tmp_path / "analyze.img")
    nib.save(nib.Nifti1Image(blank, _affine()), tmp_path / "m.nii.bz2")
    for name in ("pair.hdr", "pair.img", "analyze.hdr", "analyze.img", "m.nii.bz2"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, blank)
    (tmp_path / "pair.img").write_bytes(b"0" * 99)
    with pytest.raises(ImageError, match="pair.img: claims 80 x 80 x 80 voxels"):
        read_volume(tmp_path / "pair.hdr")


def test_a_metaimage_that_claims_more_than_it_holds_is_refused(tmp_path, image):
    sitk.WriteImage(image, str(tmp_path / "m.mha"))
    raw = (tmp_path / "m.mha").read_bytes()
    (tmp_path / "m.mha").write_bytes(raw.replace(b"DimSize = 9 8 7", b"DimSize = 900 800 700"))
    with pytest.raises(ImageError, match="m.mha: claims 900 x 800 x 700 voxels"):
        read_volume(tmp_path / "m.mha")


def test_a_dicom_series_in_a_folder_lies_where_it_lay(tmp_path, image):
    folder = _dicom(tmp_path / "series", image)
    (folder / "readme.txt").write_text("x")
    assert _same(read_volume(folder))
    out = tmp_path / "out"
    assert main(["prepare-mri", "--mri", str(folder), "--out-dir", str(out)]) == 0
    assert _same(read_volume(out / "mri.nii.gz"))


def test_the_unit_of_an_nrrd_counts(tmp_path, image):
    image.SetSpacing([1000 * side for side in image.GetSpacing()])
    sitk.WriteImage(image, str(tmp_path / "mm.nrrd"))
    raw = (tmp_path / "mm.nrrd").read_bytes()
    for unit, mm in (("mm", 1e3), ("um", 1), ("microns", 1)):
        stated = f'\nspace units: "{unit}" "{unit}" "{unit}"\nencoding'.encode()
        (tmp_path / "u.nrrd").write_bytes(raw.replace(b"\nencoding", stated, 1))
        spacing = read_volume(tmp_path / "u.nrrd").spacing_mm
        np.testing.assert_allclose(spacing, np.array([1.0, 1.2, 1.5]) * mm, rtol=1e-5)
    (tmp_path / "u.nrrd").write_bytes(
        raw.replace(b"\nencoding", b'\nspace units: "ell" "ell" "ell"\nencoding', 1)
    )
    with pytest.raises(ImageError, match=r"u.nrrd: units: expected mm, um or m, found ell"):
        read_volume(tmp_path / "u.nrrd")


def test_an_nrrd_without_a_space_is_read_with_a_doubt(tmp_path, image):
    sitk.WriteImage(image, str(tmp_path / "m.nrrd"))
    raw = (tmp_path / "m.nrrd").read_bytes()
    assert read_volume(tmp_path / "m.nrrd").doubts == ()
    (tmp_path / "m.nrrd").write_bytes(raw.replace(LPS, b"space dimension: 3", 1))
    (doubt,) = read_volume(tmp_path / "m.nrrd").doubts
    assert "declares no frame" in doubt


def test_a_series_that_is_no_volume_is_refused(tmp_path, image):
    with pytest.raises(ImageError, match="gap: slices of the DICOM series are not evenly spaced"):
        read_volume(_dicom(tmp_path / "gap", image, without=(3,)))
    two = _dicom(_dicom(tmp_path / "two", image), image, series="1.2.826.0.1.3680043.2.1125.2")
    with pytest.raises(ImageError, match="two: is 2 DICOM series, .*give each a folder"):
        read_volume(two)
    with pytest.raises(ImageError, match="is one slice of a DICOM series: expected its folder"):
        read_volume(two / "1_003.dcm")


FAULTS = {
    "m.mnc": (b"\x89HDF\r\n\x1a\n" + b"\0" * 64, "mnc2nii"),
    "m.nrrd": (b"NRRD0004\n", "expected NIfTI, MGZ, NRRD"),
    "m.mgz": (b"x" * 99, "expected NIfTI, MGZ, NRRD"),
    "m.tif": (b"II*\0", "does not contain where its voxels lie"),
    "m.npy": (b"\x93NUMPY", "does not contain where its voxels lie"),
    "m.h5": (b"\x89HDF", "HDF5 is not read"),
    "m.IMA": (b"\0" * 200, "dcm2niix"),
    "m.xyz": (b"abc", "a folder with one DICOM series"),
    "m.dcm": (b"\0" * 128 + b"DICM", "not readable as an MRI"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_read_is_refused_in_one_line_with_what_to_do(tmp_path, name, capsys):
    content, words = FAULTS[name]
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    assert main(["prepare-mri", "--mri", str(tmp_path / name), "--out-dir", str(out)]) == 2
    last = capsys.readouterr().err.rstrip("\n").splitlines()[-1]
    assert last.startswith("sbr prepare-mri: ") and name in last and words in last
    assert not out.exists()


def test_folders_without_a_series_are_refused(tmp_path):
    with pytest.raises(ImageError, match="is an empty folder, expected NIfTI"):
        (tmp_path / "empty").mkdir()
        read_volume(tmp_path / "empty")
    (tmp_path / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(ImageError, match="without a DICOM series that can be read"):
        read_volume(tmp_path)
