"""Inputs of the rules, and which of them are ancient."""

from __future__ import annotations

from pathlib import Path

import pytest

from sbr_core.errors import ManifestError
from sbr_core.planning import inputs
from sbr_core.planning.inputs import Ancient, with_ancient
from sbr_core.planning.study import compared_folders, own_folders

FIT = {
    "similarity": "results/one/align/from-stack_to-mri_mode-image_xfm.txt",
    "plane_grid": "results/one/align/plane_grid.json",
    "initial": "results/one/align/sections_initial.tsv",
}


def make(*paths: str) -> None:
    """Write files that a run would have made."""
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def ancient_ones(given: dict) -> set[str]:
    """Names of the inputs that are ancient."""
    return {name for name, path in given.items() if isinstance(path, Ancient)}


def test_ancient_paths_are_handed_to_snakemake_and_others_left():
    paths = {"a": Ancient("x"), "b": "y", "c": [Ancient("z"), "y"]}
    assert with_ancient(paths, lambda path: f"ancient {path}") == {
        "a": "ancient x",
        "b": "y",
        "c": ["ancient z", "y"],
    }


def test_a_chunk_is_prepared_from_its_own_files(add_brain, study_of):
    columns = {"mask": ["a_mask.png", "", ""], "labels": ["", "b_labels.png", ""]}
    study = study_of(add_brain("one", columns=columns), chunk_size=9)
    files = ("a.png", "a_mask.png", "b.png", "b_labels.png", "c.png")
    assert inputs.prepare(study, "one", "1of1") == [f"raw/one/{name}" for name in files]
    manifest = "results/one-simulated/data/sections.tsv"
    assert inputs.prepare(study, "one-simulated", "1of1") == [manifest]


def test_planes_come_from_the_fitted_mri_or_from_the_rows(add_brain, study_of):
    columns = {"mri_mask": ["a_mask.png", "", ""]}
    two = add_brain("two", "ab", columns, prealigned=True)
    study = study_of(add_brain("one", mri_mask="mask.nii.gz"), two)
    assert set(inputs.resample(study, "one", "1of2")) == {
        *("similarity", "plane_grid", "mri", "mri_mask")
    }
    planes = ["raw/two/a_mri.png", "raw/two/a_mask.png", "raw/two/b_mri.png"]
    assert inputs.resample(study, "two", "1of1") == {"images": planes}
    assert inputs.prepare_mri(study, "one") == {
        "mri": "raw/one/mri.nii.gz",
        "mri_mask": "mask.nii.gz",
    }


def test_a_brain_as_a_whole_has_a_fit_a_truth_or_neither(add_brain, study_of):
    study = study_of(add_brain("one"), add_brain("two", prealigned=True))
    assert inputs.fit(study, "one") == FIT
    assert inputs.fit(study, "two") == {}
    truth = "results/two-simulated/data/truth.json"
    assert inputs.fit(study, "two-simulated") == {"truth": truth}


def test_a_changed_section_starts_no_global_fit_once_all_of_it_is_there(add_brain, study_of):
    study = study_of(add_brain("one"))
    table = {"sections": "results/one/prepare/sections.tsv"}
    assert inputs.align(study, "one", forced=False) == table
    assert ancient_ones(inputs.align(study, "one", forced=False)) == set()
    make(*FIT.values())
    assert ancient_ones(inputs.align(study, "one", forced=False)) == {"sections"}
    assert ancient_ones(inputs.align(study, "one", forced=True)) == set()
    Path(FIT["initial"]).unlink()
    assert ancient_ones(inputs.align(study, "one", forced=False)) == set()


def test_a_training_takes_tables_that_are_ancient_once_it_is_done(add_brain, study_of):
    study = study_of(add_brain("one"))
    given = inputs.train(study, "one", "sbr", forced=False)
    assert given == FIT | {
        "planes": "results/one/resample/sections.tsv",
        "sections": "results/one/align_sections/sections.tsv",
        "registrar": "results/one/registrar/weights.safetensors",
    }
    assert ancient_ones(given) == set()
    make("results/one/sbr/weights.safetensors")
    assert ancient_ones(inputs.train(study, "one", "sbr", forced=False)) == set()
    make("results/one/sbr/loss.tsv")
    tables = {"planes", "sections"}
    assert ancient_ones(inputs.train(study, "one", "sbr", forced=False)) == tables
    assert ancient_ones(inputs.train(study, "one", "compare/sbr", forced=False)) == set()
    make("results/one/registrar/weights.safetensors", "results/one/registrar/loss.tsv")
    assert ancient_ones(inputs.train_registrar(study, "one", forced=False)) == {"planes"}


