"""The tables users write: what is read, and the line that names each fault."""

import dataclasses
import json

import pytest

from sbr_core.errors import ManifestError
from sbr_core.io.manifests import (
    SectionRow,
    check_id,
    read_brains,
    read_landmarks,
    read_manifest,
    rows_from,
    rows_to_json,
)
from sbr_core.io.tables import read_tsv, write_tsv

HEADER = "section\timage\tposition_mm\tpixel_size_mm"


@pytest.fixture
def manifest(tmp_path):
    """Writes a manifest; every image it may name is there."""
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(b"x")

    def write(*rows, header=HEADER, encoding="utf-8", newline="\n"):
        path = tmp_path / "sections.tsv"
        path.write_bytes(newline.join([header, *rows, ""]).encode(encoding))
        return path

    return write


def test_rows_are_read_sorted_and_resolved(manifest, tmp_path):
    rows = read_manifest(manifest("b\tb.png\t2.5\t0.4", "007\ta.png\t-1\t0.4"))
    assert [r.section for r in rows] == ["007", "b"]  # ids stay text
    assert rows[0].image == str(tmp_path / "a.png")
    assert rows[0].position_mm == -1.0
    assert (rows[0].flip, rows[0].rotate_deg, rows[0].mask) == ("none", 0.0, "")


@pytest.mark.parametrize(
    ("encoding", "newline"), [("utf-8-sig", "\r\n"), ("utf-8-sig", "\n"), ("utf-8", "\r\n")]
)
def test_bom_and_crlf_are_taken_as_they_come(manifest, encoding, newline):
    lines = ("a\ta.png\t1\t0.4", "", "# a remark", "b\tb.png\t2\t0.4")
    rows = read_manifest(manifest(*lines, encoding=encoding, newline=newline))
    assert [(r.section, r.pixel_size_mm) for r in rows] == [("a", 0.4), ("b", 0.4)]


def test_optional_columns_in_any_order_and_unknown_ones_are_fine(manifest, tmp_path):
    header = f"notes\t{HEADER}\texclude\trotate_deg\tflip\tmask\tstain"
    path = manifest(
        "torn\ta\ta.png\t1\t0.4\t\t-90\tlr\tc.png\tNissl",
        "\tb\tb.png\t1\t0.4\tyes",  # excluded: its position may repeat another's
        header=header,
    )
    (row,) = read_manifest(path)
    assert (row.rotate_deg, row.flip, row.stain) == (-90.0, "lr", "Nissl")
    assert row.mask == str(tmp_path / "c.png")


def test_a_prealigned_brain_needs_the_mri_plane_of_each_section(manifest):
    header = f"{HEADER}\tmri_image\tflip"
    read_manifest(manifest("a\ta.png\t1\t0.4\tb.png", header=header), prealigned=True)
    with pytest.raises(ManifestError, match="column 'mri_image' is missing"):
        read_manifest(manifest("a\ta.png\t1\t0.4"), prealigned=True)
    with pytest.raises(ManifestError, match="section 'a': mri_image: found nothing"):
        read_manifest(manifest("a\ta.png\t1\t0.4", header=header), prealigned=True)
    with pytest.raises(ManifestError, match="takes no flip"):
        read_manifest(manifest("a\ta.png\t1\t0.4\tb.png\tlr", header=header), prealigned=True)


