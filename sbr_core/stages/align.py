"""`sbr align`: the 3D similarity between a stack and its MRI, and first affines of the sections."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.algorithms.alignment import (
    Brain,
    StackAlignment,
    StackSection,
    align_stack,
    candidate_orientations,
    overview_cuts,
)
from sbr_core.algorithms.section_affine import AffineLimits
from sbr_core.errors import ConfigError, ImageError
from sbr_core.geometry import similarity_scale
from sbr_core.io.manifests import write_tsv
from sbr_core.io.provenance import atomic_path, write_json, write_provenance
from sbr_core.io.receipts import file_of, matrix_columns, pixels_digest, read_table
from sbr_core.io.transforms import STACK_TRANSFORM, write_stack_from_world
from sbr_core.io.volumes import read_plane, read_volume
from sbr_core.stages import REVISION

if TYPE_CHECKING:
    from sbr_core.config import AlignOptions

_MIN_SECTIONS = 3


def run(
    options: AlignOptions,
    *,
    sections: Path,
    mri: Path,
    mri_mask: Path,
    orientation: str,
    working_pixel_mm: float,
    out_dir: Path,
) -> None:
    """Write the similarity, the plane grid, the sections' affines, quality and overview.

    Raises
    ------
    ConfigError
        Orientation letters that are none, or sections prepared at another pixel size.
    ImageError
        Fewer than three usable sections, or an MRI that cannot be read.
    """
    out_dir = Path(out_dir)
    try:
        (orientation_matrix,) = candidate_orientations(orientation)
    except ValueError as error:
        raise ConfigError(f"align: {error}") from None
    rows = sorted(read_table(sections), key=lambda r: r["position_mm"])
    if len(rows) < _MIN_SECTIONS:
        raise ImageError(
            f"{sections}: {len(rows)} usable sections, expected at least {_MIN_SECTIONS}"
        )
    other = [r for r in rows if abs(r["working_pixel_mm"] - working_pixel_mm) > 1e-9]
    if other:
        raise ConfigError(
            f"align: --working-pixel-mm {working_pixel_mm:g}, but section {other[0]['section']!r}"
            f" was prepared at {other[0]['working_pixel_mm']:g} mm"
        )
    stack = [
        StackSection(
            row["section"],
            read_plane(file_of(sections, row, "_image.nii.gz"))[0],
            read_plane(file_of(sections, row, "_mask.nii.gz"))[0] > 0,
            row["position_mm"],
        )
        for row in rows
    ]
    volume, mask = read_volume(mri), read_volume(mri_mask)
    if mask.data.shape != volume.data.shape:
        raise ImageError(
            f"{mri_mask}: shape {mask.data.shape} differs from the MRI's {volume.data.shape}"
        )
    brain = Brain(volume.data.astype(np.float32), mask.data > 0, volume.world_from_voxel)

    begin = time.monotonic()

    def progress(line: str) -> None:
        print(f"align: {time.monotonic() - begin:5.0f} s  {line}", file=sys.stderr, flush=True)

    found = align_stack(
        stack,
        working_pixel_mm,
        brain,
        orientation_matrix,
        spacing_mm=options.spacing_mm,
        rounds=options.rounds,
        max_rotation_deg=options.max_rotation_deg,
        limits=AffineLimits(),
        seed=options.seed,
        progress=progress,
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    _draw_overview(out_dir / "overview.png", stack, working_pixel_mm, brain, found)
    write_json(
        out_dir / "plane_grid.json",
        {
            "rows": found.grid.shape[0],
            "columns": found.grid.shape[1],
            "spacing_mm": found.grid.spacing_mm,
        },
    )
    write_tsv(
        out_dir / "sections_initial.tsv",
        [
            {
                "section": row["section"],
                "position_mm": row["position_mm"],
                # a section prepared otherwise since is one that this fit never saw
                "prepared": pixels_digest(row),
                **matrix_columns(affine, "a"),
            }
            for row, affine in zip(rows, found.working_from_plane_mm, strict=True)
        ],
    )
    write_stack_from_world(out_dir / STACK_TRANSFORM, found.stack_from_world)
    kept = [r for r in found.rounds if r["kept"]][-1]
    write_provenance(
        out_dir / "quality.json",
        stage="align",
        options=options.model_dump(mode="json"),
        inputs={"sections": Path(sections), "mri": Path(mri), "mri_mask": Path(mri_mask)},
        revision=REVISION["align"],
        orientation=orientation,
        n_sections=len(rows),
        world_mm_per_stack_mm=1 / similarity_scale(found.stack_from_world),
        rounds=found.rounds,
        mask_dice=kept["mask_dice"],
        mutual_information=kept["mutual_information"],
        seconds=round(time.monotonic() - begin, 1),
    )


def _draw_overview(
    path: Path,
    stack: list[StackSection],
    working_pixel_mm: float,
    brain: Brain,
    found: StackAlignment,
) -> None:
    """Three orthogonal cuts in stack space: MRI above, stack below, each with both outlines."""
    from matplotlib.figure import Figure

    cuts: list[dict[str, Any]] = overview_cuts(stack, working_pixel_mm, brain, found)
    figure = Figure(figsize=(4.5 * len(cuts), 7.5), layout="constrained")
    for column, cut in enumerate(cuts):
        for line, name in enumerate(("mri", "stack")):
            axes = figure.add_subplot(2, len(cuts), line * len(cuts) + column + 1)
            axes.imshow(cut[name], cmap="gray", extent=cut["extent_mm"], vmin=0)
            for mask, colour in (("mri_mask", "tab:cyan"), ("stack_mask", "tab:orange")):
                if cut[mask].any() and not cut[mask].all():
                    axes.contour(
                        cut[mask].astype(float), [0.5], colors=colour, linewidths=0.7,
                        extent=cut["extent_mm"], origin="upper",
                    )  # fmt: skip
            axes.set(title=f"{name}: {cut['title']}", xlabel=cut["x"], ylabel=cut["y"])
    figure.suptitle("outline of the MRI's brain: cyan; of the sections' tissue: orange")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90)
