"""`sbr resample`: the MRI plane of every section position, on the grid the stack's planes share.

Intensities are divided by the 99.9 % quantile of the masked MRI, so that planes of one brain
compare. A prealigned brain brings its planes itself; each is divided by its own quantile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sbr_core.algorithms.levels import level_of, plane_mask
from sbr_core.algorithms.planes import prefiltered_volume, resample_plane
from sbr_core.algorithms.sections import area_vote, grid_px, prefilter, resample_section
from sbr_core.artifacts.global_fit import read_plane_grid
from sbr_core.artifacts.names import MRI, MRI_MASK, PLANE_GRID, STACK_TRANSFORM, section_file
from sbr_core.artifacts.receipts import SectionResult, run_sections
from sbr_core.artifacts.rows import Plane, digest_of_file, fingerprint
from sbr_core.config import ResampleOptions
from sbr_core.errors import ConfigError, ImageError
from sbr_core.geometry import PlaneGrid, scaling, similarity_scale
from sbr_core.io.files import sha256_file
from sbr_core.io.images import read_labels, read_section
from sbr_core.io.manifests import SectionRow
from sbr_core.io.transforms import read_stack_from_world
from sbr_core.io.volumes import read_mask, read_volume, write_plane
from sbr_core.revisions import REVISION

_QUANTILE = 0.999
"""Of the masked intensities; the maximum itself would depend on a few voxels."""


_Plane = tuple[np.ndarray, np.ndarray, PlaneGrid]
"""Intensity (float32, 1 = the quantile), mask (bool) and grid of an MRI plane."""


def run(
    options: ResampleOptions,
    *,
    rows: Sequence[SectionRow],
    out_dir: Path,
    receipt: Path,
    align_dir: Path | None = None,
    mri: Path | None = None,
    mri_mask: Path | None = None,
    working_pixel_mm: float | None = None,
    strict: bool = False,
) -> None:
    """Compute the MRI plane and its mask of every section.

    The brain has a 3D MRI, with an alignment, or it is prealigned: its rows name ``mri_image``.

    Parameters
    ----------
    rows : manifest rows: a JSON list, its path (.json), or a manifest (.tsv).
    out_dir : folder the results go to.
    receipt : table to write: each section, its files and their sha256.
    align_dir : folder written by align; not of a prealigned brain.
    mri : MRI written by prepare-mri; not of a prealigned brain.
    mri_mask : mask written by prepare-mri; not of a prealigned brain.
    working_pixel_mm : pixel size of a prealigned brain, mm.
    strict : stop at the first section that cannot be used.

    Raises
    ------
    ConfigError
        Neither of the two is given whole.
    ImageError
        The MRI or its mask cannot be read. With `strict` also the first section without an MRI
        plane; otherwise such a section is ``failed`` in the receipt.
    """
    if align_dir is not None and mri is not None and mri_mask is not None:
        prealigned = False
        make, inputs = _planes_of_mri(options, align_dir, mri, mri_mask)
    elif working_pixel_mm is not None:
        prealigned = True
        make, inputs = _planes_of_rows(rows, working_pixel_mm), {"pixel": working_pixel_mm}
    else:
        raise ConfigError(
            "resample: expected --align-dir, --mri and --mri-mask, or --working-pixel-mm of a"
            " prealigned brain"
        )

    def process(row: SectionRow) -> SectionResult:
        image, mask, grid = make(row)
        if not mask.any():
            raise ImageError(
                f"section {row.section!r}: the MRI has no brain at position {row.position_mm:g} mm"
            )
        files = [section_file(out_dir, row.section, ending) for ending in (MRI, MRI_MASK)]
        write_plane(files[0], image.astype(np.float32), grid.spacing_mm)
        write_plane(files[1], mask.astype(np.uint8), grid.spacing_mm)
        return SectionResult(
            Plane(section=row.section, position_mm=row.position_mm, grid=grid), files
        )

    run_sections(
        {row.section: row for row in rows},
        stage="resample",
        out_dir=out_dir,
        receipt=receipt,
        fingerprint=lambda row: fingerprint(
            REVISION["resample"],
            options,
            position_mm=row.position_mm,
            pixel_size_mm=row.pixel_size_mm if row.mri_image else None,
            files=[digest_of_file(f) for f in (row.mri_image, row.mri_mask) if f and prealigned],
            inputs=inputs,
        ),
        process=process,
        strict=strict,
    )


def _planes_of_mri(
    options: ResampleOptions, align_dir: Path, mri: Path, mri_mask: Path
) -> tuple[Callable[[SectionRow], _Plane], dict[str, str]]:
    """How to cut a plane out of the 3D MRI, and the digests it depends on."""
    paths = {
        "similarity": align_dir / STACK_TRANSFORM,
        "grid": align_dir / PLANE_GRID,
        "mri": mri,
        "mri_mask": mri_mask,
    }
    stack_from_world = read_stack_from_world(paths["similarity"])
    grid, _ = read_plane_grid(paths["grid"])
    volume = read_volume(mri)
    inside = read_mask(mri_mask, volume).data
    spacing_world_mm = grid.spacing_mm / similarity_scale(stack_from_world)
    scale = float(np.quantile(volume.data[inside], _QUANTILE))
    if not scale > 0:
        raise ImageError(f"{mri}: its {_QUANTILE:.1%} quantile in the mask is {scale:g}, not > 0")
    image = prefiltered_volume(volume.data, volume.spacing_mm, spacing_world_mm) / scale
    # more than half of a pixel's surroundings in the mask
    share = prefiltered_volume(inside, volume.spacing_mm, spacing_world_mm)

    def make(row: SectionRow) -> _Plane:
        where = (volume.world_from_voxel, stack_from_world, grid, row.position_mm)
        return (
            resample_plane(image, *where, order=options.order),
            resample_plane(share, *where) > 0.5,
            grid,
        )

    return make, {name: sha256_file(path) for name, path in paths.items()}


def _planes_of_rows(
    rows: Sequence[SectionRow], working_pixel_mm: float
) -> Callable[[SectionRow], _Plane]:
    """How to bring a row's own MRI plane to working resolution."""
    first: dict[str, tuple] = {}
    for row in rows:  # the first that can be read; the others must be like it
        try:
            first["grid"] = row.section, read_section(Path(row.mri_image)).shape, row.pixel_size_mm
            break
        except ImageError:
            continue

    def make(row: SectionRow) -> _Plane:
        image = read_section(Path(row.mri_image))
        section, shape, pixel_mm = first["grid"]
        if image.shape != shape or row.pixel_size_mm != pixel_mm:
            raise ImageError(
                f"{row.mri_image}: section {row.section!r}: shape {image.shape} at"
                f" {row.pixel_size_mm:g} mm, expected {shape} at {pixel_mm:g} mm as in section"
                f" {section!r}"
            )
        mask = read_labels(Path(row.mri_mask), shape) > 0 if row.mri_mask else plane_mask(image)
        if mask is None:
            raise ImageError(
                f"{row.mri_image}: section {row.section!r}: has values of both signs, and no single"
                " one around the brain: give its mask (mri_mask)"
            )
        if mask.any():
            image = level_of(image, mask).applied(image, mask)
        scale = float(np.quantile(image[mask], _QUANTILE)) if mask.any() else 0.0
        if not scale > 0:
            raise ImageError(f"{row.mri_image}: section {row.section!r}: has no brain above 0")
        grid = PlaneGrid(shape, pixel_mm).at_spacing(working_pixel_mm)
        ratio = working_pixel_mm / pixel_mm  # both grids have pixel (0, 0) at plane mm (0, 0)
        sampled = resample_section(prefilter(image / scale, ratio), grid_px(grid.shape) * ratio)
        return sampled, area_vote(mask, scaling(ratio), grid.shape), grid

    return make
