"""Receipts of lost files, what was asked otherwise, forced trainings, failures told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sbr_core.artifacts.rows import Row, write_rows
from sbr_core.io.files import write_text
from sbr_core.io.sums import write_summed_json
from sbr_core.io.tables import write_tsv
from sbr_core.planning import upkeep
from sbr_core.planning.lock import LOCKS
from sbr_core.planning.parameters import chunk_json
from sbr_core.planning.plan import plan_text
from sbr_core.planning.upkeep import FailedJob
from sbr_core.revisions import REVISION


@pytest.fixture
def study(add_brain, study_of):
    """Two brains, of which one cannot be used."""
    faulty = add_brain("two")
    Path(faulty["mri"]).unlink()
    return study_of(add_brain("one", "abcd"), faulty)


@pytest.fixture
def receipts(study) -> list[Path]:
    """Receipts of `prepare` whose files are there."""
    paths = [Path(path) for path in study.receipts("one", "prepare")]
    for path, section in zip(paths, "ab", strict=True):
        name = f"sections/{section}_image.nii.gz"
        (path.parents[1] / "sections").mkdir(parents=True, exist_ok=True)
        (path.parents[1] / name).touch()
        write_tsv(path, [{"section": section, "status": "ok", "files": {name: "digest"}}])
    return paths


def test_a_receipt_is_removed_when_a_file_it_lists_is_gone(study, receipts, caplog):
    upkeep.remove_receipts_of_missing_files(study)
    assert [path.is_file() for path in receipts] == [True, True] and caplog.messages == []
    Path("results/one/prepare/sections/b_image.nii.gz").unlink()
    upkeep.remove_receipts_of_missing_files(study)
    assert [path.is_file() for path in receipts] == [True, False]
    assert caplog.messages == [
        "results/one/prepare/sections/b_image.nii.gz: missing; its chunk will be restored"
    ]


@pytest.mark.parametrize(
    ("table", "ending"),
    [
        ("results/one/sbr/trust/sections.tsv", "_error.nii.gz"),
        ("results/one/coherent/along/changes.tsv", "_change.nii.gz"),
    ],
)
def test_what_a_method_has_of_all_sections_is_made_again_when_a_file_is_gone(
    study, caplog, table, ending
):
    table = Path(table)
    (table.parent / "sections").mkdir(parents=True)
    files = {section: f"sections/{section}{ending}" for section in "ab"}
    for file in files.values():
        (table.parent / file).touch()
    write_rows(table, [Row(section=s, files={file: ""}) for s, file in files.items()])
    upkeep.remove_receipts_of_missing_files(study)
    assert table.is_file()
    (table.parent / files["b"]).unlink()
    upkeep.remove_receipts_of_missing_files(study)
    assert not table.is_file()
    assert f"b{ending}: missing" in caplog.text


def test_a_lost_table_of_a_method_s_sections_is_missed(add_brain, study_of):
    asked = study_of(add_brain("one"), methods=["sbr", "coherent"]).results("one")
    tables = {path for path in asked if path.endswith(("trust/sections.tsv", "changes.tsv"))}
    own = {f"results/one/{m}/trust/sections.tsv" for m in ("linear", "sbr", "coherent")}
    assert tables == own | {"results/one/coherent/along/changes.tsv"}


@pytest.mark.parametrize(
    "text",
    ["", "section\tstatus\tfiles\na\tok\t{\n"]
    + [f"section\tstatus\tfiles\na\tok\t{cell}\n" for cell in ("5", "[]", "[" * 9999, "[1]")],
)
def test_a_damaged_receipt_is_removed(study, receipts, text):
    receipts[0].write_text(text)
    upkeep.remove_receipts_of_missing_files(study)
    assert [path.is_file() for path in receipts] == [False, True]


def test_nothing_is_tidied_while_another_run_goes_on(study, receipts):
    Path("results/one/prepare/sections/a_image.nii.gz").unlink()
    LOCKS.mkdir(parents=True)
    (LOCKS / "0.output.lock").touch()
    upkeep.tidy_up(study)
    assert receipts[0].is_file()
    (LOCKS / "0.output.lock").unlink()
    upkeep.tidy_up(study)
    assert not receipts[0].is_file()


@pytest.mark.parametrize(
    ("forced", "targets", "kept"),
    [
        ((), ["compare"], {"registrar", "sbr", "compare/sbr"}),
        (("train",), ["all"], {"registrar", "compare/sbr"}),
        (("train",), ["results/one/compare/index.html"], {"registrar"}),
        (("train_registrar",), ["all"], {"sbr", "compare/sbr"}),
        (("train", "train_registrar"), ["compare"], set()),
    ],
)
def test_forced_trainings_lose_their_checkpoints(study, forced, targets, kept):
    folders = {n: Path(study.checkpoints("one", n)) for n in ("registrar", "sbr", "compare/sbr")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    upkeep.remove_checkpoints_of_forced_trainings(study, targets, lambda rule: rule in forced)
    assert {name for name, folder in folders.items() if folder.is_dir()} == kept


def as_asked(study, brain="one") -> list[Path]:
    """Files that state what was asked for, as a finished run leaves them."""
    plans = [Path(study.path(brain, "plan", f"{name}.json")) for name in ("align", "collect")]
    for plan in plans:
        write_text(plan, plan_text(study, brain, plan.stem) + "\n")
    options = study.config.prepare.model_dump(mode="json")
    receipts = [Path(path) for path in study.receipts(brain, "prepare")]
    for receipt in receipts:
        asked = {"options": options, "revision": REVISION["prepare"]}
        row = {"section": receipt.stem, "status": "ok"}
        write_tsv(receipt, [row], facts={"asked": asked, "sections": [receipt.stem]})
        write_text(receipt.with_suffix(".rows.json"), chunk_json(study, brain, receipt.stem) + "\n")
    facts = Path(study.path(brain, "prepare", "mri.json"))
    write_summed_json(facts, {"options": options, "revision": REVISION["prepare_mri"]})
    return [*plans, *receipts, facts]


def test_what_is_as_asked_for_stays(add_brain, study_of):
    study = study_of(add_brain("one", "abcd"))
    files = as_asked(study)
    for name in ("resample.9of9", "train_", "train_x.compare", "no.such", "_", "9"):
        write_text(Path(f"results/one/plan/{name}.json"), "of a chunk or a stage that is no more")
    upkeep.tidy_up(study)
    assert all(path.is_file() for path in files)
    for receipt in files[2:4]:  # as results of before have no records
        (receipt.parent / ".sums" / f"{receipt.name}.json").unlink()
    Path("results/one/prepare/mri.json").write_text('{"options": {"older": 1}, "revision": 2}')
    upkeep.tidy_up(study)
    assert all(path.is_file() for path in files[:4])


@pytest.mark.parametrize(
    ("changed", "outdated"),
    [
        ({"align": {"rounds": 9}}, ["align.json"]),
        (
            {"prepare": {"working_pixel_mm": 0.7}},
            ["align.json", "1of2.tsv", "2of2.tsv", "mri.json"],
        ),
    ],
)
def test_results_of_another_configuration_are_not_taken_for_finished(
    add_brain, study_of, changed, outdated
):
    """As of a folder that was copied without Snakemake's memory of it."""
    row = add_brain("one", "abcd")
    files = as_asked(study_of(row))
    before = {path: path.read_text() for path in files}
    study = study_of(row, **changed)
    upkeep.tidy_up(study, dry_run=True)
    assert {path: path.read_text() for path in files} == before, "a dry run changed results"
    upkeep.tidy_up(study)
    others = [p for p in files if not p.is_file() or p.read_text() != before[p]]
    assert [path.name for path in others] == outdated
    # plans stay, newer: Snakemake starts nothing for one that is missing
    assert [path.name for path in files if not path.is_file()] == outdated[1:]
    assert files[0].read_text() == plan_text(study, "one", "align") + "\n"


