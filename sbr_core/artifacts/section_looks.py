"""A look at one section and its side inputs, coarsely, before anything is computed from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.levels import plane_mask
from sbr_core.algorithms.masks import tissue_mask
from sbr_core.algorithms.pieces import shows_several
from sbr_core.algorithms.plausibility.masks import (
    Doubt,
    dice,
    doubt_of_labels,
    doubt_of_place,
    doubt_of_values,
)
from sbr_core.algorithms.plausibility.outlines import box_mm, cells_of, unevenness_of_sides
from sbr_core.algorithms.sections import area_vote
from sbr_core.algorithms.staining import named_stain
from sbr_core.artifacts.rows import Looked
from sbr_core.artifacts.section_signal import box_of, find_source, through_affine
from sbr_core.errors import ImageError
from sbr_core.io.images import image_shape, is_jpeg, read_labels, read_reduced
from sbr_core.io.pixel_size import disagreement, stated_pixel_size

if TYPE_CHECKING:
    from sbr_core.config import PrepareOptions
    from sbr_core.io.manifests import SectionRow

_LOOK_PX = 256
"""Longer side of a section as it is looked at: enough for outlines and a landmark's place."""
_MOST_PX = 2000
"""Longer side of a mask whose values are looked at; of a larger one every so many pixels are."""


@dataclass
class _Notes:
    """What is to be said of a section, by subject."""

    doubts: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    def add(self, subject: str, *doubts: Doubt) -> None:
        """The first of them that says something."""
        for doubt in doubts:
            if doubt.words:
                notes = self.refusals if doubt.verdict == "refused" else self.doubts
                notes.setdefault(subject, doubt.words)
                return

    def reading(
        self, subject: str, read: Callable[[], np.ndarray], *, needed: bool = True
    ) -> np.ndarray | None:
        """What `read` returns; None, and a refusal, or a doubt where it is not `needed`."""
        try:
            return read()
        except ImageError as error:
            notes = self.refusals if needed else self.doubts
            notes[subject] = str(error) if needed else f"left out: {error}"
            return None


def look_at_section(row: SectionRow, options: PrepareOptions) -> Looked:
    """One section: its size, outline, mask, labels and MRI plane, as far as it has them.

    Parameters
    ----------
    options : of `prepare`, by which tissue is found.

    Raises
    ------
    ImageError
        The image cannot be read or shows nothing, so that `prepare` would leave the section out.
    """
    file, notes = Path(row.image), _Notes()
    shape = image_shape(file, row.image_channel)
    of_metadata: list[str] = []
    stated = stated_pixel_size(file, of_metadata)
    if of_metadata:
        notes.doubts["metadata"] = "; ".join(of_metadata)
    if doubt := disagreement(stated, row.pixel_size_mm):
        notes.doubts["pixel sizes"] = doubt
    read = read_reduced(file, max(shape) / (2 * _LOOK_PX), row.image_channel)
    look_mm = max(row.pixel_size_mm, max(shape) * row.pixel_size_mm / _LOOK_PX)
    file_from_look, look_shape = geometry.file_px_from_working_px(shape, row.pixel_size_mm, look_mm)
    stain = named_stain(row.stain) or options.stain
    source, noise = find_source(read.pixels, stain, options.polarity, options.even_light)
    signal = source.channel.tissue(source.lit_evenly(read.pixels))
    box = box_of(row, shape)
    scale = look_mm / row.pixel_size_mm
    in_box = replace(read, pixels=signal).within(box)
    fine = through_affine(in_box, file_from_look, look_shape, scale)
    # prepare finds lines and dirt by the working pixel; coarser, by what is looked at
    found = tissue_mask(fine, look_mm, max(look_mm, options.working_pixel_mm), noise)
    tissue = found
    if row.mask:
        given = notes.reading("masks of sections", lambda: read_labels(Path(row.mask), shape))
        if given is not None:
            given = geometry.in_box(given, box)
            tissue = area_vote(given > 0, file_from_look, look_shape)
            seen = thinned(given)
            notes.add(
                "masks of sections",
                doubt_of_values(seen, is_jpeg=is_jpeg(Path(row.mask))),
                doubt_of_place(tissue, found),
            )
    if not tissue.any():
        width_mm = max(shape) * row.pixel_size_mm
        raise ImageError(
            f"{row.image}: section {row.section!r}: no tissue found in an image that is"
            f" {width_mm:.3g} mm wide by its pixel_size_mm {row.pixel_size_mm:g}"
        )
    if box is None and (n_sections := shows_several(tissue)) > 1:
        notes.doubts["pictures"] = (
            f"shows {n_sections} pieces of tissue of like size and shape: where these are sections,"
            " each needs a row with its box_px, which `sbr manifest --split` writes"
        )
    upright = _upright(tissue, row)
    width_mm, height_mm = box_mm(upright, look_mm)
    looked = Looked(
        section=row.section,
        position_mm=row.position_mm,
        pixel_size_mm=row.pixel_size_mm,
        flip=row.flip,
        rotate_deg=row.rotate_deg,
        box_px=row.box_px,
        file_rows=shape[0],
        file_columns=shape[1],
        pixel_aspect=1.0 if stated is None else stated.y_mm / stated.x_mm,
        tissue_mm2=float(np.count_nonzero(tissue)) * look_mm**2,
        width_mm=width_mm,
        height_mm=height_mm,
        cells=cells_of(tissue),
        unevenness=unevenness_of_sides(upright),
        ids=_ids("labels of sections", row.labels, shape, notes, box),
        plane_ids=_ids("labels of planes", row.mri_labels, None, notes),
        doubts=notes.doubts,
        refusals=notes.refusals,
    )
    if row.mri_image:
        looked = _beside_plane(looked, row, tissue, file_from_look, look_mm, notes)
    return looked