FAULTS = {
    "no rows": ([], "no section that is not excluded"),
    "twice": (["a\ta.png\t1\t1", "a\tb.png\t2\t1"], "section 'a' stands there twice"),
    "position": (["a\ta.png\t1\t1", "b\tb.png\t1.0\t1"], "'a' and 'b' have the same position_mm 1"),
    "missing file": (["a\tgone.png\t1\t1"], "section 'a': .*gone.png: no such file"),
    "no image": (["a\t\t1\t1"], "section 'a': image: expected a file name"),
    "text position": (["a\ta.png\tx\t1"], "section 'a': position_mm: expected a number.*'x'"),
    "no position": (["a\ta.png\t\t1"], "position_mm: expected a number, found ''"),
    "NaN position": (["a\ta.png\tnan\t1"], "position_mm: expected a number"),
    "NaN pixel": (["a\ta.png\t1\tnan"], "pixel_size_mm: expected a number above 0, found 'nan'"),
    "zero pixel": (["a\ta.png\t1\t0"], "pixel_size_mm: expected a number above 0"),
    "infinite pixel": (["a\ta.png\t1\tinf"], "pixel_size_mm: expected a number above 0"),
    "path id": (["../x\ta.png\t1\t1"], r"id '\.\./x': expected letters"),
    "dotted id": (["a..b\ta.png\t1\t1"], "id 'a..b': expected letters"),
    "hidden id": ([".a\ta.png\t1\t1"], "id '.a': expected letters"),
    "empty id": (["\ta.png\t1\t1"], "id '': expected letters"),
    "cells": (["a\ta.png\t1\t1\tmore"], "line 2: 5 cells for 4 columns"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_that_names_it(manifest, fault):
    rows, message = FAULTS[fault]
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(manifest(*rows))
    assert "sections.tsv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("flip", "up"),
        ("rotate_deg", "left"),
        ("exclude", "perhaps"),
        ("box_px", "0 0 10"),
        ("thickness_um", "20 µm"),
        ("thickness_um", "0"),
        ("stain_group", "H&E"),
        ("affine_from", "first"),
        ("box_px", "0 -1 10 10"),
        ("box_px", "0 0 0 10"),
    ],
)
def test_wrong_words_are_named(manifest, column, value):
    path = manifest(f"a\ta.png\t1\t1\t{value}", header=f"{HEADER}\t{column}")
    with pytest.raises(ManifestError, match=f"{column}: expected .*'{value}'"):
        read_manifest(path)


def test_stain_groups_are_told_from_each_other_by_more_than_capitals(manifest):
    header = f"{HEADER}\tstain_group"
    rows = ["a\ta.png\t1\t1\tNissl", "b\tb.png\t2\t1\tmyelin", "c\tc.png\t3\t1\t"]
    read = read_manifest(manifest(*rows, header=header))
    assert [row.stain_group for row in read] == ["Nissl", "myelin", ""]
    rows[1] = rows[1].replace("myelin", "nissl")
    with pytest.raises(ManifestError, match="'b': stain_group: 'nissl' and 'Nissl' differ in"):
        read_manifest(manifest(*rows, header=header))


@pytest.mark.parametrize("column", HEADER.split("\t"))
def test_a_missing_column_is_named(manifest, column):
    header = "\t".join(c for c in HEADER.split("\t") if c != column)
    with pytest.raises(ManifestError, match=f"column '{column}' is missing"):
        read_manifest(manifest("a\t1\t1", header=header))


