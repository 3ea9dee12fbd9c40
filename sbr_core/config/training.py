"""Options of everything that is trained, and of the methods."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from sbr_core.config.base import (
    Count,
    EvenCount,
    Fraction,
    IntensityOptions,
    Momentum,
    NonNegative,
    Options,
    Positive,
    Steps,
    Window,
)

RegistrarSource = Literal["shipped", "finetune", "train"]
"""The registrar in the package, the same trained on a little, or one trained from nothing."""


class AugmentOptions(Options):
    """Random similarity and smooth random field, drawn for both images independently."""

    rotation_deg: NonNegative = Field(3.0, description="Largest random rotation, degrees.")
    scale: NonNegative = Field(0.05, description="Largest random change of scale, as a share.")
    translation_px: NonNegative = Field(
        2.0, description="Largest random shift along each axis, pixels."
    )
    field_sigma_px: tuple[NonNegative, NonNegative] = Field(
        (3.0, 5.0),
        description=(
            "The standard deviation of the smooth random field at its control points is drawn"
            " between these, pixels."
        ),
    )
    field_grid: Annotated[int, Field(ge=2)] = Field(
        9, description="Control points of that field along each side."
    )


class TrainOptions(Options):
    """What every training has."""

    steps: Steps = Field(description="Steps of the optimiser.")
    minutes: Positive | None = Field(
        None,
        description=(
            "Training ends after this many minutes of it if `steps` are not done before, and the"
            " learning rate falls accordingly. The minutes before an interruption count. Where a"
            " training ends by the clock, two runs differ."
        ),
    )
    batch_size: Count = Field(description="Images or pairs per step.")
    learning_rate: Positive = Field(description="Learning rate of Adam.")
    beta1: Momentum = Field(0.9, description="Decay of the first moment in Adam.")
    decay_fraction: Fraction = Field(
        0.4,
        description="Last share of the training, over which the learning rate falls to zero.",
    )
    max_grad_norm: Positive = Field(
        1.0, description="Gradients are clipped to this norm, those of adversaries separately."
    )
    checkpoint_every_s: Positive = Field(
        60.0, description="Seconds between checkpoints: an interrupted training loses about this."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`cpu`, `cuda`, or `auto`: `cuda` where there is one."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32",
        description=(
            "`bfloat16` is faster on graphics cards (Ampere and later) and processors (AVX-512"
            " BF16, AMX) that compute in it, and more than ten times slower on others; `auto`, as"
            " in the presets for pairs: `bfloat16` on the former, `float32` on the latter."
        ),
    )
    compile: bool | Literal["graphs"] = Field(
        False,
        description=(
            "On a card, compile networks and integration: `true`, or `graphs` for CUDA graphs too;"
            " where it fails, the training warns and goes on. Neither was ever run on a card."
        ),
    )
    seed: int = Field(
        0,
        description=(
            "Random seed: equal seeds give equal weights on one kind of CPU and number of threads."
        ),
    )
    threads: Count | None = Field(
        None,
        description=(
            "Threads of the processor; none has their number chosen by a few timed steps, of those"
            " that the job has. An interrupted training keeps it."
        ),
        exclude_if=lambda value: value is None,
    )
    memory_gb: Positive | None = Field(
        None,
        description=(
            "Memory that the images may take, GB; none: half of what the machine, the job or the"
            " card has."
            " What needs more is put into a file, beside the checkpoints, and read as it is drawn,"
            " with the same result."
        ),
        exclude_if=lambda value: value is None,
    )
    pixel_factor: Count = Field(
        1,
        description=(
            "Working pixels per pixel of the images that networks are trained on and given."
            " Coarser networks learn sooner, and `infer` refines their answer at the working"
            " pixel. The shared registrar and what is trained through it need the same."
        ),
        # trainings of before this option keep their plans and checkpoints
        exclude_if=lambda value: value == 1,
    )
    intensity: IntensityOptions = Field(
        IntensityOptions(), description="How images become the input of the networks."
    )
    augment: AugmentOptions = Field(
        AugmentOptions(), description="Random deformation of the training images."
    )


class RegistrarNetwork(Options):
    """Which registration network, and how wide."""

    network: Literal["unet", "pyramid"] = Field(
        "unet",
        description=(
            "`unet`, as in the paper, or `pyramid`: features of both images compared from coarse"
            " to fine."
        ),
    )
    encoder_channels: tuple[Count, ...] = Field(
        (16, 32, 32, 64, 64, 64),
        description="Channels of the contracting layers, from fine to coarse.",
    )
    decoder_channels: tuple[Count, ...] = Field(
        (64, 64, 64, 32, 32, 16),
        description="Of the U-Net: channels of the expanding layers, from coarse to fine.",
    )
    estimator_channels: tuple[Count, ...] = Field(
        (24, 48, 64, 64, 64, 64),
        description=(
            "Of the pyramid: channels of the layers that compare each level, from fine to coarse."
        ),
    )
    radius_px: Count = Field(
        2, description="Of the pyramid: search radius at each level, pixels of that level."
    )
    squaring_steps: Count = Field(
        7, description="Squarings in the integration of the velocity (scaling and squaring)."
    )

    @model_validator(mode="after")
    def _as_many_levels(self) -> RegistrarNetwork:
        key = "decoder_channels" if self.network == "unet" else "estimator_channels"
        if not self.encoder_channels or len(self.encoder_channels) != len(getattr(self, key)):
            raise ValueError(f"expected as many {key} as encoder_channels, at least one")
        return self


class RegistrarOptions(TrainOptions, RegistrarNetwork):
    """The intra-modality registration network R (method, equation 2)."""

    steps: Steps = Field(800, description="Steps of the optimiser, with `registrar: train`.")
    batch_size: Count = Field(8, description="Pairs of planes per step.")
    learning_rate: Positive = Field(
        1e-3, description="Learning rate of Adam, with `registrar: train`."
    )
    lncc_window_px: Window = Field(
        9, description="Side of the window of the local cross-correlation, pixels, odd."
    )
    smoothness: NonNegative = Field(1.0, description="Weight of the velocity's squared gradient.")
    neighbours: Annotated[int, Field(ge=0)] = Field(
        3,
        description=(
            "Pairs are taken from planes at most this many sections apart; 0 pairs each plane with"
            " itself, deformed twice, for planes too far apart to show the same anatomy."
        ),
    )
    mask_dilation_px: Annotated[int, Field(ge=0)] = Field(
        4, description="How far beyond the MRI mask images are compared, pixels."
    )
    finetune_steps: Steps = Field(
        200, description="With `registrar: finetune`: steps, instead of `steps`."
    )
    finetune_learning_rate: Positive = Field(
        2e-4, description="With `registrar: finetune`: instead of `learning_rate`."
    )


class ShapesOptions(TrainOptions, RegistrarNetwork):
    """The registrar that ships, trained on synthetic shapes only; no stage of a brain."""

    steps: Steps = Field(7000, description="Steps of the optimiser.")
    batch_size: Count = Field(
        4,
        description=(
            "Pairs per step of the largest of `sizes_px`; of smaller ones as many more as have the"
            " same number of pixels."
        ),
    )
    learning_rate: Positive = Field(1e-3, description="Learning rate of Adam.")
    decay_fraction: Fraction = Field(
        0.6,
        description="Last share of the training, over which the learning rate falls to zero.",
    )
    checkpoint_every_s: Positive = Field(
        300.0, description="Seconds between checkpoints: an interrupted training loses about this."
    )
    network: Literal["unet", "pyramid"] = Field("pyramid", description="`pyramid` or `unet`.")
    encoder_channels: tuple[Count, ...] = Field(
        (16, 32, 48, 64, 64, 64),
        description="Channels of the contracting layers, from fine to coarse.",
    )
    sizes_px: tuple[tuple[EvenCount, EvenCount], ...] = Field(
        ((192, 192), (256, 256)),
        description=(
            "Rows and columns of the images, pixels, drawn from these; even, at least 64."
        ),
    )
    derivative_weight: NonNegative = Field(
        0.5, description="Weight of the error's derivatives against the error."
    )


class PairOptions(TrainOptions):
    """What trainings on pairs of a section and its MRI plane have."""

    steps: Steps = Field(800, description="Steps of the optimiser.")
    batch_size: Count = Field(1, description="Pairs of a section and its plane per step.")
    learning_rate: Positive = Field(2e-4, description="Learning rate of Adam.")
    beta1: Momentum = Field(0.5, description="Decay of the first moment in Adam.")
    mask_dilation_px: Annotated[int, Field(ge=0)] = Field(
        2, description="How far beyond the MRI mask images are compared, pixels."
    )
    augment_together: bool = Field(
        False,
        description=(
            "Whether a section and its plane get the same random deformation, which leaves between"
            " them only what their alignment left."
        ),
    )
    box_step_px: Literal[8, 16, 32, 64] = Field(
        8,
        description=(
            "A step computes the box that contains all tissue of its pair; its sides are multiples"
            " of this, pixels. 32 or 64 computes more background, in fewer different shapes, of"
            " which a compiled network (`compile`) has to be made for each."
        ),
        # trainings of before this option keep their plans and checkpoints
        exclude_if=lambda value: value == 8,
    )
    medium_share: Fraction = Field(
        1.0,
        description=(
            "A plane of whose mask more than this share is brighter than its tissue and farther"
            " than `medium_margin_px` from its section's shows medium around the brain, and is cut"
            " to that tissue; 1 cuts none."
        ),
    )
    medium_margin_px: Annotated[int, Field(ge=0)] = Field(2, description="That distance, pixels.")
    finetune_steps: Steps = Field(
        160,
        description=(
            "Steps of a training that starts from another brain's networks (`weights_use`),"
            " instead of `steps`."
        ),
    )
    finetune_learning_rate: Positive = Field(
        2e-4, description="Learning rate of such a training, instead of `learning_rate`."
    )


Trained = TypeVar("Trained", RegistrarOptions, PairOptions)


class GeneratorNetwork(Options):
    """How a synthesis network is built, and how far beyond the tissue it draws."""

    generator_channels: Count = Field(
        32,
        description="Width of the synthesis network; 16 takes less than half the time.",
    )
    residual_blocks: Count = Field(6, description="Its depth: residual blocks in its middle.")
    generator_skips: bool = Field(
        False, description="Pass fine structure around its middle; it learns sooner."
    )
    synthesis_rim_px: Annotated[int, Field(ge=0)] = Field(
        0,
        description=(
            "How far beyond a section's tissue it is synthesised, pixels. 0 where the MRI shows"
            " nothing around the brain; as wide as the bright rim of fluid or medium where it does."
        ),
    )


class AdversaryOptions(Options):
    """How each method builds and trains its discriminators."""

    discriminator_channels: Count = Field(32, description="Width of each PatchGAN discriminator.")
    discriminator_rate_factor: Positive = Field(
        1.0, description="Learning rate of the discriminators, times `learning_rate`."
    )


class ThroughRegistrarOptions(PairOptions, GeneratorNetwork):
    """What the methods have that train a synthesis through the brain's registrar."""

    registrar_gradient: bool = Field(
        True,
        description=(
            "Whether the synthesis learns through the registrar's answer too, as published, or"
            " takes that answer as given."
        ),
    )
    warmup_fraction: Fraction = Field(
        0.0,
        description=(
            "Share of the training before the registrar's answer to the synthesised section counts"
            " in full."
        ),
    )
    warmup_start: Literal["affine", "section"] = Field(
        "affine",
        description=(
            "Where the section is until then: `affine`, where its affine put it, or `section`,"
            " where the registrar puts the section itself, which the shipped registrar, trained on"
            " different contrasts too, estimates roughly."
        ),
    )


