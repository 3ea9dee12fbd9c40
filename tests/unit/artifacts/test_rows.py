"""Typed rows: what is read is what was written, also of tables from before a column was."""

import json
from dataclasses import fields

import numpy as np
import pytest

from sbr_core.artifacts.global_fit import (
    InitialAffine,
    read_initial,
    read_plane_grid,
    write_initial,
    write_plane_grid,
)
from sbr_core.artifacts.rows import (
    Affine,
    Inferred,
    Plane,
    Prepared,
    Row,
    columns_of,
    digest_of_file,
    fingerprint,
    read_rows,
    sections_lost,
    stage_dir,
    write_rows,
)
from sbr_core.errors import ReceiptError
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import sha256_file, sha256_of, write_text
from sbr_core.io.tables import read_tsv, write_tsv

MATRIX = np.array([[1 / 3, 2.0, -3e-17], [0.1, 1e9, 7.0], [0.0, 0.0, 1.0]])
GRID = PlaneGrid((3, 4), 0.1)
ROWS = (
    Prepared(
        section="001",
        message="doubtful",
        files={"sections/001_image.nii.gz": "1f"},
        fingerprint="12e4",  # text, although it looks like a number
        position_mm=1.5,
        pixel_size_mm=0.1,
        working_pixel_mm=0.25,
        file_rows=40,
        file_columns=60,
        read_step=2.5,
        channel="nissl",
        polarity="bright_background",
        background=1 / 7,
        white=(0.9, 1.0, 0.8),
        padding=0.0,
        light="[[1.0]]",
        section_mm_from_working_mm=MATRIX,
        tissue_mm2=30.25,
        image="001.png",
        image_channel="1",
        stain="007",
    ),
    Plane(section="001", position_mm=2.0, grid=GRID),
    Affine(
        section="001",
        position_mm=2.0,
        working_mm_from_plane_mm=MATRIX,
        cost=0.1,
        prior_cost=0.2,
        moved_mm=1 / 3,
    ),
    Affine(section="001", position_mm=2.0, working_mm_from_plane_mm=MATRIX, moved_mm=0.0),
    Inferred(
        section="001",
        position_mm=2.0,
        grid=GRID,
        folding_percent=0.0,
        disp_mean_mm=0.1,
        disp_max_mm=0.2,
        inverse_mean_px=0.3,
        inverse_p99_px=0.4,
        seconds=1.25,
    ),
)


def values(row):
    """Of all fields, comparable."""
    plain = {f.name: getattr(row, f.name) for f in fields(row) if f.name != "table"}
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in plain.items()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_a_row_comes_back_as_it_was_to_the_last_bit(row, tmp_path):
    table = tmp_path / "sections.tsv"
    write_rows(table, [row, Row(section="002", status="failed", message="why")])
    back, failed = read_rows(table, type(row), only_ok=False, verify=False)
    assert values(back) == values(row)
    assert (type(failed), failed.ok, failed.message) == (Row, False, "why")
    assert [r.section for r in read_rows(table, type(row), verify=False)] == ["001"]
    before = table.read_bytes()
    write_rows(table, [back, failed])
    assert table.read_bytes() == before
    json.dumps(columns_of(row))


def test_the_columns_are_those_of_finished_results(tmp_path):
    table = tmp_path / "sections.tsv"
    write_rows(table, ROWS[:1])
    assert " ".join(read_tsv(table)[0]) == (
        "section status message position_mm affine_from background box_px channel file_columns"
        " file_rows files fingerprint g00 g01 g02 g10 g11 g12 image image_channel labels light"
        " padding pixel_size_mm polarity read_step stain stain_group staining thickness_um"
        " tissue_mm2 white"
        " working_pixel_mm"
    )
    write_rows(table, ROWS[4:])
    assert " ".join(read_tsv(table)[0]) == (
        "section status message position_mm columns disp_max_mm disp_mean_mm files fingerprint"
        " folding_percent inverse_mean_px inverse_p99_px landmarks_mm rows seconds spacing_mm"
    )


