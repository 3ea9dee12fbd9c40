"""Landmarks of corrections, which a registration obeys, and which are never scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sbr_core.artifacts.rows import Prepared
from sbr_core.errors import ManifestError
from sbr_core.io.manifests import Landmark

_SAME_WORKING_PX = 0.5
"""Two landmarks nearer than this on a section are one: people set a point no more exactly on a
picture of that pixel."""


def refuse_scored(
    scored: Iterable[Landmark],
    constraints: Mapping[str, Sequence[Landmark]],
    prepared: Mapping[str, Prepared],
) -> None:
    """ManifestError where a landmark to measure by is one that the registration obeys.

    Parameters
    ----------
    constraints, prepared : by section; sections that failed are not in the latter.
    """
    for mark in scored:
        row = prepared.get(mark.section)
        if not isinstance(row, Prepared):
            continue
        for other in constraints.get(mark.section, ()):
            apart_mm = float(np.hypot(*np.subtract(mark.section_mm, other.section_mm)))
            if apart_mm <= _SAME_WORKING_PX * row.working_pixel_mm:
                at = ", ".join(f"{value:g}" for value in mark.section_mm)
                raise ManifestError(
                    f"section {mark.section!r}: landmark {mark.name or at!r} at ({at}) mm stands in"
                    f" the landmarks and, as {other.name!r}, in the corrections: what the"
                    " registration obeys says nothing of its error; remove it from one of them"
                )