def as_finetuning(options: Trained) -> Trained:
    """The options of a training that starts from trained networks: its own steps and rate.

    It does not warm up either: the synthesis has long learnt what a plane looks like.
    """
    changes = {"steps": options.finetune_steps, "learning_rate": options.finetune_learning_rate}
    if isinstance(options, ThroughRegistrarOptions):
        changes["warmup_fraction"] = 0.0
    return options.model_copy(update=changes)


class SbrOptions(ThroughRegistrarOptions):
    """Synth-by-Reg: the generator trained through the frozen registrar (equations 1 and 7)."""

    contrastive_weight: NonNegative = Field(
        0.02, description="Weight of the contrastive term, which keeps anatomy in place."
    )
    temperature: Positive = Field(0.05, description="Temperature of that term.")
    n_samples: Count = Field(256, description="Pixels at which that term is computed.")
    projection_channels: Count = Field(256, description="Width of its descriptors.")


class SbrNOptions(SbrOptions):
    """SbR-N: without the contrastive term."""

    contrastive_weight: NonNegative = Field(
        0.0, description="Weight of the contrastive term: none."
    )


class SbrROptions(SbrOptions):
    """SbR-R: the registrar learns too, over the last `finetune_fraction` of the training."""

    finetune_fraction: Fraction = Field(
        0.25, description="Last share of the training, in which the registrar learns too."
    )
    registrar_rate_factor: Positive = Field(
        0.1,
        description=(
            "Learning rate of the registrar, times `learning_rate`: it is trained already and only"
            " adapts."
        ),
    )
    smoothness: NonNegative = Field(
        1.0,
        description=(
            "Weight of the velocity's squared gradient while the registrar learns, as in its own"
            " training."
        ),
    )


