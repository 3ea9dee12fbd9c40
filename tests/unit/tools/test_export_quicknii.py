"""`sbr export quicknii`, read by what QuickNII and VisuAlign document, written out once more."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from mapped_brain import SECTIONS, MappedBrain, signal, tissue_points
from PIL import Image
from scipy.spatial import Delaunay

from sbr_core import Brain
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Inferred, read_rows, write_rows
from sbr_core.cli import main
from sbr_core.errors import ImageError
from sbr_core.geometry import apply
from sbr_core.io.files import sha256_file
from sbr_core.io.transforms import SectionTransform, write_section_transform
from sbr_core.mapping.exports import quicknii as quicknii_module


def export(truth: MappedBrain, out, *words) -> dict:
    arguments = ["export", "quicknii", "--results", str(truth.results), "--out", str(out)]
    assert main([*arguments, *map(str, words)]) == 0
    return json.loads((out / "quicknii.json").read_text(encoding="utf-8"))


def in_triangles(markers: np.ndarray, size: tuple[int, int], points: np.ndarray) -> np.ndarray:
    """VisuAlign's data/Slice.java and nonlin/Triangle.java: linear in triangles over (nx, ny)."""
    w, h = size
    corners = [(-0.1 * w, -0.1 * h), (1.1 * w, -0.1 * h), (-0.1 * w, 1.1 * h), (1.1 * w, 1.1 * h)]
    rows = np.vstack([np.reshape(markers, (-1, 4)), [(*c, *c) for c in corners]])
    result = np.full(points.shape, np.nan)
    for a, b, c in Delaunay(rows[:, 2:]).simplices:
        edges = np.stack([rows[b, 2:] - rows[a, 2:], rows[c, 2:] - rows[a, 2:]])
        u, v = np.linalg.solve(edges.T, (points - rows[a, 2:]).T)
        inside = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9)
        into = rows[a, :2] + np.outer(u, rows[b, :2] - rows[a, :2])
        into += np.outer(v, rows[c, :2] - rows[a, :2])
        result[inside] = into[inside]
    return result


def to_world(entry: dict, target, points_px: np.ndarray) -> np.ndarray:
    """Px of the file, from the centre of the first, to RAS mm, as the programs read the series."""
    size = entry["width"], entry["height"]
    flat = in_triangles(np.array(entry.get("markers", [])), size, points_px + 0.5)
    o, u, v = np.reshape(entry["anchoring"], (3, 3))
    voxel = o + np.outer(flat[:, 0] / size[0], u) + np.outer(flat[:, 1] / size[1], v)
    return apply(target.affine, voxel - 0.5)


@pytest.fixture(scope="module")
def series(truth: MappedBrain, tmp_path_factory):
    """The whole series with its folder."""
    out = tmp_path_factory.mktemp("quicknii") / "out"
    return export(truth, out), out


def test_markers_bring_points_to_where_the_brain_has_them(truth, series):
    found, out = series
    target = nib.load(out / found["target"])
    assert nib.aff2axcodes(target.affine) == ("R", "A", "S")
    assert found["target-resolution"] == list(target.shape)
    assert [entry["nr"] for entry in found["slices"]] == [1, 2, 3, 4, 5]
    plane_mm = tissue_points(500)
    for section, entry in zip(SECTIONS, found["slices"], strict=True):
        assert 12 < len(entry["markers"]) <= 200
        world = to_world(entry, target, truth.px(section, plane_mm))
        off_mm = np.linalg.norm(world - truth.world(section, plane_mm), axis=-1)
        # a quarter of the working pixel where markers were looked at, a little more between
        assert np.quantile(off_mm, 0.95) < 0.125
        assert off_mm.max() < 0.25
        without = to_world({**entry, "markers": []}, target, truth.px(section, plane_mm))
        assert np.linalg.norm(without - world, axis=-1).max() > 0.5


def test_planes_are_those_of_the_sections(truth, series):
    found, out = series
    target = nib.load(out / found["target"])
    for number, entry in enumerate(found["slices"]):
        corners = np.array([[0.0, 0], [entry["width"], 0], [0, entry["height"]]])
        o, u, v = np.reshape(entry["anchoring"], (3, 3))
        assert abs(u @ v) < 1e-9 * np.linalg.norm(u) * np.linalg.norm(v)
        voxel = o + corners / [entry["width"], entry["height"]] @ np.stack([u, v])
        stack_mm = apply(truth.stack_from_world, apply(target.affine, voxel - 0.5))
        np.testing.assert_allclose(stack_mm[:, 2], 2.0 * number, atol=1e-6)


