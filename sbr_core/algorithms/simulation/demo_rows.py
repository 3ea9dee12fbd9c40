"""Which sections the demo has, before any of them is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.errors import ConfigError

if TYPE_CHECKING:
    from sbr_core.config import DemoOptions

MAX_EXTENT_MM = 150.0
"""Length of the stack beyond which its end sections would hold too little tissue."""
_FIRST_POSITION_MM = 20.0
"""Arbitrary, but not 0: positions need not begin there."""
_JITTER = 0.1
"""Of a position, in spacings: sections of real series are not quite evenly spaced."""
_MISSING, _FLIPPED, _ROTATED = 0.33, 0.25, 0.62
"""Where in the series a section is missing, lies mirrored, and lies turned by 90 degrees."""
_NOTES = (
    (0.15, "uneven staining"),
    (0.42, "tear"),
    (0.50, "uneven staining"),
    (0.72, "missing piece"),
    (0.80, "uneven staining"),
)
"""Where in the series sections have a fault, as shares of its length, away from its ends."""


def demo_rows(options: DemoOptions) -> list[dict[str, Any]]:
    """The rows of the demo's manifest, cheap and without making the demo.

    Returns
    -------
    One dict per section in order of position, with the manifest's columns; paths are relative to
    the demo's folder. One place in the series is empty, so one gap is twice as wide.

    Raises
    ------
    ConfigError
        If the sections reach beyond the brain.
    """
    n = options.n_sections
    extent_mm = n * options.section_spacing_mm
    if extent_mm > MAX_EXTENT_MM:
        raise ConfigError(
            f"config: demo: n_sections x section_spacing_mm is {extent_mm:g} mm, "
            f"expected at most {MAX_EXTENT_MM:g} mm, the length of the brain"
        )
    rng = np.random.default_rng([options.seed, 1])
    slots = np.arange(n + 1)
    jitter = rng.uniform(-_JITTER, _JITTER, n + 1)
    positions = _FIRST_POSITION_MM + options.section_spacing_mm * (slots + jitter)
    missing = round(_MISSING * n)
    kept = [int(slot) for slot in slots if slot != missing]
    notes = dict.fromkeys(kept, "")
    for share, note in _NOTES:
        notes[kept[round(share * n)]] = note
    rows = []
    for order, slot in enumerate(kept):
        section = f"s{slot + 1:03d}"
        rows.append(
            {
                "section": section,
                "image": f"images/{section}.png",
                "position_mm": round(float(positions[slot]), 3),
                "pixel_size_mm": options.pixel_size_mm,
                "labels": f"labels/{section}.png",
                "flip": "lr" if order == round(_FLIPPED * n) else "none",
                "rotate_deg": 90.0 if order == round(_ROTATED * n) else 0.0,
                "stain": "simulated Nissl",
                "notes": notes[slot],
            }
        )
    return rows
