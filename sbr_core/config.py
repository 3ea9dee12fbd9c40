"""Every option of every stage, with its default, its limits and what it does.

The classes here are the only list of options: the JSON schema in ``workflow/schemas`` is made
from them, ``config/README.md`` teaches them, and unknown keys are refused by name. This module
imports no torch, so that planning a workflow stays fast.
"""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sbr_core.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("expected an odd number")
    return value


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("expected an even number")
    return value


EvenCount = Annotated[int, Field(ge=64), AfterValidator(_even)]
Window = Annotated[int, Field(ge=3), AfterValidator(_odd)]

UNLIMITED_STEPS = 10**9
"""Steps of a training that ends by its minutes."""

MethodName = Literal[
    "linear", "syn_mi", "nmi", "nmiw", "cgan", "rot", "sbr", "sbr_n", "sbr_r", "sbr_g"
]
METHODS: tuple[str, ...] = get_args(MethodName)
"""Methods that can be asked for; `linear` is always computed, as the one to beat."""
UNTRAINED_METHODS = ("linear", "syn_mi")
TRAINED_METHODS = tuple(method for method in METHODS if method not in UNTRAINED_METHODS)
SHARED_REGISTRAR_METHODS = ("cgan", "sbr", "sbr_n", "sbr_r", "sbr_g")
"""Trained through the brain's registrar of `train_registrar`; the others train their own, which
may start as a copy of it (`takes_registrar`)."""
OWN_REGISTRAR_METHODS = ("nmi", "nmiw", "rot", "sbr_r")
"""Their weights hold the registrar that inference uses; the others use the shared one."""
Stain = Literal["auto", "nissl", "hematoxylin", "h&e", "dab", "myelin", "fluorescence", "grey"]
RegistrarSource = Literal["shipped", "finetune", "train"]
"""The registrar in the package, the same trained on a little, or one trained from nothing."""
LABEL_METHODS = ("nmiw",)
"""Need labels of sections and of the MRI to train."""


class Options(BaseModel):
    """Frozen, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DemoOptions(Options):
    """The simulated brain made from the MNI152 maps that ship inside nilearn.

    `deformation_mm` is about what the best affine of each section leaves between true points.
    """

    n_sections: Annotated[int, Field(ge=8)] = 48
    section_spacing_mm: Positive = 3.0
    seed: int = Field(default=1, ge=0)
    pixel_size_mm: Positive = 0.5
    mri_spacing_mm: Positive = 1.2
    affine_jitter: Annotated[float, Field(ge=0, le=3)] = 1.0
    deformation_mm: Annotated[float, Field(gt=0, le=4)] = 2.2


class PrepareOptions(Options):
    """From image files to working-resolution intensity and tissue mask.

    `contradicted_pixel_size`: of sections whose file states a pixel size about 1000 times theirs,
    or a thousandth.
    """

    working_pixel_mm: Positive = 1.25
    contradicted_pixel_size: Literal["refuse", "warn"] = "refuse"
    polarity: Literal["auto", "bright_background", "dark_background"] = "auto"
    stain: Stain = "auto"
    even_light: Literal["auto", "always", "never"] = "auto"
    even_staining: Literal["auto", "always", "never"] = "auto"
    min_tissue_mm2: NonNegative = 20.0


class DoctorOptions(Options):
    """What seems wrong with the sections, judged by their neighbours.

    `expected_share` is that of sections expected to be flipped, and to be turned: how much
    evidence it takes to believe it.
    """

    neighbours: Annotated[int, Field(ge=3, le=12)] = 4
    min_turn_deg: Annotated[float, Field(ge=5, le=90)] = 12.0
    min_confidence: Annotated[float, Field(gt=0, lt=1)] = 0.5
    expected_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    picture_px: Annotated[int, Field(ge=40, le=400)] = 110


class AlignOptions(Options):
    """The 3D similarity of the stack to the MRI, alternated with per-section affines.

    Below `min_explained` and `min_margin` of the start, `align` refuses. With `positions: order`
    positions are known only as an order, and `align` proposes millimetres. Where `spacing_mm` is
    not given, it is 1.5 mm in a human brain, and less in a smaller one.
    """

    positions: Literal["mm", "order"] = "mm"
    rounds: Count = 2
    spacing_mm: Positive | None = None
    max_rotation_deg: Positive = 45.0
    min_explained: Fraction = 0.5
    min_margin: NonNegative = 3.0
    seed: int = Field(default=0, ge=0)


class ResampleOptions(Options):
    """The MRI plane of every section position."""

    order: Literal[1, 3] = 1


class AlignSectionsOptions(Options):
    """One 2D affine per section."""

    max_scale_change: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_shear: NonNegative = 0.3
    prior_weight: NonNegative = 1.0


class IntensityOptions(Options):
    """How an image becomes a network's input: [0, 1] inside the mask, 0 outside."""

    low_quantile: Fraction = 0.01
    high_quantile: Fraction = 0.99

    @model_validator(mode="after")
    def _in_order(self) -> IntensityOptions:
        if self.low_quantile >= self.high_quantile:
            raise ValueError("expected low_quantile below high_quantile")
        return self


