"""What is put right before a run, and the account of what failed after it.

Receipts whose files are gone, a lock that a killed run left behind, checkpoints of a training that
is to start anew.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from sbr_core.errors import SbrError
from sbr_core.io.tables import read_tsv
from sbr_core.planning.study import METHOD_FOLDERS, SECTION_STAGES, Study, is_compared

logger = logging.getLogger(__name__)

LOCKS = Path(".snakemake/locks")
"""Where Snakemake keeps its lock of the working directory."""
RUNNING = Path(".snakemake/sbr_running.json")
"""Which process holds that lock: there from the start of a run to its end, unless it is killed."""


def log_faults(study: Study) -> None:
    """Log which brains of the sheet are left out, and why."""
    for brain, why in study.faults.items():
        logger.warning(f"brain '{brain}' is left out: {why}")


# --------------------------------------------------------------------------------------------
# Before a run
# --------------------------------------------------------------------------------------------


def tidy_up(study: Study) -> None:
    """Remove what a killed run or a lost file left wrong; nothing of a run that goes on."""
    remove_lock_of_killed_run()
    # a run that holds the lock is writing these files just now
    if not any(LOCKS.glob("*")):
        remove_receipts_of_missing_files(study)


def remove_receipts_of_missing_files(study: Study) -> None:
    """Remove each receipt that lists a file which is gone, so that its chunk is planned.

    The command then makes only what is missing.
    """

    @cache  # a folder is listed once, which stays fast for thousands of files
    def names_in(folder: Path) -> frozenset[str]:
        return frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()

    for brain in study.brains:
        for stage in (*SECTION_STAGES, *METHOD_FOLDERS):
            for receipt in map(Path, study.receipts(brain, stage)):
                if not receipt.is_file():
                    continue
                missing = first_missing_file(receipt, names_in)
                if missing is not None:
                    logger.warning(f"{missing}: missing; its chunk will be restored")
                    receipt.unlink()


def first_missing_file(receipt: Path, names_in: Callable[[Path], Collection[str]]) -> Path | None:
    """The first file a receipt lists that is not there, or the receipt itself if damaged.

    `names_in` gives the names of the files in a folder.
    """
    folder = receipt.parents[1]
    try:
        for row in read_tsv(receipt)[1]:
            for name in json.loads(row.get("files") or "{}"):
                path = folder / name
                if path.name not in names_in(path.parent):
                    return path
    except (SbrError, ValueError):
        return receipt
    return None


def remove_checkpoints_of_forced_trainings(
    study: Study, targets: Iterable[str], is_forced: Callable[[str], bool]
) -> None:
    """A forced training starts anew; an interrupted one goes on from its last checkpoint.

    Those of a comparison only count as forced when a comparison is what is asked for.

    Parameters
    ----------
    targets : rules and files that are asked for.
    is_forced : whether the jobs of a rule are to run whatever is there.
    """
    asked = {part for target in targets for part in Path(target).parts}
    folders = [f for f in METHOD_FOLDERS if "compare" in asked or not is_compared(f)]
    for rule, networks in (("train_registrar", ["registrar"]), ("train", folders)):
        if is_forced(rule):
            for brain in study.brains:
                for network in networks:
                    shutil.rmtree(study.checkpoints(brain, network), ignore_errors=True)


# --------------------------------------------------------------------------------------------
# Who holds the lock
# --------------------------------------------------------------------------------------------


def started_at(pid: int) -> float | None:
    """When a process began, s since 1970; None if it is no more."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def note_running() -> None:
    """Write down that this process holds the lock."""
    facts = {"host": platform.node(), "pid": os.getpid(), "started": started_at(os.getpid())}
    RUNNING.write_text(json.dumps(facts))


def forget_running() -> None:
    """Remove that note: the run ended by itself, and Snakemake takes its lock away."""
    RUNNING.unlink(missing_ok=True)


def remove_lock_of_killed_run() -> None:
    """Remove the lock of a run that was killed on this machine, so that the same command goes on.

    A lock of a living process, or of another machine, stays, and Snakemake explains it.
    """
    try:
        facts = json.loads(RUNNING.read_text())
        gone = facts["host"] == platform.node() and started_at(facts["pid"]) != facts["started"]
    except (OSError, ValueError, KeyError):
        return
    if not gone:
        return
    forget_running()
    locks = list(LOCKS.glob("*"))
    for lock in locks:
        lock.unlink(missing_ok=True)
    if locks:
        logger.warning(f"process {facts['pid']} held the lock and was killed: lock removed")


# --------------------------------------------------------------------------------------------
# After a run
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FailedJob:
    """A job that failed: its brain (none: ""), its rule, and its logs."""

    brain: str
    rule: str
    logs: Sequence[str]


def log_failures(study: Study, failed: Iterable[FailedJob], command: Sequence[str]) -> None:
    """Log `account_of_failures`, if a job failed."""
    if account := account_of_failures(study, failed, command):
        logger.error(account)


def account_of_failures(study: Study, failed: Iterable[FailedJob], command: Sequence[str]) -> str:
    """Which brains did not get through, why, and the commands to go on with; "" if none failed.

    `command` are the words with which this run was started.
    """
    failed_of: dict[str, list[FailedJob]] = {}
    for job in failed:
        failed_of.setdefault(job.brain, []).append(job)
    if not failed_of:
        return ""
    of_sheet = study.of_sheet
    n_brains = len(of_sheet) + len(study.faults)
    lines = [f"{len(failed_of)} of {n_brains} brains did not get through:"]
    for brain, jobs in sorted(failed_of.items()):
        lines += [f"  {brain or 'all'}: {job.rule}: {why_failed(job)}" for job in jobs]
        if brain in of_sheet:
            page = study.path(brain, "report", "index.html")
            lines += [f"    this brain alone: snakemake --cores all {shlex.quote(page)}"]
    again = shlex.join(command)
    lines += [f"  What is finished is kept. Put it right, and the same command goes on: {again}"]
    return "\n".join(lines)


def why_failed(job: FailedJob) -> str:
    """The line in which a job's log names the fault, and where more is."""
    for log in job.logs:
        try:
            text = Path(log).read_text(errors="replace")
        except OSError:
            continue
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        faults = [line for line in lines if line.startswith("sbr ")] or lines[1:]
        if faults:
            return f"{faults[-1]} ({log})"
    return "it said nothing; a cluster's own log may"
