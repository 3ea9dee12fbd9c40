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


def _facts(out):
    return json.loads((out / "mri.json").read_text())


@pytest.mark.parametrize(
    "shift",
    [
        lambda d: np.where(d != 0, (d - 705.0) / 90, 0),  # z-scores, in a background of 0
        lambda d: -1.0 * d,
        lambda d: d + 32768.0,
    ],
)
def test_tissue_is_above_zero_wherever_the_values_begin(mri, tmp_path, caplog, shift):
    path, data = mri
    write_volume(path, Volume(shift(data).astype(np.float32), AFFINE))
    mask = tmp_path / "mask.nii.gz"
    write_volume(mask, Volume((data != 0).astype(np.uint8), AFFINE))
    for given in (mask, None):
        out = _run(path, tmp_path, given)
        found = read_volume(out / "mri.nii.gz").data
        assert (found[data != 0] > 0).mean() > 0.99
        assert not found[data == 0].any()
        assert np.corrcoef(found[data != 0], data[data != 0])[0, 1] > 0.999
        np.testing.assert_array_equal(read_volume(out / "mri_mask.nii.gz").data, data != 0)
    facts = _facts(out)
    assert facts["value_taken_off"] or facts["sign_changed"]
    assert "WARNING" not in caplog.text


def test_one_single_value_below_zero_is_refused_or_shown_but_never_divided_by(mri, tmp_path):
    path, data = mri
    write_volume(path, Volume(np.where(data != 0, -3.0, 0).astype(np.float32), AFFINE))
    found = read_volume(_run(path, tmp_path) / "mri.nii.gz").data
    assert (found[data != 0] > 0).all() and not found[data == 0].any()


def _with_affine(path, affine, units="mm", sform=None):
    image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), affine)
    image.set_sform(affine if sform is None else sform, 2)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units(units)
    nib.save(image, path)


def test_an_mri_in_micrometres_becomes_one_in_millimetres(mri, tmp_path):
    path, data = mri
    micro = np.diag([1000, 1000, 1000, 1]) @ AFFINE
    _with_affine(path, micro, "micron")
    unknown = nib.Nifti1Image((data != 0).astype(np.uint8), micro)  # as many tools write masks
    nib.save(unknown, tmp_path / "mask.nii.gz")
    out = _run(path, tmp_path, tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(read_volume(out / "mri.nii.gz").world_from_voxel, AFFINE, atol=1e-4)
    np.testing.assert_allclose(_facts(out)["spacing_mm"], [1, 1, 1.5], rtol=1e-5)


@pytest.mark.parametrize(
    ("times", "fault"), [(1000, "2.55.*voxel size of 1500 in micrometres"), (50, "over 500")]
)
def test_a_brain_longer_than_any_is_refused(mri, tmp_path, times, fault):
    path, _ = mri
    _with_affine(path, np.diag([times, times, times, 1]) @ AFFINE)
    with pytest.raises(ImageError, match=rf"in.nii.gz: .*{fault}"):
        _run(path, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_brain_shorter_than_any_is_said(mri, tmp_path, caplog):
    path, _ = mri
    _with_affine(path, np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE)
    (doubt,) = _facts(_run(path, tmp_path))["doubts"]
    assert "voxel size in metres" in doubt and doubt in caplog.text


def test_frames_that_disagree_are_said_in_log_and_facts(mri, tmp_path, caplog):
    path, _ = mri
    _with_affine(path, AFFINE, sform=np.diag([-1, 1, 1, 1]) @ AFFINE)
    (doubt,) = _facts(_run(path, tmp_path))["doubts"]
    assert "MIRROR" in doubt and doubt in caplog.text


def test_a_sheared_mri_lies_in_itk_where_its_header_puts_it(mri, tmp_path):
    import SimpleITK as sitk

    path, data = mri
    sheared = AFFINE.copy()
    sheared[0, 1] += 0.1
    _with_affine(path, AFFINE, sform=sheared)
    out = _run(path, tmp_path)
    assert any("sheared" in doubt for doubt in _facts(out)["doubts"])
    itk = sitk.ReadImage(str(out / "mri_mask.nii.gz"))
    inside = np.argwhere(sitk.GetArrayFromImage(itk))[:, ::-1].astype(float)
    centre = itk.TransformContinuousIndexToPhysicalPoint(inside.mean(axis=0).tolist())
    true = sheared @ [*np.argwhere(data).mean(axis=0), 1]
    np.testing.assert_allclose(np.array(centre) * [-1, -1, 1], true[:3], atol=0.1)
    ours = read_volume(out / "mri.nii.gz")
    assert np.allclose(nib.load(out / "mri.nii.gz").get_qform(), ours.world_from_voxel, atol=1e-4)