def test_files_that_are_no_tables_are_named(tmp_path):
    with pytest.raises(ManifestError, match="no such file"):
        read_tsv(tmp_path / "gone.tsv")
    path = tmp_path / "t.tsv"
    for content, message in (
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"section,image\na,b\n", "separated by tabs, found 'section,image'"),
        (b"a   b\n1   2\n", "by tabs, found columns separated by blanks: 'a b'"),
        (b"a\ta\n1\t2\n", "the same column twice"),
        (b"\xff\xfe\x00\x01", "not readable as UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(ManifestError, match=message):
            read_tsv(path)


@pytest.mark.parametrize(
    "text",
    [
        "a\tb\t\n1\t2\t\n",
        "a\tb\t\t\n1\t2\t\t\n",
        "a\tb\n1\t2\t\t\n",
        "a\tb\t\t\n1\t2\n",
        "a\t\t \tb\n1\t\t\t2\n",
    ],
)
def test_empty_columns_without_a_name_are_dropped(tmp_path, text):
    (tmp_path / "t.tsv").write_text(text)
    assert read_tsv(tmp_path / "t.tsv") == (["a", "b"], [{"a": "1", "b": "2"}])


def test_a_column_without_a_name_that_has_values_is_kept_and_two_are_refused(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("\ta\n0\t1\n")  # an index, as pandas writes it
    assert read_tsv(path) == (["", "a"], [{"": "0", "a": "1"}])
    path.write_text("a\t\t\n0\t1\t2\n")
    with pytest.raises(ManifestError, match="columns 2, 3 have values, but no name in the header"):
        read_tsv(path)
    sheet = "brain\tsections\tmri\torientation\t\nb\tm.tsv\tmri.nii\tLIA\tx\n"
    path.write_text(sheet)
    with pytest.raises(ManifestError, match="a column without a name has values"):
        read_brains(path)
    path.write_text(sheet.replace("\tx", "\t"))
    assert list(read_brains(path)) == ["b"]


def test_a_quotation_mark_swallows_no_rows(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('a\tb\n1\t"torn\n2\tfine\n3\t"torn\n')
    with pytest.raises(ManifestError, match="t.tsv: line 2: .*quotation mark"):
        read_tsv(path)


def test_tables_are_written_so_that_they_come_back(tmp_path):
    rows = [{"a": 0.1 + 0.2, "b": 'tab\tand "quote"', "c": True}, {"a": None, "d": {"k": [1]}}]
    write_tsv(tmp_path / "t.tsv", rows, ("b",))
    header, found = read_tsv(tmp_path / "t.tsv")
    assert header == ["b", "a", "c", "d"]
    assert float(found[0]["a"]) == 0.1 + 0.2  # all digits are kept
    assert found[0]["b"] == 'tab\tand "quote"'
    assert (found[0]["c"], found[1]["a"], json.loads(found[1]["d"])) == ("true", "", {"k": [1]})


def test_rows_travel_as_json(manifest):
    rows = read_manifest(manifest("a\ta.png\t1\t0.4", "b\tb.png\t2\t0.4"))
    text = rows_to_json([dataclasses.replace(rows[0], flip="ud"), rows[1]])
    assert rows_from(text) == [dataclasses.replace(rows[0], flip="ud"), rows[1]]
    assert "rotate_deg" not in text  # what is left at its default is left out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{]", "not readable as JSON"),
        ("[1]", "expected a list of objects"),
        ('[{"section": "../x"}]', "id '../x'"),
        ('[{"section": "a", "image": "i", "position_mm": null}]', "position_mm"),
    ],
)
def test_bad_json_rows_are_named(text, message):
    with pytest.raises(ManifestError, match=message):
        rows_from(text)


def test_json_rows_with_one_id_twice_are_refused():
    row = SectionRow("a", "a.png", 1.0, 1.0)
    with pytest.raises(ManifestError, match="section 'a' stands there twice"):
        rows_from(rows_to_json([row, row]))


@pytest.mark.parametrize("name", ["a", "007", "A-b_c.1"])
def test_ids_may_be(name):
    assert check_id(name, "here") == name


@pytest.mark.parametrize("name", ["a/b", "a b", "-a", "ä", "a\\b", "{a}", "a\n"])
def test_ids_may_not_be(name):
    with pytest.raises(ManifestError, match="here: id"):
        check_id(name, "here")


def _brains(tmp_path, *rows, header="brain\tsections\tmri\torientation\tweights_from\tprealigned"):
    path = tmp_path / "brains.tsv"
    path.write_text("\n".join([header, *rows, ""]))
    return path


HOW_WEIGHTS_ARE_USED = "brain\tsections\tmri\torientation\tweights_from\tweights_use"


def test_brains_are_read(tmp_path):
    rows = ["a\ta.tsv\ta.nii\tLIA", "b\tb.tsv\tb.nii\tRAS\ta", "c\tc.tsv\t\t\tb\ttrue"]
    brains = read_brains(_brains(tmp_path, *rows))
    assert [row.weights_from for row in brains.values()] == ["", "a", "b"]
    assert [row.weights_use for row in brains.values()] == ["reuse"] * 3
    assert [row.prealigned for row in brains.values()] == [False, False, True]
    rows = ["a\ta.tsv\tm.nii\tLIA\t\t", "b\tb.tsv\tm.nii\tLIA\ta\tfinetune"]
    brains = read_brains(_brains(tmp_path, *rows, header=HOW_WEIGHTS_ARE_USED))
    assert [row.weights_use for row in brains.values()] == ["reuse", "finetune"]


@pytest.mark.parametrize(
    ("giver", "use", "message"),
    [
        ("a", "copy", "weights_use: expected one of reuse, finetune, found 'copy'"),
        ("", "finetune", "weights_use: finetune, but weights_from names no brain"),
    ],
)
def test_a_wrong_use_of_weights_is_named(tmp_path, giver, use, message):
    rows = ["a\ta.tsv\tm.nii\tLIA\t\t", f"e\te.tsv\tm.nii\tLIA\t{giver}\t{use}"]
    with pytest.raises(ManifestError, match=message):
        read_brains(_brains(tmp_path, *rows, header=HOW_WEIGHTS_ARE_USED))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a\ta.tsv\t\tLIA"], "brain 'a': mri: expected"),
        (["a\ta.tsv\tm.nii\tLXA"], "orientation 'LXA'"),
        (["a\t\tm.nii\tLIA"], "brain 'a': sections: expected"),
        (["a\ta.tsv\tm.nii\tLIA", "a\ta.tsv\tm.nii\tLIA"], "brain 'a' stands there twice"),
        (["a/b\ta.tsv\tm.nii\tLIA"], "id 'a/b'"),
        (["a\ta.tsv\tm.nii\tLIA\tz"], "no brain 'z'"),
        (["a\ta.tsv\tm.nii\tLIA\ta"], "goes in a circle: a <- a"),
        (["a\ta.tsv\tm.nii\tLIA\tb", "b\tb.tsv\tm.nii\tLIA\ta"], "goes in a circle"),
        (["a\ta.tsv\tm.nii\tLIA\t\tmaybe"], "prealigned: expected true or false"),
        ([], "has no brain"),
    ],
)
def test_faults_of_the_sheet_are_named(tmp_path, rows, message):
    with pytest.raises(ManifestError, match=message):
        read_brains(_brains(tmp_path, *rows))


