"""What a method is, in one place.

A new method is an entry here, a class of options in `sbr_core.config.training`, a task in
`sbr_core.training`, and its lines in the presets; configuration, planning, command line, report
and comparison find it here. Classes are named by dotted paths, so that this module imports
neither torch nor the configuration.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Inheritance:
    """Keys that a section of the configuration takes from another one, unless it has its own.

    Attributes
    ----------
    section : the other section.
    groups : option classes of `sbr_core.config.training`; all of their keys are inherited.
    but : keys that are not: the inheriting section has defaults of its own for them.
    """

    section: str
    groups: tuple[str, ...]
    but: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to register sections to the MRI.

    Attributes
    ----------
    name : in the configuration, on the command line and in paths.
    title : in text and figures.
    description : one line.
    colour : in figures, ``#RRGGBB``.
    options : its class of options, ``module:class``; none: nothing to choose.
    task : the class of what it trains, ``module:class`` (`sbr_core.training.tasks`); none: it is
        not trained.
    through_shared_registrar : its synthesis is trained through the brain's registrar of
        `train_registrar`.
    trains_registrar : its weights contain the registrar that inference uses, which may start as a
        copy of the shared one; methods that train none use the shared one.
    predictor : the class that registers its sections, ``module:class``, built with the options and
        the sections that wait (`sbr_core.artifacts.predictors`); of methods that are not trained.
    starts_at_shipped : it starts at the answer of the registrar that ships.
    needs_labels : it learns from labels of the sections and of the MRI.
    follows : it corrects the deformations of another method (`cohere`).
    inherits : what its section of the configuration takes from others; these come earlier.
    revision : raised when the results of its own section change (`sbr_core.revisions`).
    """

    name: str
    title: str
    description: str
    colour: str
    options: str | None = None
    task: str | None = None
    through_shared_registrar: bool = False
    trains_registrar: bool = False
    predictor: str | None = None
    starts_at_shipped: bool = False
    needs_labels: bool = False
    follows: bool = False
    inherits: tuple[Inheritance, ...] = ()
    revision: int = 1

    @property
    def trained(self) -> bool:
        """Whether networks are trained for it."""
        return self.task is not None

    @property
    def section(self) -> str | None:
        """Its section of the configuration."""
        if self.options is None:
            return None
        return f"train_{self.name}" if self.trained else self.name


