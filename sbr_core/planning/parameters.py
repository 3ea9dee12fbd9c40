"""Parameters and resources of the rules: words of command lines, rows as JSON, graphics cards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sbr_core.config import Config, canonical_json, has_card
from sbr_core.io.manifests import rows_to_json
from sbr_core.methods import REGISTRY
from sbr_core.planning.study import Folders, Study, is_compared, method_of


def one_of(names: Iterable[str]) -> str:
    """Regular expression that matches exactly these names, to constrain a wildcard.

    Of no names it matches nothing: an empty one Snakemake takes for no constraint.
    """
    return "|".join(re.escape(name) for name in names) or "(?!)"


def folder_of(path: str, levels: int = 1) -> str:
    """The folder `levels` above a file."""
    return str(Path(path).parents[levels - 1])


def flags(**values: Any) -> list[str]:
    """Words of a command line; a flag that is None, False or an empty list is left out."""
    words: list[str] = []
    for name, value in values.items():
        if value is None or value is False or value == []:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += [str(v) for v in value] if isinstance(value, list) else [str(value)]
    return words


@cache
def chunk_json(study: Study, brain: str, chunk: str) -> str:
    """The rows of a chunk as JSON; without notes, which change nothing."""
    return rows_to_json(study.brains[brain].chunks[chunk])


@cache
def plane_json(study: Study, brain: str, chunk: str) -> str:
    """The rows of a chunk as JSON, with only what decides their MRI planes."""
    bare = {"mask": "", "labels": "", "mri_labels": "", "flip": "none", "rotate_deg": 0.0}
    bare |= {"stain": "", "image_channel": "", "box_px": "", "thickness_um": None}
    bare |= {"stain_group": "", "affine_from": ""}
    return rows_to_json([replace(row, **bare) for row in study.brains[brain].chunks[chunk]])


def rows_file(receipt: str) -> str:
    """Where a job writes the rows it is given, beside its receipt.

    On a command line they would outgrow what the system allows in one argument, 128 KiB.
    """
    return str(Path(receipt).with_suffix(".rows.json"))


def label_values(study: Study, brain: str, inputs: Mapping[str, Any]) -> dict[str, str | None]:
    """Values of flags: labels of the MRI, or the manifest that names those of its planes.

    Given the inputs of the rule.
    """
    manifest = study.brains[brain].row.sections if inputs.get("plane_labels") else None
    return {"mri_labels": inputs.get("mri_labels"), "rows": manifest}


def method_folders(study: Study, brain: str, folders_of: Folders) -> list[str]:
    """``METHOD=FOLDER`` of every method, of the brain's own or of its comparison."""
    return [f"{m}={study.path(brain, folder)}" for m, folder in folders_of(study, brain).items()]


def report_values(study: Study, brain: str, inputs: Mapping[str, Any]) -> dict[str, str | None]:
    """Values of flags: names of labels, and the files that commands on the page name.

    Given the inputs of the rule.
    """
    of_user = None if study.brains[brain].is_simulated else study.brains[brain].row
    return {
        "label_names": inputs.get("label_names"),
        "manifest": of_user.sections if of_user else None,
        "corrections": of_user.corrections or None if of_user else None,
    }


def accepted_sections(study: Study, brain: str) -> list[str]:
    """Sections that the user looked at and found good."""
    corrections = study.brains[brain].corrections
    return [section for section, each in corrections.items() if each.verdict == "accept"]


def training_options(study: Study, brain: str, folder: str) -> str:
    """A training's own section of the configuration as JSON; in a comparison with its budget."""
    section = f"train_{method_of(folder)}"
    if is_compared(folder):
        return study.config.compared_json(section)
    start = study.weights_start(brain, folder)
    return study.config.training_json(section, start=start is not None)


def inference_section(folder: str) -> str:
    """The section of the configuration that a method's inference is given."""
    method = REGISTRY[method_of(folder)]
    return "infer" if method.trained or method.section is None else method.section


def inference_cards(config: Config, folder: str) -> int:
    """Graphics cards that the inference of a method asks for: none without networks."""
    method = REGISTRY[method_of(folder)]
    has_networks = method.trained or method.starts_at_shipped
    return cards(config, inference_section(folder)) if has_networks else 0


def cards(config: Config, section: str) -> int:
    """Graphics cards that a job with these options asks for."""
    asked = int(has_card()) if config.gpus is None else config.gpus
    return {"cpu": 0, "cuda": max(1, asked)}.get(getattr(config, section).device, asked)


def card_resources(
    config: Config, cards_of_job: Callable[[Any], int]
) -> dict[str, Callable[[Any], int | str]]:
    """Resources of a rule whose job takes `cards_of_job(wildcards)` graphics cards.

    `gpu` is also what two jobs on one workstation may not take at a time; `gres` is for clusters
    that know nothing else.
    """
    if config.gres is None:
        return {"gpu": cards_of_job}
    return {
        "gres": lambda wildcards: f"{config.gres}:{n}" if (n := cards_of_job(wildcards)) else ""
    }


def work_json(config: Config, trainings: Iterable[str]) -> str:
    """What a run does with a brain, as `sbr check` estimates it, as JSON with sorted keys.

    Parameters
    ----------
    trainings : folders of the networks that the brain trains: the registrar's, methods'.
    """
    registrar = config.train_registrar
    of_registrar = {"finetune": registrar.finetune_steps, "train": registrar.steps}
    steps = sum(
        of_registrar.get(config.registrar, 0)
        if folder == "registrar"
        else getattr(config, f"train_{method_of(folder)}").steps
        for folder in trainings
    )
    methods = dict.fromkeys(("linear", *config.methods))
    refine = config.infer
    return canonical_json(
        {
            "working_pixel_mm": config.prepare.working_pixel_mm,
            "n_methods": len(methods),
            "n_deforming": len(methods) - 1,
            "training_steps": steps,
            "refine_steps": refine.refine_steps * len(refine.refine_levels),
        }
    )
