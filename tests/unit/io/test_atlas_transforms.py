"""The way between MRI and template, against SimpleITK and against itself."""

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from sbr_core.errors import ImageError
from sbr_core.geometry import LPS_FROM_RAS
from sbr_core.geometry import apply as through
from sbr_core.io.atlas_transforms import read_atlas_transform

POINTS = np.random.default_rng(0).uniform(-25, 25, (60, 3))


def affine(seed=1):
    rng = np.random.default_rng(seed)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((np.eye(3) * 1.1 + rng.normal(0, 0.08, (3, 3))).ravel().tolist())
    transform.SetTranslation(rng.normal(0, 4, 3).tolist())
    transform.SetCenter((3.0, -2.0, 5.0))
    return transform


def field_image(steep=1.0):
    """Smooth displacements of up to some 3 mm, on an oblique grid."""
    k, j, i = np.indices((40, 44, 48))
    x, y, z = i / 7, j / 8, k / 6
    disp = np.stack([np.sin(y) + np.cos(z), np.sin(x + z), np.cos(x) * np.sin(y)], -1)
    image = sitk.GetImageFromArray(1.5 * steep * disp, isVector=True)
    image.SetSpacing((1.6, 1.7, 1.9))
    a = 0.2
    image.SetDirection((np.cos(a), -np.sin(a), 0, np.sin(a), np.cos(a), 0, 0, 0, 1.0))
    image.SetOrigin((-32.0, -45.0, -37.0))
    return image


def by_itk(transform, points):
    lps = through(LPS_FROM_RAS, points)
    return through(LPS_FROM_RAS, np.array([transform.TransformPoint(p.tolist()) for p in lps]))


@pytest.mark.parametrize("kind", ["txt", "mat", "list", "composite"])
def test_points_go_as_itk_takes_them_and_back(tmp_path, kind):
    """Lists in the order of antsApplyTransforms: the first maps points of the template first."""
    linear, warp = affine(), sitk.DisplacementFieldTransform(field_image())
    expected = sitk.CompositeTransform([linear, warp])  # ITK applies the last one first
    if kind in ("txt", "mat"):
        files, expected = [tmp_path / f"a.{kind}"], linear
        sitk.WriteTransform(linear, str(files[0]))
    elif kind == "list":
        files = [tmp_path / "1Warp.nii.gz", tmp_path / "0GenericAffine.mat"]
        sitk.WriteImage(field_image(), str(files[0]))
        sitk.WriteTransform(linear, str(files[1]))
    else:
        files = [tmp_path / "a.h5"]
        sitk.WriteTransform(expected, str(files[0]))
    ours = read_atlas_transform(files)
    mri = ours.to_mri(POINTS)
    assert np.allclose(mri, by_itk(expected, POINTS), atol=1e-4)
    assert np.allclose(ours.from_mri(mri), POINTS, atol=1e-3)
    assert ours.from_mri(mri.reshape(3, 20, 3)).shape == (3, 20, 3)


def test_where_a_field_folds_there_is_no_way_back_or_a_right_one(tmp_path):
    """Never a wrong one."""
    sitk.WriteImage(field_image(steep=4.0), str(tmp_path / "w.nii.gz"))
    ours = read_atlas_transform([tmp_path / "w.nii.gz"])
    there = ours.to_mri(POINTS)
    back = ours.from_mri(there)
    found = np.isfinite(back[:, 0])
    assert found.any()
    assert np.abs(ours.to_mri(back[found]) - there[found]).max() < 0.1


def lta(kind, matrix, volumes=""):
    rows = "\n".join(" ".join(map(str, row)) for row in matrix)
    head = f"# made by hand\ntype      = {kind}\nnxforms   = 1\nmean      = 0 0 0\nsigma = 1\n"
    return f"{head}1 4 4\n{rows}\n{volumes}"