def test_columns_that_came_later_may_be_missing_others_not(tmp_path):
    table = tmp_path / "sections.tsv"
    later = (
        "read_step", "channel", "white", "padding", "light", "staining", "image_channel", "labels",
        "stain", "box_px", "thickness_um", "stain_group", "affine_from",
    )  # fmt: skip
    columns = {k: v for k, v in columns_of(ROWS[0]).items() if k not in later}
    write_tsv(table, [columns])
    (old,) = read_rows(table, Prepared, verify=False)
    assert (old.channel, old.white, old.padding, old.labels) == ("grey", None, None, "")
    write_tsv(table, [{k: v for k, v in columns.items() if k != "g01"}])
    with pytest.raises(ReceiptError, match="section '001': has no column 'g01'"):
        read_rows(table, Prepared, verify=False)
    write_tsv(table, [columns | {"background": "dark"}])
    with pytest.raises(ReceiptError, match="section '001': could not convert"):
        read_rows(table, Prepared, verify=False)


def test_files_are_found_by_their_ending_and_checked(tmp_path):
    path = tmp_path / "toy" / "sections" / "1_word.txt"
    write_text(path, "word")
    table = tmp_path / "toy" / "chunks" / "000.tsv"
    listed = {"sections/1_word.txt": sha256_file(path)}
    write_rows(table, [Plane(section="1", position_mm=0.0, grid=GRID, files=listed)])
    (row,) = read_rows(table, Plane)
    assert row.file("_word.txt") == path
    assert row.has("_word.txt") and not row.has("_image.nii.gz")
    with pytest.raises(ReceiptError, match=r"000.tsv: section '1' lists no file …_image.nii.gz"):
        row.file("_image.nii.gz")
    path.write_text("tampered")
    with pytest.raises(ReceiptError, match=r"1_word.txt: is not the file"):
        read_rows(table, Plane)
    path.unlink()
    with pytest.raises(ReceiptError, match=r"1_word.txt: missing"):
        read_rows(table, Plane, verify=["_word.txt"])
    assert len(read_rows(table, Plane, verify=["_other.txt"])) == 1
    assert len(read_rows(table, Plane, verify=False)) == 1


def test_the_stages_folder_follows_from_the_tables(tmp_path):
    assert stage_dir(tmp_path / "prepare" / "chunks" / "000.tsv") == tmp_path / "prepare"
    assert stage_dir(tmp_path / "prepare" / "sections.tsv") == tmp_path / "prepare"


