"""Options of the stages that train nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sbr_core.config.base import (
    Automatic,
    Count,
    Fraction,
    IntensityOptions,
    NonNegative,
    Options,
    Positive,
    Steps,
    Window,
)
from sbr_core.methods import COMPARED_METHODS, METHODS

MethodName = Literal[METHODS]
Stain = Literal["auto", "nissl", "hematoxylin", "h&e", "dab", "myelin", "fluorescence", "grey"]


class DemoOptions(Options):
    """The simulated brain made from the MNI152 maps that ship inside nilearn."""

    n_sections: Annotated[int, Field(ge=8)] = Field(48, description="Number of sections.")
    section_spacing_mm: Positive = Field(
        3.0, description="Mean distance between neighbouring sections, mm."
    )
    seed: int = Field(1, ge=0, description="Random seed: another one gives another brain.")
    pixel_size_mm: Positive = Field(0.5, description="Pixel of the section images, mm.")
    mri_spacing_mm: Positive = Field(1.2, description="Voxel of the MRI, mm.")
    affine_jitter: Annotated[float, Field(ge=0, le=3)] = Field(
        1.0,
        description=(
            "How far sections are turned, shifted, stretched and sheared, as a factor; 0 leaves"
            " them in place."
        ),
    )
    deformation_mm: Annotated[float, Field(gt=0, le=4)] = Field(
        2.2,
        description=(
            "How far the tissue is bent, mm: about what the best affine of each section leaves"
            " between true points."
        ),
    )
    anatomy_mm: Annotated[float, Field(ge=0, le=1)] = Field(
        0.3,
        description=(
            "How far the boundaries of a section's cortex lie off those of its MRI plane, mm, rms:"
            " what the best deformation by the labels themselves leaves on real sections; 0 makes"
            " sections functions of their planes. Landmarks do not follow it."
        ),
    )
    gyral_tears: Annotated[float, Field(ge=0, le=10)] = Field(
        1.0, description="Narrow tears across gyri in a section, in the mean."
    )


class PrepareOptions(Options):
    """From image files to working-resolution intensity and tissue mask."""

    working_pixel_mm: Positive = Field(
        1.25,
        description=(
            "Pixel at which everything but the final volume is computed, mm; finer is better, and"
            " slower by its square."
        ),
    )
    contradicted_pixel_size: Literal["refuse", "warn"] = Field(
        "refuse",
        description=(
            "A section whose file states a pixel size about 1000 times `pixel_size_mm`, or a"
            " thousandth of it, is refused; `warn` where it is the file that is wrong."
        ),
    )
    polarity: Literal["auto", "bright_background", "dark_background"] = Field(
        "auto", description="`bright_background` (the glass is white) or `dark_background`."
    )
    stain: Stain = Field(
        "auto",
        description=(
            "How a colour image becomes one signal: `nissl`, `myelin` (optical density), `h&e`,"
            " `hematoxylin`, `dab` (one dye, separated from the other), `fluorescence`, `grey`"
            " (luminance). `auto` goes by the colours; grey images are taken as they are."
        ),
    )
    even_light: Automatic = Field(
        "auto",
        description=(
            "Correct uneven light across a section, estimated from the glass: `auto` where it is"
            " clearly uneven, `always`, `never`."
        ),
    )
    even_staining: Automatic = Field(
        "auto",
        description=(
            "Correct uneven staining across a section, estimated from its tissue: `auto` where it"
            " is clearly uneven, `always`, `never`."
        ),
    )
    min_tissue_mm2: NonNegative = Field(
        20.0, description="A section with less tissue, mm², counts as empty and is reported."
    )


class CheckOptions(Options):
    """Whether what a user gave of a brain can belong together."""

    refuse: bool = Field(
        True,
        description=(
            "Leave a brain out whose inputs cannot be right; `false` says so and goes on, where"
            " `sbr check` is wrong."
        ),
    )


class DoctorOptions(Options):
    """What seems wrong with the sections, judged by their neighbours."""

    neighbours: Annotated[int, Field(ge=3, le=12)] = Field(
        4, description="Sections on either side with which each is compared."
    )
    min_turn_deg: Annotated[float, Field(ge=5, le=90)] = Field(
        12.0, description="Smaller turns in the plane, degrees, are not reported."
    )
    min_confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Findings of a lower confidence, 0 to 1, are not reported."
    )
    expected_share: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05,
        description=(
            "Share of the sections expected to be flipped, and to be turned: the smaller, the more"
            " evidence a finding takes."
        ),
    )
    picture_px: Annotated[int, Field(ge=40, le=400)] = Field(
        110, description="Side of a section on the contact sheet, pixels."
    )


class AlignOptions(Options):
    """The 3D similarity of the stack to the MRI, alternated with per-section affines."""

    positions: Literal["mm", "order"] = Field(
        "mm",
        description=(
            "`order` where `position_mm` of the manifest is only an order (1, 2, 3, …, with gaps"
            " where sections are missing): then `align` ends by proposing millimetres."
        ),
    )
    rounds: Count = Field(
        2,
        description=(
            "How many times the 3D fit of ANTs and the affines of the sections are fitted in turn,"
            " before the joint steps."
        ),
    )
    spacing_mm: Positive | None = Field(
        None,
        description=(
            "Resolution of the fit of ANTs, mm; none is 1.5 mm in a human brain, 0.75 mm in a"
            " macaque's, 0.19 mm in a mouse's."
        ),
    )
    max_rotation_deg: Positive = Field(
        45.0,
        description=(
            "How far the stack may be turned against the MRI beyond what `orientation` states,"
            " degrees; not used with `auto`."
        ),
    )
    min_explained: Fraction = Field(
        0.5,
        description=(
            "Share of the stack's variance that its pose in the MRI must explain, or `align`"
            " refuses it."
        ),
    )
    min_margin: NonNegative = Field(
        3.0,
        description=(
            "How clearly that pose, and its handedness, must be better than any other, in standard"
            " errors, or `align` refuses it and asks."
        ),
    )
    seed: int = Field(0, ge=0, description="Random seed of the samples that the fit draws.")


class ResampleOptions(Options):
    """The MRI plane of every section position."""

    order: Literal[1, 3] = Field(1, description="Interpolation of the MRI: 1 linear, 3 cubic.")


class AlignSectionsOptions(Options):
    """One 2D affine per section."""

    LATER = frozenset({"landmark_tolerance_mm"})

    max_scale_change: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.3, description="Largest change of scale against the 3D fit, as a share."
    )
    max_shear: NonNegative = Field(
        0.3,
        description="Largest logarithmic stretch of one direction against the one across it.",
    )
    prior_weight: NonNegative = Field(
        1.0,
        description=(
            "Cost of reaching one of these limits, in units of the whole misfit: how strongly a"
            " section is held to its first affine; 0 leaves it free."
        ),
    )
    landmark_tolerance_mm: Positive | None = Field(
        None,
        description=(
            "How near every method's deformation holds the landmarks of corrections, mm"
            " (`docs/corrections.md`); none is 0.4 working pixels."
        ),
    )


# what the sides of every image, multiples of 8 px, can be halved to
Levels = Annotated[tuple[Literal[1, 2, 4], ...], Field(min_length=1)]


class RefineOptions(Options):
    """Steps that improve the velocity of each section by itself."""

    refine_steps: Steps = Field(
        0,
        description=(
            "Steps, at each of `refine_levels`, that improve each section's own velocity after the"
            " networks: LNCC and L1 of the synthesised section with the MRI plane, MIND of the"
            " section itself with it; 0 is the paper. Methods that synthesise nothing are refined"
            " by MIND alone."
        ),
    )
    refine_levels: Levels = Field(
        (1,), description="Pixels of the steps, coarse to fine, working pixels: 1, 2 or 4."
    )
    refine_learning_rate: Positive = Field(
        0.1, description="Learning rate of these steps, pixels of the half-resolution grid."
    )
    refine_smoothness: NonNegative = Field(
        10.0, description="Weight of the velocity's smoothness in these steps."
    )
    refine_window_px: Window = Field(
        13, description="Side of the LNCC's window in these steps, pixels, odd."
    )
    refine_l1_weight: NonNegative = Field(
        0.0,
        description=(
            "Weight of the mean absolute difference of synthesised section and plane, which sees"
            " what sticks out of the plane's outline."
        ),
    )
    refine_mind_weight: NonNegative = Field(
        0.0,
        description=(
            "Weight of the difference of MIND-SSC, the self-similarity of plane and section, which"
            " needs no synthesis."
        ),
    )
    refine_mind_dilations_px: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        (1, 2), description="Distances at which MIND-SSC compares patches, pixels of a level."
    )
    refine_rim_px: Annotated[int, Field(ge=0)] = Field(
        4, description="How far around the plane's tissue L1 and MIND compare, working pixels."
    )
    refine_edge_px: Annotated[int, Field(ge=0)] = Field(
        2,
        description=(
            "Of planes cut to their section's tissue (`medium_share`): width of the band along the"
            " cut that these steps leave out, pixels."
        ),
    )


class InferOptions(RefineOptions):
    """Deformations and pictures of each section from trained weights."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`cpu`, `cuda`, or `auto`: `cuda` where there is one."
    )
    batch_size: Count = Field(8, description="Sections at a time; no result depends on it.")
    symmetric: bool = Field(
        False,
        description=(
            "Register both ways and take (R(T, S) − R(S, T)) / 2, which costs a second pass of the"
            " registrar; `false` is the paper."
        ),
    )


