"""`sbr align-sections`: one 2D affine per section to its MRI plane, which is the `linear` result.

`align` has seen most sections; its affine is start and prior. A section that it never saw, or that
was prepared anew since (flipped, scanned again), starts from the stretch and rotation of its
neighbours in position, with its tissue centred on the MRI's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.algorithms.alignment.brain_size import resized
from sbr_core.algorithms.alignment.section_affine import (
    AffineLimits,
    MaskedImage,
    fit_section_affine,
)
from sbr_core.algorithms.alignment.stack import tissue_centre_mm
from sbr_core.algorithms.alignment.stretch import stretch_of, with_stretch
from sbr_core.algorithms.sections import (
    area_vote,
    grid_px,
    prefilter,
    resample_section,
)
from sbr_core.artifacts.receipts import (
    SectionResult,
    file_of,
    matrix_columns,
    matrix_of,
    pixels_digest,
    read_table,
    run_sections,
)
from sbr_core.artifacts.section_signal import read_signal
from sbr_core.errors import ConfigError, ImageError
from sbr_core.geometry import PlaneGrid, apply, scaling
from sbr_core.io.files import read_json, sha256_file, sha256_of
from sbr_core.io.volumes import read_plane, write_plane
from sbr_core.revisions import REVISION

if TYPE_CHECKING:
    from sbr_core.config import AlignSectionsOptions

_SEEN_SIGMAS_PX = (4.0, 2.0, 1.0)
_UNSEEN_SIGMAS_PX = (10.0, 5.0, 2.0, 1.0)
_SMALLEST_SIGMA_MM = 0.4  # anatomy that two contrasts share is no finer, in a human brain


def run(
    options: AlignSectionsOptions,
    *,
    prepared: Path,
    planes: Path,
    out_dir: Path,
    receipt: Path,
    align_dir: Path | None = None,
    prealigned: bool = False,
    strict: bool = False,
) -> None:
    """Fit one 2D affine per section: the linear result.

    Parameters
    ----------
    prepared : receipt of prepare.
    planes : receipt of resample, same chunk.
    out_dir : folder the results go to.
    receipt : table to write: each section, its files and their sha256.
    align_dir : folder written by align; not needed with `prealigned`, whose affines only undo what
        prepare did to the file's grid.
    prealigned : the sections lie on their MRI planes already.
    strict : stop at the first section that cannot be used.

    Raises
    ------
    ConfigError
        No `align_dir` for a brain that is not prealigned.
    ReceiptError
        A file is not what its receipt says.
    """
    if align_dir is None and not prealigned:
        raise ConfigError("align-sections: expected --align-dir, or --prealigned")
    out_dir = Path(out_dir)
    seen, enlargement = [], 1.0
    if not prealigned:
        seen = read_initial(Path(align_dir) / "sections_initial.tsv")
        grid_file = read_json(Path(align_dir) / "plane_grid.json")
        enlargement = float(grid_file.get("enlargement", 1.0))
    plane_rows = {r["section"]: r for r in read_table(planes, only_ok=False)}
    items = {
        row["section"]: (row, plane_rows.get(row["section"]))
        for row in read_table(prepared, only_ok=False)
    }

    def fingerprint(item: tuple[dict[str, Any], dict[str, Any] | None]) -> str:
        row, plane = item
        if row["status"] != "ok":
            return ""
        image = Path(row["image"])
        return sha256_of(
            {
                "options": options.model_dump(mode="json"),
                "revision": REVISION["align_sections"],
                "prepared": row["files"] | {"row": row["fingerprint"]},
                "image": sha256_file(image) if image.is_file() else "",
                "plane": plane["files"] if plane else {},
                "enlargement": enlargement,
                "start": [a.tolist() for a in _neighbours(row, seen)[0]] if seen else [],
            }
        )

    def process(item: tuple[dict[str, Any], dict[str, Any] | None]) -> SectionResult:
        row, plane = item
        for stage, found in (("prepare", row), ("resample", plane)):
            if found is None or found["status"] != "ok":
                reason = found["message"] if found else "it is not in the receipt of its planes"
                raise ImageError(f"section {row['section']!r}: {stage}: {reason}")
        mask = read_plane(file_of(prepared, row, "_mask.nii.gz"))[0] > 0
        grid = PlaneGrid((int(plane["rows"]), int(plane["columns"])), float(plane["spacing_mm"]))
        section_from_working = np.array(matrix_of(row, "g"))
        if prealigned:
            _check_same_grid(row, grid)
            affine = np.linalg.inv(section_from_working)
            figures = {"cost": None, "prior_cost": None, "moved_mm": 0.0}
        else:
            affine, figures = _fit(
                options, row, prepared, plane, planes, mask, grid, seen, enlargement
            )
        paths = [out_dir / "sections" / f"{row['section']}_{k}.nii.gz" for k in _FILES]
        write_plane(
            paths[0], _linear_image(row, section_from_working @ affine, grid), grid.spacing_mm
        )
        working_px_from_plane_px = (
            scaling(1 / row["working_pixel_mm"]) @ affine @ grid.plane_mm_from_px
        )
        linear_mask = area_vote(mask, working_px_from_plane_px, grid.shape)
        write_plane(paths[1], linear_mask.astype(np.uint8), grid.spacing_mm)
        columns = {k: row.get(k, "") for k in ("position_mm", "stain", "channel")}
        columns |= {**matrix_columns(affine, "a"), **figures}
        return SectionResult(columns, paths)

    run_sections(
        items,
        stage="align-sections",
        out_dir=out_dir,
        receipt=receipt,
        fingerprint=fingerprint,
        process=process,
        strict=strict,
    )


_FILES = ("linear", "linearmask")


def _check_same_grid(row: Mapping[str, Any], grid: PlaneGrid) -> None:
    """ImageError when a prealigned section's image and MRI plane are of different shapes."""
    file = PlaneGrid((int(row["file_rows"]), int(row["file_columns"])), float(row["pixel_size_mm"]))
    if file.at_spacing(grid.spacing_mm).shape != grid.shape:
        raise ImageError(
            f"{row['image']}: section {row['section']!r}: shape {file.shape}, but its mri_image has"
            " another; a prealigned section lies on the grid of its plane"
        )


