"""What all options have in common."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Automatic = Literal["auto", "always", "never"]
Momentum = Annotated[float, Field(ge=0, lt=1)]

PLACEHOLDER = re.compile(r"\{[^}]*\}|<[^>]*>")
"""What Snakemake takes for a wildcard or the name of a folder, wherever it stands in a path."""


def _without_placeholder(value: str) -> str:
    if found := re.search(r"[{}<>]", value):
        raise ValueError(f"expected a folder without {{, }}, < or >, found {found[0]!r} in it")
    return value


FolderName = Annotated[str, AfterValidator(_without_placeholder)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("expected an odd number")
    return value


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("expected an even number")
    return value


def _file_or_length(value: Any) -> Any:
    is_length = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if value is not None and value != "file" and not is_length:
        raise ValueError("expected file, or a number above 0")
    return value


PixelOfFile = Annotated[Literal["file"] | Positive | None, BeforeValidator(_file_or_length)]
"""A pixel size, mm; ``file`` for that of a section's file."""
EvenCount = Annotated[int, Field(ge=64), AfterValidator(_even)]
Window = Annotated[int, Field(ge=3), AfterValidator(_odd)]


class Options(BaseModel):
    """Frozen, and refuses keys it does not know.

    Attributes
    ----------
    LATER : options that came later, and that change nothing while they have their default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    LATER: ClassVar[frozenset[str]] = frozenset()

    def asked(self, but: Collection[str] = ()) -> dict[str, Any]:
        """What is asked of a stage, as JSON values: without later options at their default.

        So what was finished before there were these stays finished.
        """
        unset = {
            name
            for name in self.LATER
            if getattr(self, name) == type(self).model_fields[name].default
        }
        return self.model_dump(mode="json", exclude={*but, *unset})


class IntensityOptions(Options):
    """How an image becomes a network's input: [0, 1] inside the mask, 0 outside."""

    low_quantile: Fraction = Field(
        0.01, description="Quantile of the intensities in the mask that becomes 0."
    )
    high_quantile: Fraction = Field(
        0.99, description="Quantile of the intensities in the mask that becomes 1."
    )

    @model_validator(mode="after")
    def _in_order(self) -> IntensityOptions:
        if self.low_quantile >= self.high_quantile:
            raise ValueError("expected low_quantile below high_quantile")
        return self
