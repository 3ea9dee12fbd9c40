"""Every option of every stage, with its default, its limits and what it does.

The classes here are the only list of options: the JSON schema in ``workflow/schemas`` and the
tables of ``config/README.md`` are made from them (``make schema``), and unknown keys are refused
by name. This package imports no torch, so that planning a workflow stays fast.
"""

from sbr_core.config.base import PLACEHOLDER, IntensityOptions, Options
from sbr_core.config.coherence import CoherentOptions
from sbr_core.config.stages import (
    AlignOptions,
    AlignSectionsOptions,
    CheckOptions,
    CompareOptions,
    DemoOptions,
    DoctorOptions,
    EvaluateOptions,
    InferOptions,
    MethodName,
    MindOptions,
    PrepareOptions,
    RefineOptions,
    ReportOptions,
    ResampleOptions,
    SimulateOptions,
    Stain,
    TrustOptions,
)
from sbr_core.config.training import (
    AdversaryOptions,
    AugmentOptions,
    CganOptions,
    GeneratorNetwork,
    NmiOptions,
    NmiwOptions,
    OwnRegistrarOptions,
    PairOptions,
    RegistrarNetwork,
    RegistrarOptions,
    RegistrarSource,
    RotOptions,
    SbrGOptions,
    SbrNOptions,
    SbrOptions,
    SbrROptions,
    ShapesOptions,
    SynOptions,
    ThroughRegistrarOptions,
    TrainOptions,
    as_finetuning,
)
from sbr_core.config.values import load_json, load_yaml
from sbr_core.config.volumes import ReassembleOptions, RegisteredOptions
from sbr_core.config.whole import (
    PRESETS,
    UNLIMITED_STEPS,
    Config,
    GeneralOptions,
    canonical_json,
    has_card,
    inherited_keys,
    merged,
    parse_options,
    resolve,
    takes_registrar,
    with_inherited,
)
