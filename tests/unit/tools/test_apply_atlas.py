"""The space `atlas` of `sbr apply`: on to a template, and its labels onto the sections."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import tifffile
from mapped_brain import GRID, MIDDLE_MM, tissue_points
from scipy import ndimage

from sbr_core import Brain
from sbr_core.cli import main
from sbr_core.geometry import apply as through
from sbr_core.io.tables import write_tsv

XYZ = ["x_mm", "y_mm", "z_mm"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Files of the transform, and the truth: template = to_template(MRI), RAS mm."""
    folder = tmp_path_factory.mktemp("xfm")
    matrix = np.eye(4)
    matrix[:3] = [[0.9, 0.1, 0, 30], [-0.1, 0.8, 0.1, -20], [0, 0.05, 1.1, 10]]
    back = np.linalg.inv(matrix)  # template -> MRI, as ITK has it, in LPS
    lps = np.diag([-1, -1, 1, 1]) @ back @ np.diag([-1, -1, 1, 1])
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(lps[:3, :3].ravel().tolist())
    affine.SetTranslation(lps[:3, 3].tolist())
    sitk.WriteTransform(affine, str(folder / "0GenericAffine.mat"))
    field = sitk.Image([4, 4, 4], sitk.sitkVectorFloat64, 3)
    field.SetSpacing([100.0] * 3)
    field.SetOrigin([-150.0] * 3)
    moved = sitk.GetArrayFromImage(field) + np.array([-2.0, 0.0, 0.0])  # 2 mm to the right, in LPS
    warp = sitk.GetImageFromArray(moved, isVector=True)
    warp.CopyInformation(field)
    sitk.WriteImage(warp, str(folder / "1Warp.nii.gz"))
    files = [folder / "1Warp.nii.gz", folder / "0GenericAffine.mat"]
    return files, lambda mri: through(matrix, mri) - [2.0, 0.0, 0.0]


def test_cells_go_to_the_template_and_back(truth, template, tmp_path, monkeypatch):
    """By the flag, by the sheet, and in Python."""
    files, to_template = template
    plane_mm = tissue_points(25)
    px, world = truth.px("both", plane_mm), truth.world("both", plane_mm)
    pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1]}).to_csv(tmp_path / "a.csv", index=False)
    monkeypatch.chdir(tmp_path)
    of = ["--results", str(truth.results)]
    way = [*of, "--from", "section:both", "--to", "atlas"]
    given = ["--atlas-xfm", *map(str, files)]
    assert main(["apply", "a.csv", *way, "--out", "b.csv", *given]) == 0
    done = pd.read_csv("b.csv")
    assert np.abs(done[XYZ].to_numpy() - to_template(world)).max() < 0.1 * GRID.spacing_mm
    brain = Brain(truth.results, atlas_xfm=files)
    assert np.allclose(brain.section("both").to_atlas(px), done[XYZ].to_numpy(), atol=1e-4)
    xfm = "; ".join(map(str, files))
    row = {"brain": "b", "sections": "s.tsv", "mri": "m.nii", "orientation": "LIA"}
    write_tsv(tmp_path / "config" / "brains.tsv", [row | {"atlas_xfm": xfm}])
    back = [*of, "--from", "atlas", "--to", "section:both", "--out", "c.csv"]
    assert main(["apply", "b.csv", *back]) == 0
    returned = pd.read_csv("c.csv")[["x_px", "y_px"]].to_numpy()
    assert np.abs(returned - px).max() / 6 < 0.1 * GRID.spacing_mm


def test_points_without_a_way_are_counted(truth, tmp_path, monkeypatch, capfd):
    """Where a field folds: empty in a table, undefined in markups, and said."""
    monkeypatch.chdir(tmp_path)
    x = np.indices((30, 30, 30))[2] * 2.0 - 29.0
    disp = np.stack([np.where(np.abs(x) < 12, -3 * x, 0.0), 0 * x, 0 * x], axis=-1)
    field = sitk.GetImageFromArray(disp, isVector=True)
    field.SetSpacing([2.0] * 3)
    field.SetOrigin([-29.0] * 3)
    sitk.WriteImage(field, "folded.mha")
    px = truth.px("both", tissue_points(40))
    pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1]}).to_csv("a.csv", index=False)
    way = ["--results", str(truth.results), "--from", "section:both", "--to", "atlas"]
    way += ["--atlas-xfm", "folded.mha"]
    assert main(["apply", "a.csv", *way, "--out", "b.csv"]) == 0
    n_lost = int(pd.read_csv("b.csv")["x_mm"].isna().sum())
    assert n_lost and f"{n_lost} without a way to the atlas" in capfd.readouterr().err
    assert main(["apply", "a.csv", *way, "--out", "b.mrk.json"]) == 0
    assert (tmp_path / "b.mrk.json").read_text().count('"undefined"') == n_lost


