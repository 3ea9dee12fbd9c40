"""Receipts of lost files, checkpoints of forced trainings, locks of killed runs, failures told."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest

from sbr_core.io.tables import write_tsv
from sbr_core.planning import upkeep
from sbr_core.planning.upkeep import FailedJob


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
        write_tsv(path, [{"section": section, "files": {name: "digest"}}])
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


@pytest.mark.parametrize("text", ["", "section\tfiles\na\t{\n"])
def test_a_damaged_receipt_is_removed(study, receipts, text):
    receipts[0].write_text(text)
    upkeep.remove_receipts_of_missing_files(study)
    assert [path.is_file() for path in receipts] == [False, True]


def test_nothing_is_tidied_while_another_run_goes_on(study, receipts):
    Path("results/one/prepare/sections/a_image.nii.gz").unlink()
    upkeep.LOCKS.mkdir(parents=True)
    (upkeep.LOCKS / "0.output.lock").touch()
    upkeep.tidy_up(study)
    assert receipts[0].is_file()
    (upkeep.LOCKS / "0.output.lock").unlink()
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


@pytest.fixture
def lock(tmp_path, monkeypatch) -> Path:
    """Snakemake's lock of the folder."""
    monkeypatch.chdir(tmp_path)
    upkeep.LOCKS.mkdir(parents=True)
    lock = upkeep.LOCKS / "0.input.lock"
    lock.touch()
    return lock


def test_the_lock_of_a_killed_run_is_removed(lock, caplog):
    facts = {"host": platform.node(), "pid": os.getpid(), "started": 0.0}
    upkeep.RUNNING.write_text(json.dumps(facts))  # another process had this number
    upkeep.remove_lock_of_killed_run()
    assert not lock.exists() and not upkeep.RUNNING.exists()
    assert caplog.messages == [f"process {os.getpid()} held the lock and was killed: lock removed"]


def test_the_lock_of_a_living_or_unknown_run_stays(lock, caplog):
    upkeep.remove_lock_of_killed_run()
    upkeep.note_running()
    upkeep.remove_lock_of_killed_run()
    facts = json.loads(upkeep.RUNNING.read_text()) | {"host": "another", "started": 0.0}
    upkeep.RUNNING.write_text(json.dumps(facts))
    upkeep.remove_lock_of_killed_run()
    assert lock.exists() and upkeep.RUNNING.exists() and caplog.messages == []
    upkeep.forget_running()
    assert not upkeep.RUNNING.exists()
    upkeep.forget_running()  # also where there is none


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
