"""Words of command lines, rows as JSON, and graphics cards."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sbr_core.config import Config
from sbr_core.planning.parameters import (
    card_resources,
    cards,
    chunk_json,
    flags,
    folder_of,
    inference_section,
    label_values,
    method_folders,
    one_of,
    plane_json,
    rows_file,
    training_options,
)
from sbr_core.planning.study import compared_folders


def test_names_of_a_wildcard_match_themselves_only():
    pattern = re.compile(one_of(["a.b", "compare/sbr"]))
    assert [bool(pattern.fullmatch(text)) for text in ("a.b", "compare/sbr", "axb", "a")] == [
        *(True, True, False, False)
    ]


def test_flags_that_say_nothing_are_left_out():
    assert flags(strict=False, mri=None, excluded=[]) == []
    assert flags(strict=True, align_dir="a b", excluded=["x", 2], rotate=0) == [
        *("--strict", "--align-dir", "a b", "--excluded", "x", "2", "--rotate", "0"),
    ]


def test_folders_and_files_beside_an_output():
    receipt = "results/one/prepare/chunks/1of2.tsv"
    assert folder_of(receipt) == "results/one/prepare/chunks"
    assert folder_of(receipt, 2) == "results/one/prepare"
    assert rows_file(receipt) == "results/one/prepare/chunks/1of2.rows.json"


def test_a_plane_depends_on_nothing_that_only_changes_its_section(add_brain, study_of):
    plain = study_of(add_brain("one"), chunk_size=9)
    columns = {"flip": ["lr", "", ""], "labels": ["a.png", "", ""], "stain": ["Nissl"] * 3}
    columns |= {"rotate_deg": ["90", "", ""], "image_channel": ["2"] * 3}
    columns |= {
        "notes": ["torn", "", ""],
        "box_px": ["0 0 9 9", "", ""],
        "thickness_um": ["20", "", ""],
        "stain_group": ["a", "b", ""],
        "affine_from": ["neighbours", "own", ""],
    }
    edited = study_of(
        {**add_brain("two", columns=columns), "mri": "raw/one/mri.nii.gz"}, chunk_size=9
    )
    here, there = (
        plane_json(study, brain, "1of1").replace(f"raw/{brain}/", "")
        for study, brain in ((plain, "one"), (edited, "two"))
    )
    assert here == there
    rows = json.loads(chunk_json(edited, "two", "1of1"))
    assert rows[0] == {
        "section": "a",
        "image": "raw/two/a.png",
        "position_mm": 0.0,
        "pixel_size_mm": 0.5,
        "flip": "lr",
        "rotate_deg": 90.0,
        "labels": "raw/two/a.png",
        "stain": "Nissl",
        "image_channel": "2",
        "box_px": "0 0 9 9",
        "thickness_um": 20.0,
        "stain_group": "a",
        "affine_from": "neighbours",
    }


def test_methods_are_given_with_their_folders(add_brain, study_of):
    study = study_of(add_brain("one"), compare={"methods": ["sbr"]})
    assert method_folders(study, "one", compared_folders) == [
        "linear=results/one/linear",
        "sbr=results/one/compare/sbr",
    ]


def test_labels_are_those_of_the_mri_or_of_the_planes_in_the_manifest(add_brain, study_of):
    study = study_of(add_brain("one"))
    assert label_values(study, "one", {}) == {"mri_labels": None, "rows": None}
    given = label_values(study, "one", {"mri_labels": "labels.nii.gz"})
    assert given == {"mri_labels": "labels.nii.gz", "rows": None}
    given = label_values(study, "one", {"plane_labels": ["a.png"]})
    assert given == {"mri_labels": None, "rows": "raw/one/sections.tsv"}


def test_a_training_is_given_only_the_options_that_count_for_it(add_brain, study_of):
    tuned = add_brain("two", weights_from="one", weights_use="finetune")
    study = study_of(add_brain("one"), tuned, compare={"minutes": 3})
    new, on, compared = (
        json.loads(training_options(study, brain, folder))
        for brain, folder in (("one", "sbr"), ("two", "sbr"), ("two", "compare/sbr"))
    )
    assert "steps" in new and "finetune_steps" not in new and new["minutes"] is None
    assert "steps" not in on and "finetune_steps" in on
    assert compared["minutes"] == 3 and compared["steps"] == 10**9
    assert "finetune_steps" not in compared


def test_only_the_classical_method_infers_with_options_of_its_own():
    assert [inference_section(m) for m in ("linear", "syn_mi", "compare/sbr")] == [
        *("infer", "syn_mi", "infer")
    ]


@pytest.mark.parametrize(
    ("gpus", "device", "expected"),
    [(2, "auto", 2), (0, "auto", 0), (2, "cpu", 0), (0, "cuda", 1), (2, "cuda", 2)],
)
def test_cards_of_a_job(gpus, device, expected):
    assert cards(Config(gpus=gpus, infer={"device": device}), "infer") == expected


def test_cards_are_asked_for_by_gpu_or_by_gres():
    resources = card_resources(Config(gpus=1), int)
    assert resources.keys() == {"gpu"} and resources["gpu"]("2") == 2
    resources = card_resources(Config(gpus=1, gres="gpu:a100"), int)
    assert resources.keys() == {"gres"}
    assert [resources["gres"](n) for n in ("0", "2")] == ["", "gpu:a100:2"]


def test_a_rejected_section_is_kept_out_of_the_volume_of_its_stain_alone(add_brain, study_of):
    columns = {"stain_group": ["a", "b", ""]}
    row = add_brain("one", columns=columns, corrections="corrections.tsv")
    Path("corrections.tsv").write_text(
        "section\tkind\tvalue\na\tverdict\treject\nb\tverdict\taccept\nc\tnote\tpale\n"
    )
    brain = study_of(row).brains["one"]
    assert [brain.rejected(group) for group in ("a", "b", "")] == [["a"], [], []]
    assert brain.corrections["b"].verdict == "accept" and brain.corrections["c"].note == "pale"