def test_an_option_that_another_version_knew_outdates_no_plan(add_brain, study_of):
    study = study_of(add_brain("one", "abcd"))
    plan = as_asked(study)[0]
    stated = json.loads(plan.read_text())
    del stated["align"]["options"]["rounds"]
    stated["align"]["options"]["of_before"] = 1
    plan.write_text(json.dumps(stated))
    upkeep.tidy_up(study)
    assert json.loads(plan.read_text()) == stated
    stated["align"]["revision"] = 0
    plan.write_text(json.dumps(stated))
    upkeep.tidy_up(study)
    assert plan.read_text() == plan_text(study, "one", "align") + "\n"


def test_rows_that_were_edited_without_snakemake_s_memory_are_prepared_again(add_brain, study_of):
    row = add_brain("one", "abcd")
    files = as_asked(study_of(row))
    manifest = Path(row["sections"])
    manifest.write_text(manifest.read_text().replace("0.5", "0.25", 1))
    upkeep.tidy_up(study_of(row))
    assert sum(not path.is_file() for path in files) == 1


@pytest.mark.parametrize("text", ["5", "[]", "{", '{"options": 5}', "[" * 9999, '{"revision": 1}'])
def test_damaged_facts_of_the_mri_stop_no_planning(add_brain, study_of, text):
    study = study_of(add_brain("one", "abcd"))
    facts = as_asked(study)[-1]
    facts.write_text(text)
    upkeep.tidy_up(study)
    assert facts.is_file()