def test_an_lta_maps_the_mri_to_the_template(tmp_path):
    matrix = np.eye(4)
    matrix[:3] = [[1.1, 0.1, 0, 3], [-0.1, 0.9, 0.2, -4], [0, 0.1, 1.0, 5]]
    path = tmp_path / "a.lta"
    path.write_text(lta("1      # LINEAR_RAS_TO_RAS", matrix))
    ours = read_atlas_transform([path])
    assert np.allclose(ours.from_mri(POINTS), through(matrix, POINTS))
    assert np.allclose(ours.to_mri(ours.from_mri(POINTS)), POINTS)
    volume = (
        "{} volume info\nvalid = 1\nfilename = x.mgz\nvolume = 256 256 128\nvoxelsize = 1 1 {}\n"
        "xras   = -1 0 0\nyras   = 0 0 -1\nzras   = 0 1 0\ncras   = {} 0 0\n"
    )
    path.write_text(lta(0, np.eye(4), volume.format("src", 2, 0) + volume.format("dst", 1, 7)))
    ours = read_atlas_transform([path])
    # the middle voxel of one is that of the other; a voxel of 2 mm becomes one of 1
    assert np.allclose(ours.from_mri(np.zeros(3)), [7, 0, 0])
    assert np.allclose(ours.from_mri(np.array([3.0, 4.0, 5.0])), [10, 2, 5])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.lta", "type = 1\n1 4 4\n1 0 0 0\n", "expected a matrix of four rows"),
        ("a.lta", lta(14, np.eye(4)), "expected the type 0"),
        ("a.lta", lta(0, np.eye(4)), "'xras' is missing"),
        ("a.lta", lta(1, np.zeros((4, 4))), "with an inverse"),
        ("a.mat", "nothing", "not readable as a transform of ITK"),
        ("a.nii.gz", "nothing", "not readable as a transform of ITK"),
    ],
)
def test_what_is_no_transform_is_named(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ImageError, match=said):
        read_atlas_transform([tmp_path / name])
    with pytest.raises(ImageError, match="no such file"):
        read_atlas_transform([tmp_path / "none.mat"])


def test_an_image_or_a_2d_transform_is_none(tmp_path):
    sitk.WriteImage(sitk.Image(8, 8, 8, sitk.sitkFloat32), str(tmp_path / "a.nii.gz"))
    with pytest.raises(ImageError, match="found an image"):
        read_atlas_transform([tmp_path / "a.nii.gz"])
    sitk.WriteTransform(sitk.AffineTransform(2), str(tmp_path / "a.txt"))
    with pytest.raises(ImageError, match="expected a 3D transform"):
        read_atlas_transform([tmp_path / "a.txt"])


def test_numbers_that_are_not_finite_or_in_another_file_are_refused(tmp_path):
    image = field_image()
    inside = tmp_path / "warp.mhd"
    sitk.WriteImage(image, str(inside))
    there = read_atlas_transform([inside]).to_mri(POINTS)
    assert np.allclose(there, by_itk(sitk.DisplacementFieldTransform(image), POINTS), atol=1e-4)
    folder = tmp_path / "other"
    folder.mkdir()
    moved = inside.read_text().replace("= warp.", "= ../warp.")
    (folder / "warp.mhd").write_text(moved)
    linked = tmp_path / "a.h5"
    sitk.WriteTransform(affine(), str(linked))
    with h5py.File(linked, "a") as file:
        numbers = next(n for n in file["TransformGroup/0"] if "Parameters" in n)
        name = f"TransformGroup/0/{numbers}"
        with h5py.File(tmp_path / "b.h5", "w") as other:
            other["x"] = file[name][:]
        del file[name]
        file[name] = h5py.ExternalLink("b.h5", "/x")
    array = sitk.GetArrayFromImage(field_image())
    array[3, 3, 3] = np.nan
    holed = sitk.GetImageFromArray(array, isVector=True)
    sitk.WriteImage(holed, str(tmp_path / "nan.mha"))
    (tmp_path / "latin.txt").write_bytes(
        b"#Insight Transform File V1.0\n#Transform 0\nTransform: \xe9_double_3_3\n"
        b"Parameters: 1\nFixedParameters: 0 0 0\n"
    )
    for path, said in (
        (folder / "warp.mhd", "only names of files in its own folder"),
        (linked, "lies in another file"),
        (tmp_path / "nan.mha", "not finite"),
        (tmp_path / "latin.txt", "not readable as a transform of ITK"),
    ):
        with pytest.raises(ImageError, match=said):
            read_atlas_transform([path])
