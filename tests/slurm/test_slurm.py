"""The demo on a real SLURM by `workflow/profiles/slurm`, its training cancelled and pre-empted.

``make test-slurm`` runs this; `one_node.py` says what it needs. Nothing is stubbed, but the brain
is small and the training short, though not so short that a fast machine ends it before it can be
stopped, unless ``SLURM_TEST_CONFIG`` names another configuration (with ``checkpoint_every_s`` above
the training's time, so that only SIGTERM writes one). What happened when is in ``events.log`` of
the run's folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from slurm.one_node import OneNode, why_not

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(why_not()), reason=f"no SLURM here: {why_not()}"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = """\
preset: demo
methods: [sbr]
gpus: 1
chunk_size: 4
demo: {n_sections: 8, section_spacing_mm: 18.0, pixel_size_mm: 1.0, mri_spacing_mm: 2.4}
prepare: {working_pixel_mm: 2.5}
align: {rounds: 1, spacing_mm: 3.0}
train_registrar: {finetune_steps: 10}
train_sbr: {steps: 600, checkpoint_every_s: 3600}
infer: {refine_steps: 10}
"""
SBR = Path("results/demo/sbr")
VOLUME = SBR / "volume" / "demo_space-mri_histology.nii.gz"
FOR_ONE_NODE = (
    *("--max-threads", "2", "--latency-wait", "5"),
    # it keeps no accounts, and answers at once
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3"),
)
PATIENCE_S = 1200
DONE, GOING_ON = r"step (\d+) \(", r"going on from step (\d+)"


def start(lab: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen:
    """Start Snakemake in a folder, its output in ``snakemake.log`` there."""
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "workflow" / "Snakefile")]
    with open(lab / "snakemake.log", "a") as log:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=lab,
            env=environment
            | {
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]]),
                "PYTHONPATH": str(REPOSITORY),
            },
            stdout=log,
            stderr=log,
        )


def wait_for(what: str, answer, run: subprocess.Popen):
    """The first answer that is true, while a run goes on."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and run.poll() is None:
        if found := answer():
            return found
        time.sleep(0.3)
    raise AssertionError(f"{what}: not seen; Snakemake: {run.poll()}")


def newest_checkpoint(lab: Path) -> int:
    """Step of the newest checkpoint of the training; 0 if there is none."""
    found = (lab / "results/.checkpoints/demo/sbr").rglob("step-*.pt")
    return max((int(path.stem.removeprefix("step-")) for path in found), default=0)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The whole demo under SLURM, its training cancelled once and pre-empted once.

    (its folder, for each interruption the last step before and the first step after it, the memory
    that both attempts asked for, the jobs)
    """
    lab = tmp_path_factory.mktemp("slurm")
    (lab / "config").mkdir()
    given = os.environ.get("SLURM_TEST_CONFIG")
    config = Path(given).read_text() if given else CONFIG
    (lab / "config" / "config.yaml").write_text(config)
    shutil.copy(REPOSITORY / "config" / "brains.tsv", lab / "config")
    log = lab / "results/demo/logs/train/sbr.log"
    steps, asked_mb, began = {}, {}, time.monotonic()

    def note(event: str) -> None:
        with open(lab / "events.log", "a") as events:
            events.write(f"{time.monotonic() - began:6.0f} s  {event}\n")

    def said(pattern: str) -> int:
        """The last step that the training's log tells in these words."""
        found = re.findall(pattern, log.read_text()) if log.exists() else []
        return int(found[-1]) if found else 0

    with OneNode() as cluster:

        def training(state: str, but: str = "") -> str:
            """Id of the training job that is in a state."""
            jobs = cluster.jobs().items()
            ours = (j for j, (s, c) in jobs if s == state and c == "rule_train_wildcards_demo_sbr")
            return next((job for job in ours if job != but), "")

        def asked(job: str) -> str:
            """Memory a job asked for."""
            return cluster.run(
                "squeue", "--noheader", "--states=all", "-j", job, "-o", "%m"
            ).strip()

        run = start(
            lab,
            cluster.environment,
            *("--workflow-profile", str(REPOSITORY / "workflow" / "profiles" / "slurm")),
            *FOR_ONE_NODE,
        )
        try:
            step = wait_for("a step", lambda: said(DONE), run)
            first = training("RUNNING")
            assert first, "the training ended before it could be cancelled"
            assert newest_checkpoint(lab) == 0
            cluster.run("scancel", first)
            note(f"scancel {first}, the training, after step {step} was told")
            wait_for("a checkpoint", lambda: newest_checkpoint(lab), run)
            note(f"checkpoint of step {newest_checkpoint(lab)}")
            second = wait_for("the next attempt", lambda: training("RUNNING", but=first), run)
            before = newest_checkpoint(lab)
            after = wait_for("it going on", lambda: said(GOING_ON), run)
            steps["scancel"] = (before, after)
            note(f"job {second}, the next attempt, goes on from step {after}")
            asked_mb["first"], asked_mb["second"] = asked(first), asked(second)

            step = wait_for("a step more", lambda: max(0, said(DONE) - before), run) + before
            log.unlink()
            assert training("RUNNING"), "the training ended before it could be pre-empted"
            cluster.run("sbatch", "-p", "urgent", "--gpus=1", "-o", "/dev/null", "--wrap", "true")
            note(f"a job of higher priority takes the card, after step {step} was told")
            wait_for("a newer checkpoint", lambda: newest_checkpoint(lab) > before, run)
            note(f"checkpoint of step {newest_checkpoint(lab)}")
            wait_for("the pre-emption", lambda: training("PENDING") == second, run)
            # SLURM lets a job that was queued again wait for two minutes
            cluster.run("scontrol", "update", f"JobId={second}", "StartTime=now")
            wait_for("the same job again", lambda: training("RUNNING") == second, run)
            before = newest_checkpoint(lab)
            after = wait_for("it going on", lambda: said(GOING_ON), run)
            steps["pre-emption"] = (before, after)
            note(f"job {second}, queued again, goes on from step {after}")
            run.wait(timeout=PATIENCE_S)
            note(f"Snakemake ended with {run.returncode}, {len(cluster.jobs())} jobs in all")
        finally:
            run.terminate()
            run.wait()
        jobs = cluster.jobs()
    assert run.returncode == 0, (lab / "snakemake.log").read_text()[-5000:]
    return lab, steps, asked_mb, jobs