class SbrGOptions(SbrOptions, AdversaryOptions):
    """SbR-G: with an LSGAN loss of a PatchGAN discriminator beside."""

    adversarial_weight: NonNegative = Field(
        0.02, description="Weight of the LSGAN loss of the generator."
    )


class OwnRegistrarOptions(PairOptions, RegistrarNetwork):
    """What the methods have that train a registrar of their own."""

    registrar_start: Literal["nothing", "shared"] = Field(
        "nothing",
        description=(
            "Where their registrar starts: `nothing`, as published, or `shared`: as a copy of the"
            " brain's registrar, whose architecture then counts instead of this section's."
        ),
    )


class NmiOptions(OwnRegistrarOptions):
    """A registrar trained on the pairs themselves by normalised mutual information."""

    batch_size: Count = Field(4, description="Pairs of a section and its plane per step.")
    learning_rate: Positive = Field(
        1e-3, description="Learning rate of Adam, as for the shared registrar."
    )
    beta1: Momentum = Field(0.9, description="Decay of the first moment in Adam.")
    bins: Annotated[int, Field(ge=2)] = Field(
        20, description="Bins of the histograms, for each image."
    )
    smoothness: NonNegative = Field(
        10.0,
        description=(
            "Weight of the velocity's squared gradient against the normalised mutual information."
        ),
    )