def test_networks_of_another_brain_are_ancient(add_brain, study_of):
    tuned = add_brain("two", weights_from="one", weights_use="finetune")
    study = study_of(add_brain("one"), tuned, add_brain("three", weights_from="two"))
    weights = "results/{}/{}/weights.safetensors".format
    expected = {"weights": weights("two", "sbr"), "registrar": weights("one", "registrar")}
    for brain, ancient in (("three", {"weights", "registrar"}), ("two", {"registrar"})):
        assert inputs.infer(study, brain, "sbr") == expected
        assert ancient_ones(inputs.infer(study, brain, "sbr")) == ancient
    own = inputs.infer(study, "three", "compare/sbr")
    assert own["weights"] == weights("three", "compare/sbr") and ancient_ones(own) == set()
    assert inputs.infer(study, "three", "linear") == {}
    # those a training starts from and goes through are waited for, until it is done
    given = inputs.train(study, "two", "sbr", forced=False)
    assert (given["start"], given["registrar"]) == (weights("one", "sbr"), expected["registrar"])
    assert ancient_ones(given) == set()
    make(weights("two", "sbr"))
    assert ancient_ones(inputs.train(study, "two", "sbr", forced=True)) == {"start", "registrar"}


def test_a_method_with_a_registrar_of_its_own_infers_with_it(add_brain, study_of):
    study = study_of(add_brain("one"), methods=["nmi"])
    assert set(inputs.infer(study, "one", "nmi")) == {"weights"}


@pytest.mark.parametrize("prealigned", [False, True])
def test_only_methods_that_learn_from_labels_are_given_some(add_brain, study_of, prealigned):
    columns = {"labels": ["a.png", "", ""]}
    if prealigned:
        row = add_brain("one", columns=columns | {"mri_labels": ["b.png"] * 3}, prealigned=True)
    else:
        row = add_brain("one", columns=columns, mri_labels="labels.nii.gz")
    study = study_of(row, methods=["sbr", "nmiw"], chunk_size=9)
    given = inputs.train(study, "one", "nmiw", forced=False)
    assert given["prepared"] == "results/one/prepare/sections.tsv"
    if prealigned:
        assert given["plane_labels"] == ["raw/one/b.png"] * 3 and "mri_labels" not in given
        assert all(isinstance(path, Ancient) for path in given["plane_labels"])
        assert inputs.evaluate(study, "one", own_folders)["plane_labels"] == ["raw/one/b.png"] * 3
    else:
        assert given["mri_labels"] == "labels.nii.gz" and "plane_labels" not in given
        assert inputs.evaluate(study, "one", own_folders)["mri_labels"] == "labels.nii.gz"
    assert not {"prepared", "mri_labels", "plane_labels"} & set(
        inputs.train(study, "one", "sbr", forced=False)
    )
    # the manifest of a simulated brain stands for its labels
    manifest = ["results/one-simulated/data/sections.tsv"]
    simulated = inputs.train(study, "one-simulated", "nmiw", forced=False)
    assert simulated["plane_labels"] == manifest


def test_simulated_pairs_are_made_once(add_brain, study_of):
    study = study_of(add_brain("one"))
    given = inputs.simulate_pairs(study, "one", forced=False)
    stages = {"prepared": "prepare", "planes": "resample", "sections": "align_sections"}
    tables = {name: f"results/one/{stage}/sections.tsv" for name, stage in stages.items()}
    assert given == FIT | tables and ancient_ones(given) == set()
    made = ("sections.tsv", "landmarks.tsv", "truth.json")
    make(*(f"results/one-simulated/data/{name}" for name in made))
    assert ancient_ones(inputs.simulate_pairs(study, "one", forced=False)) == set(tables)
    assert ancient_ones(inputs.simulate_pairs(study, "one", forced=True)) == set()


def test_tables_of_accuracy_take_what_truth_there_is(add_brain, study_of):
    make("marks.tsv")
    Path("marks.tsv").write_text(
        "section\tx_section_mm\ty_section_mm\tmri_x_mm\tmri_y_mm\tmri_z_mm\na\t1\t2\t3\t4\t5\n"
    )
    study = study_of(add_brain("one", landmarks="marks.tsv"), add_brain("two", prealigned=True))
    given = inputs.evaluate(study, "one", own_folders)
    assert given["landmarks"] == "marks.tsv" and {"similarity", "mri"} <= set(given)
    assert given["tables"] == [f"results/one/{m}/sections.tsv" for m in ("linear", "sbr")]
    assert set(inputs.evaluate(study, "two", own_folders)) == {"tables", "volumes", "trust"}
    compared = inputs.evaluate(study, "one", compared_folders)
    assert "trust" not in compared, "a comparison is of measured accuracy alone"


