"""The plan of a stage: what the configuration and the tables ask of it, as a small JSON file.

A plan is an input of its stage, so that a changed plan reruns the stage (see ``plan.smk``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sbr_core.artifacts import names
from sbr_core.config import canonical_json
from sbr_core.io.files import sha256_file, sha256_of
from sbr_core.io.manifests import SIMULATED, rows_to_json
from sbr_core.planning.inputs import CORRECTIONS, asked_by_corrections
from sbr_core.planning.parameters import plane_json, training_options
from sbr_core.planning.study import COMPARED, SECTION_STAGES, Study
from sbr_core.revisions import REVISION

_BEFORE_TRAINING = ("prepare", "align", "resample", "align_sections")
"""Stages that make the pairs of a training."""


def plan_text(study: Study, brain: str, plan: str) -> str:
    """What is asked of one stage, as JSON with sorted keys.

    Parameters
    ----------
    plan : name of the file, without ``.json``: a stage, or a stage and its part: ``resample`` has
        one for each chunk, and a training that is of a comparison ends in ``.compare``; or
        ``corrections`` and what is corrected.
    """
    stage, _, part = plan.partition(".")
    if stage == "collect":
        return canonical_json({"chunks": list(study.brains[brain].chunks)})
    if stage == CORRECTIONS:
        return canonical_json(asked_by_corrections(study, brain, part))
    asked: dict[str, Any] = {
        name: {"options": _options(study, brain, name, part), "revision": REVISION[name]}
        for name in (stage, *stages_before(study, brain, stage))
    }
    if is_method_training(stage):
        if (start := study.weights_start(brain, _training_folder(stage, part))) is not None:
            asked["start"] = start
    elif stage in _BESIDE_OPTIONS:
        asked |= _BESIDE_OPTIONS[stage](study, brain, part)
    return canonical_json(asked)


def stages_before(study: Study, brain: str, stage: str) -> tuple[str, ...]:
    """Stages whose tables are ancient inputs of `stage`.

    Snakemake does not look at what those tables were made with, so the plan follows it instead.
    """
    if stage == "align":
        return ("prepare",)
    if stage == "simulate":
        return SECTION_STAGES
    if stage.startswith("train_"):
        simulated = ("simulate",) if study.brains[brain].is_simulated else ()
        return (*_BEFORE_TRAINING, *simulated)
    return ()


def is_method_training(stage: str) -> bool:
    """Whether a stage trains the networks of a method, and not the shared registrar."""
    return stage.startswith("train_") and stage != "train_registrar"


def _training_folder(stage: str, part: str) -> str:
    """Folder of the networks that a training makes."""
    return (COMPARED if part == "compare" else "") + stage.removeprefix("train_")


def _options(study: Study, brain: str, stage: str, part: str) -> Any:
    """Options of a stage; of a method's training those that count for it."""
    if is_method_training(stage):
        return json.loads(training_options(study, brain, _training_folder(stage, part)))
    return json.loads(study.config.section_json(stage))


def _of_simulate(study: Study, brain: str, part: str) -> dict[str, Any]:
    # a digest, since the rows of a large brain are more than a command line takes
    rows = sha256_of(rows_to_json(study.brains[brain].sections))
    return {"rows": rows, "mri_labels": study.brains[brain].mri_labels}


def _of_registrar(study: Study, brain: str, part: str) -> dict[str, Any]:
    source = study.config.registrar
    shipped = {} if source == "train" else {"shipped": sha256_file(names.SHIPPED_REGISTRAR)}
    return {"source": source, **shipped}


def _of_report(study: Study, brain: str, part: str) -> dict[str, Any]:
    """Digests of the comparison and of the accuracy on simulated pairs, where they are there.

    A report shows them, and is made anew after them; as inputs, they would be made whenever a
    report is.
    """
    shown = {"comparison": study.path(brain, "compare", "index.html")}
    if not study.brains[brain].is_simulated:
        shown["simulated"] = study.path(brain + SIMULATED, "evaluation", names.SUMMARY)
    return {
        name: sha256_file(Path(path)) if Path(path).is_file() else None
        for name, path in shown.items()
    }


def _of_inference(study: Study, brain: str, part: str) -> dict[str, Any]:
    return {"networks": study.brains[brain].weights_donor}


_BESIDE_OPTIONS: dict[str, Callable[[Study, str, str], dict[str, Any]]] = {
    "align": lambda study, brain, part: {"orientation": study.brains[brain].row.orientation},
    "resample": lambda study, brain, chunk: {"rows": json.loads(plane_json(study, brain, chunk))},
    "train_registrar": _of_registrar,
    "infer": _of_inference,
    "syn_mi": _of_inference,
    "mind": lambda study, brain, part: {"shipped": sha256_file(names.SHIPPED_REGISTRAR)},
    "simulate": _of_simulate,
    "report": _of_report,
}
"""Stage -> what its plan holds beside options and revisions, given study, brain and part."""
