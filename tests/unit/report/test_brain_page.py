"""What a brain's page lists of its tables; its pictures are judged where the page is made."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core.artifacts.rows import Affine, Inferred, Prepared, Row, write_rows
from sbr_core.config import ReportOptions
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import sum_file, write_json, write_text
from sbr_core.io.sums import summed_path
from sbr_core.io.tables import write_tsv
from sbr_core.report.brain_page import brain_page
from sbr_core.report.next_commands import BrainPaths
from sbr_core.report.shelf import Shelf


def inferred(section, position_mm, *, folding_percent=0.0, moved_mm=0.0, inverse_px=0.0):
    return Inferred(
        section=section,
        position_mm=position_mm,
        grid=PlaneGrid((4, 4), 1.0),
        folding_percent=folding_percent,
        disp_mean_mm=moved_mm,
        disp_max_mm=2 * moved_mm,
        inverse_mean_px=inverse_px / 2,
        inverse_p99_px=inverse_px,
    )


def prepared(section, **facts):
    return Prepared(
        section=section,
        position_mm=2.0,
        pixel_size_mm=0.5,
        working_pixel_mm=1.0,
        file_rows=8,
        file_columns=8,
        polarity="bright_background",
        background=1.0,
        section_mm_from_working_mm=np.eye(3),
        tissue_mm2=9.0,
        image="s.png",
        **facts,
    )


def page_of(methods, results):
    shelf = Shelf(results / "index.html")
    return brain_page(ReportOptions(), "b", methods, BrainPaths(results), shelf)


def alarms(page):
    return [line for group in page["alarms"] for line in group.lines]


@pytest.fixture
def page(tmp_path):
    """The page of three sections, of which one failed, by two methods."""
    failed = Row(section="s3", status="failed", message="no tissue")
    rows = {
        "linear": [inferred("s1", 2.0), inferred("s2", 7.5), failed],
        "sbr": [
            inferred("s1", 2.0, moved_mm=0.5, folding_percent=0.25, inverse_px=0.1),
            inferred("s2", 7.5, moved_mm=1.5, inverse_px=0.4),
            failed,
        ],
    }
    for method, of_method in rows.items():
        write_rows(tmp_path / "b" / method / "sections.tsv", of_method)
    doubt = prepared("s1", message="pixel size in doubt")
    write_rows(tmp_path / "b" / "prepare" / "sections.tsv", [doubt, failed])
    common = {"working_mm_from_plane_mm": np.eye(3), "moved_mm": 0.0}
    affines = [
        Affine(section="s1", position_mm=2.0, trust=0.984, **common),
        Affine(section="s2", position_mm=7.5, trust=0.31, message="trusted little", **common),
        failed,
    ]
    write_rows(tmp_path / "b" / "align_sections" / "sections.tsv", affines)
    (tmp_path / "b" / "resample").mkdir()
    (tmp_path / "b" / "resample" / "sections.tsv").write_text("section\tstatus\n")
    quality = {
        "doubts": ["too long?"],
        "stage": "align",
        "revision": 2,
        "explained": 0.5,
        "orientation": "LIA",
        "ok": True,
    }
    write_json(tmp_path / "b" / "align" / "quality.json", quality | {"n_sections": 3, "no": None})
    write_json(tmp_path / "b" / "prepare" / "mri.json", {"doubts": ["mirrored?"]})
    checked = [("sections", "fine", "3"), ("landmarks", "doubtful", "LPS?")]
    checked += [("pixel sizes", "doubtful", "section s1: pixel size in doubt")]
    columns = ("looked_at", "verdict", "words")
    lines = [dict(zip(columns, line, strict=True)) for line in checked]
    write_tsv(tmp_path / "b" / "check" / "findings.tsv", lines)
    methods = {method: tmp_path / "b" / method for method in rows}
    return page_of(methods, tmp_path / "b")


def test_alarms_are_failures_then_warnings_then_deformations(page):
    titles = [(group.title, group.grave) for group in page["alarms"]]
    assert titles == [
        ("Sections left out", True),
        ("What was given is doubtful", False),
        ("Deformations that fold or have a poor inverse", False),
    ]
    assert alarms(page) == [
        "section s3 was left out by prepare: no tissue",
        "section s1: pixel size in doubt",
        "section s2: trusted little",
        "the MRI: mirrored?",
        "too long?",
        "landmarks: LPS?",
        "section s1: sbr folds 0.250 % of it",
        "section s2: sbr there and back ends 0.400 px away (99th percentile)",
    ]


def test_deformations_are_summed_up_over_the_sections_that_did_not_fail(page):
    linear, sbr = page["deformations"]
    assert linear == {"method": "linear", "sections": 2, "texts": ["0"] * 5}
    # moved: mean and most; folding: most; there and back: mean and worst
    assert sbr["texts"] == ["1.00", "3.00", "0.250", "0.125", "0.400"]


def test_tiles_and_facts_are_of_what_there_is(page):
    tiles = {tile["name"]: tile["value"] for tile in page["tiles"]}
    assert tiles == {"sections": "2 of 3", "along the stack": "2 to 7.5 mm"}
    facts = [("explained", "0.500"), ("n sections", "3"), ("orientation", "LIA")]
    assert page["alignment"] == {"facts": facts, "uri": ""}
    for part in ("cuts", "losses", "accuracy", "on_simulated", "doctor", "comparison"):
        assert not page[part]


def test_each_section_has_its_place_what_moved_it_and_why_it_failed(page):
    first, second, third = page["viewer"]["sections"]
    moved = "sbr moves it by 0.500 mm in the mean, at most 1.00 mm"
    assert first["facts"] == [moved, "its affine can be trusted 0.98 of 1"]
    assert first["position_mm"] == 2.0
    assert second["facts"][-1] == "its affine can be trusted 0.31 of 1"
    assert second["name"] == "s2" and second["message"] == ""
    assert (third["facts"], third["message"]) == ([], "linear: no tissue; sbr: no tissue")
    assert page["figures"] == {"s1": [], "s2": [], "s3": []}


def test_a_section_that_a_table_lost_is_missed(page, tmp_path):
    """As of a table that was cut before sums were recorded."""
    folder = tmp_path / "b" / "sbr"
    table = (folder / "sections.tsv").read_text().splitlines(True)
    write_text(folder / "sections.tsv", "".join(table[:-1]))
    values = page_of({"sbr": folder}, tmp_path / "b")
    assert "the table of sbr lacks sections of prepare: s3" in alarms(values)
    assert values["tiles"][0]["value"] == "2 of 3"


@pytest.mark.parametrize("name", ["evaluation/summary.tsv", "sbr/volume/b_histology.nii.gz"])
def test_a_file_that_was_written_and_is_gone_is_missed(page, tmp_path, caplog, name):
    methods = {"sbr": tmp_path / "b" / "sbr"}
    file = tmp_path / "b" / name
    with summed_path(file) as temporary:
        temporary.write_text("")
    file.unlink()
    line = f"{name} was written and is missing; this page is without it"
    assert line in alarms(page_of(methods, tmp_path / "b"))
    assert f"WARNING: {line}" in caplog.text
    sum_file(file).unlink()
    assert line not in alarms(page_of(methods, tmp_path / "b"))