def test_labels_of_the_template_on_a_section(truth, template, tmp_path):
    files, to_template = template
    affine = np.diag([0.8, 0.8, 0.8, 1.0])
    affine[:3, 3] = 0.0, -55.0, -22.0
    centres = through(affine, np.stack(np.indices((80, 90, 80)), axis=-1))
    labels = (41 + (centres[..., 0] > 29.0)).astype(np.uint16)
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "atlas.nii.gz")
    way = ["--results", str(truth.results), "--from", "atlas", "--to", "plane:turned", "--labels"]
    given = ["--atlas-xfm", *map(str, files), "--out", str(tmp_path / "o.tif")]
    assert main(["apply", str(tmp_path / "atlas.nii.gz"), *way, *given]) == 0
    done = tifffile.imread(tmp_path / "o.tif")
    plane_mm = np.stack(np.indices(GRID.shape)[::-1], axis=-1) * GRID.spacing_mm
    world = truth.world("turned", plane_mm.reshape(-1, 2)).reshape(*GRID.shape, 3)
    expected = 41 + (to_template(world)[..., 0] > 29.0)
    inside = np.linalg.norm(plane_mm - MIDDLE_MM, axis=-1) < 15
    assert done.dtype == np.uint16 and set(np.unique(done[inside])) == {41, 42}
    assert np.mean(done[inside] == expected[inside]) > 0.98


def test_images_and_volumes_go_onto_the_grid_of_the_template(truth, template, tmp_path, capfd):
    """A section, the MRI, and its labels back again, all where the transform has them."""
    files, to_template = template
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -2.0, -60.0, -25.0
    grid = nib.Nifti1Image(np.ones((72, 75, 70), np.uint8), affine)
    nib.save(grid, tmp_path / "template.nii.gz")
    tifffile.imwrite(tmp_path / "in.tif", np.full((104, 124), 9, np.uint8))
    given = ["--results", str(truth.results), "--atlas-xfm", *map(str, files)]
    to_atlas = [*given, "--to", "atlas", "--out", str(tmp_path / "o.nii.gz")]
    image = ["apply", str(tmp_path / "in.tif"), *to_atlas, "--from", "section:plain"]
    assert main(image) == 2
    assert "--like: expected a volume of the template" in capfd.readouterr().err
    like = ["--like", str(tmp_path / "template.nii.gz"), "--force"]
    assert main([*image, *like, "--within-mm", "0.8"]) == 0
    done = nib.load(tmp_path / "o.nii.gz")
    assert np.array_equal(done.affine, affine) and done.shape == (72, 75, 70)
    world = truth.world("plain", tissue_points(200))
    voxels = np.rint(through(np.linalg.inv(affine), to_template(world))).astype(int)
    found = np.asarray(done.dataobj)[tuple(voxels.T)]
    assert np.mean(found == 9) > 0.97

    mri = nib.load(truth.results / "prepare" / "mri.nii.gz")
    assert main(["apply", mri.get_filename(), *to_atlas, *like, "--from", "mri"]) == 0
    done = nib.load(tmp_path / "o.nii.gz")
    near = through(np.linalg.inv(done.affine), to_template(world))
    there = through(np.linalg.inv(mri.affine), world)
    values = [
        ndimage.map_coordinates(np.asarray(volume.dataobj), at.T, order=1)
        for volume, at in ((done, near), (mri, there))
    ]
    assert np.abs(values[0] - values[1]).max() < 0.05 * np.ptp(values[1])

    labels = (np.indices(grid.shape)[0] > 34).astype(np.int16) * 500 + 1
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    back = [*given, "--from", "atlas", "--to", "mri", "--labels", "--pixel-mm", "0.6"]
    out = str(tmp_path / "m.nii.gz")
    assert main(["apply", str(tmp_path / "labels.nii.gz"), *back, "--out", out]) == 0
    done = nib.load(out)
    voxels = np.rint(through(np.linalg.inv(done.affine), world)).astype(int)
    found = np.asarray(done.dataobj)[tuple(voxels.T)]
    expected = np.where(to_template(world)[:, 0] > 32.5, 501, 1)
    assert np.mean(found == expected) > 0.95 and done.get_data_dtype() == np.int16
