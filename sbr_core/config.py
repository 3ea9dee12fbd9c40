"""Every option of every stage, with its default, its limits and what it does.

The classes here are the only list of options: the JSON schema in ``workflow/schemas`` is made
from them, ``config/README.md`` teaches them, and unknown keys are refused by name. This module
imports no torch, so that planning a workflow stays fast.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Annotated, Any, Literal

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


Window = Annotated[int, Field(ge=3), AfterValidator(_odd)]

METHODS = ("linear", "sbr")
"""Methods that can be asked for; `linear` is always computed, as the one to beat."""
TRAINED_METHODS = ("sbr",)


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
    """From image files to working-resolution intensity and tissue mask."""

    working_pixel_mm: Positive = 1.25
    polarity: Literal["auto", "bright_background", "dark_background"] = "auto"
    min_tissue_mm2: NonNegative = 20.0


class AlignOptions(Options):
    """The 3D similarity of the stack to the MRI, alternated with per-section affines."""

    rounds: Count = 3
    spacing_mm: Positive = 1.5
    max_rotation_deg: Positive = 45.0
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
    """What every training loop shares."""

    steps: Steps
    batch_size: Count
    learning_rate: Positive
    beta1: Momentum = 0.9
    decay_fraction: Fraction = 0.4
    max_grad_norm: Positive = 1.0
    checkpoint_every_s: Positive = 60.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    seed: int = 0
    intensity: IntensityOptions = IntensityOptions()
    augment: AugmentOptions = AugmentOptions()


class RegistrarOptions(TrainOptions):
    """The intra-modality registration network R (method, equation 2)."""

    steps: Steps = 800
    batch_size: Count = 8
    learning_rate: Positive = 1e-3
    encoder_channels: tuple[Count, ...] = (16, 32, 32, 64, 64, 64)
    decoder_channels: tuple[Count, ...] = (64, 64, 64, 32, 32, 16)
    squaring_steps: Count = 7
    lncc_window_px: Window = 9
    smoothness: NonNegative = 1.0
    neighbours: Annotated[int, Field(ge=0)] = 3
    mask_dilation_px: Annotated[int, Field(ge=0)] = 4

    @model_validator(mode="after")
    def _as_many_levels(self) -> RegistrarOptions:
        if not self.encoder_channels or len(self.encoder_channels) != len(self.decoder_channels):
            raise ValueError("expected as many decoder_channels as encoder_channels, at least one")
        return self


class SbrOptions(TrainOptions):
    """Synth-by-Reg: the generator trained through the frozen registrar (equations 1 and 7)."""

    steps: Steps = 800
    batch_size: Count = 1
    learning_rate: Positive = 2e-4
    beta1: Momentum = 0.5
    generator_channels: Count = 32
    residual_blocks: Count = 6
    contrastive_weight: NonNegative = 0.02
    temperature: Positive = 0.05
    n_samples: Count = 256
    projection_channels: Count = 256
    mask_dilation_px: Annotated[int, Field(ge=0)] = 2
    synthesis_rim_px: Annotated[int, Field(ge=0)] = 0


class InferOptions(Options):
    """Deformations and pictures of each section from trained weights."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: Count = 8
    refine_steps: Steps = 0
    refine_learning_rate: Positive = 0.1
    refine_smoothness: NonNegative = 10.0
    refine_window_px: Window = 13


class ReassembleOptions(Options):
    """The 3D histology volume."""

    spacing_mm: Positive | None = None
    interpolation: Literal["linear", "nearest"] = "linear"
    max_gap_mm: NonNegative = 0.0
    slab_voxels: Annotated[int, Field(ge=10_000)] = 2_000_000
    cache_mib: Count = 512


class EvaluateOptions(Options):
    """Tables of accuracy."""

    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], ...] = (50, 90, 95)


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


class Config(Options):
    """The whole of ``config/config.yaml`` after its preset is filled in."""

    preset: str = "demo"
    brains: str = "config/brains.tsv"
    results: str = "results"
    methods: tuple[Literal["linear", "sbr"], ...] = ("linear", "sbr")
    strict: bool = False
    # a chunk's rows travel on one command line, whose length the system limits
    chunk_size: Annotated[int, Field(ge=1, le=200)] = 16
    gpus: Annotated[int, Field(ge=0)] = 0
    demo: DemoOptions = DemoOptions()
    prepare: PrepareOptions = PrepareOptions()
    align: AlignOptions = AlignOptions()
    resample: ResampleOptions = ResampleOptions()
    align_sections: AlignSectionsOptions = AlignSectionsOptions()
    train_registrar: RegistrarOptions = RegistrarOptions()
    train_sbr: SbrOptions = SbrOptions()
    infer: InferOptions = InferOptions()
    reassemble: ReassembleOptions = ReassembleOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    report: ReportOptions = ReportOptions()
    simulate: SimulateOptions = SimulateOptions()

    def section_json(self, name: str) -> str:
        """One section as JSON with sorted keys: what a rule is given, and reruns on."""
        return canonical_json(getattr(self, name).model_dump(mode="json"))


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
    return parse_options(Config, merged(load_yaml(path), values), "")


def json_schema() -> str:
    """JSON schema of the configuration, as it stands in ``workflow/schemas``."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