class NmiwOptions(NmiOptions):
    """NMI and the overlap of labels, where both images have any."""

    label_weight: NonNegative = Field(1.0, description="Weight of the Dice loss of the labels.")


class CganOptions(ThroughRegistrarOptions, AdversaryOptions):
    """CycleGAN, and the registration loss through the frozen registrar."""

    adversarial_weight: NonNegative = Field(
        0.1, description="Weight of the LSGAN losses of both generators."
    )
    cycle_weight: NonNegative = Field(1.0, description="Weight of the two cycle losses.")
    identity_weight: NonNegative = Field(
        0.5,
        description=(
            "Weight of the identity losses: a generator leaves an image of its output's kind as it"
            " is."
        ),
    )


class RotOptions(OwnRegistrarOptions, GeneratorNetwork, AdversaryOptions):
    """Translation and registration trained together to commute (Arar et al. 2020)."""

    batch_size: Count = Field(
        4,
        description=(
            "Pairs of a section and its plane per step: a registrar that starts from nothing"
            " hardly learns at 1."
        ),
    )
    smoothness: NonNegative = Field(
        0.2,
        description=(
            "Weight of the velocity's squared gradient, against an L1 that is several times"
            " smaller than the LNCC of the shared registrar's training."
        ),
    )
    registrar_rate_factor: Positive = Field(
        2.0, description="Learning rate of the registrar, times `learning_rate`."
    )
    adversarial_weight: NonNegative = Field(
        0.02, description="Weight of the LSGAN loss of the generator."
    )


class SynOptions(Options):
    """SyN with Mattes mutual information by ANTs: the classical reference."""

    bins: Annotated[int, Field(ge=5)] = Field(32, description="Bins of the joint histogram.")
    iterations: tuple[Count, ...] = Field(
        (100, 70, 40), description="Iterations at each level, from coarse to fine."
    )
    gradient_step: Positive = Field(0.2, description="Gradient step of ANTs, pixels.")
    flow_sigma_px: NonNegative = Field(
        3.0,
        description=(
            "Smoothing of each step, which makes SyN fluid; as ANTs takes it, a variance in pixels."
        ),
    )
    total_sigma_px: NonNegative = Field(
        0.0, description="Smoothing of the whole field, which would make it elastic; likewise."
    )
    seed: Annotated[int, Field(ge=1)] = Field(1, description="Random seed of ANTs.")
    intensity: IntensityOptions = Field(
        IntensityOptions(), description="How images become the input of ANTs."
    )
