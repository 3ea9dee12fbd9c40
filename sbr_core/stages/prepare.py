"""`prepare`: from image files to working-resolution intensity and tissue mask, per section.

Everything later works on these small images; `reassemble` goes back to the files, by the matrix
that is recorded here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.evenness import staining_field, unit_square
from sbr_core.algorithms.masks import tissue_mask
from sbr_core.algorithms.plausibility.lengths import LARGEST_MM, SMALLEST_MM
from sbr_core.algorithms.sections import area_vote, grid_px
from sbr_core.algorithms.staining import named_stain
from sbr_core.artifacts.names import IMAGE, MASK, section_file
from sbr_core.artifacts.receipts import SectionResult, run_sections
from sbr_core.artifacts.rows import Prepared, digest_of_file, fingerprint
from sbr_core.artifacts.section_signal import box_of, find_source, read_picture, through_affine
from sbr_core.config import PrepareOptions
from sbr_core.errors import ImageError, ManifestError
from sbr_core.io.blocks import Picture
from sbr_core.io.files import check_is_file
from sbr_core.io.images import image_shape, read_labels
from sbr_core.io.manifests import SectionRow, rows_to_json
from sbr_core.io.pixel_size import disagreement, is_another_unit, stated_pixel_size
from sbr_core.io.volumes import write_plane
from sbr_core.revisions import REVISION

logger = logging.getLogger(__name__)


def run(
    options: PrepareOptions,
    *,
    rows: Sequence[SectionRow],
    out_dir: Path,
    receipt: Path,
    strict: bool = False,
) -> None:
    """Reduce section images to working-resolution intensities and tissue masks.

    Parameters
    ----------
    rows : manifest rows: a JSON list, its path (.json), or a manifest (.tsv).
    out_dir : folder the results go to.
    receipt : table to write: each section, its files and their sha256.
    strict : stop at the first section that cannot be used.

    Raises
    ------
    ManifestError
        A row names a file that is not there.
    ImageError
        With `strict`, the first section that cannot be read or has no tissue; otherwise such a
        section is ``failed`` in the receipt.
    """
    for row in rows:
        for name in row.files():
            check_is_file(Path(name), ManifestError, f"section {row.section!r}: ")

    run_sections(
        {row.section: row for row in rows},
        stage="prepare",
        out_dir=out_dir,
        receipt=receipt,
        fingerprint=lambda row: fingerprint(
            REVISION["prepare"],
            options,
            row=rows_to_json([row]),  # with which a new column changes nothing
            inputs=[digest_of_file(f) for f in (row.image, row.mask, row.labels) if f],
        ),
        process=lambda row: prepare_section(row, options, out_dir, strict=strict),
        strict=strict,
        asked={"options": options.model_dump(mode="json"), "revision": REVISION["prepare"]},
    )


def prepare_section(
    row: SectionRow, options: PrepareOptions, out_dir: Path, *, strict: bool = False
) -> SectionResult:
    """Write one section's working image and mask.

    Labels that cannot be used are left out, with a warning.

    Raises
    ------
    ImageError
        An unreadable image, a mask of another shape, no tissue or, with `strict`, labels that
        cannot be used.
    """
    working_pixel_mm = options.working_pixel_mm
    doubt = _doubtful_pixel_size(row, options.contradicted_pixel_size)
    read = read_picture(row, working_pixel_mm)
    file_shape, picture = read.file_shape, read.pixels
    given_mask = read_labels(Path(row.mask), file_shape) > 0 if row.mask else None
    labels, fault = _usable_labels(row, file_shape, strict=strict)
    doubt = "; ".join(said for said in (doubt, fault) if said)
    if doubt:
        logger.warning(f"prepare: WARNING: {row.image}: section {row.section!r}: {doubt}")

    box = box_of(row, file_shape)
    file_from_working, shape = _file_px_from_working_px(row, file_shape, working_pixel_mm)
    # what the manifest says of one section goes before what the configuration says of all
    stain = named_stain(row.stain) or options.stain
    source, noise = find_source(picture, stain, options.polarity, options.even_light)
    if given_mask is None:
        tissue = replace(read, pixels=source.channel.tissue(source.lit_evenly(picture)))
        tissue = tissue.within(box)
        mask = _tissue_mask(tissue, row, noise, working_pixel_mm, file_from_working, shape)
    else:
        mask = area_vote(geometry.in_box(given_mask, box), file_from_working, shape)
    signal, scale = source.signal(picture), working_pixel_mm / row.pixel_size_mm
    signal_in_box = replace(read, pixels=signal).within(box)
    working = through_affine(signal_in_box, file_from_working, shape, scale)
    if options.even_staining != "never":
        xy = unit_square(geometry.apply(file_from_working, grid_px(shape)), file_shape)
        always = options.even_staining == "always"
        source = replace(source, staining=staining_field(working, mask, xy, always=always))
        if source.staining is not None:
            signal_in_box = replace(read, pixels=source.signal(picture)).within(box)
            working = through_affine(signal_in_box, file_from_working, shape, scale)

    tissue_mm2 = float(np.count_nonzero(mask)) * working_pixel_mm**2
    if tissue_mm2 == 0 or tissue_mm2 < options.min_tissue_mm2:
        whole_mm2 = math.prod(box.shape if box else file_shape) * row.pixel_size_mm**2
        why = "no tissue found"
        if whole_mm2 < options.min_tissue_mm2:
            why = (
                f"by its pixel_size_mm {row.pixel_size_mm:g} the whole image has"
                f" {whole_mm2:.3g} mm²"
            )
        raise ImageError(
            f"{row.image}: section {row.section!r}: {tissue_mm2:.1f} mm² of tissue, expected at"
            f" least {options.min_tissue_mm2:g}: {why}"
        )

    files = [section_file(out_dir, row.section, ending) for ending in (IMAGE, MASK)]
    write_plane(files[0], working, working_pixel_mm)
    write_plane(files[1], mask.astype(np.uint8), working_pixel_mm)
    prepared = Prepared(
        section=row.section,
        message=doubt,
        position_mm=row.position_mm,
        pixel_size_mm=row.pixel_size_mm,
        working_pixel_mm=working_pixel_mm,
        file_rows=file_shape[0],
        file_columns=file_shape[1],
        read_step=read.mean_step,
        section_mm_from_working_mm=geometry.section_mm_from_working_mm(
            file_from_working, row.pixel_size_mm, working_pixel_mm
        ),
        tissue_mm2=tissue_mm2,
        image=row.image,
        image_channel=row.image_channel,
        labels=labels,
        stain=row.stain,
        box_px=row.box_px,
        thickness_um=row.thickness_um,
        stain_group=row.stain_group,
        affine_from=row.affine_from,
        **source.fields(),
    )
    return SectionResult(prepared, files)


def _usable_labels(
    row: SectionRow, file_shape: tuple[int, int], *, strict: bool
) -> tuple[str, str]:
    """(labels of a section, or "" where they cannot be used; then why not).

    They are used only later, but a misfit shows now.
    """
    if not row.labels:
        return "", ""
    try:
        read_labels(Path(row.labels), file_shape)
    except ImageError as error:
        if strict:
            raise
        return "", f"its labels are left out: {error}"
    return row.labels, ""


def _file_px_from_working_px(
    row: SectionRow, file_shape: tuple[int, int], working_pixel_mm: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """`geometry.file_px_from_working_px` of a section: the whole file, or its box."""
    box = geometry.Box.of(row.box_px) or geometry.Box.whole(file_shape)
    box_from_working, shape = geometry.file_px_from_working_px(
        box.shape, row.pixel_size_mm, working_pixel_mm, row.flip, row.rotate_deg
    )
    return geometry.translation(box.left, box.top) @ box_from_working, shape


def _doubtful_pixel_size(row: SectionRow, contradicted: str) -> str:
    """What is to be said of a row's pixel size; "" where nothing speaks against it.

    Parameters
    ----------
    contradicted : ``refuse`` or ``warn``, what to do where the file says plainly another unit.

    Raises
    ------
    ImageError
        It is micrometres given for millimetres or the like, as the file says, or as the section
        would be wider than any brain.
    """
    file = Path(row.image)
    file_shape = image_shape(file, row.image_channel)
    box = box_of(row, file_shape)
    longest_px = max(box.shape if box else file_shape)  # a slide is wider than a section
    of_metadata: list[str] = []
    stated = stated_pixel_size(file, of_metadata)
    extent_mm = longest_px * row.pixel_size_mm
    doubt = disagreement(stated, row.pixel_size_mm)
    if contradicted == "refuse" and is_another_unit(stated, row.pixel_size_mm):
        raise ImageError(
            f"{row.image}: section {row.section!r}: in its row of the manifest {doubt} (where the"
            f" file is wrong: prepare.contradicted_pixel_size: warn)"
        )
    if extent_mm > LARGEST_MM:
        raise ImageError(
            f"{row.image}: section {row.section!r}: by pixel_size_mm {row.pixel_size_mm:g} in its"
            f" row of the manifest, {longest_px} pixels are {extent_mm / 1000:.3g} m: given in"
            f" micrometres? Then it is {row.pixel_size_mm / 1000:g}"
        )
    if extent_mm < SMALLEST_MM and not doubt:
        doubt = (
            f"pixel_size_mm is {row.pixel_size_mm:g}, by which the section is {extent_mm:.3g} mm"
            " wide: divided by 1000 twice?"
        )
    return "; ".join([*of_metadata, *[doubt] * bool(doubt)])


def _tissue_mask(
    signal: Picture,
    row: SectionRow,
    noise: float,
    working_pixel_mm: float,
    file_from_working: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """The tissue mask on the working grid, found on a grid twice as fine where the file has it.

    Twice as fine, thin lines are still apart from tissue; any finer only costs time.
    """
    fine_mm = max(row.pixel_size_mm, working_pixel_mm / 2)
    file_from_fine, fine_shape = _file_px_from_working_px(row, signal.file_shape, fine_mm)
    fine = through_affine(signal, file_from_fine, fine_shape, fine_mm / row.pixel_size_mm)
    mask = tissue_mask(fine, fine_mm, working_pixel_mm, noise)
    return area_vote(mask, np.linalg.inv(file_from_fine) @ file_from_working, shape)