def read_initial(path: Path) -> list[dict[str, Any]]:
    """Rows of ``sections_initial.tsv``, sorted by position, each with its 3x3 ``affine``."""
    from sbr_core.io.tables import read_tsv

    rows = [
        {
            "section": text["section"],
            "position_mm": float(text["position_mm"]),
            "prepared": text.get("prepared", ""),
            "affine": np.array(matrix_of(text, "a")),
        }
        for text in read_tsv(path)[1]
    ]
    return sorted(rows, key=lambda r: r["position_mm"])


def _neighbours(
    row: Mapping[str, Any], seen: Sequence[Mapping[str, Any]]
) -> tuple[list[np.ndarray], list[float], bool]:
    """(affines, weights, own): the section's own affine, or those on either side in position."""
    for other in seen:
        if other["section"] == row["section"] and other["prepared"] == pixels_digest(row):
            return [other["affine"]], [1.0], True
    others = [o for o in seen if o["section"] != row["section"]]
    if not others:
        raise ImageError(f"section {row['section']!r}: align has seen no other section to start by")
    z = float(row["position_mm"])
    below = [o for o in others if o["position_mm"] <= z][-1:]
    above = [o for o in others if o["position_mm"] > z][:1]
    if not (below and above):
        return [(below or above)[0]["affine"]], [1.0], False
    share = (z - below[0]["position_mm"]) / (above[0]["position_mm"] - below[0]["position_mm"])
    return [below[0]["affine"], above[0]["affine"]], [1 - share, share], False


def interpolated_start(
    affines: Sequence[np.ndarray],
    weights: Sequence[float],
    section_centre_mm: np.ndarray,
    plane_centre_mm: np.ndarray,
) -> np.ndarray:
    """(3, 3) with the mean rotation and stretch of `affines` that joins two centres of tissue.

    Parameters
    ----------
    affines, weights : working_from_plane_mm of neighbours; the weights sum to 1.
    section_centre_mm, plane_centre_mm : (2,) centroid of the tissue, working mm, and of the
        MRI's plane, plane mm.
    """
    parts = [stretch_of(a[:2, :2]) for a in affines]
    angles = np.unwrap([np.arctan2(r[1, 0], r[0, 0]) for r, _ in parts])
    angle = float(np.dot(weights, angles))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    log_stretch = np.tensordot(weights, np.array([log for _, log in parts]), axes=1)
    matrix = np.eye(3)
    matrix[:2, :2] = with_stretch(rotation, log_stretch)
    matrix[:2, 2] = section_centre_mm - matrix[:2, :2] @ plane_centre_mm
    return matrix


def _fit(
    options: AlignSectionsOptions,
    row: Mapping[str, Any],
    prepared: Path,
    plane: Mapping[str, Any],
    planes: Path,
    mask: np.ndarray,
    grid: PlaneGrid,
    seen: Sequence[Mapping[str, Any]],
    enlargement: float,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The affine of one section, and the figures of its fit.

    Parameters
    ----------
    enlargement : what makes a millimetre one of a human brain (`brain_size`).
    """
    image = read_plane(file_of(prepared, row, "_image.nii.gz"))[0]
    mri = read_plane(file_of(planes, plane, "_mri.nii.gz"))[0]
    mri_mask = read_plane(file_of(planes, plane, "_mrimask.nii.gz"))[0] > 0
    working_pixel_mm = float(row["working_pixel_mm"])
    affines, weights, own = _neighbours(row, seen)
    start = affines[0]
    if not own:
        start = interpolated_start(
            affines,
            weights,
            tissue_centre_mm(mask, working_pixel_mm),
            tissue_centre_mm(mri_mask, grid.spacing_mm),
        )
    sigmas_px = _SEEN_SIGMAS_PX if own else _UNSEEN_SIGMAS_PX
    spacing_mm = grid.spacing_mm * enlargement
    fit = fit_section_affine(
        MaskedImage(image, mask, working_pixel_mm * enlargement),
        MaskedImage(mri, mri_mask, spacing_mm),
        resized(start, enlargement),
        limits=AffineLimits(options.max_scale_change, options.max_shear, options.prior_weight),
        sigmas_mm=tuple(max(s * spacing_mm, _SMALLEST_SIGMA_MM) for s in sigmas_px),
    )
    figures = {
        "cost": fit.cost,
        "prior_cost": fit.prior_cost,
        "moved_mm": fit.moved_mm / enlargement,
    }
    return resized(fit.working_from_plane_mm, 1 / enlargement), figures


def _linear_image(
    row: Mapping[str, Any], section_from_plane_mm: np.ndarray, grid: PlaneGrid
) -> np.ndarray:
    """The file's image on the plane grid, tissue bright, interpolated once."""
    file_px_from_plane_px = (
        scaling(1 / float(row["pixel_size_mm"])) @ section_from_plane_mm @ grid.plane_mm_from_px
    )
    ratio = float(np.sqrt(abs(np.linalg.det(file_px_from_plane_px[:2, :2]))))
    signal = read_signal(row, ratio * float(row["pixel_size_mm"]))
    px = apply(signal.px_from_file_px @ file_px_from_plane_px, grid_px(grid.shape))
    return resample_section(prefilter(signal.pixels, ratio / signal.mean_step), px)