class AugmentOptions(Options):
    """Random similarity and smooth random field, drawn for both images independently."""

    rotation_deg: NonNegative = 3.0
    scale: NonNegative = 0.05
    translation_px: NonNegative = 2.0
    field_sigma_px: tuple[NonNegative, NonNegative] = (3.0, 5.0)
    field_grid: Annotated[int, Field(ge=2)] = 9


class TrainOptions(Options):
    """What every training loop shares.

    Training ends after `steps`, or once `minutes` were spent on it where that comes first.
    """

    steps: Steps
    minutes: Positive | None = None
    batch_size: Count
    learning_rate: Positive
    beta1: Momentum = 0.9
    decay_fraction: Fraction = 0.4
    max_grad_norm: Positive = 1.0
    checkpoint_every_s: Positive = 60.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    compile: bool = False
    seed: int = 0
    intensity: IntensityOptions = IntensityOptions()
    augment: AugmentOptions = AugmentOptions()


class RegistrarNetwork(Options):
    """Which registration network, and how wide.

    `decoder_channels` are the U-Net's, `estimator_channels` and `radius_px` the pyramid's.
    """

    network: Literal["unet", "pyramid"] = "unet"
    encoder_channels: tuple[Count, ...] = (16, 32, 32, 64, 64, 64)
    decoder_channels: tuple[Count, ...] = (64, 64, 64, 32, 32, 16)
    estimator_channels: tuple[Count, ...] = (24, 48, 64, 64, 64, 64)
    radius_px: Count = 2
    squaring_steps: Count = 7

    @model_validator(mode="after")
    def _as_many_levels(self) -> RegistrarNetwork:
        key = "decoder_channels" if self.network == "unet" else "estimator_channels"
        if not self.encoder_channels or len(self.encoder_channels) != len(getattr(self, key)):
            raise ValueError(f"expected as many {key} as encoder_channels, at least one")
        return self


class RegistrarOptions(TrainOptions, RegistrarNetwork):
    """The intra-modality registration network R (method, equation 2)."""

    steps: Steps = 800
    batch_size: Count = 8
    learning_rate: Positive = 1e-3
    lncc_window_px: Window = 9
    smoothness: NonNegative = 1.0
    neighbours: Annotated[int, Field(ge=0)] = 3
    mask_dilation_px: Annotated[int, Field(ge=0)] = 4
    finetune_steps: Steps = 200
    finetune_learning_rate: Positive = 2e-4


