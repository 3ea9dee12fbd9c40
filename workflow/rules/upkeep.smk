# What is put right before a run: receipts whose files are gone, a lock that a killed run left
# behind, checkpoints of a training that is to start anew. Functions only.

import os
import platform
import shlex
import shutil

import psutil
from snakemake.logging import logger

RUNNING = Path(".snakemake/sbr_running.json")
"""Who holds Snakemake's lock: there from the start of a run to its end, unless it is killed."""


def forget_receipts_of_missing_files():
    """Remove each receipt that lists a file which is gone, so that its chunk is planned.

    The command then makes only what is missing. Folders are listed once, which stays fast for
    thousands of files.
    """
    listed = {}

    def is_there(path):
        if path.parent not in listed:
            listed[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
        return path.name in listed[path.parent]

    for brain in BRAINS:
        for stage in (*SECTION_STAGES, *METHOD_FOLDERS):
            for receipt in map(Path, receipts(brain, stage)):
                if not receipt.is_file():
                    continue
                missing = first_missing_file(receipt, is_there)
                if missing is not None:
                    logger.warning(f"{missing}: missing; its chunk will be restored")
                    receipt.unlink()


def first_missing_file(receipt, is_there):
    """The first file a receipt lists that is not there, or the receipt itself if damaged."""
    folder = receipt.parents[1]
    try:
        for row in read_tsv(receipt)[1]:
            for name in json.loads(row.get("files") or "{}"):
                if not is_there(folder / name):
                    return folder / name
    except (SbrError, ValueError):
        return receipt
    return None


def forget_checkpoints_of_forced_trainings():
    """A forced training starts anew; an interrupted one goes on from its last checkpoint.

    Those of a comparison only count as forced when a comparison is what is asked for.
    """
    asked = {part for target in workflow.dag_settings.targets for part in Path(target).parts}
    folders = [f for f in METHOD_FOLDERS if "compare" in asked or not is_compared(f)]
    for training, networks in (("train_registrar", ["registrar"]), ("train", folders)):
        if workflow.dag_settings.forceall or training in workflow.dag_settings.forcerun:
            for brain in BRAINS:
                for network in networks:
                    shutil.rmtree(checkpoint_root(brain, network), ignore_errors=True)


def started_at(pid):
    """When a process began, s since 1970; None if it is no more."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def note_running():
    """Note which process holds the lock."""
    facts = {"host": platform.node(), "pid": os.getpid(), "started": started_at(os.getpid())}
    RUNNING.write_text(json.dumps(facts))


def forget_running():
    """The run ended by itself, and Snakemake takes its lock away."""
    RUNNING.unlink(missing_ok=True)


def tell_failures():
    """Which brains did not get through, why, and the commands to go on with."""
    failed = {}
    for job in workflow.scheduler.failed:
        for single in job if job.is_group() else (job,):
            brain = single.wildcards.get("brain", "")
            failed.setdefault(brain, []).append(single)
    if not failed:
        return
    here = shlex.join(["snakemake", *sys.argv[1:]])
    lines = [f"{len(failed)} of {len(SHEET) + len(FAULTS)} brains did not get through:"]
    for brain, jobs in sorted(failed.items()):
        for job in jobs:
            lines += [f"  {brain or 'all'}: {job.rule.name}: {why_failed(job)}"]
        if brain in SHEET:
            page = of_brain(brain, "report", "index.html")
            lines += [f"    this brain alone: snakemake --cores all {shlex.quote(page)}"]
    lines += [f"  What is finished is kept. Put it right, and the same command goes on: {here}"]
    logger.error("\n".join(lines))


def why_failed(job):
    """The line in which a job's log says what went wrong, and where more is."""
    for log in job.log:
        try:
            text = Path(log).read_text(errors="replace")
        except OSError:
            continue
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("sbr ")] or lines[1:]
        if said:
            return f"{said[-1]} ({log})"
    return "it said nothing; a cluster's own log may"


def forget_lock_of_a_killed_run():
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
    locks = list(Path(".snakemake/locks").glob("*"))
    for lock in locks:
        lock.unlink(missing_ok=True)
    if locks:
        logger.warning(f"process {facts['pid']} held the lock and was killed: lock removed")


if workflow.is_main_process:
    forget_lock_of_a_killed_run()
    # a run that holds the lock is writing these files just now
    if not any(Path(".snakemake/locks").glob("*")):
        forget_receipts_of_missing_files()