def test_the_look_of_a_section_does_not_depend_on_its_metadata():
    from dataclasses import replace

    files = {"sections/a_image.nii.gz": "1", "sections/a_mask.nii.gz": "2"}
    row = replace(ROWS[0], files=files, section_mm_from_working_mm=np.eye(3))
    same = row.pixels_digest
    assert same == sha256_of([files, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    assert replace(row, stain="", labels="l.png", fingerprint="y").pixels_digest == same
    assert replace(row, section_mm_from_working_mm=MATRIX).pixels_digest != same
    other = {**files, "sections/a_mask.nii.gz": "3"}
    assert replace(row, files=other).pixels_digest != same


def test_a_fingerprint_depends_on_every_input_but_not_on_their_order(tmp_path):
    one = fingerprint(1, a="x", b=[1.0])
    assert fingerprint(1, b=[1.0], a="x") == one
    assert len({one, fingerprint(2, a="x", b=[1.0]), fingerprint(1, a="y", b=[1.0])}) == 3
    write_text(tmp_path / "a.txt", "a")
    assert digest_of_file(tmp_path / "a.txt") == sha256_file(tmp_path / "a.txt")
    assert digest_of_file(tmp_path / "none.txt") == ""


def test_what_the_global_fit_leaves_comes_back_as_it_was(tmp_path):
    rows = [InitialAffine("2", 1.5, "x", MATRIX), InitialAffine("1", 3.0, "y", np.eye(3))]
    write_initial(tmp_path / "a.tsv", rows)
    back = read_initial(tmp_path / "a.tsv")
    assert [vars(r) | {"working_mm_from_plane_mm": 0} for r in back] == [
        vars(r) | {"working_mm_from_plane_mm": 0} for r in rows
    ]
    np.testing.assert_array_equal(back[0].working_mm_from_plane_mm, MATRIX)
    write_plane_grid(tmp_path / "a.json", GRID, 16.0)
    assert read_plane_grid(tmp_path / "a.json") == (GRID, 16.0)
    write_text(tmp_path / "old.json", '{"rows": 3, "columns": 4, "spacing_mm": 0.1}')
    assert read_plane_grid(tmp_path / "old.json") == (GRID, 1.0)


@pytest.mark.parametrize("name", ["/etc/passwd", "../../kept.txt", "out/kept.txt"])
def test_a_table_lists_nothing_outside_its_folder(tmp_path, name):
    """It may be somebody else's."""
    folder = tmp_path / "results" / "stage"
    folder.mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path)
    (tmp_path / "kept.txt").write_text("kept")
    write_rows(folder / "sections.tsv", [Row(section="001", files={name: "0"})])
    for verify in (True, False):
        with pytest.raises(ReceiptError, match="is not inside this folder|leads out of"):
            read_rows(folder / "sections.tsv", Row, verify=verify)


@pytest.mark.parametrize("cell", ["5", "[]", '["a"]', '{"a": 1}', "[" * 9999, "{"])
def test_a_damaged_column_of_files_is_told_in_one_line(tmp_path, cell):
    write_tsv(tmp_path / "sections.tsv", [{"section": "001", "status": "ok", "files": cell}])
    with pytest.raises(ReceiptError, match="sections.tsv: section '001': "):
        read_rows(tmp_path / "sections.tsv", Row)


@pytest.mark.parametrize(
    "text",
    ["5", "[]", "{}", '{"rows": 3, "columns": 0, "spacing_mm": 1}',
     '{"rows": 3, "columns": 4, "spacing_mm": -1}',
     '{"rows": 3, "columns": 4, "spacing_mm": NaN}',
     '{"rows": 3, "columns": 4, "spacing_mm": 1, "enlargement": 0}'],
)  # fmt: skip
def test_a_damaged_plane_grid_is_told_in_one_line(tmp_path, text):
    write_text(tmp_path / "g.json", text)
    with pytest.raises(ReceiptError, match="g.json: damaged"):
        read_plane_grid(tmp_path / "g.json")


@pytest.mark.parametrize("cell", ["", "x", "nan", "inf"])
def test_a_damaged_initial_affine_is_told_in_one_line(tmp_path, cell):
    path = tmp_path / "initial.tsv"
    write_initial(
        path, [InitialAffine("001", 1.0, "", MATRIX), InitialAffine("2", 2.0, "", MATRIX)]
    )
    header, rows = read_tsv(path)
    for column in ("position_mm", "a11"):
        damaged = tmp_path / "damaged.tsv"  # without a recorded sum
        write_tsv(damaged, [rows[0], rows[1] | {column: cell}], header)
        with pytest.raises(ReceiptError, match="damaged.tsv: row 2: damaged"):
            read_initial(damaged)


def test_sections_that_a_later_table_lost_are_named(tmp_path):
    prepared, later = tmp_path / "prepare.tsv", tmp_path / "later.tsv"
    write_rows(prepared, [Row(section="1"), Row(section="2", status="failed"), Row(section="3")])
    write_rows(later, [Row(section="1"), Row(section="2", status="failed")])
    assert sections_lost(later, prepared) == f"{later}: lacks 1 sections that {prepared} has: 3"
    assert sections_lost(prepared, prepared) == sections_lost(prepared, later) == ""


@pytest.mark.parametrize("section", ["../../victim", "/tmp/victim", "a/b", ""])
@pytest.mark.parametrize("status", ["ok", "failed"])
def test_a_table_names_no_section_by_a_path(tmp_path, section, status):
    write_rows(tmp_path / "sections.tsv", [Row(section="1"), Row(section=section, status=status)])
    with pytest.raises(ReceiptError, match=r"sections.tsv: id .*letters, digits"):
        read_rows(tmp_path / "sections.tsv", Row)
