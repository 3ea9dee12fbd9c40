"""Input files of each rule, by name.

An input of type `Ancient` counts for Snakemake only by being there: a change of it, or of what it
is made from, does not start the rule. `with_ancient` hands that on to Snakemake.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from sbr_core.artifacts import names
from sbr_core.errors import ManifestError
from sbr_core.io.corrections import landmarks_json
from sbr_core.io.manifests import SIMULATED
from sbr_core.methods import LABEL_METHODS, OWN_REGISTRAR_METHODS, REGISTRY, TRAINED_METHODS
from sbr_core.planning.study import (
    Folders,
    Study,
    compared_folders,
    is_compared,
    method_of,
    methods_of,
    own_folders,
)

Inputs = dict[str, str | list[str]]
"""Name of an input -> its path or paths."""


class Ancient(str):
    """A path whose time stamp does not count: `ancient` in Snakemake's words."""

    __slots__ = ()


_LONGEST_ARGUMENT = 120_000
"""Characters; Linux takes 128 KiB."""
CORRECTIONS = "corrections"
"""Plans of what users decided about sections, which only what they decided about is planned by."""


def asked_by_corrections(study: Study, brain: str, part: str) -> dict[str, Any]:
    """What the corrections of a brain ask of one part of it; nothing where there are none.

    Parameters
    ----------
    part : a chunk of sections, for their affines; ``volume`` and, of a stain group,
        `names.stain_entity` of it.
    """
    of_brain = study.brains[brain]
    if part in of_brain.chunks:
        marks = landmarks_of_chunk(study, brain, part)
        return {} if marks is None else {"landmarks": json.loads(marks)}
    for group in of_brain.stain_groups:
        if part == names.VOLUME + names.stain_entity(group):
            rejected = of_brain.rejected(group)
            return {"rejected": rejected} if rejected else {}
    return {}


def landmarks_of_chunk(study: Study, brain: str, chunk: str) -> str | None:
    """Landmarks that the sections of a chunk are fitted with, as JSON; None where there are none.

    Raises
    ------
    ManifestError
        They are more than a command line takes.
    """
    of_brain = study.brains[brain]
    text = landmarks_json(of_brain.corrections, [r.section for r in of_brain.chunks[chunk]])
    if len(text) > _LONGEST_ARGUMENT:
        raise ManifestError(
            f"{of_brain.row.corrections}: the sections of one job have more landmarks than a"
            f" command line takes ({len(text)} characters): make jobs of fewer by a smaller"
            " chunk_size"
        )
    return None if text == "[]" else text


def align_sections(study: Study, brain: str, chunk: str) -> Inputs:
    """What sections are fitted from beside their receipts, and what their landmarks ask."""
    return fit(study, brain) | _corrected(study, brain, chunk)


def _corrected(study: Study, brain: str, part: str) -> Inputs:
    """The plan of what corrections ask of a part of a brain, if they ask or ever asked anything.

    Brains without corrections do not have this input, so finished ones stay.
    """
    plan = study.path(brain, "plan", f"{CORRECTIONS}.{part}.json")
    is_asked = asked_by_corrections(study, brain, part) or Path(plan).is_file()
    return {CORRECTIONS: plan} if is_asked else {}


def corrected(study: Study, brain: str) -> list[str]:
    """Plans of all that corrections ask of a brain, to be asked for by name.

    A plan that is not there yet starts its stage only if it is made, and Snakemake looks for no
    missing input of a stage before which something else is to be run.
    """
    of_brain = study.brains[brain]
    volumes = [names.VOLUME + names.stain_entity(group) for group in of_brain.stain_groups]
    parts = (*of_brain.chunks, *volumes)
    return [plan for part in parts for plan in _corrected(study, brain, part).values()]


def with_ancient(paths: Any, ancient: Callable[[str], Any]) -> Any:
    """`paths`, one or a list or a dictionary of them, with `ancient` applied to each `Ancient`."""
    if isinstance(paths, dict):
        return {name: with_ancient(path, ancient) for name, path in paths.items()}
    if isinstance(paths, list):
        return [with_ancient(path, ancient) for path in paths]
    return ancient(str(paths)) if isinstance(paths, Ancient) else paths


