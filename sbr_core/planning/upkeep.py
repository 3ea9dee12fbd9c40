"""What is put right before a run, and the account of what failed after it.

Receipts whose files are gone, what another configuration asked for, checkpoints of a training that
is to start anew; for a lock that a killed run left behind see `lock`.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sbr_core.artifacts import names
from sbr_core.artifacts.cells import files_of_cell
from sbr_core.artifacts.rows import read_cells, stage_dir
from sbr_core.errors import ReceiptError, SbrError
from sbr_core.io.files import atomic_path, inside, parse_json, read_json, walk, write_text
from sbr_core.io.sums import lost_from, recorded, remove_summed
from sbr_core.planning.lock import LOCKS, remove_lock_of_killed_run
from sbr_core.planning.parameters import chunk_json, rows_file
from sbr_core.planning.plan import plan_text
from sbr_core.planning.study import METHOD_FOLDERS, REGISTERED, SECTION_STAGES, Study, is_compared
from sbr_core.revisions import REVISION

logger = logging.getLogger(__name__)


def log_faults(study: Study) -> None:
    """Log which brains of the sheet are left out, and why."""
    for brain, why in study.faults.items():
        logger.warning(f"brain '{brain}' is left out: {why}")


# --------------------------------------------------------------------------------------------
# Before a run
# --------------------------------------------------------------------------------------------


def tidy_up(study: Study, *, dry_run: bool = False) -> None:
    """Put right what a killed run or a lost file left wrong; nothing of a run that goes on.

    Parameters
    ----------
    dry_run : only log what was asked otherwise: looking at what other options would do must not
        cost finished results.
    """
    remove_lock_of_killed_run()
    # a run that holds the lock is writing these files just now
    if not any(LOCKS.glob("*")):
        part_hard_links(study)
        remove_receipts_of_missing_files(study)
        for brain in study.brains:
            notice_what_is_gone(study, brain, dry_run=dry_run)
            outdate_what_was_asked_otherwise(study, brain, dry_run=dry_run)


def part_hard_links(study: Study) -> None:
    """Make files of their own of logs and benchmarks that a run would write into.

    Of such a file with a second name, as a copy by `cp -l` has it, the other would change too. What
    the package writes is renamed into place, and what Snakemake knows as an output removed before.
    """
    folders = [study.path(brain) for brain in study.brains] + [study.config.results]
    for folder in folders:
        for kept in ("logs", "benchmarks"):
            for path, _ in walk(Path(folder, kept)):
                if os.stat(path).st_nlink > 1:
                    with atomic_path(Path(path)) as temporary:
                        shutil.copy2(path, temporary)


def remove_receipts_of_missing_files(study: Study) -> None:
    """Remove each receipt that lists a file which is gone, so that its chunk is planned.

    The command then makes only what is missing. So it does with receipts and collected tables that
    are not what was written.
    """

    @cache  # a folder is listed once, which stays fast for thousands of files
    def names_in(folder: Path) -> frozenset[str]:
        return frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()

    for brain in study.brains:
        for method in METHOD_FOLDERS:
            for table, what in (
                (study.path(brain, method, names.TRUST, names.TABLE), "expected errors"),
                (study.changes(brain, method), "corrections of neighbours"),
            ):
                if Path(table).is_file() and (why := fault_of_receipt(Path(table), names_in)):
                    logger.warning(f"{why}; the method's {what} will be estimated again")
                    remove_summed(Path(table))
        in_full = [f"{folder}/{REGISTERED}" for folder in METHOD_FOLDERS]
        for stage in (*SECTION_STAGES, *METHOD_FOLDERS, *in_full):
            for receipt in map(Path, study.receipts(brain, stage)):
                if receipt.is_file() and (why := fault_of_receipt(receipt, names_in)):
                    logger.warning(f"{why}; its chunk will be restored")
                    remove_summed(receipt)
            table = Path(study.table(brain, stage))
            if table.is_file() and (why := _fault_of_table(table)):
                logger.warning(f"{why}; it will be collected again")
                remove_summed(table)


def fault_of_receipt(receipt: Path, names_in: Callable[[Path], Collection[str]]) -> str:
    """What is wrong with a receipt, in words: damage, or the first file it lists that is gone.

    `names_in` gives the names of the files in a folder.
    """
    folder = stage_dir(receipt)
    try:
        for row in read_cells(receipt)[1]:
            for name in files_of_cell(row.get("files", "")):
                path = inside(folder, name)
                if path.name not in names_in(path.parent):
                    return f"{path}: missing"
    except (SbrError, ValueError):
        return f"{receipt}: damaged"
    return ""


def _fault_of_table(table: Path) -> str:
    try:
        read_cells(table)
    except SbrError:
        return f"{table}: damaged"
    return ""


def notice_what_is_gone(study: Study, brain: str, *, dry_run: bool = False) -> None:
    """Log which results of a brain were written and are gone, and have its page made anew.

    Snakemake misses none of them while what follows is there: neither what a user removed nor what
    a killed run had removed to make it again. With the page its tables are made again too.
    """
    for stage in ("prepare", "align", "registrar", "evaluation", *study.config.methods):
        for path in lost_from(Path(study.path(brain, stage))):
            logger.warning(f"{path}: was written and is missing; made anew where it is needed")
            if stage == "evaluation" and not dry_run:
                Path(study.path(brain, "report", "index.html")).unlink(missing_ok=True)


def outdate_what_was_asked_otherwise(study: Study, brain: str, *, dry_run: bool = False) -> None:
    """Let what other options than those asked for now made count as not made.

    Snakemake notices that by itself as long as it remembers the run; results that were copied
    without ``.snakemake``, or a run that another configuration began, it takes for finished.
    Plans are written anew, for a plan that is newer starts what follows, and one that is missing
    nothing. Receipts and facts are results themselves, which are missed when they are removed.
    """
    for plan in sorted(Path(study.path(brain, "plan")).glob("*.json")):
        try:
            asked = plan_text(study, brain, plan.stem)
        except Exception:  # of a chunk or a stage that there is no more, or anything else's name
            continue
        if not plan.is_file():
            continue
        if _states_other(_plan_of(plan), json.loads(asked)):
            logger.info(f"{plan}: something else is asked for now; what follows will be made anew")
            if not dry_run:
                write_text(plan, asked + "\n")
    # these two have no plan, which would be an input that finished brains do not have
    options = study.config.prepare.model_dump(mode="json")
    outdated = []
    for chunk in study.brains[brain].chunks:
        receipt = Path(study.path(brain, "prepare", names.CHUNKS, f"{chunk}.tsv"))
        if receipt.is_file() and (
            _is_other(_asked_of(receipt), options, "prepare")
            or _is_other_text(Path(rows_file(str(receipt))), chunk_json(study, brain, chunk))
        ):
            logger.info(f"{receipt}: was made of other rows or options; it will be made anew")
            outdated.append(receipt)
    facts = Path(study.path(brain, "prepare", names.MRI_FACTS))
    if facts.is_file() and _is_other(_facts_of(facts), options, "prepare_mri"):
        logger.info(f"{facts}: was made with other options; it will be made anew")
        outdated.append(facts)
    if not dry_run:
        for path in outdated:
            remove_summed(path)


def _plan_of(plan: Path) -> Any:
    """What a plan states; None where it is damaged."""
    with suppress(ValueError):
        return parse_json(plan.read_text("utf-8", "replace"))
    return None


def _is_other_text(path: Path, asked: str) -> bool:
    """Whether a file that states what was asked for is there and states something else."""
    return path.is_file() and path.read_text("utf-8", "replace").strip() != asked


def _asked_of(receipt: Path) -> Mapping[str, Any]:
    """Options and revision that a receipt was made with, as far as they were recorded."""
    with suppress(ReceiptError):
        record = recorded(receipt)
        return (record and record.asked) or {}
    return {}


def _facts_of(facts: Path) -> Mapping[str, Any]:
    """What ``mri.json`` states; nothing where it is damaged, which its readers will find."""
    with suppress(ReceiptError):
        return read_json(facts)
    return {}


def _is_other(made_with: Mapping[str, Any], options: Mapping[str, Any], stage: str) -> bool:
    """Whether options or revision are others than those asked for now."""
    if not isinstance(made_with.get("options"), dict):
        return False
    stated = {"options": made_with["options"], "revision": made_with.get("revision")}
    return _states_other(stated, {"options": options, "revision": REVISION[stage]})


def _states_other(before: Any, asked: Any, *, of_options: bool = False) -> bool:
    """Whether something else was asked for before than is asked for now.

    An option that only one of the two knows came, or went, with another version.
    """
    if not (isinstance(before, dict) and isinstance(asked, dict)):
        return before != asked
    if not of_options and before.keys() != asked.keys():
        return True
    return any(
        _states_other(before[key], asked[key], of_options=of_options or key == "options")
        for key in before.keys() & asked.keys()
    )


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


def write_index(study: Study) -> None:
    """Write the page over all brains, which a run that fails does not come to.

    In a process of its own: a fault of the page must not hide that of the run.
    """
    results = study.config.results
    if not Path(results).is_dir():
        return
    names = [*study.of_sheet, *study.faults]
    command = [sys.executable, "-m", "sbr_core", "index", results, "--brains", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        logger.warning(f"the page over all brains was not written: {done.stderr.strip()[-500:]}")


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
            text = Path(log).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        faults = [line for line in lines if line.startswith("sbr ")] or lines[1:]
        if faults:
            return f"{faults[-1]} ({log})"
    return "it said nothing; a cluster's own log may"