class ShapesOptions(TrainOptions, RegistrarNetwork):
    """The registrar that ships, trained on synthetic shapes only; no stage of a brain."""

    steps: Steps = 7000
    batch_size: Count = 4
    learning_rate: Positive = 1e-3
    decay_fraction: Fraction = 0.6
    checkpoint_every_s: Positive = 300.0
    network: Literal["unet", "pyramid"] = "pyramid"
    encoder_channels: tuple[Count, ...] = (16, 32, 48, 64, 64, 64)
    sizes_px: tuple[tuple[EvenCount, EvenCount], ...] = ((192, 192), (256, 256))
    derivative_weight: NonNegative = 0.5


class PairOptions(TrainOptions):
    """What the trainings on pairs of a section and its MRI plane share.

    The `finetune_` ones count instead of `steps` and `learning_rate` where a training starts from
    the networks of another brain.
    """

    steps: Steps = 800
    batch_size: Count = 1
    learning_rate: Positive = 2e-4
    beta1: Momentum = 0.5
    mask_dilation_px: Annotated[int, Field(ge=0)] = 2
    augment_together: bool = False
    medium_share: Fraction = 1.0
    medium_margin_px: Annotated[int, Field(ge=0)] = 2
    finetune_steps: Steps = 160
    finetune_learning_rate: Positive = 2e-4


class GeneratorNetwork(Options):
    """How a synthesis network is built, and how far beyond the tissue it draws."""

    generator_channels: Count = 32
    residual_blocks: Count = 6
    generator_skips: bool = False
    synthesis_rim_px: Annotated[int, Field(ge=0)] = 0


class AdversaryOptions(Options):
    """How each method builds and trains its discriminators."""

    discriminator_channels: Count = 32
    discriminator_rate_factor: Positive = 1.0


class ThroughRegistrarOptions(PairOptions, GeneratorNetwork):
    """What the methods share that train a synthesis through the brain's registrar."""

    registrar_gradient: bool = True
    warmup_fraction: Fraction = 0.0
    warmup_start: Literal["affine", "section"] = "affine"


class SbrOptions(ThroughRegistrarOptions):
    """Synth-by-Reg: the generator trained through the frozen registrar (equations 1 and 7)."""

    contrastive_weight: NonNegative = 0.02
    temperature: Positive = 0.05
    n_samples: Count = 256
    projection_channels: Count = 256


class SbrNOptions(SbrOptions):
    """SbR-N: without the contrastive term."""

    contrastive_weight: NonNegative = 0.0


class SbrROptions(SbrOptions):
    """SbR-R: the registrar learns too, over the last `finetune_fraction` of the training."""

    finetune_fraction: Fraction = 0.25
    registrar_rate_factor: Positive = 0.1
    smoothness: NonNegative = 1.0


class SbrGOptions(SbrOptions, AdversaryOptions):
    """SbR-G: with an LSGAN loss of a PatchGAN discriminator beside."""

    adversarial_weight: NonNegative = 0.02


class OwnRegistrarOptions(PairOptions, RegistrarNetwork):
    """What the methods that train a registrar of their own share.

    With `registrar_start: shared` it starts as a copy of the brain's registrar of
    `train_registrar`, whose architecture then counts instead of the one written here.
    """

    registrar_start: Literal["nothing", "shared"] = "nothing"


class NmiOptions(OwnRegistrarOptions):
    """A registrar trained on the pairs themselves by normalised mutual information."""

    batch_size: Count = 4
    learning_rate: Positive = 1e-3
    beta1: Momentum = 0.9
    bins: Annotated[int, Field(ge=2)] = 20
    smoothness: NonNegative = 10.0


class NmiwOptions(NmiOptions):
    """NMI and the overlap of labels, where both images have any."""

    label_weight: NonNegative = 1.0


class CganOptions(ThroughRegistrarOptions, AdversaryOptions):
    """CycleGAN, and the registration loss through the frozen registrar."""

    adversarial_weight: NonNegative = 0.1
    cycle_weight: NonNegative = 1.0
    identity_weight: NonNegative = 0.5


