"""What the report's page saves of a user's corrections: `corrections.json`, version 1.

Everything in it is as the page displayed the section, which is as `prepare` left it.
`tools.correct` turns it into what lasts: cells of the manifest, and points in the file and the MRI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from sbr_core.errors import ManifestError, ReceiptError
from sbr_core.io.files import read_json

_Line = Annotated[str, AfterValidator(lambda text: " ".join(text.split()))]
"""Text that becomes a cell of a table, which has no lines of its own."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class PagePair(_Frozen):
    """A pair of points.

    Attributes
    ----------
    x_prepared_mm, y_prepared_mm : (column, row) of the prepared image times its pixel, from the
        centre of its first one, before any flip or turn of the page.
    x_plane_mm, y_plane_mm : plane mm.
    """

    name: _Line = ""
    x_prepared_mm: float
    y_prepared_mm: float
    x_plane_mm: float
    y_plane_mm: float


class PageSection(_Frozen):
    """What was done to a section.

    Attributes
    ----------
    flip, turn_deg : of the section as displayed: mirrored, then turned counter-clockwise about its
        centre.
    landmarks : None where they were not touched.
    prepared_sha256, plane_sha256 : of the prepared image and of the MRI plane that were shown.
    """

    verdict: Literal["accept", "reject", "exclude"] | None = None
    flip: Literal["none", "lr", "ud"] = "none"
    turn_deg: float = 0.0
    landmarks: tuple[PagePair, ...] | None = None
    note: _Line = ""
    prepared_sha256: str | None = None
    plane_sha256: str | None = None


class CorrectionPage(_Frozen):
    """The whole file; `sections` has those that were edited."""

    format: Literal["sbr_core corrections"]
    version: Literal[1]
    brain: str
    method: str = ""
    saved: str = ""
    sections: dict[str, PageSection]


def read_correction_page(path: Path) -> CorrectionPage:
    """The corrections that a report saved; ManifestError where the file is none of these."""
    try:
        return read_json(path, CorrectionPage)
    except ReceiptError as error:
        raise ManifestError(f"{error}: expected the corrections.json that a report saves") from None