class MindOptions(RefineOptions):
    """Registration without training: the registrar that ships, then MIND-SSC optimised."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`cpu`, `cuda`, or `auto`: `cuda` where there is one."
    )
    batch_size: Count = Field(8, description="Sections at a time; no result depends on it.")
    intensity: IntensityOptions = Field(
        IntensityOptions(), description="How images become the input of the registrar."
    )
    medium_share: Fraction = Field(
        0.02, description="As of the trained methods: planes with bright medium around are cut."
    )
    medium_margin_px: Annotated[int, Field(ge=0)] = Field(2, description="As there, pixels.")
    registrar_extent_px: Annotated[int, Field(ge=64)] = Field(
        300,
        description=(
            "Longer side of the tissue up to which the registrar is given the working pixel;"
            " larger tissue it is given at half of it, and so on, as it was trained on."
        ),
    )
    refine_steps: Steps = Field(15, description="As above.")
    refine_levels: Levels = Field((4, 2, 1), description="As above.")
    refine_learning_rate: Positive = Field(0.4, description="As above.")
    refine_smoothness: NonNegative = Field(5.0, description="As above.")
    refine_mind_weight: NonNegative = Field(10.0, description="As above.")
    refine_mind_dilations_px: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        (1, 2, 3), description="As above."
    )


class TrustOptions(Options):
    """The expected error of each section, and which are suspects."""

    suspect: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="Least probability of being badly wrong of a suspect (`docs/trust.md`).",
    )


class EvaluateOptions(Options):
    """Tables of accuracy."""

    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], ...] = Field(
        (50, 90, 95), description="Percentiles of the landmark error, 0 to 100."
    )


class CompareOptions(Options):
    """All methods on one brain, each trained one for the same time."""

    methods: tuple[Literal[COMPARED_METHODS], ...] = Field(
        COMPARED_METHODS,
        description=(
            "Methods to compare, all if not given; `linear` is always among them. Without labels"
            " of sections and MRI `nmiw` is left out."
        ),
    )
    minutes: Positive = Field(
        10.0,
        description=(
            "Training of each method, minutes on the machine it runs on; time before an"
            " interruption counts."
        ),
    )
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="Differences with a smaller adjusted p are marked as significant."
    )
    section: str | None = Field(
        None, description="The section that figures show; none takes the one of median rank."
    )


class SimulateOptions(Options):
    """Pairs with a known deformation, made of a brain's own MRI planes and sections."""

    n_sections: Annotated[int, Field(ge=4)] | None = Field(
        None, description="How many sections, spread evenly; none takes all."
    )
    deformation_mm: Positive | None = Field(
        None,
        description=(
            "Mean displacement of the tissue over the sections, mm, which is the error of"
            " `linear`; none takes what labels of real sections show, 1.5 % of the tissue's"
            " extent, about 2 mm for a human brain."
        ),
    )
    affine_share: Fraction = Field(
        0.15,
        description=(
            "Share of it that is a small turn, shift and stretch, as after `align_sections`."
        ),
    )
    anatomy_mm: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description=(
            "How far the edges of a section lie off those of its MRI plane, mm, rms, as they do"
            " where anatomy differs; none takes 0.25 % of the tissue's extent, which is what the"
            " best deformation by the labels themselves leaves on real sections. 0 makes sections"
            " functions of their planes. Landmarks do not follow it."
        ),
    )
    gyral_tears: Annotated[float, Field(ge=0, le=10)] = Field(
        1.0, description="Narrow tears across gyri in a section, in the mean."
    )
    tears: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.15, description="Share of the sections with a tear."
    )
    missing_pieces: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.1, description="Share of the sections with a piece missing."
    )
    uneven_staining: Annotated[float, Field(ge=0, le=5)] = Field(
        1.0, description="How uneven the stain is, in multiples of the sections' own."
    )
    texture: Annotated[float, Field(ge=0, le=3)] = Field(
        1.0, description="How strong the texture is, in multiples of the sections' own."
    )
    blur_px: Annotated[float, Field(ge=0, le=5)] = Field(
        0.4, description="Blur of the camera, standard deviation, pixels."
    )
    noise: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.02,
        description="Noise of the camera, standard deviation, as a share of the tissue's median.",
    )
    n_landmarks: Annotated[int, Field(ge=10)] = Field(
        150, description="Points per section at which the error is measured."
    )
    seed: int = Field(
        1, ge=0, description="Random seed: another one gives another deformation of this brain."
    )


class ReportOptions(Options):
    """The HTML page of one brain."""

    max_width_px: Annotated[int, Field(ge=100)] = Field(
        320, description="Longer side of its pictures, pixels."
    )
    jpeg_quality: Annotated[int, Field(ge=10, le=95)] = Field(
        70, description="Quality of its JPEG pictures, 10 to 95."
    )
