"""What one call of the workflow plans with: the configuration, the brains and their files."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sbr_core.artifacts import names
from sbr_core.config import PRESETS, Config, resolve
from sbr_core.errors import SbrError
from sbr_core.io.files import refuse_links
from sbr_core.io.manifests import read_brains
from sbr_core.methods import LABEL_METHODS, METHODS, REGISTRY, TRAINED_METHODS
from sbr_core.planning.sheet import CHECKPOINTS, Brain, Demo, brains_of, demo_of, simulated_brain

logger = logging.getLogger(__name__)

SECTION_STAGES = ("prepare", "resample", "align_sections")
"""Stages that work section by section, before any method is chosen."""
REFERENCES = ("syn_mi",)
"""Classical methods that simulated pairs are also given to, asked for or not."""
COMPARED = "compare/"
"""What the folder of a method that is trained for a comparison begins with."""
REGISTERED = "registered"
"""Folder of a method's sections in full, in its own."""
METHOD_FOLDERS = (*METHODS, *(COMPARED + method for method in TRAINED_METHODS))
"""Every folder of a method's results: a comparison trains its own networks, in folders apart."""


def method_of(folder: str) -> str:
    """The method whose results a folder has: the brain's own or those of its comparison."""
    return folder.removeprefix(COMPARED)


def is_compared(folder: str) -> bool:
    """Whether a method's folder belongs to a comparison."""
    return folder.startswith(COMPARED)