def test_demo_runs_to_its_report(interrupted):
    lab, _, _, jobs = interrupted
    assert (lab / "results/demo/report/index.html").stat().st_size > 100_000
    states = [state for state, _ in jobs.values()]
    assert states.count("CANCELLED") == 1  # by the test
    assert set(states) == {"COMPLETED", "CANCELLED"}


def test_small_stages_share_jobs(interrupted):
    lab, _, _, jobs = interrupted
    comments = [comment for _, comment in jobs.values()]
    chunks = len(list((lab / "results/demo/prepare/chunks").glob("*.tsv")))
    assert 1 <= comments.count("rule_prepare_prepare") < chunks
    assert 1 <= comments.count("rule_sections_align_sections_resample") < chunks


@pytest.mark.parametrize("interruption", ["scancel", "pre-emption"])
def test_training_goes_on_from_the_step_it_was_stopped_at(interrupted, interruption):
    _, steps, _, _ = interrupted
    before, after = steps[interruption]
    assert before == after > 0


def test_next_attempt_asks_for_more(interrupted):
    _, _, asked_mb, _ = interrupted
    assert asked_mb == {"first": "16000M", "second": "24000M"}


def test_volume_is_that_of_an_uninterrupted_run(interrupted, tmp_path):
    lab, _, _, _ = interrupted
    again = tmp_path / "again"
    shutil.copytree(lab, again, ignore=shutil.ignore_patterns("sbr", ".checkpoints", ".snakemake"))
    run = start(again, dict(os.environ), "--cores", "2", str(VOLUME))
    try:
        run.wait(timeout=PATIENCE_S)
    finally:
        run.terminate()
        run.wait()
    assert run.returncode == 0, (again / "snakemake.log").read_text()[-5000:]
    assert "going on from" not in (again / "results/demo/logs/train/sbr.log").read_text()
    stopped, whole = (nib.load(folder / VOLUME).get_fdata() for folder in (lab, again))
    assert np.ptp(whole) > 0
    difference = np.abs(stopped - whole)
    with open(lab / "events.log", "a") as events:
        events.write(f"volumes: largest difference {difference.max()} of {np.ptp(whole)}\n")
    np.testing.assert_array_equal(stopped, whole)