class RotOptions(OwnRegistrarOptions, GeneratorNetwork, AdversaryOptions):
    """Translation and registration trained together to commute (Arar et al. 2020)."""

    batch_size: Count = 4
    smoothness: NonNegative = 0.2
    registrar_rate_factor: Positive = 2.0
    adversarial_weight: NonNegative = 0.02


class SynOptions(Options):
    """SyN with Mattes mutual information by ANTs: the classical reference."""

    bins: Annotated[int, Field(ge=5)] = 32
    iterations: tuple[Count, ...] = (100, 70, 40)
    gradient_step: Positive = 0.2
    flow_sigma_px: NonNegative = 3.0
    total_sigma_px: NonNegative = 0.0
    seed: Annotated[int, Field(ge=1)] = 1
    intensity: IntensityOptions = IntensityOptions()


class InferOptions(Options):
    """Deformations and pictures of each section from trained weights."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: Count = 8
    symmetric: bool = False
    refine_steps: Steps = 0
    refine_learning_rate: Positive = 0.1
    refine_smoothness: NonNegative = 10.0
    refine_window_px: Window = 13
    refine_edge_px: Annotated[int, Field(ge=0)] = 2


class ReassembleOptions(Options):
    """The 3D histology volume."""

    even_sections: Literal["auto", "always", "never"] = "auto"
    spacing_mm: Positive | None = None
    interpolation: Literal["linear", "nearest"] = "linear"
    max_gap_mm: NonNegative = 0.0
    slab_voxels: Annotated[int, Field(ge=10_000)] = 2_000_000
    cache_mib: Count = 512


class EvaluateOptions(Options):
    """Tables of accuracy."""

    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], ...] = (50, 90, 95)


class CompareOptions(Options):
    """All methods on one brain, each trained one for the same time.

    `section` is the example that figures show; none takes the one of median rank.
    """

    methods: tuple[MethodName, ...] = METHODS
    minutes: Positive = 10.0
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    section: str | None = None


class SimulateOptions(Options):
    """Pairs with a known deformation, made of a brain's own MRI planes and sections.

    `deformation_mm` is the mean true displacement, which is Linear's error; None takes 1.2 % of
    the tissue's extent.
    """

    n_sections: Annotated[int, Field(ge=4)] | None = None
    deformation_mm: Positive | None = None
    affine_share: Fraction = 0.15
    tears: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    missing_pieces: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    uneven_staining: Annotated[float, Field(ge=0, le=5)] = 1.0
    texture: Annotated[float, Field(ge=0, le=3)] = 1.0
    blur_px: Annotated[float, Field(ge=0, le=5)] = 0.4
    noise: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    n_landmarks: Annotated[int, Field(ge=10)] = 150
    seed: int = Field(default=1, ge=0)


class ReportOptions(Options):
    """The HTML page of one brain."""

    max_width_px: Annotated[int, Field(ge=100)] = 320
    jpeg_quality: Annotated[int, Field(ge=10, le=95)] = 70


def has_card() -> bool:
    """Whether this machine has a graphics card, NVIDIA's or AMD's, that a job may find.

    Asked of the system alone: whether the card suits the installed PyTorch takes seconds to learn.
    """
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


class Config(Options):
    """The whole of ``config/config.yaml`` after its preset is filled in."""

    preset: str = "demo"
    brains: str = "config/brains.tsv"
    results: str = "results"
    methods: tuple[MethodName, ...] = ("linear", "sbr")
    registrar: RegistrarSource = "shipped"
    strict: bool = False
    chunk_size: Count = 16
    # None: one, where this machine has one
    gpus: Annotated[int, Field(ge=0)] | None = None
    # what a cluster that gives cards by `--gres` only calls them
    gres: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(:[A-Za-z0-9_.]+)?$")] | None = None
    # with --software-deployment-method apptainer
    container: str | None = None
    demo: DemoOptions = DemoOptions()
    prepare: PrepareOptions = PrepareOptions()
    doctor: DoctorOptions = DoctorOptions()
    align: AlignOptions = AlignOptions()
    resample: ResampleOptions = ResampleOptions()
    align_sections: AlignSectionsOptions = AlignSectionsOptions()
    train_registrar: RegistrarOptions = RegistrarOptions()
    train_sbr: SbrOptions = SbrOptions()
    train_sbr_n: SbrNOptions = SbrNOptions()
    train_sbr_r: SbrROptions = SbrROptions()
    train_sbr_g: SbrGOptions = SbrGOptions()
    train_nmi: NmiOptions = NmiOptions()
    train_nmiw: NmiwOptions = NmiwOptions()
    train_cgan: CganOptions = CganOptions()
    train_rot: RotOptions = RotOptions()
    syn_mi: SynOptions = SynOptions()
    infer: InferOptions = InferOptions()
    reassemble: ReassembleOptions = ReassembleOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    compare: CompareOptions = CompareOptions()
    report: ReportOptions = ReportOptions()
    simulate: SimulateOptions = SimulateOptions()

    def takes_registrar(self, method: str) -> bool:
        """`takes_registrar` of a trained method by its own section."""
        return takes_registrar(method, getattr(self, f"train_{method}"))

    def section_json(self, name: str) -> str:
        """One section as JSON with sorted keys: what a rule is given, and reruns on."""
        return canonical_json(getattr(self, name).model_dump(mode="json"))

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


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; ConfigError with the file and line when it is none."""
    import yaml

    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(value).__name__}")
    return value