def test_affine_sections_are_exact(truth, tmp_path):
    """Lengths are the anchoring's, shear the markers', and an affine is linear in triangles."""
    rows = []
    for row in read_rows(truth.results / "sbr" / names.TABLE, Inferred):
        affine = truth.section_from_plane[row.section]
        files = {}
        for ending, matrix in (
            (names.SECTION_TO_STACK, affine),
            (names.STACK_TO_SECTION, np.linalg.inv(affine)),
        ):
            path = names.section_file(truth.results / "linear", row.section, ending)
            write_section_transform(path, SectionTransform((matrix,)))
            files[f"transforms/{path.name}"] = sha256_file(path)
        rows.append(replace(row, files=files))
    write_rows(truth.results / "linear" / names.TABLE, rows)
    found = export(truth, tmp_path / "out", "--method", "linear")
    target = nib.load(tmp_path / "out" / found["target"])
    plane_mm = tissue_points(200)
    for section, entry in zip(SECTIONS, found["slices"], strict=True):
        px = apply(truth.section_from_plane[section], plane_mm) / truth.pixel_size_mm[section]
        off = to_world(entry, target, px) - truth.world(section, plane_mm)
        assert np.abs(off).max() < 1e-6
        assert len(entry["markers"]) <= 12


def test_pictures_lie_as_their_files(truth, series):
    found, out = series
    flat_mm = tissue_points(300)
    for section, entry in zip(SECTIONS, found["slices"], strict=True):
        picture = np.asarray(Image.open(out / entry["filename"]), float)
        px = apply(truth.section_from_plane[section], flat_mm) / truth.pixel_size_mm[section]
        share = (px + 0.5) / [entry["width"], entry["height"]]
        columns, rows = np.floor(share * picture.shape[::-1]).astype(int).T
        expected = 1 - signal(flat_mm)  # the background is bright
        assert np.corrcoef(picture[rows, columns], expected)[0, 1] > 0.999


def test_sections_in_an_atlas(truth, tmp_path):
    """Where the way to it is affine, sections stay planes; what shears goes to the markers."""
    matrix = np.eye(4)
    matrix[:3] = [[0.9, 0.1, 0, 30], [-0.1, 0.8, 0.1, -20], [0, 0.05, 1.1, 10]]
    lps = np.diag([-1, -1, 1, 1]) @ np.linalg.inv(matrix) @ np.diag([-1, -1, 1, 1])
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(lps[:3, :3].ravel().tolist())
    affine.SetTranslation(lps[:3, 3].tolist())
    sitk.WriteTransform(affine, str(tmp_path / "to_atlas.txt"))
    spacing = np.diag([0.5, -0.5, 0.5, 1.0])
    nib.save(nib.Nifti1Image(np.ones((9, 8, 7), np.uint8), spacing), tmp_path / "atlas.nii.gz")
    words = ("--to", "atlas", "--atlas-xfm", tmp_path / "to_atlas.txt", "--target", "A.cutlas")
    found = export(truth, tmp_path / "out", *words, "--like", tmp_path / "atlas.nii.gz")
    assert (found["target"], found["target-resolution"]) == ("A.cutlas", [9, 8, 7])
    assert not (tmp_path / "out" / "A.cutlas").exists()  # the programs have it
    turned = nib.as_closest_canonical(nib.load(tmp_path / "atlas.nii.gz"))
    plane_mm = tissue_points(200)
    for section, entry in zip(SECTIONS, found["slices"], strict=True):
        world = to_world(entry, turned, truth.px(section, plane_mm))
        off_mm = np.linalg.norm(world - apply(matrix, truth.world(section, plane_mm)), axis=-1)
        assert off_mm.max() < 0.3


