"""Whose lock it is: of a living process, of a killed one, or not to be known from here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sbr_core.planning import lock

HOLD = """\
import time
from sbr_core.planning import lock
lock.note_running()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def snakemakes(tmp_path, monkeypatch) -> Path:
    """Snakemake's lock of the folder."""
    monkeypatch.chdir(tmp_path)
    lock.LOCKS.mkdir(parents=True)
    path = lock.LOCKS / "0.input.lock"
    path.touch()
    return path


@pytest.fixture
def other(snakemakes):
    """Another process that holds the lock."""
    run = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "held\n"
    yield run
    run.kill()
    run.wait()


def test_the_lock_of_a_killed_run_is_removed(snakemakes, other, caplog):
    other.kill()
    other.wait()
    lock.remove_lock_of_killed_run()
    assert not snakemakes.exists() and not lock.RUNNING.exists()
    assert caplog.messages == [f"process {other.pid} held the lock and was killed: lock removed"]


@pytest.mark.parametrize("note", [{}, {"pid": 1, "started": 0.0}, {"boot": "of another kernel"}])
def test_the_lock_of_a_living_run_stays_whatever_clock_or_number_say(
    snakemakes, other, caplog, note
):
    """Its clock may have been set, its number be of another namespace."""
    lock.RUNNING.write_text(json.dumps(json.loads(lock.RUNNING.read_text()) | note))
    lock.remove_lock_of_killed_run()
    assert snakemakes.exists() and lock.RUNNING.exists() and caplog.messages == []


@pytest.mark.parametrize(
    "note", ["{}", "5", "[" * 9999, '{"pid": 1}', '{"pid": 1, "boot": "another"}', ""]
)
def test_a_lock_of_which_nothing_is_known_is_left_alone_and_told(
    snakemakes, caplog, monkeypatch, note
):
    monkeypatch.setattr(lock, "_one_kernel_knows", lambda path: False)  # as of NFS
    lock.RUNNING.write_text(note)
    lock.remove_lock_of_killed_run()
    assert snakemakes.exists() and "snakemake --unlock" in caplog.messages[0]


def test_a_machine_that_was_started_anew_knows_its_own_disk(snakemakes, monkeypatch):
    monkeypatch.setattr(lock, "_one_kernel_knows", lambda path: True)
    lock.RUNNING.write_text('{"pid": 1, "boot": "the one before"}')
    lock.remove_lock_of_killed_run()
    assert not snakemakes.exists()


def test_the_note_of_a_run_that_began_meanwhile_is_left_alone(snakemakes, other, monkeypatch):
    """Between opening the note of a run that ends and locking it."""
    flock = lock.fcntl.flock

    def replaced_first(descriptor, how):
        other.kill()
        other.wait()
        lock.RUNNING.rename("the_old_note")
        lock.RUNNING.write_text("{}")
        flock(descriptor, how)

    monkeypatch.setattr(lock.fcntl, "flock", replaced_first)
    lock.remove_lock_of_killed_run()
    assert snakemakes.exists() and lock.RUNNING.exists()


@pytest.mark.parametrize(
    ("file_systems", "knows"), [(["ext4"], True), (["ext4", "nfs4"], False), (["nfs", "xfs"], True)]
)
def test_of_two_disks_on_one_folder_the_later_counts(tmp_path, monkeypatch, file_systems, knows):
    mounts = [SimpleNamespace(mountpoint=str(tmp_path), fstype=name) for name in file_systems]
    root = SimpleNamespace(mountpoint="/", fstype="nfs")
    monkeypatch.setattr(lock.psutil, "disk_partitions", lambda all: [root, *mounts])
    assert lock._one_kernel_knows(tmp_path / "note") is knows


def test_a_run_that_ends_by_itself_leaves_no_note(snakemakes):
    lock.remove_lock_of_killed_run()  # nothing to do
    lock.note_running()
    assert json.loads(lock.RUNNING.read_text())["pid"] == os.getpid()
    lock.forget_running()
    assert not lock.RUNNING.exists()
    lock.forget_running()
    assert snakemakes.exists()


def test_a_link_in_the_note_s_place_is_not_written_through(snakemakes, tmp_path):
    (tmp_path / "mine").write_text("mine")
    lock.RUNNING.symlink_to(tmp_path / "mine")
    lock.remove_lock_of_killed_run()
    assert snakemakes.exists()
    lock.note_running()
    lock.forget_running()
    assert (tmp_path / "mine").read_text() == "mine"
