"""`sbr registered`: each section on its MRI plane, with all its pixels, channels and colours.

Every pixel of the result is looked up once in the section's file, through the published transforms,
as `sbr apply` does it; the first pixel's centre is that of the plane's grid, at plane mm (0, 0).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sbr_core.artifacts import names
from sbr_core.artifacts.receipts import SectionResult, run_sections
from sbr_core.artifacts.rows import Full, Inferred, Prepared, Row, fingerprint, read_rows
from sbr_core.config import RegisteredOptions
from sbr_core.errors import ConfigError, ImageError, ReceiptError
from sbr_core.io.files import remove_tree
from sbr_core.io.ome_zarr import Streamed
from sbr_core.io.pyramids import scratch_picture, write_picture
from sbr_core.io.transforms import read_section_transform
from sbr_core.io.windows import open_windows
from sbr_core.mapping.grids import fill_image
from sbr_core.mapping.section_files import SectionFile
from sbr_core.mapping.streamed import stream_image
from sbr_core.revisions import REVISION


def run(
    options: RegisteredOptions,
    *,
    prepared: Path,
    sections: Path,
    out_dir: Path,
    receipt: Path,
    strict: bool = False,
) -> None:
    """Write each registered section with all its pixels, channels and colours.

    Parameters
    ----------
    prepared : receipt of prepare.
    sections : receipt of infer.
    out_dir : folder the images go to, in a folder sections.
    receipt : table to write: each section, its files and their sha256.
    strict : stop at the first section that cannot be used.

    Raises
    ------
    ConfigError
        No pixel size is asked for.
    ReceiptError
        A receipt that lacks a section of the other.
    """
    if options.pixel_mm is None:
        raise ConfigError("registered: pixel_mm: expected a number, mm, or file")

    def digest(pair: tuple[Prepared, Inferred] | str) -> str:
        if isinstance(pair, str):
            return fingerprint(REVISION["registered"], failed=pair)
        source, row = pair
        return fingerprint(
            REVISION["registered"], options, prepared=source.fingerprint, sections=row.fingerprint
        )

    run_sections(
        _pairs(prepared, sections),
        stage="registered",
        out_dir=out_dir,
        receipt=receipt,
        fingerprint=digest,
        process=lambda pair: register_section(options, pair, out_dir),
        strict=strict,
    )


def _pairs(prepared: Path, sections: Path) -> Mapping[str, tuple[Prepared, Inferred] | str]:
    """Section -> its rows of `prepare` and of `infer`, or why it has none."""
    sources = {row.section: row for row in read_rows(prepared, Prepared, verify=False)}
    rows: list[Row] = read_rows(sections, Inferred, only_ok=False, verify=False)
    pairs: dict[str, tuple[Prepared, Inferred] | str] = {}
    for row in rows:
        if not isinstance(row, Inferred):
            pairs[row.section] = row.message
        elif row.section in sources:
            pairs[row.section] = sources[row.section], row
        else:
            raise ReceiptError(f"{prepared}: section {row.section!r} is not in it")
    return pairs


def register_section(
    options: RegisteredOptions, pair: tuple[Prepared, Inferred] | str, out_dir: Path
) -> SectionResult:
    """Write the image of one section.

    Raises
    ------
    ImageError
        A stage before could not do the section, or its file is no longer what `prepare` saw.
    """
    if isinstance(pair, str):
        raise ImageError(pair)
    began = time.monotonic()
    source, row = pair
    is_tiff = options.format == "ome-tiff"
    tiff = names.section_file(out_dir, source.section, names.FULL_TIFF)
    root = names.section_file(out_dir, source.section, names.FULL_ZARR)
    pixel_mm = source.pixel_size_mm if options.pixel_mm == "file" else options.pixel_mm
    transform = read_section_transform(row.intact(names.SECTION_TO_STACK))
    with open_windows(Path(source.image)) as windows:
        file = SectionFile.of(source, transform, windows)
        pixels, lookup = file.pixels(row.grid, pixel_mm), file.lookup
        dtype = np.dtype(np.uint8) if lookup.dtype.kind == "b" else lookup.dtype.newbyteorder("=")
        shape = (*pixels.shape, lookup.channels)
        if is_tiff:
            out = scratch_picture(tiff.parent, shape, dtype, windows.is_colour)
            for _ in fill_image(pixels, lookup, out):
                pass
            write_picture(
                tiff,
                out,
                photometric=windows.photometric,
                pixel_mm=pixel_mm,
                names=windows.names,
            )
        else:
            facts = {"section": source.section, "position_mm": source.position_mm}
            image = Streamed(
                (shape[2], *shape[:2]),
                dtype,
                (pixel_mm, pixel_mm),
                windows.photometric,
                windows.names,
                facts=facts,
            )
            stream_image(root.parent, pixels, lookup, image)
        # of another format, asked for before
        remove_tree(root.parent if is_tiff else tiff)
    full = Full(
        section=source.section,
        position_mm=source.position_mm,
        image_rows=shape[0],
        image_columns=shape[1],
        channels=shape[2],
        pixel_mm=pixel_mm,
        seconds=round(time.monotonic() - began, 3),
    )
    return SectionResult(full, [tiff if is_tiff else root])
