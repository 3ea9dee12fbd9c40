"""Methods, folders and files of the brains of a study."""

from __future__ import annotations

import pytest

from sbr_core.errors import SbrError
from sbr_core.planning.study import (
    compared_folders,
    is_compared,
    method_of,
    methods_of,
    own_folders,
    study_or_exit,
)


@pytest.fixture
def chain(add_brain, study_of):
    """Brain a trains, b trains on from it, c uses what b made, d trains on from that."""
    return study_of(
        add_brain("a"),
        add_brain("b", weights_from="a", weights_use="finetune"),
        add_brain("c", weights_from="b"),
        add_brain("d", weights_from="c", weights_use="finetune"),
    )


def test_a_folder_names_its_method_and_whether_it_is_of_a_comparison():
    assert (method_of("sbr"), is_compared("sbr")) == ("sbr", False)
    assert (method_of("compare/sbr"), is_compared("compare/sbr")) == ("sbr", True)


def test_networks_go_on_with_the_registrar_that_they_were_trained_through(chain):
    assert [chain.weights_donor(brain, "sbr") for brain in "abcd"] == ["a", "b", "b", "d"]
    assert [chain.weights_start(brain, "sbr") for brain in "abcd"] == [None, "a", None, "b"]
    assert {chain.registrar_of(brain, "sbr") for brain in "abcd"} == {"a"}
    # in a comparison every brain has its own, trained from nothing
    for brain in "abcd":
        assert chain.registrar_of(brain, "compare/sbr") == brain
        assert chain.weights_donor(brain, "compare/sbr") == brain
        assert chain.weights_start(brain, "compare/sbr") is None


def test_a_brain_trains_only_what_it_does_not_have_from_another(chain):
    assert [chain.trainings(b) for b in "abcd"] == [["registrar", "sbr"], ["sbr"], [], ["sbr"]]
    assert chain.trainings("c-simulated") == ["registrar", "sbr"]


def test_no_shared_registrar_is_trained_where_no_method_takes_it(add_brain, study_of):
    own = {"methods": ["nmi", "syn_mi"], "train_nmi": {"registrar_start": "nothing"}}
    row = add_brain("one")
    assert study_of(row, **own).trainings("one") == ["nmi"]
    own["train_nmi"] = {"registrar_start": "shared"}
    assert study_of(row, **own).trainings("one") == ["registrar", "nmi"]


def test_linear_is_always_run_and_simulated_pairs_are_given_to_the_reference(add_brain, study_of):
    study = study_of(add_brain("one"), methods=["sbr"])
    assert methods_of(study, "one") == ("linear", "sbr")
    assert methods_of(study, "one-simulated") == ("linear", "sbr", "syn_mi")
    assert own_folders(study, "one") == {"linear": "linear", "sbr": "sbr"}


def test_a_method_that_needs_labels_is_left_out_where_there_are_none(add_brain, study_of, caplog):
    caplog.set_level("INFO", "sbr_core")
    columns = {"labels": ["a.png", "", ""], "mri_labels": ["a.png", "", ""]}
    labelled = add_brain("one", columns=columns, prealigned=True)
    study = study_of(labelled, add_brain("two", weights_from="one"), methods=["nmiw"])
    assert "nmiw" in methods_of(study, "one-simulated")
    assert "nmiw" in compared_folders(study, "one")
    assert caplog.messages == []
    assert "nmiw" in methods_of(study, "two")  # with the networks of the other
    for _ in range(2):  # logged once
        assert "nmiw" not in methods_of(study, "two-simulated")
        assert "nmiw" not in compared_folders(study, "two")
    assert caplog.messages == [
        "simulate: two-simulated: without nmiw, which needs labels to train with",
        "compare: two: without nmiw, which needs labels to train with",
    ]


def test_a_comparison_shares_what_is_not_trained(add_brain, study_of):
    study = study_of(add_brain("one"), compare={"methods": ["syn_mi", "sbr"]})
    folders = {"linear": "linear", "syn_mi": "syn_mi", "sbr": "compare/sbr"}
    assert compared_folders(study, "one") == folders


def test_every_result_whose_loss_counts_is_listed(add_brain, study_of):
    study = study_of(add_brain("one", "ab"), add_brain("two", "ab", prealigned=True))
    assert study.results("one") == [
        *(f"results/one/{stage}/chunks/1of1.tsv" for stage in ("prepare", "resample")),
        *(f"results/one/{table}/chunks/1of1.tsv" for table in ("align_sections", "linear", "sbr")),
        "results/one/prepare/mri.json",
        "results/one/align/from-stack_to-mri_mode-image_xfm.txt",
        "results/one/align/plane_grid.json",
        "results/one/align/sections_initial.tsv",
        "results/one/registrar/weights.safetensors",
        "results/one/sbr/weights.safetensors",
        "results/one/linear/volume/one_space-mri_histology.nii.gz",
        "results/one/sbr/volume/one_space-mri_histology.nii.gz",
        *(f"results/one/{method}/trust/sections.tsv" for method in ("linear", "sbr")),
    ]
    assert not [path for path in study.results("two") if "align/" in path]
    assert study.volumes("two", "compare/sbr") == [
        "results/two/compare/sbr/volume/two_space-stack_histology.nii.gz"
    ]
    assert study.checkpoints("two", "compare/sbr") == "results/.checkpoints/two/compare/sbr"


def test_every_stain_group_has_its_volumes(add_brain, study_of):
    row = add_brain("one", columns={"stain_group": ["nissl", "CB", "nissl"]})
    study = study_of(row, reassemble={"colour": True})
    volume = "results/one/{}/volume/one_space-mri_stain-{}_{}.nii.gz"
    assert study.volumes("one", "sbr") == [
        volume.format("sbr", group, "histology") for group in ("CB", "nissl")
    ]
    wanted = [(m, g) for m in ("linear", "sbr") for g in ("CB", "nissl")]
    assert {volume.format(m, g, "histology") for m, g in wanted} < set(study.results("one"))
    assert study.colour_volumes("one") == [
        volume.format("sbr", group, "colour") for group in ("CB", "nissl")
    ]
    assert study.stain_pattern == "(|_stain-CB|_stain-nissl)"  # nothing of the simulated brain


def test_a_fault_of_the_users_is_one_line_and_exit_2(add_brain, study_of, tmp_path, capsys):
    with pytest.raises(SbrError, match="unknown key 'chunksize'"):
        study_of(add_brain("one"), chunksize=3)
    with pytest.raises(SystemExit) as caught:
        study_or_exit({"chunksize": 3}, tmp_path / "presets")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "sbr workflow: config: unknown key 'chunksize'\n"
