"""What time and disk the jobs of a run will take, told before it starts.

Seconds are those of one core of a server (benchmarks/2026-12-01_estimates.md), corrected rule by
rule by what jobs took on this machine before, as far as brains of this study have benchmark files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sbr_core.artifacts import names
from sbr_core.artifacts.benchmarks import BENCHMARKS, read_benchmarks
from sbr_core.errors import SbrError
from sbr_core.io.files import read_json
from sbr_core.io.images import image_shape
from sbr_core.io.tables import read_tsv
from sbr_core.methods import REGISTRY
from sbr_core.planning.sheet import DEMO_DIR
from sbr_core.planning.study import Study, is_compared, method_of

_DEMO_MM2 = 160.0 * 157.0
"""Of a plane of the demo, before it is made."""
_ASSUMED_MM2 = 100.0 * 80.0
"""Of a plane of a brain whose images cannot be read yet."""
_ASSUMED_VOXELS = 2.5e6
"""Of an MRI whose header is not read: that of the demo."""
_START_S = 1.3
"""Python and its libraries, in every job that works on sections."""
_TORCH_S = 3.0
"""The same with networks."""
_OF_TRAINING = {
    "sbr_n": 0.3,
    "nmi": 0.45,
    "nmiw": 0.5,
    "cgan": 1.3,
    "rot": 1.1,
    "sbr_g": 1.3,
    "sbr_r": 1.1,
}
"""Time of a step of a method, over that of `sbr`."""
_WIDTH = 16
"""Channels of the generator that the time of a step was measured with."""
_DEFORMED_BYTES, _LINEAR_BYTES, _SHARED_BYTES, _VOXEL_BYTES = 62.0, 5.0, 5.0, 2.5
"""On disk, of each pixel of a section's plane: two transforms and the images of a method that
deforms, the image of `linear`, and what is made before any method; of each voxel of a volume."""
_REPORT_BYTES, _WEIGHTS_BYTES = 2e5, 3.5e6
"""Of each section on a report, and of the networks of a training."""
_BOUNDS = 0.1, 10.0
"""Between which measured seconds may correct a rule: beyond, something else was measured."""
_MOST_BRAINS = 20
"""Whose jobs correct a rule: more brains tell little more, and have thousands of files to read."""


@dataclass(frozen=True)
class Job:
    """What is known of a job before it runs: its rule, and its wildcards, empty where none."""

    rule: str
    brain: str = ""
    method: str = ""
    chunk: str = ""


@dataclass(frozen=True)
class Size:
    """What decides how long the jobs of a brain take.

    Attributes
    ----------
    n_sections : of the brain.
    plane_px, file_px : pixels of a section's plane, and of its file.
    n_voxels : of a volume.
    """

    n_sections: int
    plane_px: float
    file_px: float
    n_voxels: float


class Estimator:
    """Estimates for the jobs of a study.

    Parameters
    ----------
    measured : whether seconds are corrected by the study's own benchmark files.
    """

    def __init__(self, study: Study, *, measured: bool = True) -> None:
        self._study = study
        self._sizes: dict[str, Size] = {}
        self.factors: Mapping[str, float] = self._factors_measured() if measured else {}

    def seconds(self, job: Job, steps: int | None = None) -> float:
        """Seconds on the clock that a job is expected to take.

        Parameters
        ----------
        steps : of a training, if these are not those of the configuration.
        """
        usual = self.factors.get("", 1.0)
        return self._uncorrected(job, steps) * self.factors.get(job.rule, usual)

    def disk_bytes(self, job: Job) -> float:
        """What a job is expected to leave on the disk."""
        if job.brain not in self._study.brains:
            return 0.0
        size = self._size(job.brain)
        px = self._n_sections(job) * size.plane_px
        if job.rule == "infer":
            linear = method_of(job.method) == "linear"
            return px * (_LINEAR_BYTES if linear else _DEFORMED_BYTES)
        if job.rule == "registered":
            return self._n_sections(job) * size.file_px * 3
        return {
            "prepare": px * _SHARED_BYTES / 2,
            "align_sections": px * _SHARED_BYTES / 2,
            "reassemble": size.n_voxels * _VOXEL_BYTES,
            "reassemble_colour": size.n_voxels * 3,
            "train": _WEIGHTS_BYTES,
            "train_registrar": _WEIGHTS_BYTES,
            "report": size.n_sections * _REPORT_BYTES,
        }.get(job.rule, 0.0)

    def _n_sections(self, job: Job) -> int:
        chunks = self._study.brains[job.brain].chunks
        if job.chunk:
            return len(chunks.get(job.chunk, ()))
        return sum(len(rows) for rows in chunks.values())

    def _uncorrected(self, job: Job, steps: int | None = None) -> float:
        """Seconds of one core of the server; of a training of so many steps, if they are known."""
        if job.rule == "demo":
            return 20.0
        if job.brain not in self._study.brains:
            return 0.7
        if job.rule in ("train", "train_registrar"):
            return self._of_training(job, steps)
        rule = _RULES.get(job.rule)
        if rule is None:
            return 0.7
        brain = self._study.brains[job.brain]
        n_methods = len(dict.fromkeys(("linear", *self._study.config.methods)))
        return rule(self._n_sections(job), self._size(job.brain), job, brain.prealigned, n_methods)

    def _of_training(self, job: Job, steps: int | None) -> float:
        config = self._study.config
        px = self._size(job.brain).plane_px
        if job.rule == "train_registrar":
            options = config.train_registrar
            asked = options.finetune_steps if config.registrar == "finetune" else options.steps
            step_px = px / options.pixel_factor**2 * options.batch_size
            return _TORCH_S + (steps or asked) * (0.15 + 3.5e-6 * step_px)
        method = method_of(job.method)
        options = getattr(config, f"train_{method}")
        step_px = px / options.pixel_factor**2 * options.batch_size
        start = self._study.weights_start(job.brain, job.method)
        asked = options.steps if start is None else options.finetune_steps
        width = getattr(options, "generator_channels", _WIDTH) / _WIDTH
        step_s = _OF_TRAINING.get(method, 1.0) * (0.3 + 6e-6 * step_px * width**1.5)
        seconds = (steps or asked) * step_s
        if is_compared(job.method):
            return 60 * config.compare.minutes
        minutes = options.minutes
        return 10 + (seconds if minutes is None else min(seconds, 60 * minutes))

    def _size(self, brain: str) -> Size:
        if brain not in self._sizes:
            self._sizes[brain] = size_of(self._study, brain)
        return self._sizes[brain]

    def _factors_measured(self) -> dict[str, float]:
        """Rule -> measured seconds over expected ones; and "" -> the same over all rules."""
        sums: dict[str, tuple[float, float]] = {}
        folders = {brain: Path(self._study.path(brain)) for brain in self._study.brains}
        begun = [brain for brain, folder in folders.items() if (folder / BENCHMARKS).is_dir()]
        for brain in begun[:_MOST_BRAINS]:
            for done in read_benchmarks(folders[brain]):
                job = job_of_benchmark(brain, done.parts)
                if job.chunk and job.chunk not in self._study.brains[brain].chunks:
                    continue  # the brain was split anew since
                if job.rule not in _MEASURED or (job.method and job.method not in REGISTRY):
                    continue  # of a comparison, or of a rule that there is no more
                expected = self._uncorrected(job, self.steps_of(job))
                measured_s, expected_s = sums.get(job.rule, (0.0, 0.0))
                wall_s = max(done.wall_s, self._trained_s(job))
                sums[job.rule] = measured_s + wall_s, expected_s + expected
        total = [sum(values) for values in zip(*sums.values(), strict=True)] if sums else [0, 0]
        sums[""] = total[0], total[1]
        least, most = _BOUNDS
        return {
            rule: min(max(measured_s / expected_s, least), most)
            for rule, (measured_s, expected_s) in sums.items()
            if expected_s > 0
        }

    def steps_of(self, job: Job) -> int | None:
        """Steps of a training that is finished, which the options of now may not be those of."""
        with suppress(KeyError, TypeError, ValueError):
            facts = self._training(job)
            return int(facts.get("steps") or facts["options"]["steps"])
        return None

    def _trained_s(self, job: Job) -> float:
        """Seconds of a finished training: a job that went on has measured its last part only."""
        with suppress(TypeError, ValueError):
            return float(self._training(job).get("training_seconds", 0.0))
        return 0.0

    def _training(self, job: Job) -> Mapping[str, Any]:
        """What is recorded of the networks that a job trained; nothing where there are none."""
        folder = {"train": job.method, "train_registrar": "registrar"}.get(job.rule)
        with suppress(SbrError):
            if folder is not None:
                return read_json(Path(self._study.path(job.brain, folder, names.TRAINING)))
        return {}


def job_of_benchmark(brain: str, parts: tuple[str, ...]) -> Job:
    """The job that a benchmark file is of, given its path."""
    rule, *rest = parts
    if rule == "check" and rest:
        return Job("check_sections", brain, chunk=rest[0])
    if rule == "simulate":
        return Job("simulate_pairs", brain)
    if rule in ("train", "trust"):
        return Job(rule, brain, method="/".join(rest))
    if rule in ("infer", "registered"):
        return Job(rule, brain, method="/".join(rest[:-1]), chunk=rest[-1] if rest else "")
    if rule in ("prepare", "resample", "align_sections") and rest:
        return Job(rule, brain, chunk=rest[0])
    return Job(rule, brain)


def _of_inference(n: int, size: Size, job: Job, prealigned: bool, n_methods: int) -> float:
    method = method_of(job.method)
    if method == "linear":
        return _START_S + 0.03 * n
    if method == "syn_mi":
        return _START_S + n * (0.8 + 5e-5 * size.plane_px)
    return _TORCH_S + n * (0.25 + 6e-6 * size.plane_px)


_Rule = Callable[[int, Size, Job, bool, int], float]
_RULES: dict[str, _Rule] = {
    "check_sections": lambda n, size, *_: _START_S + 0.08 * n,
    "check": lambda n, size, *_: 3.0,
    "prepare": lambda n, size, *_: _START_S + n * (0.25 + 2e-6 * size.file_px),
    "prepare_mri": lambda n, size, *_: 1.5 + 1e-7 * size.n_voxels,
    "doctor": lambda n, size, *_: 3 + 0.15 * n,
    "align": lambda n, size, *_: 150.0,
    "resample": lambda n, size, *_: _START_S + 0.04 * n,
    "align_sections": lambda n, size, job, prealigned, n_methods: (
        _START_S + n * (0.06 if prealigned else 0.15 + 9e-6 * size.plane_px)
    ),
    "cohere": lambda n, size, *_: _TORCH_S + 1.0 * n,
    "infer": _of_inference,
    "trust": lambda n, size, *_: _START_S + 0.15 * n,
    "registered": lambda n, size, *_: _START_S + n * (0.5 + 5e-7 * size.file_px),
    "reassemble": lambda n, size, *_: 2 + 0.03 * n + 1.2e-6 * size.n_voxels,
    "reassemble_colour": lambda n, size, *_: 2 + n * (0.1 + 5e-7 * size.file_px),
    "evaluate": lambda n, size, job, prealigned, n_methods: 5 + 0.02 * n * n_methods,
    "report": lambda n, size, job, prealigned, n_methods: 4 + 0.03 * n * n_methods,
    "evaluate_compared": lambda n, size, *_: 10 + 0.1 * n,
    "compare_methods": lambda n, size, *_: 60.0,
    "simulate_pairs": lambda n, size, *_: 1.5 * n,
}
"""Rule -> seconds of a job, given its sections, the brain's sizes, the job itself, whether the
brain is prealigned, and how many methods it has."""
_MEASURED = {*_RULES, "train", "train_registrar"}
"""Rules whose benchmark files correct what is expected."""


def size_of(study: Study, brain: str) -> Size:
    """How large a brain is, by what was made of it, else by the headers of its files."""
    found = study.brains[brain]
    n_sections = len(found.sections)
    working_mm = study.config.prepare.working_pixel_mm
    if found.source is not None:  # pairs are made of planes of that brain
        source = size_of(study, found.source)
        plane_px = file_px = source.plane_px
    else:
        file_px, mm2 = _image_size(study, brain)
        plane_px = mm2 / working_mm**2
    with suppress(SbrError, OSError, LookupError, ValueError):
        row = read_tsv(Path(study.table(brain, "resample")))[1][0]
        if abs(float(row["spacing_mm"]) / working_mm - 1) < 0.01:
            plane_px = float(row["rows"]) * float(row["columns"])
    spacing_mm = study.config.reassemble.spacing_mm
    n_voxels = n_sections * plane_px if found.prealigned else _n_voxels(found.row.mri)
    if spacing_mm is not None and found.prealigned:
        n_voxels *= (working_mm / spacing_mm) ** 2
    return Size(n_sections, plane_px, file_px, n_voxels)


def _image_size(study: Study, brain: str) -> tuple[float, float]:
    """(pixels, mm²) of the image of a section in the middle of the stack."""
    row = study.brains[brain].sections[len(study.brains[brain].sections) // 2]
    assumed_mm2 = _ASSUMED_MM2
    if Path(row.image).is_relative_to(DEMO_DIR):
        assumed_mm2 = _DEMO_MM2
    pixel_mm = row.pixel_size_mm or study.config.prepare.working_pixel_mm
    with suppress(SbrError, OSError, ValueError):
        rows, columns = image_shape(Path(row.image), row.image_channel or None)
        return float(rows * columns), rows * columns * pixel_mm**2
    return assumed_mm2 / pixel_mm**2, assumed_mm2


@cache
def _n_voxels(mri: str) -> float:
    """Voxels of an MRI, by its header; an assumption where that is not simply read."""
    import nibabel

    with suppress(Exception):  # whatever is wrong with it, its own job says
        return float(math.prod(nibabel.load(mri).header.get_data_shape()[:3]))
    return _ASSUMED_VOXELS
