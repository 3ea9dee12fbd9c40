"""What a run is expected to take, how it learns from jobs of before, and what it says of itself."""

from __future__ import annotations

import logging
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from sbr_core.planning.estimates import Estimator, Job, job_of_benchmark, size_of
from sbr_core.planning.progress import ProgressHandler, Run, in_words, job_of, log_what_to_open


@pytest.fixture
def study(add_brain, study_of):
    return study_of(add_brain("one", "abcd"), methods=["sbr"], preset="demo")


def _measured(name: str, seconds: float) -> None:
    path = Path("results/one/benchmarks", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tcpu_time\n{seconds}\t0:00:00\tNA\n")


def _with_planes(rows: int, columns: int, spacing_mm: float) -> None:
    folder = Path("results/one/resample")
    folder.mkdir(parents=True, exist_ok=True)
    cells = f"a\tok\t{rows}\t{columns}\t{spacing_mm}"
    (folder / "sections.tsv").write_text(f"section\tstatus\trows\tcolumns\tspacing_mm\n{cells}\n")


def test_a_brain_is_as_large_as_what_was_made_of_it(study):
    working_mm = study.config.prepare.working_pixel_mm
    _with_planes(30, 40, working_mm)
    assert size_of(study, "one").plane_px == 1200
    _with_planes(30, 40, 2 * working_mm)  # made with another working pixel: it says nothing
    assert size_of(study, "one").plane_px != 1200


def test_what_is_larger_takes_longer_and_more_disk(study):
    chunk = next(iter(study.brains["one"].chunks))
    job = Job("infer", "one", "sbr", chunk)
    took = []
    for side in (100, 400):
        _with_planes(side, side, study.config.prepare.working_pixel_mm)
        estimator = Estimator(study)
        took.append((estimator.seconds(job), estimator.disk_bytes(job)))
    assert took[0][0] < took[1][0] and took[0][1] * 16 == pytest.approx(took[1][1])


def test_jobs_that_were_measured_correct_their_own_rule_and_in_the_mean_the_others(study):
    align, training = Job("align", "one"), Job("train", "one", "sbr")
    before = Estimator(study)
    assert not before.factors
    _measured("align.tsv", 2 * before.seconds(align))
    after = Estimator(study)
    assert after.seconds(align) == pytest.approx(2 * before.seconds(align))
    assert after.seconds(training) == pytest.approx(2 * before.seconds(training))


def test_a_training_of_other_steps_is_compared_by_its_own(study):
    training = Job("train", "one", "sbr")
    expected = Estimator(study).seconds(training)
    steps = study.config.train_sbr.steps
    Path("results/one/sbr").mkdir(parents=True)
    Path("results/one/sbr/weights.json").write_text(f'{{"steps": {steps // 10}}}')
    _measured("train/sbr.tsv", 10 + (expected - 10) / 10)
    assert Estimator(study).seconds(training) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("text", ["", "s\nNA\n", "what\never\n", "s\th:m:s\n"])
def test_damaged_measurements_are_passed_over(study, text):
    _measured("align.tsv", 1)
    Path("results/one/benchmarks/align.tsv").write_text(text)
    assert not Estimator(study).factors


def test_jobs_of_rules_that_are_not_known_cost_little(study):
    assert 0 < Estimator(study).seconds(Job("new_rule", "one")) < 2
    assert Estimator(study).seconds(Job("prepare", "nobody")) < 2


def test_every_rule_that_works_on_a_brain_is_estimated(study):
    """By the names of benchmark files in the rules; a new rule gets its line in `_RULES`."""
    from sbr_core.planning.estimates import _MEASURED

    rules = Path(__file__).parents[3] / "workflow" / "rules"
    with_benchmark = set()
    for path in rules.glob("*.smk"):
        for block in path.read_text().split("\nrule ")[1:]:
            if "{brain}/benchmarks" in block or "-simulated/benchmarks" in block:
                with_benchmark.add(block.split(":")[0])
    assert with_benchmark <= _MEASURED


@pytest.mark.parametrize(
    ("parts", "job"),
    [
        (("infer", "sbr", "1of4"), Job("infer", "one", "sbr", "1of4")),
        (("prepare", "1of4"), Job("prepare", "one", chunk="1of4")),
        (("trust", "sbr"), Job("trust", "one", "sbr")),
        (("cohere", "coherent"), Job("cohere", "one")),
        (("train", "sbr"), Job("train", "one", "sbr")),
    ],
)
def test_a_benchmark_file_is_of_a_job(parts, job):
    assert job_of_benchmark("one", parts) == job


# --------------------------------------------------------------------------------------------


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(study):
    """Three long jobs of a brain, and the clock of their run."""
    clock = Clock()
    jobs = {1: Job("align", "one"), 2: Job("train", "one", "sbr"), 3: Job("report", "one")}
    return Run(study, jobs, 2, clock), clock


def test_what_a_run_takes_is_told_before_it_starts(run, caplog):
    caplog.set_level(logging.INFO)
    run[0].log_expected()
    (line,) = caplog.messages
    assert line.startswith("expected: 3 jobs, about ") and " on 2 cores, going by " in line
    assert "free)" in line


def test_a_disk_that_is_too_small_is_a_warning(run, caplog, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 10))
    run[0].log_expected()
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "sbr clean" in warning.getMessage()


def test_how_far_a_run_is_is_told_once_a_minute_at_most(run, caplog):
    caplog.set_level(logging.INFO)
    run, clock = run
    log = logging.getLogger("test_progress")
    log.addHandler(handler := ProgressHandler(run))
    try:
        clock.now = 30.0
        log.info(None, extra={"event": "job_finished", "job_id": 99})
        log.info(None, extra={"event": "job_finished", "job_id": 3})
        assert not any("left" in message for message in caplog.messages)
        clock.now = 150.0
        log.info(None, extra={"event": "job_finished", "job_id": 1})
        log.info(None, extra={"event": "job_finished", "job_id": 1})
    finally:
        log.removeHandler(handler)
    said = [message for message in caplog.messages if "left" in message]
    assert len(said) == 1 and said[0].startswith("one: 2 of 3 jobs, about ")


def test_a_slow_machine_makes_what_is_left_longer(study):
    left = []
    for seconds in (160.0, 480.0):
        clock = Clock()
        run = Run(study, {1: Job("align", "one"), 2: Job("train", "one", "sbr")}, 1, clock)
        clock.now = seconds
        run.finished(1)
        left.append(run._left())
    assert left[1] == pytest.approx(3 * left[0])


def test_a_run_is_done_when_its_jobs_are(run):
    run, _ = run
    for number in (1, 2, 3):
        run.finished(number)
    assert run._left() == 0


def test_wildcards_are_read_by_name():
    assert job_of("infer", {"method": "sbr", "brain": "b"}) == Job("infer", "b", "sbr", "")


def test_what_to_open_is_the_report_of_one_brain_and_the_page_of_several(
    study, add_brain, study_of, caplog, tmp_path
):
    caplog.set_level(logging.INFO)
    log_what_to_open(study)
    assert not caplog.messages
    page = Path("results/one/report/index.html")
    page.parent.mkdir(parents=True)
    page.touch()
    log_what_to_open(study)
    assert caplog.messages == [f"Open first: {page}"]


@pytest.mark.parametrize(("seconds", "words"), [(3, "1 min"), (600, "10 min"), (9000, "2.5 h")])
def test_times_are_said_roughly(seconds, words):
    assert in_words(seconds) == words
