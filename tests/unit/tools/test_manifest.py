"""`sbr manifest`: what names and metadata tell, what they do not, and one 3D NIfTI."""

import nibabel as nib
import numpy as np
import pytest
import tifffile

from sbr_core.artifacts.rows import Prepared, read_rows
from sbr_core.cli import main
from sbr_core.errors import ManifestError
from sbr_core.io.images import read_picture, write_png
from sbr_core.io.manifests import read_manifest
from sbr_core.io.tables import read_tsv
from sbr_core.tools import manifest

GREY = np.full((20, 30), 200, np.uint8)


def _said(capsys):
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level("INFO", "sbr_core")


def _run(source, **flags):
    manifest.run(None, source=source, **flags)


def test_files_come_in_natural_order_and_what_is_not_known_is_said(tmp_path, caplog):
    for number in (10, 1, 9, 2):
        write_png(tmp_path / f"slide{number}.png", GREY)
    write_png(tmp_path / ".hidden.png", GREY)
    (tmp_path / "readme.txt").write_text("x")
    _run(tmp_path)
    header, rows = read_tsv(tmp_path / "sections.tsv")
    assert header == ["section", "image", "position_mm", "pixel_size_mm"]
    assert [row["section"] for row in rows] == ["slide1", "slide2", "slide9", "slide10"]
    assert {row["position_mm"] + row["pixel_size_mm"] for row in rows} == {""}
    said = caplog.text
    assert "position_mm: EMPTY" in said and "pixel_size_mm: EMPTY for 4" in said
    with pytest.raises(ManifestError, match="position_mm: expected a number"):
        read_manifest(tmp_path / "sections.tsv")  # so that it cannot be overlooked


def test_with_spacing_and_pixel_size_it_is_a_manifest(tmp_path, caplog):
    for number in (1, 3, 4):
        write_png(tmp_path / f"s_{number:02d}.png", GREY)
    _run(tmp_path, section_spacing_mm=0.2, pixel_size_mm=0.1)
    rows = read_manifest(tmp_path / "sections.tsv")
    assert [row.position_mm for row in rows] == [0, 0.4, 0.6]
    assert {row.pixel_size_mm for row in rows} == {0.1}
    assert "1 numbers are missing, which leaves gaps: 2" in caplog.text


@pytest.mark.parametrize(
    ("names", "flags", "positions", "words"),
    [
        (
            ["a20", "a40", "a80"],
            {"spacing_mm": 0.5},
            [0, 0.5, 1.5],
            "missing, which leaves gaps: 60",
        ),
        (["a20", "a40", "a80"], {"thickness_mm": 0.02}, [0, 0.4, 1.2], "0.02 mm each"),
        (["2024_b7_1", "2024_b7_2"], {"spacing_mm": 1}, [0, 1], "by the numbers"),
        (["first", "second"], {"spacing_mm": 2}, [0, 2], "by the order"),
        (["a1", "a1b2"], {"spacing_mm": 2}, [0, 2], "by the order"),
        (["one"], {"spacing_mm": 2}, [0], "by the order"),
    ],
)
def test_positions_go_by_the_numbers_in_the_names(names, flags, positions, words):
    found, how = manifest.positions_of(names, flags.get("spacing_mm"), flags.get("thickness_mm"))
    assert found == positions and words in how


def test_metadata_masks_odd_names_and_damaged_files(tmp_path, caplog):
    size = {"PhysicalSizeX": 2.5, "PhysicalSizeY": 2.5}
    tifffile.imwrite(tmp_path / "Schnitt ä 1.ome.tif", GREY, metadata=size)
    tifffile.imwrite(tmp_path / "Schnitt ä 2.ome.tif", GREY, metadata=size | {"PhysicalSizeY": 5})
    write_png(tmp_path / "Schnitt ä 1_mask.png", GREY)
    (tmp_path / "Schnitt ä 3.tif").write_bytes(b"II*\0")
    _run(tmp_path, out=tmp_path / "tables" / "m.tsv", section_spacing_mm=1)
    rows = read_tsv(tmp_path / "tables" / "m.tsv")[1]
    assert [row["section"] for row in rows] == ["Schnitt_a_1", "Schnitt_a_2"]
    assert [row["pixel_size_mm"] for row in rows] == ["0.0025", ""]
    for name in (rows[0]["image"], rows[0]["mask"]):
        assert (tmp_path / "tables" / name).is_file()
    assert rows[1]["mask"] == ""
    said = caplog.text
    for words in ("not square", "LEFT OUT, 1", "Schnitt ä 3.tif: not readable", "OME-XML"):
        assert words in said
    assert "names written otherwise" in said


