"""Options of the stages that train nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sbr_core.config.base import Count, Fraction, NonNegative, Options, Positive, Steps, Window
from sbr_core.methods import METHODS

MethodName = Literal[METHODS]
Stain = Literal["auto", "nissl", "hematoxylin", "h&e", "dab", "myelin", "fluorescence", "grey"]


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