def thinned(values: np.ndarray) -> np.ndarray:
    """Every so many values along each axis, so that none is longer than some 2000."""
    return values[tuple(slice(None, None, max(1, n // _MOST_PX)) for n in values.shape)]


def _upright(tissue: np.ndarray, row: SectionRow) -> np.ndarray:
    """A mask as the manifest flips and turns it."""
    if row.flip == "none" and row.rotate_deg % 360 == 0:
        return tissue
    upright, shape = geometry.upright_from_file(tissue.shape, row.flip, row.rotate_deg)
    return area_vote(tissue, np.linalg.inv(upright), shape)


def _ids(
    subject: str,
    file: str,
    shape: tuple[int, int] | None,
    notes: _Notes,
    box: geometry.Box | None = None,
) -> tuple[float, ...] | None:
    """Ids of a label image; None where there is none."""
    if not file:
        return None
    # labels that cannot be used cost the labels, not the section
    labels = notes.reading(subject, lambda: read_labels(Path(file), shape), needed=False)
    if labels is None:
        return ()
    labels = geometry.in_box(labels, box)
    doubt = doubt_of_labels(labels, is_jpeg=is_jpeg(Path(file)))
    notes.add(subject, doubt)
    return tuple(float(i) for i in np.unique(labels[labels > 0]))


def _beside_plane(
    looked: Looked,
    row: SectionRow,
    tissue: np.ndarray,
    file_from_look: np.ndarray,
    look_mm: float,
    notes: _Notes,
) -> Looked:
    """With the MRI plane of a prealigned section, which shares the section's grid."""
    subject = "MRI planes"
    shape = (looked.file_rows, looked.file_columns)
    if row.mri_mask:
        given = notes.reading(subject, lambda: read_labels(Path(row.mri_mask), shape))
        if given is not None:
            notes.add(subject, doubt_of_values(thinned(given), is_jpeg=is_jpeg(Path(row.mri_mask))))
        plane = None if given is None else given > 0
    else:
        read = notes.reading(subject, lambda: read_reduced(Path(row.mri_image), 1.0).pixels)
        grey = None if read is None else read if read.ndim == 2 else read.mean(axis=2)
        if grey is not None and grey.shape != shape:
            notes.refusals[subject] = f"{row.mri_image}: shape {grey.shape} differs from {shape}"
            grey = None
        plane = None if grey is None else plane_mask(grey)
        if grey is not None and plane is None:
            notes.refusals[subject] = f"{row.mri_image}: has values of both signs: give mri_mask"
    if plane is None or not plane.any():
        return replace(looked, doubts=notes.doubts, refusals=notes.refusals)
    on_look = area_vote(plane, file_from_look, tissue.shape)
    return replace(
        looked,
        plane_mm2=float(np.count_nonzero(on_look)) * look_mm**2,
        plane_dice=dice(on_look, tissue),
        doubts=notes.doubts,
        refusals=notes.refusals,
    )
