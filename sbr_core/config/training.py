"""Options of everything that is trained, and of the methods."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sbr_core.config.base import (
    Count,
    EvenCount,
    Fraction,
    Momentum,
    NonNegative,
    Options,
    Positive,
    Steps,
    Window,
)

RegistrarSource = Literal["shipped", "finetune", "train"]
"""The registrar in the package, the same trained on a little, or one trained from nothing."""


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
