"""`sbr export itk`, read by SimpleITK and by ANTs."""

import ants
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from mapped_brain import MIDDLE_MM, SECTIONS, MappedBrain, signal, tissue_points

from sbr_core import Brain
from sbr_core.algorithms.simulation.swirls import undo_swirls
from sbr_core.cli import main
from sbr_core.geometry import LPS_FROM_RAS, apply

LPS = np.diag(LPS_FROM_RAS)[:3]
TO_SECTION, TO_MRI = (
    f"_from-{a}_to-{b}_mode-image_xfm" for a, b in (("mri", "section"), ("section", "mri"))
)


@pytest.fixture(scope="module")
def out(truth: MappedBrain, tmp_path_factory):
    """The files of all sections."""
    folder = tmp_path_factory.mktemp("itk") / "out"
    assert main(["export", "itk", "--results", str(truth.results), "--out", str(folder)]) == 0
    assert len(list(folder.iterdir())) == 5 * len(SECTIONS)
    return folder


def both_sides(truth, section, behind_mm=0.0):
    """The same points as ITK has them in the section and in the MRI: (n, 3) each, LPS mm."""
    plane_mm = tissue_points(200)
    px = Brain(truth.results).section(section).from_plane(plane_mm)
    z_mm = np.full((len(px), 1), behind_mm)
    section_mm = np.hstack([px * truth.pixel_size_mm[section], z_mm])
    stack_mm = np.hstack([plane_mm, z_mm + 2.0 * SECTIONS.index(section)])
    return section_mm, apply(np.linalg.inv(truth.stack_from_world), stack_mm) * LPS


def through_itk(path, points):
    transform = sitk.ReadTransform(str(path))
    return np.array([transform.TransformPoint(point.tolist()) for point in points])


def through_field(path, points):
    image = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(image)
    return np.array([transform.TransformPoint(point.tolist()) for point in points])


def through_ants(path, points):
    table = pd.DataFrame(points, columns=list("xyz"))
    return ants.apply_transforms_to_points(3, table, [str(path)])[list("xyz")].to_numpy()


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("behind_mm", [0.0, -0.9, 30.0])
def test_composites_map_as_the_brain_does(truth, out, section, behind_mm):
    in_section, in_mri = both_sides(truth, section, behind_mm)
    to_section, to_mri = (out / f"{section}{name}.h5" for name in (TO_SECTION, TO_MRI))
    # there as `Brain`, back as the truth: the published inverse is one of a grid
    np.testing.assert_allclose(through_itk(to_mri, in_mri), in_section, atol=1e-6)
    np.testing.assert_allclose(through_itk(to_section, in_section), in_mri, atol=0.02)
    if section == "both":
        np.testing.assert_allclose(
            through_ants(to_mri, in_mri), through_itk(to_mri, in_mri), atol=1e-5
        )


@pytest.mark.parametrize("section", SECTIONS)
def test_fields_are_the_composites_between_their_layers(truth, out, section):
    for behind_mm in (0.0, 1.9):
        points = both_sides(truth, section, behind_mm)
        for name, here in ((TO_SECTION, points[0]), (TO_MRI, points[1])):
            expected = through_itk(out / f"{section}{name}.h5", here)
            for through in (through_field, through_ants)[: 2 if section == "both" else 1]:
                # half a working pixel apart are the nodes of the published field; here they are one
                moved = through(out / f"{section}{name}.nii.gz", here)
                np.testing.assert_allclose(moved, expected, atol=0.02)


def test_ants_resamples_the_section_onto_the_mri(truth, out):
    section = "both"
    mri = ants.image_read(str(truth.results / "prepare" / "mri.nii.gz"))
    image = ants.image_read(str(out / f"{section}_section.nii.gz"))
    in_mri = ants.apply_transforms(mri, image, [str(out / f"{section}{TO_MRI}.h5")])
    voxels = np.argwhere(in_mri.numpy() > 0)
    stack_mm = np.array([ants.transform_index_to_physical_point(in_mri, v) for v in voxels])
    stack_mm = apply(truth.stack_from_world, stack_mm * LPS)
    # nothing further from the section than it stands for
    assert np.abs(stack_mm[:, 2] - 2.0 * SECTIONS.index(section)).max() <= 1.0 + 1e-6
    flat_mm = undo_swirls(stack_mm[:, :2], truth.swirls[section])
    inner = np.linalg.norm(flat_mm - MIDDLE_MM, axis=-1) < 16
    assert inner.sum() > 300
    value = in_mri.numpy()[tuple(voxels[inner].T)]
    np.testing.assert_allclose(value, signal(flat_mm[inner]), atol=0.01)
    by_field = ants.apply_transforms(mri, image, [str(out / f"{section}{TO_MRI}.nii.gz")])
    np.testing.assert_allclose(by_field.numpy()[tuple(voxels[inner].T)], value, atol=0.02)


def test_ants_resamples_the_mri_onto_the_section(truth, out):
    section = "flipped"
    mri = ants.image_read(str(truth.results / "prepare" / "mri.nii.gz"))
    image = ants.image_read(str(out / f"{section}_section.nii.gz"))
    found = ants.apply_transforms(image, mri, [str(out / f"{section}{TO_SECTION}.nii.gz")])
    assert found.shape == image.shape
    # the MRI falls off from the middle: 10 per mm of the plane
    section_mm, _ = both_sides(truth, section)
    columns_rows = np.array(
        [ants.transform_physical_point_to_index(image, p)[:2] for p in section_mm]
    )
    nearest = np.round(columns_rows).astype(int)
    radius_mm = np.linalg.norm(tissue_points(200) - MIDDLE_MM, axis=-1)
    value = found.numpy()[nearest[:, 0], nearest[:, 1], 0]
    far = radius_mm > 3  # off its tip
    assert np.abs(value - 10 * (18 - radius_mm))[far].max() < 7


def test_only_some_sections(truth, tmp_path, capsys):
    words = ["export", "itk", "--results", str(truth.results), "--out", str(tmp_path / "out")]
    assert main([*words, "--sections", "boxed"]) == 0
    assert {p.name.split("_")[0] for p in (tmp_path / "out").iterdir()} == {"boxed"}
    assert main([*words, "--sections", "nobody"]) == 2
    assert "no section 'nobody'" in capsys.readouterr().err
    assert main([*words, "--markers", "3"]) == 2
    assert "--markers: itk has no use for it" in capsys.readouterr().err
