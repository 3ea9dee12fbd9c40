"""What the plan of a stage follows, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sbr_core.artifacts.names import SHIPPED_REGISTRAR
from sbr_core.io.files import sha256_file
from sbr_core.planning.plan import plan_text, stages_before
from sbr_core.revisions import REVISION


@pytest.fixture
def study(add_brain, study_of):
    """One brain that trains, and one that trains on from it."""
    tuned = add_brain("two", weights_from="one", weights_use="finetune")
    return study_of(add_brain("one", "abcd"), tuned, compare={"minutes": 3})


def plan_of(study, brain: str, plan: str) -> dict:
    return json.loads(plan_text(study, brain, plan))


@pytest.mark.parametrize("stage", ["doctor", "align_sections", "reassemble", "evaluate", "compare"])
def test_a_plan_is_options_and_revision(study, stage):
    options = json.loads(study.config.section_json(stage))
    assert plan_of(study, "one", stage) == {
        stage: {"options": options, "revision": REVISION[stage]}
    }


def test_a_plan_is_one_line_whose_keys_are_sorted(study):
    assert plan_text(study, "one", "resample.1of2").startswith('{"resample":{"options":{"order":1}')
    assert plan_text(study, "one", "collect") == '{"chunks":["1of2","2of2"]}'


def test_what_ancient_tables_were_made_with_is_followed(study):
    assert stages_before(study, "one", "align") == ("prepare",)
    pairs = ("prepare", "align", "resample", "align_sections")
    for stage in ("train_registrar", "train_sbr"):
        assert stages_before(study, "one", stage) == pairs
        assert stages_before(study, "one-simulated", stage) == (*pairs, "simulate")
    assert stages_before(study, "one-simulated", "simulate") == (
        *("prepare", "resample", "align_sections"),
    )
    assert stages_before(study, "one", "infer") == ()
    plan = plan_of(study, "one", "train_sbr")
    assert set(plan) == {"train_sbr", *pairs}
    assert plan["prepare"]["revision"] == REVISION["prepare"]


def test_a_training_is_planned_with_the_options_that_count_for_it(study):
    assert "steps" in plan_of(study, "one", "train_sbr")["train_sbr"]["options"]
    on = plan_of(study, "two", "train_sbr")
    assert on["start"] == "one" and "steps" not in on["train_sbr"]["options"]
    compared = plan_of(study, "two", "train_sbr.compare")
    assert "start" not in compared and compared["train_sbr"]["options"]["minutes"] == 3


def test_the_global_fit_follows_the_orientation(study):
    assert plan_of(study, "one", "align")["orientation"] == "LIA"


def test_planes_follow_the_rows_of_their_chunk(study):
    rows = [plan_of(study, "one", f"resample.{chunk}")["rows"] for chunk in ("1of2", "2of2")]
    assert sorted(row["section"] for chunk in rows for row in chunk) == list("abcd")


def test_the_registrar_follows_where_it_comes_from(add_brain, study_of):
    row = add_brain("one")
    shipped = plan_of(study_of(row), "one", "train_registrar")
    assert (shipped["source"], shipped["shipped"]) == ("shipped", sha256_file(SHIPPED_REGISTRAR))
    trained = plan_of(study_of(row, registrar="train"), "one", "train_registrar")
    assert trained["source"] == "train" and "shipped" not in trained


def test_inference_follows_whose_networks_it_uses(add_brain, study_of):
    row = add_brain("two", weights_from="one")
    study = study_of(add_brain("one"), row)
    for stage in ("infer", "syn_mi"):
        assert plan_of(study, "two", stage)["networks"] == "one"


def test_simulated_pairs_follow_which_sections_there_are(add_brain, study_of):
    three = study_of(add_brain("one"), add_brain("two"))
    plans = [plan_text(three, f"{name}-simulated", "simulate") for name in ("one", "one", "two")]
    assert plans[0] == plans[1] != plans[2]
    plan = json.loads(plans[0])
    assert set(plan) == {
        *("simulate", "prepare", "resample", "align_sections", "rows", "mri_labels"),
    }


def test_a_report_follows_what_it_shows_beside_its_inputs(study):
    plan = plan_of(study, "one", "report")
    assert (plan["comparison"], plan["simulated"]) == (None, None)
    assert "simulated" not in plan_of(study, "one-simulated", "report")
    for path in ("one/compare/index.html", "one-simulated/evaluation/summary.tsv"):
        Path("results", path).parent.mkdir(parents=True)
        Path("results", path).write_text(path)
    plan = plan_of(study, "one", "report")
    assert plan["comparison"] == sha256_file(Path("results/one/compare/index.html"))
    assert plan["simulated"] not in (None, plan["comparison"])