def test_one_channel_of_all_files_is_chosen_and_who_lacks_it_is_left_out(tmp_path, capsys):
    for number, names in enumerate((["DAPI", "GFP"], ["GFP", "DAPI"], ["GFP", "Cy5"])):
        tifffile.imwrite(
            tmp_path / f"s{number}.ome.tif",
            np.stack([GREY, GREY]),
            photometric="minisblack",
            metadata={"axes": "CYX", "Channel": {"Name": names}},
        )
    assert main(["manifest", str(tmp_path)]) == 2
    said = _said(capsys)
    assert "found 2 channels: image_channel chooses one (1 DAPI, 2 GFP)" in said
    assert "--image-channel NUMBER or NAME" in said
    write_png(tmp_path / "s3.png", GREY)
    flags = ["--section-spacing-mm", "1", "--pixel-size-mm", "1", "--image-channel", "dapi"]
    assert main(["manifest", str(tmp_path), *flags]) == 0
    rows = read_manifest(tmp_path / "sections.tsv")
    assert [(row.section, row.image_channel) for row in rows] == [("s0", "dapi"), ("s1", "dapi")]
    said = _said(capsys)
    assert "s2.ome.tif: image_channel: expected one of 1 GFP, 2 Cy5, found 'dapi'" in said
    assert "s3.png: image_channel: expected one of 1, found 'dapi'" in said


def test_ids_that_would_be_the_same_are_told_apart(tmp_path):
    for name in ("a b.png", "a_b.png", "a_b.jpg", "脑.png"):
        write_png(tmp_path / name, GREY)
    _run(tmp_path, section_spacing_mm=1, pixel_size_mm=1)
    rows = read_manifest(tmp_path / "sections.tsv")
    assert len({row.section for row in rows}) == len({row.image for row in rows}) == 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--section-spacing-mm", "-1"], "--section-spacing-mm: expected a number above 0"),
        (["--pixel-size-mm", "nan"], "--pixel-size-mm: expected a number above 0"),
        (["--section-spacing-mm", "1", "--thickness-mm", "1"], "expected one of them"),
        (["--thickness-mm", "1"], "expected one number in every name"),
        (["-o", "{folder}/there.tsv"], "is there already"),
    ],
)
def test_flags_that_cannot_be(tmp_path, capsys, flags, words):
    write_png(tmp_path / "a.png", GREY)
    (tmp_path / "there.tsv").write_text("mine")
    assert main(["manifest", str(tmp_path), *(f.format(folder=tmp_path) for f in flags)]) == 2
    assert words in _said(capsys)
    assert (tmp_path / "there.tsv").read_text() == "mine"
    assert not (tmp_path / "sections.tsv").exists()


def test_a_folder_without_images(tmp_path, capsys):
    (tmp_path / "below").mkdir()
    assert main(["manifest", str(tmp_path)]) == 2
    assert "no image in it" in (said := _said(capsys)) and "below" in said
    assert main(["manifest", str(tmp_path / "gone")]) == 2
    assert "gone: no such file or folder" in _said(capsys)