def test_labels_become_an_atlas_of_visualign(truth, tmp_path):
    mri = nib.load(truth.results / "prepare" / "mri.nii.gz")
    labels = (np.asarray(mri.dataobj) > 60).astype(np.float32) * 300
    nib.save(nib.Nifti1Image(labels, mri.affine), tmp_path / "labels.nii.gz")
    (tmp_path / "names.tsv").write_text("index\tname\tcolor\n300\tthe core\t#0a14ff\n")
    words = ("--like", tmp_path / "labels.nii.gz", "--names", tmp_path / "names.tsv")
    found = export(truth, tmp_path / "out", *words, "--markers", 0)
    atlas = tmp_path / "out" / found["target"]
    assert atlas.name == "labels.cutlas"
    written = nib.load(atlas / "labels.nii.gz")
    assert written.get_data_dtype() == np.uint16  # VisuAlign reads no 64-bit types
    assert written.shape == tuple(found["target-resolution"])
    assert (
        '  300    10   20  255        1  1  1    "the core"' in (atlas / "labels.txt").read_text()
    )
    assert not any("markers" in entry for entry in found["slices"])
    # of lengths in micrometres it is the same
    micrometres = nib.Nifti1Image(labels, np.diag([1e3, 1e3, 1e3, 1.0]) @ mri.affine)
    nib.save(micrometres, tmp_path / "labels.nii.gz")
    again = export(truth, tmp_path / "again", *words, "--markers", 0)
    for entry, other in zip(found["slices"], again["slices"], strict=True):
        np.testing.assert_allclose(entry["anchoring"], other["anchoring"], atol=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quick"], "expected one of quicknii"),
        (["quicknii", "--to", "stack"], "--to: expected mri or atlas"),
        (["quicknii", "--to", "atlas", "--atlas-xfm", "none.mat"], "none.mat"),
        (["quicknii", "--target", "ABA.cutlas"], "--target: expected --like too"),
        (["quicknii", "--like", "a.nii", "--target", "../A"], "--target: expected the name"),
        (["quicknii", "--markers", "-1"], "--markers: expected 0 or more"),
        (["quicknii", "--like", "nothing.nii.gz"], "nothing.nii.gz"),
    ],
)
def test_faults_are_one_line(truth, tmp_path, capsys, words, said):
    out = tmp_path / "out"
    assert main(["export", *words, "--results", str(truth.results), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not out.exists()


def test_files_that_are_there_stay(truth, tmp_path, capsys):
    (tmp_path / "quicknii.json").write_text("mine")
    (tmp_path / "slide.png").write_text("mine, too")
    words = ["export", "quicknii", "--results", str(truth.results), "--out", str(tmp_path)]
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"quicknii.json", "slide.png"}
    assert main([*words, "--markers", "0", "--sections", "turned", "--force"]) == 0
    assert (tmp_path / "slide.png").read_text() == "mine, too"
    (entry,) = json.loads((tmp_path / "quicknii.json").read_text())["slices"]
    assert (entry["nr"], entry["filename"]) == (3, "turned_s003.png")


def test_pynutil_reads_it_alike(truth, series):
    """By the loaders of another project that reads such series (`pip install PyNutil`)."""
    anchoring = pytest.importorskip("PyNutil.processing.adapters.anchoring")
    deformation = pytest.importorskip("PyNutil.processing.adapters.deformation")
    found, out = series
    target = nib.load(out / found["target"])
    read = anchoring.QuintAnchoringLoader().load(str(out / "quicknii.json"))
    read = deformation.VisuAlignDeformationProvider().apply(read)
    plane_mm = tissue_points(100)
    for section, entry in zip(SECTIONS, read.slices, strict=True):
        x, y = (truth.px(section, plane_mm) + 0.5).T
        flat = np.stack(entry.deformation(x, y), axis=-1)
        o, u, v = np.reshape(entry.anchoring, (3, 3))
        voxel = o + flat / [entry.width, entry.height] @ np.stack([u, v])
        off = apply(target.affine, voxel - 0.5) - truth.world(section, plane_mm)
        assert np.linalg.norm(off, axis=-1).max() < 0.25


def test_tissue_on_a_line_has_no_plane(truth, monkeypatch):
    brain = Brain(truth.results)
    section = brain.section("plain")
    thin = np.column_stack([np.linspace(20, 80, 9), np.full(9, 40.0)])
    monkeypatch.setattr(quicknii_module, "_tissue_points", lambda _: thin)
    target = quicknii_module.target_of(brain, "mri", None, None, None)
    with pytest.raises(ImageError, match="section 'plain': too little"):
        quicknii_module.quicknii([section], target, 0)