def test_trust_compares_the_methods_and_reads_the_doctor(add_brain, study_of):
    study = study_of(add_brain("one"))
    given = inputs.trust(study, "one")
    assert given["tables"] == [f"results/one/{m}/sections.tsv" for m in ("linear", "sbr")]
    assert given["findings"] == "results/one/doctor/findings.tsv"
    assert "findings" not in inputs.trust(study, "one-simulated"), "nobody examined made-up pairs"
    tables = [f"results/one/{m}/trust/sections.tsv" for m in ("linear", "sbr")]
    assert inputs.report(study, "one")["trust"] == tables


def test_a_comparison_takes_losses_of_its_own_trainings(add_brain, study_of):
    study = study_of(add_brain("one"), compare={"methods": ["syn_mi", "nmi", "sbr"]})
    given = inputs.compare(study, "one")
    assert given["losses"] == [f"results/one/compare/{m}/loss.tsv" for m in ("nmi", "sbr")]
    assert given["registrar"] == "results/one/registrar/loss.tsv"
    assert given["tables"][:2] == [f"results/one/{m}/sections.tsv" for m in ("linear", "syn_mi")]
    assert given["similarity"] == FIT["similarity"]
    assert inputs.training_plan(study, "one", "sbr") == "results/one/plan/train_sbr.json"
    plan = inputs.training_plan(study, "one", "compare/sbr")
    assert plan == "results/one/plan/train_sbr.compare.json"


def test_a_report_shows_what_a_brain_has(add_brain, study_of):
    study = study_of(add_brain("one"), add_brain("two", weights_from="one"))
    every = {"tables", "volumes", "trust", "fit", "checked", "findings", "contact_sheet", "losses"}
    assert set(inputs.report(study, "one")) == every
    assert set(inputs.report(study, "two")) == every - {"losses"}
    simulated = inputs.report(study, "one-simulated")
    assert set(simulated) == {"tables", "volumes", "trust", "losses"}
    assert len(simulated["tables"]) == 3  # with the reference


def test_a_report_reads_what_labels_are_called_and_a_sheet_refuses_what_says_nothing(
    add_brain, study_of
):
    row = add_brain("one", label_names="raw/one/names.tsv")
    Path("raw/one/names.tsv").write_text("index\tname\n2\tcortex\n")
    study = study_of(row)
    assert inputs.report(study, "one")["label_names"] == "raw/one/names.tsv"
    assert inputs.report(study, "one-simulated")["label_names"] == "raw/one/names.tsv"
    Path("raw/one/names.tsv").write_text("colour\nred\n")
    with pytest.raises(ManifestError, match=r"names.tsv: expected a colour table"):
        study_of(row)


def test_only_a_brain_without_results_waits_for_its_check(add_brain, study_of):
    row = add_brain("one")

    def passed():
        return inputs.passed(study_of(row), "one")

    (mark,) = passed()
    assert not isinstance(mark, Ancient)
    study = study_of(row)
    assert inputs.not_passed(study) == ["one"] and not inputs.passed(study, "one-simulated")
    make(study.receipts("one", "prepare")[0])
    assert passed() == [], "it was begun before there was a check"
    Path(study.receipts("one", "prepare")[0]).unlink()
    assert len(passed()) == 1
    make(study.path("one", "prepare", "sections", "s01.json"))
    assert passed() == [], "and so is one whose chunks are all being made anew"
    make(mark)
    assert [type(path) for path in passed()] == [Ancient]
    assert inputs.not_passed(study) == []


@pytest.mark.parametrize(
    ("keys", "followed"),
    [
        ({"methods": ["linear", "mind", "sbr", "coherent"]}, "sbr"),
        ({"methods": ["mind", "syn_mi", "coherent", "sbr"]}, "mind"),
        ({"methods": ["coherent"]}, "linear"),
        ({"methods": ["mind", "sbr", "coherent"], "coherent": {"of": "mind"}}, "mind"),
    ],
)
def test_neighbours_are_made_to_agree_after_another_method(add_brain, study_of, keys, followed):
    study = study_of(add_brain("one"), **keys)
    table = f"results/one/{followed}/sections.tsv"
    assert inputs.cohere(study, "one")["sections"] == table
    assert inputs.infer(study, "one", "coherent") == {
        "followed": table,
        "changes": "results/one/coherent/along/changes.tsv",
    }
