"""`sbr count`: made-up cells, and the areas they lie in, against what is true of them."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import shapely
import SimpleITK as sitk
import tifffile
from mapped_brain import MIDDLE_MM, SECTIONS, tissue_points
from shapely.geometry import mapping

from sbr_core import Brain
from sbr_core.cli import main
from sbr_core.tools import count

CORE_MM, RIM_MM, CELLS_MM, APART_MM = 6.0, 12.0, 15.0, 0.1
N_TRUE = {
    "Core": np.pi * CORE_MM**2 / APART_MM**2,
    "Rim": np.pi * (RIM_MM**2 - CORE_MM**2) / APART_MM**2,
    "(outside of every region)": np.pi * (CELLS_MM**2 - RIM_MM**2) / APART_MM**2,
}
"""Of a section whose cells stand APART_MM apart on the plane, within CELLS_MM of its middle."""
THICKNESS_UM = 40.0


@pytest.fixture(scope="module")
def given(truth, tmp_path_factory):
    """Cells, and the same regions as a volume, as GeoJSON and as label images."""
    folder = tmp_path_factory.mktemp("given")
    voxel_mm = np.array([0.17, 0.17, 1.0])  # no multiple of the way between cells
    affine = np.linalg.inv(truth.stack_from_world) @ np.diag([*voxel_mm, 1.0])
    affine[:3, 3] = (np.linalg.inv(truth.stack_from_world) @ [0, 0, -1.0, 1.0])[:3]
    x, y, _ = np.indices((353, 294, 12)) * voxel_mm[:, None, None, None]
    labels = regions_at(np.stack([x, y], axis=-1))
    nib.save(nib.Nifti1Image(labels, affine), folder / "labels.nii.gz")
    (folder / "lut.txt").write_text("7 Core 255 0 0 0\n300 Rim 0 0 255 0\n")
    for kind in ("cells", "drawn", "images"):
        (folder / kind).mkdir()
    index = np.arange(-CELLS_MM, CELLS_MM, APART_MM) + APART_MM / 2
    lattice = np.stack(np.meshgrid(index, index), axis=-1).reshape(-1, 2)
    lattice = MIDDLE_MM + lattice[np.linalg.norm(lattice, axis=1) < CELLS_MM]
    for section in SECTIONS:
        px = truth.px(section, lattice)
        table = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1]})
        table["Class"] = np.where(lattice[:, 0] < MIDDLE_MM[0], "left", "right")
        if section == "plain":  # two that lie on the glass
            table.loc[len(table)] = [-5.0, -5.0, "left"]
            table.loc[len(table)] = [1.0, 1.0, "right"]
        table.to_csv(folder / "cells" / f"{section}.csv", index=False)
        core, rim = (disc_px(truth, section, radius) for radius in (CORE_MM, RIM_MM))
        detection = {"objectType": "detection", "name": "Core"}
        drawn = [
            (rim.difference(core), {"objectType": "annotation", "name": "Rim"}),
            (core, {"classification": {"name": "Core", "color": [1, 2, 3]}}),
            (rim.buffer(9), detection),
        ]
        features = [
            {"type": "Feature", "geometry": mapping(outline), "properties": properties}
            for outline, properties in drawn
        ]
        (folder / "drawn" / f"{section}.geojson").write_text(json.dumps(features))
        one = Brain(truth.results).section(section)
        pixels = np.stack(np.meshgrid(*map(np.arange, one.shape[::-1])), axis=-1).astype(float)
        image = regions_at(one.to_plane(pixels))
        tifffile.imwrite(folder / "images" / f"{section}.labels.tif", image)
    return folder


def regions_at(plane_mm):
    """Label 7 in the core, 300 in the rim around it; of points (..., 2) of the plane."""
    radius_mm = np.linalg.norm(plane_mm - MIDDLE_MM, axis=-1)
    return np.where(radius_mm < CORE_MM, 7, np.where(radius_mm < RIM_MM, 300, 0)).astype(np.uint16)


def disc_px(truth, section, radius_mm):
    """The truth: a disc about the middle, on the section, px from the corner."""
    angle = np.linspace(0, 2 * np.pi, 721)[:-1]
    ring_mm = MIDDLE_MM + radius_mm * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return shapely.Polygon(truth.px(section, ring_mm) + 0.5)


def counted(truth, tmp_path, cells, **flags):
    """(by section, of the brain) as tables."""
    count.run(None, cells, results=truth.results, out=tmp_path / "out", force=True, **flags)
    read = {"sep": "\t", "keep_default_na": True}
    return [
        pd.read_csv(tmp_path / "out" / f"{name}.tsv", **read) for name in ("by_section", "brain")
    ]


def of(table, **cells):
    """The one row with these cells."""
    keep = np.ones(len(table), bool)
    for column, cell in cells.items():
        keep &= table[column] == cell
    (row,) = table[keep].to_dict("records")
    return row


KINDS = {
    "labels of the MRI": ({"regions": "labels.nii.gz", "names": "lut.txt"}, 0.01, 0.01),
    "outlines": ({"regions": "drawn"}, 0.01, 0.001),
    # pixels of half a millimetre
    "label images": ({"regions": "images", "names": "lut.txt"}, 0.04, 0.04),
}


@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_areas_are_the_true_ones(truth, given, tmp_path, kind):
    """On sections that are flipped, turned, in a box, finer; left and right apart."""
    how, n_off, mm2_off = KINDS[kind]
    files = {"regions": [given / how["regions"]]}
    if "names" in how:
        files["names"] = given / how["names"]
    by_section, brain = counted(
        truth, tmp_path, [given / "cells"], thickness_um=THICKNESS_UM, by="Class", **files
    )
    for section in SECTIONS:
        px_mm2 = truth.pixel_size_mm[section] ** 2
        discs = [disc_px(truth, section, r).area * px_mm2 for r in (CORE_MM, RIM_MM)]
        true_mm2 = {"Core": discs[0], "Rim": discs[1] - discs[0]}
        for region, n in N_TRUE.items():
            for group in ("left", "right"):
                row = of(by_section, section=section, region=region, Class=group)
                assert row["cells"] == pytest.approx(n / 2, rel=n_off)
            if region in true_mm2:
                mm2 = row["area_mm2"]
                assert mm2 == pytest.approx(true_mm2[region], rel=mm2_off)
                assert row["cells_per_mm2"] == pytest.approx(row["cells"] / mm2)
                assert row["cells_per_mm3"] == pytest.approx(row["cells"] / mm2 / 0.04)
        whole = by_section[by_section["section"] == section].groupby("region").sum()
        regions = ["Core", "Rim", "(outside of every region)"]
        assert whole["cells"][regions].sum() == whole["cells"]["(all tissue)"]
        assert whole["area_mm2"][regions].sum() == pytest.approx(
            whole["area_mm2"]["(all tissue)"], rel=1e-3
        )
        on_glass = of(by_section, section=section, region="(outside of the tissue)", Class="left")
        assert on_glass["cells"] == (section == "plain") and np.isnan(on_glass["area_mm2"])
    for region, n in N_TRUE.items():
        row = of(brain, region=region, Class="left")
        assert row["cells"] == pytest.approx(len(SECTIONS) * n / 2, rel=n_off)
        assert row["sections"] == len(SECTIONS)
        of_sections = by_section[(by_section["region"] == region) & (by_section["Class"] == "left")]
        assert row["area_mm2"] == pytest.approx(of_sections["area_mm2"].sum())
        assert row["cells_per_mm3"] == pytest.approx(row["cells"] / row["area_mm2"] / 0.04)
    assert "(too far from a section)" not in set(brain["region"])


def test_labels_of_the_atlas_are_those_of_the_mri_through_its_transform(truth, given, tmp_path):
    atlas_from_mri = np.eye(4)
    atlas_from_mri[:3] = [[0.9, 0.1, 0, 30], [-0.1, 0.8, 0.1, -20], [0, 0.05, 1.1, 10]]
    labels = nib.load(given / "labels.nii.gz")
    moved = nib.Nifti1Image(np.asarray(labels.dataobj), atlas_from_mri @ labels.affine)
    nib.save(moved, tmp_path / "atlas.nii.gz")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    itk = lps @ np.linalg.inv(atlas_from_mri) @ lps
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(itk[:3, :3].ravel().tolist())
    affine.SetTranslation(itk[:3, 3].tolist())
    sitk.WriteTransform(affine, str(tmp_path / "affine.mat"))
    cells = [given / "cells" / "both.csv"]
    ours, theirs = (
        counted(truth, tmp_path, cells, **flags)[0]
        for flags in (
            {"regions": [given / "labels.nii.gz"]},
            {
                "regions": [tmp_path / "atlas.nii.gz"],
                "regions_in": "atlas",
                "atlas_xfm": [tmp_path / "affine.mat"],
            },
        )
    )
    assert list(ours["region"]) == list(theirs["region"])
    assert np.allclose(ours["cells"], theirs["cells"], rtol=1e-3)
    assert np.allclose(ours["area_mm2"][:-1], theirs["area_mm2"][:-1], rtol=1e-3)


def test_cells_of_the_mri_are_counted_on_their_sections(truth, given, tmp_path, caplog):
    """And those that are too far from any are counted apart."""
    world = [truth.world(section, tissue_points(400, seed=i)) for i, section in enumerate(SECTIONS)]
    beyond = truth.world("boxed", tissue_points(50)) + 30 * (world[4][0] - world[3][0])
    pd.DataFrame(np.vstack([*world, beyond]), columns=["x_mm", "y_mm", "z_mm"]).to_csv(
        tmp_path / "cells.csv", index=False
    )
    with caplog.at_level("INFO", "sbr_core"):
        by_section, brain = counted(
            truth, tmp_path, [tmp_path / "cells.csv"], from_="mri",
            regions=[given / "labels.nii.gz"], names=given / "lut.txt",
        )  # fmt: skip
    for i, section in enumerate(SECTIONS):
        radius_mm = np.linalg.norm(tissue_points(400, seed=i) - MIDDLE_MM, axis=1)
        row = of(by_section, section=section, region="Core")
        assert abs(row["cells"] - np.sum(radius_mm < CORE_MM)) <= 2
        assert np.isnan(row["thickness_um"]) and np.isnan(row["cells_per_mm3"])
    assert of(brain, region="(too far from a section)")["cells"] == 50
    assert "50 too far from a section" in caplog.text and "no cells per mm3" in caplog.text


def test_a_section_without_cells_counts_where_it_was_looked_at(truth, given, tmp_path):
    (tmp_path / "turned.csv").write_text("x_px,y_px\n")
    px = truth.px("plain", tissue_points(9))
    table = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1]})
    table.to_csv(tmp_path / "plain.csv", index=False)
    files = [tmp_path / "plain.csv", tmp_path / "turned.csv"]
    way = {"regions": [given / "labels.nii.gz"], "names": given / "lut.txt"}
    assert of(counted(truth, tmp_path, files[:1], **way)[1], region="Core")["sections"] == 1
    by_section, brain = counted(truth, tmp_path, files, **way, only=["7"])
    assert of(brain, region="Core")["sections"] == 2 and "Rim" not in set(brain["region"])
    assert of(by_section, section="turned", region="Core")["cells"] == 0
    every = counted(truth, tmp_path, files[:1], **way, sections=["all"])[1]
    assert of(every, region="Core")["sections"] == len(SECTIONS)
    # regions drawn on some sections alone
    (tmp_path / "r").mkdir()
    drawn = given / "drawn" / "turned.geojson"
    (tmp_path / "r" / "turned.geojson").write_bytes(drawn.read_bytes())
    brain = counted(truth, tmp_path, files, regions=[tmp_path / "r"])[1]
    assert of(brain, region="(on sections without regions)")["cells"] == 9
    assert of(brain, region="Core")["sections"] == 1
    # without cells the areas alone, of all
    by_section, brain = counted(truth, tmp_path, None, **way)
    assert of(brain, region="Rim")["sections"] == len(SECTIONS) and not brain["cells"].any()
    # without regions the tissue alone
    brain = counted(truth, tmp_path, files)[1]
    assert list(brain["region"]) == ["(all tissue)", "(outside of the tissue)"]


def test_what_is_doubtful_is_said(truth, given, tmp_path, caplog):
    (tmp_path / "lut.txt").write_text("300 Rim 1 2 3 0\n")
    px = truth.px("plain", tissue_points(20)) + [[200.0, 0.0]] * np.array(
        [[i % 3 > 0] for i in range(20)]
    )
    table = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1], "region": "mine"})
    table.to_csv(tmp_path / "plain.csv", index=False)
    (tmp_path / "both.csv").write_text("x_px,y_px,region\n")
    files = [tmp_path / "plain.csv", tmp_path / "both.csv"]
    way = {"regions": [given / "labels.nii.gz"], "names": tmp_path / "lut.txt"}
    with caplog.at_level("WARNING", "sbr_core"):
        counts, _ = counted(truth, tmp_path, files, **way, thickness_um=2e4, by="region")
    assert set(counts["from_region"]) == {"mine"} and set(counts["region"]) > {"7", "Rim"}
    for said in (
        "most cells, 13 of 20, lie outside of the tissue",
        "is 20000 µm thick, more than the 2e+03 µm between it",
        "lut.txt: has no name of 7",
    ):
        assert said in caplog.text


def test_overlapping_outlines_are_counted_each(truth, given, tmp_path):
    core, rim = (disc_px(truth, "both", radius) for radius in (CORE_MM, RIM_MM))
    features = [
        {"type": "Feature", "geometry": mapping(outline), "properties": {"name": name}}
        for name, outline in (("inner", core), ("whole", rim), ("inner", core.buffer(-1)))
    ]
    (tmp_path / "both.geojson").write_text(json.dumps(features))
    by_section, _ = counted(
        truth, tmp_path, [given / "cells" / "both.csv"], regions=[tmp_path / "both.geojson"]
    )
    inner, whole = (of(by_section, region=name) for name in ("inner", "whole"))
    assert inner["cells"] == pytest.approx(N_TRUE["Core"], rel=0.01)
    assert whole["cells"] == pytest.approx(N_TRUE["Core"] + N_TRUE["Rim"], rel=0.01)
    assert inner["area_mm2"] == pytest.approx(core.area / 36, rel=1e-3)
    none = of(by_section, region="(outside of every region)")
    assert none["cells"] == pytest.approx(N_TRUE["(outside of every region)"], rel=0.01)


def test_a_section_on_which_nothing_is_drawn_is_outside_of_every_region(truth, given, tmp_path):
    for section in ("plain", "both"):
        (tmp_path / f"{section}.geojson").write_text(
            '{"type": "FeatureCollection", "features": []}'
            if section == "both"
            else (given / "drawn" / "plain.geojson").read_text()
        )
    cells = [given / "cells" / f"{section}.csv" for section in ("plain", "both")]
    regions = [tmp_path / "plain.geojson", tmp_path / "both.geojson"]
    by_section, _ = counted(truth, tmp_path, cells, regions=regions)
    rows = by_section[by_section["section"] == "both"].set_index("region")
    assert list(rows.index) == [
        "(outside of every region)", "(all tissue)", "(outside of the tissue)"
    ]  # fmt: skip
    outside, tissue = rows.iloc[0], rows.iloc[1]
    assert outside["cells"] == tissue["cells"] > 0
    assert outside["area_mm2"] == pytest.approx(tissue["area_mm2"])


def test_regions_on_sections_without_cells_are_said_not_to_be_counted(
    truth, given, tmp_path, caplog
):
    counted(truth, tmp_path, [given / "cells" / "both.csv"], regions=[given / "drawn"])
    assert "regions of 4 sections (plain" in caplog.text
    caplog.clear()
    areas, cells = [given / "drawn"], [given / "cells" / "both.csv"]
    counted(truth, tmp_path, cells, regions=areas, sections=["all"])
    assert "are not counted" not in caplog.text


def test_an_even_density_is_even_in_the_mri(truth, tmp_path):
    """A cell to every quarter of a millimetre of each section, whatever the smoothing."""
    for section in SECTIONS:
        one = Brain(truth.results).section(section)
        step = 0.25 / one.pixel_size_mm  # the same distance on each
        x, y = np.meshgrid(*(np.arange(0, n_px, step) for n_px in one.shape[::-1]))
        table = pd.DataFrame({"x_px": x.ravel(), "y_px": y.ravel()})
        table.to_csv(tmp_path / f"{section}.csv", index=False)
    files = [tmp_path / f"{section}.csv" for section in SECTIONS]
    true = 1 / 0.25**2 / (THICKNESS_UM / 1000)
    for flags in ({}, {"smooth_mm": 5.0, "voxel_mm": 0.8}):
        counted(truth, tmp_path, files, density=True, thickness_um=THICKNESS_UM, **flags)
        image = nib.load(tmp_path / "out" / "density.nii.gz")
        density = np.asarray(image.dataobj)
        mri = nib.load(truth.results / "prepare" / "mri.nii.gz")
        world = np.array([truth.world(s, tissue_points(60, i)) for i, s in enumerate(SECTIONS)])
        voxels = (np.linalg.inv(image.affine) @ np.c_[world.reshape(-1, 3), np.ones(300)].T)[:3]
        found = density[tuple(np.rint(voxels).astype(int))]
        assert abs(found.mean() / true - 1) < 0.01 and np.abs(found / true - 1).max() < 0.15
        assert density.dtype == np.float32
        assert density.max() < 1.2 * true  # beside the tissue, too
        if not flags:
            assert np.array_equal(image.affine, mri.affine) and image.shape == mri.shape
            assert not density[np.asarray(mri.dataobj) == 0].any()
    counted(truth, tmp_path, files[:1])  # without it: none of other cells stays beside
    assert not (tmp_path / "out" / "density.nii.gz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.csv", "--regions", "labels.nii.gz", "--only", "Cortex"],
         "--only: no region 'Cortex'; there are 300, 7"),
        (["a.csv", "--regions", "half.nii.gz"], "expected whole numbers as labels"),
        (["a.csv", "--regions", "rgb.nii.gz"], "expected one number per voxel"),
        (["plain.csv", "--regions", "plain.rgb.tif"], "expected one plane of integer labels"),
        (["plain.csv", "--regions", "plain.part.tif"], "have not the proportions of section:plain"),
        (["a.csv", "--regions", "labels.nii.gz", "plain.rgb.tif"], "expected one volume alone"),
        (["a.csv", "--regions", "a.csv"], "a.csv: of which section?"),
        (["a.csv", "--regions", "plain.rgb.tif", "plain.part.tif"], "are both of plain"),
        (["a.csv", "--regions", "plain.geojson", "both.tif"], "expected GeoJSON or label"),
        (["a.csv", "--regions", "plain.geojson"], "not a valid outline: Self-intersection"),
        (["a.csv", "--regions", "labels.nii.gz", "--names", "twice.txt"], "stands there twice"),
        (["a.csv", "--regions", "labels.nii.gz", "--regions-in", "stack"], "expected mri or atlas"),
        (["a.csv", "--regions", "labels.nii.gz", "--regions-in", "atlas"], "--atlas-xfm"),
        (["none.csv", "--regions", "labels.nii.gz"], "no such file"),
        (["plain.geojson"], "expected a table of points"),
        (["a.csv", "a.csv"], "a.csv: is given twice"),
        (["unit.csv"], "columns x, y have no unit"),
        (["two.csv"], "has coordinates in px and in um"),
        (["far.csv", "--from", "mri"], "no cell lies on a section"),
        (["unnamed.csv"], "of which section? Expected --from section:ID"),
        (["a.csv", "--by", "Klass"], "--by: no column 'Klass'; there are section, x_px, y_px"),
        (["a.csv", "--sections", "s99"], "no section 's99'"),
        (["a.csv", "--density"], "section 'plain' has no thickness_um in the manifest"),
        (["a.csv", "--thickness-um", "0"], "--thickness-um: expected a number above 0"),
        (["a.csv", "--smooth-mm", "-1"], "--smooth-mm: expected 0 or a number above it"),
        (["a.csv", "--from", "section:s99"], "no section 's99'"),
        (["a.csv", "--out", "a.csv"], "a.csv: is a file, expected a folder"),
        (["a.csv", "--out", "full"], "brain.tsv: is there already; --force writes over it"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_told_in_one_line(
    truth, given, tmp_path, capfd, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.nii.gz").symlink_to(given / "labels.nii.gz")
    cells = "50.0,60.0\n"
    (tmp_path / "a.csv").write_text("section,x_px,y_px\nplain," + cells)
    (tmp_path / "plain.csv").write_text("x_px,y_px\n" + cells)
    (tmp_path / "unit.csv").write_text("section,x,y\nplain," + cells)
    (tmp_path / "unnamed.csv").write_text("x_px,y_px\n" + cells)
    (tmp_path / "two.csv").write_text("section,x_px,y_px,x_um,y_um\nplain,1,2,3,4\n")
    (tmp_path / "far.csv").write_text("x_mm,y_mm,z_mm\n900,900,900\n")
    (tmp_path / "twice.txt").write_text("1 a 1 2 3 0\n1 b 1 2 3 0\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "brain.tsv").write_text("mine")
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}
    feature = {"type": "Feature", "geometry": bow, "properties": {}}
    (tmp_path / "plain.geojson").write_text(json.dumps(feature))
    eight = np.ones((8, 8, 8), np.float32)
    nib.save(nib.Nifti1Image(eight / 2, np.eye(4)), "half.nii.gz")
    rgb = np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"] = 1
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), "rgb.nii.gz")
    tifffile.imwrite("plain.rgb.tif", np.zeros((104, 124, 3), np.uint8), photometric="rgb")
    tifffile.imwrite("plain.part.tif", np.zeros((50, 90), np.uint8))
    tifffile.imwrite("both.tif", np.zeros((400, 420), np.uint8))
    out = [] if "--out" in words else ["--out", "out"]
    assert main(["count", *words, "--results", str(truth.results), *out]) == 2
    error = capfd.readouterr().err.splitlines()
    assert message in error[-1], error
    assert all(line.startswith("count: 1/") for line in error[:-1])
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "brain.tsv").read_text() == "mine"