_ENTRIES = (
    Method(
        name="linear",
        title="Linear",
        description="the affine of each section alone, the baseline",
        colour="#B3B3B3",
    ),
    Method(
        name="sbr",
        title="SbR",
        description="Synth-by-Reg: a synthesis trained through the shared registrar",
        colour="#0072B2",
        options="sbr_core.config.training:SbrOptions",
        task="sbr_core.training.sbr:SbrTask",
        through_shared_registrar=True,
        revision=4,
    ),
    Method(
        name="sbr_n",
        title="SbR-N",
        description="SbR without the contrastive term",
        colour="#56B4E9",
        options="sbr_core.config.training:SbrNOptions",
        task="sbr_core.training.sbr:SbrTask",
        through_shared_registrar=True,
        inherits=(
            Inheritance(section="train_sbr", groups=("SbrOptions",), but=("contrastive_weight",)),
        ),
    ),
    Method(
        name="sbr_r",
        title="SbR-R",
        description="SbR whose registrar is trained too, at the end",
        colour="#009E73",
        options="sbr_core.config.training:SbrROptions",
        task="sbr_core.training.sbr:SbrRTask",
        through_shared_registrar=True,
        trains_registrar=True,
        inherits=(Inheritance(section="train_sbr", groups=("SbrOptions",)),),
        revision=3,
    ),
    Method(
        name="sbr_g",
        title="SbR-G",
        description="SbR with a discriminator",
        colour="#000000",
        options="sbr_core.config.training:SbrGOptions",
        task="sbr_core.training.sbr:SbrGTask",
        through_shared_registrar=True,
        inherits=(Inheritance(section="train_sbr", groups=("SbrOptions",)),),
        revision=3,
    ),
    Method(
        name="nmi",
        title="NMI",
        description="a registrar trained by normalised mutual information, without synthesis",
        colour="#F0E442",
        options="sbr_core.config.training:NmiOptions",
        task="sbr_core.training.nmi:NmiTask",
        trains_registrar=True,
        inherits=(
            Inheritance(
                section="train_sbr",
                groups=("PairOptions",),
                but=("batch_size", "learning_rate", "beta1"),
            ),
            Inheritance(section="train_registrar", groups=("RegistrarNetwork",)),
        ),
        revision=2,
    ),
    Method(
        name="nmiw",
        title="NMIw",
        description="NMI and the overlap of labels",
        colour="#E69F00",
        options="sbr_core.config.training:NmiwOptions",
        task="sbr_core.training.nmi:NmiwTask",
        trains_registrar=True,
        needs_labels=True,
        inherits=(Inheritance(section="train_nmi", groups=("NmiOptions",)),),
        revision=2,
    ),
    Method(
        name="cgan",
        title="cGAN",
        description="CycleGAN and the registration loss through the shared registrar",
        colour="#CC79A7",
        options="sbr_core.config.training:CganOptions",
        task="sbr_core.training.cgan:CganTask",
        through_shared_registrar=True,
        inherits=(Inheritance(section="train_sbr", groups=("ThroughRegistrarOptions",)),),
    ),
    Method(
        name="rot",
        title="RoT",
        description="translation and registration trained together to commute",
        colour="#D55E00",
        options="sbr_core.config.training:RotOptions",
        task="sbr_core.training.rot:RotTask",
        trains_registrar=True,
        inherits=(
            Inheritance(
                section="train_sbr",
                groups=("PairOptions", "GeneratorNetwork"),
                but=("batch_size",),
            ),
            Inheritance(section="train_registrar", groups=("RegistrarNetwork",)),
        ),
    ),
    Method(
        name="syn_mi",
        title="SyN-MI",
        description="SyN with Mattes mutual information by ANTs, the classical reference",
        colour="#666666",
        options="sbr_core.config.training:SynOptions",
        predictor="sbr_core.artifacts.predictors:SynPredictor",
    ),
    Method(
        name="mind",
        title="MIND",
        description="the registrar that ships, then self-similarity optimised; no training",
        colour="#882255",
        options="sbr_core.config.stages:MindOptions",
        predictor="sbr_core.artifacts.predictors:MindPredictor",
        starts_at_shipped=True,
    ),
    Method(
        name="coherent",
        title="coherent",
        description="another method's deformations, corrected so that neighbouring sections agree",
        colour="#117733",
        options="sbr_core.config.coherence:CoherentOptions",
        follows=True,
    ),
)
"""In the order of their sections of the configuration. The colours are those of Okabe and Ito,
which colour-blind readers tell apart; the methods that train nothing have two greys and the wine
red of Tol's palette."""

# those that train nothing, those of others, Synth-by-Reg and its variants, then what follows one
REGISTRY: Mapping[str, Method] = {
    method.name: method
    for method in sorted(_ENTRIES, key=lambda m: (m.follows, m.trained, m.name.startswith("sbr")))
}
"""Name -> method, in the order in which methods are listed and drawn."""
WITH_OPTIONS = tuple(method for method in _ENTRIES if method.section is not None)
"""Methods with a section of the configuration, in the order of the sections."""


def _names(fact: str) -> tuple[str, ...]:
    return tuple(name for name, method in REGISTRY.items() if getattr(method, fact))


METHODS = tuple(REGISTRY)
"""Methods that can be asked for; `linear` is always computed, as the baseline."""
TRAINED_METHODS = _names("trained")
SHARED_REGISTRAR_METHODS = _names("through_shared_registrar")
"""Trained through the brain's registrar of `train_registrar`; the others train their own, which
may start as a copy of it (`config.takes_registrar`)."""
OWN_REGISTRAR_METHODS = _names("trains_registrar")
"""Their weights contain the registrar that inference uses; the others use the shared one."""
LABEL_METHODS = _names("needs_labels")
"""Need labels of sections and of the MRI to train."""
COMPARED_METHODS = tuple(name for name, method in REGISTRY.items() if not method.follows)
"""Those that `compare` trains or runs side by side."""
FOLLOWED_METHODS = tuple(name for name in COMPARED_METHODS if name != "syn_mi")
"""Those that `coherent` can start from; SyN's deformations are not of one velocity."""


def imported(path: str) -> Any:
    """The object that a dotted path, ``module:name``, is of."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