@dataclass(frozen=True, eq=False)
class Study:
    """The configuration, and the brains that can be used, those of the sheet and simulated ones.

    Attributes
    ----------
    faults : brain of the sheet that is left out -> why.
    """

    config: Config
    brains: Mapping[str, Brain]
    faults: Mapping[str, str]
    demo: Demo

    @property
    def of_sheet(self) -> list[str]:
        """Names of the brains of the sheet that can be used."""
        return [name for name, brain in self.brains.items() if not brain.is_simulated]

    @property
    def simulated(self) -> list[str]:
        """Names of the simulated brains; they are made when they are asked for."""
        return [name for name, brain in self.brains.items() if brain.is_simulated]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that are run on every brain of the sheet."""
        return tuple(dict.fromkeys(("linear", *self.config.methods)))

    def path(self, brain: str, *parts: str) -> str:
        """A path below the results of a brain."""
        return str(Path(self.config.results, brain, *parts))

    @property
    def refusals(self) -> list[str]:
        """What a target asks for beside its results: each brain left out is a job that fails.

        Not in its own folder, of which nothing is known: it may be a link, or have such a file.
        """
        return [f".snakemake/sbr_refused/{brain}" for brain in self.faults]

    def receipts(self, brain: str, stage: str) -> list[str]:
        """Receipts of one per-section stage, or of one method's inference."""
        return [
            self.path(brain, stage, names.CHUNKS, f"{c}.tsv") for c in self.brains[brain].chunks
        ]

    def table(self, brain: str, stage: str) -> str:
        """The table of all sections, collected from those receipts."""
        return self.path(brain, stage, names.TABLE)

    def weights(self, brain: str, network: str) -> str:
        """Weights of a brain's registrar, or of the networks in a method's folder."""
        return self.path(brain, network, names.WEIGHTS)

    def checkpoints(self, brain: str, network: str) -> str:
        """Where a training keeps its checkpoints: outside of any rule's output."""
        return str(Path(self.config.results, CHECKPOINTS, brain, network))

    def changes(self, brain: str, folder: str) -> str:
        """Corrections of a method that follows another."""
        return self.path(brain, folder, names.ALONG, names.CHANGES)

    def similarity(self, brain: str) -> str:
        """The 3D similarity of a brain that is not prealigned."""
        return self.path(brain, "align", names.STACK_TRANSFORM)

    def fit(self, brain: str) -> dict[str, str]:
        """Everything the global fit of a brain that is not prealigned hands on."""
        return {
            "similarity": self.similarity(brain),
            "plane_grid": self.path(brain, "align", names.PLANE_GRID),
            "initial": self.path(brain, "align", names.INITIAL_AFFINES),
        }

    def volumes(self, brain: str, folder: str) -> list[str]:
        """The reassembled volume of each stain group: in MRI space, or in that of the stack."""
        space = "stack" if self.brains[brain].prealigned else "mri"
        folder = Path(self.path(brain, folder, names.VOLUME))
        return [
            str(names.volume_file(folder, brain, space, "histology", group))
            for group in self.brains[brain].stain_groups
        ]

    @property
    def stain_pattern(self) -> str:
        """What names of volumes may have after their space, of any brain: a regular expression.

        See `names.stain_entity`. In brackets, since Snakemake takes an empty one for none.
        """
        groups = {group for brain in self.brains.values() for group in brain.stain_groups}
        return f"({'|'.join(names.stain_entity(group) for group in sorted(groups))})"

    def written_methods(self, brain: str) -> list[str]:
        """Methods whose sections are written in full where that is asked for.

        The baseline is one of them only where there is no other.
        """
        methods = list(methods_of(self, brain))
        return [method for method in methods if method != "linear"] or methods

    def full_sections(self, brain: str) -> list[str]:
        """Receipts of registered sections in full, as far as these are asked for."""
        if self.config.registered.pixel_mm is None:
            return []
        return [
            receipt
            for method in self.written_methods(brain)
            for receipt in self.receipts(brain, f"{method}/{REGISTERED}")
        ]

    def colour_volumes(self, brain: str) -> list[str]:
        """Volumes in the sections' own colours, as far as these are asked for."""
        if not self.config.reassemble.colour:
            return []
        space = "stack" if self.brains[brain].prealigned else "mri"
        kind = self.config.reassemble.format
        folders = [self.path(brain, m, names.VOLUME) for m in self.written_methods(brain)]
        return [
            str(names.colour_file(Path(folder), brain, space, kind, group))
            for folder in folders
            for group in self.brains[brain].stain_groups
        ]

    def simulated_data(self, brain: str) -> dict[str, str]:
        """What simulated pairs are made with: the manifest of a simulated brain, and its truth."""
        return {
            "manifest": self.path(brain, "data", names.TABLE),
            "landmarks": self.path(brain, "data", names.LANDMARKS),
            "truth": self.path(brain, "data", names.TRUTH),
        }

    def losses(self, brain: str, network: str) -> str:
        """Losses of a training, beside its weights."""
        return self.path(brain, network, names.LOSSES)

    def weights_start(self, brain: str, folder: str) -> str | None:
        """The brain whose networks a training starts from.

        None: from nothing, as every training of a comparison does.
        """
        return None if is_compared(folder) else self.brains[brain].weights_start

    def weights_donor(self, brain: str, folder: str) -> str:
        """The brain whose networks a method's inference uses: its own, in a comparison."""
        return brain if is_compared(folder) else self.brains[brain].weights_donor

    def registrar_of(self, brain: str, folder: str) -> str:
        """The brain whose registrar a method is trained through and infers with.

        A training that starts from networks of another brain goes on with what they were trained
        through; in a comparison every brain has its own.
        """
        donor = self.weights_donor(brain, folder)
        start = self.weights_start(donor, folder)
        return donor if start is None else self.registrar_of(start, folder)

    def trainings(self, brain: str) -> list[str]:
        """Folders of the networks that a brain trains itself: the shared registrar's, methods'."""
        if not self.brains[brain].trains:
            return []
        trained = [method for method in self.methods if method in TRAINED_METHODS]
        folders = [method for method in trained if method in methods_of(self, brain)]
        if self.brains[brain].weights_start is None and any(
            self.config.takes_registrar(method) for method in trained
        ):
            folders.insert(0, "registrar")
        return folders

    def results(self, brain: str) -> list[str]:
        """Every file of a brain whose loss is to be noticed."""
        methods = methods_of(self, brain)
        return [
            *(path for s in (*SECTION_STAGES, *methods) for path in self.receipts(brain, s)),
            *([] if self.brains[brain].prealigned else self._of_mri(brain)),
            *(self.weights(brain, folder) for folder in self.trainings(brain)),
            *(path for method in methods for path in self.volumes(brain, method)),
            *(self.changes(brain, method) for method in methods if REGISTRY[method].follows),
            *(self.path(brain, method, names.TRUST, names.TABLE) for method in methods),
            *self.full_sections(brain),
            *self.colour_volumes(brain),
        ]

    def _of_mri(self, brain: str) -> list[str]:
        """The facts of the MRI, which stand for it, and how it fits."""
        return [self.path(brain, "prepare", names.MRI_FACTS), *self.fit(brain).values()]


