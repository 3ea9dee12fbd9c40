"""What a run says of itself: time and disk before it starts, how far it is, what to open first."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from sbr_core.planning.estimates import Estimator, Job
from sbr_core.planning.study import Study

logger = logging.getLogger(__name__)

_FULL = 0.9
"""Share of the free disk from which on it is said to be too small."""
_QUIET_S = 60.0
"""Between two lines about how far a run is, and the least that is left for there to be one."""
_SURE_S = 30.0
"""Expected seconds of finished jobs from which on their time corrects that of the others."""
_CORRECTION = 0.3, 5.0
"""Least and most of that correction."""
_MOST_NAMED = 4
"""Brains that such a line names."""


def job_of(rule: str, wildcards: Mapping[str, str]) -> Job:
    """A job as it is estimated, of Snakemake's rule and wildcards."""
    return Job(rule, *(wildcards.get(name, "") for name in ("brain", "method", "chunk")))


class Run:
    """The jobs of one run of the workflow, and how far they are.

    Parameters
    ----------
    jobs : number of each job that is to run -> what it is.
    cores : that may be used at a time, or jobs on a cluster; None where neither is known.
    """

    def __init__(
        self,
        study: Study,
        jobs: Mapping[int, Job],
        cores: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._jobs, self._cores, self._clock = study, jobs, max(1, cores or 1), clock
        self._estimator = Estimator(study)
        self._seconds = {number: self._estimator.seconds(job) for number, job in jobs.items()}
        self._done: set[int] = set()
        self._started = self._said = clock()

    def log_expected(self) -> None:
        """Log what time and disk the run is expected to take; warn where the disk is too small."""
        needed = sum(self._estimator.disk_bytes(job) for job in self._jobs.values())
        free = shutil.disk_usage(self._place()).free
        trainings = sum(job.rule in ("train", "train_registrar") for job in self._jobs.values())
        where = "here before" if self._estimator.factors else "on another machine"
        line = (
            f"expected: {_jobs(len(self._jobs))}, about {in_words(self._left(correct=False))} on"
            f" {self._cores} core{'s' * (self._cores > 1)}, going by what jobs took {where}"
        )
        if trainings:
            line += (
                f" ({trainings} training{'s' * (trainings > 1)}, far shorter on a graphics card)"
            )
        logger.info(f"{line}; about {size(needed)} of disk ({size(free)} free)")
        if needed > _FULL * free:
            logger.warning(
                f"{self._place()}: {size(free)} free, and this run will need about {size(needed)}:"
                " make room or name another folder (`results`); `sbr clean` says what may go"
            )

    def finished(self, number: int) -> None:
        """Note that a job ended well, and log how far the run is, at most once a minute."""
        if number not in self._jobs or number in self._done:
            return
        self._done.add(number)
        now = self._clock()
        left_s = self._left()
        if now - self._said >= _QUIET_S and left_s >= _QUIET_S:
            self._said = now
            logger.info(f"{self._how_far()}, about {in_words(left_s)} left")

    def _how_far(self) -> str:
        """``demo: 12 of 40 jobs``, for every brain that is not done."""
        total = Counter(job.brain for job in self._jobs.values())
        done = Counter(self._jobs[number].brain for number in self._done)
        going_on = [brain for brain in total if brain and done[brain] < total[brain]]
        # what is nearest to its end is of most interest
        going_on.sort(key=lambda brain: total[brain] - done[brain])
        parts = [f"{brain}: {done[brain]} of {total[brain]} jobs" for brain in going_on]
        more = len(parts) - _MOST_NAMED
        return "; ".join(parts[:_MOST_NAMED]) + (f"; and {more} more brains" if more > 0 else "")

    def _left(self, *, correct: bool = True) -> float:
        """Seconds on the clock until all jobs are done, as far as can be told."""
        waiting = {n: s for n, s in self._seconds.items() if n not in self._done}
        left_s = _on_the_clock({n: self._jobs[n] for n in waiting}, waiting, self._cores)
        finished = {n: self._seconds[n] for n in self._done}
        expected_s = _on_the_clock({n: self._jobs[n] for n in finished}, finished, self._cores)
        if correct and expected_s >= _SURE_S:
            least, most = _CORRECTION
            factor = (self._clock() - self._started) / expected_s
            left_s *= min(max(factor, least), most)
        return left_s

    def _place(self) -> Path:
        results = Path(self._study.config.results).resolve()
        return next(path for path in (results, *results.parents) if path.is_dir())


_ALL_CORES = ("train", "train_registrar")
"""Rules whose jobs take every core."""


def _on_the_clock(jobs: Mapping[int, Job], seconds: Mapping[int, float], cores: int) -> float:
    """Seconds on the clock of jobs that share cores; no brain sooner than its longest chain.

    The chain is one job of every rule, and of every method, that the brain has.
    """
    alone = sum(seconds[n] for n, job in jobs.items() if job.rule in _ALL_CORES)
    shared = sum(seconds[n] for n, job in jobs.items() if job.rule not in _ALL_CORES)
    chains: dict[str, dict[str, float]] = {}
    for n, job in jobs.items():
        if job.rule not in _ALL_CORES:
            chain = chains.setdefault(job.brain, {})
            chain[job.rule] = max(chain.get(job.rule, 0.0), seconds[n])
    longest = max((sum(chain.values()) for chain in chains.values()), default=0.0)
    return alone + max(shared / cores, longest)


class ProgressHandler(logging.Handler):
    """Hands on which jobs Snakemake says it has finished; writes nothing itself."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        """Note a job, if that is what a record is about."""
        if getattr(record, "event", None) == "job_finished":
            try:
                self._run.finished(getattr(record, "job_id", -1))
            except Exception:
                self.handleError(record)


def watch(study: Study, jobs: Mapping[int, Job], cores: int | None, log: logging.Logger) -> None:
    """Log what a run is expected to take, and from now on how far it is.

    Parameters
    ----------
    log : where Snakemake tells of its jobs.
    """
    if not any(job.brain for job in jobs.values()):
        return
    try:
        run = Run(study, jobs, cores)
        run.log_expected()
    except Exception as error:  # what is only said of a run must not be what ends it
        logger.warning(f"what this run will take could not be estimated: {error!r}")
        return
    log.addHandler(ProgressHandler(run))


def log_what_to_open(study: Study) -> None:
    """Log the page to look at first: of one brain its report, of several the page over all."""
    of_sheet = study.of_sheet
    page = Path(study.config.results, "index.html")
    if len(of_sheet) == 1:
        page = Path(study.path(of_sheet[0], "report", "index.html"))
    if page.is_file():
        logger.info(f"Open first: {page}")


def _jobs(n: int) -> str:
    return f"{n} job{'s' * (n != 1)}"


def in_words(seconds: float) -> str:
    """A time in words."""
    if seconds >= 5400:
        return f"{seconds / 3600:.2g} h"
    return f"{max(seconds, 60) / 60:.0f} min"


def size(n_bytes: float) -> str:
    """A size in words."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes / 1e3:.0f} kB"