def _stack(path, slices_along=1, unit="mm", sides=(0.1, 0.5, 0.1)):
    rng = np.random.default_rng(0)
    data = rng.integers(1, 255, (30, 12, 24)).astype(np.uint8)
    data[:, 3] = 0
    data = np.moveaxis(data, 1, slices_along)
    image = nib.Nifti1Image(data, np.diag([-sides[0], sides[1], -sides[2], 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return data


def test_a_stack_in_one_nifti_becomes_its_slices(tmp_path, caplog):
    data = _stack(tmp_path / "brain.nii.gz")
    _run(tmp_path / "brain.nii.gz")
    rows = read_manifest(tmp_path / "sections.tsv")
    assert len(rows) == 11  # the empty one is there, and excluded
    assert [row.position_mm for row in rows][:4] == [0, 0.5, 1.0, 2.0]
    assert {row.pixel_size_mm for row in rows} == {0.1}
    np.testing.assert_array_equal(read_picture(rows[3].image), data[:, 4].T)
    said = caplog.text
    assert "axis j" in said and "LIA" in said and "1 slices are empty: 003" in said


def test_the_axis_may_be_given_and_units_count(tmp_path, capsys):
    data = _stack(tmp_path / "b.nii", slices_along=2, unit="micron", sides=(100, 100, 100))
    _run(tmp_path / "b.nii", slice_axis="i")
    rows = read_manifest(tmp_path / "sections.tsv")
    assert len(rows) == 30 and rows[1].position_mm == pytest.approx(0.1)
    np.testing.assert_array_equal(read_picture(rows[7].image), data[7].T)
    assert main(["manifest", str(tmp_path / "b.nii"), "--slice-axis", "x", "-o", "y.tsv"]) == 2
    assert "expected i, j or k" in _said(capsys)


def test_slices_whose_pixels_are_not_square_are_refused(tmp_path, capsys):
    _stack(tmp_path / "b.nii", sides=(0.1, 0.5, 0.2))
    assert main(["manifest", str(tmp_path / "b.nii")]) == 2
    assert "0.1 x 0.2 mm: expected square" in _said(capsys)
    assert not (tmp_path / "sections.tsv").exists()


def _slide(n_sections, side=90, turn=0):
    """A photograph of sections side by side, each with one dark half."""
    rows, columns = np.mgrid[:side, :side] - side / 2
    tissue = (rows / 28) ** 2 + (columns / 36) ** 2 < 1 + 0.2 * np.sin(
        3 * np.arctan2(rows, columns)
    )
    section = np.where(tissue, 150 - columns, 248).astype(np.uint8)
    noise = np.random.default_rng(0).integers(-2, 3, (side, n_sections * side))
    return np.rot90(np.hstack([section] * n_sections) + noise, turn).astype(np.uint8)


def test_pictures_of_several_sections_are_split_and_run_through_prepare(tmp_path, capsys):
    for number, n_sections in enumerate((3, 3, 2, 1), 1):
        write_png(tmp_path / f"slide{number}.png", _slide(n_sections, turn=number % 2))
    flags = ["--split", "--section-spacing-mm", "0.5", "--pixel-size-mm", "0.2"]
    assert main(["manifest", str(tmp_path), *flags]) == 0
    said = _said(capsys)
    assert "1 pictures of 1, 1 pictures of 2, 2 pictures of 3 sections" in said
    assert "not 3 sections, as most have: slide3 (2), slide4 (1)" in said
    rows = read_manifest(tmp_path / "sections.tsv")
    ids = [f"slide{i}_{j}" for i, n in ((1, 3), (2, 3), (3, 2)) for j in range(1, n + 1)]
    assert [row.section for row in rows] == [*ids, "slide4"]
    assert [row.position_mm for row in rows] == [0.5 * i for i in range(9)]
    assert rows[-1].box_px == "" and all(row.box_px for row in rows[:-1])
    assert [int(row.box_px.split()[0]) // 90 for row in rows[3:6]] == [0, 1, 2]
    assert [int(row.box_px.split()[1]) // 90 for row in rows[:3]] == [0, 1, 2]
    assert len(list((tmp_path / "sections_boxes").glob("*.png"))) == 4
    options = '{"working_pixel_mm": 0.4, "min_tissue_mm2": 5}'
    out = tmp_path / "out"
    words = ["--rows", str(tmp_path / "sections.tsv"), "--out-dir", str(out)]
    receipt = out / "chunks" / "000.tsv"
    assert main(["prepare", *words, "--receipt", str(receipt), "--options", options]) == 0
    prepared = read_rows(receipt, Prepared)
    assert len(prepared) == 9
    areas = np.array([row.tissue_mm2 for row in prepared])
    assert np.ptp(areas) < 0.05 * areas.mean()  # one section each, whole


def test_the_number_of_sections_may_be_given(tmp_path, capsys):
    write_png(tmp_path / "a.png", _slide(2))
    flags = ["--pixel-size-mm", "0.2", "--section-spacing-mm", "1"]
    assert main(["manifest", str(tmp_path), "--split-into", "2", *flags]) == 0
    assert len(read_manifest(tmp_path / "sections.tsv")) == 2
    out = ["-o", str(tmp_path / "b.tsv")]
    assert main(["manifest", str(tmp_path), "--split-into", "5", *flags, *out]) == 2
    assert "a.png: expected 5 sections, found 2 pieces" in _said(capsys)
    assert main(["manifest", str(tmp_path), "--split", "--thickness-mm", "1", *out]) == 2
    assert "--thickness-mm: numbers in the names" in _said(capsys)
    assert main(["manifest", str(tmp_path), "--split-into", "0", *out]) == 2
    assert not (tmp_path / "b.tsv").exists() and not (tmp_path / "b_boxes").exists()
