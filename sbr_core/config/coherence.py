"""Options of `coherent`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sbr_core.config.base import Count, NonNegative, Positive
from sbr_core.config.stages import Levels, RefineOptions, Steps
from sbr_core.methods import FOLLOWED_METHODS


class CoherentOptions(RefineOptions):
    """The deformations of another method, corrected so that neighbouring sections agree."""

    of: Literal["auto", *FOLLOWED_METHODS] = Field(
        "auto",
        description=(
            "The method whose deformations are corrected; `auto`: the last before `coherent` in"
            " `methods` of those that can be, or `linear`."
        ),
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`cpu`, `cuda`, or `auto`: `cuda` where there is one."
    )
    hold: Positive = Field(
        0.7,
        description=(
            "How strongly each section is held to its own registration, against its neighbours; 0.3"
            " to 1 give about the same."
        ),
    )
    outlier: Annotated[float, Field(ge=1)] = Field(
        3.0,
        description="Disagreement beyond this many times its median counts less (Huber's loss).",
    )
    smoothing_px: Annotated[int, Field(ge=1)] = Field(
        4, description="Standard deviation that disagreement is smoothed by, working pixels."
    )
    refine_steps: Steps = Field(
        15, description="Steps, at each level, of the registration of neighbours to each other."
    )
    refine_levels: Levels = Field((4, 2, 1), description="As above.")
    refine_learning_rate: Positive = Field(0.4, description="As above.")
    refine_smoothness: NonNegative = Field(5.0, description="As above.")
    refine_mind_weight: NonNegative = Field(10.0, description="As above.")
    refine_mind_dilations_px: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        (1, 2, 3), description="As above."
    )
