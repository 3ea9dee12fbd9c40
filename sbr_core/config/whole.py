"""The whole configuration: defaults, then the preset, then the user's own keys."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model

from sbr_core.config import stages, training, volumes
from sbr_core.config.base import Count, FolderName, Options
from sbr_core.config.stages import MethodName
from sbr_core.config.training import PairOptions, RegistrarSource
from sbr_core.config.values import check_values, load_yaml
from sbr_core.errors import ConfigError
from sbr_core.methods import (
    FOLLOWED_METHODS,
    METHODS,
    SHARED_REGISTRAR_METHODS,
    WITH_OPTIONS,
    Inheritance,
    imported,
)

PRESETS = Path(__file__).with_name("presets")
"""Those that a configuration names; they come with the package, wherever the workflow lies."""
UNLIMITED_STEPS = 10**9
"""Steps of a training that ends by its minutes."""


def has_card() -> bool:
    """Whether this machine has a graphics card, NVIDIA's or AMD's, that a job may find.

    Asked of the system alone: whether the card suits the installed PyTorch takes seconds to learn.
    """
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


class GeneralOptions(Options):
    """The keys above the sections."""

    preset: str = Field(
        "demo",
        description="`demo`, `quick`, `cpu`, `paper`, or the path of a `.yaml` file of your own.",
    )
    brains: str = Field("config/brains.tsv", description="The sheet of brains, tab-separated.")
    results: FolderName = Field("results", description="Folder of all results.")
    methods: tuple[MethodName, ...] = Field(
        ("linear", "sbr"),
        description=(
            f"Methods to run, of {', '.join(f'`{method}`' for method in METHODS)}"
            " (`docs/method.md`); `linear` is always computed, as the baseline."
        ),
    )
    registrar: RegistrarSource = Field(
        "shipped",
        description=(
            "Where the registration network comes from: `shipped` is in the package, was trained on"
            " synthetic shapes and serves any brain at once; `finetune` trains it for a short time"
            " on the brain's own MRI planes; `train` is the paper's way, from nothing."
        ),
    )
    strict: bool = Field(
        False,
        description=(
            "Stop at the first section that cannot be used, instead of leaving it out and"
            " reporting it; likewise at the first labels of a plane (`mri_labels` in the manifest)."
        ),
    )
    chunk_size: Count = Field(
        16,
        description=(
            "Sections that one job works on, about; more where a brain would otherwise have more"
            " than 128 jobs in a stage."
        ),
    )
    gpus: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description=(
            "Graphics cards that a training or inference job takes, 0 for none; none given: one"
            " where the machine that plans has one. On a cluster, whose login node may have none,"
            " write `1`. Locally only one such job runs at a time."
        ),
    )
    gres: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(:[A-Za-z0-9_.]+)?$")] | None = Field(
        None,
        description=(
            "On a cluster that gives cards by `--gres` only: what they are called there, `gpu` or"
            " `gpu:a100` (`docs/cluster.md`)."
        ),
    )
    container: str | None = Field(
        None,
        description=(
            "Image in which jobs run with `--software-deployment-method apptainer`: a `.sif` file"
            " or `docker://…` (`docs/cluster.md#software`)."
        ),
    )


class _UpToRegistrar(GeneralOptions):
    """With the sections before those of the methods."""

    demo: stages.DemoOptions = stages.DemoOptions()
    prepare: stages.PrepareOptions = stages.PrepareOptions()
    check: stages.CheckOptions = stages.CheckOptions()
    doctor: stages.DoctorOptions = stages.DoctorOptions()
    align: stages.AlignOptions = stages.AlignOptions()
    resample: stages.ResampleOptions = stages.ResampleOptions()
    align_sections: stages.AlignSectionsOptions = stages.AlignSectionsOptions()
    train_registrar: training.RegistrarOptions = training.RegistrarOptions()


_UpToMethods = create_model(
    "_UpToMethods",
    __base__=_UpToRegistrar,
    **{
        method.section: (options, options())
        for method, options in ((method, imported(method.options)) for method in WITH_OPTIONS)
    },
)


class Config(_UpToMethods):
    """The whole of ``config/config.yaml`` after its preset is filled in."""

    infer: stages.InferOptions = stages.InferOptions()
    reassemble: volumes.ReassembleOptions = volumes.ReassembleOptions()
    registered: volumes.RegisteredOptions = volumes.RegisteredOptions()
    trust: stages.TrustOptions = stages.TrustOptions()
    evaluate: stages.EvaluateOptions = stages.EvaluateOptions()
    compare: stages.CompareOptions = stages.CompareOptions()
    report: stages.ReportOptions = stages.ReportOptions()
    simulate: stages.SimulateOptions = stages.SimulateOptions()

    @property
    def followed(self) -> str:
        """The method whose deformations `coherent` corrects."""
        if self.coherent.of != "auto":
            return self.coherent.of
        until = self.methods.index("coherent") if "coherent" in self.methods else None
        before = [method for method in self.methods[:until] if method in FOLLOWED_METHODS]
        return before[-1] if before else "linear"

    def takes_registrar(self, method: str) -> bool:
        """`takes_registrar` of a trained method by its own section."""
        return takes_registrar(method, getattr(self, f"train_{method}"))

    def section_json(self, name: str) -> str:
        """One section as JSON with sorted keys: what a rule is given, and reruns on.

        The keys of `reassemble` are of two rules, each of which is given its own.
        """
        section, unasked = _KEYS_OF.get(name, (name, ()))
        return canonical_json(getattr(self, section).asked(unasked))

    def training_json(self, name: str, *, start: bool = False) -> str:
        """A method's training as JSON.

        Without what it is not asked for: a change of the `finetune_` options is none of a training
        that starts from nothing, one of `steps` none of a training that goes on from another
        brain's networks (`start`).
        """
        return canonical_json(self._training(name, start=start))

    def compared_json(self, name: str) -> str:
        """A training's section as JSON, with the budget of a comparison instead of its steps."""
        budget = {"minutes": self.compare.minutes, "steps": UNLIMITED_STEPS}
        return canonical_json(self._training(name) | budget)

    def _training(self, name: str, *, start: bool = False) -> dict[str, Any]:
        tuned = ("finetune_steps", "finetune_learning_rate")
        unasked = ("steps", "learning_rate") if start else tuned
        return getattr(self, name).model_dump(mode="json", exclude=set(unasked))