def test_a_collected_table_that_was_changed_is_collected_again(study, receipts):
    table = Path(study.table("one", "prepare"))
    write_tsv(table, [{"section": "a", "status": "ok", "position_mm": 1.5}], facts={})
    upkeep.tidy_up(study)
    assert table.is_file()
    table.write_text(table.read_text().replace("1.5", "1.7"))
    upkeep.tidy_up(study)
    assert not table.exists()


def test_failures_are_told_by_brain_with_commands_to_go_on(study):
    Path("fault.log").write_text("a library warns\nsbr train: loss: not finite\nlast words\n")
    Path("other.log").write_text("Traceback\nValueError: x\n")
    failed = [
        FailedJob("one", "train", ["fault.log"]),
        FailedJob("two", "refuse", ["gone.log"]),
        FailedJob("one", "infer", ["gone.log", "other.log"]),
    ]
    command = ["snakemake", "--cores", "all", "a b"]
    assert upkeep.account_of_failures(study, failed, command).splitlines() == [
        "2 of 2 brains did not get through:",
        "  one: train: sbr train: loss: not finite (fault.log)",
        "  one: infer: ValueError: x (other.log)",
        "    this brain alone: snakemake --cores all results/one/report/index.html",
        "  two: refuse: it said nothing; a cluster's own log may",
        "  What is finished is kept. Put it right, and the same command goes on: "
        "snakemake --cores all 'a b'",
    ]
    assert upkeep.account_of_failures(study, [], command) == ""
    no_brain = upkeep.account_of_failures(study, [FailedJob("", "demo", [])], command)
    assert "  all: demo: it said nothing; a cluster's own log may\n" in no_brain
    assert "this brain alone" not in no_brain


def test_what_is_left_out_is_logged(study, caplog):
    upkeep.log_faults(study)
    (line,) = caplog.messages
    assert line.startswith("brain 'two' is left out: config/brains.tsv: brain 'two': mri: ")


@pytest.mark.parametrize(
    ("name", "is_of_the_page"),
    [("evaluation/summary.json", True), ("align/quality.json", False), ("sbr/loss.json", False)],
)
def test_what_was_written_and_is_gone_is_noticed(study, caplog, name, is_of_the_page):
    """As a run leaves it that is killed while it makes a table again; Snakemake misses it not."""
    page = Path("results/one/report/index.html")
    write_text(page, "")
    file = Path("results/one") / name
    write_summed_json(file, 3)
    upkeep.tidy_up(study)
    assert caplog.messages == [] and page.is_file()
    file.unlink()
    upkeep.tidy_up(study, dry_run=True)
    assert page.is_file()
    upkeep.tidy_up(study)
    assert (
        caplog.messages[-1] == f"{file}: was written and is missing; made anew where it is needed"
    )
    assert page.is_file() != is_of_the_page


@pytest.mark.parametrize("name", ["__class__.json", "nothing.json", "model_dump.json"])
def test_plans_of_nothing_that_can_be_planned_are_left_alone(study, name):
    plan = Path("results/one/plan") / name
    write_text(plan, "{}")
    (plan.parent / "align.json").mkdir()  # a folder where a plan should be
    upkeep.outdate_what_was_asked_otherwise(study, "one")
    assert plan.read_text() == "{}" and (plan.parent / "align.json").is_dir()


@pytest.mark.parametrize("name", ["one/benchmarks/prepare/1of1.tsv", "one/logs/x.log", "logs/demo"])
def test_a_run_writes_into_no_file_that_has_another_name(study, tmp_path, name):
    kept, other = Path("results") / name, tmp_path / "copy"
    write_text(kept, "before")
    upkeep.tidy_up(study)
    os.link(kept, other)
    upkeep.tidy_up(study)
    assert kept.read_text() == "before"
    with kept.open("a") as stream:
        stream.write(", after")
    assert other.read_text() == "before"
