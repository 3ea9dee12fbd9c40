"""`sbr apply` on labels of the MRI: outlines for QuPath, every section at once, tables of jobs."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from mapped_brain import MIDDLE_MM, SECTIONS, tissue_points
from shapely.geometry import shape

from sbr_core.cli import main
from sbr_core.geometry import apply as through
from sbr_core.io.geojson import read_geojson, region_of
from sbr_core.tools import apply

LUT = "0 Unknown 0 0 0 0\n1 Core 200 10 20 0\n600 Left-Rim 30 40 250 0\n"
CORE_MM, RIM_MM = 6.0, 12.0


@pytest.fixture(scope="module")
def atlas(truth, tmp_path_factory):
    """Columns through the whole stack: a core, label 1, and around it label 600."""
    folder = tmp_path_factory.mktemp("atlas")
    affine = np.array([[0, 0.4, 0, -26], [-0.4, 0, 0, 26], [0, 0, 0.4, -24], [0, 0, 0, 1.0]])
    voxels = np.stack(np.indices((131, 131, 124)), axis=-1)
    stack_mm = through(truth.stack_from_world @ affine, voxels)
    radius_mm = np.linalg.norm(stack_mm[..., :2] - MIDDLE_MM, axis=-1)
    labels = np.where(radius_mm < RIM_MM, 600, 0)
    labels[radius_mm < CORE_MM] = 1
    nib.save(nib.Nifti1Image(labels.astype(np.int16), affine), folder / "atlas.nii.gz")
    (folder / "lut.txt").write_text(LUT)
    return folder


def run(truth, given, out, **flags):
    flags = {"results": truth.results, "from_": "mri", "labels": True} | flags
    apply.run(None, [given], out=out, **flags)


def disc_px(truth, section, radius_mm):
    """The truth: a disc about the middle, on the section, px from the corner."""
    angle = np.linspace(0, 2 * np.pi, 400)[:-1]
    ring_mm = MIDDLE_MM + radius_mm * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return shapely.Polygon(truth.px(section, ring_mm) + 0.5)


def test_outlines_of_an_atlas_on_every_section(truth, atlas, tmp_path):
    """Where they are in truth, with names and colours, of a finer or coarser pixel, simplified."""
    ways = {
        "a": {"pixel_mm": 0.1},
        "b": {"pixel_mm": 0.3, "simplify_mm": 0.3},
    }
    for name, how in ways.items():
        run(
            truth, atlas / "atlas.nii.gz", tmp_path / name / "{section}.atlas.geojson",
            to="section", names=atlas / "lut.txt", **how,
        )  # fmt: skip
        written = sorted(path.name for path in (tmp_path / name).iterdir())
        assert written == sorted(f"{section}.atlas.geojson" for section in SECTIONS)
        for section in SECTIONS:
            features = json.loads((tmp_path / name / f"{section}.atlas.geojson").read_text())
            core, rim = features["features"]
            assert [f["properties"]["label"] for f in (core, rim)] == [1, 600]
            assert region_of(core) == ("Core", (200, 10, 20))
            assert rim["properties"]["name"] == "Left-Rim"
            assert rim["properties"]["objectType"] == "annotation"
            core, rim = shape(core["geometry"]), shape(rim["geometry"])
            truth_core = disc_px(truth, section, CORE_MM)
            truth_rim = disc_px(truth, section, RIM_MM) - truth_core
            for found, true in ((core, truth_core), (rim, truth_rim)):
                assert found.is_valid
                assert found.intersection(true).area > 0.93 * found.union(true).area
                assert abs(found.area / true.area - 1) < (0.04 if "simplify_mm" in how else 0.01)
            assert len(rim.interiors if rim.geom_type == "Polygon" else rim.geoms[0].interiors)
            assert core.intersection(rim).area < 0.01 * core.area


def test_outlines_go_back_to_the_mri(truth, atlas, tmp_path):
    """What was written is what `sbr apply` reads of QuPath."""
    out = tmp_path / "both.geojson"
    run(truth, atlas / "atlas.nii.gz", out, to="section:both", names=atlas / "lut.txt")
    assert len(read_geojson(out, 2).features) == 2
    apply.run(
        None, [out], results=truth.results, from_="section", to="plane", out=tmp_path / "p.geojson"
    )
    core = read_geojson(tmp_path / "p.geojson", 2).geometries[0]
    assert abs(core.area * 0.25 / (np.pi * CORE_MM**2) - 1) < 0.02
    run(truth, atlas / "atlas.nii.gz", tmp_path / "q.geojson", to="plane:both", pixel_mm=0.2)
    there = read_geojson(tmp_path / "q.geojson", 2)
    assert region_of(there.features[1]) == ("600", None)
    assert (
        np.linalg.norm(shapely.get_coordinates(there.geometries[0].centroid) - 0.5 - MIDDLE_MM * 2)
        < 0.2
    )
    assert there.geometries[0].symmetric_difference(core).area < 0.06 * core.area


def test_points_are_told_the_region_they_lie_in(truth, atlas, tmp_path, capfd):
    plane_mm = tissue_points(200)
    radius_mm = np.linalg.norm(plane_mm - MIDDLE_MM, axis=1)
    clear = np.abs(radius_mm[:, None] - [CORE_MM, RIM_MM]).min(axis=1) > 0.4
    px = truth.px("turned", plane_mm)
    table = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1], "region": "mine"})
    table.to_csv(tmp_path / "turned.csv", index=False)
    way = ["--results", str(truth.results), "--from", "section"]
    labels = ["--regions", str(atlas / "atlas.nii.gz"), "--names", str(atlas / "lut.txt")]
    given, out = str(tmp_path / "turned.csv"), str(tmp_path / "o.csv")
    assert main(["apply", given, *way, "--to", "mri", *labels, "--out", out]) == 0
    done = pd.read_csv(out, keep_default_na=False)[clear]
    ids = np.where(radius_mm < CORE_MM, 1, np.where(radius_mm < RIM_MM, 600, 0))[clear]
    assert np.array_equal(done["region_id"], ids)
    names = {1: "Core", 600: "Left-Rim", 0: ""}
    assert done["region"].tolist() == [names[i] for i in ids]
    assert set(done["from_region"]) == {"mine"}
    capfd.readouterr()
    assert main(["apply", given, *way, "--to", "stack", *labels, "--out", out, "--force"]) == 2
    assert "--regions: expected points that go to mri or atlas" in capfd.readouterr().err


def test_label_images_of_every_section(truth, atlas, tmp_path, caplog):
    run(truth, atlas / "atlas.nii.gz", tmp_path / "o", to="section")
    for section in SECTIONS:
        labels = tifffile.imread(tmp_path / "o" / f"{section}.atlas.tif")
        assert labels.dtype == np.int16
        column, row = np.round(truth.px(section, MIDDLE_MM[None])[0]).astype(int)
        assert labels[row, column] == 1
    # sections that the volume does not reach are left out, and said
    volume = nib.load(atlas / "atlas.nii.gz")
    near = through(truth.stack_from_world, through(volume.affine, np.indices(volume.shape).T))
    part = np.asarray(volume.dataobj)
    keep = np.flatnonzero((np.abs(near[..., 2].T - 2.0) < 1.5).any(axis=(1, 2)))
    affine = volume.affine.copy()
    affine[:3, 3] = through(volume.affine, np.array([keep[0], 0, 0.0]))
    cut = nib.Nifti1Image(part[keep[0] : keep[0] + 8], affine)
    nib.save(cut, tmp_path / "cut.nii.gz")
    with caplog.at_level("INFO", "sbr_core"):
        run(truth, tmp_path / "cut.nii.gz", tmp_path / "c", to="section")
    left_out = [r.message for r in caplog.records if "left out" in r.message]
    assert len(list((tmp_path / "c").iterdir())) == len(SECTIONS) - len(left_out)


def test_a_table_of_jobs(truth, atlas, tmp_path, caplog):
    """Points, labels and folders, each its own way; what a row leaves empty the flags say."""
    (tmp_path / "cells").mkdir()
    for section in ("plain", "both"):
        px = truth.px(section, tissue_points(5))
        table = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1]})
        table.to_csv(tmp_path / "cells" / f"{section}.csv", index=False)
    jobs = tmp_path / "jobs.tsv"
    volume = atlas / "atlas.nii.gz"
    lines = [
        "input\tfrom\tto\tout\tlabels\tpixel_mm",
        "cells/*.csv\tsection\t\tmri",
        f"{volume}\tmri\tsection:both\tboth.tif\tyes\t0.5",
        f"{volume}\tmri\tsection\to/{{section}}.geojson\ttrue\t0.5",
        "cells/plain.csv\tsection:plain\tstack\t\t\t",
    ]
    jobs.write_text("\n".join(lines) + "\n")
    with caplog.at_level("INFO", "sbr_core"):
        apply.run(None, results=truth.results, table=jobs, to="mri", out=tmp_path / "stack.csv")
    assert sorted(p.name for p in (tmp_path / "mri").iterdir()) == ["both.csv", "plain.csv"]
    assert tifffile.imread(tmp_path / "both.tif").shape == (134, 140)
    assert len(list((tmp_path / "o").iterdir())) == len(SECTIONS)
    stack = pd.read_csv(tmp_path / "stack.csv")
    assert np.allclose(stack[["x_mm", "y_mm"]], tissue_points(5), atol=0.05)
    n_jobs = 2 + 1 + len(SECTIONS) + 1
    assert f"apply: {n_jobs}/{n_jobs} {tmp_path / 'stack.csv'}: 5 points" in caplog.messages


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("input\tform\na.csv\tmri\n", "unknown column 'form'"),
        ("from\tto\nmri\tsection\n", "column 'input' is missing"),
        ("input\tout\na.csv\t\n", "row 1: out: expected a file, found nothing"),
        ("input\tout\n\ta.csv\n", "row 1: input: expected a file, found nothing"),
        ("input\tout\nno*.csv\to\n", "row 1: no*.csv: no file has such a name"),
        ("input\tout\tscale\na.csv\to.csv\ttwo\n", "row 1: scale: expected a number, found 'two'"),
        ("input\tout\tscale\na.csv\to.csv\t-1\n", "row 1: --scale: expected a number above 0"),
        ("input\tout\tlabels\na.csv\to.csv\tid\n", "labels: expected true or false, found 'id'"),
        ("input\tout\tto\na.csv\to.csv\there\n", "row 1: --to: expected section:ID"),
        ("input\tout\tto\na.csv\to.csv\tsection:x\n", "row 1: no section 'x'"),
        ("input\tout\na.csv\to.csv\na.csv\to.csv\n", "o.csv: two results would have this name"),
        ("input\tout\tnames\na.csv\to.csv\tn.txt\n", "n.txt: no such file"),
        ("input\tout\n", "has no jobs"),
    ],
)
def test_a_table_that_is_none_is_told_in_one_line(
    truth, tmp_path, capfd, monkeypatch, rows, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x_px,y_px\n50,60\n")
    (tmp_path / "jobs.tsv").write_text(rows)
    where = ["--results", str(truth.results), "--from", "section:plain", "--to", "mri"]
    assert main(["apply", "--table", "jobs.tsv", *where]) == 2
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "jobs.tsv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected files or folders to carry, or --table"),
        (["atlas.nii.gz"], "--out: expected a file"),
        (["atlas.nii.gz", "--table", "t.tsv"], "--table: t.tsv names the inputs"),
        (
            ["atlas.nii.gz", "-o", "o.geojson", "--to", "section:plain"],
            "is atlas.nii.gz of labels?",
        ),
        (["atlas.nii.gz", "-o", "o.tif", "--labels"], "expected a folder for the results of 5"),
        (["atlas.nii.gz", "-o", "o.ome.zarr", "--labels"], "expected a folder for the results"),
        (["a.csv", "-o", "{section}.csv"], "stands for the sections that a volume"),
        (["half.nii.gz", "-o", "o", "--labels"], "expected whole numbers as labels"),
        (["rgb.nii.gz", "-o", "o", "--labels"], "expected one number per voxel"),
        (["far.nii.gz", "-o", "o", "--labels"], "no pixel of section:boxed lies in it"),
        (["atlas.nii.gz", "-o", "o", "--labels", "--names", "a.csv"], "expected a colour table"),
        (["atlas.nii.gz", "-o", "o", "--labels", "--simplify-mm", "-1"], "--simplify-mm: expected"),
    ],
)
def test_labels_that_cannot_be_carried_are_told_in_one_line(
    truth, atlas, tmp_path, capfd, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x_px,y_px\n50,60\n")
    (tmp_path / "atlas.nii.gz").symlink_to(atlas / "atlas.nii.gz")
    eight = np.zeros((8, 8, 8), np.int16) + 1
    far = np.eye(4)
    far[:3, 3] = 900
    nib.save(nib.Nifti1Image(eight, far), "far.nii.gz")
    nib.save(nib.Nifti1Image((eight + 0.5).astype(np.float32), np.eye(4)), "half.nii.gz")
    rgb = np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"] = 1
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), "rgb.nii.gz")
    before = sorted(path.name for path in tmp_path.iterdir())
    where = ["--results", str(truth.results), "--from", "mri"]
    to = [] if "--to" in words else ["--to", "section"]
    assert main(["apply", *words, *where, *to]) == 2
    error = capfd.readouterr().err.splitlines()
    assert message in error[-1], error
    assert all("left out" in line for line in error[:-1])
    assert [p for p in sorted(path.name for path in tmp_path.iterdir()) if p != "o"] == before
    assert not list((tmp_path / "o").glob("*"))


def test_lengths_taken_for_micrometres_are_said(truth, atlas, tmp_path, caplog):
    given = nib.load(atlas / "atlas.nii.gz")
    micrometres = np.diag([1e3, 1e3, 1e3, 1.0]) @ given.affine
    nib.save(nib.Nifti1Image(np.asarray(given.dataobj), micrometres), tmp_path / "um.nii.gz")
    for path in (atlas / "atlas.nii.gz", tmp_path / "um.nii.gz"):
        run(truth, path, tmp_path / f"{path.name}.tif", to="section:plain", pixel_mm=0.5)
    here, there = (tifffile.imread(path) for path in sorted(tmp_path.glob("*.tif")))
    assert np.array_equal(here, there) and here.any()
    (said,) = [record.message for record in caplog.records if "WARNING" in record.message]
    assert "um.nii.gz: its lengths, of metres, are taken for micrometres" in said
