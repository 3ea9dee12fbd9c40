"""One section as every method aligned it, as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.artifacts.label_pairs import LabelPairs
from sbr_core.artifacts.names import MRI, MRI_MASK, SECTION_TO_STACK, SYNTHESISED, TABLE
from sbr_core.artifacts.rows import Inferred, Plane, Prepared, read_rows
from sbr_core.artifacts.section_signal import registered
from sbr_core.errors import ConfigError, ReceiptError
from sbr_core.io.transforms import read_section_transform
from sbr_core.io.volumes import read_plane
from sbr_core.report import figures, pictures
from sbr_core.report.comparison import TITLES, typical_section

if TYPE_CHECKING:
    import pandas as pd

_LONGER_SIDE_PX = 1600
"""Of the section's picture, at most: at 250 dots an inch a panel is 425 px wide, which the
close-up fills with 0.3 of the picture."""
_NO_SYNTHESIS = "nothing\nsynthesised"
"""In place of the picture that a method without a synthesis lacks."""
_CLOSE_UP = 0.3
"""Side of the close-up, as a share of the tissue's longer side: a few gyri of a human brain."""


class ExampleSection:
    """One section as every method aligned it.

    Attributes
    ----------
    section, why : its id, and why it was chosen.
    target : its MRI plane.
    methods : method -> the registered section, and the synthesis if there is one.
    outlined_by : where the classes of `outlines` are from.
    view_mm, cortex_mm : left, right, bottom and top of the section and of its most folded piece of
        cortex, plane mm, rows downwards.
    """

    def __init__(
        self,
        asked_for: str | None,
        values: pd.DataFrame,
        methods: Mapping[str, Path],
        prepared: Path,
        planes: Path,
        label_pairs: LabelPairs,
    ) -> None:
        """Choose the section and read or make its pictures.

        Parameters
        ----------
        asked_for : a section; None for the one of median rank.
        values : of `comparison.read_values`.
        methods : method -> its folder of results.
        prepared, planes : tables of `prepare` and `resample`.

        Raises
        ------
        ConfigError
            Not every method aligned the section that was asked for.
        ReceiptError
            There is no section that every method aligned, or one of its files is missing.
        """
        prepared_rows = {row.section: row for row in read_rows(prepared, Prepared, verify=False)}
        plane_rows = {row.section: row for row in read_rows(planes, Plane, verify=(MRI,))}
        inferred = {
            method: {row.section: row for row in read_rows(folder / TABLE, Inferred, verify=False)}
            for method, folder in methods.items()
        }
        everywhere = [
            section
            for section in plane_rows
            if all(section in rows for rows in (prepared_rows, *inferred.values()))
        ]
        self.section, self.why = _choose(asked_for, values, everywhere)
        prepared_row, plane = prepared_rows[self.section], plane_rows[self.section]
        grid = plane.grid
        mri, _ = read_plane(plane.intact(MRI))
        mask, _ = read_plane(plane.intact(MRI_MASK))
        # as fine as the section's file is, but no finer than can be seen
        finest_mm = max(grid.shape) * grid.spacing_mm / _LONGER_SIDE_PX
        fine = grid.at_spacing(max(prepared_row.pixel_size_mm, finest_mm))
        self.methods: dict[str, tuple[figures.Picture, figures.Picture | None]] = {}
        for method, rows in inferred.items():
            row = rows[self.section]
            transform = read_section_transform(row.intact(SECTION_TO_STACK))
            image = pictures.window(registered(prepared_row, transform, fine))
            synthesised = None
            if row.has(SYNTHESISED):
                pixels, _ = read_plane(row.intact(SYNTHESISED))
                synthesised = figures.Picture(np.clip(pixels, 0, 1), grid.spacing_mm)
            self.methods[method] = figures.Picture(image, fine.spacing_mm), synthesised
        # labels of deep grey matter can be ragged, so it is grey levels that find the cortex
        classes = figures.classes_of_grey(mri, mask)
        labels = label_pairs.of(prepared_row, plane)
        if labels is not None:
            self.outlined_by = "the MRI's labels"
            self.outlines = figures.Outlines(labels.plane_labels, labels.plane_grid.spacing_mm)
        else:
            self.outlined_by = "the MRI's grey levels, split in three by Otsu's method"
            names = {1: "from middle grey", 2: "bright"}
            self.outlines = figures.Outlines(classes, grid.spacing_mm, nested=True, names=names)
        self.position_mm = plane.position_mm
        self.target = figures.Picture(pictures.window(mri, mask), grid.spacing_mm)
        self.view_mm = figures.extent_of(mask, grid.spacing_mm)
        self.cortex_mm = figures.busiest_view(classes, grid.spacing_mm, _CLOSE_UP)

    def _caption(self, brain: str) -> str:
        return (
            f"Brain {brain}, section {self.section} ({self.why}) at {self.position_mm:g} mm."
            f" Lines: boundaries of {self.outlined_by}."
        )

    def whole(self, brain: str) -> figures.Drawing:
        """The section, its MRI plane, and what each method made of it."""
        bands = [
            [
                figures.Panel("MRI (target)", self.target),
                figures.Panel("Section (source, Linear)", self.methods["linear"][0], True),
            ]
        ]
        for method, (aligned, synthesised) in self.methods.items():
            if method != "linear":
                name = figures.name_of(method)
                upper = figures.Panel(f"{name}, synthesised", synthesised, word=_NO_SYNTHESIS)
                bands.append([upper, figures.Panel(f"{name}, registered", aligned, True)])
        figure = figures.picture_grid(bands, self.view_mm, self.outlines, linewidth=0.35)
        return figures.Drawing("example", figure, self._caption(brain), "Example section")

    def close_up(self, brain: str) -> figures.Drawing:
        """Its most folded piece of cortex, large."""
        bands = [[figures.Panel("MRI (target)", self.target, True)]]
        for method, (aligned, _) in self.methods.items():
            bands.append([figures.Panel(figures.name_of(method), aligned, True)])
        figure = figures.picture_grid(bands, self.cortex_mm, self.outlines, linewidth=0.8)
        caption = f"The piece with the most boundary of grey levels. {self._caption(brain)}"
        return figures.Drawing("close_up", figure, caption, "Close-up")


def _choose(
    asked_for: str | None, values: pd.DataFrame, everywhere: Sequence[str]
) -> tuple[str, str]:
    """(section, why it was chosen) of those that every method aligned."""
    if not everywhere:
        raise ReceiptError("compare: no section was aligned by every method")
    if asked_for is not None:
        if asked_for not in everywhere:
            raise ConfigError(
                f"config: compare.section: '{asked_for}' is no section that every method aligned"
            )
        return asked_for, "as asked for"
    if (typical := typical_section(values, everywhere)) is not None:
        section, metric = typical
        return section, f"of median rank by {TITLES[metric].split(' (')[0]}"
    return everywhere[len(everywhere) // 2], "in the middle of the stack"