# --------------------------------------------------------------------------------------------
# Sections, chunk by chunk
# --------------------------------------------------------------------------------------------


def check_sections(study: Study, brain: str, chunk: str) -> list[str]:
    """Every file that the sections of one chunk name."""
    return [file for row in study.brains[brain].chunks[chunk] for file in row.files()]


def check(study: Study, brain: str) -> Inputs:
    """What was seen of a brain's sections, and what else the user gave of it."""
    row = study.brains[brain].row
    given = {name: getattr(row, name) for name in ("mri", "mri_mask", "mri_labels", "landmarks")}
    if row.prealigned:
        given = {"landmarks": row.landmarks}
    return {"receipts": study.receipts(brain, "check")} | {k: v for k, v in given.items() if v}


@cache
def passed(study: Study, brain: str) -> list[str]:
    """That a brain passed `check`, which its first results wait for.

    It is no input of brains that were begun before there was a check: it would be made, and all
    of them anew. Simulated brains are not checked.
    """
    mark = Path(study.path(brain, "check", names.PASSED))
    if study.brains[brain].is_simulated:
        return []
    if mark.is_file():
        return [Ancient(mark)]
    # sidecars, for while all chunks are made anew no receipt is there
    sidecars = Path(study.path(brain, "prepare", names.SECTIONS))
    is_begun = sidecars.is_dir() or any(
        Path(receipt).is_file() for receipt in study.receipts(brain, "prepare")
    )
    return [] if is_begun else [str(mark)]


def not_passed(study: Study) -> list[str]:
    """Brains of the sheet that did not pass `check` yet."""
    return [b for b in study.of_sheet if not Path(study.path(b, "check", names.PASSED)).is_file()]


def prepare(study: Study, brain: str, chunk: str) -> list[str]:
    """Images, masks and labels of the sections of one chunk.

    A simulated brain's manifest stands for them: it is written when all of them are there.
    """
    if study.brains[brain].is_simulated:
        return [study.brains[brain].row.sections]
    rows = study.brains[brain].chunks[chunk]
    return [f for row in rows for f in (row.image, row.mask, row.labels) if f]


def prepare_mri(study: Study, brain: str) -> Inputs:
    """The MRI as the user gave it, and its mask where there is one."""
    row = study.brains[brain].row
    return {"mri": row.mri} | ({"mri_mask": row.mri_mask} if row.mri_mask else {})


def resample(study: Study, brain: str, chunk: str) -> Inputs:
    """Where the MRI planes of a chunk come from: the fitted MRI, or a plane of each row."""
    if study.brains[brain].is_simulated:
        return {"images": [study.brains[brain].row.sections]}
    if study.brains[brain].prealigned:
        rows = study.brains[brain].chunks[chunk]
        return {"images": [f for row in rows for f in (row.mri_image, row.mri_mask) if f]}
    return {
        "similarity": study.similarity(brain),
        "plane_grid": study.fit(brain)["plane_grid"],
        "mri": study.path(brain, "prepare", names.MRI_VOLUME),
        "mri_mask": study.path(brain, "prepare", names.MRI_MASK_VOLUME),
    }


def fit(study: Study, brain: str) -> Inputs:
    """The global fit of a brain, or the truth of a simulated one in its place.

    Another prealigned brain has none.
    """
    if study.brains[brain].is_simulated:
        return {"truth": study.simulated_data(brain)["truth"]}
    return {} if study.brains[brain].prealigned else study.fit(brain)


def infer(study: Study, brain: str, folder: str) -> Inputs:
    """Trained networks that a method's inference uses; another brain's are ancient."""
    method = method_of(folder)
    if REGISTRY[method].follows:
        return {
            "followed": study.table(brain, study.config.followed),
            "changes": study.changes(brain, folder),
        }
    if method not in TRAINED_METHODS:
        return {}

    def of(giver: str, network: str) -> str:
        path = study.weights(giver, network)
        return path if giver == brain else Ancient(path)

    inputs = {"weights": of(study.weights_donor(brain, folder), folder)}
    if method not in OWN_REGISTRAR_METHODS:
        inputs["registrar"] = of(study.registrar_of(brain, folder), "registrar")
    return inputs


