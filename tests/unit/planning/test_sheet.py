"""Which brains can be used, whose networks each uses, and the simulated brain of each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sbr_core.config import DemoOptions
from sbr_core.errors import ManifestError, StorageError
from sbr_core.io.manifests import BrainRow
from sbr_core.io.sums import summed_path
from sbr_core.planning.sheet import demo_of, weights_donor, weights_start


def sheet_of(**weights: str) -> dict[str, BrainRow]:
    """Brain -> the row that uses the weights of another, ``brain`` or ``brain finetune``."""
    return {
        name: BrainRow(name, f"{name}.tsv", **dict(zip(WEIGHTS, text.split(), strict=False)))
        for name, text in weights.items()
    }


WEIGHTS = ("weights_from", "weights_use")


def test_networks_are_those_of_the_first_brain_that_trains():
    sheet = sheet_of(a="", b="a", c="b finetune", d="c", e="d finetune")
    assert [weights_donor(sheet, brain) for brain in sheet] == ["a", "a", "c", "c", "e"]
    assert [weights_start(sheet, brain) for brain in sheet] == [None, None, "a", None, "c"]


def test_a_brain_has_its_kept_rows_in_chunks_and_the_ids_left_out(add_brain, study_of):
    study = study_of(add_brain("one", "abcde", {"exclude": ["", "", "yes", "", "true"]}))
    brain = study.brains["one"]
    assert [row.section for row in brain.sections] == ["a", "b", "d"]
    assert brain.excluded == ("c", "e")
    chunked = [row.section for rows in brain.chunks.values() for row in rows]
    assert sorted(chunked) == ["a", "b", "d"]
    # the chunks are those of all five rows, so that excluding one never splits them anew
    assert {name.split("of")[1] for name in brain.chunks} == {"4"}
    assert brain.trains and not brain.has_labels and not brain.is_simulated


@pytest.mark.parametrize("column", ["mri", "mri_mask", "mri_labels", "landmarks"])
def test_a_file_of_the_sheet_that_is_missing_is_named(add_brain, study_of, column):
    row = add_brain("one")
    row[column] = "gone.nii.gz"
    with pytest.raises(ManifestError) as caught:
        study_of(row)
    where = f"config/brains.tsv: brain 'one': {column}"
    assert str(caught.value) == f"{where}: gone.nii.gz: no such file"


def test_an_mri_may_be_a_folder_and_a_mask_may_not(add_brain, study_of):
    row = add_brain("one")
    Path("series").mkdir()
    row["mri"] = "series"
    assert study_of(row).brains["one"].row.mri == "series"
    row["mri_mask"] = "series"
    with pytest.raises(ManifestError, match="mri_mask: series: is a folder, expected a file"):
        study_of(row)


@pytest.mark.parametrize("folder", ["slides {2}", "slides <2>", "a{b}{c}"])
def test_a_path_that_snakemake_takes_for_a_pattern_is_refused_by_name(add_brain, study_of, folder):
    row = add_brain("one", "ab")
    manifest = Path(row["sections"])
    Path(manifest.parent, folder).mkdir()
    Path(manifest.parent, folder, "a.png").write_bytes(b"x")
    manifest.write_text(manifest.read_text().replace("\ta.png", f"\t{folder}/a.png"))
    with pytest.raises(ManifestError, match=r"section 'a': .*a\.png: the workflow takes '[{<]"):
        study_of(row)


@pytest.mark.parametrize("column", ["mri", "mri_mask", "mri_labels", "landmarks"])
def test_so_is_one_of_the_sheet(add_brain, study_of, column):
    row = add_brain("one")
    row[column] = "scans {2}/mri.nii.gz"
    with pytest.raises(ManifestError, match=f"brain 'one': {column}: .* takes '.2.'"):
        study_of(row)


def test_landmarks_of_excluded_sections_are_allowed_and_of_unknown_ones_not(add_brain, study_of):
    row = add_brain("one", "ab", {"exclude": ["", "yes"]}, landmarks="marks.tsv")
    columns = ("section", "x_section_mm", "y_section_mm", "mri_x_mm", "mri_y_mm", "mri_z_mm")
    marks = "\t".join(columns) + "\n{}\t1\t2\t3\t4\t5\n"
    Path("marks.tsv").write_text(marks.format("b"))
    assert study_of(row).brains["one"].excluded == ("b",)
    Path("marks.tsv").write_text(marks.format("c"))
    with pytest.raises(ManifestError, match="landmark 1: no section 'c' in this brain"):
        study_of(row)


def test_one_brain_that_cannot_be_used_leaves_the_others(add_brain, study_of):
    one, two = add_brain("one"), add_brain("two")
    Path(two["mri"]).unlink()
    study = study_of(two, one)
    assert study.of_sheet == ["one"]
    assert study.faults == {
        "two": "config/brains.tsv: brain 'two': mri: raw/two/mri.nii.gz: no such file"
    }
    assert study.refusals == [".snakemake/sbr_refused/two"]
    with pytest.raises(ManifestError, match="raw/two/mri.nii.gz: no such file"):
        study_of(two)


def test_who_depends_on_a_faulty_brain_is_left_out_wherever_it_stands(add_brain, study_of):
    faulty = add_brain("faulty", mri="gone.nii.gz")
    Path("gone.nii.gz").unlink()
    uses = add_brain("uses", weights_from="faulty")
    starts = add_brain("starts", weights_from="faulty", weights_use="finetune")
    behind = add_brain("behind", weights_from="starts")
    study = study_of(behind, starts, uses, add_brain("one"), faulty)
    assert study.of_sheet == ["one"]
    assert list(study.faults) == ["behind", "starts", "uses", "faulty"]
    assert study.faults["uses"].endswith("brain 'uses': weights_from: 'faulty' cannot be used")
    assert study.faults["behind"].endswith("brain 'behind': weights_from: 'starts' cannot be used")


def test_a_faulty_brain_that_trains_nothing_does_not_matter_to_those_behind_it(add_brain, study_of):
    between = add_brain("between", weights_from="one", mri="gone.nii.gz")
    Path("gone.nii.gz").unlink()
    study = study_of(add_brain("one"), between, add_brain("two", weights_from="between"))
    assert study.of_sheet == ["one", "two"]
    assert study.brains["two"].weights_donor == "one"
    assert study.trainings("two") == []


def test_a_method_that_learns_from_labels_needs_some_where_it_is_trained(add_brain, study_of):
    bare = add_brain("bare")
    with pytest.raises(ManifestError, match="brain 'bare': method 'nmiw' learns from labels"):
        study_of(bare, methods=["nmiw"])
    labelled = add_brain("one", columns={"labels": ["a.png", "", ""]}, mri_labels="labels.nii.gz")
    study = study_of(labelled, bare | {"weights_from": "one"}, methods=["nmiw"])
    assert study.brains["one"].has_labels and not study.brains["bare"].has_labels
    planes = {"labels": ["a.png", "", ""], "mri_labels": ["", "b.png", ""]}
    study = study_of(add_brain("two", columns=planes, prealigned=True), methods=["nmiw"])
    assert study.brains["two"].plane_labels == ("raw/two/b.png",)


def test_labels_of_a_3d_mri_are_none_of_a_prealigned_brain(add_brain, study_of):
    columns = {"labels": ["a.png", "", ""]}
    row = add_brain("one", columns=columns, prealigned=True, mri_labels="labels.nii.gz")
    brain = study_of(row).brains["one"]
    assert brain.mri_labels == "" and not brain.has_labels


def test_each_brain_has_a_simulated_one_that_trains_for_itself(add_brain, study_of):
    columns = {"mask": ["", "b.png", ""]}
    one = add_brain("one", columns=columns, mri_labels="labels.nii.gz")
    study = study_of(one, add_brain("two", weights_from="one"), simulate={"n_sections": 4})
    assert study.simulated == ["one-simulated", "two-simulated"]
    brain = study.brains["one-simulated"]
    assert brain.prealigned and brain.trains and brain.source == "one"
    assert study.brains["two-simulated"].trains
    folder = Path("results/one-simulated/data")
    assert [Path(row.image) for row in brain.sections] == [
        folder / "images" / f"{section}.png" for section in "abc"
    ]
    assert [bool(row.mask) for row in brain.sections] == [False, True, False]
    assert brain.has_labels and not study.brains["two-simulated"].has_labels


def test_the_demo_is_made_when_it_was_made_with_its_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = DemoOptions(n_sections=9)
    sheet = {"demo": BrainRow("demo", "data/demo/sections.tsv")}
    demo = demo_of(sheet, options)
    assert len(demo.rows) == 9 and not demo.is_made
    assert demo_of(sheet_of(a=""), options).rows == ()
    Path("data/demo").mkdir(parents=True)
    Path("data/demo/sections.tsv").touch()
    truth = Path("data/demo/truth.json")
    truth.write_text(json.dumps({"options": options.model_dump(mode="json")}))
    assert demo_of(sheet, options).is_made
    assert not demo_of(sheet, DemoOptions(n_sections=10)).is_made
    truth.write_text("{")
    assert not demo_of(sheet, options).is_made


def test_the_demo_is_planned_before_it_is_made(study_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = {"brain": "demo", "sections": "data/demo/sections.tsv", "orientation": "LIA"}
    row |= {"mri": "data/demo/mri.nii.gz", "landmarks": "data/demo/landmarks.tsv"}
    study = study_of(row, demo={"n_sections": 8})
    sections = study.brains["demo"].sections
    assert [Path(section.image).parent.parent for section in sections] == [Path("data/demo")] * 8


@pytest.mark.parametrize(
    "link",
    [
        *("results/one/logs/prepare/1of1.log", "results/one/prepare/chunks/1of1.rows.json"),
        *("results/one/sbr", "results/one", "results/one-simulated"),
        *("results/.checkpoints/one/sbr", "results/.checkpoints/one-simulated"),
    ],
)
def test_a_link_among_a_brain_s_results_leaves_that_brain_out(add_brain, study_of, tmp_path, link):
    rows = add_brain("one"), add_brain("two")
    Path(link).parent.mkdir(parents=True, exist_ok=True)
    Path(link).symlink_to(tmp_path / "elsewhere")
    study = study_of(*rows)
    assert list(study.faults) == ["one"] and study.of_sheet == ["two"]
    assert study.faults["one"].startswith(f"{link}: is a link")


def test_a_link_where_all_brains_write_stops_and_one_to_all_results_does_not(
    add_brain, study_of, tmp_path
):
    row = add_brain("one")
    (tmp_path / "disk" / "one").mkdir(parents=True)
    Path("results").symlink_to(tmp_path / "disk")
    assert study_of(row).of_sheet == ["one"]
    (tmp_path / "disk" / "logs").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="results/logs: is a link"):
        study_of(row)
    (tmp_path / "disk" / "logs").unlink()
    (tmp_path / "disk" / ".checkpoints").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="results/.checkpoints: is a link"):
        study_of(row)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("x")])
def test_what_is_wrong_with_one_brain_s_results_leaves_that_brain_out(add_brain, study_of, make):
    rows = add_brain("one"), add_brain("two")
    Path("results/one/plan").mkdir(parents=True)
    make(Path("results/one/plan/align.json"))
    study = study_of(*rows)
    assert study.of_sheet == ["two"] and list(study.faults) == ["one"]
    # where its refusal is told is not in its folder, which may lead elsewhere
    assert study.refusals == [".snakemake/sbr_refused/one"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../raw/x.png", "mri_labels/../../x.png"])
@pytest.mark.parametrize("column", ["mri_labels", "image"])
def test_a_simulated_brain_names_no_file_outside_its_folder(add_brain, study_of, column, name):
    row = add_brain("one")
    values = {"section": "a", "image": "images/a.png", "position_mm": "1", "pixel_size_mm": "1"}
    manifest = Path("results/one-simulated/data/sections.tsv")
    manifest.parent.mkdir(parents=True)
    two = add_brain("two")
    for named, usable in (("mri_labels/a.png", ["one", "two"]), (name, ["two"])):
        lines = values | {column: named}
        manifest.write_text("\t".join(lines) + "\n" + "\t".join(lines.values()) + "\n")
        assert study_of(row, two).of_sheet == usable


@pytest.mark.parametrize(
    "name", ["align/plane_grid.json", "evaluation/sections.tsv", "sbr/loss.tsv"]
)
def test_a_small_result_that_rotted_leaves_its_brain_out(add_brain, study_of, name):
    """Its time is kept, as a disk keeps it, so nothing would run and nobody would read it."""
    rows = add_brain("one"), add_brain("two")
    file = Path("results/one") / name
    with summed_path(file) as temporary:
        temporary.write_text("4.25\n")
    assert study_of(*rows).of_sheet == ["one", "two"]
    file.write_text("4.75\n")
    study = study_of(*rows)
    assert study.of_sheet == ["two"]
    assert study.faults["one"].startswith(f"{file}: is not the file that was written")
    file.unlink()  # as the message asks
    assert study_of(*rows).of_sheet == ["one", "two"]


def test_a_collected_table_that_rotted_does_not_since_it_is_collected_again(add_brain, study_of):
    row = add_brain("one")
    for name in ("prepare/chunks/1of1.tsv", "prepare/sections.tsv"):
        with summed_path(Path("results/one") / name) as temporary:
            temporary.write_text("section\n")
    Path("results/one/prepare/sections.tsv").write_text("section\nx\n")
    assert study_of(row).of_sheet == ["one"]