_KEYS_OF = {
    "reassemble": ("reassemble", ("colour", "format")),
    "reassemble_colour": ("reassemble", ("colour", "even_sections", "fill")),
}
"""Stage -> its section, and the keys of it that are not asked of the stage."""


def takes_registrar(method: str, options: PairOptions) -> bool:
    """Whether a method's training is given the brain's registrar: to go through, or to start at."""
    starts_at = getattr(options, "registrar_start", "nothing")
    return method in SHARED_REGISTRAR_METHODS or starts_at == "shared"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal options are equal strings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A new dict: `over` laid on `base`, dicts merged key by key, nothing shared between them."""
    out = copy.deepcopy(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def parse_options(model: type[Options], values: dict[str, Any], where: str) -> Any:
    """Validate `values`; ConfigError naming the first wrong key, dotted, after `where`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([*([where] if where else []), *(str(p) for p in first["loc"])])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"config: unknown key '{key}'") from None
        found = json.dumps(first.get("input"), default=str)
        raise ConfigError(f"config: {key}: {first['msg']}, found {found[:80]}") from None
    except (RecursionError, OverflowError, ValueError) as error:
        raise ConfigError(f"config: {where or 'its values'}: {error}") from None


def resolve(values: dict[str, Any], presets_dir: Path = PRESETS) -> Config:
    """The whole configuration: defaults, then the preset, then the user's own keys.

    A method's section inherits what is written for other ones (`sbr_core.methods.Inheritance`).

    Parameters
    ----------
    values : what the user wrote, command line included. ``preset`` is a name in `presets_dir`
        or a path that ends in ``.yaml``.
    """
    check_values(values)
    preset = values.get("preset", Config.model_fields["preset"].default)
    if not isinstance(preset, str):
        raise ConfigError(f"config: preset: expected a name or a .yaml path, found {preset!r}")
    path = Path(preset) if preset.endswith(".yaml") else Path(presets_dir) / f"{preset}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in Path(presets_dir).glob("*.yaml")))
        raise ConfigError(f"config: preset '{preset}': no such preset (known: {known})")
    return parse_options(Config, with_inherited(merged(load_yaml(path), values)), "")


def with_inherited(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with each inheriting section filled in, so that a preset writes a key once."""
    values = dict(values)
    for method in WITH_OPTIONS:  # a method comes after those whose sections it inherits from
        written = values.get(method.section) or {}
        if not isinstance(written, dict):
            continue  # refused by name when the whole is parsed
        inherited: dict[str, Any] = {}
        for inheritance in method.inherits:
            keys = inherited_keys(inheritance)
            given = values.get(inheritance.section)
            if isinstance(given, dict):
                inherited |= {key: value for key, value in given.items() if key in keys}
        if inherited or written:
            values[method.section] = merged(inherited, written)
    return values


def inherited_keys(inheritance: Inheritance) -> set[str]:
    """The keys that a method's section inherits from another section."""
    keys = {key for group in inheritance.groups for key in getattr(training, group).model_fields}
    return keys - set(inheritance.but)
