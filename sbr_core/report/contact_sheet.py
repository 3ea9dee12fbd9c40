"""The doctor's contact sheet: all sections of a stack at a glance, and what was found of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sbr_core.algorithms.doctor.findings import Finding, Section
from sbr_core.algorithms.doctor.pictures import in_pose
from sbr_core.report import pictures

_DARK_QUANTILE = 0.98
"""Of a section's tissue: what is darker is ink, or a fold."""
_SHOWN_QUANTILE = 0.9
"""Of the sections' sides: a few huge ones are shrunk to their square rather than all others."""
_BESIDE_TISSUE = 0.5
"""Share of its signal that what lies beside the tissue is shown with, so that it is seen to."""
_DARKEST = 0.85
"""Stain is not shown black, so that structure within dark tissue shows."""
_BETWEEN_PX = 12
"""White below each of the two parts."""


def contact_sheet(
    sections: Sequence[Section], findings: Sequence[Finding], picture_px: int
) -> np.ndarray:
    """All sections as they lie, framed and marked where something was found; then what was found.

    Of every section that seems to lie wrong, below: the sections before and after it, and between
    them itself, as it lies and as suggested.

    Parameters
    ----------
    sections : along the stack.
    picture_px : side of the square that a section is shown in.

    Returns
    -------
    (rows, columns, 3) uint8.
    """
    kinds: dict[str, list[str]] = {}
    for finding in findings:
        if finding.kind != "gap":  # which is no fault of the section before it
            kinds.setdefault(finding.section, []).append(finding.kind)
    # one white for all, so that a pale section looks pale
    dark = float(np.median([np.quantile(s.image[s.mask], _DARK_QUANTILE) for s in sections]))
    # one scale for all, so that a section half as large looks so
    shown = float(np.quantile([max(s.image.shape) for s in sections], _SHOWN_QUANTILE))
    stains, tiles = [], []
    for section in sections:
        image = np.where(section.mask, section.image, _BESIDE_TISSUE * section.image)
        scale = picture_px / max(shown, *image.shape)
        shape = tuple(max(1, round(n * scale)) for n in image.shape)
        stains.append(pictures.resized(image, shape) / dark)
        marks = tuple(kinds.get(section.name, ()))
        tiles.append(pictures.Tile(_dark_on_white(stains[-1]), section.name, marks))
    page = pictures.sheet(tiles, picture_px)

    corrections: list[pictures.Tile] = []
    index = {section.name: i for i, section in enumerate(sections)}
    for finding in findings:
        if finding.correction is None:
            continue
        i = index[finding.section]
        corrected = in_pose(_on_square(stains[i], picture_px), *finding.correction)
        corrections += [
            pictures.Tile(tiles[i - 1].picture, f"{tiles[i - 1].name}, before") if i else tiles[i],
            tiles[i],
            pictures.Tile(_dark_on_white(corrected), f"{finding.section}, as suggested"),
            pictures.Tile(tiles[i + 1].picture, f"{tiles[i + 1].name}, after")
            if i + 1 < len(tiles)
            else tiles[i],
        ]
    if not corrections:
        return page
    parts = page, pictures.sheet(corrections, picture_px)
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [
            np.pad(
                part, ((0, _BETWEEN_PX), (0, width - part.shape[1]), (0, 0)), constant_values=255
            )
            for part in parts
        ]
    )


def _dark_on_white(stain: np.ndarray) -> np.ndarray:
    """A picture as histology looks, of stain from 0 on glass to 1."""
    return pictures.rgb(1 - _DARKEST * stain)


def _on_square(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture in the middle of a square that it fits in, 0 around it."""
    rows, columns = (side - n for n in picture.shape)
    return np.pad(picture, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))