def test_an_unknown_column_of_the_sheet_is_refused(tmp_path):
    path = _brains(tmp_path, "a\tb\tc", header="brain\tsections\torientatoin")
    with pytest.raises(ManifestError, match="unknown column 'orientatoin'"):
        read_brains(path)


def test_landmarks_name_sections_that_are_there(tmp_path):
    path = tmp_path / "landmarks.tsv"
    header = "section\tx_section_mm\ty_section_mm\tmri_x_mm\tmri_y_mm\tmri_z_mm"
    path.write_text(f"{header}\n007\t1\t2\t3\t4\t5\n")
    (landmark,) = read_landmarks(path, ["007"], prealigned=False)
    assert (landmark.section_mm, landmark.mri_mm) == ((1.0, 2.0), (3.0, 4.0, 5.0))
    with pytest.raises(ManifestError, match="landmark 1: no section '007' in this brain"):
        read_landmarks(path, ["7"], prealigned=False)
    with pytest.raises(ManifestError, match="column 'x_plane_mm' is missing"):
        read_landmarks(path, ["007"], prealigned=True)
    path.write_text(f"{header}\n007\t1\t2\t3\tfour\t5\n")
    with pytest.raises(ManifestError, match="mri_y_mm: expected a number, found 'four'"):
        read_landmarks(path, ["007"], prealigned=False)


@pytest.mark.parametrize("text", ["[1]", "[" * 9999, '[{"section": {"a": [1]}}]', "[null]"])
def test_rows_as_json_that_are_none_are_refused(text):
    with pytest.raises(ManifestError, match="--rows"):
        rows_from(text)


def test_a_json_file_of_rows_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "rows.json").write_text("3")
    with pytest.raises(ManifestError, match="expected a list of objects"):
        rows_from(str(tmp_path / "rows.json"))


def test_a_wide_header_over_short_lines_takes_no_memory(tmp_path):
    header = "\t".join(f"c{i}" for i in range(10_000))
    (tmp_path / "wide.tsv").write_text(header + "\nx" * 1000)
    with pytest.raises(ManifestError, match="10000 columns, but most cells") as refused:
        read_tsv(tmp_path / "wide.tsv")
    assert len(str(refused.value)) < 1600