def cohere(study: Study, brain: str) -> Inputs:
    """The tables that corrections of a whole stack are found from."""
    tables = {"sections": study.config.followed, "prepared": "prepare", "planes": "resample"}
    return {name: study.table(brain, stage) for name, stage in tables.items()}


# --------------------------------------------------------------------------------------------
# Stages that look at the brain as a whole
# --------------------------------------------------------------------------------------------


def stage_table(study: Study, brain: str, stage: str, made: Iterable[str], *, forced: bool) -> str:
    """The table of a per-section stage, for a stage that looks at the brain as a whole.

    A section that changes must not start the global fit or a training again, so the table is
    ancient. Only when the user forces the stage (`forced`), or something of `made`, what it makes,
    is missing, does it wait for the newest table: behind an ancient file that is to be made anew
    Snakemake looks for nothing that is missing, and it would take a second call to make it.
    """
    table = study.table(brain, stage)
    is_made = all(Path(path).is_file() for path in made)
    return Ancient(table) if is_made and not forced else table


def align(study: Study, brain: str, *, forced: bool) -> Inputs:
    """The table of `prepare`, for the global fit."""
    made = study.fit(brain).values()
    return {"sections": stage_table(study, brain, "prepare", made, forced=forced)}


def made_by_training(study: Study, brain: str, folder: str) -> list[str]:
    """What is asked for of a training: the weights in its folder, and its losses."""
    return [study.weights(brain, folder), study.losses(brain, folder)]


def train_registrar(study: Study, brain: str, *, forced: bool) -> Inputs:
    """What the shared registrar is trained on: the fit, and the planes."""
    made = made_by_training(study, brain, "registrar")
    planes = stage_table(study, brain, "resample", made, forced=forced)
    return fit(study, brain) | {"planes": planes}


def train(study: Study, brain: str, folder: str, *, forced: bool) -> Inputs:
    """What a method is trained with: pairs, the fit, and as it needs them, networks and labels.

    Label images are ancient, as the sections are that they belong to: an edited one starts no
    training. Networks of another brain are, once this training's own are there.
    """
    made = made_by_training(study, brain, folder)
    table = partial(stage_table, study, brain, made=made, forced=forced)
    inputs = fit(study, brain)
    inputs |= {"planes": table("resample"), "sections": table("align_sections")}

    def of_another(giver: str, network: str) -> str:
        path = study.weights(giver, network)
        is_made = giver != brain and Path(study.weights(brain, folder)).is_file()
        return Ancient(path) if is_made else path

    if study.config.takes_registrar(method_of(folder)):
        inputs["registrar"] = of_another(study.registrar_of(brain, folder), "registrar")
    if (start := study.weights_start(brain, folder)) is not None:
        inputs["start"] = of_another(start, folder)
    if method_of(folder) in LABEL_METHODS:
        inputs |= {"prepared": table("prepare"), **_labels(study, brain, of_planes=Ancient)}
    return inputs


def training_plan(study: Study, brain: str, folder: str) -> str:
    """The plan of one training."""
    part = ".compare" if is_compared(folder) else ""
    return study.path(brain, "plan", f"train_{method_of(folder)}{part}.json")


def simulate_pairs(study: Study, brain: str, *, forced: bool) -> Inputs:
    """What the pairs of a simulated brain are made from; `brain` is its source.

    Label images of planes are ancient, as the planes are: an edited one makes no pairs anew.
    """
    made = study.simulated_data(brain + SIMULATED).values()
    table = partial(stage_table, study, brain, made=made, forced=forced)
    inputs = fit(study, brain)
    inputs |= {"prepared": table("prepare"), "planes": table("resample")}
    inputs["sections"] = table("align_sections")
    if labels := study.brains[brain].mri_labels:
        inputs["mri_labels"] = labels
    elif plane_labels := _plane_labels(study, brain):
        inputs["plane_labels"] = [Ancient(path) for path in plane_labels]
    return inputs


# --------------------------------------------------------------------------------------------
# Volumes, tables and pages
# --------------------------------------------------------------------------------------------


def reassemble(study: Study, brain: str, stain: str) -> Inputs:
    """What a volume in MRI space needs, and which sections are kept out of it.

    `stain` is the `names.stain_entity` of the volume's stain group.
    """
    return mri_frame(study, brain) | _corrected(study, brain, names.VOLUME + stain)


