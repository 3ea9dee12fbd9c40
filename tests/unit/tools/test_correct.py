"""`sbr correct`: what was put right on the page lands where it lasts, and only if it still fits."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from mapped_brain import GRID, SECTIONS, SPACING_MM, make_mapped_brain

from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Plane, Prepared, read_rows, write_rows
from sbr_core.cli import main
from sbr_core.geometry import apply, turned_further, upright_from_file
from sbr_core.io.corrections import read_corrections
from sbr_core.io.tables import read_tsv, write_tsv

TURNS = {
    "plain": ("none", 0.0),
    "flipped": ("lr", 0.0),
    "turned": ("none", 90.0),
    "both": ("ud", 25.0),
    "boxed": ("lr", 270.0),
}


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    made = make_mapped_brain(tmp_path_factory.mktemp("corrected") / "results" / "b")
    planes = [
        Plane(
            section=section,
            position_mm=number * SPACING_MM,
            grid=GRID,
            files={f"sections/{section}{names.MRI}": f"plane of {section}"},
        )
        for number, section in enumerate(SECTIONS)
    ]
    write_rows(made.results / "resample" / names.TABLE, planes)
    return made


@pytest.fixture
def manifest(brain, tmp_path):
    rows = [
        {
            "section": section,
            "image": f"{section}.png",
            "position_mm": number * SPACING_MM,
            "pixel_size_mm": brain.pixel_size_mm[section],
            "flip": TURNS[section][0],
            "rotate_deg": TURNS[section][1],
            "notes": "mine",
        }
        for number, section in enumerate(SECTIONS)
    ]
    write_tsv(tmp_path / "sections.tsv", rows)
    return tmp_path / "sections.tsv"


def prepared(brain):
    rows = read_rows(brain.results / "prepare" / names.TABLE, Prepared, verify=False)
    return {row.section: row for row in rows}


def page(manifest, sections, **others):
    path = manifest.parent / "corrections.json"
    head = {"format": "sbr_core corrections", "version": 1, "brain": "b"}
    path.write_text(json.dumps(head | others | {"sections": sections}))
    return path


def correct(brain, manifest, *words):
    path = manifest.parent / "corrections.json"
    given = ["--manifest", str(manifest), "--results", str(brain.results)]
    return main(["correct", str(path), *given, *map(str, words)])


def digests(brain, section):
    (image,) = (v for k, v in prepared(brain)[section].files.items() if k.endswith(names.IMAGE))
    return {"prepared_sha256": image, "plane_sha256": f"plane of {section}"}


@pytest.mark.parametrize("then", [("none", 30.0), ("lr", 0.0), ("ud", -70.0), ("lr", 180.0)])
@pytest.mark.parametrize("first", [("none", 0.0), ("lr", 25.0), ("ud", 90.0)])
def test_two_turns_are_one(first, then):
    both = turned_further(*first, *then)
    assert -180 < both[1] <= 180
    one, other, at_once = (upright_from_file((1, 1), *t)[0][:2, :2] for t in (first, then, both))
    np.testing.assert_allclose(at_once, other @ one, atol=1e-12)


def test_edits_go_into_a_copy_of_the_manifest_and_a_table(brain, manifest, tmp_path):
    before = manifest.read_bytes()
    page(
        manifest,
        {
            "flipped": {"flip": "ud", "turn_deg": 10, "note": "upside down"}
            | digests(brain, "flipped"),
            "turned": {"verdict": "exclude"},
            "plain": {"verdict": "accept"},
            "both": {"verdict": "reject", "note": "torn"},
        },
    )
    new, table = tmp_path / "new" / "sections.tsv", tmp_path / "corrections.tsv"
    assert correct(brain, manifest, "-o", new, "--out-corrections", table) == 0
    assert manifest.read_bytes() == before
    rows = {row["section"]: row for row in read_tsv(new)[1]}
    # mirrored both ways is a half turn
    assert (rows["flipped"]["flip"], rows["flipped"]["rotate_deg"]) == ("none", "-170")
    notes = rows["flipped"]["notes"]
    assert notes.startswith("mine; corrected: ") and notes.endswith("; upside down")
    assert rows["turned"]["exclude"] == "true" and rows["plain"]["exclude"] == ""
    assert rows["plain"]["image"] == "../plain.png" and rows["boxed"]["notes"] == "mine"
    said = read_corrections(table, SECTIONS, prealigned=False)
    assert {s: (c.verdict, c.note) for s, c in said.items()} == {
        "flipped": ("", "upside down"),
        "plain": ("accept", ""),
        "both": ("reject", "torn"),
    }
    # twice is once; a later word counts, and what it leaves out stays
    first = table.read_bytes()
    assert correct(brain, manifest, "-o", new, "--out-corrections", table) == 0
    assert table.read_bytes() == first
    page(manifest, {"both": {"verdict": "accept"}})
    assert correct(brain, manifest, "--out-corrections", table) == 0
    said = read_corrections(table, SECTIONS, prealigned=False)
    assert (said["both"].verdict, said["both"].note) == ("accept", "torn")
    assert said["plain"].verdict == "accept"


@pytest.mark.parametrize("section", ["plain", "both", "boxed"])
def test_landmarks_lie_where_they_were_set(brain, manifest, tmp_path, section):
    """Of a section that is flipped, turned and in a part of its file too."""
    plane_mm = np.array([[30.0, 20.0], [22.0, 27.5]])
    section_mm = brain.section_from_plane[section] @ np.column_stack([plane_mm, [1, 1]]).T
    row = prepared(brain)[section]
    shown_mm = (np.linalg.inv(row.section_mm_from_working_mm) @ section_mm)[:2].T
    pairs = [
        {"x_prepared_mm": a, "y_prepared_mm": b, "x_plane_mm": c, "y_plane_mm": d}
        for (a, b), (c, d) in zip(shown_mm.tolist(), plane_mm.tolist(), strict=True)
    ]
    page(manifest, {section: {"landmarks": pairs, **digests(brain, section)}})
    table = tmp_path / "corrections.tsv"
    assert correct(brain, manifest, "--out-corrections", table) == 0
    marks = read_corrections(table, SECTIONS, prealigned=False)[section].landmarks
    assert [mark.name for mark in marks] == ["1", "2"]
    np.testing.assert_allclose([m.section_mm for m in marks], section_mm[:2].T, atol=1e-9)
    stack_mm = apply(brain.stack_from_world, np.array([m.mri_mm for m in marks]))
    z_mm = SECTIONS.index(section) * SPACING_MM
    np.testing.assert_allclose(stack_mm, np.column_stack([plane_mm, [z_mm] * 2]), atol=1e-9)


def test_without_outputs_it_only_says_what_it_would_do(brain, manifest, capfd):
    page(manifest, {"plain": {"verdict": "reject", "turn_deg": 90, **digests(brain, "plain")}})
    there = sorted(manifest.parent.iterdir())
    assert correct(brain, manifest) == 0
    said = capfd.readouterr().err
    assert "section plain: rotate_deg 0.0 -> 90" in said and "rejected" in said
    assert "nothing was written" in said and sorted(manifest.parent.iterdir()) == there


def made_anew(brain, folder, section, flip, rotate_deg):
    """The results after a run with another flip or turn of a section: another picture of it."""
    rows = prepared(brain)
    row = rows[section]
    matrix = np.array(row.section_mm_from_working_mm)
    matrix[:2, :2] = np.linalg.inv(upright_from_file((1, 1), flip, rotate_deg)[0])[:2, :2]
    files = {name: f"{sha256} anew" for name, sha256 in row.files.items()}
    rows[section] = replace(row, section_mm_from_working_mm=matrix, files=files)
    results = folder / "results" / "b"
    write_rows(results / "prepare" / names.TABLE, list(rows.values()))
    for table in ("resample/sections.tsv", "align/" + names.STACK_TRANSFORM):
        (results / table).parent.mkdir()
        shutil.copy(brain.results / table, results / table)
    return replace(brain, results=results)


@pytest.mark.parametrize(
    ("section", "asked", "then"),
    [
        ("plain", {"flip": "lr"}, ("lr", 0.0)),
        ("plain", {"turn_deg": 184}, ("none", -176.0)),
        ("both", {"flip": "ud", "turn_deg": 90}, ("none", 65.0)),
    ],
)
def test_the_same_file_again_before_and_after_the_run_changes_nothing(
    brain, manifest, tmp_path, section, asked, then, capfd
):
    """What is in force already would be undone, were it laid on top of itself."""
    page(manifest, {section: asked | {"note": "seen"} | digests(brain, section)})
    mended, again = tmp_path / "mended.tsv", tmp_path / "again.tsv"
    table = tmp_path / "corrections.tsv"
    words = "--out-corrections", table
    assert correct(brain, manifest, "-o", mended, *words) == 0
    row = {r["section"]: r for r in read_tsv(mended)[1]}[section]
    assert (row["flip"], float(row["rotate_deg"])) == then
    rerun = made_anew(brain, tmp_path, section, *then)
    for state in (brain, rerun):
        told = ["--manifest", str(mended), "--results", str(state.results), "-o", str(again)]
        file = str(manifest.parent / "corrections.json")
        assert main(["correct", file, *told, *map(str, words)]) == 0
        assert f"{mended} states it already: passed over" in capfd.readouterr().err
        assert read_tsv(again) == read_tsv(mended)
    # of the manifest of before the results know nothing any more
    assert correct(rerun, manifest, "-o", again, *words) == 2
    assert "the results were made with another flip or turn" in capfd.readouterr().err
    # nor is it known what was in force if the notes do not tell
    mended.write_text(mended.read_text().replace("corrected: ", "mine: "))
    given = ["--manifest", str(mended), "--results", str(rerun.results)]
    assert main(["correct", str(manifest.parent / "corrections.json"), *given]) == 2
    assert "asked for on an earlier state" in capfd.readouterr().err


PAIR = {"x_prepared_mm": 5.0, "y_prepared_mm": 5.0, "x_plane_mm": 5.0, "y_plane_mm": 5.0}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"none": {"verdict": "accept"}}, "'none'"),
        ({"plain": {"verdict": "good"}}, "verdict"),
        ({"plain": {"landmarks": [PAIR]}}, "changed since"),
        ({"plain": {"landmarks": [PAIR | {"x_plane_mm": 900.0}], "d": 1}}, "outside its MRI plane"),
        ({"plain": {"landmarks": [PAIR | {"y_prepared_mm": -9.0}], "d": 1}}, "outside its image"),
        ({"plain": {"landmarks": [PAIR | {"name": "a"}] * 2, "d": 1}}, "second landmark 'a'"),
        ({"boxed": {"flip": "lr", "d": 1}, "wrong": 1}, "the results were made with another flip"),
        ({"boxed": {"flip": "lr"}}, "flip lr was asked for on an earlier state"),
        ({s: {"verdict": "exclude"} for s in SECTIONS}, "no section is left"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(brain, manifest, sections, said, capfd):
    if sections.pop("wrong", None):
        manifest.write_text(manifest.read_text().replace("\tlr\t270.0", "\tnone\t270.0"))
    for section, values in sections.items():
        if values.pop("d", None):
            values |= digests(brain, section)
    page(manifest, sections)
    there = sorted(manifest.parent.iterdir())
    words = "-o", manifest.parent / "new.tsv", "--out-corrections", manifest.parent / "c.tsv"
    assert correct(brain, manifest, *words) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert said in line and sorted(manifest.parent.iterdir()) == there


def test_a_missing_output_another_brain_or_the_manifest_itself_is_refused(brain, manifest, capfd):
    page(manifest, {"plain": {"verdict": "reject", "turn_deg": 90, **digests(brain, "plain")}})
    new, table = manifest.parent / "new.tsv", manifest.parent / "c.tsv"
    for words, said in (
        (("-o", new), "--out-corrections"),
        (("--out-corrections", table), "-o: 1 sections"),
        (("-o", manifest, "--out-corrections", table), "manifest itself"),
    ):
        assert correct(brain, manifest, *words) == 2
        assert said in capfd.readouterr().err
    page(manifest, {}, brain="c")
    assert correct(brain, manifest) == 2 and "'c'" in capfd.readouterr().err
    page(manifest, {}, version=2)
    assert correct(brain, manifest) == 2 and "version" in capfd.readouterr().err
    assert not new.exists() and not table.exists()


def test_a_prealigned_section_takes_landmarks_on_its_plane_and_no_turn(brain, manifest, tmp_path):
    """Its results have no similarity."""
    results = tmp_path / "results" / "b"
    rows = [replace(row, files=dict(row.files)) for row in prepared(brain).values()]
    write_rows(results / "prepare" / names.TABLE, rows)
    planes = read_rows(brain.results / "resample" / names.TABLE, Plane, verify=False)
    write_rows(results / "resample" / names.TABLE, planes)
    elsewhere = replace(brain, results=results)
    page(manifest, {"plain": {"landmarks": [PAIR], **digests(brain, "plain")}})
    table = tmp_path / "c.tsv"
    assert correct(elsewhere, manifest, "--out-corrections", table) == 0
    (mark,) = read_corrections(table, SECTIONS, prealigned=True)["plain"].landmarks
    assert mark.plane_mm == (5.0, 5.0) and mark.mri_mm is None
    page(manifest, {"plain": {"flip": "lr"}})
    assert correct(elsewhere, manifest) == 2


def test_a_note_of_several_lines_is_one_in_the_tables(brain, manifest):
    """A cell that goes on in the next line could not be read again."""
    note = "torn at\nthe left\t\r\nand above\n"
    page(manifest, {"plain": {"verdict": "exclude", "note": note}})
    new, table = manifest.parent / "new.tsv", manifest.parent / "corrections.tsv"
    assert correct(brain, manifest, "-o", new, "--out-corrections", table) == 0
    said = read_corrections(table, SECTIONS, prealigned=False)["plain"]
    assert said.note == "torn at the left and above"
    assert read_tsv(new)[1][0]["notes"].endswith("; torn at the left and above")