Folders = Callable[[Study, str], Mapping[str, str]]
"""`own_folders` or `compared_folders`: method -> folder of its results, of a study and a brain."""


@cache
def methods_of(study: Study, brain: str) -> tuple[str, ...]:
    """Methods that are run on a brain; on a simulated one as far as its source has labels."""
    if not study.brains[brain].is_simulated:
        return study.methods
    methods = dict.fromkeys((*study.methods, *REFERENCES))
    return tuple(m for m in methods if not _lacks_labels(study, brain, m, "simulate"))


def own_folders(study: Study, brain: str) -> dict[str, str]:
    """Method -> folder of its results, of the methods that are run on a brain anyway."""
    return {method: method for method in methods_of(study, brain)}


@cache
def compared_folders(study: Study, brain: str) -> dict[str, str]:
    """Method -> folder, of a comparison; what is not trained is shared with the brain's own."""
    methods = dict.fromkeys(("linear", *study.config.compare.methods))
    return {
        method: COMPARED + method if method in TRAINED_METHODS else method
        for method in methods
        if not _lacks_labels(study, brain, method, "compare")
    }


def _lacks_labels(study: Study, brain: str, method: str, target: str) -> bool:
    """Whether a method learns from labels that a brain does not have, which is logged."""
    lacking = method in LABEL_METHODS and not study.brains[brain].has_labels
    if lacking:
        logger.info(f"{target}: {brain}: without {method}, which needs labels to train with")
    return lacking


def read_study(
    values: dict[str, Any], presets: Path = PRESETS, *, compare_sums: bool = True
) -> Study:
    """The study that a configuration describes.

    Parameters
    ----------
    values : what the user wrote in ``config/config.yaml`` and on the command line.
    presets : folder of the presets.
    compare_sums : whether small results are compared with their sums: once for a run, not by each
        of its jobs, while others write them.

    Raises
    ------
    SbrError
        The configuration or the sheet is faulty, or no brain of it can be used.
    """
    config = resolve(values, presets)
    for shared in ("logs", "benchmarks"):
        refuse_links(Path(config.results, shared))
    if (checkpoints := Path(config.results, CHECKPOINTS)).is_symlink():
        refuse_links(checkpoints)  # those of each brain, with that brain
    sheet = read_brains(Path(config.brains))
    demo = demo_of(sheet, config.demo)
    brains, faults = brains_of(sheet, config, demo, compare_sums=compare_sums)
    simulated = [simulated_brain(brain, config) for brain in brains.values()]
    return Study(config, brains | {brain.row.brain: brain for brain in simulated}, faults, demo)


def study_or_exit(
    values: dict[str, Any], presets: Path = PRESETS, *, compare_sums: bool = True
) -> Study:
    """`read_study`; a fault of the user's becomes one line and an exit, as on the command line."""
    try:
        return read_study(values, presets, compare_sums=compare_sums)
    except SbrError as error:
        print(f"sbr workflow: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