def mri_frame(study: Study, brain: str) -> Inputs:
    """What a volume or a table in MRI space needs, of a brain that is not prealigned."""
    if study.brains[brain].prealigned:
        return {}
    return {
        "similarity": study.similarity(brain),
        "mri": study.path(brain, "prepare", names.MRI_VOLUME),
    }


def _plane_labels(study: Study, brain: str) -> list[str]:
    """Labels of the MRI planes of a prealigned brain's sections.

    A simulated brain's manifest stands for them, as it does for its images.
    """
    labels = study.brains[brain].plane_labels
    is_simulated = study.brains[brain].is_simulated
    return [study.brains[brain].row.sections] if labels and is_simulated else list(labels)


def _labels(study: Study, brain: str, of_planes: type[str] = str) -> Inputs:
    """Labels of the MRI or of its planes, where the user gave some; `Ancient` ones of planes."""
    inputs: Inputs = {}
    if labels := study.brains[brain].mri_labels:
        inputs["mri_labels"] = labels
    if plane_labels := _plane_labels(study, brain):
        inputs["plane_labels"] = [of_planes(path) for path in plane_labels]
    return inputs


def trust(study: Study, brain: str) -> Inputs:
    """Every method's transforms, which are compared with each other, and what the doctor found."""
    inputs: Inputs = {"tables": [study.table(brain, method) for method in methods_of(study, brain)]}
    if not study.brains[brain].is_simulated:
        inputs["findings"] = study.path(brain, "doctor", names.FINDINGS)
    return inputs


def trusted(study: Study, brain: str) -> list[str]:
    """Expected errors of each method's sections."""
    methods = methods_of(study, brain)
    return [study.path(brain, method, names.TRUST, names.TABLE) for method in methods]


def evaluate(study: Study, brain: str, folders_of: Folders) -> Inputs:
    """Every method's transforms and volume, and whatever truth the user gave.

    `folders_of` is `own_folders`, with what is expected where there is no truth, or
    `compared_folders` in a comparison, which is of measured accuracy alone.
    """
    folders = folders_of(study, brain).values()
    inputs = {
        "tables": [study.table(brain, folder) for folder in folders],
        "volumes": [path for folder in folders for path in study.volumes(brain, folder)],
        **mri_frame(study, brain),
        **_labels(study, brain),
    }
    for name in ("landmarks", "corrections"):
        if path := getattr(study.brains[brain].row, name):
            inputs[name] = path
    if folders_of is own_folders:
        inputs["trust"] = trusted(study, brain)
    return inputs


def compare(study: Study, brain: str) -> Inputs:
    """Every compared method's sections and losses, and what outlines of anatomy are made from."""
    folders = compared_folders(study, brain)
    trained = {method: folder for method, folder in folders.items() if is_compared(folder)}
    inputs = {
        "tables": [study.table(brain, folder) for folder in folders.values()],
        "losses": [study.losses(brain, folder) for folder in trained.values()],
        **_labels(study, brain),
    }
    if any(study.config.takes_registrar(method) for method in trained):
        inputs["registrar"] = study.losses(brain, "registrar")
    if not study.brains[brain].prealigned:
        inputs["similarity"] = study.similarity(brain)
    return inputs


def report(study: Study, brain: str) -> Inputs:
    """Tables and pictures of a brain."""
    methods = methods_of(study, brain)
    inputs: Inputs = {
        "tables": [study.table(brain, method) for method in methods],
        "volumes": [path for method in methods for path in study.volumes(brain, method)],
        "trust": trusted(study, brain),
    }
    if label_names := study.brains[brain].row.label_names:
        inputs["label_names"] = label_names
    if not study.brains[brain].prealigned:
        inputs["fit"] = study.path(brain, "align", names.QUALITY)
    if not study.brains[brain].is_simulated:
        inputs["checked"] = study.path(brain, "check", names.FINDINGS)
        inputs["findings"] = study.path(brain, "doctor", names.FINDINGS)
        inputs["contact_sheet"] = study.path(brain, "doctor", names.CONTACT_SHEET)
    if folders := study.trainings(brain):
        inputs["losses"] = [study.losses(brain, folder) for folder in folders]
    return inputs