def resolve(values: dict[str, Any], presets_dir: Path) -> Config:
    """The whole configuration: defaults, then the preset, then the user's own keys.

    A method's section takes what is written for another one where `INHERITED` says so.

    Parameters
    ----------
    values : what the user wrote, command line included. ``preset`` is a name in `presets_dir`
        or a path that ends in ``.yaml``.
    """
    preset = values.get("preset", Config.model_fields["preset"].default)
    if not isinstance(preset, str):
        raise ConfigError(f"config: preset: expected a name or a .yaml path, found {preset!r}")
    path = Path(preset) if preset.endswith(".yaml") else Path(presets_dir) / f"{preset}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in Path(presets_dir).glob("*.yaml")))
        raise ConfigError(f"config: preset '{preset}': no such preset (known: {known})")
    return parse_options(Config, _with_inherited(merged(load_yaml(path), values)), "")


INHERITED = {
    "train_sbr_n": ("train_sbr",),
    "train_sbr_r": ("train_sbr",),
    "train_sbr_g": ("train_sbr",),
    "train_nmi": ("train_sbr", "train_registrar"),
    "train_nmiw": ("train_nmi",),
    "train_cgan": ("train_sbr",),
    "train_rot": ("train_sbr", "train_registrar"),
}
"""Section -> the sections whose keys it takes, unless it has a default or a value of its own."""


def _with_inherited(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with each inheriting section filled in, so that a preset writes a key once.

    A key that a section's class declares itself is its own and not inherited; of
    `train_registrar`, only how the network is built is.
    """
    values = dict(values)
    for section, donors in INHERITED.items():  # donors stand before those who take from them
        model = Config.model_fields[section].annotation
        written = values.get(section) or {}
        if not isinstance(written, dict):
            continue  # refused by name when the whole is parsed
        taken: dict[str, Any] = {}
        for donor in donors:
            shared = set(model.model_fields) - set(inspect.get_annotations(model))
            if donor == "train_registrar":
                shared &= set(RegistrarNetwork.model_fields)
            given = values.get(donor)
            if isinstance(given, dict):
                taken |= {key: value for key, value in given.items() if key in shared}
        if taken or written:
            values[section] = merged(taken, written)
    return values


def json_schema() -> str:
    """JSON schema of the configuration, as it stands in ``workflow/schemas``."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
